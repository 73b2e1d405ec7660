"""What the engine holds has bounds, and what it is sent by mistake does no harm."""

from __future__ import annotations

from typing import Any

import numpy as np

from coordinator import agents, alarms, evidence, hysteresis, targets
from coordinator.agents import Agent
from coordinator.alarms import Alarms, Condition
from coordinator.engine import Engine
from coordinator.events import (
    AgentFound,
    AgentLost,
    Configured,
    Digest,
    Frame,
    Met,
    Now,
    PublishPool,
    Restored,
    TargetKey,
    Tick,
)
from coordinator.pool import address_health
from gtm.choices import Judgement
from gtm.model import Address, Check, Pool, Region, Resources
from gtm.units import Duration

CHECK = Check(type="tcp", port=80, interval=Duration(1000), timeout=Duration(500))


def resources(*addresses: str, check: Check = CHECK) -> Resources:
    pool = Pool(type="ipv4", checks=("c",), addresses=tuple(Address(value=a) for a in addresses))
    return Resources(regions={"eu": Region()}, checks={"c": check}, pools={"p": pool})


def at(ms: int) -> Now:
    return Now(ms, ms / 1000)


def started(*addresses: str) -> Engine:
    engine = Engine()
    engine.handle(Restored(verdicts={}, pools={}, routes={}), at(0))
    engine.handle(Configured(resources=resources(*addresses), generation=1, head_revision=1), at(0))
    engine.handle(AgentFound(region="eu", agent="a"), at(0))
    return engine


def frame(rows: list[tuple[int, int]], **other: Any) -> Frame:
    zero = np.zeros(len(rows), dtype=np.int64)
    columns: dict[str, Any] = {
        "region": "eu",
        "agent": "a",
        "target": np.array([row[0] for row in rows], dtype=np.int64),
        "outcome": np.array([row[1] for row in rows], dtype=np.int64),
        "age_ms": zero,
        "rtt_us": zero,
        "reason": zero,
    }
    return Frame(**(columns | other))


def key(address: str) -> TargetKey:
    return TargetKey("c", address, 80)


def test_rows_of_unknown_numbers_and_outcomes_are_counted_and_change_nothing() -> None:
    engine = started("192.0.2.1")
    rows = [(-1, 1), (10_000, 1), (5, 1), (0, 0), (0, 4), (0, 257), (0, 1)]
    engine.handle(frame(rows), at(100))
    view = engine.verdict(key("192.0.2.1"))
    assert view is not None
    assert (view.verdict, view.regions[0].streak) == ("up", 1)
    (agent,) = engine.agents()
    assert (agent.results, agent.old) == (1, 6)


def test_a_frame_of_an_agent_that_was_not_found_changes_nothing() -> None:
    engine = started("192.0.2.1")
    assert engine.handle(frame([(0, 1)], agent="b"), at(100)) == []
    assert engine.handle(frame([(0, 1)], region="us"), at(100)) == []


def test_empty_frames_and_digests_are_fine() -> None:
    engine = started("192.0.2.1")
    assert engine.handle(frame([]), at(100)) == []
    none = np.zeros(0, dtype=np.int64)
    digest = Digest(
        region="eu",
        agent="a",
        target=none,
        outcome=none,
        streak=none,
        age_ms=none,
        rtt_us=none,
        reason=none,
    )
    assert engine.handle(digest, at(100)) == []


def test_of_very_many_rows_for_one_target_the_first_and_the_newest_count() -> None:
    engine = started("192.0.2.1", "192.0.2.2")
    rows = [(0, 1)] + [(0, 2)] * 5000 + [(1, 1)] + [(0, 1)] * (hysteresis.MAX_ROUNDS - 1)
    engine.handle(frame(rows), at(100))
    one, other = engine.verdicts()
    assert (one.regions[0].vote, one.regions[0].streak) == ("up", hysteresis.MAX_ROUNDS)
    assert other.verdict == "up"


def test_results_of_a_probe_that_changed_never_count_for_the_new_one() -> None:
    engine = started("192.0.2.1")
    old = engine.number(key("192.0.2.1"))
    assert old is not None
    engine.handle(frame([(old, 1)]), at(100))
    changed = Check(
        type="tcp", port=80, interval=Duration(1000), timeout=Duration(500), options='{"send":"x"}'
    )
    version = engine.targets_version
    engine.handle(
        Configured(resources=resources("192.0.2.1", check=changed), generation=2, head_revision=2),
        at(200),
    )
    assert engine.number(key("192.0.2.1")) != old
    assert engine.targets_version > version
    engine.handle(frame([(old, 2), (old, 2), (old, 2)]), at(300))
    view = engine.verdict(key("192.0.2.1"))
    assert view is not None
    assert (view.verdict, view.pending, view.regions[0].vote) == ("up", True, "none")


def test_a_number_out_of_use_rests_before_it_returns_clean() -> None:
    engine = started("192.0.2.1")
    number = engine.number(key("192.0.2.1"))
    assert number is not None
    engine.handle(frame([(number, 2), (number, 2)]), at(100))

    def configure(address: str, ms: int) -> int | None:
        event = Configured(resources=resources(address), generation=2, head_revision=2)
        engine.handle(event, at(ms))
        return engine.number(key(address))

    assert configure("192.0.2.2", 1000) != number
    assert configure("192.0.2.3", 1000 + targets.REUSE_AFTER_MS - 1) != number
    assert configure("192.0.2.4", 1000 + targets.REUSE_AFTER_MS) == number
    view = engine.verdict(key("192.0.2.4"))
    assert view is not None
    assert (view.verdict, view.regions[0].vote, view.regions[0].age_s) == ("unknown", "none", -1.0)


def test_columns_grow_with_the_configuration() -> None:
    engine = started("192.0.2.1")
    engine.handle(frame([(0, 1)]), at(100))
    many = [f"10.0.{n // 256}.{n % 256}" for n in range(3 * targets.FIRST_CAPACITY)]
    event = Configured(resources=resources("192.0.2.1", *many), generation=2, head_revision=2)
    engine.handle(event, at(200))
    numbers = [one.number for one in engine.targets().values()]
    assert sorted(numbers) == list(range(1 + len(many)))
    effects = engine.handle(frame([(number, 1) for number in numbers]), at(300))
    assert [view.verdict for view in engine.verdicts()] == ["up"] * (1 + len(many))
    (published,) = [effect for effect in effects if isinstance(effect, PublishPool)]
    assert published.state is not None
    assert all(member.answered for member in published.state.members)


def test_regions_and_agents_beyond_the_bounds_are_not_admitted() -> None:
    engine = started("192.0.2.1")
    for number in range(evidence.MAX_AGENTS - 1):
        assert engine.admits("eu", f"b{number}")
        engine.handle(AgentFound(region="eu", agent=f"b{number}"), at(1))
    assert not engine.admits("eu", "one-more")
    engine.handle(AgentFound(region="eu", agent="one-more"), at(1))
    assert "one-more" not in {view.agent for view in engine.agents()}
    engine.handle(AgentLost(region="eu", agent="b7"), at(2))
    assert engine.admits("eu", "one-more")
    engine.handle(AgentFound(region="eu", agent="one-more"), at(3))
    names = {view.agent for view in engine.agents()}
    assert "one-more" in names
    assert "b7" not in names

    for number in range(evidence.MAX_REGIONS - 1):
        engine.handle(AgentFound(region=f"r{number}", agent="a"), at(4))
    assert not engine.admits("one-more", "a")
    assert len({view.region for view in engine.agents()}) == evidence.MAX_REGIONS


def test_a_lost_agent_is_forgotten_when_its_opinions_have_lapsed() -> None:
    engine = started("192.0.2.1")
    engine.handle(frame([(0, 1)]), at(100))
    engine.handle(AgentLost(region="eu", agent="a"), at(200))
    engine.handle(Tick(), at(3599))
    assert [view.connected for view in engine.agents()] == [False]
    engine.handle(Tick(), at(3600))
    assert engine.agents() == []


def test_an_agent_with_two_streams_is_lost_with_the_second() -> None:
    engine = started("192.0.2.1")
    engine.handle(AgentFound(region="eu", agent="a"), at(1))
    engine.handle(AgentLost(region="eu", agent="a"), at(2))
    assert [view.connected for view in engine.agents()] == [True]
    engine.handle(AgentLost(region="eu", agent="a"), at(3))
    assert [view.connected for view in engine.agents()] == [False]


def test_an_agent_s_reasons_make_room_when_they_are_not_in_use_any_more() -> None:
    agent = Agent(4)
    row, failed = np.array([0]), np.array([2], dtype=np.int8)
    first = np.array([0])
    agent.note(np.array([1]), failed, first, ("kept",))
    for number in range(3 * agents.MAX_REASONS):
        agent.note(row, failed, first, (f"reason {number}",))
        assert agent.reason_text(0) == f"reason {number}"
    assert agent.reason_text(1) == "kept"
    agent.note(row, failed, first, ("x" * 1000,))
    assert agent.reason_text(0) == "x" * agents.MAX_REASON_LENGTH


def test_more_reasons_in_use_than_are_kept_are_said_to_be_too_many() -> None:
    count = agents.MAX_REASONS + 10
    agent = Agent(count)
    rows = np.arange(count)
    agent.note(rows, np.full(count, 2, dtype=np.int8), rows, tuple(f"r{n}" for n in range(count)))
    texts = [agent.reason_text(number) for number in range(count)]
    assert texts[: agents.MAX_REASONS - 1] != texts[-1:]
    assert texts[0] in {"r0", texts[-1]}
    assert "too many" in texts[-1]
    assert len(set(texts)) <= agents.MAX_REASONS


def test_of_too_many_alarms_the_last_one_says_so() -> None:
    standing = Alarms()
    holding = {f"a/{n:04}": Condition("x") for n in range(10 * alarms.MAX_ALARMS)}
    assert len(standing.update(holding, at(0))) == alarms.MAX_ALARMS
    assert alarms.MORE in {view.id for view in standing.standing()}
    assert len(standing.update({}, at(1))) == alarms.MAX_ALARMS
    assert standing.standing() == []


def test_stored_alarms_are_neither_raised_again_nor_forgotten() -> None:
    standing = Alarms()
    standing.restore({"a": ("x", 1.0), "b": ("y", 2.0)})
    effects = standing.update({"a": Condition("x", delay_ms=10_000)}, at(0))
    assert [type(effect).__name__ for effect in effects] == ["ClearAlarm"]
    assert [(view.id, view.since) for view in standing.standing()] == [("a", 1.0)]


def test_nothing_comes_out_before_both_configuration_and_store_are_known() -> None:
    engine = Engine()
    event = Configured(resources=resources("192.0.2.1"), generation=1, head_revision=1)
    assert engine.handle(event, at(0)) == []
    assert engine.handle(Met(regions=frozenset({"eu"})), at(0)) == []
    engine.handle(AgentFound(region="eu", agent="a"), at(0))
    assert engine.handle(frame([(0, 1)]), at(1)) == []
    assert engine.handle(Tick(), at(60_000)) == []
    effects = engine.handle(Restored(verdicts={}, pools={}, routes={}), at(60_000))
    assert any(isinstance(effect, PublishPool) for effect in effects)


def test_an_address_is_up_when_its_checks_with_a_verdict_are_as_the_judgement_wants() -> None:
    everyone, anyone = Judgement(), Judgement.parse("any")
    must = Judgement.parse({"must": ["a"]})
    for judgement, verdicts, wanted in (
        (everyone, [], "unknown"),
        (everyone, [("a", "unknown"), ("b", "up")], "up"),
        (everyone, [("a", "up"), ("b", "down")], "down"),
        (everyone, [("a", "unknown")], "unknown"),
        (anyone, [("a", "down"), ("b", "up")], "up"),
        (anyone, [("a", "down"), ("b", "unknown")], "down"),
        (must, [("a", "up"), ("b", "down")], "up"),
        (must, [("a", "unknown"), ("b", "down")], "unknown"),
    ):
        assert address_health(judgement, verdicts) == wanted
