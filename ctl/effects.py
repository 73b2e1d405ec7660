"""What a plan changes in answers: who would get something else, with everything healthy.

The difference between two sets, line by line of the instances that a plan touches. Health
and forces of the moment are left out: `gtm explain` and `gtm simulate` show those. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gtm.model import ClientLine, Instance, Resources
from gtm.ports import Effect
from gtm.view import View
from resolver.place import Unplaced

from . import whatif


def effects(before: Resources, after: Resources, names: Sequence[str]) -> tuple[Effect, ...]:
    """What differs in the answers of the instances `names` between two sets, each valid.

    The sets may be no more than what those instances answer from (`coordinator.touched`).
    """
    sets = (before, after)
    views = (_view(before), _view(after))
    return tuple(found for name in names for found in _compared(name, sets, views))


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
