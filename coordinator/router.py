"""The routes of every instance: which are judged again when, and how long those that wait do. Pure.

What one rule's route is stands in `route`. An instance is judged when one of its pools changed,
when a wait of its rules ends, when a force on one came or went, and with a new configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gtm.model import Family, Instance, Resources, Rule
from gtm.state import PoolState, Route, Routes

from . import route
from .events import Now, PublishRoutes
from .forces import Forces
from .route import Pin, Standing

Place = tuple[str, str, Family | None]
"""An instance, a rule of it, and the family that it is judged for."""


class Router:
    """The routes as judged; waits run on the monotonic clock."""

    def __init__(self, forces: Forces) -> None:
        self._forces = forces
        self._resources = Resources()
        self._routes: dict[str, Routes] = {}
        self._due_ms: dict[Place, int] = {}
        self._of_pool: dict[str, list[str]] = {}

    def restore(self, routes: Mapping[str, Routes]) -> None:
        """Take what the store has; its waits go on for what is left of them."""
        self._routes, self._due_ms = dict(routes), {}

    def configure(self, resources: Resources) -> None:
        """Take over a configuration, and forget the routes of instances that are gone."""
        self._resources = resources
        self._of_pool = {}
        for name, instance in resources.instances.items():
            if any(map(route.remembers, instance.rules)):
                for pool in instance.pools():
                    self._of_pool.setdefault(pool, []).append(name)
        self._routes = {
            name: one for name, one in self._routes.items() if name in resources.instances
        }
        self._due_ms = {
            place: due for place, due in self._due_ms.items() if place[0] in resources.instances
        }

    def of_pools(self, pools: Iterable[str]) -> set[str]:
        """The instances whose routes may change with these pools."""
        return {name for pool in pools for name in self._of_pool.get(pool, ())}

    def due(self, now: Now) -> set[str]:
        """The instances with a wait that is over."""
        return {place[0] for place, due_ms in self._due_ms.items() if due_ms <= now.mono_ms}

    def judge(
        self, names: Iterable[str], states: Mapping[str, PoolState], generation: int, now: Now
    ) -> list[PublishRoutes]:
        """Judge these instances, and say whose routes changed."""
        effects: list[PublishRoutes] = []
        for name in sorted(names):
            instance = self._resources.instances.get(name)
            if instance is None:
                continue
            before = self._routes.get(name)
            rules = self._rules(name, instance, before, states, now)
            if rules == (before.rules if before is not None else {}):
                continue
            after = Routes(generation=generation, rules=rules) if rules else None
            if after is None:
                del self._routes[name]
            else:
                self._routes[name] = after
            effects.append(PublishRoutes(instance=name, routes=after))
        return effects

    def _rules(
        self,
        name: str,
        instance: Instance,
        before: Routes | None,
        states: Mapping[str, PoolState],
        now: Now,
    ) -> dict[str, dict[Family, Route]]:
        found: dict[str, dict[Family, Route]] = {}
        was = {place: due_ms for place, due_ms in self._due_ms.items() if place[0] == name}
        for place in was:
            del self._due_ms[place]
        for rule in instance.rules:
            pin = self._pin(name, rule)
            if not pin.tier and not route.remembers(rule):
                continue
            known = {} if before is None else before.rules.get(rule.name, {})
            routes: dict[Family, Route] = {}
            for family, written in route.judged(rule, self._resources.pools).items():
                place = (name, rule.name, family)
                last = next((known[one] for one in written if one in known), None)
                after = route.decide(
                    route.Case(
                        rule=rule,
                        family=family,
                        pools=self._resources.pools,
                        states=states,
                        now=now,
                    ),
                    Standing(last, _due_ms(was.get(place), rule, last, now)),
                    pin=pin,
                    released=self._forces.released(name, rule.name),
                )
                if after.due_ms is not None:
                    self._due_ms[place] = after.due_ms
                if after.route is not None:
                    routes.update(dict.fromkeys(written, after.route))
            if routes:
                found[rule.name] = routes
        return found

    def _pin(self, name: str, rule: Rule) -> Pin:
        """An operator's pin goes before the configuration's; one of a tier that is gone is none."""
        forced = self._forces.pin(name, rule.name)
        if 1 <= forced <= len(rule.tiers):
            return Pin(forced, route.PINNED_BY_FORCE)
        return Pin(rule.failover.pinned, route.PINNED_BY_CONFIG) if rule.failover.pinned else Pin()


def _due_ms(known: int | None, rule: Rule, last: Route | None, now: Now) -> int | None:
    """When a wait ends; one that was only read from the store is turned into a span, this once."""
    if last is None or not last.return_ or known is not None:
        return known
    left_ms = round((last.return_ - now.wall_s) * 1000)
    return now.mono_ms + max(0, min(left_ms, rule.failback.after.ms))
