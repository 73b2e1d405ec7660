"""Which rules of an instance match a client, the narrowest line first. Pure.

The planner makes its tables of clients from `ranked`, and `gtm explain` asks the same function:
what is shown is what is served. Precedence: networks and lines of one's own, ISP and AS number,
subdivision, country, oversea, continent, default; inside the first class the longer matched network
goes first, other ties go by order of the rules (docs/configuration.md, lines).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from msgspec import Struct

from gtm.lines import RANK, Line
from gtm.model import ClientLine, Rule

from .clients import Client, networks_of, parsed
from .place import Place
from .territory import Around, Network

__all__ = ["Match", "Network", "around", "lines_of", "ranked", "ranked_rules"]


class Match(Struct, frozen=True):
    """Rule number `rule` (from 0) matches through `line`."""

    rule: int
    line: Line


def lines_of(rules: Sequence[Rule]) -> tuple[Match, ...]:
    """Every line of every rule, in the order written."""
    return tuple(
        Match(number, parsed(text)) for number, rule in enumerate(rules) for text in rule.lines
    )


def ranked(matches: Sequence[Match], client: Client) -> tuple[Match, ...]:
    """Those of `matches` that a client is on, the narrowest first, each rule once."""
    found: list[tuple[int, int, int, Match]] = []
    for match in matches:
        length = client.length(str(match.line))
        if length is not None:
            found.append((RANK[match.line.kind], -length, match.rule, match))
    found.sort(key=lambda one: one[:3])
    first: dict[int, Match] = {}
    for *_, match in found:
        first.setdefault(match.rule, match)
    return tuple(first.values())


def around(networks: Sequence[Network], packed: bytes) -> Around:
    """Those of `networks` that hold an address, the longest first."""
    address = ipaddress.ip_address(packed)
    inside = [network for network in networks if address in network]
    return tuple(sorted(inside, key=lambda network: -network.prefixlen))


def ranked_rules(
    rules: Sequence[Rule], lines: Mapping[str, ClientLine], place: Place, packed: bytes
) -> tuple[Match, ...]:
    """The rules that match the client at `place` and `packed`, its own first."""
    texts = [text for rule in rules for text in rule.lines]
    client = Client(place, around(networks_of(texts, lines), packed), lines)
    return ranked(lines_of(rules), client)
