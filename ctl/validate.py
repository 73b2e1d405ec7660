"""Whether resources fit together: every rule over a whole set, all problems at once.

Pure judgement of values; `gtm.config` has read each resource by itself before. Resources that it
could not read are given as `broken`: their names exist, nothing else is said of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gtm.config import Reading, Variants, read_files, read_plain
from gtm.model import Instance, Resources
from gtm.ports import Problem, Review
from gtm.state import StoredZone
from gtm.view import View
from resolver.compiler import compile_table
from resolver.place import Unplaced

from . import rules_checks, rules_instances, rules_lines, rules_pools, rules_zones
from .findings import Findings
from .registry import registered as registered


def review_files(paths: Iterable[str | Path], variants: Variants | None = None) -> Review:
    """Read and judge files as one whole set; problems have file and line."""
    variants = variants or registered()
    reading = read_files(paths, variants)
    return review(reading, variants)


def review_plain(
    resources: Mapping[str, Mapping[str, Any]], variants: Variants | None = None
) -> Review:
    """Read and judge plain data (kind -> name -> resource) as one whole set."""
    variants = variants or registered()
    return review(read_plain(resources, variants), variants)


def review(reading: Reading, variants: Variants) -> Review:
    """The reading with the problems of the whole set added, each located."""
    settled, found = validate(reading.sound, variants, reading.broken)
    problems = tuple(sorted((*reading.problems, *map(reading.located, found)), key=_order))
    refused = any(problem.severity == "error" for problem in problems)
    return Review(resources=None if refused else settled, problems=problems)


def _order(problem: Problem) -> tuple[str, str, int]:
    return (problem.severity, problem.file, problem.line)


def validate(
    resources: Resources, variants: Variants, broken: Iterable[tuple[str, str]] = ()
) -> tuple[Resources, tuple[Problem, ...]]:
    """The resources with what the set fills in, and all problems of the set, errors first."""
    broken = tuple(broken)
    findings = Findings(resources, variants, broken)
    zones = {
        name: rules_zones.settled(name, zone, findings) for name, zone in resources.zones.items()
    }
    only = next(iter(findings.names["zones"])) if len(findings.names["zones"]) == 1 else ""
    instances = {
        name: replace(instance, zone=instance.zone or only)
        for name, instance in resources.instances.items()
    }
    findings.resources = replace(resources, zones=zones, instances=instances)
    static = rules_zones.judge(findings)
    own = rules_lines.judge(findings)
    rules_checks.judge(findings)
    rules_pools.judge(findings)
    rules_instances.judge(findings, static, own)
    problems = findings.problems()
    if not broken and not any(problem.severity == "error" for problem in problems):
        problems = (*_unservable(findings.resources), *problems)
    return findings.resources, problems


def _unservable(resources: Resources) -> tuple[Problem, ...]:
    """What no rule here caught and yet no resolver could compile: refused before it is stored.

    Resolvers keep their last table when they can't compile a new one, so nothing that would make
    them do so may pass. Instances whose ids are still to be allocated are left out.
    """
    view = View(
        zones={
            name: StoredZone(nameservers=zone.nameservers, soa=zone.soa, ttl=zone.ttl)
            for name, zone in resources.zones.items()
        },
        records={name: {"-": zone.records} for name, zone in resources.zones.items()},
        lines=resources.lines,
        instances=_shapes(resources.instances),
    )
    try:
        compile_table(view, Unplaced())
    except ValueError as error:
        return (Problem(text=f"resolvers could not serve this: {error}"),)
    return ()


def _shapes(instances: Mapping[str, Instance]) -> dict[str, Instance]:
    """Instances with names, the rules of each set of lines once: they compile alike."""
    seen: set[tuple[tuple[str, ...], ...]] = set()
    found = {}
    for name, instance in instances.items():
        if not instance.id and not instance.access_names:
            continue
        shape = tuple(rule.lines for rule in instance.rules)
        found[name] = replace(instance, rules=()) if shape in seen else instance
        seen.add(shape)
    return found
