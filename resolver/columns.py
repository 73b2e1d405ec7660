"""The arithmetic of spans as numpy columns: cut, merge, and replace values. Pure.

A column of first addresses (`Starts`) ascends from address 0; a column of values goes with it, one
for each span. Nothing here changes what it is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Starts: TypeAlias = NDArray[Any]
"""First addresses of spans, ascending. IPv4: uint64. IPv6: `S16`, the 16 octets of the address,
which numpy orders and compares as addresses (but drops the zeros at the end of one that it hands
out alone: read them with `numbers`)."""
Values: TypeAlias = NDArray[np.integer[Any]]
"""What holds in each span, 0 or more."""

MAX_FLAGS = 1 << 22
"""Values up to which those that occur are found by a flag each, which is quicker than sorting."""


def starts_of(bits: int, addresses: Iterable[int]) -> Starts:
    """`addresses` of a family of 32 or 128 bits as a column."""
    if bits == 32:
        return np.fromiter(addresses, np.uint64)
    return np.frombuffer(b"".join(address.to_bytes(16) for address in addresses), "S16")


def numbers(starts: Starts) -> list[int]:
    """The addresses of a column as integers."""
    if starts.dtype.kind == "u":
        listed: list[int] = starts.tolist()
        return listed
    octets = starts.tobytes()
    return [int.from_bytes(octets[at : at + 16]) for at in range(0, len(octets), 16)]


def cut(starts: Starts, values: Values, edges: Starts) -> tuple[Starts, Values]:
    """The same spans, cut at `edges` (ascending, each once) as well."""
    at = np.searchsorted(starts, edges, side="right")
    new = starts[at - 1] != edges
    if not new.any():
        return starts, values
    at, edges = at[new], edges[new]
    return np.insert(starts, at, edges), np.insert(values, at, values[at - 1])


def merged(starts: Starts, values: Values) -> tuple[Starts, Values]:
    """The same with neighbours of equal value made one."""
    kept = np.concatenate(([True], values[1:] != values[:-1]))
    return (starts, values) if kept.all() else (starts[kept], values[kept])


def distinct(values: Values, bound: int) -> Values:
    """The values that occur, each once, ascending; all are less than `bound`."""
    if bound > MAX_FLAGS:
        return np.unique(values)
    seen = np.zeros(bound, np.bool_)
    seen[values] = True
    return np.flatnonzero(seen)


def examples(values: Values, bound: int) -> tuple[Values, NDArray[np.int64]]:
    """The same, and the index of one span that has each."""
    if bound > MAX_FLAGS:
        return np.unique(values, return_index=True)
    place = np.full(bound, -1, np.int64)
    place[values] = np.arange(len(values))
    found = np.flatnonzero(place >= 0)
    return found, place[found]


def replaced(values: Values, old: Values, new: Values, bound: int) -> Values:
    """`values` with `new[n]` for `old[n]`; `old` is what `distinct` found in them."""
    if bound > MAX_FLAGS:
        return new[np.searchsorted(old, values)]
    table = np.zeros(bound, new.dtype)
    table[old] = new
    return table[values]
