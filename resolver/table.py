"""The answer table: everything that a query needs, immutable, swapped by one reference.

The compiler makes it, the responder reads it. Names point to slots, slots to plans: a change of a
pool's state replaces plans, however many names use them. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from .limits import DEFAULT_UDP, MAX_NSID, MAX_UDP, PLAIN_UDP, STALE_AFTER_S
from .message import ROOT, parent
from .place import Locator, Unplaced
from .plan import Answers, Node

if TYPE_CHECKING:
    from .compiler import Made


class Serving(Struct, frozen=True, kw_only=True):
    """How this server speaks, the same for all names. Empty texts turn a thing off.

    `nsid` answers NSID, `version` and `server` the CH names version.bind and id.server;
    `idle_s` is the TCP idle time announced to clients that ask (RFC 7828).
    """

    nsid: str = ""
    version: str = ""
    server: str = ""
    udp_payload: int = DEFAULT_UDP
    idle_s: float = 10.0
    stale_after_s: float = STALE_AFTER_S

    def __post_init__(self) -> None:
        if not PLAIN_UDP <= self.udp_payload <= MAX_UDP:
            raise ValueError(f"an EDNS buffer is {PLAIN_UDP} to {MAX_UDP} octets")
        if len(self.nsid.encode()) > MAX_NSID:
            raise ValueError(f"a server identifier has at most {MAX_NSID} octets")
        if max(len(self.version.encode()), len(self.server.encode())) > 255:
            raise ValueError("a text about the server has at most 255 octets")
        if not self.stale_after_s >= 0:  # nor what is no number
            raise ValueError("answers are stale after 0 s or more")


class ZoneApex(Struct, frozen=True, gc=False):
    """What negative answers of a zone carry: its name, SOA data, and the least TTLs of the SOA."""

    name: bytes
    soa: bytes
    ttl: int
    serial: int


class Cut(Struct, frozen=True, gc=False):
    """A delegation: the name, the servers of its NS records with their TTL in seconds, and glue.

    Each piece of glue is a server and one record of its addresses, all but the owner.
    """

    name: bytes
    ttl: int
    servers: tuple[bytes, ...]
    glue: tuple[tuple[bytes, bytes], ...] = ()


class Name(Struct, frozen=True, gc=False):
    """One name of our zones. Empty means an empty non-terminal (NODATA).

    `zone` indexes the table's zones, `slot` (-1: none) the instance whose plans give A and AAAA.
    `absent` is an access name that is switched off. `above` is the zone on the other side of an
    apex, where that is ours too, and `ds` the DS records there.
    """

    zone: int
    rrsets: dict[int, Answers]
    slot: int = -1
    absent: bool = False
    cut: Cut | None = None
    above: int = -1
    ds: Answers | None = None


class Slot(Struct, frozen=True, gc=False):
    """An instance: the plans of A and AAAA, by index, and its TTL in seconds."""

    a: int
    aaaa: int
    ttl: int


class AnswerTable(Struct, frozen=True, kw_only=True):
    """All answers as of `revision`; treat the collections as read-only.

    `heard_s` is when, on the monotonic clock in seconds, the table was last known up to date;
    minus infinity means never. A table that is not `ready` answers SERVFAIL to everything.
    `aliased` are the numbers of the plans that may answer a CNAME.
    """

    revision: int = 0
    heard_s: float = float("-inf")
    ready: bool = True
    serving: Serving = field(default_factory=Serving)
    locator: Locator = field(default_factory=Unplaced)
    zones: Sequence[ZoneApex] = ()
    names: dict[bytes, Name] = field(default_factory=dict)
    slots: Sequence[Slot] = ()
    plans: Sequence[Node] = ()
    aliased: frozenset[int] = frozenset()
    made: Made | None = None

    def find(self, qname: bytes) -> tuple[Name | None, bytes]:
        """(name, b"") where `qname` (lower case, on the wire) exists, by a wildcard maybe.

        (None, closest encloser) where it does not (RFC 4592), (None, b"") outside our zones.
        """
        names = self.names
        found = names.get(qname)
        if found is not None:
            return found, b""
        above = qname
        while above != ROOT:
            above = parent(above)
            encloser = names.get(above)
            if encloser is not None:
                found = names.get(b"\x01*" + above) if encloser.cut is None else None
                return found, b"" if found is not None else above
        return None, b""

    def plan(self, name: Name, family: str) -> Node | None:
        """The plan of an access name for ipv4 or ipv6; None where the name has no instance."""
        if name.slot < 0:
            return None
        slot = self.slots[name.slot]
        return self.plans[slot.a if family == "ipv4" else slot.aaaa]


def instances_of(table: AnswerTable) -> dict[int, str]:
    """The instance of each slot, by number."""
    made = table.made
    return {} if made is None else {slot: name for name, slot in made.slot_of.items()}


def heard(table: AnswerTable, now_s: float) -> AnswerTable:
    """The same table, known to be up to date at `now_s` (monotonic)."""
    return replace(table, heard_s=now_s)


def not_ready(serving: Serving) -> AnswerTable:
    """The table of a resolver that has neither store nor snapshot: SERVFAIL, "not ready"."""
    return AnswerTable(ready=False, serving=serving)
