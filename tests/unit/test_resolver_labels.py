"""Cells of labels that are in no table any more: kept for a while, then given to others, from 0."""

from __future__ import annotations

from typing import Any, cast

import pytest
from msgspec.structs import replace

from gtm.view import View
from resolver import cells
from resolver.cells import KEEP_S, TIDY_S, Labels, Use
from resolver.compiler import compile_table
from resolver.handover import Handover
from resolver.meters import NONE, OTHER
from resolver.native import NativeNames
from resolver.place import Unplaced
from resolver.table import AnswerTable, heard
from tests.unit.test_resolver_counts import RESPONDERS, Native, Reference, query
from tests.worlds import instance, pool, world

LAST, ROUNDS = KEEP_S + 1, 40


def view(number: int) -> View:
    """Everything that has a label is another in each world, one name and its instance aside."""
    rules = (
        ("near", [f"network:10.{number}.0.0/16"], [[f"p{number}"]]),
        ("rest", ["default"], [["rest"]]),
    )
    return world(
        pools={f"p{number}": pool(f"192.0.2.{number}"), "rest": pool("198.51.100.1")},
        instances={
            "stays": instance(*rules, id="gtm1", access_names=["stays.gtm.test"]),
            f"i{number}": instance(*rules, id="gtm2", access_names=[f"n{number}.gtm.test"]),
        },
    )


def table_of(number: int) -> AnswerTable:
    """The table of `view`."""
    made = replace(view(number), revision=number + 1)
    return heard(compile_table(made, Unplaced()), 100.0)


def put(responder: Reference, table: AnswerTable) -> None:
    """Have it answer from `table`."""
    responder.table = table
    if isinstance(responder, Native):
        responder.responder.put(table)


async def tidied(responder: Reference, now_s: float) -> int:
    """What a resolver does each `TIDY_S`."""
    if isinstance(responder, Native):
        return await responder.responder.tidy(now_s)
    return await responder.tally.tidy(responder.table, now_s)


def ask(responder: Reference, number: int) -> None:
    """A near client asks the name that stays."""
    responder.ask(query("stays.gtm.test", client=f"10.{number}.1.0/24"), 0)


def labels_of(responder: Reference) -> Labels:
    """Those that it counts by."""
    native = isinstance(responder, Native)
    return cast(Native, responder).responder.labels if native else responder.labels


def shown(responder: Reference) -> set[tuple[str, str, int]]:
    """What is counted of steered answers."""
    return set(responder.tally.rows())


@pytest.fixture(params=RESPONDERS, ids=lambda one: one.__name__.lower())
def responder(request: pytest.FixtureRequest) -> Reference:
    return request.param(table_of(1))


async def test_a_label_that_went_away_is_shown_for_a_while_and_then_gone(
    responder: Reference,
) -> None:
    ask(responder, 1)
    old = {("line", "network:10.1.0.0/16", 1), ("pool", "p1", 1), ("address", "192.0.2.1", 1)}
    assert shown(responder) == old
    put(responder, table_of(2))
    ask(responder, 2)
    both = old | {
        ("line", "network:10.2.0.0/16", 1),
        ("pool", "p2", 1),
        ("address", "192.0.2.2", 1),
    }
    at_s = 0.0
    while at_s < KEEP_S:
        assert await tidied(responder, at_s) == 0
        assert shown(responder) == both
        at_s += TIDY_S
    assert await tidied(responder, at_s) >= 3
    assert shown(responder) == both - old


async def test_a_label_that_comes_back_in_time_goes_on_counting(responder: Reference) -> None:
    ask(responder, 1)
    put(responder, table_of(2))
    await tidied(responder, 0.0)
    put(responder, table_of(1))
    await tidied(responder, KEEP_S / 2)
    put(responder, table_of(2))
    await tidied(responder, LAST)
    put(responder, table_of(1))
    ask(responder, 1)
    assert ("address", "192.0.2.1", 2) in shown(responder)


async def test_labels_that_change_for_ever_stay_within_their_bounds(
    responder: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most in ("MAX_LINES", "MAX_POOLS", "MAX_ADDRESSES", "MAX_NAMES", "MAX_INSTANCES"):
        monkeypatch.setattr(cells, most, 6)
    responder = type(responder)(table_of(1))  # its bounds are those of now
    for number in range(2, ROUNDS):
        table = table_of(number)  # all anew: a change keeps plans of instances that went away
        put(responder, table)
        for _ in range(number):
            ask(responder, number)
        assert shown(responder) >= {
            ("line", f"network:10.{number}.0.0/16", number),
            ("pool", f"p{number}", number),
            ("address", f"192.0.2.{number}", number),
        }
        # what went away is idle from the first look on, and given back with the second
        await tidied(responder, number * 2 * LAST)
        await tidied(responder, number * 2 * LAST + LAST)
    assert all(label != OTHER for _, label, _ in shown(responder))
    assert labels_of(responder).end <= cells.FIRST + 14 * cells.OUTCOMES + 21
    counts = responder.by_instance()
    assert counts == {"stays": sum(range(2, ROUNDS))}


@pytest.mark.skipif(Native not in RESPONDERS, reason="no native responder here")
async def test_names_that_gave_their_cells_back_are_not_counted_as_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    responder = Native(table_of(1))
    responder.ask(query("n1.gtm.test"), 0)
    names = NativeNames(responder.responder)

    def by_label(table: AnswerTable) -> dict[str, int]:
        return {label: sum(counts) for label, _, counts in names.rows(table) if sum(counts)}

    counted = responder.responder.counted

    def as_over_udp(first: int, count: int) -> list[int]:  # `respond` does not count by transport
        found = counted(first, count)
        return [1, *found[1:]] if first == 0 else found

    monkeypatch.setattr(responder.responder, "counted", as_over_udp)
    assert by_label(responder.table) == {"n1.gtm.test": 1}
    put(responder, table_of(2))
    for now_s in (0.0, LAST):
        await tidied(responder, now_s)
    assert responder.responder.labels.names.spare
    assert NONE not in by_label(responder.table)
    put(responder, table_of(3))
    assert NONE not in by_label(responder.table)


@pytest.mark.skipif(Native not in RESPONDERS, reason="no native responder here")
async def test_cells_wait_while_a_responder_may_still_count_in_them() -> None:
    responder = Native(table_of(1))
    ask(responder, 1)
    put(responder, table_of(2))
    assert await tidied(responder, 0.0) == 0
    native, handover = responder.responder.native, responder.responder._handover
    responder.responder.native = _Read(native, 1)  # a worker reads a former table
    assert await tidied(responder, LAST) == 0
    responder.responder.native = native
    handover.forget()  # after a refusal nobody knows what the responder has
    assert await tidied(responder, LAST) == 0
    put(responder, table_of(2))
    assert await tidied(responder, LAST) > 0


class _Read:
    """A native responder of which so many former tables are still read."""

    def __init__(self, native: Any, tables: int) -> None:
        self._native, self._tables = native, tables

    def sweep(self) -> int:
        return self._tables

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)


def test_a_name_whose_slot_has_another_instance_is_sent_again() -> None:
    handover = Handover()
    rules = ("rest", ["default"], [["rest"]])
    pools = {"rest": pool("198.51.100.1")}

    def table(name: str) -> AnswerTable:
        instances = {name: instance(rules, id="gtm1", access_names=["a.gtm.test"])}
        return compile_table(world(pools=pools, instances=instances), Unplaced())

    handover.message(table("one"))
    handover.taken()
    assert b"\x01a\x03gtm\x04test\0" not in handover.message(table("one"))
    assert b"\x01a\x03gtm\x04test\0" in handover.message(table("other"))


def test_labels_in_use_are_never_given_back() -> None:
    labels = Labels()
    for pool_name in ("a", "b"):
        labels.pools.cell(pool_name)
    for now_s in (0.0, KEEP_S):
        labels.tidy(Use(pools={"a"}), now_s, lambda end: [7] * end)
    assert list(labels.pools.cells) == ["a"]
    assert labels.base == {labels.pools.spare[0]: 7}
