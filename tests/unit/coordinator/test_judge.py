"""The judge lets votes lapse first when it stood still."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from coordinator.events import AgentFound, Now, Tick
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
