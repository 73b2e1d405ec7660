"""The judge lets votes lapse first when it stood still."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from coordinator.events import AgentFound, GoOn, Now, Tick
from coordinator.judge import STILL_S, Judge


class Heard:
    """An engine that keeps the names of its events."""

    targets_version = -1

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def handle(self, event: Any, now: Now) -> list[Any]:
        self.events.append((type(event).__name__, now.mono_ms))
        return []


def test_who_stood_still_lets_votes_lapse_before_it_judges_what_waited():
    """A stopped process finds results in its sockets before it comes to its own tick."""
    engine: Any = Heard()
    now_ms = [0]
    judge = Judge(engine, SimpleNamespace(), lambda: Now(now_ms[0], 0.0))  # type: ignore[arg-type]
    found = AgentFound(region="eu", agent="a")
    late_ms = round(STILL_S * 1000)
    for now_ms[0], event in [
        (late_ms, found),
        (late_ms + 1, found),
        (late_ms + 2, found),
        (2 * late_ms, Tick()),
        (3 * late_ms + 1, Tick()),
    ]:
        judge.handle(event)
    assert engine.events == [
        ("AgentFound", late_ms),
        ("Tick", late_ms + 1),
        ("AgentFound", late_ms + 1),
        ("AgentFound", late_ms + 2),
        ("Tick", 2 * late_ms),
        ("Tick", 3 * late_ms + 1),
    ]


async def test_what_the_engine_owes_goes_out_before_the_next_tick():
    class Owing(Heard):
        owed = 3

        @property
        def owes(self) -> bool:
            return self.owed > 0

        def handle(self, event: Any, now: Now) -> list[Any]:
            self.owed -= isinstance(event, GoOn)
            return super().handle(event, now)

    engine: Any = Owing()
    judge = Judge(engine, SimpleNamespace())  # type: ignore[arg-type]
    running = asyncio.create_task(judge.run())
    while not engine.events or engine.owes or engine.events[-1][0] != "Tick":
        await asyncio.sleep(0.001)
    running.cancel()
    assert [name for name, _ in engine.events] == ["Tick", "GoOn", "GoOn", "GoOn", "Tick"]
