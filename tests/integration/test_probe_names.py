"""Targets that are names: resolved by a real DNS server each round, probed at real origins."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from agent.guard import Guard
from agent.named import by_name, chosen, each, together
from agent.probes import http, icmp, tcp
from agent.probes.base import Kind, Outcome, Reason, Target, read_settings
from gtm.names import Addresses, Names, Unresolved
from tests.name_server import NameServer, name_server

pytestmark = pytest.mark.integration
TYPES = {"tcp": tcp.Settings, "http": http.Settings, "ping": icmp.Settings}
BOTH = ("ipv4", "ipv6")


@contextlib.asynccontextmanager
async def origin(*hosts: str, heard: list[bytes] | None = None) -> AsyncIterator[int]:
    """An HTTP origin on one free port of each host."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            head = await reader.readuntil(b"\r\n\r\n")
            if heard is not None:
                heard.append(head)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    first = await asyncio.start_server(handle, hosts[0], 0)
    port = first.sockets[0].getsockname()[1]
    servers = [first, *[await asyncio.start_server(handle, host, port) for host in hosts[1:]]]
    try:
        yield port
    finally:
        for server in servers:
            server.close()


async def probe(
    server: NameServer,
    name: str,
    port: int,
    type_: str = "tcp",
    timeout: int = 2000,
    ip_version: int = 0,
    all_addresses: bool = False,
    deny: tuple[str, ...] = (),
    **options: object,
) -> Outcome:
    """One round on a target as an agent with --resolver does it."""
    text = msgspec.json.encode(options).decode()
    settings = read_settings(TYPES[type_], text, port)
    target = Target(
        "c", name, port, type_, text, 15_000, timeout,
        settings=settings, ip_version=ip_version, all_addresses=all_addresses,
    )  # fmt: skip
    made = by_name(Names(server.address), Guard(deny))(target)
    assert made is not None
    return await made(target)


@pytest.mark.parametrize("type_", ["tcp", "http"])
async def test_a_name_is_up_when_one_of_its_addresses_answers(type_: str) -> None:
    async with name_server() as server, origin("127.0.0.3") as port:
        server.rows["app.test"] = ["A 127.0.0.2", "A 127.0.0.3"]
        outcome = await probe(server, "app.test", port, type_)
    assert outcome.kind is Kind.SUCCESS
    assert outcome.phases is not None
    assert outcome.phases.dns_us > 0
    assert outcome.phases.connect_us > 0
    assert outcome.rtt_us > outcome.phases.dns_us
    assert sorted(server.asked) == ["app.test A", "app.test AAAA"]


async def test_a_name_is_down_when_none_of_its_addresses_answers() -> None:
    async with name_server() as server, origin("127.0.0.1") as port:
        server.rows["app.test"] = ["A 127.0.0.2", "A 127.0.0.3"]
        outcome = await probe(server, "app.test", port)
    assert (outcome.kind, outcome.reason) == (Kind.FAILURE, Reason.REFUSED)
    assert outcome.text == "refused: 127.0.0.2"


@pytest.mark.parametrize(
    ("rows", "kind", "text"),
    [
        # denied alone, beside one that answers, beside one that does not
        (["A 127.0.0.3"], Kind.NO_OPINION, "agent denies the address: 127.0.0.3"),
        (["A 127.0.0.3", "A 127.0.0.4"], Kind.SUCCESS, ""),
        (["A 127.0.0.2", "A 127.0.0.3"], Kind.NO_OPINION, "agent denies the address: 127.0.0.3"),
        (["A 169.254.169.254"], Kind.NO_OPINION, "agent denies the address: 169.254.169.254"),
        (["AAAA fe80::1"], Kind.NO_OPINION, "agent denies the address: fe80::1: link-local"),
    ],
)
async def test_an_address_that_the_agent_denies_is_not_probed_whatever_name_leads_to_it(
    rows: list[str], kind: Kind, text: str
) -> None:
    async with name_server() as server, origin("127.0.0.3", "127.0.0.4") as port:
        server.rows["app.test"] = rows
        outcome = await probe(server, "app.test", port, deny=("127.0.0.3/32",))
    assert outcome.kind is kind
    assert outcome.text.startswith(text)


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (["A 127.0.0.2", "A 127.0.0.3"], Kind.FAILURE),
        (["A 127.0.0.3"], Kind.SUCCESS),
        (["A 127.0.0.3", "A 127.0.0.4"], Kind.SUCCESS),
    ],
)
async def test_all_addresses_of_a_name_must_answer_where_the_check_says_so(
    rows: list[str], kind: Kind
) -> None:
    async with name_server() as server, origin("127.0.0.3", "127.0.0.4") as port:
        server.rows["app.test"] = rows
        outcome = await probe(server, "app.test", port, all_addresses=True)
    assert outcome.kind is kind
    if kind is Kind.FAILURE:
        assert outcome.text == "refused: 127.0.0.2"


def test_an_address_without_a_route_says_nothing_beside_others_of_a_name() -> None:
    fine = Outcome(Kind.SUCCESS, rtt_us=5)
    nowhere = Outcome(Kind.NO_OPINION, Reason.NO_ROUTE)
    unable = Outcome(Kind.NO_OPINION, Reason.STALLED, "late")
    assert each([("a", fine), ("b", nowhere)]) == fine
    assert each([("b", nowhere)]) == nowhere
    assert each([("a", fine), ("b", replace(fine, rtt_us=9))]).rtt_us == 9
    assert each([("a", fine), ("b", unable)]).detail == "b late"


async def test_an_alias_is_followed_and_each_round_resolves_again() -> None:
    async with name_server() as server, origin("127.0.0.2") as port:
        server.rows["cdn.test"] = ["A 127.0.0.2"]
        server.rows["app.test"] = ["CNAME cdn.test."]
        assert (await probe(server, "app.test", port)).kind is Kind.SUCCESS
        server.rows["cdn.test"] = ["A 127.0.0.9"]
        assert (await probe(server, "app.test", port)).kind is Kind.FAILURE


async def test_a_truncated_answer_is_asked_for_by_tcp() -> None:
    async with name_server() as server, origin("127.0.0.1") as port:
        server.truncating = True
        server.rows["app.test"] = ["A 127.0.0.1"]
        assert (await probe(server, "app.test", port, ip_version=4)).kind is Kind.SUCCESS
    assert server.asked == ["app.test A", "app.test A"]


@pytest.mark.parametrize(
    ("version", "kind"), [(4, Kind.SUCCESS), (6, Kind.FAILURE), (0, Kind.SUCCESS)]
)
async def test_the_ip_version_says_which_addresses_are_probed(version: int, kind: Kind) -> None:
    async with name_server() as server, origin("127.0.0.1") as port:
        server.rows["app.test"] = ["A 127.0.0.1"]
        outcome = await probe(server, "app.test", port, ip_version=version)
    assert outcome.kind is kind
    wanted = {4: ["app.test A"], 6: ["app.test AAAA"], 0: ["app.test A", "app.test AAAA"]}
    assert sorted(server.asked) == wanted[version]
    assert outcome.text == ("dns: no address" if kind is Kind.FAILURE else "")


async def test_the_name_is_the_host_that_is_asked_for() -> None:
    heard: list[bytes] = []
    async with name_server() as server, origin("127.0.0.1", heard=heard) as port:
        server.rows["app.test"] = ["A 127.0.0.1"]
        assert (await probe(server, "app.test", port, "http")).kind is Kind.SUCCESS
        assert (await probe(server, "app.test", port, "http", host="x.test")).kind is Kind.SUCCESS
    hosts = [line for head in heard for line in head.split(b"\r\n") if line[:5].lower() == b"host:"]
    assert [host.split(b" ", 1)[1].decode() for host in hosts] == [f"app.test:{port}", "x.test"]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (None, "dns: NXDOMAIN"),
        ("SERVFAIL", "dns: SERVFAIL"),
        ("REFUSED", "dns: REFUSED"),
        ("silent", "dns: no answer in time"),
        (["TXT x"], "dns: no address"),
    ],
)
async def test_a_name_without_an_answer_fails_with_the_reason(
    rows: list[str] | str | None, text: str
) -> None:
    async with name_server() as server:
        if rows is not None:
            server.rows["app.test"] = rows
        outcome = await probe(server, "app.test", 9, timeout=400)
    assert (outcome.kind, outcome.text) == (Kind.FAILURE, text)


async def test_without_any_server_that_answers_there_is_no_opinion() -> None:
    async with name_server() as server:
        server.rows |= {"app.test": "silent", ".": "silent"}
        silent = await probe(server, "app.test", 9, timeout=300)
    gone = await probe(server, "app.test", 9, timeout=300)
    for outcome in (silent, gone):
        assert (outcome.kind, outcome.reason) == (Kind.NO_OPINION, Reason.DNS_SERVER)


async def test_a_round_keeps_the_checks_timeout() -> None:
    quiet = socket.socket()
    with quiet:
        quiet.bind(("127.0.0.1", 0))
        quiet.listen(0)
        port = quiet.getsockname()[1]
        async with name_server() as server:
            server.rows["app.test"] = ["A 127.0.0.1", "AAAA ::1"]
            begun = asyncio.get_running_loop().time()
            outcome = await probe(server, "app.test", port, timeout=400, expect="never")
            took_s = asyncio.get_running_loop().time() - begun
    assert outcome.kind is Kind.FAILURE
    assert outcome.reason in (Reason.TIMEOUT, Reason.REFUSED)
    assert took_s < 0.4 + 0.25


def test_at_most_four_addresses_are_probed_the_families_in_turn() -> None:
    four = ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5")
    assert chosen(Addresses(four, (), 60)) == four[:4]
    assert chosen(Addresses(four, ("2001:db8::1",), 60)) == (
        "192.0.2.1",
        "2001:db8::1",
        "192.0.2.2",
        "192.0.2.3",
    )


REFUSED = Outcome(Kind.FAILURE, Reason.REFUSED)
NO_ROUTE = Outcome(Kind.NO_OPINION, Reason.NO_ROUTE)
BUSY = Outcome(Kind.NO_OPINION, Reason.RESOURCES)


@pytest.mark.parametrize(
    ("ends", "kind"),
    [
        ([REFUSED, REFUSED], Kind.FAILURE),
        ([REFUSED, NO_ROUTE], Kind.FAILURE),
        ([REFUSED, BUSY], Kind.NO_OPINION),
        ([NO_ROUTE, NO_ROUTE], Kind.NO_OPINION),
    ],
)
def test_an_address_that_could_not_be_probed_may_have_answered(
    ends: list[Outcome], kind: Kind
) -> None:
    assert together([(f"192.0.2.{n}", one) for n, one in enumerate(ends)]).kind is kind


async def test_the_systems_servers_are_those_of_resolv_conf(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    with pytest.raises(Unresolved, match="names no DNS server") as refused:
        await Names(conf=conf).resolve("app.test", BOTH, 0.2)
    assert refused.value.mute
    conf.write_text("search test\nnameserver 127.0.0.1\nnameserver nonsense\nnameserver ::1\n")
    assert Names(conf=conf)._servers() == [("127.0.0.1", 53), ("::1", 53)]


@pytest.mark.parametrize("text", ["127.0.0.1", "dns.test:53", "::1:53", "127.0.0.1:0"])
def test_a_server_is_an_address_and_a_port(text: str) -> None:
    with pytest.raises(ValueError, match="ADDRESS:PORT"):
        Names(text)


async def test_the_second_server_answers_when_the_first_does_not() -> None:
    async with name_server() as broken, name_server() as well:
        broken.rows["app.test"] = "SERVFAIL"
        well.rows["app.test"] = ["A 192.0.2.2", "A 192.0.2.1"]
        names = Names()
        names._servers = lambda: [("127.0.0.1", broken.port), ("127.0.0.1", well.port)]  # type: ignore[method-assign]
        found = await names.resolve("app.test", ("ipv4",), 1.0)
    assert found == Addresses(("192.0.2.1", "192.0.2.2"), (), 60)
