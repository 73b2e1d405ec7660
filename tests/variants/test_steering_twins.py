"""Policies against what their definitions say, worked out as plainly as possible."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtm.model import Location, Region
from gtm.units import Duration
from resolver.clients import Client
from resolver.place import Place
from resolver.plan import Answers, Node, chances, walk
from resolver.steering import latency, nearest, sticky, weighted
from resolver.steering.base import Option

LOCAL = b"\x7f\x00\x00\x01"
COUNTRIES = ("DE", "GB", "JP")
places = st.sampled_from([(50.1, 8.7), (50.1, 8.705), (35.7, 139.7), (-33.9, 151.2), (0.0, -179.9)])
lined = st.lists(st.sampled_from(COUNTRIES).map("country:{}".format), max_size=2).map(tuple)
trips = st.dictionaries(st.sampled_from("xyz"), st.integers(1, 60).map(lambda n: n * 1000))


class Asked:
    """A ground on which a plan is what each of some sample clients is told."""

    def __init__(self, clients: Sequence[Client], regions: Mapping[str, Region]) -> None:
        self.clients, self.regions, self.in_force = clients, regions, ""
        self.told: list[tuple[int, ...]] = []
        self.asks: set[str] = set()

    def pick(self, indexes: Sequence[int]) -> Node:
        """A leaf that has the indexes as octets."""
        return Answers(60, bytes(indexes), len(indexes))

    def located(
        self, key: Hashable, lines: Collection[str], choose: Callable[[Client], tuple[int, ...]]
    ) -> Node:
        """Notes what each client is told."""
        hash(key)
        self.asks = set(lines)
        self.told = [choose(client) for client in self.clients]
        return self.pick(())


def haversine_km(one: Location, other: Location) -> float:
    """The great circle, as textbooks have it."""
    (a, b), (c, d) = (tuple(map(math.radians, place)) for place in (one, other))
    half = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
    return 2 * 6371 * math.asin(math.sqrt(half))


CLIENTS = tuple(
    Client(Place(continent="EU", country=country, location=where), (), {})
    for country in ("DE", "JP", "US", "")
    for where in (None, (50.1, 8.7), (34.7, 135.5), (-10.0, 160.0), (0.0, 179.9), (90.0, 0.0))
)


def options_of(
    rows: Sequence[tuple[tuple[str, ...], list[Location], dict[str, int]]],
) -> list[Option]:
    """Options named by their order."""
    return [
        Option(str(n), lines=lines, points=tuple(points), rtt_us=rtt)
        for n, (lines, points, rtt) in enumerate(rows)
    ]


rows = st.lists(st.tuples(lined, st.lists(places, max_size=3), trips), min_size=1, max_size=6)


def all_within(values: Sequence[float], tolerance: float) -> tuple[int, ...]:
    """The indexes of all values within a tolerance of the least."""
    return tuple(n for n, value in enumerate(values) if value - tolerance <= min(values))


@settings(deadline=None)
@given(rows.map(options_of))
def test_nearest_is_what_its_definition_says(options: list[Option]) -> None:
    ground = Asked(CLIENTS, {})
    nearest.compile(nearest.Settings(), options, 8, ground)
    assert ground.asks == {line for option in options for line in option.lines}
    for client, told in zip(CLIENTS, ground.told, strict=True):
        on = tuple(n for n, one in enumerate(options) if any(map(client.on, one.lines)))
        where = client.place.location
        far = [
            min((haversine_km(where, point) for point in one.points), default=math.inf)
            if where is not None
            else math.inf
            for one in options
        ]
        every = tuple(range(len(options)))
        assert told == (on or (every if min(far) == math.inf else all_within(far, 1.0)))


@settings(deadline=None)
@given(
    rows.map(options_of),
    st.dictionaries(
        st.sampled_from("xyz"),
        st.builds(Region, location=st.none() | places, lines=lined),
    ),
    st.sampled_from([0, 5, 10]),
)
def test_latency_is_what_its_definition_says(
    options: list[Option], regions: dict[str, Region], tolerance_ms: int
) -> None:
    ground = Asked(CLIENTS, regions)
    latency.compile(latency.Settings(tolerance=Duration(tolerance_ms)), options, 8, ground)
    measured = {name for option in options for name in option.rtt_us} & regions.keys()
    for client, told in zip(CLIENTS, ground.told, strict=True):
        stands = [n for n in sorted(measured) if any(map(client.on, regions[n].lines))]
        where = client.place.location
        if not stands and where is not None:
            far = {
                name: haversine_km(where, point)
                for name in sorted(measured)
                if (point := regions[name].location) is not None
            }
            stands = [name for name in far if far[name] - 1.0 <= min(far.values())]
        trips = [
            option.rtt_us.get(stands[0], math.inf)
            if stands
            else statistics.median(option.rtt_us.values() or [math.inf])
            for option in options
        ]
        every = tuple(range(len(options)))
        assert told == (every if min(trips) == math.inf else all_within(trips, tolerance_ms * 1000))


def test_weighted_draws_fit_the_weights() -> None:
    weights, dice, draws = [1, 2, 3, 10, 34, 50, 255], random.Random(11), 100_000
    options = [Option(str(n), weight) for n, weight in enumerate(weights)]
    plan = weighted.compile(weighted.Settings(), options, 8, Asked((), {}))
    found = Counter(walk(plan, LOCAL, dice.getrandbits(64))[0].wire[0] for _ in range(draws))
    expected = [draws * weight / sum(weights) for weight in weights]
    chi_square = sum((found[n] - e) ** 2 / e for n, e in enumerate(expected))
    assert chi_square < 22.5  # 6 degrees of freedom: exceeded by chance once in 1,000


def asked(found: Mapping[str, int], clients: Sequence[bytes]) -> list[str]:
    """Who each client sticks to, among (key, weight) options."""
    options = [Option(key, weight) for key, weight in found.items()]
    plan = sticky.compile(sticky.Settings(), options, 8, Asked((), {}))
    return [options[chances(plan, client)[0][0].wire[0]].key for client in clients]


crowds = st.dictionaries(
    st.integers(0, 90).map("192.0.2.{}".format), st.integers(1, 255), min_size=1, max_size=9
)
DICE = random.Random(5)
NETWORKS = [DICE.getrandbits(24).to_bytes(3) + b"\x01" for _ in range(20_000)]


@settings(deadline=None, max_examples=8)
@given(crowds, st.integers(1, 255))
def test_a_newcomer_takes_its_share_from_all_and_moves_nobody_else(
    crowd: dict[str, int], weight: int
) -> None:
    before = asked(crowd, NETWORKS)
    after = asked(crowd | {"198.51.100.1": weight}, NETWORKS)
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) <= {"198.51.100.1"}
    share = weight / (sum(crowd.values()) + weight)
    assert len(moved) / len(NETWORKS) == pytest.approx(share, abs=0.03)


def test_who_wins_does_not_depend_on_the_order_or_the_platform() -> None:
    found = tuple((f"192.0.2.{n}", 1 + n % 5) for n in range(20))
    won = [found[index][0] for index in sticky.winners(found)]
    turned = found[::-1]
    assert won == [turned[index][0] for index in sticky.winners(turned)]
    digest = blake2b(" ".join(won).encode(), digest_size=8).hexdigest()
    assert digest == "f57c59f7023524c2"


def test_logarithms_are_those_of_the_hashes() -> None:
    hashes = [0, 1, 2**11, 2**40 + 12345, 2**63, 2**64 - 1, *(DICE.getrandbits(64) for _ in "abc")]
    found = sticky._minus_log(np.array(hashes, dtype=np.uint64))
    for one, log in zip(hashes, found.tolist(), strict=True):
        assert log >= 1
        wanted = -math.log2(((one >> 11) | 1) / 2**53)
        assert log / sticky.LOG_ONE == pytest.approx(wanted, abs=2**-12)
