"""Whether a pool, and a set of pools, is available for an address family. Pure.

The one module that engine, compiler and policy call: nobody else counts members. Family None stands
for whichever: rules that may answer a CNAME are judged once for all types (`judged_once`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gtm.model import Family, Pool, Rule, Tier
from gtm.state import BRAKED, EXCLUDED, NEVER, Member, PoolState


def answers_cname(pool: Pool | PoolState | None) -> bool:
    """Whether a pool answers names as CNAME: type domain, not flattened."""
    return pool is not None and pool.type == "domain" and not pool.flatten


def judged_once(rule: Rule, pools: Mapping[str, Pool] | Mapping[str, PoolState]) -> bool:
    """Whether `rule` is judged once for all families: one of its pools answers a CNAME.

    So A and AAAA never split between addresses and a CNAME.
    """
    for tier in rule.tiers:
        for ref in tier.pools:
            if answers_cname(pools.get(ref.pool)):
                return True
    return False


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


class Judged(Mapping[str, PoolState]):
    """States of pools that stay as they are, each judged once however often it is asked about."""

    def __init__(self, states: Mapping[str, PoolState]) -> None:
        self._states = states
        self._known: dict[tuple[str, Family | None], bool] = {}
        self.get = states.get  # type: ignore[method-assign]  # asked for every pool of every plan

    @classmethod
    def of(cls, states: Mapping[str, PoolState]) -> Judged:
        """`states` so that they are judged once; those that are so already as they are."""
        return states if isinstance(states, cls) else cls(states)

    def available(self, name: str, family: Family | None) -> bool:
        """Whether the pool `name` is available for `family`."""
        known = self._known.get((name, family))
        if known is None:
            known = self._known[name, family] = available(self._states.get(name), family)
        return known

    def __getitem__(self, name: str) -> PoolState:
        return self._states[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, name: object) -> bool:
        return name in self._states


def tier_available(
    tier: Tier, pools: Mapping[str, PoolState], family: Family | None
) -> tuple[str, ...]:
    """Those of a tier's pools that are available for `family`, in order; empty: the tier is not.

    A tier with a `min_available` of its own needs as many addresses counted over its available
    pools, out of those of all its pools.
    """
    judged = Judged.of(pools)
    found = tuple([ref.pool for ref in tier.pools if judged.available(ref.pool, family)])
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
