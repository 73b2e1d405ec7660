"""nearest: the addresses whose lines the client is on, else those at the least distance, else all.

Distances are great circles between where the databases place the client and the `location` of an
address (haversine formula, on a sphere of 6,371 km); of a pool its nearest address counts. Who has
no location loses against those who have one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

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
    distances = distances_to([option.points for option in options])

    @lru_cache(MAX_PLACES)
    def by_distance(where: Location) -> tuple[int, ...]:
        found = distances(where)
        return tuple(np.flatnonzero(found <= found.min() + EQUAL_KM).tolist())

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


def distances_to(
    groups: Sequence[Sequence[Location]],
) -> Callable[[Location], NDArray[np.float64]]:
    """How far the nearest point of each group is from a place, in km; infinite where it has none.

    Half the chord between two points of the unit sphere is the root of their haversine.
    """
    placed = np.array([bool(points) for points in groups], dtype=np.bool_)
    vectors = np.array([_vector(point) for points in groups for point in points])
    counts = [len(points) for points in groups if points]
    starts = np.cumsum([0, *counts[:-1]])

    def distances(where: Location) -> NDArray[np.float64]:
        found = np.full(len(groups), math.inf)
        if counts:
            apart = vectors - np.array(_vector(where))
            chords = np.sqrt(np.einsum("ij,ij->i", apart, apart))
            nearest = np.minimum.reduceat(chords, starts)
            found[placed] = 2 * EARTH_KM * np.arcsin(np.minimum(1.0, nearest / 2))
        return found

    return distances


def _vector(place: Location) -> tuple[float, float, float]:
    """A place of (latitude, longitude) in degrees as a point of the unit sphere."""
    latitude, longitude = map(math.radians, place)
    across = math.cos(latitude)
    return across * math.cos(longitude), across * math.sin(longitude), math.sin(latitude)


def distance_km(one: Location, other: Location) -> float:
    """The great circle between two places of (latitude, longitude) in degrees."""
    return float(distances_to([[other]])(one)[0])
