"""Which targets there are: from the configuration to numbers, timing columns and assignments. Pure.

A target is what a smart address and one of its pool's checks make together. It has a number, which
is its row in every column. A changed probe (type, port, options) gets a new number, so that results
of the old probe can never count for the new one; numbers out of use rest before they return.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gtm.model import Address, Check, Pool, Resources, target_port
from gtm.units import Duration

from .events import TargetKey
from .quorum import Electorate, electorate
from .views import Assigned

REUSE_AFTER_MS = 600_000
"""How long a number out of use rests: far longer than any stream keeps an old assignment."""
FIRST_CAPACITY = 64
_NOBODY = Electorate(regions=(), voters=1, downs=1, share="")


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
def _digest(type_: str, port: int, options: str) -> str:
    return blake2b(f"{type_} {port} {options}".encode(), digest_size=8).hexdigest()


def probe_digest(check: Check, port: int) -> str:
    """What tells one probe from another in stored verdicts."""
    return _digest(check.type, port, check.options)


def keys_of(pool: Pool, address: Address, checks: Mapping[str, Check]) -> tuple[TargetKey, ...]:
    """The targets of one address of `pool`; none for addresses whose mode is not smart."""
    if address.mode != "smart":
        return ()
    return tuple(
        TargetKey(name, address.value, target_port(checks[name], address))
        for name in pool.checks
        if name in checks
    )


class Columns:
    """Timing by target number; rows of numbers out of use have `max_age` -1, so nothing counts."""

    def __init__(self, capacity: int) -> None:
        self.interval: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)
        self.max_age: NDArray[np.int64] = np.full(capacity, -1, dtype=np.int64)
        self.grace: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)
        self.fall: NDArray[np.int32] = np.ones(capacity, dtype=np.int32)
        self.rise: NDArray[np.int32] = np.ones(capacity, dtype=np.int32)
        self.check: NDArray[np.int32] = np.zeros(capacity, dtype=np.int32)
        self.electorate: NDArray[np.int32] = np.zeros(capacity, dtype=np.int32)
        self.scratch: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)

    def grown(self, capacity: int) -> Columns:
        """A copy with room for `capacity` targets."""
        result = Columns(capacity)
        for name, column in vars(self).items():
            getattr(result, name)[: len(column)] = column
        return result


class Changes(Struct, frozen=True, kw_only=True):
    """What a new configuration did to targets; `moved` maps old numbers to new ones.

    `thresholds`: other fall or rise; `rejudged`: other electorate.
    """

    added: tuple[TargetKey, ...] = ()
    removed: tuple[tuple[TargetKey, int], ...] = ()
    moved: tuple[tuple[int, int], ...] = ()
    thresholds: NDArray[np.intp]
    rejudged: NDArray[np.intp]


class Targets:
    """The targets of the configuration that is judged."""

    def __init__(self) -> None:
        self.version = 0
        self.columns = Columns(FIRST_CAPACITY)
        self.electorates: list[Electorate] = [_NOBODY]
        self.check_names: list[str] = []
        self.pools_of: dict[TargetKey, tuple[str, ...]] = {}
        self._assigned: dict[TargetKey, Assigned] = {}
        self._checks: dict[str, tuple[Check, Electorate]] = {}
        self._key: list[TargetKey | None] = []
        self._resting: deque[tuple[int, int]] = deque()

    @property
    def capacity(self) -> int:
        """The length of every column indexed by target number."""
        return len(self.columns.interval)

    def assigned(self) -> Mapping[TargetKey, Assigned]:
        """Every target and how to probe it; read-only."""
        return MappingProxyType(self._assigned)

    def number(self, key: TargetKey) -> int | None:
        """The number of a target; None where nobody names it."""
        found = self._assigned.get(key)
        return None if found is None else found.number

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

    def numbers(self) -> NDArray[np.intp]:
        """All numbers in use."""
        return np.flatnonzero(self.columns.max_age >= 0)

    def update(self, resources: Resources, met: frozenset[str], now_ms: int) -> Changes:
        """Take over a configuration; what the columns of others must do is in the answer."""
        everybody = tuple(resources.regions) or tuple(met)
        checks = {
            name: (check, electorate(check, everybody)) for name, check in resources.checks.items()
        }
        named: dict[TargetKey, list[str]] = {}
        for pool_name, pool in resources.pools.items():
            for address in pool.addresses:
                for key in keys_of(pool, address, resources.checks):
                    named.setdefault(key, []).append(pool_name)

        removed = tuple(
            (key, self._release(key, now_ms)) for key in list(self._assigned) if key not in named
        )
        other = {name for name, value in checks.items() if self._checks.get(name) != value}
        added: list[TargetKey] = []
        moved: list[tuple[int, int]] = []
        touched: list[int] = []
        for key in named:
            was = self._assigned.get(key)
            if was is not None and key.check not in other:
                continue
            check, who = checks[key.check]
            if was is None:
                number = self._allot(key, now_ms)
                added.append(key)
            elif (was.type, was.options) != (check.type, check.options):
                self._release(key, now_ms)
                number = self._allot(key, now_ms)
                moved.append((was.number, number))
            else:
                number = was.number
                touched.append(number)
            self._assigned[key] = Assigned(
                number=number,
                key=key,
                type=check.type,
                options=check.options,
                interval_ms=check.interval.ms,
                timeout_ms=check.timeout.ms,
                fall=check.fall,
                rise=check.rise,
                regions=frozenset(who.regions),
            )
        if added or removed or moved or touched:
            self.version += 1
        before = self.columns.fall.copy(), self.columns.rise.copy()
        rejudged = np.array(touched, dtype=np.intp)
        self._checks = checks
        self.pools_of = {key: tuple(dict.fromkeys(pools)) for key, pools in named.items()}
        self._fill()
        is_other = self.columns.fall[rejudged] != before[0][rejudged]
        is_other |= self.columns.rise[rejudged] != before[1][rejudged]
        return Changes(
            added=tuple(added),
            removed=removed,
            moved=tuple(moved),
            thresholds=rejudged[is_other],
            rejudged=rejudged,
        )

    def _fill(self) -> None:
        """Write every check's timing into the rows of its targets."""
        rows: dict[str, list[int]] = {}
        for key, assigned in self._assigned.items():
            rows.setdefault(key.check, []).append(assigned.number)
        places: dict[Electorate, int] = {_NOBODY: 0}
        columns = self.columns
        for place, (name, numbers) in enumerate(rows.items()):
            check, who = self._checks[name]
            columns.check[numbers] = place
            columns.interval[numbers] = check.interval.ms
            columns.max_age[numbers] = 2 * check.interval.ms
            columns.grace[numbers] = grace_ms(check)
            columns.fall[numbers] = check.fall
            columns.rise[numbers] = check.rise
            columns.electorate[numbers] = places.setdefault(who, len(places))
        self.electorates = list(places)
        self.check_names = list(rows)

    def _allot(self, key: TargetKey, now_ms: int) -> int:
        if self._resting and now_ms - self._resting[0][0] >= REUSE_AFTER_MS:
            number = self._resting.popleft()[1]
            self._key[number] = key
            return number
        self._key.append(key)
        if len(self._key) > self.capacity:
            self.columns = self.columns.grown(2 * self.capacity)
        return len(self._key) - 1

    def _release(self, key: TargetKey, now_ms: int) -> int:
        number = self._assigned.pop(key).number
        self._key[number] = None
        self.columns.max_age[number] = -1
        self._resting.append((now_ms, number))
        return number


def by_electorate(
    targets: Targets, numbers: NDArray[np.intp]
) -> Iterator[tuple[Electorate, NDArray[np.intp]]]:
    """`numbers` in groups that one electorate judges."""
    if numbers.size == 0:
        return
    place = targets.columns.electorate[numbers]
    order = np.argsort(place, kind="stable")
    place, numbers = place[order], numbers[order]
    cuts = np.flatnonzero(np.diff(place)) + 1
    for group in np.split(numbers, cuts):
        yield targets.electorates[targets.columns.electorate[group[0]]], group
