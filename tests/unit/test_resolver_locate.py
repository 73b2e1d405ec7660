"""Places by MaxMind-format files: forms of records, leaves, several files, bad files."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import maxminddb
import pytest

from gtm.errors import StartError
from resolver import locate
from resolver.locate import Atlas, Database, Found, embedded, geo_hash, open_locator, read
from resolver.place import Place, Unplaced
from tests.geo_files import geo_file, packed

RECORDS: list[tuple[str, Any, Found]] = [
    (
        "GeoIP2 city",
        {
            "continent": {"code": "AS", "names": {"en": "Asia"}},
            "country": {"iso_code": "CN", "names": {"en": "China"}},
            "subdivisions": [{"iso_code": "BJ"}, {"names": {"en": "?"}}, {"iso_code": "11"}],
        },
        Found("AS", "CN", ("CN-BJ", "CN-11")),
    ),
    ("nested, no continent", {"country": {"iso_code": "DE"}}, Found("EU", "DE")),
    ("flat", {"country_code": "US"}, Found("NA", "US")),
    ("flat, IPinfo", {"country": "BR", "asn": "AS28573"}, Found("SA", "BR", (), 28573)),
    ("continent alone", {"continent": {"code": "EU"}}, Found("EU")),
    ("geoacumen's unknown", {"country": {"iso_code": "None"}}, Found()),
    ("a code that is no country", {"country_code": "ZZ"}, Found()),
    ("subdivisions of nowhere", {"subdivisions": [{"iso_code": "BJ"}]}, Found()),
    ("GeoLite2 ASN", {"autonomous_system_number": 4134}, Found(asn=4134)),
    ("enterprise", {"traits": {"autonomous_system_number": 3320}}, Found(asn=3320)),
    ("flat ASN", {"asn": 13335}, Found(asn=13335)),
    ("flat ASN as text", {"asn": "13335"}, Found(asn=13335)),
    ("an AS number that is none", {"asn": 2**32}, Found()),
    ("another kind of file", {"is_anonymous": True}, Found()),
    ("no map", "CN", Found()),
    ("nothing", None, Found()),
]


@pytest.mark.parametrize(("record", "found"), [one[1:] for one in RECORDS], ids=lambda one: "")
def test_a_record_is_read_in_every_form(record: object, found: Found) -> None:
    assert read(record) == found


def made(path: Path, version: int, networks: dict[str, Any]) -> tuple[str, ...]:
    return (geo_file(path, networks, version),)


V4 = {
    "1.0.0.0/8": {"country": {"iso_code": "CN"}},
    "1.2.3.0/24": {"country": {"iso_code": "JP"}},
    "9.9.9.9/32": {"country": {"iso_code": "US"}},
}
V6 = {**V4, "2001:db8::/32": {"country": {"iso_code": "DE"}}}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("plain_reader", [False, True])
def test_leaves_of_ipv4_are_lengths_in_ipv4_whatever_the_tree(
    tmp_path: Path, version: int, plain_reader: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plain_reader:
        monkeypatch.setattr(
            locate,
            "_opened",
            lambda path, data: maxminddb.open_database(path, maxminddb.MODE_MEMORY),
        )
    networks = V4 if version == 4 else V6
    paths = made(tmp_path / "geo.mmdb", version, networks)
    find, leaf = open_locator(paths).find, leaf_in(paths)
    assert (find(packed("1.2.3.4")), leaf("1.2.3.4")) == (Place(continent="AS", country="JP"), 24)
    assert (find(packed("9.9.9.9")), leaf("9.9.9.9")) == (Place(continent="NA", country="US"), 32)
    assert (find(packed("1.9.0.0")), leaf("1.9.0.0")) == (Place(continent="AS", country="CN"), 13)
    assert leaf("1.2.2.1") == 24
    assert (find(packed("200.0.0.1")), leaf("200.0.0.1")) == (Place(), 1)
    if version == 4:
        assert find(packed("2001:db8::1")) == Place()
    else:
        place = Place(continent="EU", country="DE")
        assert (find(packed("2001:db8::1")), leaf("2001:db8::1")) == (place, 32)
        assert leaf("2001:db9::1") == 32
        # IPv6 forms of an IPv4 address are nowhere, as whole blocks.
        for text, length in (("::ffff:9.9.9.9", 96), ("2002:0909:0909::1", 16), ("::1.2.3.4", 96)):
            assert (find(packed(text)), leaf(text)) == (Place(), length)


def leaf_in(paths: tuple[str, ...]) -> Callable[[str], int]:
    """The length of the leaf around an address in the first file."""
    database = Database(paths[0])
    return lambda text: database.look_up(packed(text))[1]


def test_every_address_of_a_leaf_is_at_the_same_place(tmp_path: Path) -> None:
    paths = made(tmp_path / "geo.mmdb", 6, V6)
    find, leaf = open_locator(paths).find, leaf_in(paths)
    for text in ("0.0.0.0", "1.2.3.4", "1.2.2.255", "9.9.9.8", "255.1.1.1", "2001:db8::", "ff::"):
        place = find(packed(text))
        around = ipaddress.ip_network(f"{text}/{leaf(text)}", strict=False)
        assert find(around[0].packed) == place
        assert find(around[-1].packed) == place


def test_an_ipv6_tree_without_ipv4_says_nothing_of_ipv4_as_a_whole(tmp_path: Path) -> None:
    paths = made(tmp_path / "geo.mmdb", 6, {"2001:db8::/32": {"country_code": "DE"}})
    assert open_locator(paths).find(packed("1.2.3.4")) == Place()


def test_the_first_file_that_knows_answers(tmp_path: Path) -> None:
    own = made(tmp_path / "own.mmdb", 4, {"1.2.3.0/24": {"country_code": "FR"}})
    world = made(tmp_path / "world.mmdb", 4, {"1.0.0.0/8": {"country_code": "CN"}})
    numbers = made(tmp_path / "asn.mmdb", 4, {"1.0.0.0/10": {"autonomous_system_number": 4134}})
    find = open_locator(own + world + numbers).find
    assert find(packed("1.2.3.4")) == Place(continent="EU", country="FR", asn=4134)
    assert find(packed("1.2.2.1")) == Place(continent="AS", country="CN", asn=4134)
    assert find(packed("1.200.0.1")) == Place(continent="AS", country="CN")
    assert find(packed("100.0.0.1")) == Place()


def test_a_file_of_numbers_knows_no_country(tmp_path: Path) -> None:
    numbers = made(tmp_path / "asn.mmdb", 4, {"1.2.3.4/32": {"asn": 64496}})
    assert open_locator(numbers).find(packed("1.2.3.4")) == Place(asn=64496)


def test_the_hash_changes_with_content_and_order(tmp_path: Path) -> None:
    one = made(tmp_path / "1.mmdb", 4, {"1.0.0.0/8": {"country_code": "CN"}})
    two = made(tmp_path / "2.mmdb", 4, {"1.0.0.0/8": {"country_code": "JP"}})
    hashes = {geo_hash(open_locator(paths)) for paths in (one, two, one + two, two + one)}
    assert len(hashes) == 4
    assert geo_hash(open_locator(one)) == geo_hash(open_locator(one))
    assert geo_hash(Unplaced()) == ""


def test_a_file_rewritten_in_place_changes_nothing_until_it_is_opened_again(tmp_path: Path) -> None:
    paths = made(tmp_path / "geo.mmdb", 4, {"1.0.0.0/8": {"country_code": "CN"}})
    find = open_locator(paths).find
    Path(paths[0]).write_bytes(b"")
    assert find(packed("1.2.3.4")).country == "CN"


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot read the geo file .*none\.mmdb: No such file"):
        open_locator((str(tmp_path / "none.mmdb"),))


@pytest.mark.parametrize("content", [b"", b"not a database", bytes(100_000)])
def test_a_file_of_another_format_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mmdb"
    path.write_bytes(content)
    with pytest.raises(StartError, match=r"broken\.mmdb is not sound MaxMind format"):
        Database(str(path))


def test_a_file_with_broken_records_does_not_go_live(tmp_path: Path) -> None:
    (path,) = made(tmp_path / "geo.mmdb", 4, {"0.0.0.0/1": {"country": {"iso_code": "CN"}}})
    data = Path(path).read_bytes()
    Path(path).write_bytes(data.replace(b"\x47country", b"\x5dcountry"))
    assert Path(path).read_bytes() != data
    with pytest.raises(StartError, match="is not sound MaxMind format"):
        Database(path)


def test_a_file_of_something_else_does_not_go_live(tmp_path: Path) -> None:
    (path,) = made(tmp_path / "geo.mmdb", 4, {"1.0.0.0/8": {"is_anonymous": True}})
    with pytest.raises(StartError, match="holds neither countries nor AS numbers"):
        Database(path)


def test_a_record_that_breaks_later_says_nothing_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = made(tmp_path / "geo.mmdb", 4, {"1.0.0.0/8": {"country_code": "CN"}})
    database = Database(path)

    class Broken:
        def get_with_prefix_len(self, _: str) -> None:
            raise maxminddb.InvalidDatabaseError("bad pointer")

    monkeypatch.setattr(database, "_reader", Broken())
    assert Atlas((database,)).find(packed("1.2.3.4")) == Place()
    assert database.errors == 1


def test_without_any_file_nobody_is_anywhere_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locate, "embedded", lambda: "")
    with caplog.at_level(logging.WARNING):
        locator = open_locator(())
    assert isinstance(locator, Unplaced)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "--geo" in caplog.text


@pytest.mark.skipif(not embedded(), reason="python-geoacumen is not installed")
def test_the_embedded_default_places_the_world() -> None:
    find = open_locator(()).find
    assert find(packed("8.8.8.8")).country == "US"
    assert find(packed("2400:3200::1")).country == "CN"
    assert find(packed("10.0.0.1")).country == ""
