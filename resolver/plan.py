"""Plans: the small trees that policies compile to, and the walk that turns one into an answer.

Four nodes and nothing else: `Answers` (a ready record set), `Weighted` (one draw), `Hashed` (by the
client's network), `Located` (by where the client is). A plan knows no pool, health or policy any
more; the native responder mirrors `walk` alone. Pure: the draw is an argument, integers only.
Plans are trees, so the garbage collector is spared them.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from fractions import Fraction
from hashlib import blake2b
from typing import TypeAlias

from msgspec import Struct

from .message import name_text
from .territory import ClientTable

Node: TypeAlias = "Answers | Weighted | Hashed | Located"
MASK = 2**64 - 1
OWNER = b"\xc0\x0c"
"""A pointer to the question's name: the owner of every record that is ready in advance."""
DROP = -1
"""The `rcode` of a leaf that is no answer at all: the query is dropped."""
CNAME = 5
BUCKETS = 1 << 14
"""Into so many buckets a `Hashed` node parts the networks of clients."""


class Answers(Struct, frozen=True, gc=False):
    """A leaf: a record set, ready for the wire, with its TTL in seconds.

    `wire` holds `count` records owned by `OWNER`; without records it is NODATA, or an error where
    `rcode` is one. `extended` is the EDNS option that goes with it (RFC 8914), or empty. `pools`
    are for the counts alone: the pool of each record, or the one of all.
    """

    ttl: int
    wire: bytes = b""
    count: int = 0
    rcode: int = 0
    extended: bytes = b""
    pools: tuple[str, ...] = ()

    def rdata(self) -> tuple[tuple[int, bytes], ...]:
        """(type, RDATA) of each record, in order."""
        found, position = [], 0
        while position < len(self.wire):
            end = position + 12 + int.from_bytes(self.wire[position + 10 : position + 12])
            rtype = int.from_bytes(self.wire[position + 2 : position + 4])
            found.append((rtype, self.wire[position + 12 : end]))
            position = end
        return tuple(found)

    def alias(self) -> bytes | None:
        """The target of a CNAME, on the wire; None where the records are of another type."""
        return self.wire[12:] if self.count == 1 and self.wire[2:4] == b"\0\x05" else None

    def values(self) -> tuple[str, ...]:
        """The addresses, or the target of a CNAME, as text, in order; empty for other types."""
        if (target := self.alias()) is not None:
            return (name_text(target),)
        return tuple(
            str(ipaddress.ip_address(data)) for rtype, data in self.rdata() if rtype in (1, 28)
        )


class Weighted(Struct, frozen=True, gc=False):
    """A draw among branches: `ends` are cumulated weights, () where every branch weighs 1."""

    total: int
    branches: tuple[Node, ...]
    ends: tuple[int, ...] = ()


class Hashed(Struct, frozen=True, gc=False):
    """A consistent choice by the client's network, of `prefix_v4` or `prefix_v6` bits.

    `buckets` has the number of a branch for each of the `BUCKETS` parts of all networks: as many
    octets, or as many pairs of octets, the high one first, where there are more than 256 branches.
    """

    prefix_v4: int
    prefix_v6: int
    buckets: bytes
    branches: tuple[Node, ...]

    def find(self, packed: bytes) -> tuple[Node, int]:
        """The branch of an address, and the prefix by which it was chosen."""
        bits = 8 * len(packed)
        prefix = self.prefix_v4 if bits == 32 else self.prefix_v6
        bucket = bucket_of(packed, prefix)
        if len(self.buckets) == BUCKETS:
            return self.branches[self.buckets[bucket]], prefix
        pair = self.buckets[2 * bucket : 2 * bucket + 2]
        return self.branches[int.from_bytes(pair)], prefix


def bucket_of(packed: bytes, prefix: int) -> int:
    """The bucket of the network of `prefix` bits around an address.

    The leading bits of BLAKE2b (RFC 7693) with a digest of 8 octets over the network's address, all
    octets of it, host bits zero.
    """
    bits = 8 * len(packed)
    network = (int.from_bytes(packed) >> (bits - prefix) << (bits - prefix)).to_bytes(bits // 8)
    return int.from_bytes(blake2b(network, digest_size=8).digest()) * BUCKETS >> 64


class Located(Struct, frozen=True, gc=False):
    """A choice by where the client is: the branch of its class in `table`.

    `lines` are for the counts alone: what the clients of each class are on, or nothing.
    """

    table: ClientTable
    branches: tuple[Node, ...]
    lines: tuple[str, ...] = ()

    def find(self, packed: bytes) -> tuple[Node, int]:
        """The branch of an address, and the depth at which that is decided."""
        number, depth = self.table.find(packed)
        return self.branches[number], depth


def nodes_of(plans: Iterable[Node]) -> Iterator[Node]:
    """`plans` and all nodes below them, each once."""
    met: set[int] = set()
    waiting = list(plans)
    while waiting:
        node = waiting.pop()
        if id(node) in met:
            continue
        met.add(id(node))
        yield node
        if not isinstance(node, Answers):
            waiting += node.branches


Met: TypeAlias = "list[Answers | str]"
"""What is counted of the way to an answer: leaves that were answered, and the lines of clients."""


def walk(plan: Node, packed: bytes, draw: int, met: Met | None = None) -> tuple[Answers, int, int]:
    """(answers, TTL in seconds, scope) for a client at the address `packed`.

    `draw` is 64 bits; a node with n choices takes `(draw * n) >> 64` and passes on the rest. The
    scope is the longest leaf among the nodes visited, in the address's family (RFC 7871). The lines
    on the way are put into `met`.
    """
    node, scope = plan, 0
    while type(node) is not Answers:
        if type(node) is Weighted:
            product = draw * node.total
            pick, draw = product >> 64, product & MASK
            node = node.branches[bisect_right(node.ends, pick) if node.ends else pick]
        elif type(node) is Located:
            number, depth = node.table.find(packed)
            if met is not None and node.lines:
                met.append(node.lines[number])
            node, scope = node.branches[number], max(scope, depth)
        else:
            assert type(node) is Hashed
            node, depth = node.find(packed)
            scope = max(scope, depth)
    return node, node.ttl, scope


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
        else:
            waiting += node.branches


def chances(plan: Node, packed: bytes) -> list[tuple[Answers, Fraction]]:
    """What one client may be answered, with the exact chance of each, in order of the draw."""
    node, found = plan, []
    while isinstance(node, Located | Hashed):
        node, _ = node.find(packed)
    if isinstance(node, Answers):
        return [(node, Fraction(1))]
    start = 0
    for end, branch in zip(node.ends or range(1, node.total + 1), node.branches, strict=True):
        share = Fraction(end - start, node.total)
        found += [(leaf, share * part) for leaf, part in chances(branch, packed)]
        start = end
    return found
