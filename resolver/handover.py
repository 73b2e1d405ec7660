"""From an answer table to the octets that the native responder loads: all of it, or what changed.

Decides what has to be sent: nodes and client tables that were sent before are named by number, what
nobody uses any more is forgotten. Pure, but for what it remembers of the last table that was taken.
The form stands in `native/src/load.rs`; numbers are little-endian.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, compress, count, repeat
from operator import is_not
from struct import Struct
from zlib import crc32

from .cells import Labels
from .plan import Answers, Hashed, Located, Node, Weighted, nodes_of
from .table import AnswerTable, Cut, Name, Serving, instances_of
from .territory import ClientSpans, ClientTable

MAGIC = b"GTMTABLE"
VERSION = 1
SPARE_NODES = 1_024
"""Nodes that were sent may be so many more than those in use before they are looked through."""

_HEAD = Struct("<8sIIQ")
_BODY = Struct("<BQQQB")
_U16, _U32, _U64 = Struct("<H"), Struct("<I"), Struct("<Q")
_SET = Struct("<HIHH")
_PLAIN = Struct("<BIH")
_LEAF = Struct("<BIBH")
_SLOT = Struct("<IIII")
_PLAN = Struct("<IBQ")
_DRAW = Struct("<BQ")
_HASH = Struct("<BBBB")
_SWITCHED, _ABSENT, _CUT, _ABOVE, _DS = 1, 2, 4, 8, 16


class Handover:
    """Makes the messages for one native responder, in order.

    `message` and then, once it was taken, `taken`; after a refusal `forget`, and the next message
    has everything.
    """

    def __init__(self, labels: Labels | None = None) -> None:
        self._cells = labels if labels is not None else Labels()
        self._number = 0
        self._generation = 0
        self.forget()

    def forget(self) -> None:
        """Send everything next time; generations go on, so that no older change fits on it."""
        self._table: AnswerTable | None = None
        self._nodes: dict[int, tuple[int, Node]] = {}
        self._tables: dict[int, tuple[int, ClientTable]] = {}
        self._kept = 0
        self._looks = False
        self._next: tuple[AnswerTable, int] | None = None

    def message(self, table: AnswerTable) -> bytes:
        """What makes the responder answer from `table`."""
        before = self._table
        old = before if before is not None else AnswerTable(ready=False)
        generation = self._generation + 1
        head = _BODY.pack(before is None, self._generation, generation, table.revision, table.ready)
        parts = [head]
        parts.append(
            _serving(table.serving) if before is None or table.serving != old.serving else b"\0"
        )
        parts.append(_zones(table) if before is None or table.zones is not old.zones else b"\0")
        sent = _Sent(self)
        plans = sent.plans(old, table)
        parts += (_counted(sent.tables), _counted(sent.nodes))
        parts.append(_counted(_slots(old.slots, table.slots)))
        parts.append(_counted(plans))
        parts += self._names(old.names, table)
        parts += self._forgotten(table)
        self._next = (table, generation)
        body = b"".join(parts)
        return _HEAD.pack(MAGIC, VERSION, crc32(body), len(body)) + body

    def taken(self) -> None:
        """The last message is in force."""
        assert self._next is not None
        self._table, self._generation = self._next

    @property
    def table(self) -> AnswerTable | None:
        """The table that was taken last; None where a refusal came after it."""
        return self._table

    def nodes(self, after: int = 0) -> tuple[list[Node], int]:
        """Nodes that the responder may have, of numbers beyond `after`; the last number given."""
        return [node for number, node in self._nodes.values() if number > after], self._number

    def forget_unused(self) -> None:
        """Have the next message say which nodes no plan uses any more, be they few."""
        self._looks = True

    def _names(self, old: Mapping[bytes, Name], table: AnswerTable) -> tuple[bytes, bytes]:
        if table.names is old:
            return _U32.pack(0), _U32.pack(0)
        gone, put = _renamed(old, table.names)
        encode, instances, cell_of = _name, instances_of(table), self._cells.name
        if moved := self._moved(instances):
            again = {name: it for name, it in table.names.items() if it.slot in moved}
            put = list({**dict(put), **again}.items())

        def cell(qname: bytes, slot: int) -> int:
            return cell_of(qname, instances.get(slot, ""))

        records = [encode(qname, name, cell) for qname, name in put]
        return _counted([_short(qname) for qname in gone]), _counted(records)

    def _moved(self, instances: Mapping[int, str]) -> set[int]:
        """The slots that another instance has now: the cells of its names are others."""
        before = instances_of(self._table) if self._table is not None else {}
        return {slot for slot, name in before.items() if instances.get(slot, name) != name}

    def _forgotten(self, table: AnswerTable) -> tuple[bytes, bytes]:
        """The numbers of client tables and nodes that no plan uses any more, once they are many.

        Or once somebody asked for it.
        """
        if len(self._nodes) <= 2 * self._kept + SPARE_NODES and not self._looks:
            return _U32.pack(0), _U32.pack(0)
        self._looks = False
        used: set[int] = set()
        for node in nodes_of(table.plans):
            used.add(id(node))
            if isinstance(node, Located):
                used.add(id(node.table))
        tables = [key for key in self._tables if key not in used]
        nodes = [key for key in self._nodes if key not in used]
        gone = (
            [self._tables.pop(key)[0] for key in tables],
            [self._nodes.pop(key)[0] for key in nodes],
        )
        self._kept = len(self._nodes)
        numbers = [_counted([_U64.pack(number) for number in some]) for some in gone]
        return numbers[0], numbers[1]

    # ---- what _Sent uses ---------------------------------------------------------------------

    def number(self) -> int:
        """A number that nothing has yet."""
        self._number += 1
        return self._number


class _Sent:
    """The nodes and client tables of one message."""

    def __init__(self, handover: Handover) -> None:
        self.nodes: list[bytes] = []
        self.tables: list[bytes] = []
        self._handover, self._cells = handover, handover._cells
        self._known, self._places = handover._nodes, handover._tables

    def plans(self, old: AnswerTable, table: AnswerTable) -> list[bytes]:
        """The plans that are not the same as before, or not as likely to answer a CNAME."""
        plans, aliased = table.plans, table.aliased
        turned = aliased ^ old.aliased
        if plans is old.plans and not turned:
            return []
        numbers = list(compress(count(), map(is_not, plans, chain(old.plans, repeat(None)))))
        numbers += sorted(one for one in turned.difference(numbers) if one < len(plans))
        return [
            _PLAN.pack(number, number in aliased, self.node(plans[number])) for number in numbers
        ]

    def node(self, node: Node) -> int:
        """The number of a node, which is sent where it was not yet."""
        known = self._known.get(id(node))
        if known is not None:
            return known[0]
        if isinstance(node, Answers):
            data = self._leaf(node)
        elif isinstance(node, Weighted):
            ends = _U32.pack(len(node.ends)) + _octets(node.ends, "Q")
            data = _DRAW.pack(1, node.total) + self._branches(node) + ends
        elif isinstance(node, Hashed):
            wide = len(node.branches) > 256
            data = (
                _HASH.pack(2, node.prefix_v4, node.prefix_v6, wide)
                + node.buckets
                + self._branches(node)
            )
        else:
            place = self.table(node.table)
            data = b"\3" + _U64.pack(place) + self._branches(node)
            data += _cells(self._cells.located(node))
        number = self._handover.number()
        self._known[id(node)] = (number, node)
        self.nodes.append(_U64.pack(number) + data)
        return number

    def table(self, table: ClientTable) -> int:
        """The number of a client table, which is sent where it was not yet."""
        known = self._places.get(id(table))
        if known is not None:
            return known[0]
        number = self._handover.number()
        self._places[id(table)] = (number, table)
        v6 = table.v6
        starts = (
            _octets(v6.starts, "Q")
            if v6.shift
            else b"".join(start.to_bytes(16, "little") for start in v6.starts)
        )
        self.tables.append(
            _U64.pack(number)
            + _U32.pack(table.count)
            + _spans(table.v4, _octets(table.v4.starts, "I"))
            + (b"\0" if v6.shift else b"\1")
            + _spans(v6, starts)
        )
        return number

    def _branches(self, node: Weighted | Hashed | Located) -> bytes:
        numbers = [self.node(branch) for branch in node.branches]
        return _U32.pack(len(numbers)) + _octets(numbers, "Q")

    def _leaf(self, leaf: Answers) -> bytes:
        return (
            _LEAF.pack(0, leaf.ttl, leaf.rcode & 0xFF, leaf.count)
            + _cells(self._cells.leaf(leaf))
            + _short(leaf.extended)
            + _long(leaf.wire)
        )


def _cells(cells: Sequence[int]) -> bytes:
    return _U16.pack(len(cells)) + _octets(cells, "I")


def _counted(parts: Sequence[bytes]) -> bytes:
    return _U32.pack(len(parts)) + b"".join(parts)


def _short(octets: bytes) -> bytes:
    return bytes((len(octets),)) + octets


def _long(octets: bytes) -> bytes:
    return _U16.pack(len(octets)) + octets


def _octets(numbers: Sequence[int], code: str) -> bytes:
    """Numbers as little-endian octets of the width of `code`."""
    packed = numbers if isinstance(numbers, array) else array(code, numbers)
    if sys.byteorder == "big":
        packed = array(packed.typecode, packed)
        packed.byteswap()
    return packed.tobytes()


def _spans(spans: ClientSpans, starts: bytes) -> bytes:
    classes = spans.classes
    packed = classes if isinstance(classes, array) else array("I", classes)
    return (
        _U32.pack(len(spans.starts))
        + starts
        + bytes((packed.itemsize,))
        + _octets(packed, packed.typecode)
    )


def _serving(serving: Serving) -> bytes:
    texts = (serving.nsid, serving.version, serving.server)
    return (
        b"\1"
        + b"".join(_short(text.encode()) for text in texts)
        + _U16.pack(serving.udp_payload)
        + _U16.pack(max(0, min(int(serving.idle_s * 10), 65535)))
        + Struct("<d").pack(serving.stale_after_s)
    )


def _zones(table: AnswerTable) -> bytes:
    rows = [_short(zone.name) + _long(zone.soa) + _U32.pack(zone.ttl) for zone in table.zones]
    return b"\1" + _counted(rows)


def _slots(old: Sequence[object], new: Sequence[object]) -> list[bytes]:
    if old is new:
        return []
    return [
        _SLOT.pack(number, slot.a, slot.aaaa, slot.ttl)  # type: ignore[attr-defined]
        for number, slot in enumerate(new)
        if number >= len(old) or old[number] is not slot
    ]


def _renamed(
    old: Mapping[bytes, Name], new: Mapping[bytes, Name]
) -> tuple[list[bytes], Iterator[tuple[bytes, Name]] | list[tuple[bytes, Name]]]:
    """The names that are gone, and those that came or changed."""
    if not old:
        return [], list(new.items())
    put, known, get = [], 0, old.get
    for qname, name in new.items():
        before = get(qname)
        if before is not None:
            known += 1
            if before is name or _same(before, name):
                continue
        put.append((qname, name))
    gone = [qname for qname in old if qname not in new] if known < len(old) else []
    return gone, put


def _same(one: Name, other: Name) -> bool:
    """Whether two names are answered alike, without a look at records that are the very same."""
    return (
        one.zone == other.zone
        and one.slot == other.slot
        and one.absent == other.absent
        and one.above == other.above
        and (one.rrsets is other.rrsets or one.rrsets == other.rrsets)
        and one.cut == other.cut
        and one.ds == other.ds
    )


def _name(qname: bytes, name: Name, cell: Callable[[bytes, int], int]) -> bytes:
    """The record of one name."""
    if name.slot < 0 and name.cut is None and name.above < 0:
        record = bytes((len(qname),)) + qname + _PLAIN.pack(0, name.zone, len(name.rrsets))
        for rtype, found in name.rrsets.items():
            record += _SET.pack(rtype, found.ttl, found.count, len(found.wire)) + found.wire
        return record
    flags = (
        (_SWITCHED if name.slot >= 0 else 0)
        | (_ABSENT if name.absent else 0)
        | (_CUT if name.cut is not None else 0)
        | (_ABOVE if name.above >= 0 else 0)
        | (_DS if name.ds is not None else 0)
    )
    parts = [_short(qname), bytes((flags,)), _U32.pack(name.zone)]
    if name.slot >= 0:
        parts.append(_U32.pack(name.slot) + _U32.pack(cell(qname, name.slot)))
    if name.above >= 0:
        parts.append(_U32.pack(name.above))
    parts.append(_U16.pack(len(name.rrsets)))
    parts += [_set(rtype, found) for rtype, found in name.rrsets.items()]
    if name.ds is not None:
        parts.append(_set(43, name.ds))
    if name.cut is not None:
        parts.append(_cut(name.cut))
    return b"".join(parts)


def _set(rtype: int, found: Answers) -> bytes:
    return _SET.pack(rtype, found.ttl, found.count, len(found.wire)) + found.wire


def _cut(cut: Cut) -> bytes:
    last = {server: number for number, server in enumerate(cut.servers)}
    counts = _U16.pack(len(cut.servers)) + _U16.pack(len(cut.glue))
    servers = b"".join(map(_short, cut.servers))
    glue = b"".join(_U16.pack(last[server]) + _long(rest) for server, rest in cut.glue)
    return _U32.pack(cut.ttl) + _short(cut.name) + counts + servers + glue
