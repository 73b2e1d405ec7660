"""Whatever changes, and however often: a table says what one made anew of the same state says."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gtm.view import Changes, View
from resolver.compiler import compile_table
from resolver.place import Unplaced
from resolver.table import AnswerTable
from tests.differential.worlds import POOLS, REFUSALS, changed, some_pool, some_world
from tests.worlds import instance, pool, world

STEPS = 8
NOBODY = Unplaced()


def said(table: AnswerTable) -> dict[bytes, object]:
    """The plans of every access name, and whether they may answer a CNAME."""
    found: dict[bytes, object] = {}
    for owner, name in table.names.items():
        if name.slot >= 0:
            slot = table.slots[name.slot]
            numbers = (slot.a, slot.aaaa)
            plans = [(table.plans[one], one in table.aliased) for one in numbers]
            found[owner] = (*plans, slot.ttl)
    return found


def only_pools(dice: random.Random, view: View) -> tuple[View, Changes]:
    """`view` after changes of one or two pools: of their states, or of one member's alone."""
    names = dice.sample(POOLS, dice.choice((1, 1, 2)))
    states = dict(view.pools)
    for name in names:
        before = states.get(name)
        if before is None or dice.random() < 0.3:
            states[name] = some_pool(dice)
            continue
        members = list(before.members)
        at, on = dice.randrange(len(members)), dice.random() < 0.5
        members[at] = replace(members[at], answered=on, counted=on, why="up" if on else "down")
        states[name] = replace(before, members=tuple(members))
    after = replace(view, pools=states, revision=view.revision + 1)
    return after, Changes(pools=frozenset(names))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1).map(random.Random))
def test_changes_of_pools_make_the_plans_that_a_whole_compilation_makes(
    dice: random.Random,
) -> None:
    table: AnswerTable | None = None
    while table is None:
        view = some_world(dice)
        try:
            table = compile_table(view, NOBODY)
        except REFUSALS:
            continue
    for _ in range(STEPS):
        changes: Changes | None = None
        if dice.random() < 0.8:
            view, changes = only_pools(dice, view)
        else:
            view = changed(dice, view)
        try:
            whole = compile_table(view, NOBODY)
        except REFUSALS:
            assert table.made is not None
            view = table.made.view
            continue
        table = compile_table(view, NOBODY, table, changes)
        assert said(table) == said(whole)


def shops(count: int) -> dict[str, object]:
    """So many instances that differ in a network, and share a pool behind their own."""
    return {
        f"s{number}": instance(
            ("own", [f"network:10.0.{number}.0/24"], [["a"]]),
            ("all", ["default"], [["b"], ["c"]]),
            access_names=[f"s{number}.gtm.test"],
            id=f"gtm{number}",
        )
        for number in range(count)
    }


def test_a_shared_pool_changes_no_more_than_the_plans_of_its_family() -> None:
    states = {"a": pool("192.0.2.1"), "b": pool("192.0.2.2", "192.0.2.3"), "c": pool("192.0.2.4")}
    view = world(pools=states, instances=shops(20))
    table = compile_table(view, NOBODY)

    def moved(name: str, *members: str, down: tuple[str, ...] = ()) -> int:
        state = pool(*members, down=down)
        after = replace(view, pools={**states, name: state}, revision=2)
        changes = Changes(pools=frozenset({name}))
        again = compile_table(after, NOBODY, table, changes)
        assert said(again) == said(compile_table(after, NOBODY))
        return sum(new is not old for new, old in zip(again.plans, table.plans, strict=True))

    both = ("192.0.2.2", "192.0.2.3")
    assert len(table.plans) == 40
    assert moved("b", *both) == 0  # published again
    assert moved("b", *both, down=both[:1]) == 20
    assert moved("b", *both, down=both) == 20  # the next tier takes over
    assert moved("c", "192.0.2.4", down=("192.0.2.4",)) == 0  # nobody is sent there now
    assert moved("b", "2001:db8::1") == 40
