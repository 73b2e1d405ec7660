"""latency: the addresses with the least round trip from the region that stands for the client.

That is the first region, by name, one of whose lines the client is on, else the nearest by
location, else the median over all regions that have measured. Round trips within `tolerance` of the
least are equal. Who was not measured loses against those who were.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Annotated

from msgspec import Meta, Struct, field

from gtm.model import Region
from gtm.units import Duration

from ..clients import Client
from ..plan import Node
from .base import Ground, Option
from .nearest import distance_km, least


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

    def choose(client: Client) -> tuple[int, ...]:
        name = standing_for(client, regions)
        return chosen[name] if name else median

    described = [(name, region.lines, region.location) for name, region in regions.items()]
    key = ("latency", tuple(described), tuple(chosen.values()), median)
    return ground.located(key, [text for one in regions.values() for text in one.lines], choose)


def standing_for(client: Client, regions: Mapping[str, Region]) -> str:
    """The region that stands for a client; "" where none does."""
    for name, region in regions.items():
        if any(map(client.on, region.lines)):
            return name
    where = client.place.location
    placed = {name: one.location for name, one in regions.items() if one.location is not None}
    if where is None or not placed:
        return ""
    return min(placed, key=lambda name: (distance_km(where, placed[name]), name))


def _median(option: Option) -> float:
    return statistics.median(option.rtt_us.values()) if option.rtt_us else math.inf
