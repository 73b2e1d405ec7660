"""From the search trees of MaxMind-format files to the geography: flattened, then laid over.

`flatten` turns a file's binary tree into spans, level by level in numpy columns; `overlay` joins
the layers of several files, the first that knows going first. Pure: the bytes are arguments.
The format: https://maxmind.github.io/MaxMind-DB/, binary search tree section.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from .columns import Starts, Values, cut, distinct, merged, replaced, starts_of
from .geo_records import NOTHING, Found
from .place import NOWHERE, Geography, Partition, Place

MAX_NODES = 1 << 24
"""Nodes of one family's tree that are visited; a sound tree has each on one path."""

EMBEDDING = tuple(
    ipaddress.IPv6Network(text) for text in ("::/96", "::ffff:0:0/96", "2001::/32", "2002::/16")
)
"""IPv6 addresses that stand for IPv4 ones: compatible, mapped, Teredo, 6to4. Files hold their IPv4
tree, or pointers to it, there; as IPv6 addresses they are nowhere."""

_EDGES = starts_of(
    128,
    sorted(
        {0}
        | {int(block.network_address) for block in EMBEDDING}
        | {int(block.broadcast_address) + 1 for block in EMBEDDING}
    ),
)


class Tree(Struct, frozen=True, eq=False):
    """A file's search tree: the two records of each node, and the node where IPv4 begins.

    A record below the number of nodes is a node, equal to it nothing, above it data. `root_v4` is
    a record too. `v6` says whether the tree has IPv6 addresses at all.
    """

    left: NDArray[np.uint32]
    right: NDArray[np.uint32]
    root_v4: int
    v6: bool


class Layer(Struct, frozen=True, eq=False):
    """What one file says: spans of indices into `found`, whose first is nothing."""

    found: tuple[Found, ...]
    v4: tuple[Starts, Values]
    v6: tuple[Starts, Values]

    @property
    def places(self) -> bool:
        """Whether it knows where anybody is."""
        return any(one.country or one.continent for one in self.found)

    @property
    def numbers(self) -> bool:
        """Whether it knows AS numbers."""
        return any(one.asn for one in self.found)


def read_tree(data: bytes, node_count: int, record_bits: int, ip_version: int) -> Tree:
    """The tree at the beginning of a file; ValueError where it can't be one."""
    if record_bits not in (24, 28, 32):
        raise ValueError(f"records of {record_bits} bits")
    size = record_bits // 4
    if not 0 < node_count <= len(data) // size:
        raise ValueError("its search tree is longer than the file")
    octets = np.frombuffer(data, np.uint8, node_count * size).reshape(node_count, size)
    half = record_bits // 8
    left, right = _joined(octets[:, :half]), _joined(octets[:, -half:])
    if record_bits == 28:  # the octet between holds the upper four bits of both
        middle = octets[:, 3].astype(np.uint32)
        left |= middle >> 4 << 24
        right |= (middle & 15) << 24
    root = 0
    for _ in range(96 if ip_version == 6 else 0):
        if root >= node_count:
            break
        root = int(left[root])
    return Tree(left, right, root, ip_version == 6)


def _joined(octets: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Big-endian numbers from rows of octets."""
    found = np.zeros(len(octets), np.uint32)
    for column in range(octets.shape[1]):
        found <<= 8
        found |= octets[:, column]
    return found


def flatten(tree: Tree, bits: int) -> tuple[Starts, Values]:
    """The spans of a family (32 or 128 bits) and the data of each, 0 where there is none.

    Data are numbered as records are, from the number of nodes; neighbours of one are merged.
    ValueError for a tree that is deeper than addresses are long, or larger than `MAX_NODES` (as
    one with a circle is).
    """
    if bits == 128 and not tree.v6:
        return starts_of(bits, (0,)), np.zeros(1, np.int64)
    root = tree.root_v4 if bits == 32 else 0
    if root >= len(tree.left):
        return starts_of(bits, (0,)), np.array([root - len(tree.left)])
    words, records = _walked(tree, root, bits)
    if len(words) == 1:
        # Addresses and records share a word: sorting one column is quickest.
        both = np.sort(words[0] << np.uint64(32) | records)
        return merged(both >> np.uint64(32), (both & np.uint64(2**32 - 1)).astype(np.int64))
    high, low = words
    order = np.lexsort((low, high)) if low.any() else np.argsort(high)
    starts = np.stack((high[order], low[order]), axis=1).astype(">u8").view("S16").ravel()
    return merged(*_without_embedded(starts, records[order].astype(np.int64)))


def _walked(
    tree: Tree, root: int, bits: int
) -> tuple[tuple[NDArray[np.uint64], ...], NDArray[np.uint32]]:
    """The leaves below `root` in any order: first addresses in words of 32 or 64 bits, data."""
    count, width = len(tree.left), min(bits, 64)
    nodes = np.array([root], np.uint32)
    words = [np.zeros(1, np.uint64) for _ in range(bits // width)]
    leaves: list[tuple[list[NDArray[np.uint64]], NDArray[np.uint32]]] = []
    visited = 0
    for depth in range(bits):
        visited += len(nodes)
        if visited > MAX_NODES:
            raise ValueError(f"its search tree has a circle or more than {MAX_NODES} nodes")
        bit = np.uint64(1 << width - 1 - depth % width)
        records = np.concatenate((tree.left[nodes], tree.right[nodes]))
        words = [
            np.concatenate((word, word | bit if at == depth // width else word))
            for at, word in enumerate(words)
        ]
        if bits == 128:
            records = _pruned(records, words, depth + 1, count)
        inner = records < count
        outer = ~inner
        leaf = records[outer] - np.uint32(count)
        leaves.append(([word[outer] for word in words], leaf))
        nodes, words = records[inner], [word[inner] for word in words]
        if not len(nodes):
            break
    else:
        raise ValueError("its search tree is deeper than addresses are long")
    joined = tuple(
        np.concatenate([words[at] for words, _ in leaves]) for at in range(bits // width)
    )
    return joined, np.concatenate([leaf for _, leaf in leaves])


def _pruned(
    records: NDArray[np.uint32], words: Sequence[NDArray[np.uint64]], depth: int, count: int
) -> NDArray[np.uint32]:
    """`records` of this depth with nothing at the addresses that stand for IPv4 ones."""
    for block in EMBEDDING:
        if block.prefixlen == depth:
            high, low = map(np.uint64, divmod(int(block.network_address), 1 << 64))
            records = np.where((words[0] == high) & (words[1] == low), count, records)
    return records.astype(np.uint32, copy=False)


def _without_embedded(starts: Starts, records: Values) -> tuple[Starts, Values]:
    """The same where a leaf may be wider than a block that stands for IPv4 addresses."""
    starts, records = cut(starts, records, _EDGES)
    records = records.copy()
    for block in EMBEDDING:
        ends = starts_of(128, (int(block.network_address), int(block.broadcast_address) + 1))
        first, last = np.searchsorted(starts, ends)
        records[first:last] = 0
    return starts, records


def overlay(layers: Sequence[Layer]) -> Geography:
    """The geography of several files in order.

    The first that knows a country speaks for a place, else the first that says anything; the AS
    number is that of the first that knows one.
    """
    said: list[tuple[Found, int]] = [(NOTHING, 0)]
    v4: tuple[Starts, Values] = (starts_of(32, (0,)), np.zeros(1, np.int64))
    v6: tuple[Starts, Values] = (starts_of(128, (0,)), np.zeros(1, np.int64))
    for layer in layers:
        joined: dict[tuple[Found, int], int] = {(NOTHING, 0): 0}
        v4 = _joint(v4, layer.v4, said, layer, joined)
        v6 = _joint(v6, layer.v6, said, layer, joined)
        said = list(joined)
    places: dict[Place, int] = {NOWHERE: 0}
    index = np.array(
        [places.setdefault(_place(*one), len(places)) for one in said], np.int32
    )  # fmt: skip
    return Geography(tuple(places), _partition(32, v4, index), _partition(128, v6, index))


def _joint(
    below: tuple[Starts, Values],
    above: tuple[Starts, Values],
    said: Sequence[tuple[Found, int]],
    layer: Layer,
    joined: dict[tuple[Found, int], int],
) -> tuple[Starts, Values]:
    """Spans of `below` (indices into `said`) and of a layer as spans of indices into `joined`."""
    starts, old = cut(*below, above[0])
    _, new = cut(*above, below[0])
    width, bound = len(layer.found), len(said) * len(layer.found)
    pairs = old.astype(np.int64) * width + new
    occurring = distinct(pairs, bound)
    places, with_numbers = layer.places, layer.numbers
    index = []
    for pair in occurring.tolist():
        (here, asn), found = said[pair // width], layer.found[pair % width]
        if places and not here.country and (found.country or here == NOTHING):
            here = found
        if with_numbers and not asn:
            asn = found.asn
        index.append(joined.setdefault((here, asn), len(joined)))
    return merged(starts, replaced(pairs, occurring, np.array(index, np.int64), bound))


def _place(here: Found, asn: int) -> Place:
    return Place(
        continent=here.continent,
        country=here.country,
        subdivisions=here.subdivisions,
        asn=asn,
        location=here.location,
    )


def _partition(bits: int, spans: tuple[Starts, Values], index: NDArray[Any]) -> Partition:
    starts, values = merged(spans[0], index[spans[1]])
    return Partition(bits, starts, values.astype(np.int32, copy=False))
