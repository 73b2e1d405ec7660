"""What each policy that looks at clients, order or the past promises beyond the common laws."""

from __future__ import annotations

import ipaddress
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtm import codec
from gtm.model import ClientLine, Region
from gtm.state import PoolState
from resolver.place import Place
from resolver.plan import chances, leaves, walk
from resolver.steering.nearest import distance_km
from resolver.steering.sticky import winners
from resolver.tiers import Pin, TierChoice
from tests.worlds import geography, instance, planner

A, B, C, D = (f"192.0.2.{number}" for number in range(1, 5))
FRANKFURT, LONDON, TOKYO, SYDNEY = (50.1, 8.7), (51.5, -0.1), (35.7, 139.7), (-33.9, 151.2)
GERMAN = Place(continent="EU", country="DE", location=(52.5, 13.4))
BRITISH = Place(continent="EU", country="GB", location=(51.5, -0.1))
JAPANESE = Place(continent="AS", country="JP", location=(34.7, 135.5))
WHERE = geography({"10.0.0.0/16": GERMAN, "10.1.0.0/16": BRITISH, "10.2.0.0/16": JAPANESE})


def state(*members: dict[str, Any], **data: Any) -> PoolState:
    """A published pool whose members are all up."""
    rows = [{"answered": True, "counted": True, "why": "up", **member} for member in members]
    return codec.convert({"type": "ipv4", "members": rows, **data}, PoolState)


def asked(pool: PoolState, client: str, **world: Any) -> set[tuple[str, ...]]:
    """The answers that a client may get from a pool."""
    plan = planner({"p": pool}, WHERE, **world).pool("p", "ipv4", 60)
    packed = ipaddress.ip_address(client).packed
    return {leaf.values() for leaf, _ in chances(plan, packed)}


# ---- sequence ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preemptive", "in_force", "expected"),
    [(True, B, A), (False, B, B), (False, "", A), (False, "192.0.2.9", A)],
)
def test_a_sequence_goes_back_unless_it_is_not_preemptive(
    preemptive: bool, in_force: str, expected: str
) -> None:
    pool = state(
        {"value": A},
        {"value": B},
        steering={"type": "sequence", "preemptive": preemptive},
        member_in_force=in_force,
    )
    assert asked(pool, "10.0.0.1") == {(expected,)}


# ---- nearest -------------------------------------------------------------------------------------


def test_nearest_goes_by_lines_then_by_distance_then_takes_all() -> None:
    pool = state(
        {"value": A, "location": FRANKFURT},
        {"value": B, "location": TOKYO},
        {"value": C, "lines": ["country:GB"]},
        {"value": D, "lines": ["british"]},
        steering="nearest",
    )
    lines = {"british": ClientLine(any_of=("country:GB", "country:IE"))}
    assert asked(pool, "10.0.0.1", lines=lines) == {(A,)}
    assert asked(pool, "10.2.0.1", lines=lines) == {(B,)}
    assert asked(pool, "10.1.0.1", lines=lines) == {(C, D), (D, C)}
    assert len(asked(pool, "192.0.2.200", lines=lines)) == 4  # nobody knows where that is


def test_equal_distances_rotate_and_the_scope_is_where_clients_part() -> None:
    pool = state(
        {"value": A, "location": FRANKFURT},
        {"value": B, "location": FRANKFURT},
        {"value": C, "location": SYDNEY},
        steering="nearest",
    )
    assert asked(pool, "10.0.0.1") == {(A, B), (B, A)}
    plan = planner({"p": pool}, WHERE).pool("p", "ipv4", 60)
    # Whoever is placed is nearest to Frankfurt or Sydney, whoever is not gets all three.
    assert walk(plan, ipaddress.ip_address("10.0.0.1").packed, 0)[2] == 15


def test_distances_are_great_circles() -> None:
    assert distance_km(LONDON, FRANKFURT) == pytest.approx(640, abs=10)
    assert distance_km((0.0, 0.0), (0.0, 180.0)) == pytest.approx(20015, abs=1)
    assert distance_km((0.0, 179.9), (0.0, -179.9)) == pytest.approx(22.2, abs=0.1)


# ---- latency -------------------------------------------------------------------------------------

REGIONS = {
    "eu": Region(location=FRANKFURT, lines=("country:GB",)),
    "jp": Region(location=TOKYO),
}
MEASURED = {
    "eu": [{"rtt_us": 9_000, "members": [A]}, {"rtt_us": 210_000, "members": [B, C]}],
    "jp": [{"rtt_us": 4_000, "members": [B]}, {"rtt_us": 9_500, "members": [C]},
           {"rtt_us": 220_000, "members": [A]}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("client", "tolerance", "expected"),
    [
        ("10.0.0.1", "10ms", {(A,)}),  # by location
        ("10.1.0.1", "10ms", {(A,)}),  # by the region's lines
        ("10.2.0.1", "5ms", {(B,)}),
        ("10.2.0.1", "10ms", {(B, C), (C, B)}),
        ("192.0.2.200", "1ms", {(B,)}),  # medians: A 114.5 ms, B 107 ms, C 109.75 ms
        ("192.0.2.200", "5ms", {(B, C), (C, B)}),
    ],
)
def test_latency_is_that_of_the_region_that_stands_for_the_client(
    client: str, tolerance: str, expected: set[tuple[str, ...]]
) -> None:
    pool = state(
        *({"value": value} for value in (A, B, C, D)),
        steering={"type": "latency", "tolerance": tolerance},
        latency=MEASURED,
    )
    assert asked(pool, client, regions=REGIONS) == expected


def test_without_a_measurement_latency_takes_all() -> None:
    pool = state({"value": A}, {"value": B}, steering="latency")
    assert asked(pool, "10.0.0.1", regions=REGIONS) == {(A, B), (B, A)}


# ---- sticky --------------------------------------------------------------------------------------

options = st.dictionaries(
    st.integers(0, 50).map(lambda number: f"192.0.2.{number}"), st.integers(1, 255), min_size=2,
    max_size=8,
).map(lambda found: tuple(sorted(found.items())))  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(options, st.data())
def test_when_one_goes_nobody_else_moves(found: tuple[Any, ...], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(found))
    rest = tuple(one for one in found if one != gone)
    before = [found[index] for index in winners(found)]
    after = [rest[index] for index in winners(rest)]
    assert all(one in (gone, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 20])
def test_who_comes_takes_no_more_than_its_share(count: int) -> None:
    found = tuple((f"192.0.2.{number}", 1) for number in range(count))
    more = (*found, ("198.51.100.1", 1))
    before = [found[index] for index in winners(found)]
    after = [more[index] for index in winners(more)]
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    assert moved / len(before) <= 1 / (count + 1) + 0.02


def test_networks_stick_to_members_by_weight() -> None:
    pool = state(
        {"value": A, "weight": 6}, {"value": B, "weight": 3}, {"value": C}, steering="sticky"
    )
    plan = planner({"p": pool}, WHERE).pool("p", "ipv4", 60)
    dice = random.Random(7)
    clients = [dice.getrandbits(32).to_bytes(4) for _ in range(20_000)]
    found = Counter(walk(plan, client, 0)[0].values()[0] for client in clients)
    for value, share in ((A, 0.6), (B, 0.3), (C, 0.1)):
        assert found[value] / len(clients) == pytest.approx(share, abs=0.03)
    for client in clients[:200]:
        answers, _, scope = walk(plan, client, 5)
        assert scope == 24
        assert walk(plan, client[:3] + b"\xff", 2**63)[0] is answers
    assert walk(plan, bytes(16), 0)[2] == 56


def test_members_of_weight_0_share_alike_when_alone() -> None:
    assert set(winners((("a", 0), ("b", 0)))) == {0, 1}
    assert set(winners((("a", 0), ("b", 1)))) == {1}


# ---- pools of a tier -----------------------------------------------------------------------------

POOLS = {
    "a": state({"value": A, "location": FRANKFURT}),
    "b": state({"value": B, "location": TOKYO}),
    "c": state({"value": C}, {"value": D}),
}


def tier(client: str, pin: Pin | None = None, **data: Any) -> dict[tuple[str, ...], float]:
    """What the tier of `POOLS` answers a client, with the chance of each."""
    names = data.pop("pools", ["a", "b", "c"])
    tiers = [{"pools": names, **data}]
    shop = instance(("w", ["default"], []))
    rule = codec.convert(
        {"rules": [{"name": "w", "lines": ["default"], "tiers": tiers}], "id": "gtm1"}, type(shop)
    ).rules[0]
    found = TierChoice(1, rule.tiers[0].names(), "available")
    plan = planner(POOLS, WHERE).tier(rule, found, pin, "ipv4", 60)
    packed = ipaddress.ip_address(client).packed
    told: dict[tuple[str, ...], float] = {}
    for leaf, chance in chances(plan, packed):
        told[leaf.values()] = told.get(leaf.values(), 0) + float(chance)
    return told


def test_pools_are_steered_as_members_are() -> None:
    assert tier("10.0.0.1", steering="sequence") == {(A,): 1.0}
    weights = [{"pool": "a", "weight": 3}, {"pool": "c", "weight": 1}]
    assert tier("10.0.0.1", steering="weighted", pools=weights) == {
        (A,): 0.75, (C, D): 0.125, (D, C): 0.125,
    }  # fmt: skip
    assert tier("10.2.0.1", steering="nearest") == {(B,): 1.0}
    lined = ["a", {"pool": "b", "lines": ["country:DE"]}]
    assert tier("10.0.0.1", steering="nearest", pools=lined) == {(B,): 1.0}
    sticky = {next(iter(tier(f"10.0.{n}.1", steering="sticky", pools=["a", "b"])))
              for n in range(40)}  # fmt: skip
    assert sticky == {(A,), (B,)}


def test_a_sequence_of_pools_stays_with_the_one_in_force() -> None:
    keeps = {"type": "sequence", "preemptive": False}
    pin = Pin(1, False, "b")
    assert tier("10.0.0.1", pin, steering=keeps) == {(B,): 1.0}
    assert tier("10.0.0.1", pin, steering="sequence") == {(A,): 1.0}


def test_a_tier_has_its_own_number_of_answers() -> None:
    assert set(tier("10.0.0.1", max_answers=2)) == {(A, B), (B, C), (C, D), (D, A)}
    assert set(tier("10.0.0.1", pools=["c"], max_answers=1)) == {(C,), (D,)}


# ---- names ---------------------------------------------------------------------------------------


def test_a_pool_of_names_answers_one_cname_and_a_flattened_one_addresses() -> None:
    names = [{"value": "a.cdn.example", "weight": 3}, {"value": "b.cdn.example"}]
    pool = codec.convert(
        {
            "type": "domain",
            "steering": "weighted",
            "members": [{"answered": True, "counted": True, "why": "up", **one} for one in names],
        },
        PoolState,
    )
    for family in ("ipv4", "ipv6"):
        plan = planner({"p": pool}).pool("p", family, 60)
        assert {leaf.values() for leaf in leaves(plan)} == {("a.cdn.example",), ("b.cdn.example",)}
        assert all(leaf.alias() for leaf in leaves(plan))
    sets = [[A, "2001:db8::1"], [B]]
    flat = codec.convert(
        {
            "type": "domain",
            "flatten": True,
            "members": [
                {"answered": True, "counted": True, "why": "up", **one,
                 "set": {"addresses": found, "ttl": 20 + 20 * at, "since": 0.0}}
                for at, (one, found) in enumerate(zip(names, sets, strict=True))
            ],
        },
        PoolState,
    )  # fmt: skip
    plan = planner({"p": flat}).pool("p", "ipv4", 60)
    assert {leaf.values() for leaf in leaves(plan)} == {(A, B), (B, A)}
    assert {leaf.ttl for leaf in leaves(plan)} == {20}
    six = planner({"p": flat}).pool("p", "ipv6", 60)
    assert {leaf.values() for leaf in leaves(six)} == {("2001:db8::1",)}
