"""Where clients are, as far as plans ask. Values and the port that finds them; pure.

A `Place` is what the databases say of one address; a `Geography` says it of every address at once,
as spans of the two address spaces, so that what depends on the client can be decided in advance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from .columns import Starts, starts_of


class Place(Struct, frozen=True, kw_only=True):
    """What the databases say of one address.

    `location` is (latitude, longitude) in degrees. "", None and 0 stand for unknown.
    """

    continent: str = ""
    country: str = ""
    subdivisions: tuple[str, ...] = ()
    asn: int = 0
    location: tuple[float, float] | None = None


NOWHERE = Place()


class Partition(Struct, frozen=True, eq=False, gc=False):
    """The address space of a family (`bits` 32 or 128) in spans.

    Span `n` begins at address `starts[n]` and ends before the next (`starts[0]` is address 0);
    `places[n]` is the index of its place in the geography. Treat the arrays as read-only.
    """

    bits: int
    starts: Starts
    places: NDArray[np.int32]

    def find(self, packed: bytes) -> int:
        """The span of a packed address of this family."""
        key = starts_of(self.bits, (int.from_bytes(packed),))
        return int(np.searchsorted(self.starts, key, side="right")[0]) - 1


class Geography(Struct, frozen=True, eq=False):
    """The place of every address: distinct places, nowhere the first, and spans of them.

    Spans may be wider than a database's own networks, never narrower than need be.
    """

    places: tuple[Place, ...]
    v4: Partition
    v6: Partition

    def find(self, packed: bytes) -> Place:
        """The place of a packed IPv4 or IPv6 address."""
        family = self.v4 if len(packed) == 4 else self.v6
        return self.places[int(family.places[family.find(packed)])]


def partition(bits: int, starts: Sequence[int], places: Sequence[int]) -> Partition:
    """The partition with these first addresses and indices of places."""
    return Partition(bits, starts_of(bits, starts), np.array(places, np.int32))


NOBODY = Geography((NOWHERE,), partition(32, (0,), (0,)), partition(128, (0,), (0,)))
"""Of every address nothing is known."""


class Locator(Protocol):
    """Finds places; `find` is called once per query and must be quick."""

    def find(self, packed: bytes) -> Place:
        """The place of a packed IPv4 (4 bytes) or IPv6 (16 bytes) address."""

    @property
    def geography(self) -> Geography:
        """The places of all addresses; it agrees with `find` in all but the leaves."""


class Unplaced:
    """The locator without any database: nobody is anywhere, for all addresses alike."""

    geography = NOBODY

    def find(self, packed: bytes) -> Place:
        """Always nowhere, with leaves of length 0."""
        return NOWHERE
