"""How packets are read and replies are built: RFC 1035, 6891, 7828, 7871, 8482, 8906, 9619."""

from __future__ import annotations

import struct

import dns.edns
import dns.flags
import dns.message
import dnslib
import pytest

from resolver import limits
from resolver.compiler import compile_table
from resolver.edns import extended_error, read_subnet
from resolver.message import name_text, read_name, read_query, wire_name
from resolver.place import Place, Unplaced
from resolver.responder import Transport, respond
from resolver.table import AnswerTable, Serving, heard
from tests.worlds import LOCAL, Map, instance, pool, records, world

pytestmark = pytest.mark.usefixtures("each_responder")

VIEW = world(
    records={
        "gtm.test": records(
            ("big", "TXT", [f'"{n:0250}"' for n in range(8)]),
            ("huge", "TXT", [f'"{n:0250}"' for n in range(40)]),
            *((f"c{n}", "CNAME", [f"c{n + 1}"]) for n in range(12)),
        )
    },
    pools={"one": pool("192.0.2.1"), "cn": pool("192.0.2.2")},
    instances={
        "shop": instance(("w", ["default"], [["one"]]), access_names=["shop.gtm.test"]),
        "geo": instance(
            ("n", ["network:10.1.0.0/16"], [["one"]]),
            ("c", ["country:CN"], [["cn"]]),
            ("w", ["default"], [["one"]]),
            access_names=["geo.gtm.test"],
        ),
    },
)
CN = Place(continent="AS", country="CN")
SERVING = Serving(nsid="r1", idle_s=12.5)
LOCATOR = Map({"1.2": CN, "127": CN})
TABLE = heard(compile_table(VIEW, LOCATOR, serving=SERVING), 0.0)
SHOP = wire_name("shop.gtm.test") + b"\0\1\0\1"


def packet(
    question: bytes = SHOP,
    *,
    flags: int = 0x0100,
    counts: tuple[int, int, int, int] = (1, 0, 0, 0),
    rest: bytes = b"",
) -> bytes:
    """A datagram with id 0x1234."""
    return struct.pack(">6H", 0x1234, flags, *counts) + question + rest


def opt(options: bytes = b"", *, size: int = 1232, ttl: int = 0, owner: bytes = b"\0") -> bytes:
    """An OPT record."""
    return owner + struct.pack(">HHIH", 41, size, ttl, len(options)) + options


def with_opt(*records: bytes, question: bytes = SHOP) -> bytes:
    """A query with these additional records."""
    return packet(question, counts=(1, 0, 0, len(records)), rest=b"".join(records))


def sent(datagram: bytes, transport: Transport = "udp", table: AnswerTable = TABLE) -> bytes | None:
    """The reply, at time 0 and with draw 0, to a client at 127.0.0.1."""
    return respond(table, datagram, LOCAL, transport, 0.0, 0)


def rcode(datagram: bytes) -> str:
    """The rcode of the reply as dnspython reads it."""
    reply = sent(datagram)
    assert reply is not None
    return dns.rcode.to_text(dns.message.from_wire(reply).rcode())


def subnet(text: str, scope: int = 0) -> bytes:
    """A client subnet option on the wire, by dnspython."""
    address, _, source = text.partition("/")
    data = dns.edns.ECSOption(address, int(source), scope).to_wire()
    return struct.pack(">HH", 8, len(data)) + data


def raw(code: int, data: bytes = b"") -> bytes:
    """An option on the wire."""
    return struct.pack(">HH", code, len(data)) + data


LOOP = b"\xc0\x0c"
LONG = b"".join(b"\x3f" + b"a" * 63 for _ in range(4)) + b"\0"


ROWS = [
    ("a plain query", packet(), "NOERROR"),
    ("all header bits", packet(flags=0x0170 | 0x0600), "NOERROR"),
    ("no question", packet(b"", counts=(0, 0, 0, 0)), "FORMERR"),
    ("two questions", packet(SHOP + SHOP, counts=(2, 0, 0, 0)), "FORMERR"),
    ("a question cut short", packet(SHOP[:-1]), "FORMERR"),
    ("a header alone", packet(b""), "FORMERR"),
    ("a label over the end", packet(b"\x3fabc"), "FORMERR"),
    ("a pointer to itself", packet(LOOP + b"\0\1\0\1"), "FORMERR"),
    ("a pointer into the header", packet(b"\xc0\x04\0\1\0\1"), "FORMERR"),
    ("an extended label", packet(b"\x41a\0\0\1\0\1"), "FORMERR"),
    ("a name of 257 octets", packet(LONG + b"\0\1\0\1"), "FORMERR"),
    ("something behind the end", packet(rest=b"\0"), "FORMERR"),
    ("an answer in a query", packet(counts=(1, 1, 0, 0), rest=opt()), "FORMERR"),
    ("an announced record missing", packet(counts=(1, 0, 0, 1)), "FORMERR"),
    ("inverse query", packet(flags=0x0800), "NOTIMP"),
    ("status", packet(flags=0x1000), "NOTIMP"),
    ("notify", packet(flags=0x2000), "NOTIMP"),
    ("update", packet(flags=0x2800), "NOTIMP"),
    ("opcode 15", packet(flags=0x7800), "NOTIMP"),
    ("EDNS", with_opt(opt()), "NOERROR"),
    ("EDNS with unknown flags", with_opt(opt(ttl=0x4FFF)), "NOERROR"),
    ("EDNS with an unknown option", with_opt(opt(raw(100, b"abc"))), "NOERROR"),
    ("EDNS with a cookie", with_opt(opt(raw(10, b"12345678"))), "NOERROR"),
    ("EDNS version 1", with_opt(opt(ttl=1 << 16)), "BADVERS"),
    ("EDNS version 1, unknown option", with_opt(opt(raw(100), ttl=1 << 16)), "BADVERS"),
    ("EDNS version 255, broken option", with_opt(opt(b"\0", ttl=0xFF << 16)), "BADVERS"),
    ("two OPT records", with_opt(opt(), opt()), "FORMERR"),
    ("OPT with a name", with_opt(opt(owner=b"\1a\0")), "FORMERR"),
    ("OPT as authority", packet(counts=(1, 0, 1, 0), rest=opt()), "FORMERR"),
    ("OPT cut short", with_opt(opt()[:-1]), "FORMERR"),
    ("OPT data over the end", with_opt(opt()[:-2] + b"\0\1"), "FORMERR"),
    ("an option over the end", with_opt(opt(b"\0\3\0\1")), "FORMERR"),
    ("half an option", with_opt(opt(b"\0\3\0")), "FORMERR"),
    ("as many options as may be", with_opt(opt(raw(100) * limits.MAX_OPTIONS)), "NOERROR"),
    ("one option more", with_opt(opt(raw(100) * (limits.MAX_OPTIONS + 1))), "FORMERR"),
    ("TSIG behind OPT", with_opt(opt(), LOOP + b"\0\xfa\0\xff\0\0\0\0\0\0"), "NOERROR"),
    ("a record behind OPT cut short", with_opt(opt(), LOOP + b"\0\xfa\0\xff"), "FORMERR"),
    (
        "as many records as may be",
        with_opt(*[LOOP + b"\0\1\0\1\0\0\0\0\0\0"] * limits.MAX_QUERY_RECORDS),
        "NOERROR",
    ),
    (
        "one record more",
        with_opt(*[LOOP + b"\0\1\0\1\0\0\0\0\0\0"] * (limits.MAX_QUERY_RECORDS + 1)),
        "FORMERR",
    ),
    ("a subnet", with_opt(opt(subnet("192.0.2.0/24"))), "NOERROR"),
    ("two subnets", with_opt(opt(subnet("192.0.2.0/24") * 2)), "FORMERR"),
    ("a subnet with a scope", with_opt(opt(subnet("192.0.2.0/24", 24))), "FORMERR"),
    ("a subnet of family 3", with_opt(opt(raw(8, b"\0\3\x18\0abc"))), "FORMERR"),
    ("a subnet too long", with_opt(opt(raw(8, b"\0\1\x21\0abcde"))), "FORMERR"),
    ("a subnet with too few octets", with_opt(opt(raw(8, b"\0\1\x18\0ab"))), "FORMERR"),
    ("a subnet with too many octets", with_opt(opt(raw(8, b"\0\1\x10\0abc"))), "FORMERR"),
    ("a subnet with bits behind", with_opt(opt(raw(8, b"\0\1\x09\0\1\xff"))), "FORMERR"),
    ("a subnet cut short", with_opt(opt(raw(8, b"\0\1\x09"))), "FORMERR"),
]


@pytest.mark.parametrize(
    ("datagram", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_a_query_gets_the_rcode_that_rfcs_want(datagram: bytes, expected: str) -> None:
    assert rcode(datagram) == expected


@pytest.mark.parametrize(
    "datagram",
    [b"", b"\0", packet()[:11], packet(flags=0x8000), packet(flags=0xFFFF)],
    ids=["nothing", "an octet", "half a header", "a response", "all flags"],
)
def test_silence_is_the_answer(datagram: bytes) -> None:
    assert sent(datagram) is None


def test_the_header_copies_id_opcode_and_rd_and_nothing_else() -> None:
    reply = sent(packet(flags=0x7FF0 & ~0x7800))
    assert reply is not None
    assert reply[:4] == b"\x12\x34\x85\x00"
    reply = sent(packet(flags=0x2030))
    assert reply == b"\x12\x34\xa0\x04" + bytes(8)


def test_a_question_that_was_read_is_echoed_byte_for_byte() -> None:
    name = b"\4sHoP\3GtM\4TeSt\0\0\1\0\1"
    for datagram in (packet(name), with_opt(opt(), opt(), question=name)):
        reply = sent(datagram)
        assert reply is not None
        assert reply[12 : 12 + len(name)] == name


def test_do_is_copied_and_other_edns_flags_are_not() -> None:
    for ttl, flags in ((0x8000, 0x8000), (0x4FFF, 0)):
        reply = sent(with_opt(opt(ttl=ttl)))
        assert reply is not None
        read = dns.message.from_wire(reply)
        assert (read.edns, read.ednsflags, read.payload) == (0, flags, 1232)


def test_bad_version_carries_our_version_and_no_options() -> None:
    reply = sent(with_opt(opt(raw(3), ttl=1 << 16)))
    assert reply is not None
    read = dns.message.from_wire(reply)
    assert (read.rcode(), read.edns, read.options) == (16, 0, ())


def test_the_server_names_itself_where_asked_and_configured() -> None:
    reply = sent(with_opt(opt(raw(3))))
    assert reply is not None
    assert [option.to_wire() for option in dns.message.from_wire(reply).options] == [b"r1"]
    reply = sent(with_opt(opt(raw(3))), table=compile_table(VIEW, LOCATOR))
    assert reply is not None
    assert b"r1" not in reply


def test_keepalive_is_answered_over_tcp_alone() -> None:
    query = with_opt(opt(raw(11)))
    over_tcp, over_udp = sent(query, "tcp"), sent(query, "udp")
    assert over_tcp is not None
    assert over_udp is not None
    assert over_tcp.endswith(raw(11, (125).to_bytes(2)))
    assert not dns.message.from_wire(over_udp).options


GEO = wire_name("geo.gtm.test") + b"\0\1\0\1"


@pytest.mark.parametrize(
    ("asked", "answered", "address"),
    [
        ("1.2.3.0/24", "ECS 1.2.3.0/24 scope/16", "192.0.2.2"),
        ("1.2.3.4/32", "ECS 1.2.3.4/32 scope/16", "192.0.2.2"),
        ("1.0.0.0/8", "ECS 1.0.0.0/8 scope/15", "192.0.2.1"),
        ("10.1.2.0/24", "ECS 10.1.2.0/24 scope/16", "192.0.2.1"),
        ("10.2.2.0/24", "ECS 10.2.2.0/24 scope/15", "192.0.2.1"),
        ("2001:db8::/32", "ECS 2001:db8::/32 scope/3", "192.0.2.1"),
        ("0.0.0.0/0", "ECS 0.0.0.0/0 scope/0", "192.0.2.2"),
    ],
)
def test_a_client_subnet_decides_and_comes_back_with_its_scope(
    asked: str, answered: str, address: str
) -> None:
    reply = sent(with_opt(opt(subnet(asked)), question=GEO))
    assert reply is not None
    read = dns.message.from_wire(reply)
    assert [str(option) for option in read.options] == [answered]
    assert [str(data) for data in read.answer[0]] == [address]


def test_an_answer_that_does_not_depend_on_the_client_has_scope_0() -> None:
    for question in (SHOP, wire_name("no.gtm.test") + b"\0\1\0\1", GEO[:-4] + b"\0\x0f\0\1"):
        reply = sent(with_opt(opt(subnet("1.2.3.0/24")), question=question))
        assert reply is not None
        assert [str(o) for o in dns.message.from_wire(reply).options] == ["ECS 1.2.3.0/24 scope/0"]


def test_a_subnet_of_family_0_comes_back_as_it_came() -> None:
    reply = sent(with_opt(opt(raw(8, b"\0\0\0\0")), question=GEO))
    assert reply is not None
    assert reply.endswith(raw(8, b"\0\0\0\0"))


def test_a_refusal_says_nothing_of_the_subnet() -> None:
    reply = sent(with_opt(opt(subnet("1.2.3.0/24")), question=b"\3org\0\0\1\0\1"))
    assert reply is not None
    assert [int(o.otype) for o in dns.message.from_wire(reply).options] == [15]


def test_without_a_subnet_the_source_address_decides_mapped_or_not() -> None:
    for client in (b"\1\2\3\4", bytes(10) + b"\xff\xff\1\2\3\4"):
        reply = respond(TABLE, packet(GEO), client, "udp", 0.0, 0)
        assert reply is not None
        assert reply.endswith(b"\xc0\0\2\2")


BIG = wire_name("big.gtm.test") + b"\0\x10\0\1"
HUGE = wire_name("huge.gtm.test") + b"\0\x10\0\1"


@pytest.mark.parametrize(
    ("datagram", "transport", "whole"),
    [
        (packet(BIG), "udp", False),
        (packet(BIG), "tcp", True),
        (with_opt(opt(size=4096), question=BIG), "udp", False),
        (with_opt(opt(size=0), question=BIG), "tcp", True),
        (packet(HUGE), "tcp", True),
    ],
)
def test_what_does_not_fit_is_cut_to_its_question(
    datagram: bytes, transport: Transport, whole: bool
) -> None:
    reply = sent(datagram, transport)
    assert reply is not None
    read = dns.message.from_wire(reply)
    assert bool(read.flags & dns.flags.TC) is not whole
    assert bool(read.answer) is whole
    assert len(read.question) == 1
    assert (read.edns == 0) is (b"\0\x29" in datagram)


@pytest.mark.parametrize(("client", "ours", "fits"), [
    (4096, 4096, True), (2200, 4096, True), (1232, 4096, False), (4096, 1232, False),
    (512, 4096, False), (100, 4096, False),
])  # fmt: skip
def test_the_smaller_edns_buffer_counts_but_never_less_than_512(
    client: int, ours: int, fits: bool
) -> None:
    table = compile_table(VIEW, Unplaced(), serving=Serving(udp_payload=ours))
    reply = sent(with_opt(opt(size=client), question=BIG), table=table)
    assert reply is not None
    assert len(reply) <= max(512, min(client, ours))
    assert bool(dns.message.from_wire(reply).answer) is fits
    small = sent(with_opt(opt(size=client)), table=table)
    assert small is not None
    assert not small[2] & 2


def test_a_reply_cut_short_fits_512_octets_with_every_option() -> None:
    name = (
        b"".join(b"\x3f" + b"a" * 63 for _ in range(3))
        + b"\x30"
        + b"b" * 48
        + wire_name("gtm.test")
    )
    assert len(name) <= limits.MAX_NAME
    serving = Serving(nsid="n" * limits.MAX_NSID, idle_s=1e9)
    table = heard(compile_table(VIEW, LOCATOR, serving=serving), -1e9)
    options = subnet("2001:db8:1:2:3:4:5:6/128") + raw(3) + raw(11)
    reply = respond(
        table, with_opt(opt(options, size=512), question=name + b"\0\1\0\1"), LOCAL, "udp", 0.0, 0
    )
    assert reply is not None
    assert len(reply) <= 512
    assert len(extended_error(0, "x" * 100)) == 6 + limits.MAX_EXTENDED_TEXT


@pytest.mark.parametrize("udp_payload", [511, 4097])
def test_an_edns_buffer_out_of_its_bounds_is_refused(udp_payload: int) -> None:
    with pytest.raises(ValueError, match="an EDNS buffer is 512 to 4096 octets"):
        Serving(udp_payload=udp_payload)


@pytest.mark.parametrize("stale_after_s", [-1.0, float("nan")])
def test_answers_are_stale_after_a_time_that_can_be_compared(stale_after_s: float) -> None:
    with pytest.raises(ValueError, match="stale after 0 s or more"):
        Serving(stale_after_s=stale_after_s)


def test_a_server_identifier_out_of_its_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 64 octets"):
        Serving(nsid="n" * 65)


def test_aliases_are_followed_to_a_bound() -> None:
    reply = sent(packet(wire_name("c0.gtm.test") + b"\0\1\0\1"), "tcp")
    assert reply is not None
    read = dnslib.DNSRecord.parse(reply)
    assert [str(rr.rdata) for rr in read.rr] == [
        f"c{n}.gtm.test." for n in range(1, limits.MAX_CHAIN + 2)
    ]


def test_names_are_read_through_pointers_that_go_backwards() -> None:
    message = bytes(12) + b"\4test\0" + b"\3gtm\xc0\x0c" + b"\4shop\xc0\x12"
    assert read_name(message, 24) == (b"\4shop\3gtm\4test\0", 31)
    assert name_text(wire_name("Shop.GTM.test")) == "shop.gtm.test"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (bytes(12) + b"\xc0\x0c", "backwards"),
        (bytes(12) + b"\xc0\x0e\1a\0", "backwards"),
        (bytes(12) + b"\xc0\x02", "backwards"),
        (bytes(12) + b"\1a\xc0\x0c", "backwards"),
        (bytes(12) + b"\xc0", "unknown form"),
        (bytes(12) + b"\x80a", "unknown form"),
        (bytes(12) + b"\3ab", "over the end"),
        (bytes(12) + b"\1a", "over the end"),
        (bytes(12) + LONG, "more than 255"),
    ],
)
def test_a_malformed_name_is_refused(message: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_name(message, 12)


def test_compression_pointers_are_followed_to_a_bound() -> None:
    def chained(pointers: int) -> tuple[bytes, int]:
        message, target = bytearray(bytes(12) + b"\0"), 12
        for _ in range(pointers):
            start = len(message)
            message += (0xC000 | target).to_bytes(2)
            target = start
        return bytes(message), target

    assert read_name(*chained(limits.MAX_POINTERS))[0] == b"\0"
    with pytest.raises(ValueError, match="more than 16 compression pointers"):
        read_name(*chained(limits.MAX_POINTERS + 1))


def test_a_name_with_zero_octets_in_a_label_is_a_name_like_any_other() -> None:
    query = read_query(packet(b"\3a\0B\0\0\1\0\1"))
    assert query is not None
    assert (query.rcode, query.qname) == (0, b"\3a\0b\0")


def test_a_subnet_is_filled_up_to_an_address() -> None:
    found = read_subnet(b"\0\1\x14\0\1\2\x30")
    assert found is not None
    assert found.packed == b"\1\2\x30\0"
