"""Whether a pool, and a set of pools, is available for an address family. Pure.

The one function that engine, compiler and policy call: nobody else counts members.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gtm.model import Family
from gtm.state import EXCLUDED, Member, PoolState


def eligible(pool: PoolState) -> tuple[Member, ...]:
    """The members that some policy may answer at all: those that no operator took out."""
    return tuple(member for member in pool.members if member.why not in EXCLUDED)


def available(pool: PoolState | None, family: Family) -> bool:
    """Whether `pool` can serve `family`: enough members counted, and one answered.

    None stands for a pool that was never published. Shares are of the eligible members.
    """
    if pool is None or pool.type != family:
        return False
    members = eligible(pool)
    if not any(member.answered for member in members):
        return False
    return pool.min_available.met(sum(member.counted for member in members), len(members))


def tier_available(
    names: Iterable[str], pools: Mapping[str, PoolState], family: Family
) -> tuple[str, ...]:
    """Those of a tier's pools that are available for `family`, in order; empty: the tier is not."""
    return tuple(name for name in names if available(pools.get(name), family))
