"""How much of the address space new geo data would move, and whether that is too much. Pure.

Both geographies are cut at each other's edges, and each piece of which either knows something is
compared: not a sample, all of them. A piece has moved where its country or AS number differs.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from .columns import Starts, Values, cut
from .place import Geography, Partition

MOVE_LIMIT = Fraction(1, 5)
"""The part of the known address space, or networks, that a new file may move unasked."""


class Moves(Struct, frozen=True):
    """The parts that move, of what is known before or after; in 0..1, 0 where nothing is known.

    `space` is by addresses, `networks` by pieces: a few wide blocks weigh in the one, many narrow
    ones in the other.
    """

    v4_space: float = 0.0
    v4_networks: float = 0.0
    v6_space: float = 0.0
    v6_networks: float = 0.0

    def worst(self) -> tuple[float, str]:
        """The greatest part and of what it is."""
        return max(
            (self.v4_space, "the known IPv4 address space"),
            (self.v4_networks, "the known IPv4 networks"),
            (self.v6_space, "the known IPv6 address space"),
            (self.v6_networks, "the known IPv6 networks"),
            key=lambda one: one[0],
        )

    def excess(self, limit: Fraction) -> str:
        """What is wrong where more than `limit` moves; "" where not."""
        part, what = self.worst()
        if part <= limit:
            return ""
        return (
            f"it would move {percent(part)} of {what} to another country or AS number, "
            f"more than {percent(float(limit))}"
        )


def percent(part: float) -> str:
    """A part of one in per cent, with one decimal where it needs one."""
    return f"{100 * part:.1f}".removesuffix(".0") + "%"


def moves(old: Geography, new: Geography) -> Moves:
    """How much moves from `old` to `new`."""
    codes: dict[tuple[str, int], int] = {("", 0): 0}
    before, after = (
        np.array([codes.setdefault((at.country, at.asn), len(codes)) for at in geography.places])
        for geography in (old, new)
    )
    parts = []
    for was, will in ((old.v4, new.v4), (old.v6, new.v6)):
        starts, left, right = joint(was, will)
        here, there = before[left], after[right]
        known, moved = (here != 0) | (there != 0), here != there
        size = sizes(starts)
        parts += [_part(size[moved].sum(), size[known].sum()), _part(moved.sum(), known.sum())]
    return Moves(*parts)


def _part(moved: float, known: float) -> float:
    return float(moved / known) if known else 0.0


def joint(old: Partition, new: Partition) -> tuple[Starts, Values, Values]:
    """The pieces of both: first addresses, and the index of the place in each."""
    starts, left = cut(old.starts, old.places, new.starts)
    _, right = cut(new.starts, new.places, old.starts)
    return starts, left, right


def sizes(starts: Starts) -> NDArray[np.float64]:
    """How wide spans are: IPv4 in addresses, exact; IPv6 in /64s."""
    if starts.dtype.kind == "u":
        return np.diff(starts, append=np.uint64(2**32)).astype(np.float64)
    if len(starts) == 1:
        return np.array([2.0**64])
    high, low = starts.view(">u8").reshape(-1, 2).T.astype(np.uint64)
    # Exact in unsigned words; the end of the last span wraps to 0, and the difference is right.
    zero = np.uint64(0)
    borrow = np.append(low[1:], zero) < low
    wide = np.diff(high, append=zero) - borrow.astype(np.uint64)
    return wide.astype(np.float64) + np.diff(low, append=zero).astype(np.float64) / 2.0**64
