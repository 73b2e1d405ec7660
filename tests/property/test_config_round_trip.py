"""What is read, written plainly and read again is the same; no text makes the reader raise."""

from __future__ import annotations

import ipaddress
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.probes.base import read_settings
from ctl.validate import registered, review
from gtm import codec
from gtm.config import read_plain, read_text
from gtm.lines import CONTINENTS, ISPS
from gtm.model import TYPES
from gtm.options import options
from resolver.steering.base import policy_of

VARIANTS = registered()

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
domains = st.lists(labels, min_size=1, max_size=4).map(".".join)
durations = st.integers(0, 10**9).map(lambda ms: f"{ms}ms") | st.sampled_from(["1s", "2m", 3, 0.5])
shares = st.integers(1, 1000).map(lambda n: f"{n / 10}%") | st.sampled_from([0.25, 1, "100%"])
counts = st.integers(1, 9) | shares.filter(lambda share: share != 1)
addresses = st.one_of(
    st.integers(0x01000000, 0xDFFFFFFF).map(lambda n: str(ipaddress.IPv4Address(n))),
    st.integers(0x20010DB8 << 96, (0x20010DB9 << 96) - 1).map(
        lambda n: ipaddress.IPv6Address(n).exploded.upper()
    ),
)
lines = st.one_of(
    st.sampled_from(["default", "oversea", *(f"continent:{code}" for code in CONTINENTS)]),
    st.sampled_from([f"isp:{name}" for name in ISPS]),
    st.from_regex(r"country:[A-Z]{2}|subdivision:[A-Z]{2}-[A-Z0-9]{1,3}", fullmatch=True),
    st.integers(1, 2**32 - 1).map(lambda n: f"asn:{n}"),
    st.integers(0, 2**24 - 1).map(lambda n: f"network:{ipaddress.IPv4Address(n << 8)}/24"),
)
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)


def mapping(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


def named(resource: st.SearchStrategy[Any], names: Any = labels) -> st.SearchStrategy[Any]:
    return st.dictionaries(names, resource, max_size=3)


def some(item: Any, least: int = 0) -> st.SearchStrategy[list[Any]]:
    return st.lists(item, min_size=least, max_size=3)


record = mapping({"name": labels, "type": st.just("TXT"), "data": some(words)}, ttl=durations)
zone = mapping(
    {"nameservers": some(domains)},
    soa=mapping({}, mname=domains, rname=domains, refresh=durations, minimum=durations),
    ttl=durations,
    records=some(record),
)
region = mapping(
    {},
    location=st.tuples(st.floats(-90, 90), st.integers(-180, 180)).map(list),
    lines=some(lines),
)
common = {
    "interval": durations,
    "timeout": durations,
    "fall": st.integers(1, 100),
    "rise": st.integers(1, 100),
    "regions": st.just("all") | some(labels, 1),
    "failing_share": shares,
    "min_voters": st.just("majority") | counts,
}
ports = st.integers(1, 65535)
statuses = some(st.sampled_from([200, "300-399", "404", 503]), 1)
check = st.one_of(
    mapping(
        {"type": st.just("ping")}, **common, packets=st.integers(1, 100), loss_limit=shares,
        spacing=st.integers(10, 10_000).map(lambda ms: f"{ms}ms"), payload=st.integers(8, 1400),
    ),
    mapping(
        {"type": st.just("tcp"), "port": ports}, **common, send=words, tls=st.booleans(),
        expect=st.sampled_from(["SSH", {"regex": "a|b"}]),
    ),
    mapping(
        {"type": st.just("http")}, **common, port=ports, expect_status=statuses,
        path=st.just("/healthz"), method=st.sampled_from(["GET", "OPTIONS"]),
        headers=st.just({"X-B": "b", "X-A": "a"}), expect_body=st.just({"regex": "ok"}),
        expect_header=st.just({"Content-Type": "text"}), follow_redirects=st.booleans(),
    ),
    mapping(
        {"type": st.just("https")}, **common, port=ports, alert_above=st.sampled_from([400, 500]),
        verify=st.booleans(), sni=domains,
    ),
)  # fmt: skip
address = mapping(
    {"value": addresses},
    port=ports,
    weight=st.integers(0, 255),
    mode=st.sampled_from(["smart", "online", "offline"]),
    note=words,
)
pool = mapping(
    {"type": st.sampled_from(["ipv4", "ipv6"])},
    checks=some(labels),
    addresses=some(address),
    steering=st.sampled_from(
        ["round_robin", "weighted", {"type": "round_robin"}, {"type": "weighted", "answers": 3}]
    ),
    min_available=st.sampled_from(["any", "all"]) | counts,
    max_answers=st.integers(1, 64),
)
rule = mapping(
    {"name": labels, "lines": some(lines), "tiers": some(mapping({"pools": some(labels)}))},
    failover=st.just("auto") | st.integers(1, 9).map(lambda tier: {"pinned": tier}),
    failback=st.just("immediate"),
    on_exhausted=st.sampled_from(["stop", "widen"]),
)
instance = mapping(
    {},
    id=st.integers(0, 10**8 - 1).map(lambda n: f"gtm{n:08}"),
    zone=domains,
    access_names=some(domains),
    domain=domains,
    aliases=some(domains),
    ttl=durations,
    unmatched=st.just("nodata"),
    enabled=st.booleans(),
    when_all_down=st.sampled_from(["lowest_ordinal", "all", "nodata", "servfail"]),
    rules=some(rule),
)
sets = mapping(
    {},
    zones=named(zone, domains),
    regions=named(region),
    checks=named(check),
    pools=named(pool),
    instances=named(instance),
)


@given(sets)
@settings(max_examples=60, deadline=None)
def test_what_was_read_survives_plain_data_and_the_store(data: dict[str, Any]) -> None:
    first = read_plain(data, VARIANTS)
    assert first.problems == ()
    assert first.resources is not None
    plain = {
        kind: {name: codec.plain(value) for name, value in first.resources.kind(kind).items()}
        for kind in TYPES
    }
    assert read_plain(plain, VARIANTS).resources == first.resources
    stored = codec.canonical(plain).decode()
    assert read_text(stored, VARIANTS, is_json=True).resources == first.resources
    for kind in TYPES:
        for name, value in first.resources.kind(kind).items():
            again = codec.decode(codec.encode(value), TYPES[kind])
            assert again == value, (kind, name)


@given(sets)
@settings(max_examples=60, deadline=None)
def test_any_set_that_reads_well_is_judged_without_raising(data: dict[str, Any]) -> None:
    judged = review(read_plain(data, VARIANTS), VARIANTS)
    assert (judged.resources is None) == bool(judged.errors)
    if judged.resources is not None:  # what is in order stays in order
        plain = {
            kind: {n: codec.plain(v) for n, v in judged.resources.kind(kind).items()}
            for kind in TYPES
        }
        assert review(read_plain(plain, VARIANTS), VARIANTS).resources == judged.resources


@given(check, st.sampled_from(["weighted", {"type": "weighted", "answers": 3}, "round_robin"]))
@settings(max_examples=60, deadline=None)
def test_agents_and_resolvers_read_the_settings_that_were_written(
    data: dict[str, Any], steering: Any
) -> None:
    pool = {"type": "ipv4", "steering": steering}
    reading = read_plain({"checks": {"c": data}, "pools": {"p": pool}}, VARIANTS)
    (found,) = reading.sound.checks.values()
    read = read_settings(VARIANTS.probes[found.type], found.options, found.port)
    assert options(read, without=frozenset({"port"})) == found.options
    chosen = reading.sound.pools["p"].steering
    assert options(policy_of(chosen)[1]) == chosen.options


keys = st.sampled_from(
    ["zones", "pools", "checks", "instances", "a", "type", "http", "rules", "lines", "tiers",
     "steering", "regions", "failover", "addresses", "value", "headers", "records", "data"]
) | words  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words | keys
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=25,
)
kinds = st.dictionaries(
    st.sampled_from([*TYPES, "lines", "nonsense"]),
    st.dictionaries(labels | words, trees, max_size=3),
    max_size=4,
)


@given(trees | kinds)
@settings(max_examples=100, deadline=None)
def test_any_data_is_read_or_refused_never_raised(data: Any) -> None:
    for reading in (
        read_plain(data, VARIANTS),
        read_text(yaml.safe_dump(data, allow_unicode=True), VARIANTS),
    ):
        judged = review(reading, VARIANTS)
        assert (judged.resources is None) == bool(judged.errors)
        for problem in judged.problems:
            assert problem.text
            assert str(problem).isprintable()


@given(st.text(max_size=80) | st.text("{}[]:,-&*!|>'\"#%@`?~ \t\nab1.", max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_refused_never_raised(text: str) -> None:
    for is_json in (False, True):
        reading = read_text(text, VARIANTS, is_json=is_json)
        assert (reading.resources is None) == bool(reading.problems)
