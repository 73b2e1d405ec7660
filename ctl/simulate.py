"""Answers and load shares under a what-if: other configuration; pools, addresses, regions down.

Reads values, touches nothing. The load of an address is the share of the clients that take it
first: all clients of a name, by the share that each line or sample has of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from msgspec import Struct

from coordinator.events import TargetKey
from gtm.lines import parse_line
from gtm.model import FAMILIES, Instance, Resources
from resolver.place import Locator

from . import votes, whatif
from .votes import Heard, Turn
from .whatif import Answered

_TYPES = {"ipv4": "A", "ipv6": "AAAA"}
REGION = "region:"
"""What a region's name follows where other targets may stand too."""
MAX_ROWS = 100_000
"""The most rows of one simulation."""


class Share(Struct, frozen=True):
    """How much of the load `client` (a line, an address or a network) stands for."""

    client: str
    weight: Fraction = Fraction(1)


class Row(Struct, frozen=True, kw_only=True):
    """What one client is answered by one instance; `weight` is its part of the load."""

    instance: str
    client: str
    type: str
    weight: Fraction
    answered: Answered


class Outcome(Struct, frozen=True, kw_only=True):
    """Rows, the load of each address (instance -> address -> share), and what is doubtful.

    `turns` are the verdicts that another set of regions makes others, or leaves pending.
    """

    rows: tuple[Row, ...]
    load: Mapping[str, Mapping[str, Fraction]]
    warnings: tuple[str, ...]
    turns: tuple[Turn, ...] = ()


def simulate(
    resources: Resources,
    locator: Locator,
    *,
    down: Sequence[str] = (),
    clients: Sequence[Share] = (),
    instances: Sequence[str] = (),
    load: Fraction | None = None,
    added: Sequence[str] = (),
    known: Mapping[TargetKey, Heard] | None = None,
) -> Outcome:
    """The outcome for `instances` (default: all) and `clients` (default: every line of each).

    `load` is the whole load of each instance in the unit of the addresses' capacities: an address
    that would get more than its capacity is warned of. Of what is `down` and `added`, `region:NAME`
    is a region; verdicts are then judged of the votes that are `known` (else: all up). ValueError
    names what is unknown.
    """
    for name in instances:
        if name not in resources.instances:
            raise ValueError(f"there is no instance {name!r}")
    for target in added:
        if not target.startswith(REGION):
            raise ValueError(f"{target!r} can't be added, only {REGION}NAME; else change the files")
    verdicts = votes.judge(resources, known, down=_regions(down), added=_regions(added))
    out = [target for target in down if not target.startswith(REGION)]
    view = whatif.view_of(resources, whatif.states(resources, out, verdicts.healths))
    rows: list[Row] = []
    totals: dict[str, dict[str, Fraction]] = {}
    for name in instances or sorted(resources.instances):
        instance = resources.instances[name]
        shares = list(clients) or _lines(instance)
        whole = sum((share.weight for share in shares), Fraction(0))
        if whole <= 0:
            raise ValueError("the clients weigh nothing together")
        for family in _families(instance, resources):
            for share in shares:
                client = whatif.sample(share.client, resources.lines, locator)
                found = whatif.answered(view, name, _TYPES[family], client)
                part = share.weight / whole
                rows.append(
                    Row(
                        instance=name,
                        client=share.client,
                        type=_TYPES[family],
                        weight=part,
                        answered=found,
                    )
                )
                if len(rows) > MAX_ROWS:
                    raise ValueError(f"more than {MAX_ROWS:,} rows: name instances or clients")
                of = totals.setdefault(name, {})
                for address, fraction in found.shares().items():
                    of[address] = of.get(address, Fraction(0)) + fraction * part
    warnings = tuple(_overloads(resources, totals, load)) if load is not None else ()
    return Outcome(rows=tuple(rows), load=totals, warnings=warnings, turns=verdicts.turns)


def _regions(targets: Sequence[str]) -> list[str]:
    """The regions among targets."""
    return [one.removeprefix(REGION) for one in targets if one.startswith(REGION)]


def _lines(instance: Instance) -> list[Share]:
    """Every line that the rules name, each once, the default among them."""
    texts = dict.fromkeys(str(parse_line(text)) for rule in instance.rules for text in rule.lines)
    return [Share(text) for text in texts]


def _families(instance: Instance, resources: Resources) -> list[Any]:
    types = {resources.pools[name].type for name in instance.pools() if name in resources.pools}
    if "domain" in types:
        return list(FAMILIES)
    return [family for family in FAMILIES if family in types] or [FAMILIES[0]]


def _overloads(
    resources: Resources, totals: Mapping[str, Mapping[str, Fraction]], load: Fraction
) -> list[str]:
    """A sentence for each address whose load, over all instances, is beyond its capacity."""
    carried: dict[str, Fraction] = {}
    for shares in totals.values():
        for address, share in shares.items():
            carried[address] = carried.get(address, Fraction(0)) + share * load
    told = []
    for name, pool in resources.pools.items():
        for member in pool.addresses:
            got = carried.get(member.value, Fraction(0))
            if isinstance(member.capacity, int) and got > member.capacity:
                told.append(
                    f"{name}/{member.value} would carry {float(got):g}, more than its capacity of "
                    f"{member.capacity}"
                )
    return told
