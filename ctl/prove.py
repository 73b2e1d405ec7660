"""Whether expectations on routing hold for a set of resources, with a counter-example where not.

`gets` and `at_least` are evaluated for the state that they name, and with `any_one_down` for every
single failure beside it. `never` is proved: over every client that is on the line, as far as the
instance's rules can tell clients apart, and every combination of pools that may be down. Forces are
operators' and not looked at. Pure but for the locator that it is handed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import UNSET, Struct

from gtm.availability import answers_cname, judged_once, serves
from gtm.expect import Expectation
from gtm.lines import Line, parse_line
from gtm.model import ClientLine, Family, Instance, Resources, Rule
from gtm.ports import Problem
from resolver import ranking
from resolver.clients import Client, networks_of
from resolver.continents import CONTINENT
from resolver.place import NOWHERE, Locator, Place
from resolver.ranking import Network, lines_of, ranked

from . import whatif
from .whatif import Sample

MAX_CLIENTS = 200_000
"""The most kinds of clients that one proof looks at."""
_FAMILY: Mapping[str, Family] = {"A": "ipv4", "AAAA": "ipv6"}


class Result(Struct, frozen=True, kw_only=True):
    """An expectation, and why it does not hold; "" where it does. `looked_at` counts cases."""

    expectation: Expectation
    why: str = ""
    looked_at: int = 0


def prove(
    resources: Resources, expectations: Sequence[Expectation], locator: Locator
) -> tuple[Result, ...]:
    """The result of each expectation, in order."""
    return tuple(_result(resources, one, locator) for one in expectations)


def problems(results: Iterable[Result]) -> Iterator[Problem]:
    """What refuses an apply: the expectations that do not hold, by their place in the list."""
    for number, result in enumerate(results):
        if result.why:
            text = f"does not hold ({result.expectation}): {result.why}"
            yield Problem(path=f"expect[{number}]", text=text)


def _result(resources: Resources, one: Expectation, locator: Locator) -> Result:
    try:
        _named(resources, one)
        cases = 0
        for why in _cases(resources, one, locator):
            cases += 1
            if why:
                return Result(expectation=one, why=why, looked_at=cases)
    except (ValueError, LookupError) as error:
        return Result(expectation=one, why=str(error.args[0] if error.args else error))
    return Result(expectation=one, looked_at=cases)


def _named(resources: Resources, one: Expectation) -> None:
    if one.instance not in resources.instances:
        raise ValueError(f"there is no instance {one.instance!r}")
    for name in (*(() if one.gets is UNSET else one.gets), *one.never):
        if name not in resources.pools:
            raise ValueError(f"there is no pool {name!r}")


def _cases(resources: Resources, one: Expectation, locator: Locator) -> Iterator[str]:
    """One text for each case looked at: "", or how it fails."""
    if one.gets is not UNSET or one.at_least:
        yield from _evaluated(resources, one, locator)
    if one.never:
        yield from _never(resources, one, locator)


# ---- evaluated -----------------------------------------------------------------------------------


def _evaluated(resources: Resources, one: Expectation, locator: Locator) -> Iterator[str]:
    client = whatif.sample(one.client, resources.lines, locator)
    further = [""]
    if one.any_one_down:
        further += whatif.singles(resources, one.instance, one.any_one_down)
    for single in further:
        down = (*one.down, *((single,) if single else ()))
        view = whatif.view_of(resources, whatif.states(resources, down))
        found = whatif.answered(view, one.instance, one.type, client)
        given = f"with {', '.join(down)} down " if down else ""
        path = f" ({'; '.join(found.path)})" if found.path else ""
        if one.gets is not UNSET and set(found.pools) != set(one.gets):
            pools = ", ".join(found.pools) or "no pool"
            yield f"{given}it gets {pools}, answering {_values(found.addresses)}{path}"
            continue
        least = min((len(values) for values, _ in found.answers), default=0)
        if least < one.at_least:
            yield f"{given}an answer has {least} addresses: {_values(found.addresses)}{path}"
            continue
        yield ""


def _values(values: Sequence[str]) -> str:
    return " ".join(values[:8]) + (" ..." if len(values) > 8 else "") or "nothing"


# ---- proved --------------------------------------------------------------------------------------


def _never(resources: Resources, one: Expectation, locator: Locator) -> Iterator[str]:
    instance, family = resources.instances[one.instance], _FAMILY[one.type]
    forbidden = set(one.never)
    for numbers, client in _distinct(instance, one.client, resources.lines, locator).items():
        reached = dict(_reached(resources, instance, numbers, family))
        hit = next((name for name in reached if name in forbidden), None)
        yield "" if hit is None else f"{_told(client)} gets {hit}: {reached[hit]}"


def _told(client: Sample) -> str:
    place = client.place
    known = [place.country or place.continent, *place.subdivisions]
    known += [f"AS{place.asn}"] if place.asn else []
    where = " ".join(text for text in known if text)
    return f"a client at {client.address}" + (f" ({where})" if where else "")


def _reached(
    resources: Resources, instance: Instance, numbers: Sequence[int], family: Family
) -> Iterator[tuple[str, str]]:
    """(pool, how) for every pool that may answer a client whom the rules `numbers` match."""
    fallen: list[str] = []
    exhausted = False
    for number in numbers:
        rule = instance.rules[number]
        exhausted = False
        for order, pools in _tiers(resources, rule, family):
            down = f" once {', '.join(fallen)} are down" if fallen else ""
            for name in pools:
                yield name, f"rule {rule.name}, tier {order}{down}"
            fallen += [name for name in pools if name not in fallen]
            exhausted = True
        if not exhausted or rule.on_exhausted == "stop":
            break
    if exhausted and numbers:
        yield from _all_down(resources, instance, instance.rules[numbers[0]], family)


def _tiers(
    resources: Resources, rule: Rule, family: Family
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The tiers of a rule that may serve `family`, with their pools of it."""
    once = judged_once(rule, resources.pools)
    pinned = rule.failover.pinned
    for order, tier in enumerate(rule.tiers, 1):
        if pinned and order != pinned:
            continue
        pools = [(name, resources.pools.get(name)) for name in tier.names()]
        found = tuple(name for name, pool in pools if answers_cname(pool) or serves(pool, family))
        if found or once:
            yield order, found


def _all_down(
    resources: Resources, instance: Instance, rule: Rule, family: Family
) -> Iterator[tuple[str, str]]:
    fallback = instance.when_all_down
    if fallback.word == "pool":
        yield fallback.pool, f"when_all_down answers pool {fallback.pool}"
        return
    if fallback.word not in ("lowest_ordinal", "all", "last_good"):
        return
    for tier in rule.tiers:
        for name in tier.names():
            if serves(resources.pools.get(name), family):
                yield name, f"when_all_down {fallback} of rule {rule.name} may answer it"
                if fallback.word == "lowest_ordinal":
                    return


def _distinct(
    instance: Instance, text: str, lines: Mapping[str, ClientLine], locator: Locator
) -> dict[tuple[int, ...], Sample]:
    """The rules that match the clients on `text`, and one client for each such list of rules.

    ValueError where more kinds of clients would have to be looked at than `MAX_CLIENTS`.
    """
    texts = [line for rule in instance.rules for line in rule.lines]
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        clients = _clients([*texts, text], lines)
        wanted: str | None = str(parse_line(text))
    else:
        clients, wanted = iter((whatif.sample(text, lines, locator),)), None
    networks = networks_of([*texts, *([wanted] if wanted else [])], lines)
    written = lines_of(instance.rules)
    found: dict[tuple[int, ...], Sample] = {}
    for count, one in enumerate(clients):
        if count >= MAX_CLIENTS:
            raise ValueError(f"more than {MAX_CLIENTS:,} kinds of clients: name a narrower line")
        around = ranking.around(networks, ipaddress.ip_address(one.address).packed)
        if wanted is None or Client(one.place, around, lines).on(wanted):
            matches = ranked(written, Client(one.place, around, lines))
            found.setdefault(tuple(match.rule for match in matches), one)
    if not found:
        raise ValueError(f"nobody is on the line {text!r}")
    return found


def _clients(texts: Sequence[str], lines: Mapping[str, ClientLine]) -> Iterator[Sample]:
    """A client for every way in which the lines `texts` can tell clients apart."""
    built_in = whatif.named_lines(texts, lines)
    addresses = _addresses(networks_of(texts, lines))
    numbers = _numbers(built_in)
    for place in _places(built_in):
        for number in numbers:
            for address in addresses:
                at = Place(
                    continent=place.continent,
                    country=place.country,
                    subdivisions=place.subdivisions,
                    asn=number,
                )
                yield Sample("", address, at)


def _addresses(networks: Iterable[Network]) -> list[str]:
    """An address in every part of the address space that `networks` cut out, if it has any."""
    edges: dict[int, set[int]] = {4: {0}, 6: {0}}
    for network in networks:
        edges[network.version] |= {int(network[0]), int(network[-1]) + 1}
    found = []
    for version, starts in edges.items():
        kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        end = 1 << (32 if version == 4 else 128)
        found += [str(kind(start)) for start in sorted(starts) if start < end]
    return found


def _numbers(lines: Iterable[Line]) -> list[int]:
    """An AS number for every set of `lines` that one can be on; 0 for none of them."""
    groups: dict[frozenset[Line], int] = {frozenset(): 0}
    numbered = [line for line in lines if line.kind in ("asn", "isp")]
    for number in dict.fromkeys(asn for line in numbered for asn in line.asns):
        groups.setdefault(frozenset(line for line in numbered if number in line.asns), number)
    return list(groups.values())


def _places(lines: Iterable[Line]) -> list[Place]:
    """A place for every way in which `lines` can tell places apart."""
    countries: set[str] = {"CN"}
    divisions: dict[str, list[str]] = {}
    for line in lines:
        if line.kind == "country":
            countries.add(line.value)
        elif line.kind == "subdivision":
            country = line.value.partition("-")[0]
            countries.add(country)
            divisions.setdefault(country, []).append(line.value)
    for continent in sorted(set(CONTINENT.values())):
        others = (code for code, found in sorted(CONTINENT.items()) if found == continent)
        countries.add(next((code for code in others if code not in countries), ""))
    found = [NOWHERE]
    for country in sorted(code for code in countries if code):
        continent = CONTINENT.get(country, "")
        found.append(Place(continent=continent, country=country))
        found += [
            Place(continent=continent, country=country, subdivisions=(code,))
            for code in divisions.get(country, ())
        ]
    return found
