"""What one record of a MaxMind-format file says, in any of the forms that files use. Pure."""

from __future__ import annotations

import re
import sys
from typing import Any

from msgspec import Struct

from .continents import CONTINENT

_CONTINENTS = frozenset(CONTINENT.values())
_AS_NUMBER = re.compile(r"(?:AS)?(\d{1,10})")


class Found(Struct, frozen=True):
    """What one record says; "", None and 0 stand for unknown."""

    continent: str = ""
    country: str = ""
    subdivisions: tuple[str, ...] = ()
    asn: int = 0
    location: tuple[float, float] | None = None


NOTHING = Found()


def _code(value: object, key: str) -> str:
    """The code in `value`, nested under `key` (GeoIP2) or bare (flat files)."""
    inner = value.get(key) if isinstance(value, dict) else value
    return inner if isinstance(inner, str) else ""


def read(record: object) -> Found:
    """What a record says, nested as in GeoIP2 files or flat as in ip-location-db's and IPinfo's.

    A country that ISO 3166-1 does not know is unknown; a missing continent is the country's.
    """
    if not isinstance(record, dict):
        return NOTHING
    country = record.get("country_code") or _code(record.get("country"), "iso_code")
    if not isinstance(country, str) or country not in CONTINENT:
        country = ""
    continent = record.get("continent_code") or _code(record.get("continent"), "code")
    if continent not in _CONTINENTS:
        continent = CONTINENT.get(country, "")
    return Found(
        sys.intern(str(continent)),
        sys.intern(country),
        _subdivisions(record, country),
        _asn(record),
        _location(record),
    )


def _subdivisions(record: dict[str, Any], country: str) -> tuple[str, ...]:
    """ISO 3166-2 codes of a nested record, the widest first."""
    listed = record.get("subdivisions")
    if not country or not isinstance(listed, list):
        return ()
    codes = (_code(one, "iso_code") for one in listed if isinstance(one, dict))
    return tuple(sys.intern(f"{country}-{code}") for code in codes if code)


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


def _location(record: dict[str, Any]) -> tuple[float, float] | None:
    """(latitude, longitude) in degrees of a GeoIP2 city record."""
    given = record.get("location")
    if not isinstance(given, dict):
        return None
    latitude, longitude = given.get("latitude"), given.get("longitude")
    if not isinstance(latitude, int | float) or not isinstance(longitude, int | float):
        return None
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        return None
    return float(latitude), float(longitude)
