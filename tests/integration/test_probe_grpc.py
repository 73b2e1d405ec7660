"""The probe grpc against grpcio's own health server, and against servers that are none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import grpc.aio
import msgspec
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from agent.guard import Guard
from agent.named import by_name
from agent.probes import grpc as probing
from agent.probes.base import Kind, Outcome, Reason, Target, read_settings
from gtm.names import Names
from tests.name_server import name_server

pytestmark = pytest.mark.integration

Status = health_pb2.HealthCheckResponse
SERVICES = {
    "": Status.SERVING,
    "shop.v1.Cart": Status.SERVING,
    "shop.v1.Stock": Status.NOT_SERVING,
    "shop.v1.New": Status.UNKNOWN,
}


@contextlib.asynccontextmanager
async def serving(
    tls: trustme.LeafCert | None = None, host: str = "127.0.0.1", healthy: bool = True
) -> AsyncIterator[int]:
    """A gRPC server with SERVICES, without a health service where it is not `healthy`."""
    server = grpc.aio.server()
    if healthy:
        servicer = health.aio.HealthServicer()
        for name, status in SERVICES.items():
            await servicer.set(name, status)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    place = f"[{host}]:0" if ":" in host else f"{host}:0"
    if tls is None:
        port = server.add_insecure_port(place)
    else:
        chain = b"".join(pem.bytes() for pem in tls.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([(tls.private_key_pem.bytes(), chain)])
        port = server.add_secure_port(place, credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def target(port: int, address: str = "127.0.0.1", timeout: int = 2000, **options: object) -> Target:
    text = msgspec.json.encode(options).decode()
    settings = read_settings(probing.Settings, text, port)
    return Target("c", address, port, "grpc", text, 15_000, timeout, settings=settings)


def head(outcome: Outcome) -> tuple[Kind, Reason]:
    return outcome.kind, outcome.reason


CASES = [
    ("", ""),
    ("shop.v1.Cart", ""),
    ("shop.v1.Stock", "status: NOT_SERVING"),
    ("shop.v1.New", "status: UNKNOWN"),
    ("shop.v1.None", "status: NOT_FOUND"),
]


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(("service", "text"), CASES)
async def test_a_service_is_up_when_it_is_serving(service: str, text: str, secure: bool) -> None:
    leaf = trustme.CA().issue_cert("nobody.test") if secure else None
    async with serving(leaf) as port:
        outcome = await probing.probe(target(port, service=service, tls=secure))
    assert outcome.text == text
    assert outcome.kind is (Kind.FAILURE if text else Kind.SUCCESS)
    assert outcome.phases is not None
    assert outcome.phases.connect_us > 0
    assert outcome.phases.first_byte_us > 0
    assert (outcome.phases.tls_us > 0) is secure


async def test_ipv6_is_probed_like_ipv4() -> None:
    async with serving(host="::1") as port:
        assert (await probing.probe(target(port, "::1"))).kind is Kind.SUCCESS


async def test_a_server_without_the_health_service_is_down() -> None:
    async with serving(healthy=False) as port:
        outcome = await probing.probe(target(port))
    assert head(outcome) == (Kind.FAILURE, Reason.STATUS)
    assert outcome.detail.startswith("UNIMPLEMENTED")


async def test_plain_and_tls_do_not_mix() -> None:
    async with serving() as port:
        outcome = await probing.probe(target(port, tls=True))
    assert outcome.kind is Kind.FAILURE
    assert outcome.reason in (Reason.TLS, Reason.RESET, Reason.CLOSED), outcome
    async with serving(trustme.CA().issue_cert("nobody.test")) as port:
        outcome = await probing.probe(target(port))
    assert outcome.kind is Kind.FAILURE
    assert outcome.reason in (Reason.RESET, Reason.CLOSED, Reason.PROTOCOL), outcome


async def http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(b"HTTP/1.1 505 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()


async def bye(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(10)


async def mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(-1)


STRANGERS = [
    (http1, (Reason.PROTOCOL, Reason.CLOSED)),
    (bye, (Reason.CLOSED, Reason.RESET)),
    (mute, (Reason.TIMEOUT,)),
]


@pytest.mark.parametrize(("behave", "reasons"), STRANGERS)
async def test_a_server_that_speaks_something_else_is_down(
    behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    reasons: tuple[Reason, ...],
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await behave(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    timeout = 300 if Reason.TIMEOUT in reasons else 2000
    outcome = await probing.probe(target(server.sockets[0].getsockname()[1], timeout=timeout))
    server.close()
    assert outcome.kind is Kind.FAILURE
    assert outcome.reason in reasons, outcome


@pytest.mark.parametrize("body", [b"", b"\0\0\0", b"\1\0\0\0\2\x08\1", b"\0\0\0\0\2\x08"])
async def test_an_answer_that_is_no_health_message_is_a_protocol_error(body: bytes) -> None:
    async def handler(_request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return body

    method = grpc.unary_unary_rpc_method_handler(handler)  # puts its own, good head before `body`
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        outcome = await probing.probe(target(port))
    finally:
        await server.stop(None)
    assert outcome.kind is Kind.FAILURE
    assert outcome.reason in (Reason.PROTOCOL, Reason.STATUS), outcome


async def test_a_member_that_is_a_name_is_asked_for_by_it() -> None:
    async with name_server() as server, serving() as port:
        server.rows["app.test"] = ["A 127.0.0.1"]
        one = target(port, "app.test", service="shop.v1.Cart")
        probe = by_name(Names(server.address), Guard())(one)
        assert probe is not None
        outcome = await probe(one)
    assert outcome.kind is Kind.SUCCESS, outcome
    assert outcome.phases is not None
    assert outcome.phases.dns_us > 0
