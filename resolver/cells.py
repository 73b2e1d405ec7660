"""The numbers of what the native responder counts (`native/src/{udp,tcp}.rs`). Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from .plan import Answers, Located

NO_CELL = 2**32 - 1
"""No cell at all."""
OUTCOMES = 17
"""Outcomes of a query: 16 header rcodes, and silence."""
UDP, TCP = 0, OUTCOMES
"""The first of the cells of queries by outcome."""
UNSENT, OVERSIZE, BATCHES, FAILED = (2 * OUTCOMES + more for more in range(4))
CONNECTIONS, REFUSED, EXPIRED, HELD, STARVED, BROKEN = (
    2 * OUTCOMES + more for more in range(8, 14)
)
"""Of TCP (`native/src/tcp.rs`)."""
FIRST = 64
"""The first cell that is given out by label."""
CELLS = 1 << 17
"""Cells of one worker."""
MAX_NAMES = 1_000
"""Access names with cells of their own; further ones share."""


class Labels:
    """Gives out cells by label; those of names stay theirs for good."""

    def __init__(self) -> None:
        self.names: dict[bytes, int] = {}
        """The first of the `OUTCOMES` cells of each access name."""
        self._free = FIRST
        self.others = self._block(OUTCOMES)
        """The first of the cells that the access names beyond the bound share."""

    @property
    def end(self) -> int:
        """One more than the last cell that was given out."""
        return self._free

    def name(self, qname: bytes) -> int:
        """The first of the cells of an access name (lower case, on the wire)."""
        found = self.names.get(qname)
        if found is not None:
            return found
        if len(self.names) >= MAX_NAMES:
            return self.others
        self.names[qname] = found = self._block(OUTCOMES)
        return found

    def leaf(self, leaf: Answers) -> Sequence[int]:
        """The cells that a leaf counts in."""
        return ()

    def located(self, node: Located) -> Sequence[int]:
        """The cells of the classes of clients of a node, or none at all."""
        return ()

    def _block(self, size: int) -> int:
        first = self._free
        self._free += size
        return first
