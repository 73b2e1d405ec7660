"""When each target is probed: spread by hash, free of drift, eager while nothing is known.

Decides due times and nothing else; the runner asks it what is due and tells it what ended. Times
are milliseconds of any one monotonic clock, handed in. The slots of a target lie at
`phase + k x interval`: a late probe moves no later one, a restart or another assignment changes no
phase. A slot that passed while the target was still being probed, or while the agent slept, is
skipped and counted, never made up for.

The phase is a stable hash of the target on the clock of a coordinator (`align`), plus this agent's
part of the interval: agent j of m in region r of R begins (r + j/m) / R of it later than the first,
so that all agents of all regions together probe a target evenly. Until a coordinator told its
clock, the phase is a stable hash of agent and target on the agent's own. Where the clock or the
part moves, the slots of each target move as its next one is due: by half an interval at most, so
that no target is probed twice in short order or left alone for long.

While the agent has no opinion on a target its slots lie min(interval, 1 s) apart, the first one
within that time of its arrival. Beside its slots a target may be wanted at once (`hasten`). However
wanted, two probes of a target begin at least its `gap_ms` apart, for each agent of the region.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator

from .probes.base import Identity

EAGER_MS = 1000
"""The longest interval while there is no opinion on a target."""
SLACK_MS = 50
"""A probe that began no more than this late does not put the next one off by being late."""
NEVER_MS = 1 << 62
"""When nothing is due."""


def spread(agent_id: str, identity: Identity) -> int:
    """A stable 64-bit hash of agent and target (BLAKE2b): equal in every process and version.

    The version of IP that is wanted of a name does not matter.
    """
    text = "\0".join((agent_id, *map(str, identity[:5])))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


class _Entry:
    __slots__ = (
        "again_ms",
        "begun_ms",
        "busy",
        "due_ms",
        "eager",
        "extra_ms",
        "gap_ms",
        "identity",
        "interval_ms",
        "live",
        "own",
        "shared",
        "slot",
        "slot_ms",
        "slots",
    )

    def __init__(self, identity: Identity, agent_id: str) -> None:
        self.identity = identity
        self.own, self.shared = spread(agent_id, identity), spread("", identity)
        self.interval_ms = 0
        self.gap_ms = 0
        self.slot, self.slots = 0, 0
        self.slot_ms = NEVER_MS  # the next slot
        self.extra_ms = NEVER_MS  # wanted then beside the slots
        self.again_ms = NEVER_MS  # wanted then, once the probe under way has ended
        self.due_ms = NEVER_MS
        self.begun_ms = -NEVER_MS
        self.eager = True
        self.busy = False
        self.live = True

    @property
    def period_ms(self) -> int:
        return min(self.interval_ms, EAGER_MS) if self.eager else self.interval_ms


class Schedule:
    """The due times of all targets of one agent."""

    def __init__(self, agent_id: str) -> None:
        self._agent_id = agent_id
        self._entries: dict[Identity, _Entry] = {}
        self._heap: list[tuple[int, int, _Entry]] = []
        self._count = 0
        self._base_ms: int | None = None
        self._rank, self._agents = 0, 1
        self.skipped = 0
        """Regular slots that passed unused, in all."""
        self.deferred = 0
        """Probes put off because the former one of their target began too lately, in all."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, identity: object) -> bool:
        return identity in self._entries

    def align(self, base_ms: int | None, rank: int, agents: int) -> None:
        """The shared clock shows 0 at `base_ms`; this is agent `rank` of `agents` in its region."""
        self._base_ms = base_ms
        self._rank, self._agents = rank, max(1, agents)

    def set(
        self,
        identity: Identity,
        interval_ms: int,
        now_ms: int,
        *,
        gap_ms: int = 0,
        slot: int = 0,
        slots: int = 0,
    ) -> None:
        """Add a target (eager), or give it another timing; else nothing changes.

        `gap_ms` is the least time between two probes of the region's agents; `slot` of `slots` is
        the region's part of the interval (0 of 0: not known).
        """
        entry = self._entries.get(identity)
        if entry is None:
            entry = self._entries[identity] = _Entry(identity, self._agent_id)
        entry.gap_ms, entry.slot, entry.slots = gap_ms, slot, slots
        if entry.interval_ms != interval_ms:
            entry.interval_ms = interval_ms
            entry.slot_ms = self._slot_after(entry, now_ms)
            self._push(entry)

    def remove(self, identity: Identity) -> None:
        """Forget a target."""
        entry = self._entries.pop(identity, None)
        if entry is not None:
            entry.live = False

    def hasten(self, identity: Identity, at_ms: int) -> bool:
        """Probe a target at `at_ms` beside its slots; whether a probe under way must end first."""
        entry = self._entries.get(identity)
        if entry is None:
            return False
        if entry.busy:
            entry.again_ms = min(entry.again_ms, at_ms)
        elif at_ms < entry.extra_ms:
            entry.extra_ms = at_ms
            self._push(entry)
        return entry.busy

    def due(self, now_ms: int) -> Iterator[Identity]:
        """The targets to probe now, the longest due first; each is busy until `ended`."""
        while self._heap and self._heap[0][0] <= now_ms:
            due_ms, _, entry = heapq.heappop(self._heap)
            if not entry.live or entry.due_ms != due_ms:
                continue  # removed, or moved since
            if entry.slot_ms <= now_ms:
                self._pass(entry, now_ms)
            if entry.busy:
                self._push(entry)
                continue
            entry.extra_ms = NEVER_MS
            free_ms = entry.begun_ms + entry.gap_ms * self._agents
            if free_ms > now_ms:
                self.deferred += 1
                entry.extra_ms = free_ms
                self._push(entry)
                continue
            self._push(entry)
            entry.busy = True
            entry.begun_ms = max(due_ms, free_ms, now_ms - SLACK_MS)
            yield entry.identity

    def ended(self, identity: Identity, now_ms: int, opinion: bool) -> None:
        """The probe of a target ended, and the agent has an `opinion` on it or not."""
        entry = self._entries.get(identity)
        if entry is None:
            return
        entry.busy = False
        moved = False
        if entry.again_ms != NEVER_MS:
            entry.extra_ms, entry.again_ms = max(now_ms, entry.again_ms), NEVER_MS
            moved = True
        if entry.eager == opinion:
            entry.eager = not opinion
            entry.slot_ms = self._slot_after(entry, now_ms)
            moved = True
        if moved:
            self._push(entry)

    def next_ms(self) -> int | None:
        """When something is due next; None without targets."""
        while self._heap and not (
            self._heap[0][2].live and self._heap[0][2].due_ms == self._heap[0][0]
        ):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    # ---- slots ---------------------------------------------------------------------------------

    def _slot_after(self, entry: _Entry, now_ms: int) -> int:
        """The first slot later than `now_ms`."""
        period = entry.period_ms
        if self._base_ms is None or not entry.slots:
            phase = entry.own
        else:
            parts = entry.slots * self._agents
            part = entry.slot * self._agents + self._rank
            phase = self._base_ms + entry.shared + period * part // parts
        return now_ms + 1 + (phase - now_ms - 1) % period

    def _pass(self, entry: _Entry, now_ms: int) -> None:
        """The entry's slot has come: find the next one, and count those that passed unused."""
        period = entry.period_ms
        missed = (now_ms - entry.slot_ms) // period
        last_ms = entry.slot_ms + missed * period
        # Half a period on: the slots may have moved a little since, to either side.
        entry.slot_ms = max(self._slot_after(entry, last_ms + period // 2), now_ms + 1)
        self._skip(entry, missed + (1 if entry.busy else 0))

    def _skip(self, entry: _Entry, slots: int) -> None:
        if not entry.eager:
            self.skipped += slots

    def _push(self, entry: _Entry) -> None:
        entry.due_ms = due_ms = min(entry.slot_ms, entry.extra_ms)
        self._count += 1
        heapq.heappush(self._heap, (due_ms, self._count, entry))
        if len(self._heap) > 2 * len(self._entries) + 64:  # mostly entries that moved: sweep
            self._heap = [item for item in self._heap if item[2].live and item[2].due_ms == item[0]]
            heapq.heapify(self._heap)
