"""TCP doors over real sockets, by both responders: order, framing, and what ends a connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator

import pytest

from resolver import tcp
from resolver.tcp import TcpDoor, TcpLimits
from resolver.udp import MAX_QUERY_BYTES
from tests.doors import (
    KINDS,
    LARGE,
    SILENCE,
    V4,
    V6,
    Opened,
    connected,
    due,
    framed,
    opened,
    question,
    questions,
    until,
)

pytestmark = pytest.mark.integration

SMALL, LAST = question("small"), question("small", 0xFFFF)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which responder serves."""
    return str(request.param)


@pytest.fixture
async def doors(kind: str) -> AsyncIterator[Opened]:
    """Doors with the usual limits."""
    async with opened(kind) as doors:
        yield doors


async def test_a_connection_carries_many_queries_in_order(doors: Opened) -> None:
    async with connected(doors.address) as one:
        queries = questions(5 * tcp.MAX_TURN)
        one.writer.write(framed(*queries))
        for query in queries:
            assert await one.answer() == due(query)


async def test_the_client_is_who_it_is_by_ipv4_by_ipv6_and_by_ipv4_on_an_ipv6_socket(
    kind: str,
) -> None:
    where = question("where")
    async with opened(kind, "127.0.0.1:0", "[::1]:0") as doors:
        for address, client in zip(doors.addresses, (V4, V6), strict=True):
            async with connected(address) as one:
                assert await one.ask(where) == due(where, client)
    async with opened(kind, "[::]:0") as doors:
        for host, client in (("127.0.0.1", V4), ("::1", V6)):
            async with connected((host, doors.address[1])) as one:
                assert await one.ask(where) == due(where, client)


async def test_octets_that_come_one_by_one_make_a_query(doors: Opened) -> None:
    async with connected(doors.address) as one:
        sock = one.writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in framed(SMALL, LAST):
            one.writer.write(bytes([octet]))
            await one.writer.drain()
            await asyncio.sleep(0)
        assert await one.answer() == due(SMALL)
        assert await one.answer() == due(LAST)


async def test_an_answer_leaves_with_its_length_in_one_segment(doors: Opened) -> None:
    async with connected(doors.address) as one:
        one.writer.write(framed(SMALL))
        assert await asyncio.wait_for(one.reader.read(4096), 5) == framed(due(SMALL) or b"")


async def test_silence_keeps_the_connection(doors: Opened) -> None:
    async with connected(doors.address) as one:
        one.writer.write(framed(SILENCE, SMALL))
        assert await one.answer() == due(SMALL)
        assert doors.asked() == 2


async def test_a_client_that_has_ended_its_side_still_gets_every_answer(doors: Opened) -> None:
    async with connected(doors.address) as one:
        queries = questions(3 * tcp.MAX_TURN)
        one.writer.write(framed(*queries) + b"\0\x20the beginning of one more")
        one.writer.write_eof()
        for query in queries:
            assert await one.answer() == due(query)
        assert await one.ended()
        await until(lambda: doors.connections == 0)


@pytest.mark.parametrize("size", [0, MAX_QUERY_BYTES + 1, 65535])
async def test_a_length_that_no_query_has_ends_the_connection(doors: Opened, size: int) -> None:
    async with connected(doors.address) as one:
        one.writer.write(size.to_bytes(2))
        assert await one.ended()
        await until(lambda: doors.connections == 0)


async def test_a_query_of_the_greatest_length_is_answered(doors: Opened) -> None:
    longest = SMALL.ljust(MAX_QUERY_BYTES, b"\0")
    async with connected(doors.address) as one:
        assert await one.ask(longest) == due(longest)


async def test_a_client_that_does_not_read_is_not_read_from_and_nobody_else_waits(
    doors: Opened,
) -> None:
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, doors.address)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                batch = framed(*[LARGE] * 64)
                sent += await asyncio.wait_for(loop.sock_sendall(slow, batch), 0.3) or len(batch)
        assert sent < 16 << 20
        # What was answered waits in the kernel or in the connection: both are bounded.
        assert doors.asked() * len(due(LARGE) or b"") < 1 << 20
        assert doors.held_bytes <= 2 * tcp.MAX_OUTPUT + tcp.MAX_READ + MAX_QUERY_BYTES + 2
        streams = doors.listener.streams
        if isinstance(streams, TcpDoor):
            (held,) = streams.connections._by_birth
            assert held._transport.get_write_buffer_size() <= 2 * tcp.MAX_OUTPUT + 65535
            assert len(held._input) <= tcp.MAX_READ + MAX_QUERY_BYTES + 2
        async with connected(doors.address) as other:
            assert await other.ask(SMALL) == due(SMALL)


async def test_a_slow_reader_gets_everything_in_the_end(doors: Opened) -> None:
    async with connected(doors.address) as one:
        one.writer.write(framed(*[LARGE] * 100, LAST))
        for _ in range(100):
            assert await one.answer() == due(LARGE)
        assert await one.answer() == due(LAST)
        await until(lambda: doors.held_bytes == 0)


async def test_a_connection_without_a_whole_query_ends(kind: str) -> None:
    limits = TcpLimits(idle_s=0.2)
    async with opened(kind, limits=limits) as doors, connected(doors.address) as one:
        assert await one.ask(SMALL) == due(SMALL)
        begun = time.monotonic()
        for octet in framed(SMALL)[:-1]:  # octets alone do not keep it
            one.writer.write(bytes([octet]))
            if doors.listener.streams.expired:
                break
            await asyncio.sleep(0.05)
        assert await one.ended()
        assert time.monotonic() - begun < 2
        await until(lambda: doors.connections == 0)
        assert doors.listener.streams.expired == 1


async def test_a_busy_connection_ends_when_it_is_old(kind: str) -> None:
    limits = TcpLimits(idle_s=0.2, total_s=0.5)
    async with opened(kind, limits=limits) as doors, connected(doors.address) as one:
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while time.monotonic() - begun < 5:
                await one.ask(SMALL)
                await asyncio.sleep(0.02)
        assert 0.4 < time.monotonic() - begun < 3


async def test_a_client_has_only_so_many_connections(kind: str) -> None:
    async with opened(kind, limits=TcpLimits(per_client=2)) as doors:
        async with connected(doors.address) as one, connected(doors.address) as two:
            for stream in (one, two):
                assert await stream.ask(SMALL) == due(SMALL)
            async with connected(doors.address) as three:
                assert await three.ended()
            await until(lambda: doors.listener.streams.refused == 1)
            async with connected(doors.address, "127.0.0.2") as other:
                assert await other.ask(SMALL) == due(SMALL)
            assert await one.ask(LAST) == due(LAST)
        await until(lambda: doors.connections == 0)
        async with connected(doors.address) as again:
            assert await again.ask(SMALL) == due(SMALL)


async def test_the_limits_hold_over_all_addresses(kind: str) -> None:
    limits = TcpLimits(connections=2)
    async with opened(kind, "127.0.0.1:0", "127.0.0.2:0", limits=limits) as doors:
        first, second = doors.addresses
        async with connected(first) as one, connected(second) as two:
            for stream in (one, two):
                assert await stream.ask(SMALL) == due(SMALL)
            async with connected(second) as three:
                assert await three.ended()


async def test_the_longest_idle_connection_makes_place_for_a_new_one(kind: str) -> None:
    async with (
        opened(kind, limits=TcpLimits(connections=2)) as doors,
        connected(doors.address) as one,
        connected(doors.address) as two,
    ):
        for stream in (two, one):
            assert await stream.ask(SMALL) == due(SMALL)
        async with connected(doors.address) as early:  # nobody is idle for long enough
            assert await early.ended()
        streams, end = doors.listener.streams, time.monotonic() + 5
        while not streams.expired:
            assert time.monotonic() < end
            async with connected(doors.address) as three:
                # The other one is used all the while.
                assert await one.ask(SMALL) == due(SMALL)
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    assert await three.ask(SMALL) == due(SMALL)
            await asyncio.sleep(0.02)
        assert await two.ended()
        assert await one.ask(LAST) == due(LAST)
        assert streams.refused >= 1
        assert streams.expired == 1


async def test_closing_ends_every_connection_and_frees_the_address(
    kind: str,
) -> None:
    async with opened(kind) as doors, connected(doors.address) as one:
        assert await one.ask(SMALL) == due(SMALL)
        await doors.listener.close()
        assert await one.ended()
        assert doors.connections == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*doors.address)
        await doors.listener.close()


async def test_while_draining_nobody_is_accepted_and_those_who_are_there_are_answered(
    kind: str,
) -> None:
    async with opened(kind) as doors, connected(doors.address) as one:
        assert await one.ask(SMALL) == due(SMALL)
        await doors.listener.streams.drain(60)
        await until(lambda: _refused(doors.address))
        assert await one.ask(LAST) == due(LAST)
        one.writer.write_eof()
        assert await one.ended()
        await until(lambda: doors.connections == 0)


async def test_draining_leaves_a_socket_that_others_have_to_them(kind: str) -> None:
    async with opened(kind) as doors, connected(doors.address) as one:
        assert await one.ask(SMALL) == due(SMALL)
        heir = _listening_copy(doors.address[1])
        await doors.listener.streams.drain(60)
        async with connected(doors.address) as two:
            with heir:
                loop = asyncio.get_running_loop()
                accepted, _ = await asyncio.wait_for(loop.sock_accept(heir), 5)
                with accepted:
                    await loop.sock_sendall(accepted, framed(b"from the heir"))
                    assert await two.answer() == b"from the heir"
        assert await one.ask(LAST) == due(LAST)


async def test_the_grace_of_draining_ends(kind: str) -> None:
    async with opened(kind) as doors, connected(doors.address) as one:
        assert await one.ask(SMALL) == due(SMALL)
        await doors.listener.streams.drain(0.2)
        assert await one.ended()
        await until(lambda: doors.connections == 0)


def _refused(address: tuple[str, int]) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket() as probe:
        return probe.connect_ex(address) != 0


def _listening_copy(port: int) -> socket.socket:
    """A further descriptor of the socket of ours that listens at `port`, as an heir has it."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            copy = socket.socket(fileno=os.dup(int(name)))
            if (
                copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                and copy.getsockname()[1] == port
            ):
                return copy
            copy.close()
    raise AssertionError("nobody listens there")
