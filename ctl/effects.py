"""What a plan changes in answers: who would get something else, with everything healthy.

The difference between two whole sets, line by line of the instances that the plan touches. Health
and forces of the moment are left out: `gtm explain` and `gtm simulate` show those. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from gtm.model import ClientLine, Instance, Resources
from gtm.view import View
from resolver.clients import own_lines
from resolver.place import Unplaced

from . import whatif

MAX_INSTANCES = 200
"""The most instances whose answers are compared; further ones are counted."""


class Effect(Struct, frozen=True, kw_only=True):
    """What clients of a line get of an instance before and after; "" stands for no such name."""

    instance: str
    line: str
    type: str
    before: str
    after: str


class Effects(Struct, frozen=True, kw_only=True):
    """Answers that change, how many touched instances were not looked at, addresses that go."""

    changed: tuple[Effect, ...] = ()
    skipped: int = 0
    leaving: int = 0


def effects(before: Resources, after: Resources) -> Effects:
    """The difference in answers between two sets that are each valid."""
    touched = sorted(_touched(before, after))
    views = (_view(before), _view(after))
    changed = [
        found
        for name in touched[:MAX_INSTANCES]
        for found in _compared(name, (before, after), views)
    ]
    return Effects(
        changed=tuple(changed),
        skipped=max(0, len(touched) - MAX_INSTANCES),
        leaving=len(_serving(before) - _serving(after)),
    )


def _serving(resources: Resources) -> set[tuple[str, str]]:
    return {
        (name, address.value)
        for name, pool in resources.pools.items()
        for address in pool.addresses
        if address.mode not in ("offline", "manual_down")
    }


def _touched(before: Resources, after: Resources) -> set[str]:
    """The instances that differ, or name a pool or a line that does."""
    pools = _differing(before.pools, after.pools)
    lines = _differing(before.lines, after.lines)
    regions = bool(_differing(before.regions, after.regions))
    names = set(_differing(before.instances, after.instances))
    for resources in (before, after):
        for name, instance in resources.instances.items():
            mentioned = own_lines(_texts(instance), resources.lines) if lines else ()
            if regions or pools & {*instance.pools()} or lines & {*mentioned}:
                names.add(name)
    return names


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _texts(instance: Instance) -> list[str]:
    return [text for rule in instance.rules for text in rule.lines]


def _view(resources: Resources) -> View:
    return whatif.view_of(resources, whatif.states(resources))


def _compared(
    name: str, sets: tuple[Resources, Resources], views: tuple[View, View]
) -> Iterable[Effect]:
    texts = dict.fromkeys(
        text for one in sets if name in one.instances for text in _texts(one.instances[name])
    )
    for text in texts:
        for qtype in ("A", "AAAA"):
            was, becomes = (
                _answer(name, text, qtype, one, view) for one, view in zip(sets, views, strict=True)
            )
            if was != becomes:
                yield Effect(instance=name, line=text, type=qtype, before=was, after=becomes)


def _answer(name: str, text: str, qtype: str, resources: Resources, view: View) -> str:
    """The answer in words: pools, values with their shares where these differ, TTL."""
    instance = resources.instances.get(name)
    if instance is None or not instance.enabled:
        return ""
    lines: Mapping[str, ClientLine] = resources.lines
    try:
        client = whatif.sample(text, lines, Unplaced())
    except ValueError:
        return "nobody is on that line"
    found = whatif.answered(view, name, qtype, client)
    if not found.addresses:
        return "no answer"
    shares = found.shares()
    even = len(set(shares.values())) == 1 and len(shares) == len(found.addresses)
    told = [
        value if even or value not in shares else f"{value} {float(shares[value]):.3g}"
        for value in found.addresses[:8]
    ]
    more = f" and {len(found.addresses) - 8} more" if len(found.addresses) > 8 else ""
    return f"{', '.join(found.pools)}: {', '.join(told)}{more}, TTL {found.ttl} s"
