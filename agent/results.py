"""The results that wait for coordinators: one bounded log, read by each stream at its own place.

A result has a position, counted from 0. Rows that every stream has had acknowledged are let go.
When the log is full the oldest *repeat* goes, a result that says what the ones before it said and
turned no vote; without any the oldest row. So what happened stays, and the rhythm in which nothing
happened goes first. Both are counted.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from .probes.base import Identity, Outcome

SPAN = 8
"""Positions that the log reaches over, as a multiple of its bound: what is older goes, so that a
reader never has to look for long for what is left."""


class ProbeResult(Struct, frozen=True):
    """What one probe found out; `ended_ms` is of the agent's monotonic clock.

    `patience_ms` is how long it may wait for others to travel with: 0 where it may turn a vote.
    `repeat`: its streak was long enough before, so that it turned nothing.
    """

    identity: Identity
    outcome: Outcome
    ended_ms: int
    patience_ms: int = 0
    repeat: bool = False


class ResultLog:
    """At most `bound` results in the order in which their probes ended."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._rows: dict[int, ProbeResult] = {}
        self._repeats: deque[int] = deque()  # positions; some may be gone
        self.first = 0
        """No row kept has a position before it."""
        self.end = 0
        """Position that the next row gets."""
        self.dropped_repeats = 0
        """Repeats that went because the log was full, in all."""
        self.dropped_turns = 0
        """Other rows that went because the log was full, in all."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dropped(self) -> int:
        """Rows that went because the log was full, in all."""
        return self.dropped_repeats + self.dropped_turns

    def append(self, result: ProbeResult) -> None:
        """Add the newest result."""
        if len(self._rows) >= self._bound:
            self._drop()
        while self.end - self.first >= SPAN * self._bound:
            self._forget_first()
        self._rows[self.end] = result
        if result.repeat:
            self._repeats.append(self.end)
        self.end += 1

    def read(self, position: int, limit: int) -> tuple[list[ProbeResult], int]:
        """At most `limit` rows from `position` on without those gone, and where they end.

        Looks at SPAN x `limit` positions at most, so that there may be none although more follow.
        """
        rows: list[ProbeResult] = []
        place = max(position, self.first)
        stop = min(self.end, place + SPAN * limit)
        while place < stop and len(rows) < limit:
            row = self._rows.get(place)
            if row is not None:
                rows.append(row)
            place += 1
        return rows, place

    def release(self, position: int) -> None:
        """Let go of every row before `position`."""
        while self.first < min(position, self.end):
            self._rows.pop(self.first, None)
            self.first += 1
        while self._repeats and self._repeats[0] < self.first:
            self._repeats.popleft()

    def _drop(self) -> None:
        while self._repeats:
            place = self._repeats.popleft()
            if self._rows.pop(place, None) is not None:
                self.dropped_repeats += 1
                return
        while self._forget_first() is None:
            pass

    def _forget_first(self) -> ProbeResult | None:
        """Drop what is at the first position, and go on to the next."""
        gone = self._rows.pop(self.first, None)
        self.first += 1
        if gone is not None:
            self.dropped_turns += 1
        return gone
