"""Asks resolvers over real UDP sockets as a recursive resolver would, client subnet included.

With `recurse` it asks a recursive resolver instead, as a client would.

A stranger's codec (dnspython) on purpose: what it reads was not written by it.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
from msgspec import Struct

TIMEOUT_S = 1.0
"""For one answer."""
TRIES = 2


class Question(Struct, frozen=True):
    """A name and a type, and the client network (ECS) for which they are asked ("": none)."""

    name: str
    client: str = ""
    qtype: str = "A"
    recurse: bool = False

    def dig(self, server: str) -> str:
        """The same question for people to ask."""
        host, _, port = server.rpartition(":")
        subnet = f" +subnet={self.client}" if self.client else ""
        return f"dig @{host.strip('[]')} -p {port} {self.name} {self.qtype}{subnet}"


class Answer(Struct, frozen=True):
    """What came back: the rcode, the names that CNAMEs led through, the addresses; or an error."""

    rcode: str = ""
    through: tuple[str, ...] = ()
    addresses: frozenset[str] = frozenset()
    ttl: int = 0
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return self.error
        cname = "".join(f"CNAME {name}, " for name in self.through)
        found = " ".join(in_order(self.addresses)) or "no address"
        return f"{cname}{found}" if self.rcode == "NOERROR" else f"{cname}{self.rcode}"


def in_order(addresses: Iterable[str]) -> list[str]:
    """Addresses by number, IPv4 first."""

    def key(text: str) -> tuple[int, bytes]:
        address = ipaddress.ip_address(text)
        return (address.version, address.packed)

    return sorted(addresses, key=key)


def ask(
    server: str, question: Question, *, timeout_s: float = TIMEOUT_S, tries: int = TRIES
) -> Answer:
    """The answer of the resolver at `host:port`, whatever it is; never raises for a bad one.

    A datagram may get lost: silence is asked again, as resolvers do.
    """
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    options: list[dns.edns.Option] = []
    if question.client:
        network = ipaddress.ip_network(question.client)
        options.append(dns.edns.ECSOption(str(network.network_address), network.prefixlen))
    query = dns.message.make_query(
        question.name, question.qtype, use_edns=0, payload=1232, options=options
    )
    if not question.recurse:
        query.flags &= ~dns.flags.RD
    try:
        reply = dns.query.udp(query, host, timeout=timeout_s, port=int(port))
    except dns.exception.Timeout:
        if tries > 1:
            return ask(server, question, timeout_s=timeout_s, tries=tries - 1)
        return Answer(error="no answer")
    except (dns.exception.DNSException, OSError) as error:
        return Answer(error=f"no good answer ({error})")
    through, addresses, ttl = [], set(), 0
    for rrset in reply.answer:
        if rrset.rdtype == dns.rdatatype.CNAME:
            through.append(rrset[0].target.to_text(omit_final_dot=True))
        elif rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            addresses |= {rdata.address for rdata in rrset}
            ttl = rrset.ttl
    return Answer(
        rcode=dns.rcode.to_text(reply.rcode()),
        through=tuple(through),
        addresses=frozenset(addresses),
        ttl=ttl,
    )


def poll(look: Callable[[], bool], deadline_s: float, pause_s: float = 0.02) -> float | None:
    """Look until it is true; after how many seconds, None when `deadline_s` passed before."""
    began = time.monotonic()
    while True:
        if look():
            return time.monotonic() - began
        if time.monotonic() - began > deadline_s:
            return None
        time.sleep(pause_s)


def free_port(host: str = "127.0.0.1", count: int = 1) -> int:
    """The first of `count` ports in a row that are free for UDP and TCP now."""
    while True:
        with socket.socket() as probe:
            probe.bind((host, 0))
            first = int(probe.getsockname()[1])
        if first + count <= 65535 and all(_free(host, first + n) for n in range(count)):
            return first


def _free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
