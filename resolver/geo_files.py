"""Which geo data are in force while their files change: read, judged, taken or refused.

A changed file is taken when it is sound and moves no more than the limit to another country or AS
number, or when an operator accepted exactly these bytes (`PATH.accepted`, by `gtm geo install
--force`). Else the last good data stay. Blocking, without threads of its own: shells call `look`.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from .locate import Atlas, BrokenFile, Database, files_of, geo_hash, open_locator
from .moves import MOVE_LIMIT, Moves, moves
from .place import Locator

ACCEPTED = ".accepted"
"""What follows a geo file's path in the path of the file that names accepted bytes."""
MAX_ACCEPTED_BYTES = 4096
"""The largest such file that is read."""

Outcome: TypeAlias = Literal["loaded", "unchanged", "refused", "broken"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Stamp: TypeAlias = tuple[int, int, int]
"""Modification time (ns), size and inode of a file; zeros where there is none."""


class Change(Struct, frozen=True):
    """What became of files that changed: new data are there, or the same, or not to be had.

    `refused` are data that move too much, `broken` is a file that can't be read; `why` says it.
    `moves` is what the new data move.
    """

    outcome: Outcome
    locator: Locator | None = None
    why: str = ""
    moves: Moves = Moves()


class GeoFiles:
    """The geo files of one process, and `locator` over those in force.

    Raises BrokenFile where they can't be read at the start, when there is nothing to keep.
    """

    def __init__(self, paths: tuple[str, ...], limit: Fraction = MOVE_LIMIT) -> None:
        self.paths = files_of(paths)
        self._limit = limit
        self._seen = self._stamps()
        self.locator: Locator = open_locator(self.paths)
        self._open = dict(zip(self.paths, self._databases(), strict=True))
        self._read = self._seen

    def look(self) -> Change | None:
        """What became of the files that changed since the last look; None where none did.

        Files that change while they are read wait for the next look. New data are in force when
        they are given to `put`.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return None
        try:
            databases = tuple(
                self._open[path] if stamp == old else Database(path)
                for path, stamp, old in zip(self.paths, stamps, self._read, strict=True)
            )
        except BrokenFile as error:
            change = Change("broken", why=error.reason)
        else:
            change = self._judged(databases)
        if self._stamps() != stamps:
            return None
        self._seen = stamps
        return change

    def put(self, locator: Locator) -> None:
        """Take the new data of the last look: they are what later ones are compared with."""
        self.locator = locator
        self._open = dict(zip(self.paths, self._databases(), strict=True))
        self._read = self._seen

    def _judged(self, databases: tuple[Database, ...]) -> Change:
        atlas = Atlas(databases)
        if atlas.geo_hash == geo_hash(self.locator):
            return Change("unchanged")
        moved = moves(self.locator.geography, atlas.geography)
        why = moved.excess(self._limit)
        fresh = [one for one in databases if one.digest != self._open[one.path].digest]
        if why and not all(accepted(one.path) == one.digest for one in fresh):
            names = ", ".join(one.path for one in fresh)
            return Change("refused", None, f"{names}: {why}", moved)
        return Change("loaded", atlas, "", moved)

    def _databases(self) -> tuple[Database, ...]:
        return self.locator.databases if isinstance(self.locator, Atlas) else ()

    def _stamps(self) -> tuple[Stamp, ...]:
        return tuple(map(_stamp, self.paths))


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def accepted(path: str) -> str:
    """The digest that an operator accepted for the geo file at `path`; "" where there is none."""
    try:
        with Path(path + ACCEPTED).open("rb") as file:
            words = file.read(MAX_ACCEPTED_BYTES).decode("ascii", "replace").split()
    except OSError:
        return ""
    return words[0].lower() if words else ""
