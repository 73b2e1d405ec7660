"""Rules over domain pools: where a CNAME may be answered, names that lead back or nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from gtm.availability import answers_cname
from gtm.model import Instance

from .findings import Findings
from .rules_loops import shown, walk
from .rules_zones import Static, zone_of


def clash(findings: Findings, instance: Instance, name: str, static: Static) -> str:
    """What keeps `instance` from answering a CNAME at its access name `name`; "" where nothing."""
    pools = findings.resources.pools
    pool = next((each for each in instance.pools() if answers_cname(pools.get(each))), None)
    if pool is None:
        return ""
    advice = f"pool {pool!r} answers a CNAME, which stands beside nothing; say flatten: true there"
    if name in findings.names["zones"]:
        return f"{name} is the apex of a zone: {advice}"
    for type_, place in static.types.get(name, {}).items():
        return f"{name} has static data of type {type_} ({place}): {advice}"
    return ""


def judge(findings: Findings, static: Static, holders: Mapping[str, str]) -> None:
    """Note members that lead back to their own instance, or nowhere in our zones.

    `holders` has the instance of every access name.
    """
    resources = findings.resources
    domains = {name: pool for name, pool in resources.pools.items() if pool.type == "domain"}
    if not domains:
        return
    everything = _all_named(findings)
    edges: dict[str, list[str]] = {}
    places: dict[tuple[str, str], str] = {}
    for name, pool in domains.items():
        here = edges.setdefault(f"pool {name}", [])
        for index, address in enumerate(pool.addresses):
            value = address.value
            if value in holders or value in static.aliases:
                here.append(value)
                places[f"pool {name}", value] = f"pools.{name}.addresses[{index}].value"
            elif everything:
                _nowhere(findings, f"pools.{name}.addresses[{index}].value", value, static)
    for name, target in static.aliases.items():
        edges[name] = [target]
    for name, instance in resources.instances.items():
        found = [f"pool {pool}" for pool in instance.pools() if pool in domains]
        if found:
            edges[f"instance {name}"] = found
    for name, holder in holders.items():
        if f"instance {holder}" in edges:
            edges[name] = [f"instance {holder}"]
    for loop in walk(edges)[1]:
        step = next((pair for pair in pairwise(loop) if pair in places), None)
        if step is not None:  # else a loop of static records, which their own rule names
            findings.error(places[step], f"{step[1]} leads back to itself: {shown(loop)}")


def _all_named(findings: Findings) -> bool:
    """Whether the access names of all instances are known; ids are allocated by an apply."""
    instances = findings.resources.instances
    return len(instances) == len(findings.names["instances"]) and all(
        each.id or each.access_names for each in instances.values()
    )


def _nowhere(findings: Findings, path: str, name: str, static: Static) -> None:
    """Warn of a name in our zones that has nothing, so that nobody can reach it."""
    zone = zone_of(name, findings.names["zones"])
    if zone is None or zone not in findings.resources.zones or name in static.types:
        return
    above = name
    while above != zone:
        above = above.partition(".")[2]
        if {"NS", "DNAME"} & static.types.get(above, {}).keys() and above != zone:
            return
        if f"*.{above}" in static.types:
            return
    findings.warn(path, f"{name} lies in our zone {zone}, and there is nothing")
