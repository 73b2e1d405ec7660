"""AAAA records from addresses (RFC 3596, section 2.2)."""

from __future__ import annotations

import ipaddress

TYPE = 28


def rdata(address: str) -> bytes:
    """The RDATA of an IPv6 address; ValueError where the text is none."""
    return ipaddress.IPv6Address(address).packed
