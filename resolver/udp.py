"""DNS over UDP: a socket, drained in turns, each datagram answered where it came from.

Decides how much one wake-up may take and what a failed send means (nothing: the client asks again).
No asyncio protocol: reading the socket ourselves costs a quarter of it (docs/decisions/).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Sequence

MAX_TURN = 64
"""Datagrams answered before everything else on the loop gets its turn."""
MAX_QUERY_BYTES = 4096
"""The largest query that is read, over UDP and TCP; larger ones are dropped."""
RECEIVE_BUFFER = 4 << 20
"""Bytes asked of the kernel for queries that wait; it may grant less."""

Answer = Callable[[bytes, bytes], "bytes | None"]
"""(query, packed client address) -> answer; None for silence. Never raises."""

_IN = struct.Struct("@I4s4s")
_IN6 = struct.Struct("@16sI")
_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)
_MTU_DISCOVER = ((socket.IPPROTO_IP, 10), (socket.IPPROTO_IPV6, 23))
_OMIT = 5
_AT_ONCE = socket.MSG_DONTWAIT
_MAPPED = bytes(10) + b"\xff\xff"


def packed(host: str) -> bytes:
    """The packed form of a peer's address; an IPv4-mapped IPv6 address is the IPv4 address."""
    if ":" not in host:
        return socket.inet_aton(host)
    address = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return address[12:] if address.startswith(_MAPPED) else address


def bound(
    family: socket.AddressFamily, host: str, port: int, *, v6_only: bool, shared: bool = False
) -> socket.socket:
    """A UDP socket at `host`:`port`, ready to be served. Raises OSError.

    A `shared` one lets others of ours be bound there as well, and the kernel spreads the clients.
    """
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6_only)
        for level, option in _MTU_DISCOVER:
            # Forged "fragmentation needed" messages must not make answers fragment (Linux).
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, _OMIT)
        if host in ("0.0.0.0", "::"):
            _tell_destination(sock, family)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _tell_destination(sock: socket.socket, family: socket.AddressFamily) -> None:
    """On a wildcard, ask for the address that each query came to: the answer must come from it."""
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def _from_there(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """The control message that sends from the address in a received one (ip(7), RFC 3542)."""
    if level == socket.IPPROTO_IP:
        _, local, _ = _IN.unpack_from(data)
        return level, kind, _IN.pack(0, local, bytes(4))
    address, interface = _IN6.unpack_from(data)
    link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
    return level, kind, _IN6.pack(address, interface if link_local else 0)


class UdpDoor:
    """Serves the bound sockets of one address: one of our own, or all that were handed over.

    A socket may be shared with another process, which may have made it block: no call of ours does.
    """

    def __init__(self, sockets: Sequence[socket.socket], answer: Answer) -> None:
        self._sockets, self._answer = list(sockets), answer
        self._unsent = self._oversize = 0
        host, port = sockets[0].getsockname()[:2]
        self._turn = self._turn_wildcard if host in ("0.0.0.0", "::") else self._turn_plain
        self.address: tuple[str, int] = (host, int(port))

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that it reads from."""
        return self._sockets

    def open(self) -> None:
        """Begin to answer, on the running loop."""
        for sock in self._sockets:
            self._begin(sock)

    def add(self, sock: socket.socket) -> None:
        """Serve one more socket of the address."""
        self._sockets.append(sock)
        self._begin(sock)

    async def retire(self) -> None:
        """Stop: between two turns nothing is at hand."""
        self.close()

    def close(self) -> None:
        """Stop and close the sockets."""
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()

    def _begin(self, sock: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(sock.fileno(), self._turn, sock)

    def unsent(self) -> int:
        """Answers that the kernel did not take."""
        return self._unsent

    def oversize(self) -> int:
        """Queries larger than any that is read."""
        return self._oversize

    def _turn_plain(self, sock: socket.socket) -> None:
        receive, send, answer = sock.recvfrom, sock.sendto, self._answer
        for _ in range(MAX_TURN):
            try:
                query, peer = receive(MAX_QUERY_BYTES + 1, _AT_ONCE)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error about an earlier answer
                continue
            if len(query) > MAX_QUERY_BYTES:
                self._oversize += 1
                continue
            reply = answer(query, packed(peer[0]))
            if reply is not None:
                try:
                    send(reply, _AT_ONCE, peer)
                except OSError:
                    self._unsent += 1

    def _turn_wildcard(self, sock: socket.socket) -> None:
        receive, send, answer = sock.recvmsg, sock.sendmsg, self._answer
        for _ in range(MAX_TURN):
            try:
                query, ancillary, _, peer = receive(MAX_QUERY_BYTES + 1, 256, _AT_ONCE)
            except BlockingIOError:
                return
            except OSError:
                continue
            if len(query) > MAX_QUERY_BYTES:
                self._oversize += 1
                continue
            reply = answer(query, packed(peer[0]))
            if reply is not None:
                try:
                    send((reply,), [_from_there(*one) for one in ancillary], _AT_ONCE, peer)
                except OSError:
                    self._unsent += 1
