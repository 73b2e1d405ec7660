"""Agents' recent results as runs of equal outcomes, for backtests: a bounded ring in memory. Pure.

A target that is well for a day is one run for each agent; only what changes takes room. What a
digest said is not in it: it has no single results. Restarted, a coordinator begins with nothing.

    per agent and target 13 bytes: the run that goes on     (at most MAX_CELLS: 52 MB)
    per run that ended   19 bytes: in the ring              (at most MAX_RUNS:  19 MB)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from .events import NO_OPINION, SUCCESS, Frame, TargetKey
from .hysteresis import rounds
from .views import Assigned

MAX_RUNS = 1_000_000
"""Runs that ended, of all targets."""
MAX_TARGET_RUNS = 5_000
"""Runs that ended, of one target; beyond it the older half of them goes."""
MAX_CELLS = 4_000_000
"""Agents times targets; the results of further agents are not kept, and counted."""
UNIT_MS = 10
"""Instants are kept in so many milliseconds since the ring began: 497 days."""

_RUN = np.dtype(
    [
        ("target", "u4"),
        ("source", "u2"),
        ("outcome", "u1"),
        ("count", "u4"),
        ("began", "u4"),
        ("ended", "u4"),
    ]
)
Numbers = NDArray[np.intp]


class Runs(Struct, frozen=True, kw_only=True):
    """One target's runs as columns: ages in milliseconds of their first and last results."""

    agents: tuple[str, ...]
    agent: list[int]
    outcome: list[int]
    count: list[int]
    began_ms: list[int]
    ended_ms: list[int]


class _Source:
    """The runs of one agent that go on, by target number."""

    def __init__(self, number: int, capacity: int) -> None:
        self.number = number
        self.last: NDArray[np.int8] = np.zeros(capacity, dtype=np.int8)
        self.count: NDArray[np.uint32] = np.zeros(capacity, dtype=np.uint32)
        self.began: NDArray[np.uint32] = np.zeros(capacity, dtype=np.uint32)
        self.heard: NDArray[np.uint32] = np.zeros(capacity, dtype=np.uint32)

    def columns(self) -> tuple[NDArray[Any], ...]:
        return (self.last, self.count, self.began, self.heard)

    def grow(self, capacity: int) -> None:
        more = capacity - len(self.last)
        self.last, self.count, self.began, self.heard = (
            np.pad(column, (0, more)) for column in self.columns()
        )


class Recent:
    """The ring; feed it with `assigned` and `take`."""

    def __init__(self, max_runs: int = MAX_RUNS, max_cells: int = MAX_CELLS) -> None:
        self.dropped = 0
        """Runs that were lost for want of room, and rows of agents that found none."""
        self._max_cells = max_cells
        self._ring = np.zeros(max_runs, dtype=_RUN)
        self._at = 0
        self._sources: dict[str, _Source] = {}
        self._keys: dict[int, TargetKey] = {}
        self._began_ms: int | None = None
        self._held: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._scratch: NDArray[np.int32] = np.zeros(0, dtype=np.int32)

    @property
    def size_bytes(self) -> int:
        """Memory of all columns."""
        cells = sum(column.nbytes for one in self._sources.values() for column in one.columns())
        return int(self._ring.nbytes + self._held.nbytes + self._scratch.nbytes + cells)

    @property
    def runs(self) -> int:
        """Runs that ended and are kept."""
        return int(np.count_nonzero(self._ring["outcome"]))

    # ---- fed -----------------------------------------------------------------------------------

    def assigned(self, targets: Mapping[TargetKey, Assigned]) -> None:
        """There are these targets now; what other numbers meant is forgotten."""
        now = {one.number: key for key, one in targets.items()}
        gone = [number for number, key in self._keys.items() if now.get(number) != key]
        if gone:
            numbers = np.array(gone, dtype=np.intp)
            self._ring["outcome"][np.isin(self._ring["target"], numbers)] = 0
            self._held[numbers] = 0
            for source in self._sources.values():
                for column in source.columns():
                    column[numbers] = 0
        self._keys = now
        capacity = max(now, default=-1) + 1
        if capacity > len(self._held):
            capacity = max(capacity, 2 * len(self._held))
            self._held = np.pad(self._held, (0, capacity - len(self._held)))
            self._scratch = np.zeros(capacity, dtype=np.int32)
            for source in self._sources.values():
                source.grow(capacity)

    def take(self, event: Frame, grace_ms: NDArray[np.int64], now_ms: int) -> None:
        """Take results in; `grace_ms` by target number: a longer silence ends a run."""
        if self._began_ms is None:
            self._began_ms = now_ms - 3_600_000  # results may be older than the ring
        known = len(self._held)
        sound = (event.outcome >= SUCCESS) & (event.outcome <= NO_OPINION)
        sound &= (event.target >= 0) & (event.target < known)
        ended = (now_ms - event.age_ms.astype(np.int64) - self._began_ms) // UNIT_MS
        sound &= ended > 0
        source = self._source(f"{event.region}/{event.agent}")
        if source is None:
            self.dropped += len(event.target)
            return
        chosen = np.flatnonzero(sound)
        target, outcome = event.target[chosen], event.outcome[chosen].astype(np.int8)
        ended = ended[chosen]
        for rows in rounds(target, self._scratch):
            self._add(source, target[rows], outcome[rows], ended[rows], grace_ms)

    def _source(self, name: str) -> _Source | None:
        source = self._sources.get(name)
        if source is None:
            if (len(self._sources) + 1) * max(1, len(self._held)) > self._max_cells:
                return None
            source = self._sources[name] = _Source(len(self._sources), len(self._held))
        return source

    def _add(
        self,
        source: _Source,
        where: NDArray[Any],
        what: NDArray[np.int8],
        when: NDArray[np.int64],
        grace_ms: NDArray[np.int64],
    ) -> None:
        heard = source.heard[where].astype(np.int64)
        fresh = when > heard  # not one that a repeated frame told of before
        where, what, when, heard = where[fresh], what[fresh], when[fresh], heard[fresh]
        goes_on = (source.last[where] == what) & ((when - heard) * UNIT_MS <= grace_ms[where])
        ends = ~goes_on & (source.last[where] != 0)
        if ends.any():
            self._end(source, where[ends])
        begins = where[~goes_on]
        source.began[begins] = when[~goes_on]
        source.count[begins] = 0
        source.last[where] = what
        source.heard[where] = when
        source.count[where] += 1

    def _end(self, source: _Source, where: NDArray[Any]) -> None:
        rows = np.zeros(len(where), dtype=_RUN)
        rows["target"], rows["source"] = where, source.number
        rows["outcome"], rows["count"] = source.last[where], source.count[where]
        rows["began"], rows["ended"] = source.began[where], source.heard[where]
        rows = rows[-len(self._ring) :]
        places = (self._at + np.arange(len(rows))) % len(self._ring)
        former = self._ring[places]
        alive = former["target"][former["outcome"] != 0]
        np.subtract.at(self._held, alive, 1)
        self.dropped += len(alive)
        self._ring[places] = rows
        self._at = int((self._at + len(rows)) % len(self._ring))
        np.add.at(self._held, rows["target"], 1)
        for number in np.unique(where[self._held[where] > MAX_TARGET_RUNS]).tolist():
            self._thin(number)

    def _thin(self, number: int) -> None:
        """Let go of the older half of a target's runs."""
        places = np.flatnonzero((self._ring["target"] == number) & (self._ring["outcome"] != 0))
        order = np.argsort((places - self._at) % len(self._ring))
        old = places[order[: len(places) // 2]]
        self._ring["outcome"][old] = 0
        self._held[number] -= len(old)
        self.dropped += len(old)

    # ---- asked ---------------------------------------------------------------------------------

    def of_check(self, check: str) -> list[TargetKey]:
        """The targets of a check, in order."""
        return sorted(key for key in self._keys.values() if key.check == check)

    def runs_of(
        self, keys: Iterable[TargetKey], now_ms: int, since_ms: int
    ) -> dict[TargetKey, Runs]:
        """The runs of targets that ended in the last `since_ms`, or go on; by target."""
        wanted = set(keys)
        numbers = {number: key for number, key in self._keys.items() if key in wanted}
        if not numbers or self._began_ms is None:
            return {}
        closed = self._ring[np.isin(self._ring["target"], list(numbers))]
        rows = [closed[closed["outcome"] != 0]]
        some = np.array(list(numbers), dtype=np.intp)
        for source in self._sources.values():
            here = some[source.last[some] != 0]
            open_ = np.zeros(len(here), dtype=_RUN)
            open_["target"], open_["source"] = here, source.number
            open_["outcome"], open_["count"] = source.last[here], source.count[here]
            open_["began"], open_["ended"] = source.began[here], source.heard[here]
            rows.append(open_)
        all_ = np.concatenate(rows)
        now = (now_ms - self._began_ms) // UNIT_MS
        all_ = all_[now - all_["ended"].astype(np.int64) <= since_ms // UNIT_MS]
        all_ = all_[np.lexsort((all_["began"], all_["target"]))]
        agents = tuple(self._sources)
        found: dict[TargetKey, Runs] = {}
        starts = np.flatnonzero(np.diff(all_["target"].astype(np.int64), prepend=-1))
        for part in np.split(all_, starts[1:]):
            if len(part):
                found[numbers[int(part["target"][0])]] = Runs(
                    agents=agents,
                    agent=part["source"].tolist(),
                    outcome=part["outcome"].tolist(),
                    count=part["count"].tolist(),
                    began_ms=((now - part["began"].astype(np.int64)) * UNIT_MS).tolist(),
                    ended_ms=((now - part["ended"].astype(np.int64)) * UNIT_MS).tolist(),
                )
        return found
