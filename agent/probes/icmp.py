"""Probe type `ping`: ICMP echo requests (RFC 792, RFC 4443), judged by how many come back.

One socket per family serves all targets of this process: a datagram ICMP socket where the kernel
allows it (`net.ipv4.ping_group_range`), else a raw one. A reply counts where its payload begins
with the 64-bit nonce of a request that still waits and its source is that request's target. Times
are monotonic; what a reply waited in the socket until it was read is taken off the round trip, by
the kernel's stamp of its arrival, so that a busy agent is no slow target. Without permission for
either socket there is no opinion, never "down".

A probe ends as soon as its verdict is certain: when enough packets came back, or when too many
are lost. A packet is lost when its reply has not come within the check's timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import time
import weakref
from typing import Annotated

from msgspec import Meta

from gtm.units import Duration, Share

from .base import (
    Fault,
    Kind,
    Outcome,
    ProbeSettings,
    Reason,
    Target,
    classify,
    failed,
    unable,
)

NAMES = ("ping",)
MAX_WAITING = 65_536
"""Requests of one family without reply at once; above it a probe has no opinion."""
READS_PER_WAKE = 256
"""Datagrams read before the loop gets its turn again."""
RECEIVE_BUFFER = 1 << 20
"""Bytes asked of the kernel for replies not read yet."""

_SO_TIMESTAMPNS = 35
_STAMP = struct.Struct("@ll")
_ANCILLARY = socket.CMSG_SPACE(_STAMP.size)
_NONCE = struct.Struct("!Q")
_HEADER = struct.Struct("!BBHHH")
_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_ICMP_FILTER, _SOL_RAW, _ICMP6_FILTER = 1, 255, 1


class Settings(ProbeSettings, frozen=True, kw_only=True):
    """Settings of a ping check; (packets - 1) x spacing + timeout must fit the interval."""

    packets: Annotated[int, Meta(ge=1, le=100, description="echo requests in one probe")] = 20
    spacing: Annotated[Duration, Meta(description="between requests, 10ms to 10s")] = Duration(100)
    loss_limit: Annotated[
        Share, Meta(description="fails when this share of the packets, or more, is lost")
    ] = Share.parse("10%")
    payload: Annotated[
        int, Meta(ge=8, le=1400, description="bytes of each request after its header")
    ] = 56

    def __post_init__(self) -> None:
        if not 10 <= self.spacing.ms <= 10_000:
            raise ValueError(f"spacing {self.spacing} is not within 10ms and 10s")
        if self.loss_limit.of_one == 0:
            raise ValueError("loss_limit 0% would fail every probe; 1% fails at the first loss")

    def span_ms(self, timeout_ms: int) -> int:
        """(packets - 1) x spacing + timeout, in milliseconds."""
        return (self.packets - 1) * self.spacing.ms + timeout_ms

    def losses(self) -> int:
        """How many lost packets fail the probe: at least 1."""
        share = self.loss_limit.of_one * self.packets
        return max(1, -(-share.numerator // share.denominator))


class _Round:
    """One probe under way: what came back, and a wake-up for the coroutine that runs it."""

    __slots__ = ("address", "changed", "enough", "rtts_us", "waiting")

    def __init__(self, address: str, enough: int) -> None:
        self.address = address
        self.enough = enough  # replies with which the verdict is certain: no sooner is it woken
        self.rtts_us: list[int] = []
        self.waiting: dict[int, int] = {}  # nonce to the time of sending, oldest first
        self.changed = asyncio.Event()


class Pinger:
    """The shared socket of one family on one event loop."""

    def __init__(self, family: socket.AddressFamily, raw: bool | None = None) -> None:
        self._family = family
        self._raw = False
        self._waiting: dict[int, _Round] = {}
        self._sequence = 0
        self._socket = self._open(raw)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self.drain)

    def _open(self, raw: bool | None) -> socket.socket:
        six = self._family == socket.AF_INET6
        protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
        refusal: OSError | None = None
        for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
            if raw is not None and raw != (kind == socket.SOCK_RAW):
                continue
            try:
                made = socket.socket(self._family, kind | socket.SOCK_NONBLOCK, protocol)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EACCES, errno.EPROTONOSUPPORT):
                    raise classify(error, "::" if six else "0.0.0.0") from error
                refusal = error
                continue
            self._raw = kind == socket.SOCK_RAW
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            with contextlib.suppress(OSError):  # without stamps the reading counts
                made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if self._raw:
                self._filter(made)
            return made
        raise unable(
            Reason.PERMISSION, "ICMP needs net.ipv4.ping_group_range or CAP_NET_RAW"
        ) from refusal

    def _filter(self, made: socket.socket) -> None:
        """Let only echo replies through; without it the nonce sorts the rest out."""
        try:
            if self._family == socket.AF_INET6:
                words = [0xFFFFFFFF] * 8
                words[129 >> 5] &= ~(1 << (129 & 31))
                made.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("8I", *words))
            else:
                made.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("I", ~1 & 0xFFFFFFFF))
        except OSError:
            pass

    @property
    def waiting(self) -> int:
        """Requests without reply."""
        return len(self._waiting)

    def send(self, round_: _Round, payload: int) -> None:
        """Send one request for `round_`; Fault where this machine can't."""
        if len(self._waiting) >= MAX_WAITING:
            raise unable(Reason.RESOURCES, f"{MAX_WAITING} pings without reply")
        nonce = int.from_bytes(os.urandom(8))
        self._sequence = (self._sequence + 1) & 0xFFFF
        packet = self._request(nonce, payload)
        now = time.monotonic_ns()
        try:
            self._socket.sendto(packet, (round_.address, 0))
        except OSError as error:
            raise classify(error, round_.address) from error
        round_.waiting[nonce] = now
        self._waiting[nonce] = round_

    def _request(self, nonce: int, payload: int) -> bytes:
        data = _NONCE.pack(nonce).ljust(payload, b"\0")
        type_ = _REQUEST[self._family]
        ident = os.getpid() & 0xFFFF  # a datagram socket puts its own
        head = _HEADER.pack(type_, 0, 0, ident, self._sequence)
        if self._family == socket.AF_INET6:  # the kernel sums (RFC 3542, 3.1)
            return head + data
        return _HEADER.pack(type_, 0, checksum(head + data), ident, self._sequence) + data

    def drain(self) -> None:
        """Read what came and wake the probes that it belongs to."""
        for _ in range(READS_PER_WAKE):
            try:
                packet, more, _, source = self._socket.recvmsg(2048, _ANCILLARY)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an error queued for one destination: that packet is lost
            self._take(packet, str(source[0]).partition("%")[0], waited_ns(more))

    def _take(self, packet: bytes, source: str, waited_ns: int) -> None:
        now = time.monotonic_ns()
        if self._raw and self._family == socket.AF_INET:
            packet = packet[(packet[0] & 15) * 4 if packet else 0 :]
        if len(packet) < 16 or packet[0] != _REPLY[self._family]:
            return
        nonce = _NONCE.unpack_from(packet, 8)[0]
        round_ = self._waiting.get(nonce)
        if round_ is None or round_.address != source:
            return
        del self._waiting[nonce]
        took = now - round_.waiting.pop(nonce)
        if waited_ns < took:  # else the wall clock jumped meanwhile
            took -= waited_ns
        round_.rtts_us.append(max(1, took // 1000))
        if len(round_.rtts_us) >= round_.enough:
            round_.changed.set()

    def forget(self, round_: _Round, nonce: int) -> None:
        """The request `nonce` waits no more."""
        round_.waiting.pop(nonce, None)
        self._waiting.pop(nonce, None)

    def close(self) -> None:
        """Close the socket."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()


def waited_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """How long a datagram has been here, by the kernel's stamp of its arrival; 0 without one."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) == _STAMP.size:
            seconds, rest = _STAMP.unpack(data)
            arrived_ns: int = seconds * 1_000_000_000 + rest
            return max(0, time.time_ns() - arrived_ns)
    return 0


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return 0xFFFF ^ ((total + (total >> 16)) & 0xFFFF)


_pingers: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[socket.AddressFamily, Pinger]
] = weakref.WeakKeyDictionary()


def _pinger(address: str) -> Pinger:
    """The running loop's Pinger for the family of `address`; Fault where there can be none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    mine = _pingers.setdefault(asyncio.get_running_loop(), {})
    if family not in mine:
        mine[family] = Pinger(family)
    return mine[family]


def close() -> None:
    """Close the running loop's sockets; the next probe opens them again."""
    for pinger in _pingers.pop(asyncio.get_running_loop(), {}).values():
        pinger.close()


async def probe(target: Target) -> Outcome:
    """Probe once; `rtt_us` is the mean round trip of the packets that came back."""
    try:
        return await ping(_pinger(target.address), target)
    except Fault as fault:
        return fault.outcome()


async def ping(pinger: Pinger, target: Target) -> Outcome:
    """Send the packets of one probe by `pinger` and judge what comes back."""
    settings = target.settings
    assert isinstance(settings, Settings)
    limit = settings.losses()
    enough = settings.packets - limit + 1
    round_ = _Round(target.address, enough)
    timeout_ns = target.timeout_ms * 1_000_000
    spacing_ns = settings.spacing.ms * 1_000_000
    started = time.monotonic_ns()
    sent = lost = 0
    try:
        while True:
            now = time.monotonic_ns()
            if sent < settings.packets and now >= started + sent * spacing_ns:
                pinger.send(round_, settings.payload)
                sent += 1
            if any(at + timeout_ns <= now for at in round_.waiting.values()):
                pinger.drain()  # a reply that is here already is none that was lost
                for nonce, at in list(round_.waiting.items()):
                    if at + timeout_ns <= now:
                        pinger.forget(round_, nonce)
                        lost += 1
            if len(round_.rtts_us) >= enough:
                rtt = sum(round_.rtts_us) // len(round_.rtts_us)
                return Outcome(Kind.SUCCESS, rtt_us=rtt)
            if lost >= limit:
                text = f"{lost} of {sent} packets lost, the limit is {settings.loss_limit}"
                return failed(Reason.LOSS, text).outcome()
            wake = started + sent * spacing_ns if sent < settings.packets else now + timeout_ns
            if round_.waiting:
                wake = min(wake, next(iter(round_.waiting.values())) + timeout_ns)
            await _until(round_.changed, (wake - time.monotonic_ns()) / 1e9)
    finally:
        for nonce in list(round_.waiting):
            pinger.forget(round_, nonce)


async def _until(changed: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await changed.wait()
    except TimeoutError:
        pass
    changed.clear()
