"""Assignments beyond one message, and the bounds of one stream."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from agent.targets import read_target
from coordinator import assignment
from coordinator.assignment import ALL, Assignment, UsedUp
from coordinator.events import TargetKey
from coordinator.views import Assigned
from gtm.v1 import agent_pb2

ABLE = ("http", "family:ipv4")


def target(number: int, **more: int) -> Assigned:
    timing = {"interval_ms": 1_000, "timeout_ms": 500, "fall": 2, "rise": 2, "gap_ms": 0, **more}
    key = TargetKey("web", f"192.0.2.{number}", 80)
    return Assigned(number=number, key=key, type="http", options="{}", regions=("eu",), **timing)


def test_a_large_set_goes_in_several_messages_that_build_on_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assignment, "MAX_PER_MESSAGE", 2)
    made = Assignment(ABLE)
    made.refresh([target(n) for n in range(5)])
    sent = list(made.messages())
    assert [(one.base, one.revision, len(one.set)) for one in sent] == [
        (0, 1, 2),
        (1, 2, 2),
        (2, 3, 1),
    ]
    rows = np.array([0, 4], dtype=np.int64)
    for revision in (1, 2, 3):  # all of them one step: a digest may speak of any
        known, numbers = made.take(revision, rows)
        assert list(known) == [True, True]
        assert list(numbers) == [0, 4]
    made.refresh([])
    assert [len(one.remove) for one in made.messages()] == [2, 2, 1]
    assert not made.take(6, rows)[0].any()


def test_an_empty_set_is_a_snapshot_too() -> None:
    made = Assignment(ABLE)
    made.refresh([])
    assert [(one.base, one.revision) for one in made.messages()] == [(0, 1)]
    assert list(made.messages()) == []
    assert not made.refresh([])


def test_what_goes_while_a_set_is_being_sent_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "MAX_PER_MESSAGE", 1)
    made = Assignment(ABLE)
    made.refresh([target(1), target(2)])
    messages = made.messages()
    assert len(next(messages).set) == 1
    made.refresh([target(1)])
    assert [len(one.set) for one in messages] == [0]
    assert list(made.messages()) == []


def test_a_number_that_another_target_got_means_another_index() -> None:
    made = Assignment(ABLE)
    made.refresh([target(1)])
    list(made.messages())
    other = Assigned(
        number=1,
        key=TargetKey("web", "192.0.2.9", 80),
        type="http",
        options="{}",
        interval_ms=1_000,
        timeout_ms=500,
        fall=2,
        rise=2,
        gap_ms=0,
        regions=(),
    )
    made.refresh([other])
    (delta,) = made.messages()
    assert [one.index for one in delta.set] == [1]
    assert list(delta.remove) == [0]
    known, numbers = made.take(2, np.array([0, 1], dtype=np.int64))
    assert list(known) == [False, True]
    assert list(numbers) == [1]


def test_a_stream_that_used_up_its_indexes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "MAX_INDEXES", 1)
    made = Assignment(ABLE)
    made.refresh([target(1), target(2)])
    with pytest.raises(UsedUp):
        list(made.messages())


def test_a_name_is_assigned_to_agents_that_resolve_with_the_ip_version_wanted() -> None:
    """An agent without the capability would connect to whatever its own libraries make of it."""
    named = replace(target(1), key=TargetKey("web", "app.example.com", 80))
    old = Assignment((*ABLE, "family:ipv6"))
    assert not old.able(named)
    made = Assignment((*ABLE, "family:domain"))
    made.refresh([named])
    [both] = next(made.messages()).set
    assert (both.address, both.ip_version) == ("app.example.com", 0)
    assert made.refresh([replace(named, ip_version=6)])
    changed = next(made.messages())
    [six] = changed.set
    assert (list(changed.remove), six.ip_version) == ([both.index], 6)
    assert six.index != both.index
    assert read_target(six).ip_version == 6


def test_a_name_that_must_answer_whole_is_assigned_to_agents_that_know_how() -> None:
    """An agent without the capability would be content with any address."""
    named = replace(target(1), key=TargetKey("web", "app.example.com", 80))
    whole = replace(named, answering="all")
    assert not Assignment((*ABLE, "family:domain")).able(whole)
    made = Assignment((*ABLE, "family:domain", ALL))
    made.refresh([named])
    [any_] = next(made.messages()).set
    made.refresh([whole])
    changed = next(made.messages())
    [all_] = changed.set
    assert (any_.all_addresses, all_.all_addresses) == (False, True)
    assert list(changed.remove) == [any_.index]
    assert read_target(any_).identity != read_target(all_).identity


def test_an_ip_version_that_an_agent_does_not_know_gives_no_opinion() -> None:
    assert "ip_version 5" in read_target(agent_pb2.Target(type="http", port=80, ip_version=5)).unfit


def test_a_region_is_told_its_part_of_the_interval_and_of_the_rate() -> None:
    named = replace(target(1), regions=("asia", "eu", "us"), gap_ms=1500)
    told = {}
    for region in ("asia", "eu", "us", "mars"):
        made = Assignment(ABLE, region)
        made.refresh([named])
        [one] = next(made.messages()).set
        told[region] = (one.slot, one.slots, one.gap_ms)
    assert told == {
        "asia": (0, 3, 1500),
        "eu": (1, 3, 1500),
        "us": (2, 3, 1500),
        "mars": (0, 3, 1500),
    }


def test_another_rate_or_electorate_is_new_timing_for_the_same_index() -> None:
    made = Assignment(ABLE, "eu")
    made.refresh([target(1)])
    [first] = next(made.messages()).set
    for changed in (replace(target(1), gap_ms=10), replace(target(1), regions=("asia", "eu"))):
        assert made.refresh([changed])
        [one] = next(made.messages()).set
        assert one.index == first.index


def test_a_target_that_was_not_sent_has_no_index_to_confirm_it_by() -> None:
    made = Assignment(ABLE, "eu")
    assert made.index(target(1)) is None
    made.refresh([target(1)])
    assert made.index(target(1)) is None
    list(made.messages())
    assert made.index(target(1)) == 0
    made.refresh([])
    list(made.messages())
    assert made.index(target(1)) is None
