"""Client tables: the address space in spans of clients that a policy treats alike.

Decides how deep an answer is decided, that is the scope of RFC 7871, section 7.2.1: spans of equal
class are merged, and the depth at an address is exact. Never asks what a class means: whoever calls
`tabulate` numbers them. Pure; done when plans are compiled, looked up once per query.
"""

from __future__ import annotations

import ipaddress
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from msgspec import Struct

from .columns import Starts, Values, cut, distinct, merged, numbers, replaced, starts_of
from .place import Geography, Partition, Place

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Around: TypeAlias = tuple[Network, ...]
Classify: TypeAlias = Callable[[Place, Around], int]


class ClientSpans(Struct, frozen=True, gc=False):
    """The address space of a family in spans of equal class, neighbours of different ones.

    Span `n` begins at address `starts[n] << shift`; `shift` is 64 for IPv6 spans of which none
    ends inside a /64, so that most tables hold machine words, else 0.
    """

    bits: int
    starts: Sequence[int]
    classes: Sequence[int]
    shift: int = 0

    def find(self, packed: bytes) -> tuple[int, int]:
        """(class, depth) of an address.

        The depth is the length of the greatest block around the address that lies inside its span:
        a longer one than the common prefixes with the addresses just outside, on both sides.
        """
        address = int.from_bytes(packed)
        starts, shift = self.starts, self.shift
        after = bisect_right(starts, address >> shift)
        depth = 0
        if after > 1:
            before = (starts[after - 1] << shift) - 1
            depth = self.bits + 1 - (address ^ before).bit_length()
        if after < len(starts):
            beyond = self.bits + 1 - (address ^ (starts[after] << shift)).bit_length()
            if beyond > depth:
                depth = beyond
        return self.classes[after - 1], depth


class ClientTable(Struct, frozen=True, gc=False):
    """The spans of both families; classes are less than `count`."""

    v4: ClientSpans
    v6: ClientSpans
    count: int

    def find(self, packed: bytes) -> tuple[int, int]:
        """(class, depth) of a packed IPv4 or IPv6 address."""
        return (self.v4 if len(packed) == 4 else self.v6).find(packed)


def tabulate(geography: Geography, networks: Iterable[Network], classify: Classify) -> ClientTable:
    """The table in which every address has the class `classify(place, around)`.

    `around` are those of `networks` that hold the address, the longest first. `classify` returns a
    class from 0 on, by the place and the networks alone: it is called once for each pair that
    occurs.
    """
    wanted = set(networks)
    known: dict[tuple[int, Around], int] = {}

    def spans(family: Partition) -> tuple[Starts, Values]:
        own = [network for network in wanted if network.max_prefixlen == family.bits]
        return _classed(geography.places, family, own, classify, known)

    v4, v6 = spans(geography.v4), spans(geography.v6)
    count = 1 + max(known.values())
    return ClientTable(_spans(32, *v4, count), _spans(128, *v6, count), count)


def _classed(
    places: Sequence[Place],
    family: Partition,
    networks: Sequence[Network],
    classify: Classify,
    known: dict[tuple[int, Around], int],
) -> tuple[Starts, Values]:
    """The merged spans of a family and the class of each; `known` remembers what was asked."""
    edges, within = _nested(family.bits, networks)
    arounds = list(dict.fromkeys(within))
    begins = starts_of(family.bits, edges)
    starts, pairs = cut(family.starts, family.places, begins)
    if len(arounds) > 1:
        number = {around: index for index, around in enumerate(arounds)}
        kinds = np.array([number[around] for around in within])
        pairs = pairs.astype(np.int64) * len(arounds) + kinds[_segments(starts, begins)]
    bound = len(places) * len(arounds)
    occurring = distinct(pairs, bound)
    asked = []
    for pair in occurring.tolist():
        index, around = pair // len(arounds), arounds[pair % len(arounds)]
        if (found := known.get((index, around))) is None:
            found = known[index, around] = classify(places[index], around)
            if found < 0:
                raise ValueError(f"a class is 0 or more, not {found}")
        asked.append(found)
    return merged(starts, replaced(pairs, occurring, np.array(asked, np.uint32), bound))


def _segments(starts: Starts, begins: Starts) -> Values:
    """The number of the segment, of those that begin at `begins`, in which each span lies."""
    first = np.zeros(len(starts), np.int64)
    first[np.searchsorted(starts, begins)[1:]] = 1
    return np.cumsum(first)


def _nested(bits: int, networks: Iterable[Network]) -> tuple[list[int], list[Around]]:
    """Where the set of networks around an address changes, from address 0 on, and to which."""
    starts: list[int] = [0]
    arounds: list[Around] = [()]
    open_: list[tuple[int, Around]] = [(1 << bits, ())]

    def begin(at: int, around: Around) -> None:
        if starts[-1] == at:
            arounds[-1] = around
        else:
            starts.append(at)
            arounds.append(around)

    def close(until: int) -> None:
        while len(open_) > 1 and open_[-1][0] <= until:
            end, _ = open_.pop()
            if end < 1 << bits:
                begin(end, open_[-1][1])

    for network in sorted(networks, key=lambda one: (int(one.network_address), one.prefixlen)):
        first = int(network.network_address)
        close(first)
        around = (network, *open_[-1][1])
        open_.append((first + network.num_addresses, around))
        begin(first, around)
    close(1 << bits)
    return starts, arounds


def _spans(bits: int, starts: Starts, classes: Values, count: int) -> ClientSpans:
    """The spans in the leanest form that holds them."""
    code = "B" if count <= 1 << 8 else "H" if count <= 1 << 16 else "I"
    packed = _array(code, classes)
    if bits == 32:
        return ClientSpans(bits, _array("I", starts), packed)
    high, low = starts.view(">u8").reshape(-1, 2).T
    if low.any():
        return ClientSpans(bits, tuple(numbers(starts)), packed)
    return ClientSpans(bits, _array("Q", high), packed, 64)


def _array(code: str, values: Values) -> array[int]:
    """A column as an array of the standard library, whose look-ups are quicker than numpy's."""
    packed = array(code)
    packed.frombytes(values.astype(np.dtype(code)).tobytes())
    return packed
