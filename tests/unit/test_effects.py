"""What a plan changes in answers, line by line."""

from __future__ import annotations

from coordinator.touched import MAX_INSTANCES, touched
from ctl import effects as compared
from ctl.diff import render_effects
from ctl.validate import registered, review
from gtm.config import read_text
from gtm.model import Resources
from gtm.ports import Effects
from tests.unit.test_simulate import SET


def resources(text: str) -> Resources:
    """The whole set that a text says."""
    judged = review(read_text(text, registered()), registered())
    assert judged.resources is not None, judged.problems
    return judged.resources


def effects(before: Resources, after: Resources) -> Effects:
    """What a plan from one set to the other tells."""
    seen = touched(before, after)
    changed = compared.effects(seen.before, seen.after, seen.names)
    return Effects(changed=changed, skipped=seen.skipped, leaving=seen.leaving)


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


def test_only_what_a_touched_instance_answers_from_is_compared() -> None:
    seen = touched(resources(SET), resources(SET.replace("value: 192.0.2.3", "value: 192.0.2.9")))
    assert seen.names == ("shop",)
    for side in (seen.before, seen.after):
        assert side.instances.keys() == {"shop"}
        assert side.pools.keys() == {*side.instances["shop"].pools()}
    assert "us: 192.0.2.9" in compared.effects(seen.before, seen.after, seen.names)[0].after


def test_a_large_plan_says_how_many_instances_were_not_compared() -> None:
    many = "\n".join(
        f"  i{n}: {{id: gtm{n:08}, ttl: TTLs, rules: [{{name: w, lines: [default],"
        " tiers: [{pools: [us]}]}]}"
        for n in range(10, MAX_INSTANCES + 15)
    )
    before, after = (SET + many.replace("TTL", ttl) for ttl in ("60", "30"))
    found = effects(resources(before), resources(after))
    assert (len(found.changed), found.skipped) == (MAX_INSTANCES, 5)
