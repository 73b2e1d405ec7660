"""Answers under a what-if: typical clients of a line, and pools of which something is down.

Decides nothing of its own: an answer is what `ctl.explain` says of a view, a state what the
coordinator's judgement makes of verdicts. Reads values, touches nothing.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from fractions import Fraction
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from coordinator import pool as judgement
from coordinator.events import TargetKey
from gtm.lines import Line, parse_line
from gtm.model import Address, Check, ClientLine, Pool, Resources, target_port
from gtm.ports import Question
from gtm.state import Health, Member, PoolState, StoredZone
from gtm.view import View
from resolver.continents import CONTINENT
from resolver.place import NOBODY, NOWHERE, Geography, Locator, Place, partition

from .explain import explain

MAX_DEPTH = 16
"""How deep lines of one's own are followed."""
MAX_LEAVES = 4096
"""Different answers that one client may be given."""
NOBODYS = ("198.18.0.1", "2001:2::1")
"""Addresses of the benchmarking networks (RFC 2544, RFC 5180), where no client is by its address
unless a line names them."""


class Sample(Struct, frozen=True):
    """A client that stands for those called `text`: its address, and the place that it is given."""

    text: str
    address: str
    place: Place = NOWHERE


class Everywhere:
    """The locator to which every address is at one place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        here = (partition(32, (0,), (1,)), partition(128, (0,), (1,)))
        self.geography = NOBODY if place == NOWHERE else Geography((NOWHERE, place), *here)

    def find(self, packed: bytes) -> Place:
        """The one place."""
        return self._place


class Answered(Struct, frozen=True, kw_only=True):
    """What a client is answered: by which rule and tier, from which pools, each answer's chance.

    `answers` are the addresses (or the name of a CNAME), in order; `path` says why.
    """

    rule: str
    tier: int
    pools: tuple[str, ...]
    answers: tuple[tuple[tuple[str, ...], Fraction], ...]
    ttl: int | None
    path: tuple[str, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address that may be answered, each once."""
        return tuple(dict.fromkeys(value for one, _ in self.answers for value in one))

    def shares(self) -> dict[str, Fraction]:
        """The part of the load that each address gets if clients take the first one answered."""
        found: dict[str, Fraction] = {}
        for values, chance in self.answers:
            for value in values[:1]:
                found[value] = found.get(value, Fraction(0)) + chance
        return found


# ---- clients -----------------------------------------------------------------------------------


def sample(text: str, lines: Mapping[str, ClientLine], locator: Locator) -> Sample:
    """The client that `text` stands for: an address or network, or whoever is typical of a line.

    Typical of a country is who is known to be there and no more. ValueError where `text` is none of
    these, or where nobody typical can be found.
    """
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        pass
    else:
        address = network.network_address
        return Sample(text, str(address), locator.find(address.packed))
    return _typical(text, lines, 0)


def _typical(text: str, lines: Mapping[str, ClientLine], depth: int) -> Sample:
    line = parse_line(text)
    if line.kind == "network":
        return Sample(text, str(line.network[0]))
    if line.kind != "own":
        return Sample(text, NOBODYS[0], _place(line))
    own = lines.get(line.value)
    if own is None:
        raise ValueError(f"there is no line {text!r}; name one, an address or a network")
    if depth > MAX_DEPTH:
        raise ValueError(f"the line {text!r} is nested too deep")
    if own.networks:
        return Sample(text, str(ipaddress.ip_network(own.networks[0])[0]))
    wider = own.any_of or own.all_of
    if not wider:
        raise ValueError(f"nobody is typical of the line {text!r}: give an address or a network")
    return replace(_typical(wider[0], lines, depth + 1), text=text)


def _place(line: Line) -> Place:
    match line.kind:
        case "country":
            return Place(continent=CONTINENT.get(line.value, ""), country=line.value)
        case "subdivision":
            country = line.value.partition("-")[0]
            return Place(
                continent=CONTINENT.get(country, ""), country=country, subdivisions=(line.value,)
            )
        case "asn" | "isp":
            return Place(asn=line.asns[0])
        case "oversea":
            return Place(continent="OC", country="TV")
        case "continent":
            inside = sorted(code for code, found in CONTINENT.items() if found == line.value)
            return Place(continent=line.value, country=inside[-1])
    return NOWHERE


# ---- states ------------------------------------------------------------------------------------


def states(
    resources: Resources,
    down: Collection[str] = (),
    healths: Mapping[TargetKey, Health] = MappingProxyType({}),
) -> dict[str, PoolState]:
    """The state of every pool with all healthy but `down`: POOL, POOL/ADDRESS or ADDRESS.

    `healths` are verdicts that are known better. ValueError names what is no pool and no address.
    """
    _known(resources, down)
    return {
        name: _state(name, pool, down, resources.checks, healths)
        for name, pool in resources.pools.items()
    }


def _known(resources: Resources, down: Collection[str]) -> None:
    every = {address.value for pool in resources.pools.values() for address in pool.addresses}
    for target in down:
        name, _, value = target.partition("/")
        pool = resources.pools.get(name)
        if pool is None and target not in every:
            raise ValueError(f"{target!r} is no pool, no POOL/ADDRESS and no address of one")
        if pool is not None and value and value not in {one.value for one in pool.addresses}:
            raise ValueError(f"pool {name} has no address {value!r}")


def _state(
    name: str,
    pool: Pool,
    down: Collection[str],
    checks: Mapping[str, Check],
    healths: Mapping[TargetKey, Health],
) -> PoolState:
    verdicts: list[list[tuple[str, Health]]] = [
        [(check, "up") for check in address.checked_by(pool)] for address in pool.addresses
    ]
    if healths:
        verdicts = [
            [(check, healths.get(_target(check, checks[check], address), "up")) for check, _ in row]
            for row, address in zip(verdicts, pool.addresses, strict=True)
        ]
    state = judgement.judge(pool, verdicts, None, patient=False, generation=0, wall_s=0.0)
    assert state is not None  # only a patient judgement waits
    members = tuple(
        _down(member)
        if not {name, f"{name}/{member.value}", member.value}.isdisjoint(down)
        else member
        for member in state.members
    )
    return replace(state, members=members)


def _target(name: str, check: Check, address: Address) -> TargetKey:
    return TargetKey(name, address.value, target_port(check, address))


def _down(member: Member) -> Member:
    return replace(member, answered=False, counted=False, why="down")


def view_of(resources: Resources, pools: Mapping[str, PoolState]) -> View:
    """The view that resolvers would have of `resources` and these states of pools."""
    return View(
        zones={
            name: StoredZone(nameservers=zone.nameservers, soa=zone.soa, ttl=zone.ttl)
            for name, zone in resources.zones.items()
        },
        lines=resources.lines,
        regions=resources.regions,
        instances={
            name: instance if instance.id else replace(instance, id="gtm00000000")
            for name, instance in resources.instances.items()
        },
        pools=dict(pools),
    )


# ---- answers -----------------------------------------------------------------------------------


def answered(view: View, instance: str, qtype: str, client: Sample) -> Answered:
    """What `client` is answered when it asks for `instance`; LookupError where there is none."""
    name = view.instances[instance].names()[0]
    question = Question(name=name, qtype=qtype, client=client.address)
    told = json.loads(explain(view, question, Everywhere(client.place), most=MAX_LEAVES))
    chances = told.get("chances") or ["1"] * len(told["possible_answers"])
    return Answered(
        rule=told["rule"] or "",
        tier=told["tier"] or 0,
        pools=tuple(told["pools"]),
        answers=tuple(
            (tuple(values), Fraction(chance))
            for values, chance in zip(told["possible_answers"], chances, strict=True)
        ),
        ttl=told["ttl"],
        path=tuple(told["path"]),
    )


def singles(resources: Resources, instance: str, what: str) -> Iterator[str]:
    """Every pool, or every address (`what`), that `instance` may answer from, one at a time."""
    for name in resources.instances[instance].pools():
        pool = resources.pools.get(name)
        if pool is None:
            continue
        if what == "pool":
            yield name
        else:
            yield from (f"{name}/{address.value}" for address in pool.addresses)


def named_lines(texts: Iterable[str], own: Mapping[str, ClientLine]) -> list[Line]:
    """Every built-in line in `texts`, those inside lines of one's own too, each once."""
    found: dict[Line, None] = {}
    waiting, seen = list(texts), set[str]()
    while waiting:
        line = parse_line(waiting.pop())
        if line.kind != "own":
            found[line] = None
        elif line.value not in seen:
            seen.add(line.value)
            inner = own.get(line.value)
            if inner is not None:
                waiting += [*inner.refers(), *(f"network:{text}" for text in inner.networks)]
    return list(found)
