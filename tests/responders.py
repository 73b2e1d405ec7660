"""The responders that can be asked here: the reference one, and the native one where it is built.

`Twin` hands every table over to the native responder, as changes of the one before, and answers
like `resolver.responder.respond`. `KINDS` says who is here: GTM_NATIVE=off leaves the native one
out, and with GTM_NATIVE=require its absence is an error.
"""

from __future__ import annotations

from collections.abc import Callable

from resolver.handover import Handover
from resolver.loader import native
from resolver.responder import Transport, respond
from resolver.table import AnswerTable

Respond = Callable[[AnswerTable, bytes, bytes, Transport, float, int], bytes | None]

MODULE = native()
KINDS = ("reference", "native") if MODULE is not None else ("reference",)


class Twin:
    """One native responder and the table that it has."""

    def __init__(self) -> None:
        assert MODULE is not None, "the native responder is not built, or GTM_NATIVE is off"
        self.native = MODULE.Native()
        self.handover = Handover()
        self.sizes = (0, 0, 0)
        """Names, nodes and client tables in force."""
        self._table: AnswerTable | None = None

    def put(self, table: AnswerTable) -> bytes:
        """Hand a table over; gives the message. ValueError where it is refused."""
        if table is self._table:
            return b""
        message = self.handover.message(table)
        self.load(message)
        self.handover.taken()
        self._table = table
        self.native.heard(table.heard_s)
        return message

    def load(self, message: bytes) -> None:
        """Load any octets. ValueError says why they are refused."""
        names, nodes, tables, *_ = self.native.load(message)
        self.sizes = names, nodes, tables

    def ask(
        self, datagram: bytes, client: bytes, transport: Transport, now: float, draw: int
    ) -> bytes | None:
        """The reply from the table in force."""
        found: bytes | None = self.native.respond(datagram, client, transport, now, draw)
        return found

    def respond(
        self,
        table: AnswerTable,
        datagram: bytes,
        client: bytes,
        transport: Transport,
        now: float,
        draw: int,
    ) -> bytes | None:
        """As `resolver.responder.respond`."""
        self.put(table)
        return self.ask(datagram, client, transport, now, draw)


def responder(kind: str) -> Respond:
    """What answers in the place of `resolver.responder.respond`, for one of `KINDS`."""
    return respond if kind == "reference" else Twin().respond


def same(
    table: AnswerTable, twin: Twin, datagram: bytes, client: bytes, now: float, draw: int
) -> None:
    """Check that both give the same octets over both transports, from a table that is put."""
    transports: tuple[Transport, ...] = ("udp", "tcp")
    for transport in transports:
        wanted = respond(table, datagram, client, transport, now, draw)
        found = twin.ask(datagram, client, transport, now, draw)
        assert found == wanted, (
            f"{transport} from {client.hex()} at {now}, draw {draw}: {datagram.hex()}\n"
            f"reference {wanted and wanted.hex()}\nnative    {found and found.hex()}"
        )
