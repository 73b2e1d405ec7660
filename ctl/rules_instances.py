"""Rules over instances: ids and access names, and what their rules say by themselves.

Rules that can never match are found by `rules_shadowed`, what may be answered is judged by
`rules_tiers` and `rules_domains`.
"""

from __future__ import annotations

import re

from msgspec import UNSET

from gtm.model import Instance, Rule

from . import rules_domains, rules_shadowed, rules_tiers
from .findings import Findings
from .rules_lines import Own
from .rules_zones import Static, zone_of

_ID = re.compile(r"gtm[0-9]{8}")


def judge(findings: Findings, static: Static, own: Own) -> None:
    """Note what is wrong with instances; `static` holds the records of the zones.

    `own` says what lines of one's own certainly hold.
    """
    ids: dict[str, str] = {}
    holders: dict[str, str] = {}
    unshadowed: set[tuple[tuple[tuple[str, ...], str], ...]] = set()  # nothing else is asked there
    for name, instance in findings.resources.instances.items():
        path = f"instances.{name}"
        if _identity(findings, path, name, instance, ids):
            _access_names(findings, path, name, instance, holders, static)
        _ttls(findings, path, instance)
        _rules(findings, path, instance)
        lines = tuple([(rule.lines, rule.on_exhausted) for rule in instance.rules])
        if lines not in unshadowed:
            before = findings.number
            rules_shadowed.judge(findings, path, instance.rules, own)
            if findings.number == before:
                unshadowed.add(lines)
        rules_tiers.judge(findings, path, instance)
    rules_domains.judge(findings, static, holders)


def _ttls(findings: Findings, path: str, instance: Instance) -> None:
    findings.whole_seconds(f"{path}.ttl", instance.ttl)
    wavering = instance.ttl_wavering
    if wavering is UNSET:
        return
    findings.whole_seconds(f"{path}.ttl_wavering", wavering)
    if wavering.ms >= instance.ttl.ms:
        findings.error(
            f"{path}.ttl_wavering",
            f"{wavering} is not shorter than the ttl of {instance.ttl}",
        )


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
        else:
            clash = static.clash(text, zone) or rules_domains.clash(
                findings, instance, text, static
            )
            if clash:
                findings.error(place, clash)


# ---- rules -----------------------------------------------------------------------------------


def _rules(findings: Findings, path: str, instance: Instance) -> None:
    seen: dict[str, int] = {}
    for index, rule in enumerate(instance.rules):
        place = f"{path}.rules[{index}]"
        if rule.name in seen:
            findings.error(
                f"{place}.name", f"{rule.name!r} stands twice, first as rules[{seen[rule.name]}]"
            )
        seen.setdefault(rule.name, index)
        if not rule.lines:
            findings.error(f"{place}.lines", "a rule without lines matches nobody")
        findings.lines(f"{place}.lines", rule.lines)
        _changes_of_tier(findings, place, rule)
    if instance.unmatched != "nodata" and not any("default" in r.lines for r in instance.rules):
        findings.error(path, "no rule has the line default; add one, or say unmatched: nodata")


def _changes_of_tier(findings: Findings, place: str, rule: Rule) -> None:
    """Note a pin to no tier, and a failback that nothing ever asks for."""
    pinned = rule.failover.pinned
    if rule.tiers and pinned > len(rule.tiers):
        findings.error(
            f"{place}.failover.pinned",
            f"there is no tier {pinned}; the rule has {len(rule.tiers)}",
        )
    if rule.failback.word == "immediate":
        return
    if pinned:
        findings.warn(f"{place}.failback", f"says nothing: the rule is pinned to tier {pinned}")
    elif len(rule.tiers) == 1:
        findings.warn(f"{place}.failback", "says nothing: the rule has one tier")
