"""Rules over what may be answered: tiers, the fallback of an instance, clients left without answer.

Judged of what is written, whatever health says: modes take members out for good, health does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import prod

from gtm.availability import answers_cname, judged_once, serves
from gtm.model import FAMILIES, Family, Instance, Pool, Rule, Steering, Tier
from resolver.limits import MAX_LEAVES
from resolver.steering.base import most_leaves

from .findings import Findings
from .rules_pools import answerable

MAX_FREE = 20
"""Members of a tier that make fewer answers than MAX_LEAVES in any combination (3 ** 7)."""
MAX_OF_NAME = 8
"""Addresses of one flattened name that are answered (docs/configuration.md)."""


def judge(findings: Findings, path: str, instance: Instance) -> None:
    """Note what is wrong with the tiers of an instance's rules and with its fallback."""
    for index, rule in enumerate(instance.rules):
        place = f"{path}.rules[{index}]"
        if not rule.tiers:
            findings.error(f"{place}.tiers", "a rule without tiers answers nothing")
        for number, tier in enumerate(rule.tiers):
            _tier(findings, f"{place}.tiers[{number}]", tier)
    _fallback(findings, f"{path}.when_all_down", instance)
    known = findings.resources.pools
    names = instance.pools()
    if all(name in known and known[name].addresses for name in names):
        _dead_ends(findings, path, instance, names)


def _tier(findings: Findings, path: str, tier: Tier) -> None:
    place = f"{path}.pools"
    if not tier.pools:
        findings.error(place, "a tier names at least one pool")
    names = tier.names()
    findings.twice(place, names)
    pools: list[Pool] = []
    for number, ref in enumerate(tier.pools):
        pool = findings.resources.pools.get(ref.pool)
        if pool is not None and not pool.addresses:
            findings.error(f"{place}[{number}]", f"pool {ref.pool!r} is empty")
        elif pool is None:
            findings.unknown(f"{place}[{number}]", "pools", ref.pool)
        if pool is not None:
            pools.append(pool)
        if ref.lines:
            findings.lines(f"{place}[{number}].lines", ref.lines)
    if len(tier.pools) > 1 and not any(ref.weight for ref in tier.pools):
        findings.warn(place, "all weights are 0, which counts as all of them alike")
    if len({answers_cname(pool) for pool in pools}) > 1:
        cnames = [name for name in names if answers_cname(findings.resources.pools.get(name))]
        findings.error(
            place,
            f"pool {cnames[0]!r} answers a CNAME and shares no tier with pools of addresses; "
            "say flatten: true there, or give it a tier of its own",
        )
    elif len(pools) == len(tier.pools) > 0 and all(pool.addresses for pool in pools):
        _most(findings, path, tier, pools)
    _leaves(findings, place, tier, names)


def _most(findings: Findings, path: str, tier: Tier, pools: list[Pool]) -> None:
    """Note a `min_available` of a tier that asks for more members than there are."""
    if tier.min_available is None:
        return
    families = (None, *FAMILIES) if any(map(answers_cname, pools)) else FAMILIES
    most = max(
        sum(answerable(pool) for pool in pools if serves(pool, family)) for family in families
    )
    if tier.min_available.count > most:
        findings.warn(
            f"{path}.min_available",
            f"{tier.min_available} can never be met: {most} addresses of one family "
            "may be answered",
        )


def _leaves(findings: Findings, path: str, tier: Tier, names: tuple[str, ...]) -> None:
    """Note a tier whose different answers can't all be made ahead.

    Pools that are all round_robin are one list; else each picks for itself, in every combination
    of as many of them as the tier's steering answers together.
    """
    named = [findings.resources.pools.get(name) for name in dict.fromkeys(names)]
    known = [pool for pool in named if pool is not None]
    if sum(map(_values, known)) < MAX_FREE:
        return
    for family in (*FAMILIES, None):
        pools = [pool for pool in known if _counts_for(pool, family)]
        words = {tier.steering.type, *(pool.steering.type for pool in pools)}
        if words == {"round_robin"} and family is not None:
            leaves = sum(map(_values, pools))
        else:
            widths = sorted(map(_width, pools), reverse=True)
            leaves = prod(widths[: _together(tier.steering, len(widths))])
        if leaves > MAX_LEAVES:
            findings.error(
                path,
                f"{leaves:,} different {family or 'CNAME'} answers; "
                f"{MAX_LEAVES:,} is the most for a tier",
            )


def _counts_for(pool: Pool, family: Family | None) -> bool:
    return answers_cname(pool) if family is None else serves(pool, family)


def _values(pool: Pool) -> int:
    """The most addresses, or names, that it may answer one by one."""
    return len(pool.addresses) * (MAX_OF_NAME if pool.flatten else 1)


def _width(pool: Pool) -> int:
    """How many different answers its own pick has at most, for any one client."""
    if pool.steering.type in ("sequence", "sticky"):
        return 1
    return most_leaves(len(pool.addresses))


def _together(steering: Steering, pools: int) -> int:
    """How many of its available pools a tier answers together at most."""
    match steering.type:
        case "sequence" | "sticky":
            return 1
        case "weighted":
            return int(json.loads(steering.options).get("answers", 1))
    return pools  # nearest and latency too: those that are equal for a client


# ---- fallback --------------------------------------------------------------------------------


def _families(findings: Findings, rules: Iterable[Rule]) -> set[Family | None]:
    """The families that some rule answers; None where one answers CNAMEs."""
    pools = findings.resources.pools
    found: set[Family | None] = set()
    for rule in rules:
        if judged_once(rule, pools):
            return {None, *FAMILIES}
        names = [name for tier in rule.tiers for name in tier.names()]
        found.update(f for f in FAMILIES if any(serves(pools.get(name), f) for name in names))
        if any(name not in pools for name in names):
            return {None, *FAMILIES}  # unknown, or not read: nothing more is said
    return found


def _fallback(findings: Findings, path: str, instance: Instance) -> None:
    """Note a fallback of an instance that can't be answered."""
    down = instance.when_all_down
    if not down.pool and not down.addresses:
        return
    families = _families(findings, instance.rules)
    if down.addresses and instance.rules:
        for index, value in enumerate(down.addresses):
            family: Family = "ipv6" if ":" in value else "ipv4"
            if family not in families:
                findings.warn(
                    f"{path}.addresses[{index}]",
                    f"{value} is never answered: no rule has a pool of type {family}",
                )
    if not down.pool or findings.unknown(f"{path}.pool", "pools", down.pool):
        return
    pool = findings.resources.pools.get(down.pool)
    if pool is None:
        return
    if not pool.addresses:
        findings.error(f"{path}.pool", f"pool {down.pool!r} is empty")
    elif answers_cname(pool):
        findings.error(
            f"{path}.pool",
            f"pool {down.pool!r} answers a CNAME, which stands in for no address; "
            "say flatten: true there, or name a pool of addresses",
        )
    elif instance.rules and not any(serves(pool, family) for family in families):
        findings.error(
            f"{path}.pool",
            f"pool {down.pool!r} is {pool.type}, and no rule has a pool of that family: "
            "nobody would ever get it",
        )


# ---- dead ends -------------------------------------------------------------------------------


def _dead_ends(findings: Findings, path: str, instance: Instance, used: tuple[str, ...]) -> None:
    """Note rules whose clients can get no answer, whatever is up."""
    pools = findings.resources.pools
    down = instance.when_all_down
    alive = [_may_serve(rule, findings) for rule in instance.rules]
    for index, rule in enumerate(instance.rules):
        if alive[index] or not rule.tiers or (rule.on_exhausted == "widen" and any(alive)):
            continue
        names = [name for tier in rule.tiers for name in tier.names()]
        spare = [down.pool] if down.pool else names
        if down.addresses:
            continue
        steps = " -> ".join((rule.name, *_steps(rule), f"when_all_down {down}"))
        if down.word in ("nodata", "servfail", "drop"):
            findings.warn(f"{path}.rules[{index}]", f"its clients always get {down}: {steps}")
        elif not any(name in pools and answerable(pools[name]) for name in spare):
            findings.error(
                f"{path}.rules[{index}]",
                "its clients can reach no answer, all members on their way are offline or "
                f"manual_down: {steps}; say on_exhausted: widen, or when_all_down: nodata",
            )
    if any(pools[name].type != "ipv4" for name in used):
        _no_ipv4(findings, path, instance)


def _may_serve(rule: Rule, findings: Findings) -> bool:
    """Whether some tier of the rule can ever be available."""
    pools = findings.resources.pools
    tiers = rule.tiers
    if rule.failover.pinned:
        tiers = tiers[rule.failover.pinned - 1 : rule.failover.pinned]
    return any(
        (count := answerable(pools[name])) and count >= pools[name].min_available.count
        for tier in tiers
        for name in tier.names()
    )


def _steps(rule: Rule) -> Iterable[str]:
    for number, tier in enumerate(rule.tiers, 1):
        if rule.failover.pinned in (0, number):
            yield f"tier {number} ({', '.join(tier.names())})"


def _no_ipv4(findings: Findings, path: str, instance: Instance) -> None:
    """Warn of clients that find IPv6 alone, where those of `default` find IPv4 too."""
    own = [rule for rule in instance.rules if "default" in rule.lines]
    if not own or "ipv4" not in _families(findings, own):
        return
    for index, rule in enumerate(instance.rules):
        if _families(findings, [rule]) == {"ipv6"} and rule not in own:
            findings.warn(
                f"{path}.rules[{index}]",
                "its clients get no IPv4 address, as those of default do: "
                "who has IPv4 alone can't reach it",
            )
