"""The native responder in a resolver: tables handed over, doors opened, counts read.

Decides what a refused hand-over means: everything is sent once more, and where that is refused too
the state is, so that the last table stays in both responders. Answers nothing itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from gtm.telemetry import transition

from .cells import (
    BROKEN,
    CONNECTIONS,
    EXPIRED,
    EXPRESS,
    FAILED,
    HELD,
    OUTCOMES,
    OVERSIZE,
    REFUSED,
    TCP,
    UDP,
    UNSENT,
    Labels,
    Use,
)
from .handover import Handover
from .message import name_text
from .meters import NONE, OTHER
from .native_meter import Loads
from .table import AnswerTable, Serving, heard, instances_of, not_ready
from .tcp import TcpLimits

if TYPE_CHECKING:
    from ._native import Native

BACKLOG = 1024
"""TCP connections that wait to be accepted."""

_log = logging.getLogger("resolver")


class NativeResponder:
    """The native responder of one resolver; it says "not ready" until a table is put."""

    def __init__(self, module: ModuleType, serving: Serving) -> None:
        self.loads = Loads()
        self.labels = Labels()
        self.native: Native = module.Native()
        self._handover = Handover(self.labels)
        self._lock = threading.Lock()
        self._broken = False
        self.put(not_ready(serving))

    def put(self, table: AnswerTable) -> None:
        """Have it answer from `table`; any thread. ValueError where it refuses."""
        with self._lock:
            self._put(table)

    def heard(self, table: AnswerTable, at_s: float) -> AnswerTable:
        """`table`, known to be up to date at `at_s`, here and in the native responder."""
        self.native.heard(at_s)
        self.native.sweep()
        if not self._broken and (defect := self.native.defect()):
            self._broken = True
            _log.error("a query broke the responder: %s", defect)
        return heard(table, at_s)

    async def tidy(self, now_s: float) -> int:
        """Take their cells from labels that have long been in no table; gives how many.

        A cell is free when no node that the responder may still have names it, and no worker reads
        a former table; else all of them wait for the next call.
        """
        return await asyncio.to_thread(self._tidy, now_s)

    def _tidy(self, now_s: float) -> int:
        handover = self._handover
        with self._lock:
            if handover.table is None:
                return 0
            handover.forget_unused()
            self._put(handover.table)
            nodes, last = handover.nodes()
        met = Use()
        met.add(nodes)  # long, so not under the lock
        with self._lock:
            if handover.table is None or self.native.sweep():
                return 0
            use = self.labels.names_in(handover.table)
            use.lines, use.pools, use.addresses = met.lines, met.pools, met.addresses
            use.add(handover.nodes(last)[0])
            return self.labels.tidy(use, now_s, self.native.counted)

    def door(self, sockets: Sequence[socket.socket]) -> NativeDoor:
        """The door of one address."""
        return NativeDoor(self.native, sockets)

    def streams(self, limits: TcpLimits) -> NativeStreams:
        """What serves every address over TCP."""
        return NativeStreams(self, self.native, limits)

    def counted(self, first: int, count: int) -> list[int]:
        """The counts of `count` cells from `first` on."""
        counts: list[int] = self.native.counted(first + count)
        return counts[first:]

    def unsent(self) -> int:
        """Answers over UDP that the kernel did not take."""
        return self.counted(UNSENT, 1)[0]

    def oversize(self) -> int:
        """Queries over UDP larger than any that is read."""
        return self.counted(OVERSIZE, 1)[0]

    def express(self) -> tuple[int, int, int]:
        """Datagrams that came by AF_XDP, the malformed ones of them, those without a place."""
        came, malformed = self.counted(EXPRESS, 2)
        return came, malformed, self.native.xdp_lost()

    def close(self) -> None:
        """End the workers."""
        self.native.close()

    def _put(self, table: AnswerTable) -> None:
        try:
            self._load(table)
        except ValueError as error:
            self.loads.refused += 1
            cause = str(error)
            transition(_log, "hand-over refused, sent whole", logging.ERROR, cause=cause)
            self._handover.forget()
            self._load(table)

    def _load(self, table: AnswerTable) -> None:
        begun = time.monotonic()
        message = self._handover.message(table)
        loads = self.loads
        loads.encoding_s = time.monotonic() - begun
        loads.message_bytes = len(message)
        (
            loads.names,
            loads.nodes,
            loads.tables,
            loads.names_bytes,
            loads.tables_bytes,
            loads.loading_s,
        ) = self.native.load(message)
        loads.count += 1
        loads.all_encoding_s += loads.encoding_s
        loads.all_loading_s += loads.loading_s
        self._handover.taken()


class NativeDoor:
    """One address over UDP, served by a thread for each socket."""

    def __init__(self, native: Native, sockets: Sequence[socket.socket]) -> None:
        self._native, self._sockets = native, list(sockets)
        host, port = sockets[0].getsockname()[:2]
        self.address: tuple[str, int] = (host, int(port))

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that it reads from."""
        return self._sockets

    def open(self) -> None:
        """Begin to answer."""
        for sock in self._sockets:
            self._begin(sock)

    def add(self, sock: socket.socket) -> None:
        """Serve one more socket of the address."""
        self._sockets.append(sock)
        self._begin(sock)

    async def retire(self) -> None:
        """End the workers, after the batch at hand, and close the sockets."""
        await asyncio.to_thread(self._native.end_udp)
        self.close()

    def close(self) -> None:
        """Close our side of the sockets; the workers end with the responder."""
        for sock in self._sockets:
            sock.close()

    def _begin(self, sock: socket.socket) -> None:
        wildcard, seed = self.address[0] in ("0.0.0.0", "::"), int.from_bytes(os.urandom(8))
        self._native.serve_udp(sock.fileno(), wildcard, seed)

    def unsent(self) -> int:
        """None: the responder counts for all its doors."""
        return 0

    def oversize(self) -> int:
        """None: the responder counts for all its doors."""
        return 0


class NativeStreams:
    """Every address over TCP, served by one thread."""

    def __init__(self, responder: NativeResponder, native: Native, limits: TcpLimits) -> None:
        self._responder, self._native, self._limits = responder, native, limits
        self._sockets: Sequence[socket.socket] = ()

    def __len__(self) -> int:
        return self._responder.counted(CONNECTIONS, 1)[0]

    @property
    def refused(self) -> int:
        """Connections closed at once because there were too many."""
        return self._responder.counted(REFUSED, 1)[0]

    @property
    def expired(self) -> int:
        """Connections ended for being idle or old."""
        return self._responder.counted(EXPIRED, 1)[0]

    @property
    def held_bytes(self) -> int:
        """What connections hold of queries that are not whole, and answers that are not taken."""
        return self._responder.counted(HELD, 1)[0]

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to accept from bound sockets, which are ours from then on. Raises OSError."""
        for sock in sockets:
            sock.listen(BACKLOG)
        limits = self._limits
        self._native.serve_tcp(
            [sock.fileno() for sock in sockets],
            limits.connections,
            limits.per_client,
            limits.idle_s,
            limits.total_s,
            int.from_bytes(os.urandom(8)),
        )
        self._sockets = sockets

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that it accepts from."""
        return self._sockets

    async def drain(self, grace_s: float) -> None:
        """Accept nothing more; connections live on, for `grace_s` at most, then are ended.

        Who waits to be accepted waits for whoever else has our sockets.
        """
        self._forget_sockets()
        self._native.drain_tcp(grace_s)

    async def close(self) -> None:
        """Accept nothing more and end every connection; twice is as good as once."""
        self._forget_sockets()
        await asyncio.to_thread(self._native.end_tcp)

    def _forget_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets = ()


class NativeTally:
    """Queries of one transport by outcome, as `meters.Tally` has them."""

    def __init__(self, responder: NativeResponder, transport: str) -> None:
        udp = transport == "udp"
        self._responder, self._first, self._failed = (
            responder,
            *((UDP, FAILED) if udp else (TCP, BROKEN)),
        )

    @property
    def failed(self) -> int:
        """Queries that broke the responder."""
        return self._responder.counted(self._failed, 1)[0]

    @property
    def outcomes(self) -> list[int]:
        """Queries by rcode, and those without an answer."""
        return self._responder.counted(self._first, OUTCOMES)

    def total(self) -> int:
        """All queries so far."""
        return sum(self.outcomes)


class NativeNames:
    """Queries by the access name asked, as `meters.NameTally` has them."""

    def __init__(self, responder: NativeResponder) -> None:
        self._responder = responder

    def rows(self, table: AnswerTable | None) -> Iterator[tuple[str, str, list[int]]]:
        """(label, instance, counts) of the access names of `table`, of the others, of the rest."""
        labels = self._responder.labels
        base, own_names, shared = labels.base, labels.names.rows(), labels.instances.rows()
        spare = [*labels.names.spare, *labels.instances.spare]
        counts = self._responder.counted(0, labels.end)
        rest = [
            udp + tcp
            for udp, tcp in zip(
                counts[UDP : UDP + OUTCOMES], counts[TCP : TCP + OUTCOMES], strict=True
            )
        ]
        names = table.names if table is not None else {}
        instances = instances_of(table) if table is not None else {}

        def own_of(first: int) -> list[int]:
            nonlocal rest
            cells = range(first, first + OUTCOMES)
            rest = [max(0, left - counts[cell]) for left, cell in zip(rest, cells, strict=True)]
            return [counts[cell] - base.get(cell, 0) for cell in cells]

        for first in spare:  # names that went away were none of the rest either
            own_of(first)
        for qname, first in own_names:
            own = own_of(first)
            name = names.get(qname) if qname is not None else None
            if qname is not None and name is not None and name.slot >= 0:
                yield name_text(qname), instances.get(name.slot, OTHER), own
        for instance, first in shared:
            yield OTHER, OTHER if instance is None else instance, own_of(first)
        yield NONE, NONE, rest
