"""latency: the addresses with the least round trip from the region that stands for the client.

That is the first region, by name, one of whose lines the client is on, else the nearest by
location, else the median over all regions that have measured. Round trips within `tolerance` of the
least are equal. Who was not measured loses against those who were.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

from msgspec import Meta, Struct, field

from gtm.model import Location
from gtm.units import Duration

from ..clients import Client
from ..plan import Node
from .base import Ground, Option
from .nearest import EQUAL_KM, MAX_PLACES, distances_to, least


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What latency may be told."""

    tolerance: Annotated[Duration, Meta(description="round trips this close are equal")] = field(
        default_factory=lambda: Duration(10)
    )


def compile(
    settings: Settings, options: Sequence[Option], max_answers: int, ground: Ground
) -> Node:
    """The options with the least round trip for each client, rotated."""
    regions = {
        name: region
        for name, region in sorted(ground.regions.items())
        if any(name in option.rtt_us for option in options)
    }
    tolerance_us = settings.tolerance.ms * 1000
    chosen = {
        name: least([option.rtt_us.get(name, math.inf) for option in options], tolerance_us)
        for name in regions
    }
    median = least([_median(option) for option in options], tolerance_us)

    placed = {name: one.location for name, one in regions.items() if one.location is not None}
    names = list(placed)
    distances = distances_to([(point,) for point in placed.values()])

    @lru_cache(MAX_PLACES)
    def nearest_to(where: Location) -> str:
        found = distances(where)
        return names[int((found <= found.min() + EQUAL_KM).argmax())]  # of equals the first by name

    def choose(client: Client) -> tuple[int, ...]:
        for name, region in regions.items():
            if any(map(client.on, region.lines)):
                return chosen[name]
        where = client.place.location
        return median if where is None or not names else chosen[nearest_to(where)]

    described = [(name, region.lines, region.location) for name, region in regions.items()]
    key = ("latency", tuple(described), tuple(chosen.values()), median)
    return ground.located(key, [text for one in regions.values() for text in one.lines], choose)


def _median(option: Option) -> float:
    return statistics.median(option.rtt_us.values()) if option.rtt_us else math.inf
