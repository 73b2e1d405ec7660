"""Setting a region aside: its trouble must not look like everybody's. Pure.

A region of whose targets nearly all turned to failing inside one window, while the other regions
see them well, is set aside: its votes count as none. Seen well is what others probed successfully
*after* the region's failures began, so that whoever sees a real outage first is not doubted for it.
The region counts again when it sees few failures for two intervals, or when the others have come
to see the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gtm.state import Aside

from .events import FAILURE, SUCCESS, Now, PublishAside
from .evidence import COVERED_MS, Evidence, Region
from .hysteresis import DOWN
from .targets import Targets

LEAST = 5
"""Targets that must have turned to failing, and that the others must know."""
WINDOW_MS = 60_000
"""The window, or the longest grace of the region's targets where that is longer."""
LONGEST_WAIT_MS = 60_000
"""The interval that counts at most for the two of quiet."""

Mask = NDArray[np.bool_]
Numbers = NDArray[np.intp]


class Seen(Struct, frozen=True):
    """What one region sees of some targets, row by row: `began` is when the failures did."""

    failing: Mask
    known: Mask
    began: NDArray[np.int64]


class Asides:
    """The regions that are set aside."""

    def __init__(self, targets: Targets, evidence: Evidence) -> None:
        self._targets, self._evidence = targets, evidence
        self.standing: dict[str, Aside] = {}
        self._quiet_ms: dict[str, int] = {}

    def restore(self, stored: Mapping[str, Aside]) -> None:
        """Take what the store has."""
        self.standing, self._quiet_ms = dict(stored), {}

    def suspects(self, region: str, numbers: Numbers) -> bool:
        """Whether votes of a region on `numbers` that changed just now ask for a look at it."""
        place = self._evidence.regions.get(region)
        return (
            place is not None
            and region not in self.standing
            and bool((place.vote[numbers] == DOWN).any())
        )

    def look(self, regions: Iterable[str], voting: Iterable[str], now: Now) -> list[PublishAside]:
        """Judge `regions` again, out of those that vote; who is set aside now, or no more."""
        there = frozenset(voting)
        effects = [self._end(name) for name in sorted(self.standing.keys() - there)]
        for name in sorted(there.intersection(regions)):
            if name in self.standing:
                if self._recovers(name, now):
                    effects.append(self._end(name))
            elif text := self._trouble(name, now):
                self.standing[name] = Aside(text=text, since=now.wall_s)
                effects.append(PublishAside(region=name, record=self.standing[name]))
        return effects

    def _end(self, name: str) -> PublishAside:
        del self.standing[name]
        self._quiet_ms.pop(name, None)
        return PublishAside(region=name, record=None)

    # ---- one region ----------------------------------------------------------------------------

    def _trouble(self, name: str, now: Now) -> str:
        """Why a region is to be set aside; "": it is not."""
        place = self._evidence.regions.get(name)
        if place is None or name in self._evidence.silenced or _plainly_well(place):
            return ""
        numbers = self._targets.of_region(name)
        seen = see(place, numbers)
        window_ms = max(WINDOW_MS, int(self._targets.columns.grace[numbers].max(initial=0)))
        turned = seen.failing & (now.mono_ms - seen.began <= window_ms)
        before = np.count_nonzero(seen.failing & ~turned)
        count, of = np.count_nonzero(turned), np.count_nonzero(seen.known) - before
        if count < LEAST or 5 * count < 4 * of:
            return ""
        well, ill = self._others(name, numbers[turned], seen.began[turned])
        if well + ill < LEAST or 2 * (well + ill) < count or 5 * ill >= well + ill:
            return ""
        return f"{count} of {of} targets turned to failing there while others see {well} of them up"

    def _recovers(self, name: str, now: Now) -> bool:
        place, numbers = self._evidence.regions.get(name), self._targets.of_region(name)
        if place is None or numbers.size == 0:
            self._quiet_ms.pop(name, None)
            return False
        seen = see(place, numbers)
        failing, known = np.count_nonzero(seen.failing), np.count_nonzero(seen.known)
        if failing >= LEAST:
            rows = seen.failing
            well, ill = self._others(name, numbers[rows], seen.began[rows])
            if well + ill >= LEAST and 2 * (well + ill) >= failing and ill >= well:
                return True  # the others see it too: it was right
        if known == 0 or 5 * failing >= known:
            self._quiet_ms.pop(name, None)
            return False
        since_ms = self._quiet_ms.setdefault(name, now.mono_ms)
        interval_ms = int(self._targets.columns.interval[numbers].max())
        return now.mono_ms - since_ms >= 2 * min(interval_ms, LONGEST_WAIT_MS)

    def _others(self, name: str, numbers: Numbers, began: NDArray[np.int64]) -> tuple[int, int]:
        """How many of `numbers` the other regions together see well, and how many ill.

        A success counts when it came after `began`; as many ill as well regions make it ill.
        """
        well = np.zeros(len(numbers), dtype=np.int32)
        ill = np.zeros(len(numbers), dtype=np.int32)
        for other, place in self._evidence.regions.items():
            if other == name or other in self._evidence.silenced or other in self.standing:
                continue
            votes = np.isin(numbers, self._targets.of_region(other))
            seen = see(place, numbers)
            heard = np.max([a.heard[numbers] for a in place.agents.values()], axis=0, initial=-1)
            well += votes & seen.known & ~seen.failing & (heard > began + COVERED_MS)
            ill += votes & seen.failing
        known = well + ill > 0
        return int((known & (well > ill)).sum()), int((known & (well <= ill)).sum())


def _plainly_well(place: Region) -> bool:
    """Whether so few failures stand that nothing else needs to be looked at; cheap.

    Of several agents more than half fail where a region does.
    """
    counts = [
        (int(np.count_nonzero(agent.last == FAILURE)), int(np.count_nonzero(agent.last == SUCCESS)))
        for agent in place.agents.values()
    ]
    failing, well = sum(ill for ill, _ in counts), sum(well for _, well in counts)
    least = 4 if len(counts) == 1 else 2
    return bool(failing < LEAST or 5 * failing < least * (failing + well))


def see(place: Region, numbers: Numbers) -> Seen:
    """What a region's agents saw last of `numbers`; of several agents the majority."""
    fails = np.zeros(len(numbers), dtype=np.int32)
    heard = np.zeros(len(numbers), dtype=np.int32)
    began = np.full(len(numbers), np.iinfo(np.int64).max, dtype=np.int64)
    for agent in place.agents.values():
        last = agent.last[numbers]
        failing = last == FAILURE
        fails += failing
        heard += failing | (last == SUCCESS)
        began = np.where(failing, np.minimum(began, agent.began[numbers]), began)
    return Seen(failing=2 * fails > heard, known=heard > 0, began=began)
