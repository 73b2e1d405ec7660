"""What pools and rules are worth an alarm for; looked at only when something changed. Pure.

One alarm a pool, naming a few members; one for all where many pools are touched at once, because
then they have one cause. What operators took out themselves is no alarm either way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gtm.availability import available, tier_available
from gtm.model import Family, Instance, Resources
from gtm.state import PoolState, Why

from . import route
from .alarms import Condition

NAMED = 5
"""Members, rules or pools that an alarm names."""
SOME_DOWN_MS = 10_000
"""How long members may be down before that is an alarm, while their pool is available."""
GROUPED_FROM = 10
"""So many pools with the same trouble make one alarm."""
BAD: frozenset[Why] = frozenset({"down", "held", "floored", "damped", "unresolved"})
"""Why a member is out, or only kept in, that no operator asked for."""


class PoolAlarms:
    """The trouble of each pool and instance, kept up to date by those that changed."""

    def __init__(self) -> None:
        self._resources = Resources()
        self._instances_of: dict[str, list[str]] = {}
        self._unavailable: dict[str, list[str]] = {}
        self._some: dict[str, tuple[list[str], int]] = {}
        self._resort: dict[str, list[str]] = {}

    def configure(self, resources: Resources, states: Mapping[str, PoolState]) -> None:
        """Take over a configuration and look at all of it."""
        self._resources = resources
        self._unavailable, self._some, self._resort = {}, {}, {}
        self._instances_of = {}
        for name, instance in resources.instances.items():
            for pool in instance.pools():
                self._instances_of.setdefault(pool, []).append(name)
        self.judged(states.keys() & resources.pools.keys(), states)

    def judged(self, names: Iterable[str], states: Mapping[str, PoolState]) -> None:
        """Look again at these pools, and at the instances that name them."""
        instances: set[str] = set()
        for name in names:
            self._look(name, states.get(name))
            instances.update(self._instances_of.get(name, ()))
        for one in instances:
            self._resort.pop(one, None)
            if rules := self._exhausted(self._resources.instances[one], states):
                self._resort[one] = rules

    def _look(self, name: str, state: PoolState | None) -> None:
        self._unavailable.pop(name, None)
        self._some.pop(name, None)
        if state is None:
            return
        bad = [member.value for member in state.members if member.why in BAD]
        if not bad:
            return
        if available(state, _family(state)):
            self._some[name] = (bad, len(state.members))
        else:
            self._unavailable[name] = bad

    def _exhausted(self, instance: Instance, states: Mapping[str, PoolState]) -> list[str]:
        """The rules none of whose tiers is available, and that through some pool's trouble."""
        if not instance.enabled:
            return []
        found: list[str] = []
        for rule in instance.rules:
            names = {name for tier in rule.tiers for name in tier.names()}
            if names.isdisjoint(self._unavailable) or not names <= states.keys():
                continue
            found += [
                f"{rule.name} ({family})" if family else rule.name
                for family in route.judged(rule, self._resources.pools)
                if not any(tier_available(tier, states, family) for tier in rule.tiers)
            ]
        return found

    def conditions(self) -> dict[str, Condition]:
        """The conditions that hold now."""
        found = {
            f"last-resort/{name}": Condition(
                f"no pool of instance {name} is available for {named(rules)}: clients get what"
                " when_all_down says; see gtm explain, and mend or force addresses"
            )
            for name, rules in self._resort.items()
        }
        if len(self._unavailable) >= GROUPED_FROM:
            found["pools-unavailable"] = Condition(
                f"{len(self._unavailable)} pools are unavailable, which speaks for one cause:"
                f" {named(self._unavailable)}; see gtm health"
            )
        else:
            for name, bad in self._unavailable.items():
                found[f"pool-unavailable/{name}"] = Condition(
                    f"pool {name} is unavailable (down: {named(bad)}); its rules fall to their"
                    " next tiers; see gtm health"
                )
        if len(self._some) >= GROUPED_FROM:
            found["pools-members-down"] = Condition(
                f"members of {len(self._some)} pools are down, which speaks for one cause:"
                f" {named(self._some)}; see gtm health",
                SOME_DOWN_MS,
            )
        else:
            for name, (bad, total) in self._some.items():
                found[f"pool-members-down/{name}"] = Condition(
                    f"{len(bad)} of {total} members of pool {name} are down: {named(bad)};"
                    f" see gtm health {name}",
                    SOME_DOWN_MS,
                )
        return found


def _family(state: PoolState) -> Family | None:
    return None if state.type == "domain" else state.type


def named(names: Iterable[str]) -> str:
    """Some names, and how many more there are."""
    ordered = sorted(names)
    rest = len(ordered) - NAMED
    return ", ".join(ordered[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
