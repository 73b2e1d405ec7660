"""TCP streams through the door over real connections: framing, pipelining, halves, resets.

What comes back must be what the responder gives for each whole query before the first bad length,
in order and nothing else. Clients cut their streams anywhere, hang up early, or never read.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections import Counter

from msgspec import Struct

from resolver.responder import respond
from resolver.tcp import MAX_READ, Connection, Connections, TcpLimits
from resolver.udp import MAX_QUERY_BYTES
from tests.fuzz.datagrams import datagram, table

HOST = "127.0.0.1"
ANSWER_S = 20.0
"""For the end of one stream."""
DRAW = 1 << 63
_RESET = struct.pack("ii", 1, 0)
MAX_HELD = MAX_READ + MAX_QUERY_BYTES + 2
"""Octets of a client's input that a connection may hold."""


class Sent(Struct, frozen=True):
    """A stream: what is sent, where it is cut, and how the client ends it."""

    data: bytes
    cuts: tuple[int, ...]
    end: str


class Watched(Connection):
    """A connection whose turns are timed and whose input is measured."""

    worst_s = 0.0
    held = 0

    def buffer_updated(self, nbytes: int) -> None:
        """Time a turn that begins with octets."""
        Watched.held = max(Watched.held, len(self._input) + nbytes)
        super().buffer_updated(nbytes)

    def _serve(self) -> None:
        began = time.thread_time()
        super()._serve()
        Watched.worst_s = max(Watched.worst_s, time.thread_time() - began)


class Streams:
    """One open door; `async with Streams() as streams:`."""

    name = "streams"

    def __init__(self) -> None:
        self._table = table()

    async def __aenter__(self) -> Streams:
        limits = TcpLimits(connections=64, per_client=64, idle_s=5.0, total_s=10.0)
        self.connections = Connections(limits, self._answer)
        loop = asyncio.get_running_loop()
        self._sweeping = asyncio.create_task(self.connections.sweeping())
        self._server = await loop.create_server(lambda: Watched(self.connections), HOST, 0)
        self._port = self._server.sockets[0].getsockname()[1]
        loop.set_exception_handler(self._unexpected)
        self._failed: list[str] = []
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._sweeping.cancel()
        self.connections.close()
        await self._server.wait_closed()
        assert not len(self.connections), "connections that were never forgotten"

    def _unexpected(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        self._failed.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _answer(self, query: bytes, client: bytes) -> bytes | None:
        return respond(self._table, query, client, "tcp", 0.0, DRAW)

    def make(self, dice: random.Random) -> Sent:
        """Queries in a row, some with lengths that lie."""
        parts: list[bytes] = []
        for _ in range(dice.choice((0, 1, 1, 2, 3, 5, 10, 80))):
            data = datagram(dice)
            size = len(data)
            if dice.random() < 0.05:
                size = dice.choice((0, size + 1, max(0, size - 1), MAX_QUERY_BYTES, 4097, 65535))
            parts.append(struct.pack("!H", size) + data)
        data = b"".join(parts)
        if dice.random() < 0.2:
            data = data[: dice.randint(0, len(data))]
        if dice.random() < 0.05:
            data += dice.randbytes(dice.randint(1, 3000))
        cuts = sorted(dice.randint(0, len(data)) for _ in range(dice.choice((0, 0, 0, 1, 2, 8))))
        return Sent(
            data, tuple(cuts), dice.choice(("half", "half", "half", "half", "reset", "deaf"))
        )

    async def feed(self, given: Sent, counts: Counter[str]) -> float:
        """Send the stream and compare what comes back; the longest turn that it took."""
        Watched.worst_s = 0.0
        async with asyncio.timeout(ANSWER_S):
            got, whole = await self._exchange(given)
        expected, good, queries = self._expected(given.data)
        if given.end == "half" and good:
            assert whole, "the connection was broken off"
            assert got == expected, f"{len(got)} octets came, {len(expected)} were due"
        else:
            assert expected.startswith(got), "octets came that were not due"
        assert not self._failed, self._failed
        assert Watched.held <= MAX_HELD, f"{Watched.held} octets of one client were held"
        counts[f"ended by {given.end}"] += 1
        counts["whole queries"] += queries
        counts["bad lengths"] += not good
        counts["octets answered"] += len(got)
        return Watched.worst_s

    def limit_s(self, given: Sent) -> float:
        """One turn answers at most 64 queries."""
        return 0.1

    def _expected(self, data: bytes) -> tuple[bytes, bool, int]:
        """The answers due, whether no length was bad, and how many queries were whole."""
        replies, at, queries = [], 0, 0
        client = socket.inet_aton(HOST)
        while len(data) - at >= 2:
            size = int.from_bytes(data[at : at + 2], "big")
            if not 0 < size <= MAX_QUERY_BYTES:
                return b"".join(replies), False, queries
            if len(data) - at - 2 < size:
                break
            reply = self._answer(data[at + 2 : at + 2 + size], client)
            if reply is not None:
                replies.append(struct.pack("!H", len(reply)) + reply)
            at += 2 + size
            queries += 1
        return b"".join(replies), True, queries

    async def _exchange(self, given: Sent) -> tuple[bytes, bool]:
        """What came back, and whether it ended in order."""
        reader, writer = await asyncio.open_connection(HOST, self._port, limit=1 << 22)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # leaves no TIME_WAIT
        receiving = None if given.end == "deaf" else asyncio.ensure_future(_all(reader))
        try:
            for start, end in zip((0, *given.cuts), (*given.cuts, len(given.data)), strict=True):
                if writer.is_closing():
                    break
                writer.write(given.data[start:end])
                await asyncio.sleep(0)
            if given.end == "half" and receiving is not None:
                with contextlib.suppress(OSError):  # reset by the door, for a bad length
                    writer.write_eof()
                return await receiving
            return b"", False
        finally:
            writer.transport.abort()
            if receiving is not None:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)


async def _all(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    got = []
    try:
        while part := await reader.read(1 << 16):
            got.append(part)
    except ConnectionError:
        return b"".join(got), False
    return b"".join(got), True
