"""Where a client is, as far as plans ask. Values and the port that finds them; pure."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Place(Struct, frozen=True, kw_only=True):
    """What the databases say of one address.

    `country_leaf` and `asn_leaf` are prefix lengths of the databases' own leaves around it, in the
    address's family: every address inside has the same answer from that database. "" and 0 stand
    for unknown.
    """

    continent: str = ""
    country: str = ""
    subdivisions: tuple[str, ...] = ()
    asn: int = 0
    country_leaf: int = 0
    asn_leaf: int = 0


NOWHERE = Place()


class Locator(Protocol):
    """Finds places; `find` is called once per query and must be quick."""

    def find(self, packed: bytes) -> Place:
        """The place of a packed IPv4 (4 bytes) or IPv6 (16 bytes) address."""


class Unplaced:
    """The locator without any database: nobody is anywhere, for all addresses alike."""

    def find(self, packed: bytes) -> Place:
        """Always nowhere, with leaves of length 0."""
        return NOWHERE
