"""The numbers of what the responders count: cells of fixed meaning, and cells given out by label.

Decides which names, instances, lines, pools and addresses have a cell of their own: the first ones
up to a bound; further ones share one that is shown as "(other)". A label that no plan and no name
has had for `KEEP_S` gives its cells back, and is shown no more; who has them next begins at 0.
Counts nothing itself, and clears nothing: a worker's cells are its own. What a cell had counted
when it was given back is remembered, and is none of its next label's.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from .message import name_text
from .plan import CNAME, Answers, Located, Node
from .table import AnswerTable, instances_of

K = TypeVar("K", bound=Hashable)

NO_CELL = 2**32 - 1
"""No cell at all."""
OUTCOMES = 17
"""Outcomes of a query: 16 header rcodes, and silence."""
UDP, TCP = 0, OUTCOMES
"""The first of the cells of queries by outcome."""
UNSENT, OVERSIZE, BATCHES, FAILED = (2 * OUTCOMES + more for more in range(4))
EXPRESS, MALFORMED = 2 * OUTCOMES + 4, 2 * OUTCOMES + 5
"""Of AF_XDP (`native/src/xdp.rs`)."""
CONNECTIONS, REFUSED, EXPIRED, HELD, STARVED, BROKEN = (
    2 * OUTCOMES + more for more in range(8, 14)
)
"""Of TCP (`native/src/tcp.rs`)."""
LOG_DROPPED = 2 * OUTCOMES + 14
"""Of the query log (`native/src/observe.rs`)."""
FIRST = 64
"""The first cell that is given out by label."""
CELLS = 1 << 17
"""Cells of one worker; the bounds below stay within."""
MAX_NAMES = 1_000
"""Access names with cells of their own; further ones share those of their instance."""
MAX_INSTANCES = 1_000
"""Instances with cells for their names beyond that bound; those of further ones share."""
MAX_LINES = 1_000
"""Lines of clients with a cell of their own."""
MAX_POOLS = 1_000
"""Pools with a cell of their own."""
MAX_ADDRESSES = 4_096
"""Addresses answered, and targets of CNAMEs, with a cell of their own."""
KEEP_S = 3_600.0
"""How long a label that is in no table any more keeps its cells: scrapes and rates span less."""
TIDY_S = 600.0
"""How often it is looked for such labels."""


@dataclass
class Use:
    """The labels that some nodes and the names of a table have."""

    names: Collection[bytes] = ()
    instances: Collection[str] = ()
    lines: set[str] = field(default_factory=set)
    pools: set[str] = field(default_factory=set)
    addresses: set[tuple[int, bytes]] = field(default_factory=set)

    def add(self, nodes: Iterable[Node]) -> None:
        """Those of `nodes`, each by itself: what is below them is not looked at."""
        for node in nodes:
            if isinstance(node, Answers):
                self.pools.update(node.pools)
                self.addresses.update(node.rdata())
            elif isinstance(node, Located):
                self.lines.update(node.lines)


class Family(Generic[K]):
    """The labels of one kind: each of the first `most` has `width` cells, all others share some."""

    def __init__(self, labels: Labels, most: int, width: int = 1) -> None:
        self.cells: dict[K, int] = {}
        """The first of the cells of each label."""
        self.others = labels.block(width)
        """The first of the cells that all others share."""
        self.spare: list[int] = []
        """The first of the cells of labels that gave theirs back."""
        self.width = width
        self._labels, self._most = labels, most
        self._idle: dict[K, float] = {}

    def cell(self, label: K) -> int:
        """The first of the cells of `label`; any thread."""
        found = self.cells.get(label)
        if found is None:
            found = self.own(label)
        return self.others if found is None else found

    def own(self, label: K) -> int | None:
        """The first of the cells of `label` alone; None where no more are given out."""
        found = self.cells.get(label)
        if found is not None:
            return found
        with self._labels.lock:
            found = self.cells.get(label)
            if found is None and len(self.cells) < self._most:
                found = self.spare.pop() if self.spare else self._labels.block(self.width)
                self.cells[label] = found
        return found

    def idle(self, used: Collection[K], now_s: float) -> list[K]:
        """The labels that were not in `used`, call after call, for `KEEP_S` (monotonic seconds)."""
        since = {label: self._idle.get(label, now_s) for label in self.cells if label not in used}
        self._idle = since
        return [label for label, at_s in since.items() if now_s - at_s >= KEEP_S]

    def give_back(self, labels: Iterable[K]) -> list[int]:
        """Take the cells of `labels` from them; gives every one of those cells. Under the lock."""
        firsts = [self.cells.pop(label) for label in labels]
        self.spare += firsts
        return [first + more for first in firsts for more in range(self.width)]

    def rows(self) -> list[tuple[K | None, int]]:
        """(label, its first cell) of all, at last (None, that of the others)."""
        return [*self.cells.items(), (None, self.others)]


class Labels:
    """Gives out cells by label."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._free = FIRST
        self.names: Family[bytes] = Family(self, MAX_NAMES, OUTCOMES)
        """By access name (lower case, on the wire)."""
        self.instances: Family[str] = Family(self, MAX_INSTANCES, OUTCOMES)
        """By instance, of queries for its access names that have no cells of their own."""
        self.lines: Family[str] = Family(self, MAX_LINES)
        self.pools: Family[str] = Family(self, MAX_POOLS)
        self.addresses: Family[tuple[int, bytes]] = Family(self, MAX_ADDRESSES)
        """By type and data of an address record or a CNAME."""
        self.base: Mapping[int, int] = {}
        """What cells had counted when their present label, or none yet, got them; 0 elsewhere."""

    def names_in(self, table: AnswerTable) -> Use:
        """The access names of `table` that have cells, and its instances; no plan is looked at."""
        known = [*self.names.cells]
        found = ((qname, table.names.get(qname)) for qname in known)
        names = {qname for qname, name in found if name is not None and name.slot >= 0}
        return Use(names=names, instances=set(instances_of(table).values()))

    def tidy(self, use: Use, now_s: float, counts: Callable[[int], Sequence[int]]) -> int:
        """Take their cells from labels that were in no `use` for `KEEP_S`; gives how many.

        Nothing may count in those cells any more; `counts` gives the first so many cells.
        """
        kinds: tuple[tuple[Family[Any], Collection[Any]], ...] = (
            (self.names, use.names),
            (self.instances, use.instances),
            (self.lines, use.lines),
            (self.pools, use.pools),
            (self.addresses, use.addresses),
        )
        with self.lock:
            idle = [(family, family.idle(used, now_s)) for family, used in kinds]
            freed = [cell for family, labels in idle for cell in family.give_back(labels)]
            if freed:
                now = counts(self._free)
                self.base = {**self.base, **{cell: now[cell] for cell in freed}}
        return sum(len(labels) for _, labels in idle)

    @property
    def end(self) -> int:
        """One more than the last cell that was given out."""
        return self._free

    def name(self, qname: bytes, instance: str) -> int:
        """The first of the cells of an access name (lower case, on the wire) of an instance."""
        found = self.names.own(qname)
        return self.instances.cell(instance) if found is None else found

    def leaf(self, leaf: Answers) -> Sequence[int]:
        """The cells that a leaf counts in: of its pools and of its addresses, each once."""
        pools = [self.pools.cell(pool) for pool in leaf.pools if pool]
        return list(dict.fromkeys([*pools, *map(self.addresses.cell, leaf.rdata())]))

    def located(self, node: Located) -> Sequence[int]:
        """The cells of the classes of clients of a node, or none at all."""
        return [self.lines.cell(line) for line in node.lines]

    def block(self, size: int) -> int:
        """The first of `size` cells that nobody has; under the lock, or before others know us."""
        first = self._free
        self._free += size
        return first


def value_text(record: tuple[int, bytes]) -> str:
    """The label of (type, RDATA): an address, or the target of a CNAME."""
    rtype, data = record
    return name_text(data) if rtype == CNAME else str(ipaddress.ip_address(data))
