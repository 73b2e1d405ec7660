"""A new leader's verdicts reach the store in parts; what turned is never among what waits."""

from __future__ import annotations

import numpy as np

from coordinator.engine import Engine
from coordinator.events import (
    AgentFound,
    Configured,
    Effect,
    Frame,
    GoOn,
    Now,
    PublishPool,
    PublishVerdict,
    Restored,
    TargetKey,
    Tick,
)
from gtm.model import Address, Check, Pool, Region, Resources
from gtm.units import Duration

PART = 2
ADDRESSES = tuple(f"192.0.2.{number}" for number in range(1, 8))
RESOURCES = Resources(
    regions={"eu": Region()},
    checks={
        "c": Check(type="tcp", port=80, interval=Duration(1000), timeout=Duration(500), fall=1)
    },
    pools={
        "p": Pool(
            type="ipv4", checks=("c",), addresses=tuple(Address(value=one) for one in ADDRESSES)
        )
    },
)
NOTHING = Restored(verdicts={}, pools={}, routes={})


def at(ms: int) -> Now:
    return Now(ms, ms / 1000)


def frame(engine: Engine, outcomes: dict[str, int]) -> Frame:
    numbers = [engine.number(TargetKey("c", address, 80)) for address in outcomes]
    zero = np.zeros(len(outcomes), dtype=np.int64)
    return Frame(
        region="eu",
        agent="a",
        target=np.array(numbers, dtype=np.int64),
        outcome=np.array(list(outcomes.values()), dtype=np.int64),
        age_ms=zero,
        rtt_us=zero,
        reason=zero,
    )


def warm() -> Engine:
    """An engine that has judged everything, as one that does not lead does."""
    engine = Engine(part=PART)
    engine.handle(Configured(resources=RESOURCES, generation=1, head_revision=1), at(0))
    engine.handle(NOTHING, at(0))
    engine.handle(AgentFound(region="eu", agent="a"), at(0))
    engine.handle(frame(engine, dict.fromkeys(ADDRESSES, 1)), at(100))
    return engine


def written(effects: list[Effect]) -> list[str]:
    return [one.target.address for one in effects if isinstance(one, PublishVerdict)]


def test_what_turned_is_written_at_once_however_much_it_is() -> None:
    engine = Engine(part=PART)
    engine.handle(Configured(resources=RESOURCES, generation=1, head_revision=1), at(0))
    engine.handle(NOTHING, at(0))
    engine.handle(AgentFound(region="eu", agent="a"), at(0))
    assert not engine.owes
    effects = engine.handle(frame(engine, dict.fromkeys(ADDRESSES, 1)), at(100))
    assert written(effects) == list(ADDRESSES)
    assert not engine.owes


def test_what_the_store_lacks_is_written_in_parts() -> None:
    engine = warm()
    effects = engine.handle(NOTHING, at(200))
    assert [one.name for one in effects if isinstance(one, PublishPool)] == ["p"]
    found = written(effects)
    assert len(found) == PART
    parts = 0
    while engine.owes:
        part = written(engine.handle(GoOn(), at(201)))
        assert 0 < len(part) <= PART
        found += part
        parts += 1
    assert sorted(found) == sorted(ADDRESSES)
    assert parts == 3
    assert engine.handle(GoOn(), at(202)) == []
    assert engine.handle(Tick(), at(203)) == []


def test_a_verdict_that_turns_while_it_is_owed_is_written_once_as_it_is_then() -> None:
    engine = warm()
    first = written(engine.handle(NOTHING, at(200)))
    late = next(one for one in reversed(ADDRESSES) if one not in first)
    effects = engine.handle(frame(engine, {late: 2}), at(1100))
    (record,) = [
        one.record
        for one in effects
        if isinstance(one, PublishVerdict) and one.target.address == late
    ]
    assert record is not None
    assert record.verdict == "down"
    found = []
    while engine.owes:
        found += written(engine.handle(GoOn(), at(1101)))
    assert late not in found
    assert sorted([*first, late, *found]) == sorted(ADDRESSES)


def test_nothing_is_owed_before_the_engine_knows_what_the_store_has() -> None:
    engine = Engine(part=PART)
    assert not engine.owes
    assert engine.handle(GoOn(), at(0)) == []
    engine.handle(Configured(resources=RESOURCES, generation=1, head_revision=1), at(0))
    assert not engine.owes
    assert engine.handle(GoOn(), at(1)) == []
