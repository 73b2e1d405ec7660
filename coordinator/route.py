"""From pools' states to the routes that resolvers cannot work out by themselves. Pure.

Without a record a resolver takes a rule's first available tier, which is what `failover: auto` with
an immediate failback means; so only pinned rules and rules with memory have one: those that do not
fail back at once, and those with a tier whose sequence of pools is not pre-emptive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from gtm.availability import judged_once, serves, tier_available
from gtm.model import FAMILIES, Family, Pool, Rule, Tier
from gtm.state import PoolState, Route

from .events import Now
from .pool import stays

PINNED_BY_CONFIG = "config"
PINNED_BY_FORCE = "force"


class Standing(Struct, frozen=True):
    """What is in force, and the monotonic instant at which an earlier tier takes over (or none)."""

    route: Route | None
    due_ms: int | None = None


class Pin(Struct, frozen=True):
    """The tier (from 1; 0: none) that somebody pinned."""

    tier: int = 0
    by: str = ""


def remembers(rule: Rule) -> bool:
    """Whether what serves a rule depends on what served it before."""
    return rule.failback.word != "immediate" or any(stays(tier.steering) for tier in rule.tiers)


def judged(rule: Rule, pools: Mapping[str, Pool]) -> dict[Family | None, tuple[Family, ...]]:
    """The families that a rule is judged for, and those that each judgement is written for."""
    if judged_once(rule, pools):
        return {None: FAMILIES}
    return {
        family: (family,)
        for family in FAMILIES
        if any(has(tier, pools, family) for tier in rule.tiers)
    }


def has(tier: Tier, pools: Mapping[str, Pool], family: Family | None) -> bool:
    """Whether a tier has a pool of `family`."""
    return any(serves(pools.get(name), family) for name in tier.names())


class Case(Struct, frozen=True, kw_only=True):
    """A rule as judged for one family: the pools as configured and as they are now."""

    rule: Rule
    family: Family | None
    pools: Mapping[str, Pool]
    states: Mapping[str, PoolState]
    now: Now

    def open(self, tier: Tier) -> tuple[str, ...]:
        """The available pools of a tier; none: it is not available."""
        return tier_available(tier, self.states, self.family)

    def undecided(self, names: Iterable[str]) -> bool:
        """Whether nobody can say yet whether one of these pools is available.

        What stays with its choice must not begin with a later one because that was judged first.
        """
        return any(
            name not in self.states and serves(self.pools.get(name), self.family) for name in names
        )


def decide(case: Case, was: Standing, *, pin: Pin, released: bool) -> Standing:
    """What is in force from now on, given what was; route None: the rule needs no record.

    A route that is as it was keeps its `since`. `released` ends a manual failback.
    """
    rule, now, before = case.rule, case.now, was.route
    tiers = rule.tiers
    if 1 <= pin.tier <= len(tiers) and has(tiers[pin.tier - 1], case.pools, case.family):
        return Standing(_route(case, pin.tier, was, by=pin.by))
    if not remembers(rule):
        return Standing(None)
    open_ = [bool(case.open(tier)) for tier in tiers]
    best = open_.index(True) + 1 if any(open_) else 0
    tier = before.tier if before is not None and before.tier <= len(tiers) else 0
    due_ms: int | None = None
    if not tier:
        earlier = (name for one in tiers[: max(best - 1, 0)] for name in one.names())
        if not best or case.undecided(earlier):
            return Standing(None)
        tier = best
    elif best and (released or not open_[tier - 1] or rule.failback.word == "immediate"):
        tier = best
    elif 0 < best < tier and rule.failback.word == "after":
        last_ms = now.mono_ms + rule.failback.after.ms
        due_ms = last_ms if was.due_ms is None else min(was.due_ms, last_ms)
        if due_ms <= now.mono_ms:
            tier, due_ms = best, None
    return Standing(_route(case, tier, was, due_ms=due_ms), due_ms)


def _route(
    case: Case, tier: int, was: Standing, *, by: str = "", due_ms: int | None = None
) -> Route:
    now, before = case.now, was.route
    pool = _pool_in_force(case, case.rule.tiers[tier - 1], before)
    since = now.wall_s
    if before is not None and (before.tier, before.pool_in_force, before.pinned_by) == (
        tier,
        pool,
        by,
    ):
        since = before.since
    return_ = 0.0
    if due_ms is not None:
        kept = before.return_ if before is not None and due_ms == was.due_ms else 0.0
        return_ = kept or now.wall_s + (due_ms - now.mono_ms) / 1000
    return Route(tier=tier, pool_in_force=pool, since=since, return_=return_, pinned_by=by)


def _pool_in_force(case: Case, tier: Tier, before: Route | None) -> str:
    """Who serves a tier whose sequence stays: who did while that is available, else the first.

    "": it does not stay, or nobody was chosen yet.
    """
    if not stays(tier.steering):
        return ""
    found, names = case.open(tier), tier.names()
    last = "" if before is None else before.pool_in_force
    if last in found or (not found and last in names):
        return last
    if not found or case.undecided(names[: names.index(found[0])]):
        return ""
    return found[0]
