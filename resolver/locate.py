"""Where a client is, by files in MaxMind's format: country or city files, and AS files.

Decides which of several files speaks for an address and how wide its word holds. Files are copied
into memory when opened, so that one rewritten in place can neither crash nor confuse a look-up, and
are sampled before they go live. Never guesses: what a file does not know is unknown.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import logging
import os
import re
import socket
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import maxminddb
from msgspec import Struct

from gtm.errors import StartError

from .continents import CONTINENT
from .place import Locator, Place, Unplaced

MAX_CACHED = 16_384
"""Places remembered, the longest unused goes first."""
MAX_FILE_BYTES = 1 << 30
"""The largest file that is opened."""
SAMPLES = 4096
"""Addresses of each family, and leading networks, that are read before a file goes live."""

_CONTINENTS = frozenset(CONTINENT.values())
_AS_NUMBER = re.compile(r"(?:AS)?(\d{1,10})")
_log = logging.getLogger("resolver")


class Found(Struct, frozen=True):
    """What one record says; "" and 0 stand for unknown."""

    continent: str = ""
    country: str = ""
    subdivisions: tuple[str, ...] = ()
    asn: int = 0


_NOTHING = Found()


def _code(value: object, key: str) -> str:
    """The code in `value`, nested under `key` (GeoIP2) or bare (flat files)."""
    inner = value.get(key) if isinstance(value, dict) else value
    return inner if isinstance(inner, str) else ""


def read(record: object) -> Found:
    """What a record says, nested as in GeoIP2 files or flat as in ip-location-db's and IPinfo's.

    A country that ISO 3166-1 does not know is unknown; a missing continent is the country's.
    """
    if not isinstance(record, dict):
        return Found()
    country = record.get("country_code") or _code(record.get("country"), "iso_code")
    if not isinstance(country, str) or country not in CONTINENT:
        country = ""
    continent = record.get("continent_code") or _code(record.get("continent"), "code")
    if continent not in _CONTINENTS:
        continent = CONTINENT.get(country, "")
    return Found(str(continent), country, _subdivisions(record, country), _asn(record))


def _subdivisions(record: dict[str, Any], country: str) -> tuple[str, ...]:
    """ISO 3166-2 codes of a nested record, the widest first."""
    listed = record.get("subdivisions")
    if not country or not isinstance(listed, list):
        return ()
    codes = (_code(one, "iso_code") for one in listed if isinstance(one, dict))
    return tuple(f"{country}-{code}" for code in codes if code)


def _asn(record: dict[str, Any]) -> int:
    """The AS number under any of the names that files use, as a number or as `AS123`."""
    traits = record.get("traits")
    for value in (
        record.get("autonomous_system_number"),
        traits.get("autonomous_system_number") if isinstance(traits, dict) else None,
        record.get("asn"),
    ):
        if isinstance(value, int) and 0 < value < 2**32:
            return value
        if isinstance(value, str) and (match := _AS_NUMBER.fullmatch(value)):
            return int(match[1])
    return 0


class Database:
    """One open file: `places` and `numbers` say whether it knows countries and AS numbers."""

    def __init__(self, path: str) -> None:
        """Open and sample `path`; StartError says in one sentence what is wrong with it."""
        self.path = path
        self.errors = 0
        try:
            if os.path.getsize(path) > MAX_FILE_BYTES:
                raise StartError(f"the geo file {path} is larger than {MAX_FILE_BYTES} bytes", 1)
            data = Path(path).read_bytes()
        except OSError as error:
            raise StartError(
                f"cannot read the geo file {path}: {error.strerror}; give another with --geo"
            ) from error
        self.digest = hashlib.sha256(data).hexdigest()
        try:
            self._reader = _opened(path, data)
            self._v4_only = self._reader.metadata().ip_version == 4
            self.places, self.numbers = self._sampled()
        except (maxminddb.InvalidDatabaseError, ValueError, TypeError, RecursionError) as error:
            why = re.sub(r"/proc/self/fd/\d+", path, str(error)).rstrip(".?")
            raise StartError(
                f"the geo file {path} is not sound MaxMind format ({why}); "
                "fetch it again or give another with --geo"
            ) from error
        if not (self.places or self.numbers):
            raise StartError(
                f"the geo file {path} holds neither countries nor AS numbers; "
                "give another with --geo"
            )

    def look_up(self, packed: bytes) -> tuple[Found, int]:
        """What the file says of an address, and the length of the prefix for which it says so.

        A record that can't be read counts in `errors` and says nothing, for that address alone.
        """
        if len(packed) == 4:
            address = socket.inet_ntop(socket.AF_INET, packed)
        elif self._v4_only:
            return Found(), 0
        else:
            address = socket.inet_ntop(socket.AF_INET6, packed)
        try:
            record, leaf = self._reader.get_with_prefix_len(address)
        except (maxminddb.InvalidDatabaseError, ValueError):
            self.errors += 1
            return Found(), len(packed) * 8
        return read(record), leaf

    def _sampled(self) -> tuple[bool, bool]:
        """Whether it knows countries and AS numbers, by records from all over it.

        Raises what the reader raises on a broken file.
        """
        places = numbers = False
        for record in itertools.chain(self._spread(), self._leading()):
            found = read(record)
            places = places or bool(found.country or found.continent)
            numbers = numbers or bool(found.asn)
        return places, numbers

    def _spread(self) -> Iterator[object]:
        step = 2**32 // SAMPLES
        for low in range(step // 3, 2**32, step):
            yield self._reader.get(socket.inet_ntop(socket.AF_INET, low.to_bytes(4, "big")))
        if not self._v4_only:
            step = 2**125 // SAMPLES
            for low in range((1 << 125) + step // 3, 1 << 126, step):
                yield self._reader.get(socket.inet_ntop(socket.AF_INET6, low.to_bytes(16, "big")))

    def _leading(self) -> Iterable[object]:
        return (record for _, record in itertools.islice(self._reader, SAMPLES))


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
        self._places = tuple(database for database in databases if database.places)
        self._numbers = tuple(database for database in databases if database.numbers)
        self._cached = lru_cache(MAX_CACHED)(self._find)

    def find(self, packed: bytes) -> Place:
        """The place of a packed address, with the prefix lengths for which the files say it."""
        return self._cached(packed)

    def _find(self, packed: bytes) -> Place:
        here, country_leaf = _first(self._places, packed, "country")
        number, asn_leaf = _first(self._numbers, packed, "asn")
        return Place(
            continent=here.continent,
            country=here.country,
            subdivisions=here.subdivisions,
            asn=number.asn,
            country_leaf=country_leaf,
            asn_leaf=asn_leaf,
        )


def _first(databases: tuple[Database, ...], packed: bytes, asked: str) -> tuple[Found, int]:
    """What the first file that knows `asked` says, else whichever says anything; the deepest leaf.

    Where an earlier file says nothing, its silence holds for its own leaf only: so the deepest.
    """
    best, leaf = _NOTHING, 0
    for database in databases:
        found, own = database.look_up(packed)
        leaf = max(leaf, own)
        if getattr(found, asked):
            return found, leaf
        if best == _NOTHING:
            best = found
    return best, leaf


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


def open_locator(paths: tuple[str, ...]) -> Locator:
    """The locator over `paths`, over the embedded default without any, else one that knows nothing.

    Raises StartError for a file that is missing or broken.
    """
    if not paths and (default := embedded()):
        paths = (default,)
    if not paths:
        _log.warning(
            "no geo data: geographic lines match nobody until --geo names a MaxMind-format file "
            "(or python-geoacumen is installed)"
        )
        return Unplaced()
    return Atlas(tuple(Database(path) for path in paths))
