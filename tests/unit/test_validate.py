"""Rules over whole sets that need more than a file of the corpus: bounds, record data, places."""

from __future__ import annotations

from typing import Any

import pytest

from ctl import findings, rules_pools, rules_zones
from ctl.validate import registered, review, review_plain
from gtm.config import read_text
from gtm.ports import Review
from resolver.limits import MAX_CHAIN

VARIANTS = registered()


def zone(*records: dict[str, Any], name: str = "example.net") -> dict[str, Any]:
    return {"zones": {name: {"nameservers": ["ns.example.org"], "records": list(records)}}}


def judged(data: dict[str, Any]) -> Review:
    return review_plain(data, VARIANTS)


def texts(found: Review) -> list[str]:
    return [f"{problem.path}: {problem.text}" for problem in found.problems]


DATA = [
    ("A", "192.0.2.1"), ("AAAA", "2001:db8::1"), ("MX", "10 mail"), ("TXT", '"a b" c'),
    ("TXT", '( "one"\n "two" )'), ("TXT", r'"\228\184\173"'), ("CAA", '0 issue "ca.example"'),
    ("SRV", "0 5 5060 sip.example.org."), ("SVCB", "1 . alpn=h2,h3 port=443"),
    ("HTTPS", '1 www alpn="h2" ipv4hint=192.0.2.1'), ("URI", '10 1 "ftp://a.example/"'),
    ("NAPTR", '100 10 "U" "E2U+sip" "!^.*$!sip:a@b.example!" .'), ("DNAME", "example.org."),
    ("HINFO", '"PC" "Linux"'), ("LOC", "52 22 23.000 N 4 53 32.000 E -2.00m"), ("PTR", "host"),
    ("TLSA", "3 1 1 " + "ab" * 32), ("SSHFP", "1 1 " + "ab" * 20), ("RP", "a b"),
    ("DS", "12345 13 2 " + "ab" * 32), ("OPENPGPKEY", "YWJj"), ("TYPE65280", r"\# 3 abcdef"),
    ("TYPE1", r"\# 4 c0000201"), ("A", r"\# 4 c0000201"),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "text"), DATA)
def test_data_of_any_type_is_taken(type_: str, text: str) -> None:
    found = judged(zone({"name": "a", "type": type_, "data": [text]}))
    assert texts(found) == []


NO_DATA = [
    ("A", ""), ("A", "192.0.2.1\n192.0.2.2"), ("MX", "mail 10"), ("MX", "70000 mail"),
    ("TXT", ""), ("TXT", '"open'), ("TXT", "(open"), ("CNAME", "a..b"), ("SRV", "0 5 sip"),
    ("SVCB", "1 . alpn"), ("TYPE65280", r"\# 3 ab"), ("TYPE65280", "abc"), ("DS", "1 2 3"),
    ("CNAME", "x" * 64), ("LOC", "nowhere"), ("TXT", "x" * 256), ("AAAA", "192.0.2.1"),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "text"), NO_DATA)
def test_data_that_its_type_does_not_take_is_one_sentence(type_: str, text: str) -> None:
    found = judged(zone({"name": "a", "type": type_, "data": [text]}))
    (problem,) = found.problems
    assert problem.path == "zones.example.net.records[0].data[0]"
    assert problem.text.startswith(f"{text!r} is no data of type {type_}: ")
    assert problem.text.isprintable()


def test_owners_and_types_come_back_in_one_spelling() -> None:
    found = judged(zone({"name": "WWW.Example.NET.", "type": "type1", "data": ["192.0.2.1"]}))
    assert found.resources is not None
    (record,) = found.resources.zones["example.net"].records
    assert (record.name, record.type) == ("www", "A")


def test_more_data_than_an_answer_holds_is_refused() -> None:
    text = '"' + "x" * 250 + '"'
    many = [f"{n:04} {text}" for n in range(300)]
    found = judged(zone({"name": "a", "type": "TXT", "data": many}))
    assert [problem.text for problem in found.problems] == [
        "80,400 octets don't fit into an answer"
    ]
    assert judged(zone({"name": "a", "type": "TXT", "data": many[:200]})).problems == ()


def test_a_pool_has_a_greatest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_pools, "MAX_ADDRESSES", 2)
    for count, refused in ((2, False), (3, True)):
        addresses = [{"value": f"192.0.2.{n + 1}"} for n in range(count)]
        found = judged({"pools": {"a": {"type": "ipv4", "addresses": addresses}}})
        assert bool(found.errors) == refused
    assert "more than 2 addresses" in found.errors[0].text


def test_problems_over_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "MAX_PROBLEMS", 3)
    found = judged({"pools": {f"p{n}": {"type": "ipv4", "checks": ["x"]} for n in range(5)}})
    assert len(found.problems) == 4
    assert "and 2 more problems" in {problem.text for problem in found.problems}
    assert found.resources is None


def test_errors_win_over_warnings_where_the_bound_is_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(findings, "MAX_PROBLEMS", 1)
    pool = {"type": "ipv4", "min_available": 2, "addresses": [{"value": "192.0.2.1"}]}
    found = judged({"pools": {"a": pool, "b": {**pool, "checks": ["x"]}}})
    assert found.resources is None


def test_a_long_chain_of_cnames_is_warned_of() -> None:
    def chain(length: int) -> Review:
        links = [{"name": f"a{n}", "type": "CNAME", "data": [f"a{n + 1}"]} for n in range(length)]
        return judged(zone(*links))

    assert chain(MAX_CHAIN).problems == ()
    assert texts(chain(MAX_CHAIN + 1)) == [
        f"zones.example.net.records[0]: a chain of more than {MAX_CHAIN} CNAMEs "
        "is not followed to its end"
    ]


VOTES = [  # regions declared, check, words of the warnings
    (0, {}, []),
    (3, {}, []),
    (2, {}, ["one region's word"]),
    (1, {}, ["one region's word"]),
    (2, {"failing_share": "100%"}, []),
    (5, {"failing_share": "20%"}, ["one region's word"]),
    (5, {"failing_share": "20.1%"}, []),
    (5, {"regions": ["r0", "r1"]}, ["one region's word"]),
    (3, {"min_voters": 3}, []),
    (3, {"min_voters": 4}, ["more than the 3 regions"]),
    (3, {"min_voters": "100%"}, []),
]


@pytest.mark.parametrize(("regions", "check", "words"), VOTES)
def test_who_votes_is_doubted_where_it_should_be(
    regions: int, check: dict[str, Any], words: list[str]
) -> None:
    data = {
        "regions": {f"r{n}": {} for n in range(regions)},
        "checks": {"web": {"type": "http", **check}},
    }
    found = judged(data)
    assert found.errors == ()
    assert len(found.warnings) == len(words)
    assert all(word in problem.text for word, problem in zip(words, found.warnings, strict=True))


SPANS = [  # a ping check that fits its interval to the millisecond, and one that misses by one
    ({"packets": 11, "spacing": "100ms", "timeout": "1s", "interval": "2s"}, True),
    ({"packets": 11, "spacing": "100ms", "timeout": "1001ms", "interval": "2s"}, False),
    ({"packets": 1, "spacing": "10s", "timeout": "2s", "interval": "2s"}, True),
]


@pytest.mark.parametrize(("check", "fits"), SPANS)
def test_all_packets_of_a_ping_fit_its_interval(check: dict[str, Any], fits: bool) -> None:
    found = judged({"checks": {"p": {"type": "ping", **check}}})
    assert (found.errors == ()) == fits


def test_a_rule_over_the_whole_set_is_located_beside_errors_of_reading() -> None:
    text = "pools:\n  a: {type: ipv4, typo: 1}\n  b:\n    type: ipv4\n    checks:\n      - nobody\n"
    reading = read_text(text, VARIANTS, file="x.yaml")
    assert [str(problem) for problem in review(reading, VARIANTS).problems] == [
        "x.yaml:2: pools.a.typo: unknown key 'typo', did you mean 'type'?",
        "x.yaml:6: pools.b.checks[0]: unknown check 'nobody'; there is none",
    ]


def test_the_nearest_name_is_looked_for_so_often_and_among_so_many_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = {f"check{n}": {"type": "tcp", "port": 80} for n in range(30)}
    names = [f"chekc{n}" for n in range(findings.MAX_HINTS + 5)]
    pools = {"p": {"type": "ipv4", "checks": [*names, names[0]], "addresses": []}}
    told = [text for text in texts(judged({"checks": checks, "pools": pools})) if "unknown" in text]
    assert len(told) == len(names) + 1
    assert sum("did you mean" in text for text in told) == findings.MAX_HINTS + 1
    monkeypatch.setattr(findings, "MAX_NEAREST", 29)
    told = texts(judged({"checks": checks, "pools": pools}))
    assert not any("did you mean" in text for text in told)


def test_the_zone_of_a_name_is_found_without_a_look_at_every_zone() -> None:
    class Zones(frozenset[str]):
        def __iter__(self) -> Any:
            raise AssertionError("every zone was looked at")

    zones = Zones(("example.net", "deep.example.net"))
    assert rules_zones.zone_of("a.deep.example.net", zones) == "deep.example.net"
    assert rules_zones.zone_of("a.example.net", zones) == "example.net"
    assert rules_zones.zone_of("example.org", zones) is None
