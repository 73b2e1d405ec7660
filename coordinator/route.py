"""From the configuration to the routes that resolvers cannot work out by themselves. Pure.

Without a record a resolver takes a rule's first available tier, which is what `failover: auto` with
an immediate failback means; so only pinned rules have one. Whatever depends on the past (a tier
kept in force) will be decided here too.
"""

from __future__ import annotations

from collections.abc import Mapping

from gtm.availability import serves
from gtm.model import FAMILIES, Family, Instance, Pool, Tier
from gtm.state import Route, Routes

PINNED_BY_CONFIG = "config"


def families(tier: Tier, pools: Mapping[str, Pool]) -> tuple[Family, ...]:
    """The address families that a tier has a pool of."""
    named = [pools.get(name) for name in tier.names()]
    return tuple(family for family in FAMILIES if any(serves(pool, family) for pool in named))


def judge(
    instance: Instance,
    pools: Mapping[str, Pool],
    published: Routes | None,
    *,
    generation: int,
    wall_s: float,
) -> Routes | None:
    """The routes of `instance`; None where no rule needs a record.

    A route that is as it was keeps its `since`.
    """
    rules: dict[str, dict[Family, Route]] = {}
    for rule in instance.rules:
        pinned = rule.failover.pinned
        if not 1 <= pinned <= len(rule.tiers):
            continue
        before = {} if published is None else published.rules.get(rule.name, {})
        routes = {
            family: _route(pinned, before.get(family), wall_s)
            for family in families(rule.tiers[pinned - 1], pools)
        }
        if routes:
            rules[rule.name] = routes
    return Routes(generation=generation, rules=rules) if rules else None


def _route(tier: int, before: Route | None, wall_s: float) -> Route:
    if before is not None and (before.tier, before.pinned_by) == (tier, PINNED_BY_CONFIG):
        return before
    return Route(tier=tier, since=wall_s, pinned_by=PINNED_BY_CONFIG)
