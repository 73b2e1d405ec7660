"""Small worlds to answer from: zones, pools and instances as the store would hold them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from gtm import codec
from gtm.model import ClientLine, Instance, Record, Region
from gtm.state import PoolState, Routes, StoredZone
from gtm.view import View
from resolver.place import NOBODY, NOWHERE, Geography, Place, partition
from resolver.planner import Planner
from resolver.tables import Tables

LOCAL = b"\x7f\x00\x00\x01"


def zone(**data: Any) -> StoredZone:
    """A stored zone; one nameserver unless told otherwise."""
    return codec.convert({"nameservers": ["ns1.gtm.test"], "serial": 7, **data}, StoredZone)


def records(*rows: tuple[str, str, Sequence[str]]) -> dict[str, tuple[Record, ...]]:
    """(name, type, data) rows as the one bucket of a zone."""
    return {"-": tuple(Record(name=name, type=kind, data=tuple(data)) for name, kind, data in rows)}


def pool(*members: str, down: Sequence[str] = (), offline: Sequence[str] = (), **data: Any):
    """A published pool; `members` are addresses, `3*192.0.2.1` has weight 3."""
    rows = []
    for text in members:
        weight, _, value = text.rpartition("*")
        up = value not in down and value not in offline
        why = "up" if up else "offline" if value in offline else "down"
        row = {"value": value, "answered": up, "counted": up, "why": why}
        rows.append({**row, "weight": int(weight or 1)})
    family = "ipv6" if any(":" in row["value"] for row in rows) else "ipv4"
    return codec.convert({"type": family, "members": rows, **data}, PoolState)


def instance(*rules: tuple[str, Sequence[str], Sequence[Sequence[str]]], **data: Any) -> Instance:
    """An instance from (name, lines, tiers) rows; a name ending in `>` widens."""
    made = [
        {
            "name": name.rstrip(">"),
            "lines": list(lines),
            "tiers": [{"pools": list(tier)} for tier in tiers],
            "on_exhausted": "widen" if name.endswith(">") else "stop",
        }
        for name, lines, tiers in rules
    ]
    return codec.convert({"id": "gtm1", "zone": "gtm.test", "rules": made, **data}, Instance)


def routes(rule: str, family: str, tier: int, pinned_by: str) -> Routes:
    """The routes of an instance with one record."""
    return codec.convert(
        {"rules": {rule: {family: {"tier": tier, "pinned_by": pinned_by}}}}, Routes
    )


class Map:
    """A locator from a table of prefixes; every prefix is a leaf of its own, holes are unknown.

    A place may say more of one address than the databases' leaves hold: leaves are the prefixes.
    """

    def __init__(self, places: Mapping[str, Place]) -> None:
        self.places = {
            bytes(int(part) for part in text.split(".")): place for text, place in places.items()
        }
        self.geography = geography(
            {
                prefix_of(octets, size): place
                for octets, place in self.places.items()
                for size in (4, 16)
            }
        )

    def find(self, packed: bytes) -> Place:
        """The place whose octets `packed` begins with."""
        for length in (3, 2, 1):
            if place := self.places.get(packed[:length]):
                return place
        return NOWHERE


def prefix_of(octets: bytes, size: int) -> str:
    """The block of all addresses of `size` octets that begin with `octets`."""
    return f"{ipaddress.ip_address(octets.ljust(size, bytes(1)))}/{8 * len(octets)}"


def geography(places: Mapping[str, Place]) -> Geography:
    """The geography of a table of prefixes; the longest speaks, and where there is none nobody."""
    blocks = sorted(
        ((ipaddress.ip_network(text, strict=False), one) for text, one in places.items()),
        key=lambda row: row[0].prefixlen,
    )
    listed = list(dict.fromkeys((NOWHERE, *(place for _, place in blocks))))
    families = []
    for bits in (32, 128):
        inside = [
            (int(block[0]), int(block[-1]) + 1, listed.index(place))
            for block, place in blocks
            if block.max_prefixlen == bits
        ]
        edges = {0, *(edge for row in inside for edge in row[:2])} - {1 << bits}
        starts = sorted(edges)
        found = [
            next((index for first, end, index in inside[::-1] if first <= start < end), 0)
            for start in starts
        ]
        families.append(partition(bits, starts, found))
    return Geography(tuple(listed), *families)


def planner(
    pools: Mapping[str, PoolState],
    found: Geography = NOBODY,
    lines: Mapping[str, ClientLine] | None = None,
    regions: Mapping[str, Region] | None = None,
) -> Planner:
    """A planner for these pools, in a world where clients are where `found` says."""
    return Planner(pools, Tables(found, lines or {}), regions)


def world(**parts: Any) -> View:
    """A view with the zone gtm.test, unless `parts` says otherwise."""
    return View(**{"revision": 1, "zones": {"gtm.test": zone()}, **parts})
