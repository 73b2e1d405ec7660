"""The DNS doors of a resolver: every address over UDP and TCP, on IPv4 and IPv6.

Decides which sockets are needed and says in one sentence why one can't be had. What is answered is
not known here: queries go to the functions that are handed in.
"""

from __future__ import annotations

import asyncio
import errno
import socket

from gtm.errors import StartError

from . import tcp, udp
from .settings import endpoint, shown
from .tcp import Connection, Connections, TcpLimits
from .udp import Answer, UdpDoor

MAX_ADDRESSES = 64
"""Addresses that one resolver listens on."""
SAME_PORT_TRIES = 32
"""Attempts to find one free port for both transports, where port 0 asks for any."""

_WHY = {
    errno.EADDRINUSE: "it is taken; stop what uses it or choose another with --listen",
    errno.EACCES: "no permission; give CAP_NET_BIND_SERVICE or choose a port from 1024 on",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another with --listen",
    errno.EAFNOSUPPORT: "this machine has no IPv6; choose another with --listen",
}


class Listener:
    """Serves the addresses in `listen` with `over_udp` and `over_tcp` until it is closed."""

    def __init__(
        self, listen: tuple[str, ...], limits: TcpLimits, over_udp: Answer, over_tcp: Answer
    ) -> None:
        """StartError (2) where an address is none."""
        if not 0 < len(listen) <= MAX_ADDRESSES:
            raise StartError(f"--listen takes 1 to {MAX_ADDRESSES} addresses", 2)
        self._wanted = tuple(endpoint(text, "listen") for text in listen)
        self._over_udp = over_udp
        self.connections = Connections(limits, over_tcp)
        self.doors: tuple[UdpDoor, ...] = ()
        self._servers: list[asyncio.Server] = []
        self._sweeping: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raise the StartError that `open` would, as far as it can be known, and open nothing."""
        for sockets in self._bind():
            for sock in sockets:
                sock.close()

    async def open(self) -> tuple[str, ...]:
        """Open every door; the addresses as `host:port`. Raises StartError."""
        bound = self._bind()
        loop = asyncio.get_running_loop()
        self.doors = tuple(UdpDoor(over_udp, self._over_udp) for over_udp, _ in bound)
        try:
            for _, over_tcp in bound:
                server = await loop.create_server(
                    lambda: Connection(self.connections), sock=over_tcp, backlog=tcp.BACKLOG
                )
                self._servers.append(server)
        except OSError as error:  # somebody began to listen since it was bound
            for pair in bound:
                for sock in pair:
                    sock.close()
            self.doors = ()
            await self.close()
            raise StartError(
                f"cannot listen for DNS over TCP: {error.strerror}; choose another with --listen"
            ) from error
        for door in self.doors:
            door.open()
        self._sweeping = loop.create_task(self.connections.sweeping())
        return tuple(shown(*door.address) for door in self.doors)

    async def close(self) -> None:
        """Close every door and connection; twice is as good as once."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        doors, servers = self.doors, self._servers
        self.doors, self._servers = (), []
        for door in doors:
            door.close()
        for server in servers:
            server.close()
        self.connections.close()

    def _bind(self) -> list[tuple[socket.socket, socket.socket]]:
        """A UDP and a TCP socket for each address, all or none."""
        pairs: list[tuple[socket.socket, socket.socket]] = []
        try:
            for host, port in self._wanted:
                pairs.append(self._pair(host, port))
        except StartError:
            for pair in pairs:
                for sock in pair:
                    sock.close()
            raise
        return pairs

    def _pair(self, host: str, port: int) -> tuple[socket.socket, socket.socket]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        others = {other for other, its in self._wanted if its == port and ":" not in other}
        transport = "UDP"
        for attempt in range(SAME_PORT_TRIES):
            try:
                transport = "UDP"
                over_udp = udp.bound(family, host, port, v6_only=bool(others))
                transport = "TCP"
                try:
                    same = int(over_udp.getsockname()[1])
                    return over_udp, tcp.bound(family, host, same, v6_only=bool(others))
                except OSError:
                    over_udp.close()
                    raise
            except OSError as error:
                if port == 0 and error.errno == errno.EADDRINUSE and attempt + 1 < SAME_PORT_TRIES:
                    continue
                why = _WHY.get(error.errno or 0, f"{error.strerror}; choose another with --listen")
                raise StartError(
                    f"cannot listen on {shown(host, port)} for DNS over {transport}: {why}"
                ) from error
        raise AssertionError("the last attempt returns or raises")
