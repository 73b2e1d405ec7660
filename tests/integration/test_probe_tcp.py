"""The probe tcp against real servers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
import trustme

from agent.probes import tcp
from agent.probes.base import Kind, Outcome, Reason, Target, read_settings

pytestmark = pytest.mark.integration

Streams = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(
    behave: Streams, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """A server with this behaviour on a free port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behave(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, host, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def target(port: int, address: str = "127.0.0.1", timeout: int = 2000, **options: object) -> Target:
    text = msgspec.json.encode(options).decode()
    settings = read_settings(tcp.Settings, text, port)
    return Target("c", address, port, "tcp", text, 15_000, timeout, settings=settings)


def head(outcome: Outcome) -> tuple[Kind, Reason]:
    return outcome.kind, outcome.reason


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.com ESMTP\r\n")
    await writer.drain()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)


async def mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def bye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in b"22" * 100 + b"0 ready":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.001)
    await asyncio.sleep(3)


async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 1000)
        await writer.drain()
        await asyncio.sleep(0)  # the probe shares this loop


CASES = [
    (mute, {}, Reason.NONE, ""),
    (greet, {"expect": "220 "}, Reason.NONE, ""),
    (greet, {"expect": {"regex": r"^220 \S+ ESMTP"}}, Reason.NONE, ""),
    (greet, {"expect": "221"}, Reason.ANSWER, "220 mail"),
    (echo, {"send": "PING\r\n", "expect": "PING"}, Reason.NONE, ""),
    (drip, {"expect": "0 ready"}, Reason.NONE, ""),
    (bye, {"expect": "220"}, Reason.ANSWER, "closed without one"),
    (mute, {"expect": "220"}, Reason.TIMEOUT, "waiting for the answer"),
    (flood, {"expect": "220"}, Reason.ANSWER, "not in the first 65536 bytes"),
    (mute, {"tls": True}, Reason.TIMEOUT, "in the TLS handshake"),
    (greet, {"tls": True}, Reason.TLS, ""),
]


@pytest.mark.parametrize(("behave", "options", "reason", "detail"), CASES)
async def test_a_connection_is_judged_by_its_expectations(
    behave: Streams, options: dict[str, object], reason: Reason, detail: str
) -> None:
    async with serving(behave) as port:
        timeout = 400 if reason is Reason.TIMEOUT else 5000
        outcome = await tcp.probe(target(port, timeout=timeout, **options))
    assert outcome.reason is reason, outcome
    assert detail in outcome.detail
    assert outcome.kind is (Kind.FAILURE if reason else Kind.SUCCESS)
    assert outcome.phases is not None
    assert outcome.phases.connect_us > 0


async def test_ipv6_is_probed_like_ipv4() -> None:
    async with serving(greet, host="::1") as port:
        assert (await tcp.probe(target(port, "::1", expect="220"))).kind is Kind.SUCCESS


async def test_tls_takes_any_certificate() -> None:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("nobody.test").configure_cert(made)
    async with serving(greet, made) as port:
        outcome = await tcp.probe(target(port, tls=True, expect="220"))
    assert outcome.kind is Kind.SUCCESS, outcome
    assert outcome.phases is not None
    assert outcome.phases.tls_us > 0


async def test_nobody_listening_is_refused_and_a_full_backlog_times_out() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        outcome = await tcp.probe(target(closed.getsockname()[1]))
    assert outcome.text == "refused"
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # nobody accepts
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(full.getsockname())
        late = await tcp.probe(target(full.getsockname()[1], timeout=200))
    assert late.text == "timeout: connecting"


async def test_an_agent_without_free_files_has_no_opinion() -> None:
    async with serving(mute) as port:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = socket.socket()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno() + 1, hard))
            outcome = await tcp.probe(target(port))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            lowest.close()
    assert head(outcome) == (Kind.NO_OPINION, Reason.RESOURCES), outcome


INABILITY = [
    (errno.EMFILE, Kind.NO_OPINION),
    (errno.ENOBUFS, Kind.NO_OPINION),
    (errno.EPERM, Kind.NO_OPINION),
    (errno.EACCES, Kind.NO_OPINION),
    (errno.EADDRNOTAVAIL, Kind.NO_OPINION),
    (errno.EBADF, Kind.NO_OPINION),  # whatever stands in no table
    (errno.ECONNREFUSED, Kind.FAILURE),
    (errno.ETIMEDOUT, Kind.FAILURE),
    (errno.EHOSTUNREACH, Kind.FAILURE),
    (errno.ECONNRESET, Kind.FAILURE),
]


@pytest.mark.parametrize(("number", "kind"), INABILITY)
async def test_what_this_machine_cannot_do_is_never_held_against_a_target(
    number: int, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise OSError(number, errno.errorcode[number])

    monkeypatch.setattr("agent.probes._wire.connected", broken)
    outcome = await tcp.probe(target(9))
    assert outcome.kind is kind
    assert outcome.reason is not Reason.NONE


@pytest.mark.parametrize(
    ("route", "expected"),
    [(False, (Kind.NO_OPINION, Reason.NO_ROUTE)), (True, (Kind.FAILURE, Reason.UNREACHABLE))],
)
async def test_an_unreachable_network_is_the_agents_trouble_where_it_has_no_route_at_all(
    route: bool, expected: tuple[Kind, Reason], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr("agent.probes.base.has_route", lambda _: route)
    monkeypatch.setattr("agent.probes._wire.connected", broken)
    assert head(await tcp.probe(target(9))) == expected
