"""One TCP connection of a probe, in the clear or under TLS, or one UDP socket: non-blocking, plain.

No asyncio transport: a probe wants each phase apart, the exact error, and an end without delay.
Raises Fault for what the network or this machine did; deadlines are the caller's.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time

# A socket's own type is needed; nothing here resolves names.
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SO_ERROR,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    socket,
)

from ._ready import ready_to_write
from ._tls import tls_fault
from .base import Fault, Phases, Reason, classify, failed

CHUNK = 65_536
"""Bytes asked for at once."""
CONNECTING = "connecting"
"""The first stage of every probe of a connection."""


class Stages:
    """The phase times of one probe as it goes, and where it is now."""

    def __init__(self) -> None:
        self.started_ns = self._mark_ns = time.monotonic_ns()
        self.now = CONNECTING
        self._us: dict[str, int] = {}

    def end(self, phase: str, next_stage: str) -> None:
        """The phase `phase` (a field of Phases without `_us`) ends here; phases of hops add up."""
        now = time.monotonic_ns()
        self._us[phase] = self._us.get(phase, 0) + max(1, (now - self._mark_ns) // 1000)
        self._mark_ns = now
        self.now = next_stage

    def phases(self) -> Phases:
        """What has been measured."""
        return Phases(**{f"{phase}_us": us for phase, us in self._us.items()})

    def elapsed_us(self) -> int:
        """Since the probe began."""
        return max(1, (time.monotonic_ns() - self.started_ns) // 1000)


async def opened(address: str, port: int, kind: int, timeout_s: float | None = None) -> socket:
    """A non-blocking socket of `kind`, connected to an IPv4 or IPv6 address; Fault.

    With `timeout_s` that is its deadline, for much less than `asyncio.timeout` costs.
    """
    sock: socket | None = None
    try:
        sock = socket(AF_INET6 if ":" in address else AF_INET, kind | SOCK_NONBLOCK)
        await connected(sock, address, port, timeout_s)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise classify(error, address) from error
    except BaseException:
        if sock is not None:
            sock.close()
        raise
    return sock


async def connected(sock: socket, address: str, port: int, timeout_s: float | None = None) -> None:
    """Connect a non-blocking socket to an address; OSError, Fault where it took too long.

    Less than the loop's own `sock_connect`, which looks at names and costs a third more.
    """
    try:
        sock.connect((address, port))
        return
    except (BlockingIOError, InterruptedError):
        pass
    if not await ready_to_write(sock.fileno(), timeout_s):
        raise failed(Reason.TIMEOUT, CONNECTING)
    if error := sock.getsockopt(SOL_SOCKET, SO_ERROR):
        raise OSError(error, os.strerror(error))


class Wire:
    """A connection; `close` it in any case."""

    def __init__(self, sock: socket, address: str) -> None:
        self._sock = sock
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLObject | None = None
        self._incoming: ssl.MemoryBIO
        self._outgoing: ssl.MemoryBIO

    @classmethod
    async def connect(cls, address: str, port: int) -> Wire:
        """Connect to an IPv4 or IPv6 address."""
        sock = await opened(address, port, SOCK_STREAM)
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        return cls(sock, address)

    async def start_tls(self, context: ssl.SSLContext, name: str) -> str:
        """Shake hands; `name` is asked for (SNI) and verified. Returns the ALPN protocol or ""."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name or None)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise failed(Reason.TLS, "closed during the handshake") from None
            except ssl.SSLError as error:
                try:
                    await self._flush()  # the alert
                except Fault:
                    pass
                raise tls_fault(error) from error
        await self._flush()
        return self._tls.selected_alpn_protocol() or ""

    def certificate(self) -> bytes:
        """The server's own certificate in DER; b"" before `start_tls`."""
        return (self._tls.getpeercert(True) if self._tls is not None else None) or b""

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        if self._tls is not None:
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                raise tls_fault(error) from error
            await self._flush()
            return
        await self._send(data)

    async def receive(self) -> bytes:
        """What came, at most CHUNK bytes; b"" at the end."""
        if self._tls is None:
            return await self._receive()
        while True:
            try:
                return self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise tls_fault(error) from error

    def close(self) -> None:
        """End the connection at once."""
        self._sock.close()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._send(data)

    async def _fill(self) -> bool:
        data = await self._receive()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return bool(data)

    async def _send(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self._sock, data)
        except OSError as error:
            raise classify(error, self._address) from error

    async def _receive(self) -> bytes:
        try:
            return await self._loop.sock_recv(self._sock, CHUNK)
        except OSError as error:
            raise classify(error, self._address) from error


class Datagrams:
    """A UDP socket connected to the target: the kernel drops what comes from anywhere else."""

    def __init__(self, sock: socket, address: str) -> None:
        self._sock = sock
        self._address = address
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, address: str, port: int) -> Datagrams:
        """A socket for an IPv4 or IPv6 address, from a port that the kernel picks."""
        return cls(await opened(address, port, SOCK_DGRAM), address)

    async def send(self, data: bytes) -> None:
        """Send one datagram."""
        try:
            await self._loop.sock_sendall(self._sock, data)
        except OSError as error:
            raise classify(error, self._address) from error

    async def receive(self) -> bytes:
        """The next datagram; Fault where the target's host says that nobody listens."""
        try:
            return await self._loop.sock_recv(self._sock, CHUNK)
        except OSError as error:
            raise classify(error, self._address) from error

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
