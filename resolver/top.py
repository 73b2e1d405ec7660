"""The most frequent names and clients among a sample of the queries, from one sketch a worker.

The space-saving sketch (Metwally, Agrawal and El Abbadi 2005; `native/src/sketch.rs`): no count is
too small, and says by how much it may be too great. Clients are networks, not persons. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from .message import name_text

SIZE = 512
"""Names, and networks, of which each sketch keeps counts; of n queries in the sample, every name
asked more than n / SIZE times is among them."""
SHOWN = 50
"""Names, and networks, that are shown."""
BITS = {4: 24, 16: 56}
"""The bits of an address by which clients are counted, by its octets."""


class Ranked(Struct, frozen=True):
    """A sketch as read: (key, count, by how much that may be too great) rows.

    `missed` is how often a key that is not there was seen at most, `total` how many were seen.
    """

    rows: list[tuple[bytes, int, int]]
    missed: int
    total: int


class Sketch:
    """The sketch of the reference responder."""

    def __init__(self, size: int = SIZE) -> None:
        self._size, self._total = size, 0
        self._counts: dict[bytes, list[int]] = {}

    def add(self, key: bytes) -> None:
        """Count `key` once."""
        self._total += 1
        found = self._counts.get(key)
        if found is not None:
            found[0] += 1
        elif len(self._counts) < self._size:
            self._counts[key] = [1, 0]
        else:
            least = min(self._counts, key=lambda one: self._counts[one][0])
            over = self._counts.pop(least)[0]
            self._counts[key] = [over + 1, over]

    def read(self) -> Ranked:
        """What was counted so far."""
        rows = [(key, count, over) for key, (count, over) in self._counts.items()]
        full = len(rows) >= self._size
        return Ranked(rows, min((row[1] for row in rows), default=0) if full else 0, self._total)


def network(client: bytes) -> bytes:
    """The network that a client is counted under, as an address without its last bits."""
    if client[:12] == b"\0" * 10 + b"\xff\xff":
        client = client[12:]
    kept = BITS[len(client)] // 8
    return client[:kept] + bytes(len(client) - kept)


def merged(sketches: Iterable[Ranked]) -> Ranked:
    """One sketch of what several saw, with the same promise.

    What is not in one of them was seen there as often as it may have been, at most.
    """
    sketches = list(sketches)
    found = [{key: (count, over) for key, count, over in one.rows} for one in sketches]
    rows = []
    for key in {key for one in found for key in one}:
        parts = [
            one.get(key, (sketch.missed, sketch.missed))
            for one, sketch in zip(found, sketches, strict=True)
        ]
        rows.append((key, sum(count for count, _ in parts), sum(over for _, over in parts)))
    rows.sort(key=lambda row: (-row[1], row[0]))
    missed = sum(one.missed for one in sketches)
    return Ranked(rows, missed, sum(one.total for one in sketches))


def page(names: Ranked, clients: Ranked, every: int) -> dict[str, Any]:
    """What `/debug/top` shows: the first of both, in queries, of which one of `every` was seen."""
    return {
        "sample": f"1/{every}",
        "names": {
            "queries": names.total * every,
            "top": [
                {"name": name_text(key), "queries": count * every, "at_most_over": over * every}
                for key, count, over in names.rows[:SHOWN]
            ],
        },
        "clients": {
            "queries": clients.total * every,
            "top": [
                {
                    "network": f"{ipaddress.ip_address(key)}/{BITS[len(key)]}",
                    "queries": count * every,
                    "at_most_over": over * every,
                }
                for key, count, over in clients.rows[:SHOWN]
            ],
        },
    }
