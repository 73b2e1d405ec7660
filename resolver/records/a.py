"""A records from addresses (RFC 1035, section 3.4.1)."""

from __future__ import annotations

import ipaddress

TYPE = 1


def rdata(address: str) -> bytes:
    """The RDATA of an IPv4 address; ValueError where the text is none."""
    return ipaddress.IPv4Address(address).packed
