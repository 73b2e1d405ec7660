"""Client tables beside a twin that asks address by address; depths are exact."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver import columns
from resolver.columns import numbers
from resolver.place import NOBODY, NOWHERE, Geography, Place, partition
from resolver.territory import Around, Network, tabulate

PLACES = (NOWHERE, *(Place(country=code) for code in ("CN", "DE", "US")))
# A corner of each address space: (bits, first address, length of a unit); 32 units side by side.
CORNERS = (
    (32, 0x0A000000, 32),
    (32, 0x00000000, 5),
    (32, 0xFFFFFFE0, 32),
    (128, 0x20 << 120, 13),
    (128, (0x2001 << 112) + (1 << 65), 66),  # units on both sides of a /64
    (128, (0x2001 << 112) - (32 << 60), 68),
    (128, (1 << 128) - 32, 128),
)
UNITS = 32


def network_of(bits: int, first: int, length: int) -> Network:
    kind = ipaddress.IPv4Network if bits == 32 else ipaddress.IPv6Network
    return kind((first >> bits - length << bits - length, length))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Geography, list[Network]]:
    """A geography and networks that differ in one corner of each family."""
    families, networks = [], []
    for family in (32, 128):
        bits, first, length = draw(st.sampled_from([one for one in CORNERS if one[0] == family]))
        unit = 1 << bits - length
        found = draw(st.lists(st.integers(0, 3), min_size=UNITS, max_size=UNITS))
        starts = [first + unit * number for number in range(UNITS)]
        if first:
            starts, found = [0, *starts], [0, *found]
        if (end := starts[-1] + unit) < 1 << bits:
            starts, found = [*starts, end], [*found, 0]
        families.append(partition(bits, starts, found))
        for _ in range(draw(st.integers(0, 6))):
            at = first + unit * draw(st.integers(0, UNITS - 1))
            lengths = st.integers(max(0, length - 6), min(bits, length + 1))
            networks.append(network_of(bits, at, draw(lengths | st.just(0))))
    return Geography(PLACES, *families), networks


class Asked:
    """A classification at random, that remembers what it was asked."""

    def __init__(self, classes: int, seed: int) -> None:
        self.classes, self.seed = classes, seed
        self.pairs: list[tuple[Place, Around]] = []

    def of(self, place: Place, around: Around) -> int:
        return crc32(repr((self.seed, place, around)).encode()) % self.classes

    def __call__(self, place: Place, around: Around) -> int:
        self.pairs.append((place, around))
        return self.of(place, around)


def naive(geography: Geography, networks: Iterable[Network], asked: Asked, packed: bytes) -> int:
    address = ipaddress.ip_address(packed)
    around = {network for network in networks if address in network}
    ordered = tuple(sorted(around, key=lambda network: -network.prefixlen))
    return asked.of(geography.find(packed), ordered)


@settings(max_examples=150, deadline=None)
@given(worlds(), st.integers(1, 4), st.integers(0, 99), st.booleans(), st.data())
def test_every_address_has_the_class_of_its_place_and_networks_and_depths_are_exact(
    world: tuple[Geography, list[Network]],
    classes: int,
    seed: int,
    sorting: bool,
    data: st.DataObject,
) -> None:
    geography, networks = world
    asked = Asked(classes, seed)
    with pytest.MonkeyPatch.context() as patch:
        if sorting:
            patch.setattr(columns, "MAX_FLAGS", 0)
        table = tabulate(geography, networks, asked)
    assert len(set(asked.pairs)) == len(asked.pairs)
    assert table.count == 1 + max(asked.of(*pair) for pair in asked.pairs)
    for bits, family in ((32, geography.v4), (128, geography.v6)):
        own = [network for network in networks if network.max_prefixlen == bits]
        edges = {*numbers(family.starts), *(int(network[0]) for network in own)}
        edges |= {int(network[-1]) + 1 for network in own} - {1 << bits}
        for edge in data.draw(st.lists(st.sampled_from(sorted(edges)), min_size=3, max_size=12)):
            end = min((other for other in edges if other > edge), default=1 << bits)
            address = data.draw(st.integers(edge, end - 1))
            found, depth = table.find(address.to_bytes(bits // 8))

            said = [
                classes_in(geography, own, asked, network_of(bits, address, length), sorted(edges))
                for length in (bits, depth, max(0, depth - 1))
            ]
            assert said[0] == said[1] == {found}
            assert depth == 0 or len(said[2]) > 1


def classes_in(
    geography: Geography,
    networks: Iterable[Network],
    asked: Asked,
    block: Network,
    edges: Sequence[int],
) -> set[int]:
    """The classes of all addresses of a block; beyond its first they change at `edges` alone."""
    first, last, size = int(block[0]), int(block[-1]), block.max_prefixlen // 8
    changes = [first, *(edge for edge in edges if first < edge <= last)]
    return {naive(geography, networks, asked, at.to_bytes(size)) for at in changes}


def test_a_family_without_any_difference_is_decided_at_depth_0() -> None:
    table = tabulate(NOBODY, (), lambda place, around: 3)
    assert table.find(bytes(4)) == table.find(b"\xff" * 16) == (3, 0)
    assert table.count == 4
    mixed = tabulate(NOBODY, (ipaddress.ip_network("::/0"),), lambda place, around: len(around))
    assert mixed.find(bytes(4)) == (0, 0)
    assert mixed.find(bytes(16)) == (1, 0)


def test_tables_hold_machine_words_where_they_can() -> None:
    def of(*texts: str) -> tuple[int, str]:
        networks = [ipaddress.ip_network(text) for text in texts]
        spans = tabulate(NOBODY, networks, lambda place, around: len(around)).v6
        return spans.shift, type(spans.starts).__name__

    assert of("2001:db8::/32", "2001:db8:0:1::/64") == (64, "array")
    assert of("2001:db8::1/128") == (0, "tuple")


@pytest.mark.parametrize(("count", "code"), [(256, "B"), (257, "H"), (65536, "H"), (65537, "I")])
def test_classes_take_as_few_octets_as_hold_them(count: int, code: str) -> None:
    table = tabulate(NOBODY, (), lambda place, around: count - 1)
    assert table.v4.classes.typecode == code  # type: ignore[attr-defined]
    assert table.find(bytes(4)) == (count - 1, 0)


def test_a_class_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match="a class is 0 or more, not -1"):
        tabulate(NOBODY, (), lambda place, around: -1)
