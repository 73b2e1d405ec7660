"""The results that wait for coordinators: one bounded log, read by each stream at its own place.

A result has a position, counted from 0 without gaps. Rows that every stream has had acknowledged
are let go; when the log is full the oldest goes, and is counted as dropped.
"""

from __future__ import annotations

from msgspec import Struct

from .probes.base import Identity, Outcome


class ProbeResult(Struct, frozen=True):
    """What one probe found out; `ended_ms` is of the agent's monotonic clock.

    `patience_ms` is how long it may wait for others to travel with: 0 where it may turn a vote.
    """

    identity: Identity
    outcome: Outcome
    ended_ms: int
    patience_ms: int = 0


class ResultLog:
    """At most `bound` results in the order in which their probes ended."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._rows: dict[int, ProbeResult] = {}
        self.first = 0
        """Position of the oldest row kept."""
        self.end = 0
        """Position that the next row gets."""
        self.dropped = 0
        """Rows that went because the log was full, in all."""

    def __len__(self) -> int:
        return self.end - self.first

    def append(self, result: ProbeResult) -> None:
        """Add the newest result."""
        if len(self) >= self._bound:
            del self._rows[self.first]
            self.first += 1
            self.dropped += 1
        self._rows[self.end] = result
        self.end += 1

    def read(self, position: int, limit: int) -> tuple[list[ProbeResult], int]:
        """At most `limit` rows from `position` on without those gone, and where they end."""
        start = max(position, self.first)
        end = min(self.end, start + limit)
        return [self._rows[place] for place in range(start, end)], end

    def release(self, position: int) -> None:
        """Let go of every row before `position`."""
        while self.first < min(position, self.end):
            del self._rows[self.first]
            self.first += 1
