"""EDNS: what the OPT record of a query says and what ours answers (RFC 6891). Pure.

Options known here: client subnet (RFC 7871), NSID (RFC 5001), TCP keepalive (RFC 7828), extended
errors (RFC 8914, in replies). Every other option is ignored.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from .limits import MAX_EXTENDED_TEXT, MAX_OPTIONS

NSID, SUBNET, KEEPALIVE, EXTENDED = 3, 8, 11, 15
OTHER_ERROR, STALE_ANSWER, NOT_READY, STALE_NXDOMAIN, NOT_AUTHORITATIVE = 0, 3, 14, 19, 20

_OPTION = struct.Struct(">HH")
_OPT = struct.Struct(">BHHBBHH")


class Subnet(Struct, frozen=True):
    """A client subnet: `address` as it came, `packed` filled up to 4 or 16 octets.

    `source` 0 asks that nothing about the client be used; family 0 goes with it.
    """

    family: int
    source: int
    address: bytes
    packed: bytes


class Edns(Struct, frozen=True):
    """An OPT record as read; `malformed` asks for FORMERR."""

    payload: int
    do: bool = False
    version: int = 0
    nsid: bool = False
    keepalive: bool = False
    subnet: Subnet | None = None
    malformed: bool = False


def read_edns(payload: int, ttl: int, rdata: bytes) -> Edns:
    """The OPT record of class `payload`; a version above 0 is not read any further."""
    do, version = bool(ttl & 0x8000), ttl >> 16 & 0xFF
    if not rdata or version:
        return Edns(payload, do, version)
    position, left, nsid, keepalive = 0, MAX_OPTIONS, False, False
    subnet: Subnet | None = None
    malformed = Edns(payload, do, malformed=True)
    while position < len(rdata):
        left -= 1
        if left < 0 or position + 4 > len(rdata):
            return malformed
        code, length = _OPTION.unpack_from(rdata, position)
        position += 4 + length
        if position > len(rdata):
            return malformed
        if code == SUBNET:
            if subnet is not None:
                return malformed
            subnet = read_subnet(rdata[position - length : position])
            if subnet is None:
                return malformed
        elif code == NSID:
            nsid = True
        elif code == KEEPALIVE:
            keepalive = True
    return Edns(payload, do, 0, nsid, keepalive, subnet)


def read_subnet(data: bytes) -> Subnet | None:
    """A client subnet option; None where it is malformed (RFC 7871, section 6)."""
    if len(data) < 4:
        return None
    family, source, scope = int.from_bytes(data[:2]), data[2], data[3]
    address = data[4:]
    bits = {0: 0, 1: 32, 2: 128}.get(family, -1)
    if scope or source > bits or len(address) != (source + 7) // 8:
        return None
    if source % 8 and address[-1] & (0xFF >> source % 8):
        return None
    return Subnet(family, source, address, address.ljust(bits // 8, b"\0"))


def option(code: int, data: bytes) -> bytes:
    """One option on the wire."""
    return _OPTION.pack(code, len(data)) + data


def subnet_option(subnet: Subnet, scope: int) -> bytes:
    """The client subnet option of a reply: as it came, with our scope."""
    data = struct.pack(">HBB", subnet.family, subnet.source, scope) + subnet.address
    return option(SUBNET, data)


def extended_error(code: int, text: str = "") -> bytes:
    """An extended error (RFC 8914) with a text, cut to its bound."""
    return option(EXTENDED, struct.pack(">H", code) + text.encode()[:MAX_EXTENDED_TEXT])


def extended_text(data: bytes) -> tuple[int, str] | None:
    """(code, text) of what `extended_error` made; None for nothing."""
    if not data:
        return None
    return int.from_bytes(data[4:6]), data[6:].decode(errors="replace")


def opt_record(payload: int, do: bool, rcode: int, options: bytes) -> bytes:
    """Our OPT record: version 0, our payload size, the upper bits of `rcode`, DO as it came."""
    return _OPT.pack(0, 41, payload, rcode >> 4, 0, 0x8000 if do else 0, len(options)) + options
