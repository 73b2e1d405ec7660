"""Record data of any type from zone-file text, through dnspython, at compile time only.

Packets are never made or read here. Types unknown to the library go in the form of RFC 3597.
"""

from __future__ import annotations

import ipaddress
import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dns.name

SYNTHETIC = frozenset({6})
"""Types that are made from other settings: SOA."""

_IPV4 = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})")
_IPV6 = re.compile(r"[0-9a-fA-F:]{2,39}")
_PLAIN = re.compile(r"(?!.{192})[a-zA-Z0-9_-]{1,63}(?:\.[a-zA-Z0-9_-]{1,63})*")
"""Relative names that need no library to be read; so do nearly all."""


@lru_cache(maxsize=64)
def _origin(zone: str) -> dns.name.Name:
    import dns.name

    return dns.name.from_text(zone)


@lru_cache(maxsize=64)
def _origin_wire(zone: str) -> bytes:
    return _origin(zone).to_digestable()


def _address(number: int, data: str) -> bytes | None:
    """The RDATA of an address in its usual form; None where the library shall look at it."""
    if number == 1 and _IPV4.fullmatch(data):
        parts = [int(part) for part in data.split(".")]
        return bytes(parts) if max(parts) < 256 else None
    if number == 28 and _IPV6.fullmatch(data):
        try:
            return ipaddress.IPv6Address(data).packed
        except ValueError:
            return None
    return None


@cache
def rtype(text: str) -> int:
    """The number of a record type by name or as TYPE123; ValueError where it can't be stored."""
    import dns.exception
    import dns.rdatatype

    try:
        number = int(dns.rdatatype.from_text(text))
    except (dns.exception.DNSException, ValueError):
        raise ValueError(f"{text!r} is no record type such as MX or TYPE65280") from None
    if number in SYNTHETIC:
        raise ValueError("SOA records are made from the zone's `soa`")
    if number == 0 or number == 41 or 128 <= number <= 255:
        raise ValueError(f"{text!r} asks a question, it is no type of stored records")
    return number


def rdata(type_text: str, data: str, zone: str) -> bytes:
    """The RDATA of one text in zone-file form; names in it are relative to `zone`.

    ValueError says in one sentence what is wrong with the text.
    """
    number = rtype(type_text)
    if (plain := _address(number, data)) is not None:
        return plain
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype

    try:
        origin = _origin(zone)
        parsed = dns.rdata.from_text(
            dns.rdataclass.IN,
            dns.rdatatype.RdataType.make(number),
            data,
            origin=origin,
            relativize=False,
        )
        wire = parsed.to_wire(origin=origin)
    except Exception as error:  # the library raises whatever its parsers of types raise
        reason = str(error) or type(error).__name__
        raise ValueError(f"{data!r} is no {type_text} data: {reason}") from None
    if wire is None or len(wire) > 65535:
        raise ValueError(f"{data!r} is too long for a record")
    return wire


def owner(name: str, zone: str) -> bytes:
    """The wire form, in lower case, of a name relative to `zone` (`@`: the zone itself)."""
    import dns.exception
    import dns.name

    try:
        if _PLAIN.fullmatch(name) and len(name) + len(above := _origin_wire(zone)) < 255:
            labels = name.lower().encode().split(b".")
            return b"".join([bytes((len(label),)) + label for label in labels]) + above
        return dns.name.from_text(name, _origin(zone)).to_digestable()
    except (dns.exception.DNSException, ValueError, UnicodeError) as error:
        raise ValueError(
            f"{name!r} is no name in a zone: {error or type(error).__name__}"
        ) from None
