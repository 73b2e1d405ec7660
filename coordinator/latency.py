"""How far members are from each region, in groups, for pools that steer by latency. Pure.

Round trips are those that agents smoothed (their digests). Groups change in what is published only
when they have differed for some digests of the region in a row, and seldom: a round trip that
moves about must not move clients about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gtm.model import Resources, Steering
from gtm.state import LatencyGroup, PoolState
from gtm.units import Duration

from .events import Digest
from .evidence import Evidence
from .targets import Targets

DIGESTS = 3
"""In so many digests of a region in a row its groups must differ from those published."""
PAUSE_MS = 60_000
"""The least time between two changes of one pool's groups."""
TOLERANCE = "10ms"
"""What counts as equally far where the steering does not say."""

Groups = tuple[LatencyGroup, ...]
NO_GROUPS: Mapping[str, Groups] = MappingProxyType({})


@lru_cache(maxsize=1024)
def tolerance_us(steering: Steering) -> int | None:
    """What counts as equally far, in microseconds; None for steering by anything but latency."""
    if steering.type != "latency":
        return None
    given = msgspec.json.decode(steering.options).get("tolerance", TOLERANCE)
    return Duration.parse(given).ms * 1000


def tolerances(resources: Resources) -> dict[str, int]:
    """The pools whose groups somebody asks for: a pool's own steering goes before its tiers'."""
    found: dict[str, int] = {}
    for name, pool in resources.pools.items():
        if (own := tolerance_us(pool.steering)) is not None:
            found[name] = own
    for instance in resources.instances.values():
        for rule in instance.rules:
            for tier in rule.tiers:
                if (among := tolerance_us(tier.steering)) is not None:
                    for name in tier.names():
                        found.setdefault(name, among)
    return found


def grouped(rtts_us: Iterable[tuple[str, int]], tolerance: int) -> Groups:
    """Members in groups, the nearest first: within `tolerance` of the least of their group.

    Inside a group they stand as they came; a round trip of 0 is unknown and left out.
    """
    known = [(value, rtt) for value, rtt in rtts_us if rtt > 0]
    groups: list[LatencyGroup] = []
    while known:
        least = min(rtt for _, rtt in known)
        near = tuple(value for value, rtt in known if rtt <= least + tolerance)
        groups.append(LatencyGroup(rtt_us=least, members=near))
        known = [(value, rtt) for value, rtt in known if rtt > least + tolerance]
    return tuple(groups)


class _Differing(Struct, frozen=True):
    """What a region's digests say, and how many of them in a row said other than is published."""

    digests: int
    groups: Groups


class Latency:
    """The groups as they should be published, by pool and region."""

    def __init__(self, targets: Targets, evidence: Evidence) -> None:
        self._targets, self._evidence = targets, evidence
        self._resources = Resources()
        self._tolerance: dict[str, int] = {}
        self._groups: dict[str, dict[str, Groups]] = {}
        self._differ: dict[str, dict[str, _Differing]] = {}  # by pool and region
        self._changed_ms: dict[str, int] = {}

    def restore(self, pools: Mapping[str, PoolState]) -> None:
        """Take the groups that the store has."""
        self._groups = {name: dict(state.latency) for name, state in pools.items() if state.latency}
        self._differ.clear()

    def configure(self, resources: Resources) -> set[str]:
        """Take over a configuration; the pools whose groups nobody asks for any more."""
        self._resources, self._tolerance = resources, tolerances(resources)
        wanted = self._tolerance.keys() & resources.pools.keys()
        over = {name for name in self._groups if name not in wanted}
        self._groups = {name: one for name, one in self._groups.items() if name in wanted}
        self._changed_ms = {name: at for name, at in self._changed_ms.items() if name in wanted}
        self._differ = {name: one for name, one in self._differ.items() if name in wanted}
        return over

    def of_pool(self, pool: str) -> Mapping[str, Groups]:
        """The groups of a pool, by region."""
        return self._groups.get(pool, NO_GROUPS)

    def digest(self, event: Digest, now_ms: int) -> list[str]:
        """Look at what a digest told (it stands in the evidence already); whose groups change."""
        if not self._tolerance:
            return []
        capacity = self._targets.capacity
        heard = np.zeros(capacity, dtype=bool)
        heard[event.target[(event.target >= 0) & (event.target < capacity)]] = True
        return [
            name
            for name in sorted(self._tolerance)
            if name in self._resources.pools and self._looked_at(name, event.region, heard, now_ms)
        ]

    def _looked_at(self, name: str, region: str, heard: NDArray[np.bool_], now_ms: int) -> bool:
        numbers = [
            [number for key in keys if (number := self._targets.number(key)) is not None]
            for keys in self._targets.of_pool(name)
        ]
        if not any(heard[number] for of_address in numbers for number in of_address):
            return False
        found = grouped(
            (
                (address.value, self._evidence.rtt_us(region, of_address))
                for address, of_address in zip(
                    self._resources.pools[name].addresses, numbers, strict=True
                )
            ),
            self._tolerance[name],
        )
        published = self._groups.get(name, {}).get(region, ())
        differ = self._differ.setdefault(name, {})
        if not found or _members(found) == _members(published):
            differ.pop(region, None)
            return False
        before = differ.get(region)
        differ[region] = _Differing(1 if before is None else before.digests + 1, found)
        last_ms = self._changed_ms.get(name)
        due = {where: one for where, one in differ.items() if one.digests >= DIGESTS}
        if region not in due or (last_ms is not None and now_ms - last_ms < PAUSE_MS):
            return False
        self._changed_ms[name] = now_ms
        after = self._groups.get(name, {}) | {where: one.groups for where, one in due.items()}
        self._groups[name] = dict(sorted(after.items()))
        for where in due:
            del differ[where]
        return True


def _members(groups: Groups) -> tuple[tuple[str, ...], ...]:
    return tuple(group.members for group in groups)
