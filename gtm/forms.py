"""The text forms of names, addresses and lines: what users may write, and the one canonical text.

Pure. Each function gives the canonical text or raises ValueError with a sentence fit for a user;
`FORMS` has them under the names that `gtm.model` marks its fields with.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping

from gtm.lines import parse_line

MAX_NAME = 253
"""The longest domain name in text without its last dot (RFC 1035, section 2.3.4)."""

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_DOMAIN_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_OWNER_LABEL = re.compile(r"\*|(?:[a-z0-9_/-]|\\\d{3}){1,63}", re.ASCII)
_ESCAPE = re.compile(r"\\(\d{3}|[ -/:-~])", re.ASCII)
_OCTET = r"(?:0|[1-9]\d?|1\d\d|2[0-4]\d|25[0-5])"
_HOST_IPV4 = re.compile(rf"(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.{_OCTET}){{3}}", re.ASCII)
"""Canonical IPv4 addresses of 1.0.0.0 to 223.255.255.255: the quick way for most of them."""
_WITH_PORT = re.compile(r"(?:\[(.+)\]|([^:]+)):(\d+)")


def label(text: str) -> str:
    """A resource's own name."""
    if not _LABEL.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name: 1 to 63 letters, digits, - and _, "
            "with a letter or digit first and last"
        )
    return text


def domain(text: str) -> str:
    """An absolute domain name, in lower case without the last dot; "." is the root."""
    if text == ".":
        return text
    name = text.lower().removesuffix(".")
    if not name:
        raise ValueError(f"{text!r} is no domain name")
    if not name.isascii():
        raise ValueError(f"{text!r} is not ASCII; write it in its xn-- form")
    if "@" in name:
        raise ValueError(f"{text!r} is no domain name; a mailbox is written with a dot for the @")
    if len(name) > MAX_NAME:
        raise ValueError(f"{text[:40] + '...'!r} is longer than {MAX_NAME} characters")
    for part in name.split("."):
        if not _DOMAIN_LABEL.fullmatch(part):
            raise ValueError(
                f"{text!r} is no domain name: {part!r} is no label of 1 to 63 characters"
            )
    return name


def owner(text: str, zone: str) -> str:
    r"""The owner of records in `zone`, relative to it: `@`, `www`, `*.www`.

    A name with a last dot is absolute and must lie in the zone. Octets beyond letters, digits, -, _
    and / are written as in master files (RFC 1035, section 5.1) and become `\DDD`, a dot inside
    a label too.
    """
    name = _ESCAPE.sub(_octet, text.lower())
    if name.endswith("."):
        absolute = name.removesuffix(".")
        if absolute == zone:
            return "@"
        if not absolute.endswith(f".{zone}"):
            raise ValueError(f"{text!r} lies outside the zone {zone}")
        name = absolute.removesuffix(f".{zone}")
    if name == "@":
        return name
    if len(name) - 3 * name.count("\\") + len(zone) + 1 > MAX_NAME:
        raise ValueError(f"{text[:40] + '...'!r} is too long with the zone's name behind it")
    parts = ["*" if part == r"\042" else part for part in name.split(".")]
    for part in parts:
        if not _OWNER_LABEL.fullmatch(part):
            raise ValueError(f"{text!r} is no name of records: {part!r} is no label")
    return ".".join(parts)


def _octet(match: re.Match[str]) -> str:
    r"""The one text of an escaped octet: itself where it needs no escape, else `\DDD`."""
    code = int(match[1]) if match[1].isdecimal() else ord(match[1])
    if code > 255:
        raise ValueError(f"{match.string!r} is no name of records: {match[0]} is no octet")
    plain = chr(code).lower()
    return plain if plain.isascii() and (plain.isalnum() or plain in "-_/") else f"\\{code:03}"


def absolute(name: str, zone: str) -> str:
    """An owner of `zone` in full: the reverse of `owner`."""
    return zone if name == "@" else f"{name}.{zone}"


def address(text: str) -> str:
    """An IPv4 or IPv6 address in its canonical text (RFC 5952), of one host."""
    if _HOST_IPV4.fullmatch(text):
        return text
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        if match := _WITH_PORT.fullmatch(text):
            bare = match[1] or match[2]
            try:
                ipaddress.ip_address(bare)
            except ValueError:
                pass
            else:
                raise ValueError(
                    f"{text!r} is an address with a port; write value {bare} and port {match[3]}"
                ) from None
        raise ValueError(f"{text!r} is no IPv4 or IPv6 address") from None
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            raise ValueError(f"{text!r} is IPv4 in IPv6 clothes; write {parsed.ipv4_mapped}")
        if parsed.scope_id is not None:
            raise ValueError(f"{text!r} has a scope, which means nothing to clients")
    if parsed.is_unspecified or parsed.is_multicast or str(parsed) == "255.255.255.255":
        raise ValueError(f"{text!r} is no address of a host")
    return str(parsed)


def canary(text: str) -> str:
    """An address that is pinged, or `ADDRESS:PORT` that is connected to (IPv6 in brackets)."""
    match = _WITH_PORT.fullmatch(text)
    if match is None:
        return address(text)
    if not 0 < int(match[3]) < 65536:
        raise ValueError(f"{match[3]} in {text!r} is no port")
    host = address(match[1] or match[2])
    return f"[{host}]:{int(match[3])}" if ":" in host else f"{host}:{int(match[3])}"


def member(text: str) -> str:
    """A member of a pool: an address, or a domain name for pools of type domain."""
    if ":" in text or not text.strip("0123456789./"):
        return address(text)
    try:
        return domain(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no IPv4 or IPv6 address, and {error}") from None


def is_domain(member_text: str) -> bool:
    """Whether a member in its canonical text is a domain name, not an address."""
    return ":" not in member_text and bool(member_text.strip("0123456789."))


def network(text: str) -> str:
    """A network in its canonical text; host bits must be zero."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is no network such as 203.0.113.0/24: {error}") from None


def line(text: str) -> str:
    """A built-in line, or the name of one of `lines`."""
    return str(parse_line(text))


def instead(value: object, words: Iterable[str]) -> str:
    """`, did you mean 'x'?` where `value` is nearly one of `words`; else ""."""
    close = difflib.get_close_matches(value, list(words), n=1) if isinstance(value, str) else []
    return f", did you mean {close[0]!r}?" if close else ""


FORMS: Mapping[str, Callable[[str], str]] = {
    "label": label,
    "domain": domain,
    "address": address,
    "member": member,
    "network": network,
    "line": line,
    "canary": canary,
}
