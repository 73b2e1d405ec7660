"""Which rules of an instance match a client, the narrowest line first. Pure.

The compiler builds its branches from `ranks_of`, `gtm explain` asks `ranked_rules`: both read the
same tables, so what is shown is what is served. Precedence: networks, ISP and AS number,
subdivision, country, oversea, continent, default; inside the first class the longer network goes
first, other ties go by order of the rules (docs/configuration.md, lines).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache

from msgspec import Struct

from gtm.lines import Line, parse_line
from gtm.model import Rule

from .limits import MAX_SHAPES
from .place import Place


class Match(Struct, frozen=True):
    """Rule number `rule` (from 0) matches through `line`."""

    rule: int
    line: Line


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Ranks(Struct, frozen=True):
    """The lines of all rules by class; within a class each rule stands once, in order of rules.

    Treat the mappings as read-only: they are shared between instances.
    """

    networks: tuple[tuple[Network, Match], ...]
    asn: dict[int, tuple[Match, ...]]
    subdivision: dict[str, tuple[Match, ...]]
    country: dict[str, tuple[Match, ...]]
    oversea: tuple[Match, ...]
    continent: dict[str, tuple[Match, ...]]
    default: tuple[Match, ...]


def lines_of(rules: Sequence[Rule]) -> tuple[Match, ...]:
    """Every line of every rule, in the order written."""
    return tuple(
        Match(number, parse_line(text)) for number, rule in enumerate(rules) for text in rule.lines
    )


def ranks_of(rules: Sequence[Rule]) -> Ranks:
    """The lines of `rules` by class; ValueError for a line that is none."""
    return _ranks(tuple(rule.lines for rule in rules))


@lru_cache(MAX_SHAPES)
def _ranks(shape: tuple[tuple[str, ...], ...]) -> Ranks:
    networks: list[tuple[Network, Match]] = []
    tables: dict[str, dict[int | str, dict[int, Match]]] = {}
    for number, lines in enumerate(shape):
        for line in map(parse_line, lines):
            match = Match(number, line)
            if line.kind == "network":
                networks.append((line.network, match))
                continue
            kind = "asn" if line.kind == "isp" else line.kind
            keys: Iterable[int | str] = line.asns if kind == "asn" else (line.value,)
            for key in keys:
                tables.setdefault(kind, {}).setdefault(key, {}).setdefault(number, match)
    frozen = {
        kind: {key: tuple(matches.values()) for key, matches in table.items()}
        for kind, table in tables.items()
    }
    return Ranks(
        networks=tuple(networks),
        asn={int(key): matches for key, matches in frozen.get("asn", {}).items()},
        subdivision=_texts(frozen.get("subdivision", {})),
        country=_texts(frozen.get("country", {})),
        oversea=frozen.get("oversea", {}).get("", ()),
        continent=_texts(frozen.get("continent", {})),
        default=frozen.get("default", {}).get("", ()),
    )


def _texts(table: dict[int | str, tuple[Match, ...]]) -> dict[str, tuple[Match, ...]]:
    return {str(key): matches for key, matches in table.items()}


def ranked(ranks: Ranks, place: Place, packed: bytes) -> tuple[Match, ...]:
    """The rules that match a client, each once, the narrowest first."""
    address = ipaddress.ip_address(packed)
    found = sorted(
        ((network, match) for network, match in ranks.networks if address in network),
        key=lambda pair: (-pair[0].prefixlen, pair[1].rule),
    )
    matches = [match for _, match in found]
    matches += ranks.asn.get(place.asn, ())
    if place.country:
        inside = {match for code in place.subdivisions for match in ranks.subdivision.get(code, ())}
        matches += sorted(inside, key=lambda match: match.rule)
        matches += ranks.country.get(place.country, ())
        matches += ranks.oversea if place.country != "CN" else ()
        matches += ranks.continent.get(place.continent, ())
    matches += ranks.default
    first: dict[int, Match] = {}
    for match in matches:
        first.setdefault(match.rule, match)
    return tuple(first.values())


def ranked_rules(
    rules: Sequence[Rule], place: Place, packed: bytes
) -> tuple[tuple[Rule, Line], ...]:
    """The rules that match a client and the line through which, the client's own rule first."""
    return tuple(
        (rules[match.rule], match.line) for match in ranked(ranks_of(rules), place, packed)
    )
