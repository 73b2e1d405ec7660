"""Geo files flattened: what they say of every address at once is what a look-up says of each."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gtm.errors import StartError
from resolver import geography
from resolver.columns import numbers
from resolver.geography import Tree, flatten, overlay, read_tree
from resolver.locate import Atlas, embedded, open_locator
from resolver.place import NOWHERE, Geography, Place
from tests.geo_files import geo_file, packed

NESTED = {
    "1.0.0.0/8": {"country": {"iso_code": "CN"}, "subdivisions": [{"iso_code": "BJ"}]},
    "1.2.3.0/24": {"continent": {"code": "AS"}, "country": {"iso_code": "JP"}},
    "1.2.4.0/24": {"continent": {"code": "AS"}, "country": {"iso_code": "JP"}},
    "9.9.9.9/32": {
        "country": {"iso_code": "US"},
        "location": {"latitude": 40.5, "longitude": -74},
    },
    "255.255.255.255/32": {"country": {"iso_code": "None"}},
    "128.0.0.0/2": {"continent": {"code": "EU"}},
}
FLAT = {
    "1.2.0.0/16": {"country_code": "KR", "asn": 9318},
    "9.0.0.0/8": {"country_code": "DE"},
    "128.0.0.0/1": {"country_code": "BR", "asn": "AS28573"},
}
NUMBERS = {
    "1.2.3.4/32": {"autonomous_system_number": 4134},
    "0.0.0.0/1": {"autonomous_system_number": 64496},
}
SIX = {
    "2001::/20": {"country_code": "ZZ", "asn": 64511},
    "2001:db8::/32": {"country": {"iso_code": "DE"}},
    "2001:db8:0:1::8/125": {"country": {"iso_code": "FR"}},
    "fe00::/7": {"continent_code": "AF"},
}
FILES: dict[str, list[tuple[int, dict[str, Any]]]] = {
    "IPv4 alone": [(4, NESTED)],
    "flat": [(4, FLAT)],
    "both families": [(6, {**NESTED, **SIX})],
    "IPv6 alone": [(6, SIX)],
    "places and numbers": [(4, NESTED), (4, NUMBERS)],
    "own before the world's": [(6, {**FLAT, **SIX}), (4, NESTED), (6, {**NUMBERS, **SIX})],
    "the other way round": [(4, NUMBERS), (6, {**NESTED, **SIX}), (6, FLAT)],
}


def addresses(found: Geography, seed: int, count: int) -> list[bytes]:
    """Addresses of both families: the edges of spans and those before them, and any."""
    dice, picked = random.Random(seed), []
    for bits, family in ((32, found.v4), (128, found.v6)):
        edges = numbers(family.starts)
        edges = dice.sample(edges, min(count, len(edges)))
        near = [edge + step for edge in edges for step in (-1, 0) if edge + step >= 0]
        tops = [dice.choice(edges) ^ dice.getrandbits(dice.randrange(bits)) for _ in range(count)]
        every = [dice.getrandbits(bits) for _ in range(count)]
        picked += [address.to_bytes(bits // 8) for address in (*near, *tops, *every)]
    return picked


def differing(atlas: Atlas, seed: int = 4, count: int = 2000) -> list[tuple[bytes, Place, Place]]:
    found = []
    for address in addresses(atlas.geography, seed, count):
        place = atlas.find(address)
        if place != (other := atlas.geography.find(address)):
            found.append((address, place, other))
    return found


def opened(tmp_path: Path, files: list[tuple[int, dict[str, Any]]], alias: bool = False) -> Atlas:
    paths = tuple(
        geo_file(tmp_path / f"{number}.mmdb", networks, version, alias and version == 6)
        for number, (version, networks) in enumerate(files)
    )
    atlas = open_locator(paths)
    assert isinstance(atlas, Atlas)
    return atlas


@pytest.mark.parametrize("alias", [False, True])
@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_a_geography_says_what_look_ups_say(
    tmp_path: Path, files: list[tuple[int, dict[str, Any]]], alias: bool
) -> None:
    atlas = opened(tmp_path, files, alias)
    assert differing(atlas) == []
    found = atlas.geography
    assert found.places[0] == NOWHERE
    assert len(set(found.places)) == len(found.places)
    for family in (found.v4, found.v6):
        assert np.all(family.starts[1:] > family.starts[:-1])
        assert np.all(family.places[1:] != family.places[:-1])


def test_the_geography_of_a_file_span_by_span(tmp_path: Path) -> None:
    found = opened(tmp_path, [(6, {**NESTED, **SIX})], alias=True).geography
    assert [
        (str(ipaddress.ip_address(start)), found.places[place].country)
        for start, place in zip(numbers(found.v4.starts), found.v4.places, strict=True)
    ] == [
        ("0.0.0.0", ""), ("1.0.0.0", "CN"), ("1.2.3.0", "JP"), ("1.2.5.0", "CN"), ("2.0.0.0", ""),
        ("9.9.9.9", "US"), ("9.9.9.10", ""), ("128.0.0.0", ""), ("192.0.0.0", ""),
    ]  # fmt: skip
    assert [
        (str(ipaddress.IPv6Address(start)), found.places[place].country)
        for start, place in zip(numbers(found.v6.starts), found.v6.places, strict=True)
    ] == [
        ("::", ""), ("2001:1::", ""), ("2001:db8::", "DE"), ("2001:db8:0:1::8", "FR"),
        ("2001:db8:0:1::10", "DE"), ("2001:db9::", ""), ("2001:1000::", ""), ("fe00::", ""),
    ]  # fmt: skip
    assert found.find(packed("9.9.9.9")).location == (40.5, -74.0)
    assert found.find(packed("130.0.0.1")) == Place(continent="EU")
    assert found.find(packed("2001:db8::1")) == Place(country="DE", continent="EU")
    assert found.find(packed("2001:8::1")) == Place(asn=64511)


def test_a_place_and_its_location_are_one_files_word(tmp_path: Path) -> None:
    here = {"country_code": "DE"}
    there = {"country_code": "FR", "location": {"latitude": 1.0, "longitude": 2.0}}
    files = [(4, {"1.0.0.0/8": here}), (4, {"1.0.0.0/8": there, "2.0.0.0/8": there})]
    atlas = opened(tmp_path, files)
    assert atlas.find(packed("1.2.3.4")).location is None
    assert atlas.find(packed("2.2.3.4")).location == (1.0, 2.0)
    assert differing(atlas, count=50) == []


@pytest.mark.parametrize("text", ["::1.2.3.4", "::ffff:1.2.3.4", "2002:102:304::", "2001::1"])
def test_ipv6_forms_of_ipv4_addresses_are_nowhere(tmp_path: Path, text: str) -> None:
    wide = {"2000::/8": {"country_code": "DE"}, "::/8": {"country_code": "FR"}}
    for files in ([(6, wide)], [(6, {**wide, **NESTED})]):
        atlas = opened(tmp_path, files, alias=files[0][1] is not wide)
        assert atlas.geography.find(packed(text)) == NOWHERE
        assert atlas.find(packed(text)).country == ""
        assert atlas.geography.find(packed("2003::1")).country == "DE"
        assert differing(atlas, count=50) == []


@pytest.mark.skipif(not embedded(), reason="python-geoacumen is not installed")
def test_the_embedded_geography_says_what_look_ups_say() -> None:
    atlas = open_locator(())
    assert isinstance(atlas, Atlas)
    assert differing(atlas) == []
    assert len(atlas.geography.v4.starts) > 100_000
    assert len(atlas.geography.v6.starts) > 50_000


# ---- trees ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [24, 28, 32])
def test_records_of_every_size_are_read(bits: int) -> None:
    dice = random.Random(bits)
    pairs = [(dice.getrandbits(bits), dice.getrandbits(bits)) for _ in range(100)]
    data = b""
    for left, right in pairs:
        if bits == 28:
            middle = bytes([left >> 24 << 4 | right >> 24])
            data += (left & 2**24 - 1).to_bytes(3) + middle + (right & 2**24 - 1).to_bytes(3)
        else:
            data += left.to_bytes(bits // 8) + right.to_bytes(bits // 8)
    tree = read_tree(data + b"more", 100, bits, 4)
    assert list(zip(tree.left.tolist(), tree.right.tolist(), strict=True)) == pairs


def tree_of(*nodes: tuple[int, int], v6: bool = False) -> Tree:
    columns = [np.array(column, np.uint32) for column in zip(*nodes, strict=True)]
    return Tree(columns[0], columns[1], 0, v6)


def test_a_tree_of_two_nodes_is_three_spans() -> None:
    starts, data = flatten(tree_of((1, 2 + 20), (2, 2 + 16)), 32)
    assert starts.tolist() == [0, 1 << 30, 1 << 31]
    assert data.tolist() == [0, 16, 20]


@pytest.mark.parametrize("bits", [32, 128])
def test_a_circle_is_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="deeper than addresses are long"):
        flatten(tree_of((2, 1), (2, 0), v6=True), bits)


def test_a_tree_that_multiplies_is_refused_in_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geography, "MAX_NODES", 10_000)
    walked = 0

    class Counted(np.ndarray[Any, Any]):
        def __getitem__(self, item: Any) -> Any:
            nonlocal walked
            walked += np.size(item)
            return np.asarray(self)[item]

    tree = tree_of((0, 0), v6=True)
    both = Tree(tree.left.view(Counted), tree.right, 0, True)
    with pytest.raises(ValueError, match="has a circle or more than 10000 nodes"):
        flatten(both, 128)
    assert walked <= 10_000


@pytest.mark.parametrize("record", [24, 28, 32])
@pytest.mark.parametrize("count", [0, -1, 1000])
def test_a_tree_longer_than_its_file_is_refused(record: int, count: int) -> None:
    with pytest.raises(ValueError, match="longer than the file"):
        read_tree(bytes(1000), count, record, 4)


@pytest.mark.parametrize("damage", ["circle", "beyond", "separator"])
def test_a_damaged_tree_is_one_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "geo.mmdb"
    geo_file(path, {"128.0.0.0/1": {"country_code": "DE"}, "1.0.0.0/8": {"country_code": "CN"}})
    data = path.read_bytes()
    count = 8  # nodes, of 24 bits a record
    record = {"circle": 0, "beyond": 2**24 - 1, "separator": count + 1}[damage]
    path.write_bytes(data[:3] + record.to_bytes(3) + data[6:])
    with pytest.raises(StartError, match=r"geo\.mmdb is not sound MaxMind format \(.+\); fetch"):
        open_locator((str(path),))


def test_without_layers_nobody_is_anywhere() -> None:
    found = overlay(())
    assert found.places == (NOWHERE,)
    assert found.find(packed("1.2.3.4")) == found.find(packed("2001:db8::1")) == NOWHERE
