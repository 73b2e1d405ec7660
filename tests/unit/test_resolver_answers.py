"""What the responder answers, read as a table: question, then rcode, flags, and sections."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest

from resolver.compiler import compile_table
from resolver.place import Unplaced
from resolver.responder import respond
from resolver.table import AnswerTable, Serving, heard, not_ready
from tests.worlds import LOCAL, instance, pool, records, routes, world, zone

pytestmark = pytest.mark.usefixtures("each_responder")

STATIC = records(
    ("ns1", "A", ["127.0.0.1"]),
    ("@", "MX", ["10 mail"]),
    ("www", "CNAME", ["shop"]),
    ("out", "CNAME", ["www.example.org."]),
    ("broken", "CNAME", ["nothing"]),
    ("a.deep", "TXT", ['"hello there"']),
    ("*.wild", "TXT", ['"wild"']),
    ("*.alias", "CNAME", ["www"]),
    ("sub", "NS", ["ns.sub", "ns1.gtm.test."]),
    ("sub", "DS", ["1 8 2 " + "ab" * 32]),
    ("ns.sub", "A", ["192.0.2.53"]),
    ("moved", "DNAME", ["wild"]),
    ("loop1", "CNAME", ["loop2"]),
    ("into", "CNAME", ["host.sub"]),
    ("spiral", "DNAME", ["a.spiral"]),
    ("loop2", "CNAME", ["loop1"]),
    ("odd", "TYPE65280", [r"\# 4 0a000001"]),
    ("empty", "TXT", ["x"]),
)
VIEW = world(
    zones={"gtm.test": zone(), "child.gtm.test": zone(ttl="60s", soa={"minimum": "20s"})},
    records={"gtm.test": STATIC},
    pools={
        "one": pool("192.0.2.1"),
        "six": pool("2001:db8::1"),
        "dead": pool("192.0.2.9", down=["192.0.2.9"]),
        "gone": pool("192.0.2.9", offline=["192.0.2.9"]),
    },
    instances={
        "shop": instance(("w", ["default"], [["one"], ["six"]]), access_names=["shop.gtm.test"]),
        "quick": instance(("w", ["default"], [["one"]]), access_names=["quick.gtm.test"], ttl="5s"),
        "off": instance(
            ("w", ["default"], [["one"]]),
            access_names=["off.gtm.test", "deep.gtm.test", "empty.gtm.test"],
            enabled=False,
        ),
        "apex": instance(("w", ["default"], [["one"]]), access_names=["child.gtm.test"]),
        "new": instance(("w", ["default"], [["unseen"]]), access_names=["new.gtm.test"]),
        "down": instance(("w", ["default"], [["dead"]]), access_names=["down.gtm.test"]),
        "failing": instance(
            ("w", ["default"], [["dead"]]),
            access_names=["failing.gtm.test"],
            when_all_down="servfail",
        ),
        "silent": instance(
            ("w", ["default"], [["dead"]]),
            access_names=["silent.gtm.test"],
            when_all_down="nodata",
        ),
        "void": instance(("w", ["default"], [["gone"]]), access_names=["void.gtm.test"]),
    },
)
TABLE = heard(compile_table(VIEW, Unplaced()), 100.0)
SOA = "ns1.gtm.test. hostmaster.gtm.test. 7 3600 600 604800"
NEGATIVE = f"gtm.test. 30 SOA {SOA} 30"


def ask(
    name: str, kind: str, table: AnswerTable = TABLE, now: float = 100.0, **how: object
) -> dns.message.Message:
    """The reply as dnspython reads it, to a query with EDNS."""
    query = dns.message.make_query(name, kind, use_edns=0, **how)
    reply = respond(table, query.to_wire(), LOCAL, "udp", now, 0)
    assert reply is not None
    return dns.message.from_wire(reply)


def lines(message: dns.message.Message) -> list[str]:
    """The message as short lines: status, then the records by section."""
    flags = "aa " if message.flags & dns.flags.AA else ""
    found = [f"{flags}{dns.rcode.to_text(message.rcode())}"]
    for mark, section in zip("=^+", message.sections[1:], strict=True):
        for rrset in section:
            found += [
                f"{mark} {rrset.name} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {data}"
                for data in rrset
            ]
    return found


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("shop.gtm.test A", ["aa NOERROR", "= shop.gtm.test. 60 A 192.0.2.1"]),
        ("sHoP.gtm.TEST A", ["aa NOERROR", "= sHoP.gtm.TEST. 60 A 192.0.2.1"]),
        ("shop.gtm.test AAAA", ["aa NOERROR", "= shop.gtm.test. 60 AAAA 2001:db8::1"]),
        ("shop.gtm.test MX", ["aa NOERROR", f"^ {NEGATIVE}"]),
        ("shop.gtm.test ANY", ["aa NOERROR", '= shop.gtm.test. 3600 HINFO "RFC8482" ""']),
        ("quick.gtm.test AAAA", ["aa NOERROR", f"^ gtm.test. 5 SOA {SOA} 30"]),
        ("quick.gtm.test MX", ["aa NOERROR", f"^ gtm.test. 5 SOA {SOA} 30"]),
        ("off.gtm.test A", ["aa NXDOMAIN", f"^ {NEGATIVE}"]),
        ("deep.gtm.test A", ["aa NOERROR", f"^ {NEGATIVE}"]),
        ("empty.gtm.test A", ["aa NOERROR", f"^ {NEGATIVE}"]),
        ("empty.gtm.test TXT", ["aa NOERROR", '= empty.gtm.test. 300 TXT "x"']),
        ("child.gtm.test A", ["aa NOERROR", "= child.gtm.test. 60 A 192.0.2.1"]),
        ("child.gtm.test NS", ["aa NOERROR", "= child.gtm.test. 60 NS ns1.gtm.test."]),
        (
            "no.child.gtm.test A",
            [
                "aa NXDOMAIN",
                "^ child.gtm.test. 20 SOA ns1.gtm.test. hostmaster.child.gtm.test. "
                "7 3600 600 604800 20",
            ],
        ),
        ("child.gtm.test DS", ["aa NOERROR", f"^ {NEGATIVE}"]),
        ("gtm.test MX", ["aa NOERROR", "= gtm.test. 300 MX 10 mail.gtm.test."]),
        ("gtm.test SOA", ["aa NOERROR", f"= gtm.test. 300 SOA {SOA} 30"]),
        ("gtm.test ANY", ["aa NOERROR", '= gtm.test. 3600 HINFO "RFC8482" ""']),
        ("odd.gtm.test TYPE65280", ["aa NOERROR", r"= odd.gtm.test. 300 TYPE65280 \# 4 0a000001"]),
        ("nothing.gtm.test A", ["aa NXDOMAIN", f"^ {NEGATIVE}"]),
        ("below.shop.gtm.test A", ["aa NXDOMAIN", f"^ {NEGATIVE}"]),
        ("a.deep.gtm.test TXT", ["aa NOERROR", '= a.deep.gtm.test. 300 TXT "hello there"']),
        ("wild.gtm.test TXT", ["aa NOERROR", f"^ {NEGATIVE}"]),
        ("x.y.wild.gtm.test TXT", ["aa NOERROR", '= x.y.wild.gtm.test. 300 TXT "wild"']),
        ("x.wild.gtm.test A", ["aa NOERROR", f"^ {NEGATIVE}"]),
        (
            "www.gtm.test A",
            [
                "aa NOERROR",
                "= www.gtm.test. 300 CNAME shop.gtm.test.",
                "= shop.gtm.test. 60 A 192.0.2.1",
            ],
        ),
        (
            "any.alias.gtm.test A",
            [
                "aa NOERROR",
                "= any.alias.gtm.test. 300 CNAME www.gtm.test.",
                "= www.gtm.test. 300 CNAME shop.gtm.test.",
                "= shop.gtm.test. 60 A 192.0.2.1",
            ],
        ),
        ("www.gtm.test CNAME", ["aa NOERROR", "= www.gtm.test. 300 CNAME shop.gtm.test."]),
        ("www.gtm.test ANY", ["aa NOERROR", "= www.gtm.test. 300 CNAME shop.gtm.test."]),
        (
            "www.gtm.test MX",
            ["aa NOERROR", "= www.gtm.test. 300 CNAME shop.gtm.test.", f"^ {NEGATIVE}"],
        ),
        (
            "broken.gtm.test A",
            ["aa NXDOMAIN", "= broken.gtm.test. 300 CNAME nothing.gtm.test.", f"^ {NEGATIVE}"],
        ),
        ("www.gtm.test NSEC", ["aa NOERROR", f"^ {NEGATIVE}"]),
        ("www.gtm.test RRSIG", ["aa NOERROR", f"^ {NEGATIVE}"]),
        ("out.gtm.test A", ["aa NOERROR", "= out.gtm.test. 300 CNAME www.example.org."]),
        (
            "loop1.gtm.test A",
            [
                "aa NOERROR",
                "= loop1.gtm.test. 300 CNAME loop2.gtm.test.",
                "= loop2.gtm.test. 300 CNAME loop1.gtm.test.",
            ],
        ),
        (
            "x.moved.gtm.test TXT",
            [
                "aa NOERROR",
                "= moved.gtm.test. 300 DNAME wild.gtm.test.",
                "= x.moved.gtm.test. 300 CNAME x.wild.gtm.test.",
                '= x.wild.gtm.test. 300 TXT "wild"',
            ],
        ),
        (
            "x.moved.gtm.test CNAME",
            [
                "aa NOERROR",
                "= moved.gtm.test. 300 DNAME wild.gtm.test.",
                "= x.moved.gtm.test. 300 CNAME x.wild.gtm.test.",
            ],
        ),
        (
            "spiral.spiral.gtm.test A",
            [
                "aa NOERROR",
                "= spiral.gtm.test. 300 DNAME a.spiral.gtm.test.",
                *[
                    f"= spiral.{'a.' * turn}spiral.gtm.test. 300 "
                    f"CNAME spiral.{'a.' * (turn + 1)}spiral.gtm.test."
                    for turn in range(9)
                ],
            ],
        ),
        ("moved.gtm.test A", ["aa NOERROR", f"^ {NEGATIVE}"]),
        (
            "into.gtm.test A",
            [
                "aa NOERROR",
                "= into.gtm.test. 300 CNAME host.sub.gtm.test.",
                "^ sub.gtm.test. 300 NS ns.sub.gtm.test.",
                "^ sub.gtm.test. 300 NS ns1.gtm.test.",
                "+ ns.sub.gtm.test. 300 A 192.0.2.53",
                "+ ns1.gtm.test. 300 A 127.0.0.1",
            ],
        ),
        (
            "host.sub.gtm.test A",
            [
                "NOERROR",
                "^ sub.gtm.test. 300 NS ns.sub.gtm.test.",
                "^ sub.gtm.test. 300 NS ns1.gtm.test.",
                "+ ns.sub.gtm.test. 300 A 192.0.2.53",
                "+ ns1.gtm.test. 300 A 127.0.0.1",
            ],
        ),
        (
            "ns.sub.gtm.test A",
            [
                "NOERROR",
                "^ sub.gtm.test. 300 NS ns.sub.gtm.test.",
                "^ sub.gtm.test. 300 NS ns1.gtm.test.",
                "+ ns.sub.gtm.test. 300 A 192.0.2.53",
                "+ ns1.gtm.test. 300 A 127.0.0.1",
            ],
        ),
        ("sub.gtm.test DS", ["aa NOERROR", "= sub.gtm.test. 300 DS 1 8 2 " + "ab" * 32]),
        ("www.example.org A", ["REFUSED"]),
        ("test A", ["REFUSED"]),
        (". NS", ["REFUSED"]),
        ("gtm.test AXFR", ["REFUSED"]),
        ("gtm.test MAILB", ["NOTIMP"]),
        ("gtm.test OPT", ["FORMERR"]),
        ("new.gtm.test A", ["SERVFAIL"]),
        ("down.gtm.test A", ["aa NOERROR", "= down.gtm.test. 60 A 192.0.2.9"]),
        ("down.gtm.test AAAA", ["aa NOERROR", f"^ {NEGATIVE}"]),
        ("failing.gtm.test A", ["SERVFAIL"]),
        ("silent.gtm.test A", ["aa NOERROR", f"^ {NEGATIVE}"]),
        ("void.gtm.test A", ["aa NOERROR", f"^ {NEGATIVE}"]),
    ],
)
def test_a_question_gets_its_answer(question: str, expected: list[str]) -> None:
    assert lines(ask(*question.split())) == expected


def extended(message: dns.message.Message) -> dict[int, str]:
    """The extended errors of a reply."""
    found = [option for option in message.options if isinstance(option, dns.edns.EDEOption)]
    return {int(option.code): option.text or "" for option in found}


@pytest.mark.parametrize(
    ("question", "errors"),
    [
        ("shop.gtm.test A", {}),
        ("new.gtm.test A", {14: "a pool was not published yet"}),
        ("down.gtm.test A", {0: "all down: answered by lowest_ordinal"}),
        ("silent.gtm.test A", {0: "all down: answered by nodata"}),
        ("failing.gtm.test A", {0: "all down: answered by servfail"}),
        ("www.example.org A", {20: ""}),
    ],
)
def test_an_unusual_answer_says_why(question: str, errors: dict[int, str]) -> None:
    assert extended(ask(*question.split())) == errors


def test_answers_are_marked_stale_after_a_minute_without_the_store() -> None:
    text = "the store has not been heard"
    assert extended(ask("shop.gtm.test", "A", now=160.0)) == {}
    assert extended(ask("shop.gtm.test", "A", now=160.1)) == {3: text}
    assert extended(ask("nothing.gtm.test", "A", now=160.1)) == {19: text}
    assert extended(ask("www.example.org", "A", now=160.1)) == {20: ""}
    assert extended(ask("shop.gtm.test", "A", heard(TABLE, 150.0), now=160.1)) == {}


def test_without_a_table_everything_is_servfail_and_never_negative() -> None:
    table = not_ready(Serving(version="v1"))
    reply = ask("nothing.gtm.test", "A", table)
    assert lines(reply) == ["SERVFAIL"]
    assert extended(reply) == {14: "no configuration yet"}
    assert lines(ask("version.bind", "TXT", table, rdclass="CH")) == [
        "aa NOERROR",
        '= version.bind. 0 TXT "v1"',
    ]


@pytest.mark.parametrize(
    ("name", "serving", "expected"),
    [
        ("version.bind", Serving(version="Meridian 1"), '= version.bind. 0 TXT "Meridian 1"'),
        ("ID.server", Serving(server="r1"), '= ID.server. 0 TXT "r1"'),
        ("version.bind", Serving(), "REFUSED"),
        ("id.server", Serving(version="Meridian 1"), "REFUSED"),
        ("shop.gtm.test", Serving(version="Meridian 1"), "REFUSED"),
    ],
)
def test_the_chaos_class_tells_of_the_server_only_when_enabled(
    name: str, serving: Serving, expected: str
) -> None:
    table = compile_table(VIEW, Unplaced(), serving=serving)
    assert lines(ask(name, "TXT", table, rdclass="CH"))[-1] == expected


def test_a_class_that_is_not_ours_is_refused() -> None:
    assert lines(ask("shop.gtm.test", "A", rdclass="HS")) == ["REFUSED"]


@pytest.mark.parametrize(
    ("tier", "pinned_by", "expected"),
    [
        (2, "config", "= shop.gtm.test. 60 A 192.0.2.2"),
        (1, "operator", "= shop.gtm.test. 60 A 192.0.2.9"),
        (2, "", "= shop.gtm.test. 60 A 192.0.2.2"),
        (1, "", "= shop.gtm.test. 60 A 192.0.2.2"),
        (7, "config", "= shop.gtm.test. 60 A 192.0.2.2"),
    ],
    ids=["pinned", "pinned to a dead tier", "kept", "kept but dead", "of an older rule"],
)
def test_a_published_route_decides_the_tier(tier: int, pinned_by: str, expected: str) -> None:
    view = world(
        pools={"dead": pool("192.0.2.9", down=["192.0.2.9"]), "b": pool("192.0.2.2")},
        instances={
            "shop": instance(("w", ["default"], [["dead"], ["b"]]), access_names=["shop.gtm.test"])
        },
        routes={"shop": routes("w", "ipv4", tier, pinned_by)},
    )
    assert lines(ask("shop.gtm.test", "A", compile_table(view, Unplaced())))[1] == expected


@pytest.mark.parametrize(
    ("bucket", "said"),
    [
        (records(("x", "A", ["1.2.3"])), "zone gtm.test: record x A"),
        (records(("x", "SOA", ["a b 1 2 3 4 5"])), "made from the zone's `soa`"),
        (records(("x", "ANY", ["a"])), "it is no type of stored records"),
        (records(("x", "NOPE", ["a"])), "no record type such as"),
        (records(("x.org.", "A", ["192.0.2.1"])), "lies outside the zone"),
        (records(("x", "CNAME", ["y"]), ("x", "A", ["192.0.2.1"])), "a CNAME beside other data"),
        (records(("@", "CNAME", ["y"])), "a CNAME beside other data"),
        (records(("*", "NS", ["y"])), "a wildcard can't be delegated"),
        (records(("x", "TXT", [f'"{n:0200}"' for n in range(300)])), "octets are too many"),
        (records(("shop", "A", ["192.0.2.1"])), "taken by another instance or a static record"),
        (records(("shop", "NS", ["y"])), "lies in a delegated part"),
    ],
)
def test_what_can_not_be_served_is_refused_by_name(bucket: dict, said: str) -> None:
    view = world(
        records={"gtm.test": bucket},
        instances={"shop": instance(("w", ["default"], [["a"]]), access_names=["shop.gtm.test"])},
    )
    with pytest.raises(ValueError, match=said):
        compile_table(view, Unplaced())


def test_an_access_name_outside_our_zones_is_refused_by_name() -> None:
    view = world(instances={"shop": instance(access_names=["shop.example.org"])})
    with pytest.raises(ValueError, match=r"instance shop: access name shop\.example\.org lies in"):
        compile_table(view, Unplaced())


def test_a_referral_to_thirteen_servers_with_glue_fits_without_truncation() -> None:
    servers = [f"ns{number:02}.sub" for number in range(13)]
    rows = [("sub", "NS", servers)]
    rows += [(server, "A", ["192.0.2.53"]) for server in servers]
    rows += [(server, "AAAA", ["2001:db8::53"]) for server in servers]
    view = world(zones={"gtm.test": zone()}, records={"gtm.test": records(*rows)})
    reply = ask("www.sub.gtm.test", "A", heard(compile_table(view, Unplaced()), 100.0))
    assert not reply.flags & dns.flags.TC
    assert len(reply.authority[0]) == 13
    assert len(reply.additional) == 26
