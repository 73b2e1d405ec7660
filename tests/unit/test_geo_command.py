"""`gtm geo`: what new geo data change beside a naive count, and files put in place by the check."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl import geo_diff, geo_install
from ctl.geo_diff import NO_RULE, Flow, country_flows, number_flows, rule_flows
from ctl.main import main
from gtm import codec, links
from gtm.model import Resources
from gtm.v1 import operator_pb2 as pb
from gtm.v1.operator_pb2_grpc import OperatorServicer, add_OperatorServicer_to_server
from resolver.geo_files import GeoFiles
from resolver.place import NOBODY, Geography, Place, partition
from resolver.ranking import ranked_rules
from tests.geo_files import geo_file

PLACES = (
    Place(),
    Place(country="CN", continent="AS"),
    Place(country="CN", continent="AS", asn=4134),
    Place(country="DE", continent="EU", asn=3320),
)
UNITS = 16
FIRST = {32: (0x0A000000, 256), 128: (0x2001 << 112, 1 << 80)}
"""Where sixteen units of each family begin, and how wide a unit is: a /24, and a /48."""


def geography(v4: Sequence[int], v6: Sequence[int]) -> Geography:
    families = []
    for (bits, (first, unit)), found in zip(FIRST.items(), (v4, v6), strict=True):
        starts = [0, *(first + unit * number for number in range(UNITS + 1))]
        families.append(partition(bits, starts, [0, *found, 0]))
    return Geography(PLACES, *families)


geographies = st.builds(
    geography, *2 * [st.lists(st.integers(0, 3), min_size=UNITS, max_size=UNITS)]
)
RULES = [
    {"name": "office", "lines": ["office"], "tiers": [{"pools": ["a"]}]},
    {"name": "telecom", "lines": ["isp:telecom"], "tiers": [{"pools": ["a", "b"]}]},
    {"name": "europe", "lines": ["continent:EU", "network:2001:0:2::/47"], "tiers": [
        {"pools": ["c"]}]},
]  # fmt: skip
REST = {"name": "rest", "lines": ["default"], "tiers": [{"pools": ["d"]}, {"pools": ["a"]}]}


def resources(rules: list[dict[str, Any]], **data: Any) -> Resources:
    shop = {"id": "gtm1", "zone": "gtm.test", "rules": rules, "unmatched": "nodata", **data}
    lines = {"office": {"networks": ["10.0.3.0/24"], "all_of": ["country:CN"]}}
    return codec.convert({"lines": lines, "instances": {"shop": shop}}, Resources)


def addresses(bits: int) -> list[bytes]:
    first, unit = FIRST[bits]
    return [(first + unit * number + 5).to_bytes(bits // 8) for number in range(UNITS)]


def counted(flows: Sequence[Flow]) -> dict[tuple[str, str], tuple[int, float]]:
    assert len({(flow.before, flow.after) for flow in flows}) == len(flows)
    return {(flow.before, flow.after): (flow.v4_addresses, flow.v6_48s) for flow in flows}


def naive(word: Any) -> dict[tuple[str, str], tuple[int, float]]:
    """The flows of (family, address) by `word(packed)` = (before, after), unit by unit."""
    found = {bits: Counter(map(word, addresses(bits))) for bits in FIRST}
    pairs = {pair for counter in found.values() for pair in counter if pair[0] != pair[1]}
    return {pair: (256 * found[32][pair], float(found[128][pair])) for pair in pairs}


@settings(max_examples=60, deadline=None)
@given(geographies, geographies, st.booleans())
def test_flows_are_what_is_counted_address_by_address(
    old: Geography, new: Geography, whole: bool
) -> None:
    def places(packed: bytes) -> tuple[Place, Place]:
        return old.find(packed), new.find(packed)

    countries = country_flows(old, new)
    assert counted(countries) == naive(lambda at: tuple(one.country for one in places(at)))
    assert counted(number_flows(old, new)) == naive(
        lambda at: tuple(str(one.asn or "") for one in places(at))
    )
    given_ = resources([*RULES, REST] if whole else RULES)
    shop = given_.instances["shop"]

    def rules(packed: bytes) -> tuple[str, ...]:
        found = []
        for place in places(packed):
            matched = ranked_rules(shop.rules, given_.lines, place, packed)
            found.append(shop.rules[matched[0].rule].name if matched else NO_RULE)
        return tuple(found)

    flows = rule_flows(old, new, given_)
    assert counted(flows) == naive(rules)
    for flow in flows:
        for sample in map(ipaddress.ip_network, flow.samples):
            assert rules(sample[0].packed) == rules(sample[-1].packed) == (flow.before, flow.after)


def test_flows_name_the_pools_and_disabled_instances_have_none() -> None:
    old, new = geography([1] * 16, [0] * 16), geography([3] * 16, [0] * 16)
    (flow,) = rule_flows(old, new, resources([*RULES[1:], REST]))
    assert flow == Flow(
        "rest", "europe", 4096, 0.0, ("10.0.0.0/20",), "shop", ("d",), ("c",)
    )  # fmt: skip
    assert rule_flows(old, new, resources([*RULES, REST], enabled=False)) == []
    assert rule_flows(old, new, resources([*RULES, REST]), ["another"]) == []
    assert rule_flows(old, NOBODY, resources([RULES[1]])) == []


def test_the_most_goes_first_and_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = geography([1] * 16, [0] * 16), geography([0] * 10 + [3] * 6, [0] * 16)
    assert [flow.after for flow in country_flows(old, new)] == ["", "DE"]
    assert country_flows(old, new)[0].samples == ("10.0.0.0/21",)
    monkeypatch.setattr(geo_diff, "MAX_ROWS", 1)
    assert [flow.after for flow in country_flows(old, new)] == [""]


# ---- the command ---------------------------------------------------------------------------

CN, DE, US = ({"country_code": code} for code in ("CN", "DE", "US"))
WORLD = {f"{number}.0.0.0/8": CN if number % 2 else DE for number in range(1, 31)}
NEAR = {**WORLD, "5.0.0.0/9": US, "9.9.0.0/16": DE}
FAR = dict.fromkeys(WORLD, US)
FILE = """\
zones:
  gtm.test: {nameservers: [ns.example.net]}
pools:
  a: {type: ipv4, addresses: [{value: 192.0.2.1}]}
  b: {type: ipv4, addresses: [{value: 192.0.2.2}]}
instances:
  shop:
    id: gtm12345678
    rules:
      - {name: mainland, lines: ["country:CN"], tiers: [{pools: [a]}]}
      - {name: world, lines: [default], tiers: [{pools: [b]}]}
"""


@pytest.fixture
def geo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with geo files and resources, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GTM_SERVER", raising=False)
    for name, networks in (("old", WORLD), ("near", NEAR), ("far", FAR)):
        geo_file(tmp_path / f"{name}.mmdb", networks)
    geo_file(tmp_path / "asn.mmdb", {"5.0.0.0/8": {"autonomous_system_number": 4134}})
    (tmp_path / "shop.yaml").write_text(FILE)
    return tmp_path


def gtm(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["geo", *arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_diff_tells_who_moves_and_to_which_rule(
    geo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = gtm(capsys, "diff", "old.mmdb", "near.mmdb", "-c", "shop.yaml")
    assert status == 0
    assert out.splitlines() == [
        "to another country or AS number moves, of what is known, 1.7% of the IPv4 address space "
        "(6.1% of the networks) and 0% of IPv6 (0%)",
        "",
        "COUNTRY   IPV4 ADDRESSES  IPV6 /48S  SUCH AS",
        "CN -> US  8,388,608       0          5.0.0.0/9",
        "CN -> DE  65,536          0          9.9.0.0/16",
        "",
        "INSTANCE  RULE               POOLS   IPV4 ADDRESSES  IPV6 /48S  SUCH AS",
        "shop      mainland -> world  a -> b  8,454,144       0          5.0.0.0/9 9.9.0.0/16",
    ]


def test_diff_of_equal_files_says_that_nobody_moves(
    geo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = gtm(capsys, "diff", "old.mmdb", "old.mmdb", "--against", "shop.yaml")
    assert (status, out) == (
        0,
        "nobody moves to another country or AS number\n\nno client goes to another rule\n",
    )


def test_diff_as_json_has_the_stable_shape(geo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("diff", "old.mmdb", "near.mmdb,asn.mmdb", "-c", "shop.yaml", "--rows", "1")
    status, out, _ = gtm(capsys, *words, "-o", "json")
    told = json.loads(out)
    assert status == 0
    assert list(told) == ["moves", "countries", "numbers", "rules"]
    assert list(told["moves"]) == ["v4_space", "v4_networks", "v6_space", "v6_networks"]
    size = {"v4_addresses": 2**23, "v6_48s": 0.0, "samples": ["5.0.0.0/9"]}
    assert told["countries"] == {"flows": [{"from": "CN", "to": "US", **size}], "left_out": 1}
    (number,) = told["numbers"]["flows"]
    assert (number["from"], number["to"], number["v4_addresses"]) == ("", "4134", 2**24)
    (rule,) = told["rules"]["flows"]
    assert rule["instance"] == "shop"
    assert (rule["from"], rule["to"]) == ("mainland", "world")
    assert (rule["from_pools"], rule["to_pools"]) == (["a"], ["b"])


WRONG = [
    (("diff", "old.mmdb", "none.mmdb"), 2, "cannot read the geo file none.mmdb: No such file"),
    (("diff", "shop.yaml", "old.mmdb"), 2, "shop.yaml is not sound MaxMind format"),
    (("diff", "old.mmdb", ","), 2, "name geo files to compare"),
    (("diff", "old.mmdb"), 2, "the following arguments are required: NEW|PATH"),
    (("diff", "old.mmdb", "far.mmdb", "--rows", "0"), 2, "show one row at least"),
    (
        ("diff", "old.mmdb", "far.mmdb", "-c", "shop.yaml", "--instance", "x"),
        2,
        "there is no instance 'x'",
    ),
    (("diff", "old.mmdb", "far.mmdb", "--server", "127.0.0.1:1"), 3, "could not reach"),
    (("install", "none.mmdb", "old.mmdb"), 2, "cannot read the geo file none.mmdb"),
    (("install", "near.mmdb", "old.mmdb", "--limit", "x"), 2, "--limit: 'x' is not a share"),
    (("install", "far.mmdb", "old.mmdb"), 1, "far.mmdb is not installed: it would move 100%"),
]


@pytest.mark.parametrize(("words", "wanted", "text"), WRONG)
def test_what_is_wrong_is_one_sentence(
    geo: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], wanted: int, text: str
) -> None:
    before = (geo / "old.mmdb").read_bytes()
    status, out, err = gtm(capsys, *words)
    assert (status, out) == (wanted, "")
    assert text in err
    assert len(err.splitlines()) == 1
    assert "--geo" not in err
    assert (geo / "old.mmdb").read_bytes() == before


class Stored(OperatorServicer):
    """A coordinator that has resources stored."""

    async def Get(self, request: Any, context: Any) -> pb.GetResponse:
        import yaml

        return pb.GetResponse(resources=json.dumps(yaml.safe_load(FILE)), revision=5)


async def test_diff_asks_a_coordinator_for_what_is_stored(
    geo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = links.server()
    add_OperatorServicer_to_server(Stored(), server)
    port = links.listen(server, "127.0.0.1:0", links.Tls())
    await server.start()
    address = f"127.0.0.1:{port}"
    words = ["geo", "diff", "old.mmdb", "near.mmdb", "-o", "json"]
    assert await asyncio.to_thread(main, ["--server", address, *words]) == 0
    asked = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("GTM_SERVER", address)
    assert await asyncio.to_thread(main, [*words, "--stored"]) == 0
    assert json.loads(capsys.readouterr().out) == asked
    assert asked["rules"]["flows"][0]["to_pools"] == ["b"]
    assert await asyncio.to_thread(main, words) == 0
    assert "rules" not in json.loads(capsys.readouterr().out)
    await server.stop(None)


def test_an_installed_file_is_the_whole_new_one_and_others_may_read_it(
    geo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (geo / "old.mmdb.accepted").write_text("of another time")
    files = GeoFiles(("old.mmdb",))
    status, out, _ = gtm(capsys, "install", "near.mmdb", "old.mmdb")
    assert status == 0
    assert "near.mmdb is installed as old.mmdb: to another country" in out
    assert (geo / "old.mmdb").read_bytes() == (geo / "near.mmdb").read_bytes()
    assert stat.S_IMODE((geo / "old.mmdb").stat().st_mode) == 0o644
    assert not (geo / "old.mmdb.accepted").exists()
    change = files.look()
    assert change is not None
    assert change.outcome == "loaded"
    assert {path.name for path in geo.iterdir()} == {
        "old.mmdb", "near.mmdb", "far.mmdb", "asn.mmdb", "shop.yaml",
    }  # fmt: skip


def test_what_was_forced_is_taken_by_resolvers_and_a_copy_by_hand_is_not(
    geo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = GeoFiles(("old.mmdb",))
    (geo / "old.mmdb").write_bytes((geo / "far.mmdb").read_bytes())
    change = files.look()
    assert change is not None
    assert change.outcome == "refused"
    status, out, _ = gtm(capsys, "install", "far.mmdb", "old.mmdb", "--force", "-o", "json")
    assert (status, json.loads(out)["installed"]) == (0, "old.mmdb")
    change = files.look()
    assert change is not None
    assert change.outcome == "loaded"
    digest = hashlib.sha256((geo / "far.mmdb").read_bytes()).hexdigest()
    assert (geo / "old.mmdb.accepted").read_text() == f"{digest}\n"


def test_a_greater_limit_lets_more_pass(geo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gtm(capsys, "install", "far.mmdb", "old.mmdb", "--limit", "100%")[0] == 0
    assert gtm(capsys, "install", "near.mmdb", "old.mmdb", "--limit", "0.5")[0] == 1


@pytest.mark.parametrize("there", [None, b"broken"])
def test_where_nothing_sound_was_there_anything_sound_is_put(
    geo: Path, capsys: pytest.CaptureFixture[str], there: bytes | None
) -> None:
    if there is not None:
        (geo / "place.mmdb").write_bytes(there)
    status, out, _ = gtm(capsys, "install", "far.mmdb", "place.mmdb")
    assert (status, out) == (
        0,
        "far.mmdb is installed as place.mmdb: nothing sound was there before\n",
    )


def test_a_link_is_followed_and_stays(geo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.symlink("old.mmdb", geo / "current.mmdb")
    assert gtm(capsys, "install", "near.mmdb", "current.mmdb")[0] == 0
    assert (geo / "current.mmdb").is_symlink()
    assert (geo / "old.mmdb").read_bytes() == (geo / "near.mmdb").read_bytes()


def test_a_file_that_changes_between_check_and_copy_is_not_installed(
    geo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(geo_install.Database):
        def __init__(self, path: str) -> None:
            super().__init__(path)
            if path == "near.mmdb":
                (geo / path).write_bytes((geo / "far.mmdb").read_bytes())

    monkeypatch.setattr(geo_install, "Database", Late)
    before = (geo / "old.mmdb").read_bytes()
    status, _, err = gtm(capsys, "install", "near.mmdb", "old.mmdb")
    assert (status, "changed while it was read" in err) == (1, True)
    assert (geo / "old.mmdb").read_bytes() == before


def test_a_place_that_cannot_be_written_is_one_sentence(
    geo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = gtm(capsys, "install", "near.mmdb", "shop.yaml/geo.mmdb")
    assert (status, err.startswith("gtm: cannot write shop.yaml/geo.mmdb: ")) == (1, True)
