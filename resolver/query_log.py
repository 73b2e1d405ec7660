"""The sampled query log: JSON lines, written by one thread, that no query ever waits for.

Decides what a line says, and what is lost where it can't be written: lines, counted. The file is
opened again once it was moved away, so that any rotation by renaming will do.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from gtm.errors import StartError
from gtm.telemetry import transition

from .edns import SUBNET
from .message import OPT, name_text
from .meters import RCODES
from .plan import CNAME
from .responder import Transport
from .table import AnswerTable, Slot, instances_of

STDOUT = "-"
"""What stands for standard output in place of a file."""
MOST = 1024
"""Lines written at once."""
PAUSE_S = 0.05
"""How long the writer sleeps when there is nothing to write."""
CLOSE_S = 2.0
"""How long the end waits for the last lines."""
MODE = 0o640
"""Permissions of a file that is made: it names clients."""
MAX_ANSWERS = 64
"""Answers that one line names."""
TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV",
    35: "NAPTR", 43: "DS", 46: "RRSIG", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 251: "IXFR",
    252: "AXFR", 255: "ANY", 257: "CAA",
}  # fmt: skip
"""Types by name; others are shown as RFC 3597 has them."""

_log = logging.getLogger("resolver")


class Seen(Struct, frozen=True):
    """A query of the log: when (Unix), from whom, what, and the reply.

    `qname` is on the wire as it came, `subnet` the length and address of a client subnet; `reply`
    the front of the reply, of `size` octets, of which there are none for silence.
    """

    at_s: float
    transport: Transport
    client: bytes
    qname: bytes
    qtype: int
    subnet: tuple[int, bytes] | None
    reply: bytes
    size: int


def line(seen: Seen, table: AnswerTable | None, instances: Mapping[int, str]) -> str:
    """One line of the log, without its end; ASCII, whatever the query had in it.

    `instances` has the instance of each slot of `table`.
    """
    answers, scope = read_reply(seen.reply)
    entry: dict[str, Any] = {
        "time": datetime.fromtimestamp(seen.at_s, UTC).isoformat(timespec="milliseconds"),
        "client": str(_address(seen.client)),
        "transport": seen.transport,
        "qname": name_text(seen.qname) if seen.qname else "",
        "qtype": TYPES.get(seen.qtype, f"TYPE{seen.qtype}"),
        "rcode": rcode_of(seen.reply),
        "instance": instance_of(seen.qname, table, instances),
        "answers": answers,
        "size": seen.size,
    }
    if seen.subnet is not None:
        source, packed = seen.subnet
        entry["ecs"] = f"{_address(packed)}/{source}"
        entry["scope"] = scope
    return json.dumps(entry, ensure_ascii=True, separators=(",", ":"))


def rcode_of(reply: bytes) -> str:
    """The text of the rcode in a reply's header; "none" for silence."""
    return RCODES[reply[3] & 15] if len(reply) > 3 else "none"


def instance_of(qname: bytes, table: AnswerTable | None, instances: Mapping[int, str]) -> str:
    """The instance that a name is an access name of; "" where it is none's."""
    name = table.names.get(qname.lower()) if table is not None else None
    return instances.get(name.slot, "") if name is not None else ""


def read_reply(reply: bytes) -> tuple[list[str], int | None]:
    """(addresses and targets of aliases answered, client subnet scope) of the front of a reply."""
    answers: list[str] = []
    scope: int | None = None
    if len(reply) < 12:
        return answers, scope
    counts = [int.from_bytes(reply[at : at + 2]) for at in (4, 6, 8, 10)]
    position = 12
    with contextlib.suppress(IndexError):  # the rest was not kept
        for _ in range(counts[0]):
            position = _behind_name(reply, position) + 4
        for number in range(sum(counts[1:])):
            position = _behind_name(reply, position)
            rtype = int.from_bytes(reply[position : position + 2])
            end = position + 10 + int.from_bytes(reply[position + 8 : position + 10])
            data = reply[position + 10 : end]
            if end > len(reply):
                break
            if number < min(counts[1], MAX_ANSWERS):
                answers += _shown(rtype, data)
            elif rtype == OPT:
                scope = _scope(data)
            position = end
    return answers, scope


def _behind_name(reply: bytes, position: int) -> int:
    while (length := reply[position]) != 0:
        if length >= 0xC0:
            return position + 2
        position += length + 1
    return position + 1


def _shown(rtype: int, data: bytes) -> list[str]:
    if (rtype, len(data)) in ((1, 4), (28, 16)):
        return [str(ipaddress.ip_address(data))]
    return [name_text(data)] if rtype == CNAME else []


def _scope(options: bytes) -> int | None:
    position = 0
    while position + 4 <= len(options):
        code = int.from_bytes(options[position : position + 2])
        size = int.from_bytes(options[position + 2 : position + 4])
        if code == SUBNET and size >= 4 and position + 8 <= len(options):
            return options[position + 7]
        position += 4 + size
    return None


def _address(packed: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(packed)
    mapped = found.ipv4_mapped if found.version == 6 else None
    return mapped or found


class QueryLog:
    """Writes what `take` gives to a file, or to standard output, in a thread of its own."""

    def __init__(
        self,
        path: str,
        take: Callable[[int], Sequence[Seen]],
        table: Callable[[], AnswerTable | None],
    ) -> None:
        """StartError (2) where the file can't be opened."""
        self.written, self.lost = 0, 0
        self._path, self._take, self._table = path, take, table
        self._slots: Sequence[Slot] = ()
        self._instances: dict[int, str] = {}
        self._fd = -1
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="query-log", daemon=True)
        try:
            self._open()
        except OSError as error:
            raise StartError(f"--query-log {path}: {error.strerror}", 2) from error

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what is there, and end; in vain where nobody reads what we write."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._shut()

    def _run(self) -> None:
        while True:
            ending = self._stop.is_set()
            seen = self._take(MOST)
            if seen:
                self._write(seen)
            elif ending:
                return
            else:
                self._stop.wait(PAUSE_S)

    def _write(self, some: Sequence[Seen]) -> None:
        table = self._table()
        if table is not None and table.slots is not self._slots:
            self._slots, self._instances = table.slots, instances_of(table)
        lines = "".join([line(seen, table, self._instances) + "\n" for seen in some]).encode()
        try:
            if self._moved():
                self._open()
            while lines:
                lines = lines[os.write(self._fd, lines) :]
        except OSError as error:
            self.lost += len(some)
            if not self._failing:
                cause = error.strerror
                transition(_log, "query log fails", logging.ERROR, path=self._path, cause=cause)
            self._failing = True
            return
        self.written += len(some)
        if self._failing:
            transition(_log, "query log written again", path=self._path)
        self._failing = False

    def _moved(self) -> bool:
        """Whether the file at our path is not the one that we write to."""
        if self._path == STDOUT:
            return False
        if self._fd < 0:
            return True
        own = os.fstat(self._fd)
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return True
        return (own.st_dev, own.st_ino) != (there.st_dev, there.st_ino)

    def _open(self) -> None:
        self._shut()
        if self._path == STDOUT:
            self._fd = os.dup(sys.stdout.fileno())
        else:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, MODE)

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
