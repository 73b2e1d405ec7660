"""A DNS server for tests, written with dnslib: a stranger to our codec, on UDP and TCP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import dnslib


class NameServer:
    """Answers from `rows`: name -> "A 192.0.2.1" texts, or an rcode's name, or "silent".

    What is not there is NXDOMAIN; the root has an NS unless `rows` says otherwise. With
    `truncating` every answer by UDP is truncated. `asked` has the questions in order.
    """

    def __init__(self, ttl: int = 60) -> None:
        self.rows: dict[str, list[str] | str] = {".": ["NS a.root."]}
        self.ttl = ttl
        self.truncating = False
        self.asked: list[str] = []
        self.port = 0

    @property
    def address(self) -> str:
        """Where it is reached."""
        return f"127.0.0.1:{self.port}"

    def reply(self, data: bytes, *, tcp: bool) -> bytes | None:
        """The answer to one query, None for silence."""
        query = dnslib.DNSRecord.parse(data)
        name = str(query.q.qname).rstrip(".") or "."
        kind = dnslib.QTYPE[query.q.qtype]
        self.asked.append(f"{name} {kind}")
        rows = self.rows.get(name, "NXDOMAIN")
        if rows == "silent":
            return None
        reply = query.reply()
        if isinstance(rows, str):
            reply.header.rcode = getattr(dnslib.RCODE, rows)
        elif self.truncating and not tcp:
            reply.header.tc = 1
        else:
            self._add(reply, name, kind)
        return bytes(reply.pack())

    def _add(self, reply: dnslib.DNSRecord, name: str, kind: str) -> None:
        rows = self.rows.get(name, "NXDOMAIN")
        for row in rows if isinstance(rows, list) else ():
            rtype, _, data = row.partition(" ")
            if rtype not in (kind, "CNAME"):
                continue
            reply.add_answer(*dnslib.RR.fromZone(f"{name.rstrip('.')}. {self.ttl} {rtype} {data}"))
            if rtype == "CNAME":
                self._add(reply, data.rstrip("."), kind)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, source: Any) -> None:
        if (reply := self._server.reply(data, tcp=False)) is not None:
            self._transport.sendto(reply, source)


@contextlib.asynccontextmanager
async def name_server(ttl: int = 60) -> AsyncIterator[NameServer]:
    """A server on a free port of loopback, for as long as the block lasts."""
    server = NameServer(ttl)

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            size = int.from_bytes(await reader.readexactly(2))
            reply = server.reply(await reader.readexactly(size), tcp=True)
            if reply is not None:
                writer.write(len(reply).to_bytes(2) + reply)
                await writer.drain()
        writer.close()

    listener = await asyncio.start_server(stream, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Datagrams(server), local_addr=("127.0.0.1", server.port)
    )
    try:
        yield server
    finally:
        transport.close()
        listener.close()
