"""What a domain name resolves to, asked of DNS servers directly (RFC 1035), by the monotonic clock.

Agents resolve names that they probe by it, the leading coordinator those of flattened pools.
Decides which silence speaks of a name and which of the servers: one that answers nothing for a
name is asked for the root before it counts as gone. Keeps no cache and never reads the hosts file:
what matters is what clients of a recursive server see now.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from msgspec import Struct

from .links import is_address
from .model import Family

TRIES = 3
"""A server that does not answer is asked so often, in the time that there is."""
MAX_SERVERS = 3
"""Servers of /etc/resolv.conf that are used, as in resolv.conf(5)."""
PAYLOAD = 1232
"""The EDNS buffer told to servers, in octets."""
SPARE = 4
"""The n-th part of the time goes to finding out whether any server answers at all."""

_TYPES: dict[Family, dns.rdatatype.RdataType] = {
    "ipv4": dns.rdatatype.A,
    "ipv6": dns.rdatatype.AAAA,
}


class Unresolved(Exception):
    """A name has no address that we could learn; `mute`: no server says anything at all."""

    def __init__(self, text: str, *, mute: bool = False) -> None:
        super().__init__(text)
        self.mute = mute


class Addresses(Struct, frozen=True):
    """Addresses of a name in canonical text, each family sorted, and the least TTL in seconds.

    `missing` are families asked for of which no server told whether there are any.
    """

    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]
    ttl: int
    missing: tuple[Family, ...] = ()


class _Told(Struct, frozen=True):
    """The end of one question: addresses, or why there are none; `heard`: some server spoke."""

    addresses: tuple[str, ...] = ()
    ttl: int = 0
    trouble: str = ""
    heard: bool = True


class Names:
    """Resolves names by the DNS server `server` (HOST:PORT), or by those of /etc/resolv.conf."""

    def __init__(self, server: str = "", conf: Path = Path("/etc/resolv.conf")) -> None:
        if server and not is_server(server):
            raise ValueError(f"{server!r} is no ADDRESS:PORT of a DNS server")
        self._server, self._conf = server, conf

    async def resolve(self, name: str, families: tuple[Family, ...], limit_s: float) -> Addresses:
        """The addresses of `name` in `families`, within `limit_s`. Raises Unresolved.

        One family is enough; why the other has none is then not told.
        """
        servers = self._servers()
        if not servers:
            raise Unresolved(f"{self._conf} names no DNS server", mute=True)
        share_s = limit_s * (SPARE - 1) / SPARE
        told = await asyncio.gather(
            *(_ask(servers, name, _TYPES[family], share_s) for family in families)
        )
        found = dict(zip(families, told, strict=True))
        if not any(one.addresses for one in told):
            trouble = next((one.trouble for one in told if one.trouble), "no address")
            mute = not any(one.heard for one in told)
            if mute and not (await _ask(servers, ".", dns.rdatatype.NS, limit_s / SPARE)).heard:
                raise Unresolved("no DNS server answers", mute=True)
            raise Unresolved(trouble)
        ttl = min(one.ttl for one in told if one.addresses)
        lists = [found[family].addresses if family in found else () for family in _TYPES]
        missing = tuple(family for family in families if found[family].trouble)
        return Addresses(lists[0], lists[1], ttl, missing)

    def _servers(self) -> list[tuple[str, int]]:
        """Whom to ask; the file is read anew each time, so that a change of it counts at once."""
        if self._server:
            host, _, port = self._server.rpartition(":")
            return [(host.strip("[]"), int(port))]
        try:
            rows = [line.split() for line in self._conf.read_text().splitlines()]
        except (OSError, UnicodeDecodeError):
            return []
        hosts = [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"]
        return [(host, 53) for host in hosts if _is_host(host)][:MAX_SERVERS]


def is_server(text: str) -> bool:
    """Whether `text` is the address and port of a DNS server."""
    return is_address(text) and _is_host(text.rpartition(":")[0].strip("[]"))


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


async def _ask(
    servers: list[tuple[str, int]], name: str, kind: dns.rdatatype.RdataType, limit_s: float
) -> _Told:
    """Ask the servers in turn until one says what there is, or the time is over."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    waiting = [server for _ in range(TRIES) for server in servers]
    trouble = ""
    while waiting and (rest := end - loop.time()) > 0:
        server, *later = waiting
        try:
            async with asyncio.timeout(rest / len(waiting)):
                told = _read(await _exchange(server, name, kind), kind)
        except (TimeoutError, OSError, EOFError, dns.exception.DNSException) as error:
            told, spoke = None, isinstance(error, dns.exception.DNSException)
            trouble = trouble or ("an answer that is none" if spoke else "")
        if told is not None and (not told.trouble or told.trouble == "NXDOMAIN"):
            return told
        if told is not None:
            trouble = told.trouble
            later = [one for one in later if one != server]
        waiting = later
    return _Told(trouble=trouble or "no answer in time", heard=bool(trouble))


def _read(answer: dns.message.Message, kind: dns.rdatatype.RdataType) -> _Told:
    """What an answer says; one whose chain of aliases can't be followed says nothing."""
    rcode = answer.rcode()
    if rcode != dns.rcode.NOERROR:
        return _Told(trouble=dns.rcode.to_text(rcode))
    assert isinstance(answer, dns.message.QueryMessage)
    chain = answer.resolve_chaining()
    if chain.answer is None:
        return _Told()
    texts = {str(one) for one in chain.answer}
    if kind in _TYPES.values():
        addresses = sorted(ipaddress.ip_address(text) for text in texts)
        texts_in_order = tuple(map(str, addresses))
    else:
        texts_in_order = tuple(sorted(texts))
    return _Told(texts_in_order, chain.minimum_ttl)


async def _exchange(
    server: tuple[str, int], name: str, kind: dns.rdatatype.RdataType
) -> dns.message.Message:
    """One question by UDP, by TCP where the answer is truncated; what does not belong is dropped.

    OSError where the server can't be reached.
    """
    query = dns.message.make_query(dns.name.from_text(name), kind, use_edns=0, payload=PAYLOAD)
    wire = query.to_wire()
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asked:
        await loop.sock_connect(asked, server)
        await loop.sock_sendall(asked, wire)
        while True:
            answer = _parsed(await loop.sock_recv(asked, 65_535))
            if answer is not None and query.is_response(answer):
                break
    if answer.flags & dns.flags.TC:
        return await _by_tcp(server, query, wire)
    return answer


async def _by_tcp(
    server: tuple[str, int], query: dns.message.Message, wire: bytes
) -> dns.message.Message:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(wire).to_bytes(2) + wire)
        answer = dns.message.from_wire(
            await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        )
        if not query.is_response(answer):
            raise dns.exception.FormError
        return answer
    finally:
        with contextlib.suppress(OSError):
            writer.close()


def _parsed(data: bytes) -> dns.message.Message | None:
    try:
        return dns.message.from_wire(data, ignore_trailing=True)
    except dns.exception.DNSException:
        return None
