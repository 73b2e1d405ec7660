"""The DNS doors over real sockets: who is answered, what is bounded, what ends a connection."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest

from gtm.errors import StartError
from resolver import udp
from resolver.listener import Listener
from resolver.settings import endpoint
from resolver.tcp import TcpLimits
from resolver.udp import MAX_QUERY_BYTES

pytestmark = pytest.mark.integration

GENEROUS = TcpLimits()


def echo(query: bytes, client: bytes) -> bytes | None:
    """The query, who asked, and a mark; words in the query ask for something else."""
    if query.startswith(b"silence"):
        return None
    if query.startswith(b"huge"):
        return bytes(70_000)
    if query.startswith(b"large"):
        return bytes(60_000)
    return query + b"|" + client


@contextlib.asynccontextmanager
async def opened(
    *listen: str, limits: TcpLimits = GENEROUS
) -> AsyncIterator[tuple[Listener, list[tuple[str, int]]]]:
    listener = Listener(listen or ("127.0.0.1:0",), limits, echo, echo)
    addresses = await listener.open()
    try:
        yield listener, [endpoint(one, "listen") for one in addresses]
    finally:
        await listener.close()


async def until(condition: Callable[[], object], deadline_s: float = 5.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.002)


@pytest.fixture
def port() -> int:
    """A port free for both transports and families, out of reach of the kernel's own choices."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    stack.enter_context(socket.socket(family, kind)).bind((host, port))
            return port


class Client:
    """A connected UDP socket: the kernel drops what does not come from where it asked."""

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect((host, port))

    async def ask(self, query: bytes, timeout_s: float = 3.0) -> bytes:
        self.sock.send(query)
        return await self.hear(timeout_s)

    async def hear(self, timeout_s: float = 3.0) -> bytes:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(self.sock, 65535), timeout_s)


@contextlib.contextmanager
def client(host: str, port: int):  # type: ignore[no-untyped-def]
    one = Client(host, port)
    try:
        yield one
    finally:
        one.sock.close()


V4, V6 = socket.inet_aton("127.0.0.1"), socket.inet_pton(socket.AF_INET6, "::1")


async def test_both_families_are_answered_over_udp() -> None:
    async with opened("127.0.0.1:0", "[::1]:0") as (_, (four, six)):
        with client(*four) as one, client(*six) as two:
            assert await one.ask(b"a") == b"a|" + V4
            assert await two.ask(b"b") == b"b|" + V6


@pytest.mark.parametrize("wildcard", ["0.0.0.0:0", "[::]:0"])
async def test_on_a_wildcard_the_answer_comes_from_the_address_that_was_asked(
    wildcard: str,
) -> None:
    async with opened(wildcard) as (_, ((_, port),)):
        for host in ("127.0.0.1", "127.0.0.2", "127.8.8.8"):
            with client(host, port) as one:
                source = socket.inet_aton(one.sock.getsockname()[0])
                assert await one.ask(b"a") == b"a|" + source
        if wildcard == "[::]:0":
            with client("::1", port) as one:
                assert await one.ask(b"a") == b"a|" + V6


async def test_both_wildcards_share_a_port(port: int) -> None:
    async with opened(f"0.0.0.0:{port}", f"[::]:{port}") as (_, (four, six)):
        assert four == ("0.0.0.0", port)
        assert six == ("::", port)
        with client("127.0.0.1", port) as one, client("::1", port) as two:
            assert await one.ask(b"a") == b"a|" + V4
            assert await two.ask(b"b") == b"b|" + V6


async def test_silence_is_silence_and_the_next_is_answered() -> None:
    async with opened() as (_, (address,)):
        with client(*address) as one:
            one.sock.send(b"silence")
            assert await one.ask(b"a") == b"a|" + V4


async def test_a_burst_longer_than_a_turn_is_answered_whole() -> None:
    async with opened() as (_, (address,)):
        with client(*address) as one:
            wanted = {b"%d" % number for number in range(3 * udp.MAX_TURN)}
            for query in wanted:
                one.sock.send(query)
            got = {(await one.hear()).split(b"|")[0] for _ in wanted}
            assert got == wanted


async def test_a_query_too_large_is_dropped_and_counted() -> None:
    async with opened() as (listener, (address,)):
        with client(*address) as one:
            one.sock.send(bytes(MAX_QUERY_BYTES + 1))
            assert (await one.ask(bytes(MAX_QUERY_BYTES)))[:-5] == bytes(MAX_QUERY_BYTES)
            assert listener.doors[0].oversize() == 1


async def test_an_answer_that_cannot_be_sent_ends_nothing() -> None:
    async with opened() as (listener, (address,)):
        with client(*address) as one:
            one.sock.send(b"huge")
            assert await one.ask(b"a") == b"a|" + V4
            assert listener.doors[0].unsent() == 1


async def test_a_client_that_is_gone_ends_nothing() -> None:
    async with opened() as (_, (address,)):
        for _ in range(3):
            with client(*address) as gone:
                gone.sock.send(b"a")
        with client(*address) as one:
            assert await one.ask(b"a") == b"a|" + V4


# Opening.


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_a_port_in_use_is_one_sentence(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        transport = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
        listener = Listener((f"127.0.0.1:{port}",), GENEROUS, echo, echo)
        sentence = f"cannot listen on 127.0.0.1:{port} for DNS over {transport}: it is taken"
        with pytest.raises(StartError, match=sentence):
            listener.check()
        with pytest.raises(StartError, match=sentence):
            await listener.open()


async def test_an_address_of_another_machine_is_one_sentence() -> None:
    listener = Listener(("192.0.2.1:5300",), GENEROUS, echo, echo)
    with pytest.raises(StartError, match="this machine has no such address"):
        listener.check()


async def test_one_bad_address_opens_none(port: int) -> None:
    listener = Listener((f"127.0.0.1:{port}", "192.0.2.1:5300"), GENEROUS, echo, echo)
    with pytest.raises(StartError):
        await listener.open()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", port))


async def test_a_check_opens_nothing(port: int) -> None:
    listener = Listener((f"127.0.0.1:{port}",), GENEROUS, echo, echo)
    listener.check()
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))
        free.listen()


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1", "5300", "localhost:53", "127.0.0.1:70000", "::1:53", "[127.0.0.1]:53", "a:b"],
)
def test_what_is_no_address_is_one_sentence(text: str) -> None:
    with pytest.raises(StartError, match="not an IP address and a port") as caught:
        endpoint(text, "listen")
    assert caught.value.status == 2


async def test_the_number_of_addresses_is_bounded() -> None:
    for listen in ((), ("127.0.0.1:0",) * 65):
        with pytest.raises(StartError, match="1 to 64 addresses"):
            Listener(listen, GENEROUS, echo, echo)
