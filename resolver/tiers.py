"""Which tier of a rule serves an address family, and which rule of several decides. Pure.

Availability itself is judged in `gtm.availability`; this module chooses among tiers by it. The
compiler and `gtm explain` call the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from gtm.availability import judged_once, serves, tier_available
from gtm.model import Family, Rule, Tier
from gtm.state import PoolState, Route
from gtm.view import View

TierWhy = Literal["available", "pinned", "kept", "exhausted", "no_family", "not_ready"]
"""`available`: the first available tier; `pinned`: by configuration or operator; `kept`: in force
by the published route; the rest stand with tier 0: `exhausted`: none is available; `no_family`: no
pool of the family, which is NODATA; `not_ready`: none is available and a pool was never published,
which is SERVFAIL."""


class TierChoice(Struct, frozen=True):
    """The tier in force (from 1; 0: none), those of its pools that are available, and why."""

    tier: int
    pools: tuple[str, ...]
    why: TierWhy


class Pin(Struct, frozen=True):
    """What a published route says: the tier in force, whether it is pinned there, and its pool.

    `pool_in_force` is what a sequence of pools that is not pre-emptive stays with.
    """

    tier: int
    pinned: bool
    pool_in_force: str = ""


def pin_of(route: Route | None) -> Pin | None:
    """The part of a route that decides answers."""
    return None if route is None else Pin(route.tier, bool(route.pinned_by), route.pool_in_force)


def route_of(view: View, instance: str, rule: str, family: Family) -> Route | None:
    """The published route of a rule and family, if there is one."""
    routes = view.routes.get(instance)
    return routes.rules.get(rule, {}).get(family) if routes is not None else None


def choose_tier(
    rule: Rule, family: Family, pools: Mapping[str, PoolState], pin: Pin | None = None
) -> TierChoice:
    """The tier of `rule` that serves `family`; a rule that may answer a CNAME is judged for all.

    A pinned tier serves or nothing does. A route without a pin goes first while its tier is
    available; a route to a tier that the rule does not have is of an older rule and is passed over.
    """
    tiers = rule.tiers
    pin = pin_in_force(rule, pin)
    of: Family | None = None if judged_once(rule, pools) else family
    if pin is not None:
        found = tier_available(tiers[pin.tier - 1], pools, of)
        if found:
            return TierChoice(pin.tier, found, "pinned" if pin.pinned else "kept")
        if pin.pinned:
            return TierChoice(0, (), _nothing(tiers[pin.tier - 1 : pin.tier], of, pools))
    for number, tier in enumerate(tiers, 1):
        if found := tier_available(tier, pools, of):
            return TierChoice(number, found, "available")
    return TierChoice(0, (), _nothing(tiers, of, pools))


def pin_in_force(rule: Rule, pin: Pin | None) -> Pin | None:
    """What holds `rule` at a tier that it has: the published route, else its own configuration."""
    tiers = len(rule.tiers)
    if pin is not None and 1 <= pin.tier <= tiers:
        return pin
    return Pin(rule.failover.pinned, True) if 1 <= rule.failover.pinned <= tiers else None


def tier_of(view: View, instance: str, rule: Rule, family: Family) -> TierChoice:
    """The tier of a rule of `instance` that serves `family`, as of `view`."""
    pin = pin_of(route_of(view, instance, rule.name, family))
    return choose_tier(rule, family, view.pools, pin)


def _nothing(
    tiers: Sequence[Tier], family: Family | None, pools: Mapping[str, PoolState]
) -> Literal["exhausted", "no_family", "not_ready"]:
    """Why none of `tiers`, of which none is available, serves."""
    states = [pools.get(ref.pool) for tier in tiers for ref in tier.pools]
    if None in states:
        return "not_ready"
    if any(serves(state, family) for state in states):
        return "exhausted"
    return "no_family"


def widens(rule: Rule, choice: TierChoice) -> bool:
    """Whether a rule leaves its clients to their next wider rule."""
    return choice.why == "exhausted" and rule.on_exhausted == "widen"


class Decision(Struct, frozen=True):
    """What becomes of a client: rule `rule` serves by `choice`, after `widened` were exhausted.

    `own` is the client's own rule, whose when_all_down applies where `choice` is exhausted; -1
    (and `choice` None) where no rule matches.
    """

    own: int = -1
    rule: int = -1
    choice: TierChoice | None = None
    widened: tuple[int, ...] = ()


def decide(
    rules: Sequence[Rule], matched: Iterable[int], choice_of: Callable[[int], TierChoice]
) -> Decision:
    """Which of the rules that match a client, the narrowest first, decides its answer.

    An exhausted rule with `on_exhausted: widen` leaves the client to the next one; where the last
    is exhausted too, when_all_down of the first applies.
    """
    decision = Decision()
    widened: list[int] = []
    for number in matched:
        choice = choice_of(number)
        own = number if decision.own < 0 else decision.own
        decision = Decision(own, number, choice, tuple(widened))
        if not widens(rules[number], choice):
            return decision
        widened.append(number)
    return decision
