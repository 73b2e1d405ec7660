"""Plans: the small trees that policies compile to, and the walk that turns one into an answer.

Four nodes and nothing else: `Answers` (a ready record set), `Weighted` (one draw), `Hashed` (by the
client's network), `Located` (by where the client is). A plan knows no pool, health or policy any
more; the native responder mirrors `walk` alone. Pure: the draw is an argument, integers only.
Plans are trees, so the garbage collector is spared them.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from hashlib import blake2b
from typing import Literal, TypeAlias

from msgspec import Struct, field

from .place import Place

Node: TypeAlias = "Answers | Weighted | Hashed | Located"
MASK = 2**64 - 1
OWNER = b"\xc0\x0c"
"""A pointer to the question's name: the owner of every record that is ready in advance."""

By = Literal["network", "asn", "subdivision", "country", "oversea", "continent"]
"""What a `Located` node asks; `asn` also serves ISPs, `oversea` asks for a country but CN."""


class Answers(Struct, frozen=True, gc=False):
    """A leaf: a record set, ready for the wire, with its TTL in seconds.

    `wire` holds `count` records owned by `OWNER`; without records it is NODATA, or an error where
    `rcode` is one. `extended` is the EDNS option that goes with it (RFC 8914), or empty.
    """

    ttl: int
    wire: bytes = b""
    count: int = 0
    rcode: int = 0
    extended: bytes = b""

    def rdata(self) -> tuple[tuple[int, bytes], ...]:
        """(type, RDATA) of each record, in order."""
        found, position = [], 0
        while position < len(self.wire):
            end = position + 12 + int.from_bytes(self.wire[position + 10 : position + 12])
            rtype = int.from_bytes(self.wire[position + 2 : position + 4])
            found.append((rtype, self.wire[position + 12 : end]))
            position = end
        return tuple(found)

    def addresses(self) -> tuple[str, ...]:
        """The addresses as text, in order; empty where the records are of other types."""
        return tuple(
            str(ipaddress.ip_address(data)) for rtype, data in self.rdata() if rtype in (1, 28)
        )


class Weighted(Struct, frozen=True, gc=False):
    """A draw among branches: `ends` are cumulated weights, () where every branch weighs 1."""

    total: int
    branches: tuple[Node, ...]
    ends: tuple[int, ...] = ()


class Hashed(Struct, frozen=True, gc=False):
    """A consistent choice by the client's network: the branch whose key hashes highest with it.

    Rendezvous hashing: when a branch goes, only its clients move.
    """

    prefix_v4: int
    prefix_v6: int
    keys: tuple[bytes, ...]
    branches: tuple[Node, ...]


class Spans(Struct, frozen=True, gc=False):
    """The address space of a family in spans of equal branch; `starts` begins with 0."""

    bits: int
    starts: tuple[int, ...]
    branches: tuple[Node, ...]

    def find(self, packed: bytes) -> tuple[Node, int]:
        """The branch of an address, and the depth at which that is decided.

        The depth is the length of the greatest block around the address that lies inside its span:
        a longer one than the common prefixes with the addresses just outside, on both sides.
        """
        address = int.from_bytes(packed)
        index = bisect_right(self.starts, address) - 1
        depth = 0
        if index:
            depth = self.bits + 1 - (address ^ (self.starts[index] - 1)).bit_length()
        if index + 1 < len(self.starts):
            beyond = self.bits + 1 - (address ^ self.starts[index + 1]).bit_length()
            depth = max(depth, beyond)
        return self.branches[index], depth


class Located(Struct, frozen=True, gc=False):
    """A choice by where the client is; `otherwise` where nothing says so.

    By network the branch is in `v4` or `v6`; else in `branches` by AS number, ISO code or, for
    oversea, True. A client in several subdivisions takes the branch with the least `order`.
    """

    by: By
    otherwise: Node
    branches: dict[int | str, Node] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)
    v4: Spans | None = None
    v6: Spans | None = None


def walk(plan: Node, place: Place, packed: bytes, draw: int) -> tuple[Answers, int, int]:
    """(answers, TTL in seconds, scope) for a client at `place` and address `packed`.

    `draw` is 64 bits; a node with n choices takes `(draw * n) >> 64` and passes on the rest. The
    scope is the longest leaf among the nodes visited, in the address's family (RFC 7871).
    """
    node, scope = plan, 0
    while type(node) is not Answers:
        if type(node) is Weighted:
            product = draw * node.total
            pick, draw = product >> 64, product & MASK
            node = node.branches[bisect_right(node.ends, pick) if node.ends else pick]
        elif type(node) is Located:
            node, leaf = _locate(node, place, packed)
            scope = max(scope, leaf)
        else:
            assert type(node) is Hashed
            node, leaf = _hash(node, packed)
            scope = max(scope, leaf)
    return node, node.ttl, scope


def _locate(node: Located, place: Place, packed: bytes) -> tuple[Node, int]:
    by = node.by
    if by == "network":
        spans = node.v4 if len(packed) == 4 else node.v6
        return spans.find(packed) if spans is not None else (node.otherwise, 0)
    if by == "asn":
        return node.branches.get(place.asn, node.otherwise), place.asn_leaf
    country = place.country
    if not country:  # matches no geographic line at all
        return node.otherwise, place.country_leaf
    if by == "country":
        return node.branches.get(country, node.otherwise), place.country_leaf
    if by == "continent":
        return node.branches.get(place.continent, node.otherwise), place.country_leaf
    if by == "oversea":
        return node.branches[True] if country != "CN" else node.otherwise, place.country_leaf
    codes = [code for code in place.subdivisions if code in node.order]
    if not codes:
        return node.otherwise, place.country_leaf
    return node.branches[min(codes, key=node.order.__getitem__)], place.country_leaf


def _hash(node: Hashed, packed: bytes) -> tuple[Node, int]:
    bits = 8 * len(packed)
    prefix = node.prefix_v4 if bits == 32 else node.prefix_v6
    network = (int.from_bytes(packed) >> (bits - prefix) << (bits - prefix)).to_bytes(bits // 8)
    scores = [blake2b(network, digest_size=8, key=key).digest() for key in node.keys]
    return node.branches[scores.index(max(scores))], prefix


def leaves(plan: Node) -> Iterator[Answers]:
    """Every leaf of a plan, each object once."""
    seen: set[int] = set()
    waiting: list[Node] = [plan]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Answers):
            yield node
        elif isinstance(node, Located):
            waiting += [node.otherwise, *node.branches.values()]
            for spans in (node.v4, node.v6):
                waiting += spans.branches if spans is not None else ()
        else:
            waiting += node.branches


def chances(plan: Node, place: Place, packed: bytes) -> list[tuple[Answers, Fraction]]:
    """What one client may be answered, with the exact chance of each, in order of the draw."""
    node, found = plan, []
    while isinstance(node, Located | Hashed):
        step = _locate(node, place, packed) if isinstance(node, Located) else _hash(node, packed)
        node = step[0]
    if isinstance(node, Answers):
        return [(node, Fraction(1))]
    start = 0
    for end, branch in zip(node.ends or range(1, node.total + 1), node.branches, strict=True):
        share = Fraction(end - start, node.total)
        found += [(leaf, share * part) for leaf, part in chances(branch, place, packed)]
        start = end
    return found
