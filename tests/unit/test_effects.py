"""What a plan changes in answers, line by line."""

from __future__ import annotations

import json

from ctl import files
from ctl.diff import render_effects
from ctl.effects import MAX_INSTANCES, Effects, effects
from ctl.validate import registered, review
from gtm import codec
from gtm.config import read_text
from gtm.model import Resources
from gtm.v1 import operator_pb2 as pb
from tests.unit.test_simulate import SET


def resources(text: str) -> Resources:
    """The whole set that a text says."""
    judged = review(read_text(text, registered()), registered())
    assert judged.resources is not None, judged.problems
    return judged.resources


def told(before: str, after: str) -> list[tuple[str, str, str]]:
    """(line, answer before, answer after) of what changes for A."""
    found = effects(resources(before), resources(after))
    return [(one.line, one.before, one.after) for one in found.changed if one.type == "A"]


def test_nothing_changes_nothing() -> None:
    assert effects(resources(SET), resources(SET)) == Effects()


def test_a_changed_weight_and_a_changed_tier_are_told_by_line() -> None:
    heavier = SET.replace("weight: 3", "weight: 1")
    assert told(SET, heavier) == [
        (
            "continent:EU",
            "eu: 192.0.2.1 0.75, 192.0.2.2 0.25, TTL 60 s",
            "eu: 192.0.2.1, 192.0.2.2, TTL 60 s",
        )
    ]
    moved = SET.replace("[default], tiers: [{pools: [us]}", "[default], tiers: [{pools: [eu]}")
    assert [line for line, _, _ in told(SET, moved)] == ["default"]


def test_what_comes_and_goes_is_told_and_counted() -> None:
    bare = SET.partition("instances:")[0]
    assert told(bare, SET)[0][1] == ""
    fewer = SET.replace("{value: 192.0.2.3}, ", "")
    found = effects(resources(SET), resources(fewer))
    assert found.leaving == 1
    shown = render_effects(found)
    assert "shop A for default:\n      - us: 192.0.2.3, 192.0.2.4, TTL 60 s\n" in shown
    assert "      + us: 192.0.2.4, TTL 60 s\n" in shown
    assert shown.endswith("1 addresses leave service\n")


def test_what_is_stored_and_planned_is_compared_as_it_was_judged() -> None:
    before = resources(SET)
    pool = codec.plain(before.pools["us"])
    del pool["addresses"][0]
    change = pb.Change(action="update", kind="pools", name="us", after=json.dumps(pool))
    sets = files.before_and_after(files.plain(before), [change])
    assert sets is not None
    assert sets[0] == before
    assert [one.after for one in effects(*sets).changed] == ["us: 192.0.2.4, TTL 60 s"]
    assert files.before_and_after({"clouds": {"one": {}}}, []) is None


def test_a_large_plan_says_how_many_instances_were_not_compared() -> None:
    many = "\n".join(
        f"  i{n}: {{id: gtm{n:08}, ttl: TTLs, rules: [{{name: w, lines: [default],"
        " tiers: [{pools: [us]}]}]}"
        for n in range(10, MAX_INSTANCES + 15)
    )
    before, after = (SET + many.replace("TTL", ttl) for ttl in ("60", "30"))
    found = effects(resources(before), resources(after))
    assert (len(found.changed), found.skipped) == (MAX_INSTANCES, 5)
