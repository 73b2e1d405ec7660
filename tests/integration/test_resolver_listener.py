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
from resolver import tcp, udp
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


# TCP.


def framed(*queries: bytes) -> bytes:
    return b"".join(len(query).to_bytes(2, "big") + query for query in queries)


class Stream:
    """A TCP client with deadlines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> bytes:
        size = int.from_bytes(await asyncio.wait_for(self.reader.readexactly(2), 5), "big")
        return await asyncio.wait_for(self.reader.readexactly(size), 5)

    async def ended(self) -> bool:
        """Whether the server ended the connection without a further answer."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 5) == b""
        except ConnectionResetError:
            return True


@contextlib.asynccontextmanager
async def connected(address: tuple[str, int]) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield Stream(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_connection_carries_many_queries_in_order() -> None:
    async with opened("[::1]:0") as (_, (address,)), connected(address) as one:
        queries = [b"%d" % number for number in range(5 * tcp.MAX_TURN)]
        one.writer.write(framed(*queries))
        for query in queries:
            assert await one.answer() == query + b"|" + V6


async def test_bytes_that_come_one_by_one_make_a_query() -> None:
    async with opened() as (_, (address,)), connected(address) as one:
        sock = one.writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed(b"abc", b"d"):
            one.writer.write(bytes([byte]))
            await one.writer.drain()
            await asyncio.sleep(0)
        assert await one.answer() == b"abc|" + V4
        assert await one.answer() == b"d|" + V4


async def test_an_answer_leaves_with_its_length_in_one_segment() -> None:
    async with opened() as (_, (address,)), connected(address) as one:
        one.writer.write(framed(b"abc"))
        assert await asyncio.wait_for(one.reader.read(4096), 5) == framed(b"abc|" + V4)


async def test_silence_over_tcp_keeps_the_connection() -> None:
    async with opened() as (_, (address,)), connected(address) as one:
        one.writer.write(framed(b"silence", b"a"))
        assert await one.answer() == b"a|" + V4


async def test_a_client_that_has_ended_its_side_still_gets_every_answer() -> None:
    async with opened() as (listener, (address,)), connected(address) as one:
        queries = [b"%d" % number for number in range(3 * tcp.MAX_TURN)]
        one.writer.write(framed(*queries))
        one.writer.write_eof()
        for query in queries:
            assert await one.answer() == query + b"|" + V4
        assert await one.ended()
        await until(lambda: len(listener.connections) == 0)


@pytest.mark.parametrize("size", [0, MAX_QUERY_BYTES + 1, 65535])
async def test_a_length_that_no_query_has_ends_the_connection(size: int) -> None:
    async with opened() as (listener, (address,)), connected(address) as one:
        one.writer.write(size.to_bytes(2, "big"))
        assert await one.ended()
        await until(lambda: len(listener.connections) == 0)


async def test_a_client_that_does_not_read_is_not_read_from_and_nobody_else_waits() -> None:
    async with opened() as (listener, (address,)):
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, address)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += await asyncio.wait_for(
                    loop.sock_sendall(slow, framed(*[b"large"] * 64)), 0.3
                ) or len(framed(*[b"large"] * 64))
        assert sent < 8 << 20
        (held,) = listener.connections._by_birth
        assert held._transport.get_write_buffer_size() <= 2 * tcp.MAX_OUTPUT + 65535
        assert len(held._input) <= tcp.MAX_READ + MAX_QUERY_BYTES + 2
        async with connected(address) as other:
            other.writer.write(framed(b"a"))
            assert await other.answer() == b"a|" + V4
        slow.close()


async def test_a_slow_reader_gets_everything_in_the_end() -> None:
    async with opened() as (_, (address,)), connected(address) as one:
        one.writer.write(framed(*[b"large"] * 100, b"last"))
        for _ in range(100):
            assert len(await one.answer()) == 60_000
        assert await one.answer() == b"last|" + V4


async def test_a_connection_without_a_whole_query_ends() -> None:
    limits = TcpLimits(idle_s=0.2)
    async with opened(limits=limits) as (listener, (address,)), connected(address) as one:
        one.writer.write(framed(b"a"))
        assert await one.answer() == b"a|" + V4
        begun = time.monotonic()
        for byte in framed(b"never whole")[:-1]:  # bytes alone do not keep it
            one.writer.write(bytes([byte]))
            if listener.connections.expired:
                break
            await asyncio.sleep(0.05)
        assert await one.ended()
        assert time.monotonic() - begun < 2
        assert listener.connections.expired == 1
        assert len(listener.connections) == 0


async def test_a_busy_connection_ends_when_it_is_old() -> None:
    limits = TcpLimits(idle_s=0.2, total_s=0.5)
    async with opened(limits=limits) as (_, (address,)), connected(address) as one:
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while time.monotonic() - begun < 5:
                one.writer.write(framed(b"a"))
                await one.answer()
                await asyncio.sleep(0.02)
        assert 0.4 < time.monotonic() - begun < 3


async def test_a_client_has_only_so_many_connections() -> None:
    limits = TcpLimits(per_client=2)
    async with opened(limits=limits) as (listener, (address,)):
        async with connected(address) as one, connected(address) as two:
            for stream in (one, two):
                stream.writer.write(framed(b"a"))
                assert await stream.answer() == b"a|" + V4
            async with connected(address) as three:
                assert await three.ended()
            assert listener.connections.refused == 1
            one.writer.write(framed(b"b"))
            assert await one.answer() == b"b|" + V4
        await until(lambda: len(listener.connections) == 0)
        assert listener.connections._clients == {}
        async with connected(address) as again:
            again.writer.write(framed(b"a"))
            assert await again.answer() == b"a|" + V4


async def test_the_longest_idle_connection_makes_place_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = TcpLimits(connections=2)
    async with (
        opened(limits=limits) as (listener, (address,)),
        connected(address) as one,
        connected(address) as two,
    ):
        for stream in (two, one):
            stream.writer.write(framed(b"a"))
            await stream.answer()
        async with connected(address) as refused:  # nobody is idle for long enough
            assert await refused.ended()
        monkeypatch.setattr(tcp, "RECLAIM_S", 0.0)
        async with connected(address) as three:
            three.writer.write(framed(b"a"))
            assert await three.answer() == b"a|" + V4
            assert await two.ended()
            one.writer.write(framed(b"b"))
            assert await one.answer() == b"b|" + V4
        assert (listener.connections.refused, listener.connections.expired) == (1, 1)


async def test_closing_ends_every_connection() -> None:
    async with opened() as (listener, (address,)), connected(address) as one:
        one.writer.write(framed(b"a"))
        await one.answer()
        await listener.close()
        assert await one.ended()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)


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
