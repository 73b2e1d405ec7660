"""When each target is probed: spread by hash, free of drift, eager while nothing is known.

Decides due times and nothing else; the runner asks it what is due and tells it what ended. Times
are milliseconds of any one monotonic clock, handed in. The slots of a target lie at
`phase + k x interval`, the phase a stable hash of agent and target: a late probe moves no later
one, a restart or another assignment changes no phase. A slot that passed while the target was
still being probed, or while the agent slept, is skipped and counted, never made up for.

While the agent has no opinion on a target its slots lie min(interval, 1 s) apart, the first one
within that time of its arrival.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator

from .probes.base import Identity

EAGER_MS = 1000
"""The longest interval while there is no opinion on a target."""


def spread(agent_id: str, identity: Identity) -> int:
    """A stable 64-bit hash of agent and target (BLAKE2b): equal in every process and version.

    The version of IP that is wanted of a name does not matter.
    """
    text = "\0".join((agent_id, *map(str, identity[:5])))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


class _Entry:
    __slots__ = ("busy", "due_ms", "eager", "hash", "identity", "interval_ms", "live")

    def __init__(self, identity: Identity, hash_: int, interval_ms: int) -> None:
        self.identity = identity
        self.hash = hash_
        self.interval_ms = interval_ms
        self.due_ms = 0
        self.eager = True
        self.busy = False
        self.live = True

    @property
    def period_ms(self) -> int:
        return min(self.interval_ms, EAGER_MS) if self.eager else self.interval_ms

    def slot_after(self, now_ms: int) -> int:
        """The first slot later than `now_ms`."""
        period = self.period_ms
        phase = self.hash % period
        return now_ms + 1 + (phase - now_ms - 1) % period


class Schedule:
    """The due times of all targets of one agent."""

    def __init__(self, agent_id: str) -> None:
        self._agent_id = agent_id
        self._entries: dict[Identity, _Entry] = {}
        self._heap: list[tuple[int, int, _Entry]] = []
        self._count = 0
        self.skipped = 0
        """Regular slots that passed unused, in all."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, identity: object) -> bool:
        return identity in self._entries

    def set(self, identity: Identity, interval_ms: int, now_ms: int) -> None:
        """Add a target (eager), or give it another interval; else nothing changes."""
        entry = self._entries.get(identity)
        if entry is None:
            entry = _Entry(identity, spread(self._agent_id, identity), interval_ms)
            self._entries[identity] = entry
        elif entry.interval_ms == interval_ms:
            return
        entry.interval_ms = interval_ms
        self._push(entry, entry.slot_after(now_ms))

    def remove(self, identity: Identity) -> None:
        """Forget a target."""
        entry = self._entries.pop(identity, None)
        if entry is not None:
            entry.live = False

    def due(self, now_ms: int) -> Iterator[Identity]:
        """The targets to probe now, the longest due first; each is busy until `ended`."""
        while self._heap and self._heap[0][0] <= now_ms:
            due_ms, _, entry = heapq.heappop(self._heap)
            if not entry.live or entry.due_ms != due_ms:
                continue  # removed, or moved since
            following = due_ms + entry.period_ms
            if following <= now_ms:
                missed = (now_ms - due_ms) // entry.period_ms
                following += missed * entry.period_ms
                self._skip(entry, missed)
            self._push(entry, following)
            if entry.busy:
                self._skip(entry, 1)
                continue
            entry.busy = True
            yield entry.identity

    def ended(self, identity: Identity, now_ms: int, opinion: bool) -> None:
        """The probe of a target ended, and the agent has an `opinion` on it or not."""
        entry = self._entries.get(identity)
        if entry is None:
            return
        entry.busy = False
        if entry.eager == opinion:
            entry.eager = not opinion
            self._push(entry, entry.slot_after(now_ms))

    def next_ms(self) -> int | None:
        """When something is due next; None without targets."""
        while self._heap and not (
            self._heap[0][2].live and self._heap[0][2].due_ms == self._heap[0][0]
        ):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _skip(self, entry: _Entry, slots: int) -> None:
        if not entry.eager:
            self.skipped += slots

    def _push(self, entry: _Entry, due_ms: int) -> None:
        entry.due_ms = due_ms
        self._count += 1
        heapq.heappush(self._heap, (due_ms, self._count, entry))
        if len(self._heap) > 2 * len(self._entries) + 64:  # mostly entries that moved: sweep
            self._heap = [item for item in self._heap if item[2].live and item[2].due_ms == item[0]]
            heapq.heapify(self._heap)
