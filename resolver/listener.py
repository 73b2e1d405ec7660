"""The DNS doors of a resolver: every address over UDP and TCP, on IPv4 and IPv6.

Decides which sockets are needed and says in one sentence why one can't be had. What is answered is
not known here: queries go to the functions that are handed in.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from gtm.errors import StartError

from . import tcp, udp
from .settings import endpoint, shown
from .tcp import TcpDoor, TcpLimits
from .udp import Answer, UdpDoor

MAX_ADDRESSES = 64
"""Addresses that one resolver listens on."""
SAME_PORT_TRIES = 32
"""Attempts to find one free port for both transports, where port 0 asks for any."""

Bound = tuple[list[socket.socket], socket.socket]
"""The UDP sockets of one address, and its TCP socket."""

_WHY = {
    errno.EADDRINUSE: "it is taken; stop what uses it or choose another with --listen",
    errno.EACCES: "no permission; give CAP_NET_BIND_SERVICE or choose a port from 1024 on",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another with --listen",
    errno.EAFNOSUPPORT: "this machine has no IPv6; choose another with --listen",
}


class Door(Protocol):
    """What serves one address over UDP."""

    address: tuple[str, int]

    def open(self) -> None:
        """Begin to answer, on the running loop or in threads."""

    def close(self) -> None:
        """Stop and close the sockets."""

    def unsent(self) -> int:
        """Answers that the kernel did not take."""

    def oversize(self) -> int:
        """Queries larger than any that is read."""


class Streams(Protocol):
    """What serves every address over TCP, within `TcpLimits` over all of them."""

    def __len__(self) -> int:
        """Connections at present."""

    @property
    def refused(self) -> int:
        """Connections closed at once because there were too many."""

    @property
    def expired(self) -> int:
        """Connections ended for being idle or old."""

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to accept from bound sockets, which are its own from then on. Raises OSError."""

    def drain(self, grace_s: float) -> None:
        """Accept nothing more; the connections there are live on, for `grace_s` at most."""

    async def close(self) -> None:
        """Accept nothing more and end every connection; twice is as good as once."""


Doors = Callable[[Sequence[socket.socket]], Door]
"""Makes the door of one address from the bound sockets that share it."""


class Listener:
    """Serves the addresses in `listen` with `over_udp` and `over_tcp` until it is closed.

    Where `doors` is given, it makes the UDP doors, each of `workers` sockets, in place of
    `over_udp`; `streams` serves TCP in place of `over_tcp`.
    """

    def __init__(
        self,
        listen: tuple[str, ...],
        limits: TcpLimits,
        over_udp: Answer,
        over_tcp: Answer,
        doors: Doors | None = None,
        workers: int = 1,
        streams: Streams | None = None,
    ) -> None:
        """StartError (2) where an address is none."""
        if not 0 < len(listen) <= MAX_ADDRESSES:
            raise StartError(f"--listen takes 1 to {MAX_ADDRESSES} addresses", 2)
        self._wanted = tuple(endpoint(text, "listen") for text in listen)
        self._door: Doors = doors or (lambda sockets: UdpDoor(sockets[0], over_udp))
        self._workers = workers
        self.streams: Streams = streams if streams is not None else TcpDoor(limits, over_tcp)
        self.doors: tuple[Door, ...] = ()

    def check(self) -> None:
        """Raise the StartError that `open` would, as far as it can be known, and open nothing."""
        _close(self._bind())

    async def open(self) -> tuple[str, ...]:
        """Open every door; the addresses as `host:port`. Raises StartError."""
        bound = self._bind()
        self.doors = tuple(self._door(over_udp) for over_udp, _ in bound)
        try:
            await self.streams.open([over_tcp for _, over_tcp in bound])
        except OSError as error:  # somebody began to listen since it was bound
            _close(bound)
            self.doors = ()
            await self.close()
            raise StartError(
                f"cannot listen for DNS over TCP: {error.strerror}; choose another with --listen"
            ) from error
        for door in self.doors:
            door.open()
        return tuple(shown(*door.address) for door in self.doors)

    async def close(self) -> None:
        """Close every door and connection; twice is as good as once."""
        doors, self.doors = self.doors, ()
        for door in doors:
            door.close()
        await self.streams.close()

    def _bind(self) -> list[Bound]:
        """The UDP sockets and the TCP socket of each address, all or none."""
        pairs: list[Bound] = []
        try:
            for host, port in self._wanted:
                pairs.append(self._pair(host, port))
        except StartError:
            _close(pairs)
            raise
        return pairs

    def _pair(self, host: str, port: int) -> Bound:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        others = {other for other, its in self._wanted if its == port and ":" not in other}
        transport = "UDP"
        for attempt in range(SAME_PORT_TRIES):
            over_udp: list[socket.socket] = []
            same = port
            try:
                for _ in range(self._workers):
                    transport = "UDP"
                    shared = self._workers > 1
                    over_udp.append(
                        udp.bound(family, host, same, v6_only=bool(others), shared=shared)
                    )
                    same = int(over_udp[0].getsockname()[1])
                # Nobody shares this one: it keeps a second resolver from the address.
                transport = "TCP"
                return over_udp, tcp.bound(family, host, same, v6_only=bool(others))
            except OSError as error:
                for sock in over_udp:
                    sock.close()
                if port == 0 and error.errno == errno.EADDRINUSE and attempt + 1 < SAME_PORT_TRIES:
                    continue
                why = _WHY.get(error.errno or 0, f"{error.strerror}; choose another with --listen")
                raise StartError(
                    f"cannot listen on {shown(host, port)} for DNS over {transport}: {why}"
                ) from error
        raise AssertionError("the last attempt returns or raises")


def _close(bound: Sequence[Bound]) -> None:
    for over_udp, over_tcp in bound:
        for sock in (*over_udp, over_tcp):
            sock.close()
