"""Probe type `dns`: one question to the target, and everything expected of the answer, in time.

The target is a DNS server (RFC 1035), authoritative or recursive: recursion is asked for, as stub
resolvers do. One question goes out in a probe, with EDNS (RFC 6891) and a buffer of 1232 octets;
over UDP a truncated answer is asked for again over TCP, as clients do (RFC 7766, section 5).

Over UDP an answer counts only where its source, port, ID and question are those of the query
(RFC 5452, section 9.1); what else comes is dropped, and the text of a time-out says how much that
was. Over TCP such an answer fails the probe. `expect_data` is looked for in the records of `qtype`
at the end of the answer's own chain of aliases; order and case of names do not matter.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from msgspec import Meta

from ._forms import QueryType
from ._wire import Datagrams, Stages, Wire
from .base import Fault, Kind, Outcome, ProbeSettings, Reason, Target, failed

MAX_DATA = 32
"""Records that a check expects."""
PAYLOAD = 1232
"""The EDNS buffer told to the server, in octets."""


class Settings(ProbeSettings, frozen=True, kw_only=True):
    """Settings of a dns check."""

    port: Annotated[int, Meta(ge=1, le=65535, description="port to ask")] = 53
    qname: Annotated[str, Meta(max_length=1004, description="name that is asked for, absolute")]
    qtype: Annotated[QueryType, Meta(description="type that is asked for")] = QueryType("A")
    expect_rcode: Annotated[
        Literal["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "NOTAUTH"],
        Meta(description="response code of a good answer"),
    ] = "NOERROR"
    expect_data: Annotated[
        tuple[str, ...],
        Meta(description="records that the answer must have among others, in zone-file form"),
    ] = ()
    transport: Annotated[Literal["udp", "tcp"], Meta(description="how the question travels")] = (
        "udp"
    )

    def __post_init__(self) -> None:
        try:
            dns.name.from_text(self.qname)
        except (dns.exception.DNSException, ValueError) as error:
            raise ValueError(f"qname {self.qname!r} is not a domain name: {error}") from None
        if not self.qname:
            raise ValueError("qname '' is not a domain name; . is the root")
        if self.expect_data and self.expect_rcode != "NOERROR":
            raise ValueError(f"expect_data can't hold with expect_rcode {self.expect_rcode}")
        if len(self.expect_data) > MAX_DATA:
            raise ValueError(f"at most {MAX_DATA} records in expect_data")
        for text in self.expect_data:
            self.record(text)

    def record(self, text: str) -> dns.rdata.Rdata:
        """`text` as data of `qtype`, relative names taken as absolute; ValueError if it isn't."""
        try:
            return dns.rdata.from_text(
                dns.rdataclass.IN, self.qtype.number, text, origin=dns.name.root, relativize=False
            )
        except (dns.exception.DNSException, ValueError, OverflowError) as error:
            said = str(error) or type(error).__name__
            raise ValueError(f"expect_data {text!r} is no data of {self.qtype}: {said}") from None


async def probe(target: Target) -> Outcome:
    """Probe once; `rtt_us` is the whole probe."""
    settings = target.settings
    assert isinstance(settings, Settings)
    stages = Stages()
    try:
        async with asyncio.timeout(target.timeout_ms / 1000):
            answer = await _ask(target, settings, stages)
        _judge(settings, answer)
    except TimeoutError:
        return failed(Reason.TIMEOUT, stages.now).outcome(0, stages.phases())
    except Fault as fault:
        return fault.outcome(0, stages.phases())
    return Outcome(Kind.SUCCESS, rtt_us=stages.elapsed_us(), phases=stages.phases())


async def _ask(target: Target, settings: Settings, stages: Stages) -> dns.message.Message:
    query = dns.message.make_query(
        dns.name.from_text(settings.qname), settings.qtype.number, use_edns=0, payload=PAYLOAD
    )
    if settings.transport == "udp":
        answer = await _by_udp(target, query, stages)
        if not answer.flags & dns.flags.TC:
            return answer
        stages.now = "connecting for the truncated answer"
    return await _by_tcp(target, query, stages)


async def _by_udp(
    target: Target, query: dns.message.Message, stages: Stages
) -> dns.message.Message:
    """The first answer that belongs to `query`; waits for ever where none comes."""
    asked = await Datagrams.connect(target.address, target.port)
    strangers = 0
    try:
        await asked.send(query.to_wire())
        stages.now = "waiting for the answer"
        while True:
            answer = _parsed(await asked.receive())
            if answer is not None and query.is_response(answer):
                stages.end("first_byte", "done")
                return answer
            strangers += 1
            stages.now = f"waiting for the answer, {strangers} dropped that did not belong"
    finally:
        asked.close()


async def _by_tcp(
    target: Target, query: dns.message.Message, stages: Stages
) -> dns.message.Message:
    """The answer on a connection of its own (RFC 1035, section 4.2.2)."""
    wire = await Wire.connect(target.address, target.port)
    try:
        stages.end("connect", "waiting for the answer")
        asked = query.to_wire()
        await wire.send(len(asked).to_bytes(2) + asked)
        data = b""
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2]):
            piece = await wire.receive()
            if not piece:
                raise failed(Reason.CLOSED, "in the middle" if data else "without an answer")
            if not data:
                stages.end("first_byte", "reading the answer")
            data += piece
    finally:
        wire.close()
    stages.end("body", "done")
    answer = _parsed(data[2 : 2 + int.from_bytes(data[:2])])
    if answer is None or not query.is_response(answer):
        raise failed(Reason.PROTOCOL, "an answer to no question of ours")
    return answer


def _parsed(data: bytes) -> dns.message.Message | None:
    try:
        return dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return None


def _judge(settings: Settings, answer: dns.message.Message) -> None:
    """Fault where the answer is not as expected."""
    rcode = dns.rcode.to_text(answer.rcode())
    if rcode != settings.expect_rcode:
        raise failed(Reason.STATUS, rcode)
    if not settings.expect_data:
        return
    assert isinstance(answer, dns.message.QueryMessage)
    try:
        records = answer.resolve_chaining().answer or ()
    except dns.exception.DNSException as error:
        raise failed(Reason.PROTOCOL, str(error)) from error
    for text in settings.expect_data:
        if settings.record(text) not in records:
            there = ", ".join(str(record) for record in records) or "nothing"
            raise failed(Reason.ANSWER, f"{text!r} is not in it but {there}")
