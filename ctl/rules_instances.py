"""Rules over instances: ids and access names, lines and tiers of their rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import prod

from gtm.lines import Line, parse_line
from gtm.model import FAMILIES, Instance, Rule, Tier
from resolver.limits import MAX_LEAVES
from resolver.steering.base import most_leaves

from .findings import Findings
from .rules_zones import Static, zone_of

_ID = re.compile(r"gtm[0-9]{8}")


def judge(findings: Findings, static: Static) -> None:
    """Note what is wrong with instances; `static` holds the records of the zones."""
    ids: dict[str, str] = {}
    holders: dict[str, str] = {}
    for name, instance in findings.resources.instances.items():
        path = f"instances.{name}"
        if _identity(findings, path, name, instance, ids):
            _access_names(findings, path, name, instance, holders, static)
        findings.whole_seconds(f"{path}.ttl", instance.ttl)
        _rules(findings, path, instance)


def _identity(
    findings: Findings, path: str, name: str, instance: Instance, ids: dict[str, str]
) -> bool:
    """Note what is wrong with id and zone; whether the id is its own."""
    if instance.id and not _ID.fullmatch(instance.id):
        findings.error(f"{path}.id", f"{instance.id!r} is no instance id: gtm and 8 digits")
    elif instance.id and ids.setdefault(instance.id, name) != name:
        findings.error(f"{path}.id", f"{instance.id} is the id of instance {ids[instance.id]!r}")
    zones = findings.names["zones"]
    if instance.zone:
        findings.unknown(f"{path}.zone", "zones", instance.zone)
    elif not zones:
        findings.error(path, "there is no zone for its access name; add one under zones")
    elif len(zones) > 1:
        choice = sorted(findings.resources.zones)  # without those whose names are broken
        findings.error(
            path, f"the key 'zone' is missing{'; one of ' if choice else ''}{', '.join(choice)}"
        )
    return not instance.id or ids.get(instance.id) == name


def _access_names(
    findings: Findings,
    path: str,
    name: str,
    instance: Instance,
    holders: dict[str, str],
    static: Static,
) -> None:
    findings.twice(f"{path}.access_names", instance.access_names)
    named = instance.access_names
    if named:
        places = [(f"{path}.access_names[{index}]", text) for index, text in enumerate(named)]
    elif instance.id and instance.zone in findings.resources.zones:
        places = [(f"{path}.id", f"{instance.id}.{instance.zone}")]
    else:
        return  # the id is allocated when the set is applied
    for place, text in places:
        zone = zone_of(text, findings.names["zones"])
        if zone is None:
            findings.error(place, f"{text} lies outside every zone of ours")
        elif holders.setdefault(text, name) != name:
            findings.error(place, f"{text} is an access name of instance {holders[text]!r} already")
        elif clash := static.clash(text, zone):
            findings.error(place, clash)


# ---- rules -----------------------------------------------------------------------------------


def _rules(findings: Findings, path: str, instance: Instance) -> None:
    seen: dict[str, int] = {}
    taken = _Taken()
    for index, rule in enumerate(instance.rules):
        place = f"{path}.rules[{index}]"
        if rule.name in seen:
            findings.error(
                f"{place}.name", f"{rule.name!r} stands twice, first as rules[{seen[rule.name]}]"
            )
        seen.setdefault(rule.name, index)
        _lines(findings, place, rule, taken)
        _tiers(findings, place, rule)
    if not taken.by(Line("default")) and instance.unmatched != "nodata":
        findings.error(path, "no rule has the line default; add one, or say unmatched: nodata")


class _Taken:
    """Which rule took a line, by kind; autonomous systems count one by one."""

    def __init__(self) -> None:
        self.rules: dict[object, str] = {}

    @staticmethod
    def _parts(line: Line) -> Iterable[object]:
        return line.asns if line.kind in ("asn", "isp") else (line,)

    def by(self, line: Line) -> str:
        """The rule that has all of `line` already (the last one where several share it)."""
        owners = [self.rules.get(part, "") for part in self._parts(line)]
        return owners[-1] if all(owners) else ""

    def take(self, line: Line, rule: str) -> None:
        """From now on `rule` has what of `line` nobody had."""
        for part in self._parts(line):
            self.rules.setdefault(part, rule)


def _lines(findings: Findings, place: str, rule: Rule, taken: _Taken) -> None:
    if not rule.lines:
        findings.error(f"{place}.lines", "a rule without lines matches nobody")
    findings.twice(f"{place}.lines", rule.lines)
    lines = [parse_line(text) for text in rule.lines]
    before = [taken.by(line) for line in lines]
    if lines and all(before):
        owners = ", ".join(repr(owner) for owner in dict.fromkeys(before))
        findings.error(
            place, f"the rule can never match: earlier rules have all its lines ({owners})"
        )
    else:
        for index, (line, owner) in enumerate(zip(lines, before, strict=True)):
            if owner:
                findings.warn(
                    f"{place}.lines[{index}]", f"{line} never matches here: {owner!r} has it"
                )
    for line in lines:
        taken.take(line, rule.name)


def _tiers(findings: Findings, place: str, rule: Rule) -> None:
    if not rule.tiers:
        findings.error(f"{place}.tiers", "a rule without tiers answers nothing")
    for index, tier in enumerate(rule.tiers):
        path = f"{place}.tiers[{index}].pools"
        if not tier.pools:
            findings.error(path, "a tier names at least one pool")
        findings.twice(path, tier.names())
        for number, name in enumerate(tier.names()):
            pool = findings.resources.pools.get(name)
            if pool is not None and not pool.addresses:
                findings.error(f"{path}[{number}]", f"pool {name!r} is empty")
            elif pool is None:
                findings.unknown(f"{path}[{number}]", "pools", name)
        _leaves(findings, path, tier)
    pinned = rule.failover.pinned
    if rule.tiers and pinned > len(rule.tiers):
        findings.error(
            f"{place}.failover.pinned",
            f"there is no tier {pinned}; the rule has {len(rule.tiers)}",
        )


def _leaves(findings: Findings, path: str, tier: Tier) -> None:
    """Note a tier whose different answers can't all be made ahead.

    Pools that are all round_robin are one list; else each picks for itself, in every combination.
    """
    named = [findings.resources.pools.get(name) for name in dict.fromkeys(tier.names())]
    for family in FAMILIES:
        pools = [pool for pool in named if pool is not None and pool.type == family]
        sizes = [len(pool.addresses) for pool in pools]
        if all(pool.steering.type == "round_robin" for pool in pools):
            leaves = most_leaves(sum(sizes))
        else:
            leaves = prod(map(most_leaves, sizes))
        if leaves > MAX_LEAVES:
            findings.error(
                path,
                f"{leaves:,} different {family} answers; {MAX_LEAVES:,} is the most for a tier",
            )
