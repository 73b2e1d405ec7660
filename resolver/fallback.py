"""What is answered when no tier of a client's rule is available: every form of when_all_down. Pure.

The one place where that is chosen. Members that an operator took out (offline, manual_down, forced
down or drained) are never answered by any form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gtm.availability import answers_cname, available, eligible, serves
from gtm.choices import AllDown
from gtm.model import Family, Rule
from gtm.state import PoolState

from .edns import OTHER_ERROR, extended_error
from .leaves import leaf_of, values_of
from .limits import MAX_ANSWERS
from .message import SERVFAIL
from .plan import DROP, Answers, Node
from .steering.base import rotations

_TEXT = "all down: answered by {}"


def answer(
    rule: Rule, policy: AllDown, pools: Mapping[str, PoolState], family: Family, ttl: int
) -> Node:
    """The plan of clients of `rule`, whose tiers are all unavailable."""
    extended = extended_error(OTHER_ERROR, _TEXT.format(policy.word))
    if policy.word == "drop":
        return Answers(ttl, rcode=DROP)
    if policy.word == "servfail":
        return Answers(ttl, rcode=SERVFAIL, extended=extended)
    if policy.word == "addresses":
        wanted = [value for value in policy.addresses if (":" in value) is (family == "ipv6")]
        return _rotated({}, wanted, family, ttl, extended)
    names, values = _chosen(rule, policy, pools, family)
    return _rotated({name: pools[name] for name in names}, values, family, ttl, extended)


def answering(
    rule: Rule, policy: AllDown, pools: Mapping[str, PoolState], family: Family
) -> tuple[str, ...]:
    """The names of the pools whose members are answered, in order."""
    match policy.word:
        case "pool":
            return (policy.pool,)
        case "lowest_ordinal" | "all" | "last_good":
            pass
        case _:
            return ()
    named = dict.fromkeys(name for tier in rule.tiers for name in tier.names())
    found = [name for name in named if _values(pools.get(name), family)]
    kinds = {name: answers_cname(pools[name]) for name in found}
    found = [name for name in found if kinds[name] is kinds[found[0]]]  # names mix with nothing
    if policy.word == "all":
        return tuple(found)
    if policy.word == "last_good":
        good = {name: _good_until(pools[name], family) for name in found}
        best = max(good.values(), default=-math.inf)
        if best > -math.inf:
            return (next(name for name in found if good[name] == best),)
    return tuple(found[:1])


def _chosen(
    rule: Rule, policy: AllDown, pools: Mapping[str, PoolState], family: Family
) -> tuple[list[str], list[str]]:
    """The names of the pools that are answered, and the values of theirs that are."""
    names = [name for name in answering(rule, policy, pools, family) if name in pools]
    values: list[str] = []
    for state in map(pools.__getitem__, names):
        good = state.last_good if policy.word == "last_good" else None
        found = _values(state, family, None if good is None else good.members)
        values += found or _values(state, family)
    return names, list(dict.fromkeys(values))


def _values(
    state: PoolState | None, family: Family, only: Sequence[str] | None = None
) -> list[str]:
    """What may be answered of a pool, of its members called `only` where that is given."""
    if state is None:
        return []
    once = answers_cname(state)
    if not once and not serves(state, family):
        return []
    members = [
        member
        for member in eligible(state, None if once else family)
        if only is None or member.value in only
    ]
    return values_of(state, members, family)


def _good_until(state: PoolState, family: Family) -> float:
    """When a pool was last good (Unix): infinity where it is, minus infinity where it never was."""
    if available(state, None if answers_cname(state) else family):
        return math.inf
    return -math.inf if state.last_good is None else state.last_good.until


def _rotated(
    pools: Mapping[str, PoolState],
    values: Sequence[str],
    family: Family,
    ttl: int,
    extended: bytes,
) -> Node:
    if not values:
        return Answers(ttl, extended=extended)
    states = tuple(pools.values())
    leaf = leaf_of(states, family, ttl, extended, tuple(pools))
    most = 1 if any(map(answers_cname, states)) else MAX_ANSWERS
    return rotations(range(len(values)), most, lambda some: leaf([values[index] for index in some]))
