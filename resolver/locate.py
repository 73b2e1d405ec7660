"""Where a client is, by files in MaxMind's format: country or city files, and AS files.

Decides which of several files speaks for an address and how wide its word holds. Files are copied
into memory when opened, so that one rewritten in place can neither crash nor confuse a look-up, and
are read whole before they go live. Never guesses: what a file does not know is unknown.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path

import maxminddb
import numpy as np

from gtm.errors import StartError

from .columns import Starts, Values, examples, merged, numbers, replaced
from .geo_records import NOTHING, Found, read
from .geography import EMBEDDING, Layer, flatten, overlay, read_tree
from .place import Locator, Place, Unplaced

__all__ = [
    "Atlas",
    "BrokenFile",
    "Database",
    "Found",
    "embedded",
    "geo_hash",
    "open_locator",
    "read",
]

MAX_FILE_BYTES = 1 << 30
"""The largest file that is opened."""

_EMBEDDING = tuple((int(block.network_address), block.prefixlen) for block in EMBEDDING)
_log = logging.getLogger("resolver")


class BrokenFile(StartError):
    """A geo file that can't be used; `reason` says why without saying what to do."""

    def __init__(self, reason: str, remedy: str = "give another with --geo") -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason


class Database:
    """One open file: `places` and `numbers` say whether it knows countries and AS numbers.

    `built` is the Unix time at which it was made, as it says; `digest` the SHA-256 of its bytes.
    """

    def __init__(self, path: str) -> None:
        """Open `path` and read all of it; BrokenFile says in one sentence what is wrong with it."""
        self.path = path
        self.errors = 0
        try:
            if os.path.getsize(path) > MAX_FILE_BYTES:
                raise BrokenFile(f"the geo file {path} is larger than {MAX_FILE_BYTES} bytes")
            data = Path(path).read_bytes()
        except OSError as error:
            raise BrokenFile(f"cannot read the geo file {path}: {error.strerror}") from error
        self.digest = hashlib.sha256(data).hexdigest()
        try:
            self._reader = _opened(path, data)
            about = self._reader.metadata()
            self._v4_only = about.ip_version == 4
            self.built = about.build_epoch
            self.layer = _layer(self._reader, data)
        except (maxminddb.InvalidDatabaseError, ValueError, TypeError, RecursionError) as error:
            why = re.sub(r"/proc/self/fd/\d+", path, str(error)).rstrip(".?")
            raise BrokenFile(
                f"the geo file {path} is not sound MaxMind format ({why})",
                "fetch it again or give another with --geo",
            ) from error
        self.places, self.numbers = self.layer.places, self.layer.numbers
        if not (self.places or self.numbers):
            raise BrokenFile(f"the geo file {path} holds neither countries nor AS numbers")

    def look_up(self, packed: bytes) -> tuple[Found, int]:
        """What the file says of an address, and the length of the prefix for which it says so.

        A record that can't be read counts in `errors` and says nothing, for that address alone.
        """
        least = 0
        if len(packed) == 4:
            address = socket.inet_ntop(socket.AF_INET, packed)
        elif self._v4_only:
            return NOTHING, 0
        else:
            inside, least = _embedded(int.from_bytes(packed))
            if inside:
                return NOTHING, least
            address = socket.inet_ntop(socket.AF_INET6, packed)
        try:
            record, leaf = self._reader.get_with_prefix_len(address)
        except (maxminddb.InvalidDatabaseError, ValueError):
            self.errors += 1
            return NOTHING, len(packed) * 8
        return read(record), max(leaf, least)


def _embedded(address: int) -> tuple[bool, int]:
    """Whether an IPv6 address stands for an IPv4 one, and the longest prefix that decides it."""
    least = 0
    for block, length in _EMBEDDING:
        common = 128 - (address ^ block).bit_length()
        if common >= length:
            return True, length
        least = max(least, common + 1)
    return False, least


def _layer(reader: maxminddb.Reader, data: bytes) -> Layer:
    """What a whole file says. Raises what `Database` takes for a broken file."""
    about = reader.metadata()
    tree = read_tree(data, about.node_count, about.record_size, about.ip_version)
    found: dict[Found, int] = {NOTHING: 0}

    def family(bits: int) -> tuple[Starts, Values]:
        starts, records = flatten(tree, bits)
        bound = int(records.max()) + 1
        occurring, where = examples(records, bound)
        kind = socket.AF_INET if bits == 32 else socket.AF_INET6
        said = [
            # The reader decodes by address, and in C where it can.
            read(reader.get(socket.inet_ntop(kind, address.to_bytes(bits // 8))))
            if one
            else NOTHING
            for one, address in zip(occurring.tolist(), numbers(starts[where]), strict=True)
        ]
        index = np.array([found.setdefault(one, len(found)) for one in said], np.int32)
        return merged(starts, replaced(records, occurring, index, bound))

    v4, v6 = family(32), family(128)
    return Layer(tuple(found), v4, v6)


def _opened(path: str, data: bytes) -> maxminddb.Reader:
    """A reader over a private copy of the file, where the system can hold one without a name."""
    if not hasattr(os, "memfd_create"):
        return maxminddb.open_database(path)
    memory = os.memfd_create("geo")
    try:
        with open(memory, "wb", closefd=False) as copy:
            copy.write(data)
        return maxminddb.open_database(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)


class Atlas:
    """The locator over one or several files; for each question the first that knows answers."""

    def __init__(self, databases: tuple[Database, ...]) -> None:
        self.databases = databases
        self.geo_hash = _combined(database.digest for database in databases)
        self.geography = overlay([database.layer for database in databases])
        self._places = tuple(database for database in databases if database.places)
        self._numbers = tuple(database for database in databases if database.numbers)

    def find(self, packed: bytes) -> Place:
        """The place of a packed address."""
        here = _first(self._places, packed, "country")
        return Place(
            continent=here.continent,
            country=here.country,
            subdivisions=here.subdivisions,
            asn=_first(self._numbers, packed, "asn").asn,
            location=here.location,
        )


def _first(databases: tuple[Database, ...], packed: bytes, asked: str) -> Found:
    """What the first file that knows `asked` says, else whichever says anything."""
    best = NOTHING
    for database in databases:
        found, _ = database.look_up(packed)
        if getattr(found, asked):
            return found
        if best == NOTHING:
            best = found
    return best


def _combined(digests: Iterable[str]) -> str:
    """16 hexadecimal digits that change with any file's content, and with their order."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]


def geo_hash(locator: Locator) -> str:
    """A digest of what `locator` knows; "" where it knows nothing."""
    return locator.geo_hash if isinstance(locator, Atlas) else ""


def embedded() -> str:
    """The path of the country file that python-geoacumen installs; "" where it is not installed."""
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("geoacumen")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = os.path.join(folder, "db", "Geoacumen-Country.mmdb")
        if os.path.isfile(path):
            return path
    return ""


def files_of(paths: tuple[str, ...]) -> tuple[str, ...]:
    """The files that are used: `paths`, without any the embedded default if it is installed."""
    default = "" if paths else embedded()
    return (default,) if default else paths


def open_locator(paths: tuple[str, ...]) -> Locator:
    """The locator over `paths`, over the embedded default without any, else one that knows nothing.

    Raises BrokenFile for a file that is missing or broken.
    """
    if paths := files_of(paths):
        return Atlas(tuple(Database(path) for path in paths))
    _log.warning(
        "no geo data: geographic lines match nobody until --geo names a MaxMind-format file "
        "(or python-geoacumen is installed)"
    )
    return Unplaced()
