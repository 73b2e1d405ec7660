"""Record data of any type from zone-file text, through dnspython, at compile time only.

Packets are never made or read here. Types unknown to the library go in the form of RFC 3597.
"""

from __future__ import annotations

from functools import cache

SYNTHETIC = frozenset({6})
"""Types that are made from other settings: SOA."""


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
    import dns.name
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype

    number = rtype(type_text)
    try:
        origin = dns.name.from_text(zone)
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
        return dns.name.from_text(name, dns.name.from_text(zone)).to_digestable()
    except (dns.exception.DNSException, ValueError, UnicodeError) as error:
        raise ValueError(
            f"{name!r} is no name in a zone: {error or type(error).__name__}"
        ) from None
