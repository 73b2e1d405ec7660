"""What the comparison of DNS servers makes of what tools print, and which answers it takes."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import dns.edns
import dns.message
import pytest

from benchmarks import dns_world as world
from benchmarks.dns_numbers import (
    Sample,
    ratio,
    read_dnsperf,
    read_load,
    read_metrics,
    spread,
    verdict,
)
from benchmarks.dns_peers import PEERS, lua_places, write_zone

DNSPERF = """
Statistics:

  Queries sent:         54622
  Queries completed:    54600 (99.96%)
  Queries lost:         22 (0.04%)

  Response codes:       NOERROR 54500 (99.82%), SERVFAIL 100 (0.18%)
  Average packet size:  request 32, response 48
  Run time (s):         0.500312
  Queries per second:   109175.874254

  Average Latency (s):  0.000812 (min 0.000030, max 0.012150)
"""
LOAD = """sent 10
answered 9
wrong 1
lost 0
seconds 0.500000
size 48.0
p50 20
p90 30
p99 44
p999 51
"""
METRICS = """# HELP gtm_resolver_compile_seconds From news of the store to the table made of it.
gtm_resolver_compile_seconds_count 2.0
gtm_resolver_compile_seconds_sum 1.5
gtm_resolver_compile_seconds_created 1.7e+09
gtm_resolver_native_table_bytes 1024.0
gtm_resolver_native_names{kind="static"} 3.0
gtm_resolver_ready 1.0
"""
GERMANY = {"country": {"iso_code": "DE"}, "continent": {"code": "EU"}}
WORKLOADS = {one.key: one for one in world.WORKLOADS}


def sample(us: float, answered: int = 1000) -> Sample:
    """A round in which an answer took so many microseconds of CPU."""
    return Sample(answered, 0, 2.0, us * answered / 1e6)


def test_dnsperf_is_read_to_the_answer_and_other_rcodes_are_wrong() -> None:
    load = read_dnsperf(DNSPERF)
    assert (load.answered, load.wrong, load.lost) == (54600, 100, 22)
    assert (load.seconds, load.size) == (0.500312, 48)


@pytest.mark.parametrize("text", ["", "Error: unable to open", "Queries completed: 5"])
def test_what_is_no_statistics_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not dnsperf"):
        read_dnsperf(text)


def test_our_own_load_is_read_with_its_latencies() -> None:
    load = read_load(LOAD)
    assert (load.answered, load.wrong, load.seconds) == (9, 1, 0.5)
    assert load.latency_us == {"p50": 20, "p90": 30, "p99": 44, "p999": 51}
    with pytest.raises(ValueError, match="p50"):
        read_load(LOAD.replace("p50 20\n", ""))


def test_metrics_of_our_own_without_labels_are_found_by_prefix() -> None:
    assert read_metrics(METRICS, ("gtm_resolver_native_", "gtm_resolver_compile_")) == {
        "gtm_resolver_compile_seconds_count": 2,
        "gtm_resolver_compile_seconds_sum": 1.5,
        "gtm_resolver_native_table_bytes": 1024,
    }


def test_a_sample_says_cpu_by_answer_rate_and_share_of_the_core() -> None:
    one = Sample(answered=200_000, lost=3, seconds=2.0, cpu_s=0.5)
    assert (one.us, one.qps, one.busy) == (2.5, 100_000, 0.25)


def test_ratios_are_taken_within_rounds_so_that_the_mood_of_the_machine_cancels_out() -> None:
    moods = (1.0, 3.0, 0.5, 2.0, 1.0)
    floor, ours = [sample(0.9 * mood) for mood in moods], [sample(mood) for mood in moods]
    assert ratio(floor, ours) == pytest.approx(0.9)
    assert spread(floor, ours) == pytest.approx((0.9, 0.9))


def test_one_round_gone_astray_does_not_move_the_median() -> None:
    floor, ours = [sample(2.0)] * 5, [sample(2.0)] * 4 + [sample(20.0)]
    assert ratio(floor, ours) == pytest.approx(1.0)
    assert spread(floor, ours) == pytest.approx((0.1, 1.0))
    with pytest.raises(ValueError):
        ratio(floor[1:], ours)


@pytest.mark.parametrize(("seen", "said"), [(0.95, "hit"), (0.949, "missed"), (1.2, "hit")])
def test_a_target_is_hit_from_its_value_on(seen: float, said: str) -> None:
    assert verdict(seen, 0.95) == said


@pytest.mark.parametrize("client", [None, 0x01020300])
def test_a_question_is_a_query_that_a_stranger_reads(client: int | None) -> None:
    query = dns.message.from_wire(world.Question("www.geo.test", client=client).wire())
    assert query.question[0].to_text() == "www.geo.test. IN A"
    subnets = [one for one in query.options if isinstance(one, dns.edns.ECSOption)]
    assert [(one.address, one.srclen) for one in subnets] == (
        [] if client is None else [("1.2.3.0", 24)]
    )


def test_all_queries_of_a_workload_without_clients_are_equally_long() -> None:
    for key in ("static", "names", "weighted"):
        assert len({len(one.wire()) for one in world.questions(WORKLOADS[key])}) == 1


def test_the_file_of_queries_holds_each_behind_its_length(tmp_path: Path) -> None:
    file = tmp_path / "queries"
    world.write_queries(WORKLOADS["names"], file)
    data, names = file.read_bytes(), set()
    while data:
        size = int.from_bytes(data[:2])
        names.add(dns.message.from_wire(data[2 : 2 + size]).question[0].name.to_text())
        data = data[2 + size :]
    assert names == {f"{world.plain_name(n)}." for n in range(world.NAMES)}


def test_the_large_world_has_ten_names_for_each_of_a_thousand_rule_sets() -> None:
    found = Counter(world.rule_set(number) for number in range(world.ALL_NAMES))
    assert found.pop(None) == 990_000
    assert found == dict.fromkeys(range(1_000), 10)


def test_no_two_sets_of_addresses_overlap() -> None:
    every = [value for value, _ in world.THREE]
    every += [one for place in world.PLACES for one in world.place_addresses(place)]
    for number in range(world.RULE_SETS):
        for country in (*world.triple(number), world.ELSEWHERE):
            every += world.set_addresses(number, country)
    every += [world.static_address(n) for n in random.Random(1).sample(range(world.ALL_NAMES), 999)]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    ("key", "number", "record", "meant"),
    [
        ("static", 0, None, {"10.64.0.0"}),
        ("names", 258, None, {"10.64.1.2"}),
        ("weighted", 0, None, {"10.1.0.1", "10.1.0.2", "10.1.0.3"}),
        ("geo", 0, GERMANY, set(world.place_addresses("de")[:3])),
        ("geo", 0, None, set(world.place_addresses("world")[:3])),
        ("million", 5, None, {"10.64.0.5"}),
        ("million", 99, None, set(world.set_addresses(0, "world"))),
    ],
)
def test_the_meant_answer_follows_the_country_file(
    key: str, number: int, record: object, meant: set[str]
) -> None:
    question = world.Question("any.test", number)
    assert world.meant(WORKLOADS[key], question, record) == meant


def test_a_rule_set_tells_its_own_countries_apart_and_no_others() -> None:
    at = next(n for n in range(world.RULE_SETS) if "DE" in world.triple(n))
    other = next(n for n in range(world.RULE_SETS) if "DE" not in world.triple(n))
    for number, place in ((at, "DE"), (other, world.ELSEWHERE)):
        question = world.Question("any.test", number * world.EVERY + world.EVERY - 1)
        assert world.meant(WORKLOADS["million"], question, GERMANY) == frozenset(
            world.set_addresses(number, place)
        )


def test_every_peer_writes_what_it_serves_on_its_port(tmp_path: Path) -> None:
    for peer in PEERS:
        folder = tmp_path / peer.name
        folder.mkdir()
        assert peer.prepare(folder, "small", 5399, "/geo.mmdb")
        texts = [one.read_text() for one in folder.rglob("*") if one.is_file()]
        assert any("5399" in text for text in texts)
        assert any(f"n09999 A {world.static_address(9_999)}" in text for text in texts)
        assert any("/geo.mmdb" in text for text in texts) == peer.steers


def test_the_lua_record_knows_no_member_that_is_down() -> None:
    for place in world.PLACES:
        *up, down = world.place_addresses(place)
        assert all(f"'{one}'" in lua_places() for one in up)
        assert f"'{down}'" not in lua_places()


def test_a_zone_file_begins_with_its_apex(tmp_path: Path) -> None:
    text = write_zone(tmp_path, world.GEO, "www A 192.0.2.1\n").read_text()
    assert text.splitlines() == [
        "$ORIGIN geo.test.",
        "$TTL 60",
        "@ SOA ns1 hostmaster 1 7200 1800 259200 900",
        "@ NS ns1",
        "ns1 A 127.0.0.1",
        "www A 192.0.2.1",
    ]
