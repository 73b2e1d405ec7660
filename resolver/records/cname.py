"""CNAME records from domain names (RFC 1035, section 3.3.1)."""

from __future__ import annotations

from ..message import wire_name

TYPE = 5


def rdata(name: str) -> bytes:
    """The RDATA of an alias of a domain name; ValueError where the text is none."""
    return wire_name(name)
