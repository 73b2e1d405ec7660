"""nearest: the addresses whose lines the client is on, else those at the least distance, else all.

Distances are great circles between where the databases place the client and the `location` of an
address (haversine formula, on a sphere of 6,371 km); of a pool its nearest address counts. Who has
no location loses against those who have one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct

from gtm.model import Location

from ..clients import Client
from ..plan import Node
from .base import Ground, Option

EARTH_KM = 6371.0
"""The mean radius of the Earth."""
EQUAL_KM = 1.0
"""Distances that differ by less are equal."""
MAX_PLACES = 1 << 18
"""Places of clients whose nearest options are remembered while a plan is made."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """nearest has no settings."""


def compile(
    settings: Settings, options: Sequence[Option], max_answers: int, ground: Ground
) -> Node:
    """The options nearest to each client, rotated."""
    every = tuple(range(len(options)))

    @lru_cache(MAX_PLACES)
    def by_distance(where: Location) -> tuple[int, ...]:
        return least([_nearest(where, option.points) for option in options], EQUAL_KM)

    def choose(client: Client) -> tuple[int, ...]:
        on = tuple(index for index in every if any(map(client.on, options[index].lines)))
        if on:
            return on
        where = client.place.location
        return every if where is None else by_distance(where)

    key = ("nearest", tuple((option.lines, option.points) for option in options))
    return ground.located(key, [text for option in options for text in option.lines], choose)


def least(values: Sequence[float], tolerance: float) -> tuple[int, ...]:
    """The indexes of the least of `values` and of those within `tolerance` of it.

    Infinite ones lose; where all are infinite, all are alike.
    """
    bound = min(values) + tolerance
    return tuple(index for index, value in enumerate(values) if value <= bound)


def _nearest(where: Location, points: Sequence[Location]) -> float:
    return min((distance_km(where, point) for point in points), default=math.inf)


def distance_km(one: Location, other: Location) -> float:
    """The great circle between two places of (latitude, longitude) in degrees."""
    (lat1, lon1), (lat2, lon2) = (tuple(map(math.radians, place)) for place in (one, other))
    half = math.sin((lat2 - lat1) / 2) ** 2
    half += math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(1.0, half)))
