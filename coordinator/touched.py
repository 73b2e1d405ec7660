"""What a plan may change in answers: the instances that it touches, and what they answer from.

Pure. What they are answered before and after is the policy's to say (`gtm.ports.Policy.effects`);
this finds who is to be looked at, and how many addresses leave service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from gtm.lines import is_own
from gtm.model import ClientLine, Resources, Zone
from gtm.view import View

from . import brake

MAX_INSTANCES = 200
"""The most instances whose answers are compared; further ones are counted."""


class Touched(Struct, frozen=True, kw_only=True):
    """The instances to be looked at, with what they need of both sets; the others in numbers."""

    names: tuple[str, ...]
    before: Resources
    after: Resources
    skipped: int
    leaving: int


def touched(before: Resources, after: Resources) -> Touched:
    """Who may be answered something else when `after` stands instead of `before`."""
    names = sorted(_names(before, after))
    looked_at = tuple(names[:MAX_INSTANCES])
    pools = _differing(before.pools, after.pools)
    was, becomes = (
        {name: one.pools[name] for name in pools if name in one.pools} for one in (before, after)
    )
    return Touched(
        names=looked_at,
        before=_part(before, looked_at),
        after=_part(after, looked_at),
        skipped=len(names) - len(looked_at),
        leaving=len(brake.members(was) - brake.members(becomes)),
    )


def stored(view: View) -> Resources:
    """What stands, without the zones' records."""
    return Resources(
        zones={
            name: Zone(nameservers=zone.nameservers, soa=zone.soa, ttl=zone.ttl)
            for name, zone in view.zones.items()
        },
        lines=view.lines,
        regions=view.regions,
        pools=view.config_pools,
        instances=view.instances,
    )


def _names(before: Resources, after: Resources) -> set[str]:
    """The instances that differ, or name a pool or a line that does."""
    names = _differing(before.instances, after.instances)
    pools = _differing(before.pools, after.pools)
    lines = _differing(before.lines, after.lines)
    everyone = bool(_differing(before.regions, after.regions))
    if not (pools or lines or everyone):
        return names
    for resources in (before, after):
        for name, instance in resources.instances.items():
            if name in names:
                continue
            texts = {text for rule in instance.rules for text in rule.lines} if lines else set()
            if (
                everyone
                or not pools.isdisjoint(instance.pools())
                or not lines.isdisjoint(_own(texts, resources.lines))
            ):
                names.add(name)
    return names


def _own(texts: set[str], lines: Mapping[str, ClientLine]) -> set[str]:
    """Every line of one's own among `texts`, and those that they are made of."""
    found: set[str] = set()
    waiting = [text for text in texts if is_own(text)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            line = lines.get(name)
            waiting += filter(is_own, line.refers()) if line else ()
    return found


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _part(resources: Resources, names: tuple[str, ...]) -> Resources:
    """What the instances `names` answer from."""
    instances = {n: resources.instances[n] for n in names if n in resources.instances}
    pools = dict.fromkeys(pool for instance in instances.values() for pool in instance.pools())
    return Resources(
        zones={
            name: Zone(nameservers=zone.nameservers, soa=zone.soa, ttl=zone.ttl)
            for name, zone in resources.zones.items()
        },
        lines=resources.lines,
        regions=resources.regions,
        pools={name: resources.pools[name] for name in pools if name in resources.pools},
        instances=instances,
    )
