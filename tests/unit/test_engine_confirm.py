"""Quick confirmation at its bounds: how many targets are asked for, and how often each."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator import confirm
from coordinator.engine import Engine
from coordinator.events import AgentFound, Configured, Confirm, Frame, Now, Restored
from gtm.model import Address, Check, Pool, Region, Resources
from gtm.units import Duration

COUNT = 300


def stage() -> Engine:
    """An engine with COUNT targets that two regions see up, at second 1."""
    engine = Engine()
    pool = Pool(
        type="ipv4",
        checks=("web",),
        addresses=tuple(Address(value=f"192.0.2.{n % 250}", port=80 + n) for n in range(COUNT)),
    )
    resources = Resources(
        regions={"eu": Region(), "us": Region()},
        checks={"web": Check(type="tcp", port=80, interval=Duration(10_000), confirm=True)},
        pools={"a": pool},
    )
    engine.handle(Restored(verdicts={}, pools={}, routes={}), Now(0, 0.0))
    engine.handle(Configured(resources=resources, generation=1, head_revision=1), Now(0, 0.0))
    for region in ("eu", "us"):
        engine.handle(AgentFound(region=region, agent="a"), Now(0, 0.0))
        say(engine, region, 1, 1000)
    return engine


def say(engine: Engine, region: str, outcome: int, at_ms: int) -> list[Confirm]:
    """One outcome of all targets; whom to ask for."""
    numbers = np.array([one.number for one in engine.targets().values()], dtype=np.int64)
    zero = np.zeros(len(numbers), dtype=np.int64)
    frame = Frame(
        region=region,
        agent="a",
        target=numbers,
        outcome=zero + outcome,
        age_ms=zero,
        rtt_us=zero,
        reason=zero,
    )
    effects = engine.handle(frame, Now(at_ms, at_ms / 1000))
    return [effect for effect in effects if isinstance(effect, Confirm)]


def test_a_failure_of_everything_at_once_asks_for_no_more_than_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confirm, "MAX_ASKED", 100)
    engine = stage()
    assert len(say(engine, "eu", 2, 11_000)) == 100
    assert say(engine, "us", 2, 11_500) == []  # the window is not over
    assert engine.unasked == COUNT - 100 + COUNT - 100


def test_what_the_bound_left_out_is_asked_for_by_a_later_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confirm, "MAX_ASKED", 200)
    engine = stage()
    first = {effect.target for effect in say(engine, "eu", 2, 11_000)}
    later = {effect.target for effect in say(engine, "us", 2, 12_000)}
    assert len(later) == COUNT - 200
    assert first.isdisjoint(later)


def test_nothing_is_asked_for_while_no_check_wants_it() -> None:
    engine = stage()
    pool = Pool(type="ipv4", checks=("web",), addresses=(Address(value="192.0.2.1"),))
    check = Check(type="tcp", port=80, interval=Duration(10_000))
    resources = Resources(
        regions={"eu": Region(), "us": Region()}, checks={"web": check}, pools={"a": pool}
    )
    engine.handle(Configured(resources=resources, generation=2, head_revision=2), Now(2000, 2.0))
    assert say(engine, "eu", 2, 11_000) == []
