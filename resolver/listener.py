"""The DNS doors of a resolver: every address over UDP and TCP, on IPv4 and IPv6.

Decides which sockets are needed and says in one sentence why one can't be had. What is answered is
not known here: queries go to the functions that are handed in.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gtm.errors import StartError
from gtm.telemetry import transition

from . import tcp, udp
from .settings import endpoint, shown
from .takeover import TCP, UDP, Handed, Inherited
from .tcp import TcpDoor, TcpLimits
from .udp import Answer, UdpDoor
from .xdp import Express

MAX_ADDRESSES = 64
"""Addresses that one resolver listens on."""
SAME_PORT_TRIES = 32
"""Attempts to find one free port for both transports, where port 0 asks for any."""

Bound = tuple[list[socket.socket], socket.socket]
"""The UDP sockets of one address, and its TCP socket."""

_log = logging.getLogger("resolver")
_WHY = {
    errno.EADDRINUSE: "it is taken; stop what uses it or choose another with --listen",
    errno.EACCES: "no permission; give CAP_NET_BIND_SERVICE or choose a port from 1024 on",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another with --listen",
    errno.EAFNOSUPPORT: "this machine has no IPv6; choose another with --listen",
}


class Door(Protocol):
    """What serves one address over UDP."""

    address: tuple[str, int]

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that it reads from."""

    def open(self) -> None:
        """Begin to answer, on the running loop or in threads."""

    def add(self, sock: socket.socket) -> None:
        """Serve one more socket of the address."""

    async def retire(self) -> None:
        """Answer what was read, read no more, close the sockets."""

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

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that it accepts from."""

    async def drain(self, grace_s: float) -> None:
        """Accept nothing more; connections live on, for `grace_s` at most, then are ended."""

    async def close(self) -> None:
        """Accept nothing more and end every connection; twice is as good as once."""


Doors = Callable[[Sequence[socket.socket]], Door]
"""Makes the door of one address from the bound sockets that share it."""


class Listener:
    """Serves the addresses in `listen` with `over_udp` and `over_tcp` until it is closed.

    Where `doors` is given, it makes the UDP doors, each of `workers` sockets, in place of
    `over_udp`; `streams` serves TCP in place of `over_tcp`; `express` answers beside the doors.
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
        express: Express | None = None,
    ) -> None:
        """StartError (2) where an address is none."""
        if not 0 < len(listen) <= MAX_ADDRESSES:
            raise StartError(f"--listen takes 1 to {MAX_ADDRESSES} addresses", 2)
        self._wanted = tuple(endpoint(text, "listen") for text in listen)
        self._door: Doors = doors or (lambda sockets: UdpDoor(sockets, over_udp))
        self._workers = workers
        self.streams: Streams = streams if streams is not None else TcpDoor(limits, over_tcp)
        self._express = express
        self.doors: tuple[Door, ...] = ()

    def check(self, given: Inherited | None = None) -> None:
        """Raise the StartError that `open` would, as far as it can be known, and open nothing."""
        missing = [one for one in self._wanted if given is None or not given.has(TCP, *one)]
        _close(self._bind(missing, Inherited()))

    async def open(self, given: Inherited | None = None) -> tuple[str, ...]:
        """Open every door, on the sockets in `given` where they fit; the addresses as `host:port`.

        Raises StartError.
        """
        alone = not given
        bound = self._bind(self._wanted, given or Inherited())
        self.doors = tuple(self._door(over_udp) for over_udp, _ in bound)
        try:
            if alone:
                self._begin_express()
            await self.streams.open([over_tcp for _, over_tcp in bound])
        except (OSError, StartError) as error:
            _close(bound)
            self.doors = ()
            await self.close()
            if isinstance(error, StartError):
                raise
            # somebody began to listen since it was bound
            raise StartError(
                f"cannot listen for DNS over TCP: {error.strerror}; choose another with --listen"
            ) from error
        for door in self.doors:
            door.open()
        return tuple(shown(*door.address) for door in self.doors)

    def handed(self) -> Handed:
        """Every socket that is read from or accepted on, for who takes over."""
        over_udp = [(UDP, sock.fileno()) for door in self.doors for sock in door.sockets]
        return [*over_udp, *((TCP, sock.fileno()) for sock in self.streams.sockets)]

    def widen(self) -> None:
        """Open what an address of which fewer sockets were handed over lacks to its workers.

        Not before we alone read: queries in a new socket would be lost with us. Nor does an
        interface have two programs.
        """
        try:
            self._begin_express()
        except StartError as error:
            transition(
                _log, "nothing goes past the network stack", logging.WARNING, cause=error
            )  # fmt: skip
        for door in self.doors:
            host, port = door.address
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                for _ in range(self._workers - len(door.sockets)):
                    for sock in door.sockets:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    alone = self._v6_only(port)
                    door.add(udp.bound(family, host, port, v6_only=alone, shared=True))
            except OSError as error:
                transition(
                    _log, "fewer workers than wanted", logging.WARNING, address=shown(host, port),
                    workers=len(door.sockets), cause=error.strerror,
                )  # fmt: skip

    async def retire(self, grace_s: float) -> None:
        """Read and accept no more, since somebody else does; open connections have `grace_s`."""
        doors, self.doors = self.doors, ()
        await self.streams.drain(grace_s)
        await asyncio.gather(*(door.retire() for door in doors))

    async def close(self) -> None:
        """Close every door and connection; twice is as good as once."""
        doors, self.doors = self.doors, ()
        for door in doors:
            door.close()
        await self.streams.close()

    def _begin_express(self) -> None:
        """Begin to answer past the network stack, where that is wanted. Raises StartError."""
        if self._express is not None:
            self._express.open([door.address for door in self.doors])

    def _bind(self, wanted: Iterable[tuple[str, int]], given: Inherited) -> list[Bound]:
        """The UDP sockets and the TCP socket of each address, all or none."""
        pairs: list[Bound] = []
        try:
            for host, port in wanted:
                over_udp, over_tcp = given.take(UDP, host, port), given.take(TCP, host, port)
                if over_udp and over_tcp:
                    pairs.append((over_udp, over_tcp[0]))
                    self._check_family(host, port, [*over_udp, *over_tcp])
                else:
                    pairs.append(self._pair(host, port))
        except StartError:
            _close(pairs)
            raise
        return pairs

    def _pair(self, host: str, port: int) -> Bound:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        alone, shared = self._v6_only(port), self._workers > 1
        for attempt in range(SAME_PORT_TRIES):
            opened: list[socket.socket] = []
            transport = "TCP"
            try:
                # Nobody shares this one. It comes first: it keeps a second resolver from the
                # address, whose sockets over UDP would be sent queries as soon as they are bound.
                opened.append(tcp.bound(family, host, port, v6_only=alone))
                same = int(opened[0].getsockname()[1])
                transport = "UDP"
                opened.extend(
                    udp.bound(family, host, same, v6_only=alone, shared=shared)
                    for _ in range(self._workers)
                )
                return opened[1:], opened[0]
            except OSError as error:
                for sock in opened:
                    sock.close()
                if port == 0 and error.errno == errno.EADDRINUSE and attempt + 1 < SAME_PORT_TRIES:
                    continue
                why = _WHY.get(error.errno or 0, f"{error.strerror}; choose another with --listen")
                raise StartError(
                    f"cannot listen on {shown(host, port)} for DNS over {transport}: {why}"
                ) from error
        raise AssertionError("the last attempt returns or raises")

    def _v6_only(self, port: int) -> bool:
        """Whether an IPv6 socket of this port leaves IPv4 to another."""
        return any(its == port and ":" not in other for other, its in self._wanted)

    def _check_family(self, host: str, port: int, given: Sequence[socket.socket]) -> None:
        """StartError where sockets that were handed over serve other families than they should."""
        for sock in given:
            if sock.family == socket.AF_INET6:
                alone = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                if host == "::" and bool(alone) is not self._v6_only(port):
                    raise StartError(
                        f"{shown(host, port)} serves IPv4 as well, or no more: a takeover cannot "
                        "change that; stop the former resolver and start this one"
                    )


def _close(bound: Sequence[Bound]) -> None:
    for over_udp, over_tcp in bound:
        for sock in (*over_udp, over_tcp):
            sock.close()
