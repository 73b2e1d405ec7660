"""Whatever arrives, the responder answers in bounded size or keeps silent, and never raises."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.name
import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.compiler import compile_table
from resolver.limits import MAX_TCP
from resolver.message import name_text, read_name, wire_name
from resolver.place import Place
from resolver.responder import respond
from resolver.table import Serving, heard
from tests.worlds import LOCAL, Map, instance, pool, records, world

pytestmark = pytest.mark.usefixtures("each_responder")

TABLE = heard(
    compile_table(
        world(
            records={
                "gtm.test": records(
                    ("www", "CNAME", ["shop"]),
                    ("big", "TXT", [f'"{n:0200}"' for n in range(30)]),
                    ("sub", "NS", ["ns.sub"]),
                    ("ns.sub", "A", ["192.0.2.53"]),
                    ("*.wild", "MX", ["10 www"]),
                    ("moved", "DNAME", ["wild"]),
                )
            },
            pools={"a": pool("192.0.2.1", "192.0.2.2", "192.0.2.3"), "b": pool("2001:db8::1")},
            instances={
                "shop": instance(
                    ("n", ["network:10.0.0.0/9"], [["b"]]),
                    ("c", ["country:CN"], [["a"]]),
                    ("w", ["default"], [["a", "b"]]),
                    access_names=["shop.gtm.test"],
                )
            },
        ),
        Map({"1": Place(country="CN")}),
        serving=Serving(nsid="r1", version="v1"),
    ),
    0.0,
)
NAMES = ["shop", "www", "big", "x.sub", "sub", "y.wild", "z.moved", "moved", "no", ""]
names = st.sampled_from([f"{name}.gtm.test".lstrip(".") for name in NAMES] + ["example.org", "."])
kinds = st.sampled_from(["A", "AAAA", "MX", "TXT", "ANY", "SOA", "NS", "DS", "CNAME", "TYPE4711"])
draws = st.integers(0, 2**64 - 1)


@st.composite
def queries(draw: st.DrawFn) -> bytes:
    """A query as dnspython makes it."""
    options = []
    if draw(st.booleans()):
        options.append(dns.edns.ECSOption("10.1.2.0", draw(st.sampled_from([8, 16, 24]))))
    if draw(st.booleans()):
        options.append(dns.edns.GenericOption(draw(st.integers(0, 20)), draw(st.binary())))
    query = dns.message.make_query(
        draw(names),
        draw(kinds),
        rdclass=draw(st.sampled_from(["IN", "IN", "IN", "CH"])),
        use_edns=draw(st.sampled_from([0, None])),
        options=options or None,
        payload=draw(st.integers(0, 65535)),
        want_dnssec=draw(st.booleans()),
    )
    return query.to_wire()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A query with a few octets changed, cut out or put in."""
    data = bytearray(draw(queries()))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from("scp"))
        if how == "s" and position < len(data):
            data[position] = draw(st.integers(0, 255))
        elif how == "c":
            del data[position : position + draw(st.integers(1, 8))]
        else:
            data[position:position] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


def bounded(datagram: bytes, draw: int) -> None:
    """Check what holds for every datagram."""
    for transport, limit in (("udp", 4096), ("tcp", MAX_TCP)):
        reply = respond(TABLE, datagram, LOCAL, transport, 0.0, draw)
        if reply is None:
            assert len(datagram) < 12 or datagram[2] & 0x80
            continue
        assert 12 <= len(reply) <= limit
        assert reply[:2] == datagram[:2]
        assert reply[2] & 0x80
        assert reply[2] & 0x79 == datagram[2] & 0x79
        if reply[4:6] == b"\0\1":
            end = 12 + len(read_name(reply, 12)[0]) + 4
            assert reply[12:end] == datagram[12:end]


@settings(deadline=None)
@given(st.binary(max_size=600), draws)
def test_random_octets_are_survived(datagram: bytes, draw: int) -> None:
    bounded(datagram, draw)


@settings(max_examples=300, deadline=None)
@given(mutated(), draws)
def test_broken_queries_are_survived(datagram: bytes, draw: int) -> None:
    bounded(datagram, draw)


@settings(max_examples=200, deadline=None)
@given(queries(), draws, st.sampled_from([b"\1\2\3\4", b"\x0a\1\2\3", bytes(16)]))
def test_two_strangers_read_the_same_in_every_reply(
    datagram: bytes, draw: int, client: bytes
) -> None:
    for transport in ("udp", "tcp"):
        reply = respond(TABLE, datagram, client, transport, 0.0, draw)
        assert reply is not None
        first, second = dns.message.from_wire(reply), dnslib.DNSRecord.parse(reply)
        assert first.id == second.header.id
        assert int(first.rcode()) & 15 == second.header.rcode
        counted = sum(len(rrset) for rrset in first.answer)
        assert counted == len(second.rr)
        if transport == "udp" and not first.flags & dns.flags.TC:
            assert len(reply) <= max(512, first.payload if first.edns >= 0 else 0)
        assert respond(TABLE, datagram, client, transport, 0.0, draw) == reply


labels = st.lists(st.binary(min_size=1, max_size=63), max_size=5)


@settings(deadline=None)
@given(labels)
def test_a_name_read_is_the_name_that_dnspython_wrote(parts: list[bytes]) -> None:
    name = (
        dns.name.Name([*parts, b""]) if sum(map(len, parts)) + len(parts) < 255 else dns.name.root
    )
    wire = name.to_wire()
    assert read_name(bytes(12) + wire, 12) == (wire, 12 + len(wire))
    assert dns.name.from_text(name_text(wire)) == name


@settings(deadline=None)
@given(st.lists(st.from_regex(r"[a-zA-Z0-9_-]{1,63}", fullmatch=True), max_size=3))
def test_a_plain_name_is_written_as_dnspython_writes_it(parts: list[str]) -> None:
    text = ".".join(parts) or "."
    assert wire_name(text) == dns.name.from_text(text).to_digestable()
