"""Laws that every steering policy keeps; a new file in resolver/steering/ is enrolled by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtm.choices import AllDown
from gtm.model import Steering
from gtm.state import Member, PoolState
from gtm.variants import variants
from resolver.compiler import compile_table
from resolver.leaves import leaf_of
from resolver.limits import JOINED_ANSWERS, MAX_ANSWERS, MAX_LEAVES
from resolver.place import Unplaced
from resolver.plan import Answers, Node, chances, leaves, walk
from resolver.planner import in_play
from resolver.steering import round_robin, weighted
from resolver.steering.base import PACKAGE, policy_of, rotations
from resolver.tiers import TierChoice
from tests.worlds import LOCAL, instance, planner, pool, world

POLICIES = sorted(variants(PACKAGE))
OPTIONS = {
    "weighted": ["{}", '{"answers":2}', '{"answers":5}'],
    "sequence": ["{}", '{"preemptive":false}'],
    "sticky": ["{}", '{"prefix_v4":8}'],
    "latency": ["{}", '{"tolerance":"5ms"}'],
}
ALL = ("round_robin", "weighted", "sticky")
"""Policies under which every member in play is answered to somebody sometimes."""
LEAF = leaf_of((), "ipv4", 60)
draws = st.integers(0, 2**64 - 1)


def compiled(state: PoolState) -> Node:
    """The plan of a pool's own pick."""
    return planner({"p": state}).pool("p", "ipv4", 60)


@st.composite
def pools(draw: st.DrawFn) -> PoolState:
    """A pool of a few members, of which at least one is answered."""
    policy = draw(st.sampled_from(POLICIES))
    members = []
    for number in range(draw(st.integers(1, 7))):
        up = draw(st.booleans()) or number == 0
        weight = draw(st.sampled_from([0, 1, 1, 2, 3, 100, 255]))
        value, why = f"192.0.2.{number}", "up" if up else "down"
        point = draw(st.sampled_from([None, (0.0, 0.0), (50.0, 8.0), (31.0, 121.0)]))
        members.append(
            Member(value=value, weight=weight, location=point, answered=up, counted=up, why=why)
        )
    steering = Steering(type=policy, options=draw(st.sampled_from(OPTIONS.get(policy, ["{}"]))))
    return PoolState(
        type="ipv4",
        steering=steering,
        members=tuple(members),
        max_answers=draw(st.sampled_from([1, 2, 8])),
        member_in_force=draw(st.sampled_from(["", *(member.value for member in members)])),
    )


def test_the_policies_of_this_version_are_registered() -> None:
    wanted = {"round_robin", "weighted", "sequence", "nearest", "latency", "sticky"}
    assert wanted <= set(POLICIES)


@pytest.mark.parametrize("name", POLICIES)
def test_the_settings_of_a_policy_refuse_unknown_keys(name: str) -> None:
    assert policy_of(Steering(type=name))[1] == variants(PACKAGE)[name].Settings()
    with pytest.raises(msgspec.ValidationError):
        policy_of(Steering(type=name, options='{"no_such_key":1}'))


def test_an_unknown_policy_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no steering policy 'fastest'"):
        policy_of(Steering(type="fastest"))


@settings(deadline=None)
@given(pools())
def test_only_members_that_are_answered_are_ever_answered(state: PoolState) -> None:
    up = [member for member in state.members if member.answered]
    weighty = any(member.weight for member in up)
    allowed = {member.value for member in up if member.weight or not weighty}
    found = list(leaves(compiled(state)))
    for leaf in found:
        assert leaf.count
        assert set(leaf.values()) <= allowed
        assert len(set(leaf.values())) == leaf.count <= state.max_answers
    if state.steering.type in ALL:
        assert {value for leaf in found for value in leaf.values()} == allowed
    assert len(found) <= len(state.members)


@settings(deadline=None)
@given(pools())
def test_the_same_pool_makes_the_same_plan(state: PoolState) -> None:
    copy = msgspec.json.decode(msgspec.json.encode(state.members), type=tuple[Member, ...])
    again = msgspec.structs.replace(state, members=copy)
    assert compiled(state) == compiled(again)


@settings(deadline=None)
@given(pools(), draws)
def test_every_draw_lands(state: PoolState, draw: int) -> None:
    plan = compiled(state)
    for number in (0, draw, 2**64 - 1):
        answers, ttl, scope = walk(plan, LOCAL, number)
        assert isinstance(answers, Answers)
        assert ttl == 60
        assert scope in ((0,) if state.steering.type != "sticky" else (0, 8, 24))


def shares(plan: Node) -> dict[str, Fraction]:
    """In which share of the answers each address is, exactly."""
    found: Counter[str] = Counter()
    for leaf, share in chances(plan, LOCAL):
        for value in leaf.values():
            found[value] += share
    return dict(found)


@settings(deadline=None)
@given(pools())
def test_long_run_shares_are_exact(state: PoolState) -> None:
    members = in_play(state, "ipv4")
    found = shares(compiled(state))
    _, chosen = policy_of(state.steering)
    if isinstance(chosen, weighted.Settings):
        count = min(chosen.answers, state.max_answers, len(members))
        wanted = fair({m.value: m.weight or 1 for m in members}, count)
    elif isinstance(chosen, round_robin.Settings):
        count = min(state.max_answers, len(members))
        wanted = {member.value: Fraction(count, len(members)) for member in members}
    else:
        return  # the client decides, or the order
    assert found == wanted


def fair(weights: dict[str, int], count: int) -> dict[str, Fraction]:
    """The share that k draws without repetition owe each weight: min(1, k*w/S), rest for rest."""
    owed: dict[str, Fraction] = {}
    rest = dict(weights)
    while rest:
        total, left = sum(rest.values()), count - sum(share == 1 for share in owed.values())
        sure = [value for value, weight in rest.items() if left and weight * left >= total]
        if not sure:
            return owed | {value: Fraction(w * left, total) for value, w in rest.items()}
        owed |= {value: Fraction(1) for value in sure}
        rest = {value: weight for value, weight in rest.items() if value not in sure}
    return owed


@pytest.mark.parametrize(
    ("weights", "count", "expected"),
    [
        ([3, 1], 1, [((0,), 3), ((1,), 1)]),
        ([1, 1, 1], 1, [((0,), 1), ((1,), 1), ((2,), 1)]),
        ([1, 1, 1, 1], 2, [((0, 2), 2), ((1, 3), 2)]),
        ([3, 1], 2, [((0, 1), 1)]),
        ([5, 1, 1, 1], 2, [((0, 1), 1), ((0, 2), 1), ((0, 3), 1)]),
        ([3, 2, 1, 1], 2, [((0, 1), 3), ((0, 2), 2), ((0, 3), 1), ((1, 3), 1)]),
        ([255], 1, [((0,), 1)]),
    ],
)
def test_systematic_sampling_draws_these_sets(
    weights: list[int], count: int, expected: list[tuple[tuple[int, ...], int]]
) -> None:
    assert weighted.samples(weights, count) == expected


@settings(deadline=None)
@given(st.lists(st.integers(1, 255), min_size=1, max_size=12), st.data())
def test_a_set_is_drawn_just_as_its_definition_says(
    weights: list[int], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(weights)))
    sets = weighted.samples(weights, count)
    certain: set[int] = set()
    left, total = count, sum(weights)
    while sure := [
        j for j, w in enumerate(weights) if j not in certain and left and w * left >= total
    ]:
        certain.add(sure[0])
        left, total = left - 1, total - weights[sure[0]]
    drawn: list[tuple[int, ...]] = []
    for u in range(total if left else 1):
        picked, cumulated = set(certain), 0
        for index, weight in enumerate(weights):
            if index in certain:
                continue
            low, high = left * cumulated, left * (cumulated + weight)
            if any(low <= u + turn * total < high for turn in range(left)):
                picked.add(index)
            cumulated += weight
        assert len(picked) == count
        drawn.append(tuple(sorted(picked)))
    assert [picked for picked, weight in sets for _ in range(weight)] == drawn


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (8, ["abc", "bca", "cab"]),
        (2, ["ab", "bc", "ca"]),
        (1, ["a", "b", "c"]),
    ],
)
def test_round_robin_rotates_a_window(window: int, expected: list[str]) -> None:
    def leaf(values: Sequence[str]) -> Answers:
        return Answers(60, "".join(values).encode(), len(values))

    plan = rotations(range(3), window, lambda some: leaf(["abc"[index] for index in some]))
    assert [found.wire.decode() for found, _ in chances(plan, LOCAL)] == expected


# ---- pools of one tier ---------------------------------------------------------------------


def tier(*names: str, **states: PoolState) -> list[tuple[tuple[str, ...], Fraction]]:
    """What the tier of these pools answers, with the chance of each."""
    rule = instance(("w", ["default"], [names])).rules[0]
    found = tuple(name for name in names if any(m.answered for m in states[name].members))
    plan = planner(states).tier(rule, TierChoice(1, found, "available"), None, "ipv4", 60)
    return [(leaf.values(), share) for leaf, share in chances(plan, LOCAL)]


ONE, TWO, THREE, FOUR = (f"192.0.2.{number}" for number in range(1, 5))


def test_pools_that_all_rotate_are_one_list_with_one_rotation() -> None:
    answers = tier("a", "b", a=pool(ONE, TWO, max_answers=1), b=pool(TWO, THREE))
    third = Fraction(1, 3)
    assert answers == [
        ((ONE, TWO, THREE), third),
        ((TWO, THREE, ONE), third),
        ((THREE, ONE, TWO), third),
    ]


def test_one_pool_keeps_its_own_window_and_joined_ones_the_tiers() -> None:
    many = [f"198.51.100.{number}" for number in range(12)]
    alone = tier("a", a=pool(*many, max_answers=3))
    joined = tier("a", "b", a=pool(*many, max_answers=3), b=pool(ONE, down=[ONE]))
    assert {len(addresses) for addresses, _ in alone} == {3}
    assert {len(addresses) for addresses, _ in joined} == {JOINED_ANSWERS}


def test_pools_of_mixed_policies_each_take_their_pick() -> None:
    answers = tier(
        "a", "b", a=pool(f"3*{ONE}", f"1*{TWO}", steering="weighted"), b=pool(THREE, FOUR)
    )
    assert answers == [
        ((ONE, THREE, FOUR), Fraction(3, 8)),
        ((ONE, FOUR, THREE), Fraction(3, 8)),
        ((TWO, THREE, FOUR), Fraction(1, 8)),
        ((TWO, FOUR, THREE), Fraction(1, 8)),
    ]


def test_an_address_of_two_pools_is_answered_once() -> None:
    answers = tier("a", "b", a=pool(ONE, steering="weighted"), b=pool(ONE))
    assert answers == [((ONE,), Fraction(1))]


def test_a_tier_of_too_many_answers_is_refused() -> None:
    many = [f"198.51.{n >> 8}.{n & 255}" for n in range(65)]
    with pytest.raises(ValueError, match=f"4225 different answers.*{MAX_LEAVES} is the most"):
        tier("a", "b", a=pool(*many, steering="weighted"), b=pool(*many))
    fits = tier("a", "b", a=pool(*many[:64], steering="weighted"), b=pool(*many[:64]))
    assert len(fits) == MAX_LEAVES
    view = world(
        pools={"a": pool(*many, steering="weighted"), "b": pool(*many)},
        instances={"i": instance(("w", ["default"], [["a", "b"]]))},
    )
    with pytest.raises(ValueError, match=r"rules w \(ipv4\): 4225 different answers"):
        compile_table(view, Unplaced())


def test_all_down_answers_everything_that_was_not_taken_out_to_a_bound() -> None:
    many = [f"198.51.100.{number}" for number in range(70)]
    states = {"a": pool(*many, down=many, max_answers=2), "b": pool(ONE, TWO, offline=[ONE])}
    shop = instance(("w", ["default"], [["b"], ["a"]]))

    def answered(policy: str) -> list[tuple[str, ...]]:
        plan = planner(states).all_down(shop.rules[0], AllDown(word=policy), "ipv4", 60)
        return [leaf.values() for leaf in leaves(plan)]

    assert answered("lowest_ordinal") == [(TWO,)]
    assert {len(addresses) for addresses in answered("all")} == {MAX_ANSWERS}
    assert not any(ONE in addresses for addresses in answered("all"))
    assert answered("nodata") == [()]
