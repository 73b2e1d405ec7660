"""Access names that answer CNAMEs, and silence: read by dnslib, a stranger to our codec."""

from __future__ import annotations

from typing import Any

import dnslib
import pytest
from msgspec.structs import replace

from resolver import responder
from resolver.compiler import compile_table
from resolver.message import CNAME, record, wire_name
from resolver.place import Unplaced
from resolver.plan import DROP, OWNER, Answers, Node
from resolver.responder import Transport, respond
from resolver.table import AnswerTable, heard
from tests.worlds import LOCAL, instance, pool, records, world

pytestmark = pytest.mark.usefixtures("each_responder")

STATIC = records(
    ("ns1", "A", ["127.0.0.1"]),
    ("mail", "MX", ["10 ns1"]),
    ("mail", "A", ["192.0.2.25"]),
    ("www", "CNAME", ["shop"]),
    ("back", "CNAME", ["shop"]),
)


def alias(target: str) -> Answers:
    """A leaf that answers the name `target`."""
    return Answers(60, record(OWNER, CNAME, 60, wire_name(target)), 1)


def table(plan: Node) -> AnswerTable:
    """shop.gtm.test answers by `plan` for all types; far.gtm.test has an address."""
    view = world(
        records={"gtm.test": STATIC},
        pools={
            "names": pool("unused.example", type="domain"),
            "one": pool("192.0.2.1"),
        },
        instances={
            "shop": instance(("w", ["default"], [["names"]]), access_names=["shop.gtm.test"]),
            "far": instance(("w", ["default"], [["one"]]), access_names=["far.gtm.test"]),
        },
    )
    made = compile_table(view, Unplaced())
    name, _ = made.find(wire_name("shop.gtm.test"))
    assert name is not None
    slot = made.slots[name.slot]
    plans = [
        plan if number in (slot.a, slot.aaaa) else one for number, one in enumerate(made.plans)
    ]
    assert {slot.a, slot.aaaa} <= made.aliased
    return heard(replace(made, plans=plans), 100.0)


def ask(
    plan: Node, name: str, kind: str, transport: Transport = "udp"
) -> tuple[str, list[str]] | None:
    """(rcode, "owner type data" of each answer), None for silence."""
    query = dnslib.DNSRecord.question(name, kind).pack()
    reply = respond(table(plan), bytes(query), LOCAL, transport, 100.0, 0)
    if reply is None:
        return None
    read = dnslib.DNSRecord.parse(reply)
    assert read.header.aa == 1
    rows = [f"{rr.rname} {dnslib.QTYPE[rr.rtype]} {rr.rdata}" for rr in read.rr]
    return dnslib.RCODE[read.header.rcode], rows


@pytest.mark.parametrize("kind", ["A", "AAAA", "MX", "TXT", "HTTPS", "CNAME"])
def test_a_name_outside_our_zones_is_the_whole_answer_whatever_is_asked(kind: str) -> None:
    expected = ("NOERROR", ["shop.gtm.test. CNAME cdn.example.net."])
    assert ask(alias("cdn.example.net"), "shop.gtm.test", kind) == expected


@pytest.mark.parametrize(
    ("kind", "last"),
    [("A", ["mail.gtm.test. A 192.0.2.25"]), ("MX", ["mail.gtm.test. MX 10 ns1.gtm.test."])],
)
def test_a_name_inside_our_zones_is_followed_for_the_type_asked(kind: str, last: list[str]) -> None:
    expected = ("NOERROR", ["shop.gtm.test. CNAME mail.gtm.test.", *last])
    assert ask(alias("mail.gtm.test"), "shop.gtm.test", kind) == expected


def test_a_type_that_the_target_lacks_is_nodata_behind_the_alias() -> None:
    expected = ("NOERROR", ["shop.gtm.test. CNAME mail.gtm.test."])
    assert ask(alias("mail.gtm.test"), "shop.gtm.test", "TXT") == expected


def test_a_target_that_is_not_there_is_nxdomain_behind_the_alias() -> None:
    expected = ("NXDOMAIN", ["shop.gtm.test. CNAME nothing.gtm.test."])
    assert ask(alias("nothing.gtm.test"), "shop.gtm.test", "A") == expected


def test_a_static_alias_leads_on_through_a_steered_one_to_another_instance() -> None:
    expected = [
        "www.gtm.test. CNAME shop.gtm.test.",
        "shop.gtm.test. CNAME far.gtm.test.",
        "far.gtm.test. A 192.0.2.1",
    ]
    assert ask(alias("far.gtm.test"), "www.gtm.test", "A") == ("NOERROR", expected)


@pytest.mark.parametrize("kind", ["A", "AAAA", "MX"])
@pytest.mark.parametrize("target", ["shop.gtm.test", "SHOP.gtm.test", "back.gtm.test"])
def test_a_circle_ends(target: str, kind: str) -> None:
    told = ask(alias(target), "shop.gtm.test", kind)
    assert told is not None
    assert told[0] == "NOERROR"
    assert 1 <= len(told[1]) <= 2


def test_any_is_told_the_alias_alone_and_another_type_nothing_where_it_is_addresses() -> None:
    outside = ask(alias("cdn.example.net"), "shop.gtm.test", "ANY")
    assert outside == ("NOERROR", ["shop.gtm.test. CNAME cdn.example.net."])
    data = Answers(60, record(OWNER, 1, 60, b"\xc0\x00\x02\x01"), 1)
    assert ask(data, "shop.gtm.test", "MX") == ("NOERROR", [])
    assert ask(data, "shop.gtm.test", "A") == ("NOERROR", ["shop.gtm.test. A 192.0.2.1"])


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("name", ["shop.gtm.test", "www.gtm.test"])
def test_a_drop_is_silence(name: str, transport: Transport) -> None:
    assert ask(Answers(60, rcode=DROP), name, "A", transport) is None
    assert ask(Answers(60, rcode=DROP), name, "AAAA", transport) is None


@pytest.mark.parametrize(
    ("plan", "walks"),
    [(alias("far.gtm.test"), 2), (Answers(60, record(OWNER, 1, 60, LOCAL), 1), 1)],
)
def test_a_plan_that_may_answer_an_alias_is_walked_once(
    plan: Node, walks: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request.module, "respond", responder.respond)  # who can be looked into
    walked = []
    steered = responder._steered

    def counted(*arguments: Any) -> Any:
        walked.append(arguments[1])
        return steered(*arguments)

    monkeypatch.setattr(responder, "_steered", counted)
    told = ask(plan, "shop.gtm.test", "A")
    assert told is not None
    assert " A " in told[1][-1]
    assert len(walked) == walks  # the name that the alias leads to has a plan of its own
