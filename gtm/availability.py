"""Whether a pool, and a set of pools, is available for an address family. Pure.

The one module that engine, compiler and policy call: nobody else counts members. Family None stands
for whichever: rules that may answer a CNAME are judged once for all types (`judged_once`).
"""

from __future__ import annotations

from collections.abc import Mapping

from gtm.model import Family, Pool, Rule, Tier
from gtm.state import BRAKED, EXCLUDED, NEVER, Member, PoolState


def answers_cname(pool: Pool | PoolState | None) -> bool:
    """Whether a pool answers names as CNAME: type domain, not flattened."""
    return pool is not None and pool.type == "domain" and not pool.flatten


def judged_once(rule: Rule, pools: Mapping[str, Pool] | Mapping[str, PoolState]) -> bool:
    """Whether `rule` is judged once for all families: one of its pools answers a CNAME.

    So A and AAAA never split between addresses and a CNAME.
    """
    return any(answers_cname(pools.get(name)) for tier in rule.tiers for name in tier.names())


def serves(pool: Pool | PoolState | None, family: Family | None) -> bool:
    """Whether a pool has anything to do with `family`: its type, or names that may resolve to it.

    A pool that answers CNAMEs serves family None alone.
    """
    if pool is None:
        return False
    if family is None:
        return True
    return pool.type == family or (pool.type == "domain" and pool.flatten)


def addresses(member: Member, family: Family) -> tuple[str, ...]:
    """The addresses of `family` that a member stands for: its own, or those of its name."""
    if member.set is not None:
        return tuple(
            value for value in member.set.addresses if (":" in value) is (family == "ipv6")
        )
    return (member.value,) if (":" in member.value) is (family == "ipv6") else ()


def of_family(pool: PoolState, family: Family | None) -> tuple[Member, ...]:
    """The members that matter to `family`; a flattened name does by what it resolved to."""
    if not serves(pool, family):
        return ()
    if family is None or pool.type != "domain":
        return pool.members
    return tuple(
        member for member in pool.members if member.set is not None and addresses(member, family)
    )


def eligible(pool: PoolState, family: Family | None) -> tuple[Member, ...]:
    """The members that some policy may answer at all: those that no operator took out."""
    return tuple(member for member in of_family(pool, family) if member.why not in NEVER)


def tally(pool: PoolState, family: Family | None) -> tuple[int, int]:
    """(members counted, members in the total) for `family`: what shares and counts are of."""
    total = [member for member in of_family(pool, family) if member.why not in EXCLUDED]
    return sum(member.counted for member in total), len(total)


def available(pool: PoolState | None, family: Family | None) -> bool:
    """Whether `pool` can serve `family`: enough members counted, and one answered.

    One that only a brake keeps in answers does not do. None stands for a pool that was never
    published.
    """
    if pool is None or not any(
        member.answered and member.why not in BRAKED for member in of_family(pool, family)
    ):
        return False
    return pool.min_available.met(*tally(pool, family))


def tier_available(
    tier: Tier, pools: Mapping[str, PoolState], family: Family | None
) -> tuple[str, ...]:
    """Those of a tier's pools that are available for `family`, in order; empty: the tier is not.

    A tier with a `min_available` of its own needs as many addresses counted over its available
    pools, out of those of all its pools.
    """
    found = tuple(name for name in tier.names() if available(pools.get(name), family))
    if tier.min_available is None or not found:
        return found
    tallies = {
        name: tally(state, family)
        for name in tier.names()
        if (state := pools.get(name)) is not None
    }
    counted = sum(tallies[name][0] for name in dict.fromkeys(found))
    total = sum(number for _, number in tallies.values())
    return found if tier.min_available.met(counted, total) else ()
