"""The probe dns against Knot and BIND, and against servers that lie, truncate or stay silent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import dns.message
import dns.rcode
import dns.rrset
import msgspec
import pytest

from agent.guard import Guard
from agent.named import by_name
from agent.probes import dns as probing
from agent.probes.base import Kind, Outcome, Reason, Target, read_settings
from gtm.names import Names
from tests.conformance import servers
from tests.conformance.zones import NAMES
from tests.name_server import name_server

pytestmark = pytest.mark.integration


def target(port: int, address: str = "127.0.0.1", timeout: int = 2000, **options: object) -> Target:
    text = msgspec.json.encode(options).decode()
    settings = read_settings(probing.Settings, text, port)
    return Target("c", address, port, "dns", text, 15_000, timeout, settings=settings)


def head(outcome: Outcome) -> tuple[Kind, Reason]:
    return outcome.kind, outcome.reason


# ---- servers of others -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["knot", "bind"])
def stranger(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of Knot or BIND with the zones of the conformance tests."""
    if missing := servers.missing():
        pytest.skip(f"missing on this machine: {', '.join(missing)}")
    start: Any = getattr(servers, request.param)
    serials = dict.fromkeys(NAMES, 1)
    with start(tmp_path_factory.mktemp(request.param) / "server", serials) as server:
        yield server.port


CASES: list[tuple[dict[str, object], str]] = [
    ({"qname": "www.conf.test"}, ""),
    ({"qname": "WWW.Conf.Test.", "expect_data": ["192.0.2.80"]}, ""),
    ({"qname": "www.conf.test", "expect_data": ["192.0.2.81"]}, "unexpected answer"),
    ({"qname": "conf.test", "expect_data": ["192.0.2.2", "192.0.2.1"]}, ""),
    ({"qname": "conf.test", "expect_data": ["192.0.2.2", "192.0.2.9"]}, "unexpected answer"),
    ({"qname": "www.conf.test", "qtype": "aaaa", "expect_data": ["2001:DB8:0::80"]}, ""),
    ({"qname": "conf.test", "qtype": "MX", "expect_data": ["20 mail2.sub.CONF.test"]}, ""),
    ({"qname": "conf.test", "qtype": "TXT", "expect_data": ['"v=spf1 -all" "two strings"']}, ""),
    ({"qname": "conf.test", "qtype": "TXT", "expect_data": ["v=spf1"]}, "unexpected answer"),
    ({"qname": "missing.conf.test"}, "status: NXDOMAIN"),
    ({"qname": "missing.conf.test", "expect_rcode": "NXDOMAIN"}, ""),
    ({"qname": "www.conf.test", "expect_rcode": "NXDOMAIN"}, "status: NOERROR"),
    ({"qname": "www.elsewhere.example", "expect_rcode": "REFUSED"}, ""),
    ({"qname": "www.elsewhere.example"}, "status: REFUSED"),
    ({"qname": "www.conf.test", "qtype": "SRV"}, ""),
    (
        {"qname": "www.conf.test", "qtype": "SRV", "expect_data": ["0 0 1 a."]},
        "unexpected answer: '0 0 1 a.' is not in it but nothing",
    ),
]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(("options", "text"), CASES)
async def test_an_answer_is_judged_by_its_expectations(
    stranger: int, options: dict[str, object], text: str, transport: str
) -> None:
    outcome = await probing.probe(target(stranger, transport=transport, **options))
    assert outcome.text.startswith(text), outcome
    assert outcome.kind is (Kind.FAILURE if text else Kind.SUCCESS), outcome
    assert outcome.phases is not None
    assert outcome.phases.first_byte_us > 0
    assert (outcome.phases.connect_us > 0) is (transport == "tcp")


# ---- servers that misbehave --------------------------------------------------------------------

Lie = Callable[[dns.message.Message], bytes]
GOOD = "192.0.2.1"


def reply(query: dns.message.Message) -> dns.message.Message:
    made = dns.message.make_response(query)
    question = query.question[0]
    made.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", GOOD))
    return made


def good(query: dns.message.Message) -> bytes:
    return reply(query).to_wire()


def other_id(query: dns.message.Message) -> bytes:
    made = reply(query)
    made.id = query.id ^ 1
    return made.to_wire()


def other_question(query: dns.message.Message) -> bytes:
    made = reply(dns.message.make_query("other.test", "A"))
    made.id = query.id
    return made.to_wire()


def question_again(query: dns.message.Message) -> bytes:
    return query.to_wire()


def garbage(query: dns.message.Message) -> bytes:
    return query.to_wire()[:2] + b"\x84\x00" + b"\xff" * 40


class Liar(asyncio.DatagramProtocol):
    """Says each of `lies` to every query; with `elsewhere` from a port that was not asked."""

    def __init__(self, lies: list[Lie], elsewhere: bool) -> None:
        self.lies, self.elsewhere = lies, elsewhere

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, source: Any) -> None:
        query = dns.message.from_wire(data)
        for lie in self.lies:
            if self.elsewhere:
                with socket.socket(type=socket.SOCK_DGRAM) as other:
                    other.bind(("127.0.0.1", 0))
                    other.sendto(lie(query), source)
            else:
                self.transport.sendto(lie(query), source)


@contextlib.asynccontextmanager
async def lying(*lies: Lie, elsewhere: bool = False) -> AsyncIterator[int]:
    """A server on UDP, and on TCP with the same port where it lies once."""

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        for lie in lies:
            data = lie(dns.message.from_wire(query))
            writer.write(len(data).to_bytes(2) + data)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(stream, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Liar(list(lies), elsewhere), local_addr=("127.0.0.1", port)
    )
    try:
        yield port
    finally:
        transport.close()
        listener.close()


LIES = [other_id, other_question, question_again, garbage]


@pytest.mark.parametrize("lie", LIES)
async def test_over_udp_what_does_not_belong_is_dropped_and_the_true_answer_awaited(
    lie: Lie,
) -> None:
    async with lying(lie, lie, good) as port:
        outcome = await probing.probe(target(port, qname="x.test", expect_data=[GOOD]))
    assert outcome.kind is Kind.SUCCESS, outcome
    async with lying(lie, lie) as port:
        outcome = await probing.probe(target(port, qname="x.test", timeout=300))
    assert outcome.text == "timeout: waiting for the answer, 2 dropped that did not belong"


@pytest.mark.parametrize("lie", LIES)
async def test_over_tcp_what_does_not_belong_is_a_protocol_error(lie: Lie) -> None:
    async with lying(lie) as port:
        outcome = await probing.probe(target(port, qname="x.test", transport="tcp"))
    assert head(outcome) == (Kind.FAILURE, Reason.PROTOCOL)


async def test_an_answer_from_another_source_is_none() -> None:
    async with lying(good, elsewhere=True) as port:
        outcome = await probing.probe(target(port, qname="x.test", timeout=300))
    assert outcome.text == "timeout: waiting for the answer"


async def test_nobody_listening_is_refused_over_either_transport() -> None:
    port = servers.free_port()
    for transport in ("udp", "tcp"):
        outcome = await probing.probe(target(port, qname="x.test", transport=transport))
        assert head(outcome) == (Kind.FAILURE, Reason.REFUSED), transport


async def test_a_truncated_answer_is_asked_for_by_tcp() -> None:
    async with name_server() as server:
        server.truncating = True
        server.rows["x.test"] = ["A 192.0.2.7"]
        one = target(server.port, qname="x.test", expect_data=["192.0.2.7"])
        outcome = await probing.probe(one)
    assert outcome.kind is Kind.SUCCESS, outcome
    assert server.asked == ["x.test A", "x.test A"]


async def test_expected_data_stands_at_the_end_of_the_chain_of_aliases() -> None:
    async with name_server() as server:
        server.rows["x.test"] = ["CNAME y.test."]
        server.rows["y.test"] = ["A 192.0.2.7"]
        good = await probing.probe(target(server.port, qname="x.test", expect_data=["192.0.2.7"]))
        bad = await probing.probe(target(server.port, qname="x.test", expect_data=["192.0.2.8"]))
    assert good.kind is Kind.SUCCESS, good
    assert bad.text == "unexpected answer: '192.0.2.8' is not in it but 192.0.2.7"


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
async def test_a_server_in_trouble_says_so(rcode: str) -> None:
    async with name_server() as server:
        server.rows["x.test"] = rcode
        outcome = await probing.probe(target(server.port, qname="x.test"))
    assert outcome.text == f"status: {rcode}"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_silence_is_a_time_out(transport: str) -> None:
    async with name_server() as server:
        server.rows["x.test"] = "silent"
        one = target(server.port, qname="x.test", transport=transport, timeout=300)
        began = asyncio.get_running_loop().time()
        outcome = await probing.probe(one)
        took_s = asyncio.get_running_loop().time() - began
    if transport == "udp":
        assert outcome.text == "timeout: waiting for the answer"
        assert 0.29 <= took_s < 1
    else:  # the server of the tests hangs up
        assert outcome.text == "closed early: without an answer"


async def test_ipv6_is_asked_like_ipv4() -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Liar([good], False), local_addr=("::1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    outcome = await probing.probe(target(port, "::1", qname="x.test", expect_data=[GOOD]))
    transport.close()
    assert outcome.kind is Kind.SUCCESS, outcome


async def test_a_member_that_is_a_name_is_resolved_and_then_asked() -> None:
    async with name_server() as server, lying(good) as port:
        server.rows["ns.test"] = ["A 127.0.0.1"]
        one = target(port, "ns.test", qname="x.test", expect_data=[GOOD])
        probe = by_name(Names(server.address), Guard())(one)
        assert probe is not None
        outcome = await probe(one)
    assert outcome.kind is Kind.SUCCESS, outcome
    assert server.asked[0].startswith("ns.test")
