"""A native responder in one network namespace, and who asks it in another.

`served()` opens its ordinary sockets; `World.begin` has it answer past the network stack as well.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import dns.message
import pytest

from resolver.handover import Handover
from resolver.responder import respond
from resolver.tcp import bound as bound_tcp
from resolver.udp import bound
from tests.ethernet import Ends, between
from tests.fuzz.datagrams import table
from tests.namespaces import CLIENT, SERVER, End, pair

TABLE = table()
STEADY = ["out", "many", "nope", "sub.x", "big", "c0", "x.sub", "nope2"]
"""Names under gtm.test whose answers do not depend on the draw, of several sizes."""
SOON_S = 30.0
ODD = 40_000
"""A client's port."""
PLACES = [(host, 53) for host in SERVER]
REFUSALS = (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)


@dataclass
class World:
    """A native responder with its ordinary sockets and, where it began, the way past them."""

    server: End
    client: End
    native: Any

    def begin(self, places: list[tuple[str, int]] = PLACES) -> str:
        """Begin to answer past the network stack; how. Skips where the kernel refuses."""

        def do() -> str:
            how: str = self.native.serve_xdp(self.server.device, places, 1)
            return how

        try:
            return self.server.within(do)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            pytest.skip(f"the kernel refuses AF_XDP: {error}")

    def count(self, cell: int) -> int:
        """What was counted in a cell so far."""
        found: int = self.native.counted(cell + 1)[cell]
        return found

    def hosts(self, family: int) -> tuple[str, str]:
        """The addresses of client and server."""
        six = family == socket.AF_INET6
        return CLIENT[six], SERVER[six]

    def asking(self, family: socket.AddressFamily) -> socket.socket:
        """A client's socket that takes answers of the server alone."""

        def do() -> socket.socket:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.settimeout(SOON_S)
            sock.connect((self.hosts(family)[1], 53))
            return sock

        return self.client.within(do)

    def ends(self, family: int, ports: tuple[int, int] = (ODD, 53)) -> Ends:
        """From the client to the server."""
        return between((self.client.mac(), self.server.mac()), self.hosts(family), ports)

    def wire(self) -> socket.socket:
        """All that comes to the client's device; what is sent goes out as it is."""

        def do() -> socket.socket:
            everything = 3  # ETH_P_ALL
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything))
            sock.bind((self.client.device, everything))
            return sock

        return self.client.within(do)

    def replied(self, wire: socket.socket, ends: Ends, within_s: float = SOON_S) -> bytes | None:
        """The payload of the first answer to what was sent from `ends`; None where none comes."""
        until = time.monotonic() + within_s
        while (left_s := until - time.monotonic()) > 0:
            wire.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                payload = ends.back().payload(wire.recv(65535))
                if payload is not None:
                    return payload
        return None


@contextlib.contextmanager
def served(module: ModuleType | None, queues: int = 1) -> Iterator[World]:
    """A world whose ordinary sockets are open on both addresses of the server."""
    assert module is not None
    responder = module.Native()
    responder.load(Handover().message(TABLE))
    responder.heard(float("inf"))
    with pair(queues) as (server, client), contextlib.ExitStack() as sockets:

        def bind() -> None:
            streams = []
            for host, family in zip(SERVER, (socket.AF_INET, socket.AF_INET6), strict=True):
                over_udp = bound(family, host, 53, v6_only=True)
                responder.serve_udp(sockets.enter_context(over_udp).fileno(), False, 1)
                over_tcp = bound_tcp(family, host, 53, v6_only=True)
                over_tcp.listen()
                streams.append(sockets.enter_context(over_tcp).fileno())
            responder.serve_tcp(streams, 100, 100, 10.0, 100.0, 1)

        server.within(bind)
        try:
            yield World(server, client, responder)
        finally:
            responder.close()


def question(name: str, number: int = 0, **more: Any) -> bytes:
    query = dns.message.make_query(f"{name}.gtm.test", "A", **more)
    query.id = number
    return query.to_wire()


def meant(query: bytes, world: World, family: int) -> bytes | None:
    client = socket.inet_pton(family, world.hosts(family)[0])
    return respond(TABLE, query, client, "udp", 0.0, 0)
