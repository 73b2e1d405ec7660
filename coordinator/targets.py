"""Which targets there are: from the configuration to numbers, timing columns and assignments. Pure.

A target is what an address that is probed and one of its checks make together; a domain member's
address is its name. It has a number, which is its row in every column. A changed probe (type, port,
options, version of IP) gets a new number, so that results of the old probe can never count for the
new one; numbers out of use rest before they return.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Struct
from numpy.typing import NDArray

from gtm.model import Address, Check, Mode, Pool, Resources, target_port
from gtm.units import Duration

from .events import TargetKey
from .quorum import Electorate, electorate
from .views import Assigned

REUSE_AFTER_MS = 600_000
"""How long a number out of use rests: far longer than any stream keeps an old assignment."""
FIRST_CAPACITY = 64
UNPROBED: frozenset[Mode] = frozenset({"online", "offline"})
"""Modes of addresses that nobody probes."""

Numbers = NDArray[np.intp]


@lru_cache(maxsize=4096)
def _probe_ms(type_: str, options: str, timeout_ms: int) -> int:
    if type_ != "ping":
        return timeout_ms
    settings: dict[str, Any] = msgspec.json.decode(options)
    spacing = Duration.parse(settings.get("spacing", "100ms"))
    return int((settings.get("packets", 20) - 1) * spacing.ms + timeout_ms)


def probe_ms(check: Check) -> int:
    """The longest that one probe takes; ping's timeout is for each of its packets."""
    return _probe_ms(check.type, check.options, check.timeout.ms)


def grace_ms(check: Check) -> int:
    """How long an opinion counts after the last result."""
    return 3 * check.interval.ms + probe_ms(check)


@lru_cache(maxsize=65536)
def _digest(type_: str, port: int, options: str, ip_version: str) -> str:
    said = f"{type_} {port} {options}{ip_version}"
    return blake2b(said.encode(), digest_size=8).hexdigest()


def probe_digest(check: Check, port: int) -> str:
    """What tells one probe from another in stored verdicts."""
    version = "" if check.ip_version == "auto" else f" ip{check.ip_version}"
    version += "" if check.answering == "any" else " all"
    return _digest(check.type, port, check.options, version)


def gap_ms(check: Check, regions: int) -> int:
    """The least time from one probe of a target to the next by the agents of one region; 0: none.

    `max_probe_rate` is for all regions together: each gets an equal part of it.
    """
    if check.max_probe_rate is None:
        return 0
    return math.ceil(1000 * max(1, regions) / check.max_probe_rate)


def keys_of(pool: Pool, address: Address, checks: Mapping[str, Check]) -> tuple[TargetKey, ...]:
    """The targets of one address of `pool`; none for addresses whose mode says not to probe."""
    if address.mode in UNPROBED:
        return ()
    return tuple(
        TargetKey(name, address.value, target_port(checks[name], address))
        for name in address.checked_by(pool)
        if name in checks
    )


def checks_of(pool: Pool) -> tuple[str, ...]:
    """The checks that judge some address of `pool`, each once."""
    own = (name for one in pool.addresses if one.checks is not UNSET for name in one.checks)
    return tuple(dict.fromkeys((*pool.checks, *own)))


class Columns:
    """Timing by target number; rows of numbers out of use have `max_age` -1, so nothing counts."""

    def __init__(self, capacity: int) -> None:
        self.interval: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)
        self.max_age: NDArray[np.int64] = np.full(capacity, -1, dtype=np.int64)
        self.grace: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)
        self.fall: NDArray[np.int32] = np.ones(capacity, dtype=np.int32)
        self.rise: NDArray[np.int32] = np.ones(capacity, dtype=np.int32)
        self.confirm: NDArray[np.bool_] = np.zeros(capacity, dtype=bool)
        self.check: NDArray[np.int32] = np.zeros(capacity, dtype=np.int32)
        self.scratch: NDArray[np.int32] = np.zeros(capacity, dtype=np.int32)

    def grown(self, capacity: int) -> Columns:
        """A copy with room for `capacity` targets."""
        result = Columns(capacity)
        for name, column in vars(self).items():
            getattr(result, name)[: len(column)] = column
        return result


class Changes(Struct, frozen=True, kw_only=True):
    """What a new configuration did to targets; `moved` maps old numbers to new ones.

    `retimed` are numbers whose check changed in anything but the probe, its electorate included;
    `pools` those that are new, have changed, or name other targets than before.
    """

    pools: tuple[str, ...] = ()
    added: tuple[TargetKey, ...] = ()
    removed: tuple[tuple[TargetKey, int], ...] = ()
    moved: tuple[tuple[int, int], ...] = ()
    retimed: tuple[int, ...] = ()


class _Named(Struct, frozen=True):
    """A pool as it was last seen, its checks with their ports, and each address's targets."""

    pool: Pool
    checks: tuple[str, ...]
    ports: tuple[int | None, ...]
    keys: tuple[tuple[TargetKey, ...], ...]


class Targets:
    """The targets of the configuration that is judged."""

    def __init__(self) -> None:
        self.version = 0
        self.columns = Columns(FIRST_CAPACITY)
        self.pools_of: dict[TargetKey, tuple[str, ...]] = {}
        self._assigned: dict[TargetKey, Assigned] = {}
        self._named: dict[str, _Named] = {}
        self._checks: dict[str, tuple[Check, Electorate]] = {}
        self._places: dict[str, int] = {}  # of checks in use, in `columns.check`
        self._free: list[int] = []
        self._uses: Counter[str] = Counter()
        self._key: list[TargetKey | None] = []
        self._resting: deque[tuple[int, int]] = deque()
        self._voted_version = -1
        self._voted: dict[str, Numbers] = {}
        self._voting: frozenset[str] = frozenset()
        self._rated: tuple[tuple[str, Check, Electorate], ...] = ()

    @property
    def capacity(self) -> int:
        """The length of every column indexed by target number."""
        return len(self.columns.interval)

    def assigned(self) -> Mapping[TargetKey, Assigned]:
        """Every target and how to probe it; read-only."""
        return MappingProxyType(self._assigned)

    def of_pool(self, pool: str) -> tuple[tuple[TargetKey, ...], ...]:
        """The targets of each address of a pool, in the order of its addresses."""
        return self._named[pool].keys

    def number(self, key: TargetKey) -> int | None:
        """The number of a target; None where nobody names it."""
        found = self._assigned.get(key)
        return None if found is None else found.number

    def __contains__(self, key: TargetKey) -> bool:
        return key in self._assigned

    def key(self, number: int) -> TargetKey:
        """The target that has `number` now."""
        key = self._key[number]
        if key is None:
            raise KeyError(number)
        return key

    def check(self, key: TargetKey) -> Check:
        """The check of a target."""
        return self._checks[key.check][0]

    def electorate(self, key: TargetKey) -> Electorate:
        """Who votes on a target."""
        return self._checks[key.check][1]

    def numbers(self) -> Numbers:
        """All numbers in use."""
        return np.flatnonzero(self.columns.max_age >= 0)

    def voting(self) -> frozenset[str]:
        """Every region that some target's check names."""
        self._refresh()
        return self._voting

    def rated(self) -> tuple[tuple[str, Check, Electorate], ...]:
        """Every check with a `max_probe_rate` that some target has, and who votes on it."""
        self._refresh()
        return self._rated

    def _refresh(self) -> None:
        """Begin anew what is worked out once for each set of targets."""
        if self._voted_version != self.version:
            self._voted_version, self._voted = self.version, {}
            self._voting = frozenset(
                region for name in self._uses for region in self._checks[name][1].regions
            )
            self._rated = tuple(
                (name, *self._checks[name])
                for name in sorted(self._uses)
                if self._checks[name][0].max_probe_rate is not None
            )

    def by_check(self, numbers: Numbers) -> Iterator[tuple[str, Electorate, Numbers]]:
        """`numbers` in groups of one check, with its name and those who vote on it."""
        if numbers.size == 0:
            return
        place = self.columns.check[numbers]
        order = np.argsort(place, kind="stable")
        place, numbers = place[order], numbers[order]
        for group in np.split(numbers, np.flatnonzero(np.diff(place)) + 1):
            name = self.key(int(group[0])).check
            yield name, self._checks[name][1], group

    def of_region(self, region: str) -> Numbers:
        """The numbers of the targets on which a region votes."""
        self._refresh()
        found = self._voted.get(region)
        if found is None:
            places = [
                self._places[name]
                for name, (_, who) in self._checks.items()
                if name in self._places and region in who.regions
            ]
            numbers = self.numbers()
            found = numbers[np.isin(self.columns.check[numbers], places)]
            self._voted[region] = found
        return found

    # ---- a new configuration -----------------------------------------------------------------

    def update(self, resources: Resources, met: frozenset[str], now_ms: int) -> Changes:
        """Take over a configuration; what the columns of others must do is in the answer.

        Work is in proportion to the pools and checks that changed.
        """
        everybody = tuple(resources.regions) or tuple(met)
        checks = {
            name: (check, electorate(check, everybody)) for name, check in resources.checks.items()
        }
        other = {name for name, value in checks.items() if self._checks.get(name) != value}
        pools, looked_at = self._name(resources)
        if places := [self._places[name] for name in other if name in self._places]:
            numbers = self.numbers()
            numbers = numbers[np.isin(self.columns.check[numbers], places)]
            looked_at |= {self.key(number): None for number in numbers.tolist()}
        self._checks = checks

        added: list[TargetKey] = []
        removed: list[tuple[TargetKey, int]] = []
        moved: list[tuple[int, int]] = []
        retimed: list[int] = []
        for key in looked_at:
            was = self._assigned.get(key)
            if key not in self.pools_of:
                if was is not None:
                    removed.append((key, self._release(key, now_ms)))
                continue
            check = checks[key.check][0]
            if was is None:
                self._assign(key, self._allot(key, now_ms))
                added.append(key)
            elif (was.type, was.options, was.ip_version, was.answering) != (
                check.type,
                check.options,
                check.ip_version,
                check.answering,
            ):
                self._release(key, now_ms)
                number = self._allot(key, now_ms)
                self._assign(key, number)
                moved.append((was.number, number))
            elif key.check in other:
                self._assign(key, was.number)
                retimed.append(was.number)
        if added or removed or moved or retimed:
            self.version += 1
            self._time([*added, *map(self.key, retimed), *(self.key(new) for _, new in moved)])
        return Changes(
            pools=tuple(pools),
            added=tuple(added),
            removed=tuple(removed),
            moved=tuple(moved),
            retimed=tuple(retimed),
        )

    def _name(self, resources: Resources) -> tuple[list[str], dict[TargetKey, None]]:
        """Note which pools name which targets; the pools that changed, and all their targets."""
        changed: list[str] = []
        looked_at: dict[TargetKey, None] = {}
        for name in [name for name in self._named if name not in resources.pools]:
            looked_at |= self._unname(name)
        for name, pool in resources.pools.items():
            was = self._named.get(name)
            named = was.checks if was is not None and was.pool is pool else checks_of(pool)
            ports = tuple(
                resources.checks[one].port if one in resources.checks else None for one in named
            )
            if was is not None:
                if was.ports == ports and (was.pool is pool or was.pool == pool):
                    continue
                looked_at |= self._unname(name)
            changed.append(name)
            keys = tuple(keys_of(pool, address, resources.checks) for address in pool.addresses)
            self._named[name] = _Named(pool, named, ports, keys)
            for key in dict.fromkeys(key for of_address in keys for key in of_address):
                self.pools_of[key] = tuple(sorted((*self.pools_of.get(key, ()), name)))
                looked_at[key] = None
        return changed, looked_at

    def _unname(self, pool: str) -> dict[TargetKey, None]:
        keys = dict.fromkeys(key for of_address in self._named.pop(pool).keys for key in of_address)
        for key in keys:
            rest = tuple(name for name in self.pools_of[key] if name != pool)
            if rest:
                self.pools_of[key] = rest
            else:
                del self.pools_of[key]
        return keys

    def _assign(self, key: TargetKey, number: int) -> None:
        check, who = self._checks[key.check]
        self._assigned[key] = Assigned(
            number=number,
            key=key,
            type=check.type,
            options=check.options,
            interval_ms=check.interval.ms,
            timeout_ms=check.timeout.ms,
            fall=check.fall,
            rise=check.rise,
            gap_ms=gap_ms(check, len(who.regions)),
            regions=who.regions,
            ip_version=check.ip_version,
            answering=check.answering,
        )

    def _time(self, keys: Iterable[TargetKey]) -> None:
        """Write the timing of their checks into the rows of `keys`."""
        rows: dict[str, list[int]] = {}
        for key in keys:
            rows.setdefault(key.check, []).append(self._assigned[key].number)
        columns = self.columns
        for name, numbers in rows.items():
            check = self._checks[name][0]
            columns.check[numbers] = self._places[name]
            columns.interval[numbers] = check.interval.ms
            columns.max_age[numbers] = 2 * check.interval.ms
            columns.grace[numbers] = grace_ms(check)
            columns.fall[numbers] = check.fall
            columns.rise[numbers] = check.rise
            columns.confirm[numbers] = check.confirm

    def _allot(self, key: TargetKey, now_ms: int) -> int:
        self._uses[key.check] += 1
        if key.check not in self._places:
            self._places[key.check] = self._free.pop() if self._free else len(self._places)
        if self._resting and now_ms - self._resting[0][0] >= REUSE_AFTER_MS:
            number = self._resting.popleft()[1]
            self._key[number] = key
            return number
        self._key.append(key)
        if len(self._key) > self.capacity:
            self.columns = self.columns.grown(2 * self.capacity)
        return len(self._key) - 1

    def _release(self, key: TargetKey, now_ms: int) -> int:
        self._uses[key.check] -= 1
        if not self._uses[key.check]:
            del self._uses[key.check]
            self._free.append(self._places.pop(key.check))
        number = self._assigned.pop(key).number
        self._key[number] = None
        self.columns.max_age[number] = -1
        self.columns.confirm[number] = False
        self._resting.append((now_ms, number))
        return number
