"""A small world behind open DNS doors, by the reference responder or the native one.

What the tests of the doors ask and what is due for it: replies that depend on no draw.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from msgspec import Struct

from gtm.model import ClientLine
from resolver.cells import OUTCOMES, TCP
from resolver.compiler import compile_table
from resolver.listener import Listener
from resolver.loader import native
from resolver.message import wire_name
from resolver.native import NativeResponder, NativeStreams
from resolver.place import Unplaced
from resolver.responder import Transport, respond
from resolver.settings import endpoint
from resolver.table import AnswerTable, Serving
from resolver.tcp import TcpLimits
from tests.worlds import instance, pool, records, world

KINDS = ("reference", "native") if native() is not None else ("reference",)
"""The responders that can be asked here."""
GENEROUS = TcpLimits()
V4, V6 = socket.inet_aton("127.0.0.1"), socket.inet_pton(socket.AF_INET6, "::1")

_TEXT = '"' + 250 * "x" + '"'
_STATIC = records(
    ("small", "A", ["192.0.2.1"]),
    ("large", "TXT", [" ".join([f'"{number:05}"', *[_TEXT] * 9]) for number in range(26)]),
)


def _table() -> AnswerTable:
    view = world(
        records={"gtm.test": _STATIC},
        pools={"four": pool("192.0.2.4"), "six": pool("192.0.2.6")},
        lines={
            "four": ClientLine(networks=("127.0.0.1/32",)),
            "six": ClientLine(networks=("::1/128",)),
        },
        instances={
            "where": instance(
                ("four", ["four"], [["four"]]),
                ("six", ["six"], [["six"]]),
                access_names=["where.gtm.test"],
            )
        },
    )
    return compile_table(view, Unplaced())


TABLE = _table()
"""small.gtm.test, large.gtm.test (about 60,000 octets), where.gtm.test (by who asks)."""


def question(name: str, number: int = 0, rtype: int = 1) -> bytes:
    """The query with the ID `number` for a name in gtm.test."""
    header = number.to_bytes(2) + b"\0\0\0\1\0\0\0\0\0\0"
    return header + wire_name(f"{name}.gtm.test") + rtype.to_bytes(2) + b"\0\1"


def questions(count: int) -> list[bytes]:
    """Different queries."""
    return [question("small", number) for number in range(count)]


LARGE = question("large", rtype=16)
SILENCE = b"\0\0\x80" + question("small")[3:]
"""A response: nobody answers it."""


def due(query: bytes, client: bytes = V4, transport: Transport = "tcp") -> bytes | None:
    """The reply that a query deserves."""
    return respond(TABLE, query, client, transport, 0.0, 0)


def framed(*queries: bytes) -> bytes:
    """Queries, or replies, as they stand in a stream."""
    return b"".join(len(query).to_bytes(2) + query for query in queries)


class Opened(Struct):
    """Open doors, their addresses, and how many queries came over TCP."""

    listener: Listener
    addresses: list[tuple[str, int]]
    asked: Callable[[], int]

    @property
    def address(self) -> tuple[str, int]:
        """The first address."""
        return self.addresses[0]

    @property
    def connections(self) -> int:
        """TCP connections at present."""
        return len(self.listener.streams)

    @property
    def held_bytes(self) -> int:
        """What the native responder holds for all connections; 0 for the reference."""
        streams = self.listener.streams
        return streams.held_bytes if isinstance(streams, NativeStreams) else 0


@contextlib.asynccontextmanager
async def opened(kind: str, *listen: str, limits: TcpLimits = GENEROUS) -> AsyncIterator[Opened]:
    """Doors of one of `KINDS` at `listen`, by default at a port of 127.0.0.1."""
    asked = 0

    def over_udp(query: bytes, client: bytes) -> bytes | None:
        return due(query, client, "udp")

    def over_tcp(query: bytes, client: bytes) -> bytes | None:
        nonlocal asked
        asked += 1
        return due(query, client)

    where = listen or ("127.0.0.1:0",)
    module = native() if kind == "native" else None
    with contextlib.ExitStack() as stack:
        if module is None:
            listener = Listener(where, limits, over_udp, over_tcp)
        else:
            responder = NativeResponder(module, Serving())
            responder.put(TABLE)
            stack.callback(responder.close)
            listener = Listener(
                where, limits, over_udp, over_tcp, responder.door, 1, responder.streams(limits)
            )
        addresses = [endpoint(one, "listen") for one in await listener.open()]
        try:
            yield Opened(
                listener,
                addresses,
                (lambda: asked)
                if module is None
                else (lambda: sum(responder.counted(TCP, OUTCOMES))),
            )
        finally:
            await listener.close()


class Stream:
    """A TCP client with deadlines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, query: bytes) -> bytes:
        """The next reply, after a query."""
        self.writer.write(framed(query))
        return await self.answer()

    async def answer(self) -> bytes:
        """The next reply."""
        size = int.from_bytes(await asyncio.wait_for(self.reader.readexactly(2), 5))
        return await asyncio.wait_for(self.reader.readexactly(size), 5)

    async def ended(self) -> bool:
        """Whether the server ended the connection without a further answer."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 5) == b""
        except ConnectionResetError:
            return True


@contextlib.asynccontextmanager
async def connected(address: tuple[str, int], source: str = "") -> AsyncIterator[Stream]:
    """A client, from the address `source` if that is given."""
    local = (source, 0) if source else None
    reader, writer = await asyncio.open_connection(*address, local_addr=local)
    try:
        yield Stream(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until(condition: Callable[[], object], deadline_s: float = 5.0) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.002)


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
