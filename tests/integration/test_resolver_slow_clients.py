"""Crowds of slow TCP clients, by both responders: nobody else notices, and memory is bounded.

`GTM_CROWD` says how many connections a crowd has; `make slow-clients` takes 10,000.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from resolver import tcp
from resolver.tcp import TcpLimits
from resolver.udp import MAX_QUERY_BYTES
from tests.doors import (
    KINDS,
    LARGE,
    Opened,
    connected,
    descriptors,
    due,
    framed,
    opened,
    question,
    resident_bytes,
    until,
)

pytestmark = pytest.mark.integration

CROWD = int(os.environ.get("GTM_CROWD", "1000"))
SETTLED_S = 60.0
"""For a crowd to be there."""
HALF = framed(question("small"))[:9]
"""Half a query."""
SPARE = 500
"""Descriptors for everything else in a process."""
OF_ONE = {"native": 4 << 10, "reference": 16 << 10}
"""Bytes of memory that a connection with half a query may cost, at the very most."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which responder serves."""
    return str(request.param)


@pytest.fixture(autouse=True)
def enough_descriptors() -> Iterator[None]:
    """As many descriptors as a crowd needs, here and in its process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + SPARE
    assert hard == resource.RLIM_INFINITY or hard >= wanted, f"ulimit -Hn {wanted} is needed"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """A crowd in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def open(self) -> int:
        """How many of its connections are open, once all were tried."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), SETTLED_S)
        return int(line.split()[0])


@contextlib.asynccontextmanager
async def crowd(
    doors: Opened, *, count: int = CROWD, sources: int = 1, words: bytes = b"", drip: bool = False
) -> AsyncIterator[Crowd]:
    """`count` clients of the first address; they are all gone behind it."""
    host, port = doors.address
    options = [f"--count={count}", f"--sources={sources}", f"--words={words.hex()}"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crowd", host, str(port), *options, *["--drip"] * drip,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Crowd(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), SETTLED_S)


class Others:
    """Clients with manners, over UDP and over TCP, who ask all the while."""

    def __init__(self, doors: Opened) -> None:
        self._doors, self.answered, self.over = doors, 0, False

    async def ask(self) -> None:
        """Ask over both, one query after the other, each answered within its time."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(self._doors.address)
            async with connected(self._doors.address, "127.0.0.9") as stream:
                while not self.over:
                    query = question("small", self.answered & 0xFFFF)
                    sock.send(query)
                    over_udp = asyncio.get_running_loop().sock_recv(sock, 512)
                    assert await asyncio.wait_for(over_udp, 3) == due(query, transport="udp")
                    assert await stream.ask(query) == due(query)
                    self.answered += 1
                    await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def unaffected(doors: Opened) -> AsyncIterator[Others]:
    """Others ask meanwhile, and miss no answer."""
    others = Others(doors)
    asking = asyncio.create_task(others.ask())
    await until(lambda: others.answered or asking.done())
    try:
        yield others
        enough = others.answered + 3
        await until(lambda: others.answered >= enough or asking.done())
    finally:
        others.over = True
        await asking


async def a_new_client_is_answered(doors: Opened) -> None:
    """Within a few attempts, as clients do."""
    end, query = time.monotonic() + 10, question("small", 7)
    while time.monotonic() < end:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            async with connected(doors.address, "127.0.0.8") as one:
                assert await one.ask(query) == due(query)
                return
        await asyncio.sleep(0.05)
    raise AssertionError("a new client found no place")


async def test_of_a_crowd_from_one_address_only_so_many_are_admitted(kind: str) -> None:
    before = descriptors()
    async with opened(kind) as doors, unaffected(doors):
        begun = descriptors()
        async with crowd(doors) as many:
            await many.open()
            streams, limits = doors.listener.streams, TcpLimits()
            # Those who find the queue of the kernel full come late, or never.
            await until(lambda: streams.refused >= CROWD // 2, SETTLED_S)
            await until(lambda: doors.connections == limits.per_client + 1)
            await a_new_client_is_answered(doors)
        await until(lambda: doors.connections == 1)
        await until(lambda: descriptors() == begun)
    await until(lambda: descriptors() == before)


async def test_a_crowd_from_many_addresses_takes_the_places_there_are_and_gives_them_back(
    kind: str,
) -> None:
    limits = TcpLimits(connections=min(1024, CROWD // 2))
    async with opened(kind, limits=limits) as doors, unaffected(doors):
        begun = descriptors()
        async with crowd(doors, sources=400, words=HALF) as many:
            await many.open()
            assert doors.connections <= limits.connections
            await a_new_client_is_answered(doors)
            assert doors.listener.streams.refused + doors.listener.streams.expired > 0
        await until(lambda: doors.connections == 1)
        await until(lambda: descriptors() == begun)


async def test_half_a_query_costs_little_and_its_time_ends(kind: str) -> None:
    limits = TcpLimits(connections=CROWD + 10, per_client=CROWD, idle_s=60.0)
    async with opened(kind, limits=limits) as doors, unaffected(doors):
        begun, memory = descriptors(), resident_bytes()
        async with crowd(doors, words=HALF) as many:
            assert await many.open() == CROWD
            await until(lambda: doors.connections == CROWD + 1)
            assert descriptors() >= begun + CROWD
            assert (resident_bytes() - memory) / CROWD < OF_ONE[kind]
            assert doors.held_bytes <= CROWD * 2 * len(HALF)
        await until(lambda: doors.connections == 1)
        await until(lambda: descriptors() == begun)
        assert doors.held_bytes == 0


async def test_one_octet_a_second_keeps_no_connection(kind: str) -> None:
    limits = TcpLimits(connections=CROWD + 10, per_client=CROWD, idle_s=2.5)
    async with opened(kind, limits=limits) as doors, unaffected(doors):
        begun = descriptors()
        async with crowd(doors, words=HALF, drip=True) as many:
            await many.open()
            await until(lambda: doors.listener.streams.expired == CROWD, 10)
            await until(lambda: doors.connections == 1)  # told after what ended them
            await until(lambda: descriptors() <= begun + 5)


async def test_those_who_ask_for_much_and_read_nothing_hold_little(kind: str) -> None:
    count = min(CROWD, 200)
    limits = TcpLimits(connections=CROWD + 10, per_client=CROWD, idle_s=2.0)
    words = framed(*[LARGE] * 40)
    async with opened(kind, limits=limits) as doors, unaffected(doors):
        async with crowd(doors, count=count, words=words) as many:
            assert await many.open() == count
            each = 2 * tcp.MAX_OUTPUT + tcp.MAX_READ + MAX_QUERY_BYTES
            assert doors.held_bytes <= count * each
            await until(lambda: doors.listener.streams.expired == count, 10)
        await until(lambda: doors.held_bytes == 0)


async def test_without_descriptors_nobody_is_accepted_nothing_spins_and_it_passes(
    kind: str,
) -> None:
    async with opened(kind) as doors, unaffected(doors):
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # it tells of each
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with crowd(doors, count=100, sources=100, words=HALF) as many:
            # Descriptors are given by number, the least first: so many are left.
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 20, hard))
            try:
                await many.open()
                begun, used = time.monotonic(), time.process_time()
                await asyncio.sleep(0.5)
                spent = (time.process_time() - used) / (time.monotonic() - begun)
                assert doors.connections < 100
                assert spent < 0.6
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await a_new_client_is_answered(doors)
