"""The brakes of the engine: whose votes do not count, who is held, which pools waver. Pure.

Stands on both sides of the verdicts: `silence` before them, where regions are muted or set aside
(`aside`), `hold` after them, where too many addresses would leave (`guard`). Damping stands with
the verdicts; what a pool's floor keeps, with the pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from gtm.model import Resources
from gtm.state import PoolState

from . import brake_alarms, pool
from .alarms import Condition
from .aside import Asides
from .events import Now, PublishAside, Restored, TargetKey
from .evidence import Evidence
from .forces import Forces
from .guard import IN_SERVICE, Brake, Guard
from .targets import Targets
from .verdicts import Verdicts
from .wavering import Wavering

DOWN_ALL_THE_SAME = frozenset({"down", "held", "floored"})
"""What a published member is that health took out, whether or not a brake keeps it in answers."""

Numbers = NDArray[np.intp]


class Brakes:
    """What restrains the judgement; `pools` are the engine's published states."""

    def __init__(
        self,
        brake: Brake,
        targets: Targets,
        evidence: Evidence,
        verdicts: Verdicts,
        forces: Forces,
    ) -> None:
        self._targets, self._evidence, self._verdicts = targets, evidence, verdicts
        self._forces = forces
        self._resources = Resources()
        self._pools: dict[str, PoolState] = {}
        self.asides = Asides(targets, evidence)
        self.guard = Guard(brake)
        self.wavering = Wavering()
        self._sharing: dict[str, list[str]] = {}  # the pools of each address, once asked for
        self._floored: set[str] = set()  # pools with a member that only their floor keeps

    # ---- begin and configure -------------------------------------------------------------------

    def restore(self, stored: Restored, pools: dict[str, PoolState], now: Now) -> None:
        """Take what the store has; `pools` goes on to be the engine's."""
        self._pools = pools
        self._floored = {name for name, one in pools.items() if _floored(one)}
        self.guard.restore(pools, now)
        self.wavering.restore(pools, now)
        self.asides.restore(stored.aside)

    def configure(self, resources: Resources, now: Now) -> set[str]:
        """Take over a configuration and drop the pools that it ended; which to judge again."""
        self._resources = resources
        self._sharing = {}
        if gone := self._pools.keys() - resources.pools.keys():
            for name in gone:
                self.guard.published(self._pools.pop(name), None)
                self._floored.discard(name)
            self.guard.forget(one.value for s in self._pools.values() for one in s.members)
        damping = self._verdicts.damping
        undamped = [
            number
            for number in damping.damped()
            if not resources.checks[self._targets.key(number).check].damping
        ]
        touched = self.wavering.configure(resources) | self._of(damping.free(now, undamped))
        return touched.intersection(resources.pools)

    def published(self, before: PoolState | None, name: str, after: PoolState) -> None:
        """A pool's state is another one."""
        self.guard.published(before, after)
        (self._floored.add if _floored(after) else self._floored.discard)(name)

    # ---- before the verdicts -------------------------------------------------------------------

    def look(self, regions: Iterable[str], now: Now) -> list[PublishAside]:
        """Judge whether these regions are to be set aside."""
        return self.asides.look(regions, self._targets.voting(), now)

    def suspect(self, region: str, turned: Numbers) -> tuple[str, ...]:
        """The region, where its votes that changed just now ask for a look at it."""
        return (region,) if turned.size and self.asides.suspects(region, turned) else ()

    def everybody(self) -> Iterable[str]:
        """The regions to look at as time passes."""
        return self._evidence.regions.keys() | self.asides.standing.keys()

    def silence(self, numbers: Numbers) -> Numbers:
        """Let the votes of muted regions and of those set aside not count; what to judge with it.

        That is `numbers` and all targets of the regions about which this changed.
        """
        before = self._evidence.silenced
        after = {
            **{name: f"set aside: {one.text}" for name, one in self.asides.standing.items()},
            **{name: f"muted: {why}" for name, why in self._forces.muted().items()},
        }
        if after == before:
            return numbers
        self._evidence.silenced = after
        turned = [self._targets.of_region(name) for name in after.keys() ^ before.keys()]
        return np.unique(np.concatenate((numbers, *turned)))

    # ---- after the verdicts --------------------------------------------------------------------

    def waver(self, numbers: Numbers, now: Now) -> set[str]:
        """The pools that begin to waver with these targets."""
        if not self.wavering.matters:
            return set()
        split = numbers[self._verdicts.split[numbers]].tolist()
        return self.wavering.split(self._of(split), now)

    def eased(self, now: Now) -> set[str]:
        """The pools of which a brake lets go as time passes, or that waver no more."""
        freed = self._of(self._verdicts.damping.free(now))
        freed |= self._holding(self.guard.over(now))
        due = self.wavering.due(now)
        still = {name for name in due if self._is_split(name)}
        self.wavering.split(still, now)
        self.wavering.calm(calm := set(due) - still)
        return freed | calm

    def hold(
        self, pools: Iterable[str], turned: Iterable[TargetKey], released: Iterable[str], now: Now
    ) -> set[str]:
        """Tell the guard who would leave service, who came back, and whom operators release.

        Which pools this touches beside those of `turned` and `pools`.
        """
        more: set[str] = set()
        for target in released:
            name, _, value = target.partition("/")
            if (state := self._pools.get(name)) is not None:
                values = [value] if value else [one.value for one in state.members]
                more |= self._holding(values)
                self.guard.release(values)
        leaving = [
            value
            for name, values in self._moving(pools, turned).items()
            for value in self._leaving(name, values)
        ]
        if leaving:
            self.guard.leave(leaving, now)
        return more

    def _moving(self, pools: Iterable[str], turned: Iterable[TargetKey]) -> dict[str, set[str]]:
        """The members that may be judged otherwise now, by pool: the turned; none: all of it."""
        found: dict[str, set[str]] = {}
        for key in turned:
            for name in self._targets.pools_of[key]:
                found.setdefault(name, set()).add(key.address)
        return found | {name: set() for name in pools if name in self._resources.pools}

    def _leaving(self, name: str, values: set[str]) -> list[str]:
        """Those of a pool's members that are in service, and judged down now."""
        state = self._pools.get(name)
        if state is None:
            return []
        config, forces = self._resources.pools[name], self._forces.of_pool(name)
        before = {member.value: member for member in state.members}
        found = []
        for address, keys in zip(config.addresses, self._targets.of_pool(name), strict=True):
            value = address.value
            if (values and value not in values) or (was := before.get(value)) is None:
                continue
            verdicts = [(key.check, self._verdicts.health(key)) for key in keys]
            if pool.why_of(config, address, verdicts, was) != "down":
                if self.guard.knows(value) and not self._down_elsewhere(value, name):
                    self.guard.recovered(value)
            elif was.why in IN_SERVICE and forces.keys().isdisjoint((value, pool.WHOLE)):
                found.append(value)
        return found

    def _holding(self, values: Iterable[str]) -> set[str]:
        """The pools that answer one of these addresses because it is held."""
        wanted = frozenset(values)
        if not wanted:
            return set()
        return {
            name
            for name, state in self._pools.items()
            for member in state.members
            if member.held_since and member.value in wanted
        }

    def _down_elsewhere(self, value: str, name: str) -> bool:
        if not self._sharing:
            for pool_name, config in self._resources.pools.items():
                for address in config.addresses:
                    self._sharing.setdefault(address.value, []).append(pool_name)
        return any(
            member.value == value and (member.judged or member.why) in DOWN_ALL_THE_SAME
            for other in self._sharing.get(value, ())
            if other != name and other in self._pools
            for member in self._pools[other].members
        )

    def _is_split(self, name: str) -> bool:
        keys = (key for keys in self._targets.of_pool(name) for key in keys)
        numbers = [number for key in keys if (number := self._targets.number(key)) is not None]
        return bool(self._verdicts.split[numbers].any()) if numbers else False

    def _of(self, numbers: Iterable[int]) -> set[str]:
        """The pools of these targets."""
        keys = (self._targets.key(number) for number in numbers)
        return {name for key in keys for name in self._targets.pools_of[key]}

    # ---- asked ---------------------------------------------------------------------------------

    def penalties(self, name: str) -> Mapping[str, Mapping[str, int]]:
        """The penalties of a pool's damped targets."""
        damping = self._verdicts.damping
        if not damping.damped():
            return pool.NO_PENALTIES
        found: dict[str, dict[str, int]] = {}
        for keys in self._targets.of_pool(name):
            for key in keys:
                number = self._targets.number(key)
                if number is not None and damping.since(number):
                    found.setdefault(key.address, {})[key.check] = damping.last(number)
        return found

    def conditions(self) -> dict[str, Condition]:
        """What is worth an alarm."""
        damped = {self._targets.key(one).address for one in self._verdicts.damping.damped()}
        return brake_alarms.conditions(
            self.asides.standing, self.guard.held(), damped, self._floored
        )


def _floored(state: PoolState) -> bool:
    return any(member.why == "floored" for member in state.members)
