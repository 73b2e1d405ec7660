"""DNS over TCP (RFC 7766): pipelined queries, answers in order, everything bounded.

Decides how long a connection lives, how many there are and how much one may make us do or hold at
once. A connection is over after `idle_s` without a whole query, after `total_s` in any case, or
when its peer sends what can't be a query; slow readers stop being read from.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import cast

from msgspec import Struct

from .udp import MAX_QUERY_BYTES, Answer, packed

MAX_TURN = 64
"""Queries of one connection that are answered before the others get their turn."""
MAX_OUTPUT = 64 << 10
"""Bytes of answers that wait for a slow client; beyond it no further query of it is answered."""
MAX_READ = 16 << 10
"""Bytes read at once, and so (with one query's beginning) all that is held of a client's input."""
SEND_BUFFER = 128 << 10
"""Bytes of answers that the kernel may hold for one slow client (it counts them twice)."""
BACKLOG = 256
"""Connections that wait to be accepted."""
SWEEP_S = 0.25
"""How often idle connections are looked for."""
LINGER_S = 1.0
"""For clients to read their last answers when all connections are ended."""
RECLAIM_S = 1.0
"""A connection idle for so long makes place for a new one when there are too many."""


class TcpLimits(Struct, frozen=True, kw_only=True):
    """Connections in all and of one client (an IPv4 address, an IPv6 /64); times in seconds."""

    connections: int = 1024
    per_client: int = 32
    idle_s: float = 10.0
    total_s: float = 300.0


class Connections:
    """Every TCP connection of a resolver, over all its addresses, and when each has to go."""

    def __init__(
        self, limits: TcpLimits, answer: Answer, clock: Callable[[], float] | None = None
    ) -> None:
        self.limits, self.answer = limits, answer
        self.buffer = memoryview(bytearray(MAX_READ))
        """Where every connection reads into: what was read is taken out at once."""
        self.refused = 0
        """Connections closed at once because there were too many."""
        self.expired = 0
        """Connections ended for being idle or old."""
        self._clock = clock or asyncio.get_running_loop().time
        self._by_use: OrderedDict[Connection, float] = OrderedDict()
        self._by_birth: OrderedDict[Connection, float] = OrderedDict()
        self._clients: dict[bytes, int] = {}
        self._none_left = asyncio.Event()

    def __len__(self) -> int:
        return len(self._by_birth)

    def admit(self, connection: Connection) -> bool:
        """Count a new connection in, unless there are too many; may end the one idle longest."""
        now = self._clock()
        if self._clients.get(connection.client, 0) >= self.limits.per_client:
            self.refused += 1
            return False
        if len(self._by_birth) >= self.limits.connections and not self._reclaim(now):
            self.refused += 1
            return False
        self._by_use[connection] = self._by_birth[connection] = now
        self._clients[connection.client] = self._clients.get(connection.client, 0) + 1
        return True

    def used(self, connection: Connection) -> None:
        """Note a whole query."""
        self._by_use[connection] = self._clock()
        self._by_use.move_to_end(connection)

    def forget(self, connection: Connection) -> None:
        """Count an ended connection out; once for each admitted one."""
        if self._by_birth.pop(connection, None) is None:
            return
        del self._by_use[connection]
        if not self._by_birth:
            self._none_left.set()
        left = self._clients[connection.client] - 1
        if left:
            self._clients[connection.client] = left
        else:
            del self._clients[connection.client]

    def sweep(self) -> None:
        """End every connection whose time is over."""
        now = self._clock()
        for order, allowed_s in (
            (self._by_use, self.limits.idle_s),
            (self._by_birth, self.limits.total_s),
        ):
            while order:
                connection, since = next(iter(order.items()))
                if now - since < allowed_s:
                    break
                self._end(connection)

    async def sweeping(self) -> None:
        """Sweep for ever."""
        while True:
            await asyncio.sleep(min(SWEEP_S, self.limits.idle_s / 4))
            self.sweep()

    async def drain(self, grace_s: float) -> None:
        """Wait for the end of all connections; those that are left after `grace_s` are ended.

        They are answered what they asked so far, and told that no more will come.
        """
        await self._gone_within(grace_s)
        for connection in tuple(self._by_birth):
            connection.leave()
        await self._gone_within(LINGER_S)
        self.close()

    async def _gone_within(self, seconds: float) -> None:
        self._none_left.clear()
        if self._by_birth:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._none_left.wait()

    def close(self) -> None:
        """End every connection."""
        for connection in tuple(self._by_birth):
            self.forget(connection)
            connection.end()

    def _reclaim(self, now: float) -> bool:
        connection, since = next(iter(self._by_use.items()))
        if now - since < RECLAIM_S:
            return False
        self._end(connection)
        return True

    def _end(self, connection: Connection) -> None:
        self.expired += 1
        self.forget(connection)
        connection.end()


class Connection(asyncio.BufferedProtocol):
    """One connection: two-byte lengths off the stream, answers back in the order of the queries."""

    def __init__(self, all_: Connections) -> None:
        self.client = b""
        self._all = all_
        self._source = b""
        self._input = bytearray()
        self._writable = True
        self._ending = self._leaving = False
        self._again: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer is None:  # gone before we looked
            self._transport.abort()
            return
        self._source = packed(peer[0])
        self.client = self._source if len(self._source) == 4 else self._source[:8]
        if not self._all.admit(self):
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=MAX_OUTPUT)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read into."""
        return self._all.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came and answer what is whole."""
        if self._leaving:
            return  # it has been told that nothing more is answered
        self._input += self._all.buffer[:nbytes]
        if self._again is None and self._writable:
            self._serve()
        else:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client is done asking; it may still read: answer what is left, then end."""
        if self._leaving:
            return False
        self._ending = True
        if self._again is None and self._writable:
            self._serve()
        return True

    def pause_writing(self) -> None:
        """The client reads slower than it asks."""
        self._writable = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable = True
        if self._again is None:
            self._serve()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, by whomever."""
        self.end()
        self._all.forget(self)

    def end(self) -> None:
        """Drop the connection and whatever it waits for."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._input.clear()
        self._transport.abort()

    def leave(self) -> None:
        """Answer no more than what came so far, say so (FIN), and let the client read it."""
        if self._transport.is_closing() or self._ending or self._leaving:
            return
        while self._again is not None:  # what came is answered; it is bounded
            self._again.cancel()
            self._serve()
        if self._transport.is_closing():
            return
        self._leaving = True
        self._input.clear()
        self._transport.write_eof()
        self._transport.resume_reading()  # else what still comes would reset the connection

    def _serve(self) -> None:
        """Answer up to `MAX_TURN` whole queries; the rest after everybody else had a turn."""
        self._again = None
        if self._transport.is_closing():
            return
        replies: list[bytes] = []
        taken, held, at, data = 0, 0, 0, self._input
        while taken < MAX_TURN and held < MAX_OUTPUT and len(data) - at >= 2:
            size = data[at] << 8 | data[at + 1]
            if not 0 < size <= MAX_QUERY_BYTES:
                self.end()
                return
            if len(data) - at - 2 < size:
                break
            reply = self._all.answer(bytes(data[at + 2 : at + 2 + size]), self._source)
            at += 2 + size
            taken += 1
            if reply is not None:
                replies += (len(reply).to_bytes(2, "big"), reply)
                held += len(reply)
        del data[:at]
        if taken:
            self._all.used(self)
        if replies:
            self._transport.write(b"".join(replies))
        self._go_on(more=taken == MAX_TURN or held >= MAX_OUTPUT)

    def _go_on(self, *, more: bool) -> None:
        if not self._writable:
            return
        if more:
            self._transport.pause_reading()
            self._again = asyncio.get_running_loop().call_soon(self._serve)
        elif self._ending:
            self._transport.close()
        else:
            self._transport.resume_reading()


class TcpDoor:
    """Serves every address over TCP, on the running loop."""

    def __init__(self, limits: TcpLimits, answer: Answer) -> None:
        self.connections = Connections(limits, answer)
        self._sockets: Sequence[socket.socket] = ()
        self._servers: list[asyncio.Server] = []
        self._draining: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self.connections)

    @property
    def refused(self) -> int:
        """Connections closed at once because there were too many."""
        return self.connections.refused

    @property
    def expired(self) -> int:
        """Connections ended for being idle or old."""
        return self.connections.expired

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that it accepts from."""
        return self._sockets

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to accept from bound sockets, which are ours from then on. Raises OSError."""
        self._sockets = sockets
        loop = asyncio.get_running_loop()
        for sock in sockets:
            server = await loop.create_server(
                lambda: Connection(self.connections), sock=sock, backlog=BACKLOG
            )
            self._servers.append(server)
        self._sweeping = loop.create_task(self.connections.sweeping())

    async def drain(self, grace_s: float) -> None:
        """Accept nothing more; connections live on, for `grace_s` at most, then are ended."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            with contextlib.suppress(RuntimeError):  # a loop that accepts by other means
                loop.remove_reader(sock.fileno())
        await asyncio.sleep(0)  # what was accepted in this turn becomes a connection
        self._stop_accepting()
        self._draining = loop.create_task(self.connections.drain(grace_s))

    async def close(self) -> None:
        """Accept nothing more and end every connection; twice is as good as once."""
        for task in (self._sweeping, self._draining):
            if task is not None:
                task.cancel()
        self._stop_accepting()
        self.connections.close()

    def _stop_accepting(self) -> None:
        servers, self._servers, self._sockets = self._servers, [], ()
        for server in servers:
            server.close()


def bound(family: socket.AddressFamily, host: str, port: int, *, v6_only: bool) -> socket.socket:
    """A TCP socket at `host`:`port`, not yet listening. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What is accepted inherits it; else the kernel would hold megabytes for each.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6_only)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock
