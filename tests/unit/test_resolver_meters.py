"""What a resolver counts by name: access names alone, up to a bound, and forgotten when they go."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from resolver import meters
from resolver.message import wire_name
from resolver.meters import NONE, OTHER, RCODES, SILENT, Meters, NameTally, Standing, Tally
from resolver.table import AnswerTable, Name


def query(name: bytes) -> bytes:
    return bytes(12) + name + b"\0\x01\0\x01"


def counts(tally: NameTally, now: AnswerTable, datagram: bytes) -> list[int]:
    """As the query path looks them up."""
    qname = datagram[12 : datagram.find(b"\0", 12) + 1].lower()
    return tally.known.get(qname) or tally.first(now, qname)


def table(*instances: str, static: str = "mail.gtm.test") -> AnswerTable:
    names = {wire_name(one): Name(0, {}, slot) for slot, one in enumerate(instances)}
    return AnswerTable(names={**names, wire_name(static): Name(0, {})})


def counted(tally: NameTally, of: AnswerTable) -> dict[str, int]:
    found: dict[str, int] = {}
    for label, _, counts in tally.rows(of):
        found[label] = found.get(label, 0) + sum(counts)
    return found


def test_access_names_are_counted_whatever_their_case_and_all_else_together() -> None:
    tally, now = NameTally(), table("a.gtm.test", "b.gtm.test")
    for name in ("a.gtm.test", "A.Gtm.tesT", "b.gtm.test", "mail.gtm.test", "no.such.name"):
        wire = b"".join(bytes([len(one)]) + one.encode() for one in name.split(".")) + b"\0"
        counts(tally, now, query(wire))[0] += 1
    assert counted(tally, now) == {"a.gtm.test": 2, "b.gtm.test": 1, OTHER: 0, NONE: 2}


def test_names_beyond_the_bound_share_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "MAX_NAMES", 3)
    tally, now = NameTally(), table(*(f"i{number}.gtm.test" for number in range(10)))
    for number in range(10):
        counts(tally, now, query(wire_name(f"i{number}.gtm.test")))[3] += 1
    assert counted(tally, now) == {
        **{f"i{number}.gtm.test": 1 for number in range(3)},
        OTHER: 7,
        NONE: 0,
    }


def test_names_that_strangers_invent_make_no_label() -> None:
    tally, now = NameTally(), table("a.gtm.test")
    for number in range(5_000):
        counts(tally, now, query(wire_name(f"x{number}.gtm.test")))[3] += 1
    assert counted(tally, now) == {OTHER: 0, NONE: 5_000}


def test_an_access_name_that_went_away_makes_place_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meters, "MAX_NAMES", 1)
    tally, before, after = NameTally(), table("a.gtm.test"), table("b.gtm.test")
    counts(tally, before, query(wire_name("a.gtm.test")))[0] += 1
    assert counted(tally, after) == {OTHER: 0, NONE: 0}
    counts(tally, after, query(wire_name("b.gtm.test")))[0] += 1
    assert counted(tally, after) == {"b.gtm.test": 1, OTHER: 0, NONE: 0}


@pytest.mark.parametrize("bad", [b"", b"\0" * 5, b"\xff" * 12, b"\xff" * 40, bytes(12) + b"\x3f"])
def test_what_is_no_query_is_counted_too(bad: bytes) -> None:
    tally, now = NameTally(), table("a.gtm.test")
    counts(tally, now, bad)[SILENT] += 1
    assert counted(tally, now) == {OTHER: 0, NONE: 1}


def test_the_exported_series_name_the_access_name_and_the_rcode() -> None:
    now = table("a.gtm.test")
    standing = Standing(
        ready=True, table=now, revision=7, age_s=0.5, stale=False, compiled=4, compiling_s=0.25,
        snapshot_revision=6, reported=1, refused_states=0, snapshot_errors=0, tcp_connections=0,
        tcp_refused=0, tcp_expired=0, unsent=0, oversize=0, geo_errors=0,
        geo_reloads={"loaded": 3, "refused": 1}, geo_refused=True, geo_age_s=3600.0,
    )  # fmt: skip
    udp, tcp, names = Tally(), Tally(), NameTally()
    made = Meters(lambda: standing, udp, tcp, names)
    of_a = counts(names, now, query(wire_name("a.gtm.test")))
    of_a[RCODES.index("NOERROR")] += 2
    of_a[SILENT] += 1
    registry = CollectorRegistry()
    registry.register(made)
    shown = generate_latest(registry).decode()
    for line in (
        'gtm_resolver_name_queries_total{name="a.gtm.test",rcode="NOERROR"} 2.0',
        'gtm_resolver_name_queries_total{name="a.gtm.test",rcode="none"} 1.0',
        "gtm_resolver_compile_seconds_count 4.0",
        "gtm_resolver_names 2.0",
        "gtm_resolver_ready 1.0",
        'gtm_resolver_geo_reloads_total{outcome="loaded"} 3.0',
        "gtm_resolver_geo_refused 1.0",
        "gtm_resolver_geo_age_seconds 3600.0",
    ):
        assert line in shown
