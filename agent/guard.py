"""Which addresses this agent probes at all, whatever its coordinators say. Pure.

A coordinator that is mistaken, or not what it seems, must not make agents knock at the metadata
service of their cloud or at neighbours on their link. Decides by the narrowest network that an
address is in: those denied by default, those that the agent's own settings deny, and those that
they allow; of equal ones the settings count, and of these the denial. What is denied is not probed,
and the result is no opinion: it says nothing about the target.

IPv4 addresses in IPv6 clothes (mapped, compatible, NAT64, 6to4) must pass in both forms. What is
no address in its canonical form is refused: systems read `0x7f.1` or `2852039166` as addresses too.
Names are no matter here; each address that one resolves to is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from gtm.forms import is_domain

DENIED: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this network"),
    ("169.254.0.0/16", "link-local"),
    ("169.254.169.254/32", "cloud metadata"),  # AWS, Azure, GCP, OpenStack and others
    ("169.254.170.2/32", "cloud metadata"),  # AWS, containers
    ("100.100.100.200/32", "cloud metadata"),  # Alibaba Cloud
    ("168.63.129.16/32", "cloud metadata"),  # Azure
    ("192.0.0.192/32", "cloud metadata"),  # Oracle Cloud
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("::/128", "unspecified"),
    ("fe80::/10", "link-local"),
    ("fd00:ec2::254/128", "cloud metadata"),  # AWS
    ("fd00:ec2::23/128", "cloud metadata"),  # AWS, containers
    ("fd20:ce::254/128", "cloud metadata"),  # GCP
    ("ff00::/8", "multicast"),
)
"""Networks that are denied by default, and what they are."""
MAX_NETWORKS = 256
"""Networks of an agent's own settings."""

MAX_REMEMBERED = 262_144
"""Addresses whose judgement is kept, so that it costs nothing in each probe."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Guard:
    """The rules of one agent. ValueError for what is no network, or for too many of them."""

    def __init__(self, deny: Iterable[str] = (), allow: Iterable[str] = ()) -> None:
        own = [(text, "the agent's settings deny it") for text in deny]
        own += [(text, "") for text in allow]
        if len(own) > MAX_NETWORKS:
            raise ValueError(f"more than {MAX_NETWORKS} networks to deny and to allow")
        rules = [(_network(text), why) for text, why in (*own, *DENIED)]
        self._rules = sorted(rules, key=lambda rule: -rule[0].prefixlen)  # stable
        self.denies = lru_cache(maxsize=MAX_REMEMBERED)(self._denies)
        """Why an address must not be probed; "" where it may, and for names."""

    def _denies(self, address: str) -> str:
        if is_domain(address):
            return ""
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return f"{address[:60]!r} is no address"
        for form in _forms(parsed):
            why = self._why(form)
            if why:
                return f"{address}: {why}"
        return ""

    def _why(self, address: _Address) -> str:
        for network, why in self._rules:
            if address.version == network.version and address in network:
                return why
        return ""


def _network(text: str) -> _Network:
    return ipaddress.ip_network(text.strip())


def _forms(address: _Address) -> list[_Address]:
    """The address, and the IPv4 address that it carries where it does."""
    forms: list[_Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            forms.append(address.ipv4_mapped)
        elif address.sixtofour is not None:
            forms.append(address.sixtofour)
        elif address in _NAT64 or (address in _COMPATIBLE and int(address) > 0xFFFF):
            forms.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return forms
