"""What the names of flattened pools stand for: which names there are, and what is news. Pure.

`flatten` resolves them, the engine puts the sets into its pools' members.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gtm.model import FAMILIES, Pool
from gtm.state import AddressSet, PoolState

from .alarms import Condition

if TYPE_CHECKING:
    from gtm.names import Addresses

MAX_ADDRESSES = 8
"""Addresses that one name stands for at most, over both families."""
LEAST_S = 30
"""A name is not asked for more often; so nothing changes more often either."""
LEAST_TTL_S = 5
"""What a recursive server has left of a TTL may be nothing; clients are told this at least."""


UNRESOLVED_MS = 60_000
"""How long a name may have no address before that is an alarm."""


def names_of(pools: Mapping[str, Pool]) -> frozenset[str]:
    """The names of all flattened pools."""
    return frozenset(
        address.value
        for pool in pools.values()
        if pool.type == "domain" and pool.flatten
        for address in pool.addresses
    )


def sets_of(states: Iterable[PoolState]) -> dict[str, AddressSet]:
    """The sets in published states, by name; the one seen last where they differ."""
    found: dict[str, AddressSet] = {}
    for state in states:
        named = {one.value: one.set for one in state.members if one.set is not None}
        found = newest(found, named if state.flatten else {})
    return found


def newest(one: Mapping[str, AddressSet], other: Mapping[str, AddressSet]) -> dict[str, AddressSet]:
    """The sets of both; of a name that is in both the one seen last, the first where alike."""
    result = dict(one)
    for name, found in other.items():
        if name not in result or result[name].since < found.since:
            result[name] = found
    return result


def news(told: Addresses, before: AddressSet | None, wall_s: float) -> AddressSet | None:
    """The set that follows `before`; None where nothing that matters changed.

    A family about which nothing was told keeps its addresses. A TTL that alone changed is news only
    where it doubled or halved: a recursive server tells what is left of it.
    """
    addresses = _merged(told, before)
    ttl = max(LEAST_TTL_S, told.ttl)
    if before is not None and before.addresses == addresses and not before.failing:
        small, large = sorted((before.ttl, ttl))
        if large < 2 * small or large <= LEAST_S:
            return None
    since = before.since if before is not None and before.addresses == addresses else wall_s
    return AddressSet(addresses=addresses, ttl=ttl, since=since)


def conditions(pools: Mapping[str, Pool], known: Mapping[str, AddressSet]) -> dict[str, Condition]:
    """Each name of a flattened pool that does not resolve, or never did, as worth an alarm."""
    found = {}
    for name in names_of(pools):
        one = known.get(name)
        if one is None:
            text = (
                f"{name}, a member of a flattened pool, never resolved: nothing is answered of it"
            )
            found[f"name-unresolved/{name}"] = Condition(text, UNRESOLVED_MS)
        elif one.failing:
            found[f"name-unresolved/{name}"] = Condition(
                f"{name}, a member of a flattened pool, does not resolve since"
                f" {_clock(one.failing)}: the addresses that it had ({_clock(one.since)}) are"
                " answered on"
            )
    return found


def _clock(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _merged(told: Addresses, before: AddressSet | None) -> tuple[str, ...]:
    """At most MAX_ADDRESSES addresses, sorted; each family has room for half of them."""
    old = () if before is None else before.addresses
    four, six = (
        tuple(one for one in old if (":" in one) is (family == "ipv6"))
        if family in told.missing
        else tuple(sorted(new, key=ipaddress.ip_address))
        for family, new in zip(FAMILIES, (told.ipv4, told.ipv6), strict=True)
    )
    half = MAX_ADDRESSES // 2
    kept = four[: max(half, MAX_ADDRESSES - len(six))]
    return kept + six[: MAX_ADDRESSES - len(kept)]
