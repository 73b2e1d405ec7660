"""Frames of Ethernet with a UDP datagram, made and read octet by octet: no kernel helps."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

UDP = 17
V4, V6 = 0x0800, 0x86DD


def checksum(data: bytes) -> int:
    """The sum of RFC 1071 that goes into a header; 0 over what has a right one."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True)
class Ends:
    """Who sends to whom: MAC addresses, packed IP addresses of one family, ports."""

    macs: tuple[bytes, bytes]
    hosts: tuple[bytes, bytes]
    ports: tuple[int, int]

    def datagram(self, payload: bytes, wrong: int = 0) -> bytes:
        """A UDP datagram; `wrong` is added to its checksum."""
        size = 8 + len(payload)
        front = struct.pack("!HHH", *self.ports, size)
        pseudo = b"".join(self.hosts) + struct.pack("!LL", size, UDP)
        sum_ = checksum(pseudo + front + b"\0\0" + payload) or 0xFFFF
        return front + struct.pack("!H", (sum_ + wrong) & 0xFFFF) + payload

    def packet(
        self, inner: bytes, options: bytes = b"", fragment: int = 0, protocol: int = UDP
    ) -> bytes:
        """`inner` in IPv4 or IPv6; `options` and `fragment` (flags and offset) are of IPv4."""
        if len(self.hosts[0]) == 16:
            front = struct.pack("!LHBB", 6 << 28, len(inner), protocol, 61)
            return front + b"".join(self.hosts) + inner
        words = 5 + len(options) // 4
        head = struct.pack(
            "!BBHHHBBH", 0x40 | words, 0, 4 * words + len(inner), 7, fragment, 61, protocol, 0
        )
        head += b"".join(self.hosts) + options
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + inner

    def frame(self, packet: bytes, tag: bytes = b"") -> bytes:
        """`packet` in Ethernet; `tag` stands before its type."""
        kind = V6 if len(self.hosts[0]) == 16 else V4
        return self.macs[1] + self.macs[0] + tag + struct.pack("!H", kind) + packet

    def back(self) -> Ends:
        """The same the other way round."""
        return Ends(self.macs[::-1], self.hosts[::-1], self.ports[::-1])

    def payload(self, frame: bytes) -> bytes | None:
        """The payload of a frame between these ends; None of any other.

        AssertionError where one of its checksums or lengths is wrong, or it would not go far.
        """
        six = len(self.hosts[0]) == 16
        at = 14 + (40 if six else 20)
        if frame[:14] != self.macs[1] + self.macs[0] + struct.pack("!H", V6 if six else V4):
            return None
        ip, udp = frame[14:at], frame[at:]
        hosts = ip[8:40] if six else ip[12:20]
        if hosts != b"".join(self.hosts) or struct.unpack("!HH", udp[:4]) != self.ports:
            return None
        if six:
            assert ip[0] >> 4 == 6
            assert ip[4:8] == struct.pack("!HBB", len(udp), UDP, 64)
        else:
            assert checksum(ip) == 0
            assert (ip[0], ip[8], ip[9]) == (0x45, 64, UDP)
            assert ip[6:8] == b"\0\0", "a fragment, or one that must not become any"
            assert int.from_bytes(ip[2:4]) == len(ip) + len(udp)
        size = int.from_bytes(udp[4:6])
        assert size == len(udp)
        assert udp[6:8] != b"\0\0"
        assert checksum(hosts + struct.pack("!LL", size, UDP) + udp) == 0
        return udp[8:]


def between(macs: tuple[bytes, bytes], hosts: tuple[str, str], ports: tuple[int, int]) -> Ends:
    """Ends whose IP addresses are given as text."""
    family = socket.AF_INET6 if ":" in hosts[0] else socket.AF_INET
    packed = socket.inet_pton(family, hosts[0]), socket.inet_pton(family, hosts[1])
    return Ends(macs, packed, ports)
