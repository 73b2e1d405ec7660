"""A coordinator whose parts break, at the start and later; how it ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from coordinator import part, patience
from coordinator.part import Coordinator
from coordinator.settings import Settings
from gtm.errors import GtmError, StoreUnavailable
from gtm.memory import MemoryStore

SETTINGS = Settings(grpc="127.0.0.1:0", http="127.0.0.1:0", id="c1", insecure=True)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, helpers: Any) -> Any:
    """`coordinator.part.run` over a store in memory; what it made."""
    made: list[Coordinator] = []

    def begin(store: Any, stop: asyncio.Event) -> asyncio.Task[None]:
        monkeypatch.setattr(part, "connect", lambda _: store)
        return asyncio.create_task(part.run(SETTINGS, helpers.Accepting(), stop))

    class Kept(Coordinator):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(part, "Coordinator", Kept)
    begin.made = made  # type: ignore[attr-defined]
    return begin


async def test_a_part_that_breaks_during_the_start_ends_the_start(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Any) -> None:
        raise KeyError("defect")

    monkeypatch.setattr(part.Mirror, "run", broken)
    with pytest.raises(KeyError, match="defect"):
        await asyncio.wait_for(run(MemoryStore(), asyncio.Event()), 5)


async def test_a_store_that_goes_away_during_the_start_is_waited_for(
    run: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "AGAIN_S", 0.01)
    store, stop, asked = MemoryStore(), asyncio.Event(), 0
    sound = store.list

    async def away(prefix: str) -> Any:
        nonlocal asked
        asked += 1
        if asked in (2, 3):
            raise StoreUnavailable("no answer from the store")
        return await sound(prefix)

    monkeypatch.setattr(store, "list", away)
    task = run(store, stop)
    await helpers.until(lambda: run.made and run.made[0].publisher._took_over)
    stop.set()
    await asyncio.wait_for(task, 10)
    assert asked > 3
    assert caplog.text.count("etcd went away during the start") == 1


async def test_a_part_that_ends_by_itself_ends_the_coordinator_with_an_error(
    run: Any, helpers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store, stop = MemoryStore(), asyncio.Event()
    task = run(store, stop)
    await helpers.until(lambda: run.made and run.made[0].publisher._took_over)
    await store.close()  # every watch ends
    with pytest.raises(GtmError, match=r"run ended although nobody stopped it"):
        await asyncio.wait_for(task, 10)


async def test_a_defect_of_a_part_is_logged_with_its_trace(
    run: Any, helpers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    task = run(MemoryStore(), asyncio.Event())
    await helpers.until(lambda: run.made and run.made[0].publisher._took_over)

    def broken(*_: Any) -> list[Any]:
        raise KeyError("defect")

    run.made[0].engine.handle = broken
    with pytest.raises(KeyError, match="defect"):
        await asyncio.wait_for(task, 10)
    assert any(record.exc_info and "broke" in record.message for record in caplog.records)


async def test_it_stops_in_time_while_the_store_is_away(run: Any, helpers: Any) -> None:
    store, stop = MemoryStore(), asyncio.Event()
    task = run(store, stop)
    await helpers.until(lambda: run.made and run.made[0].publisher._took_over)
    store.cut()
    begun = time.monotonic()
    stop.set()
    await asyncio.wait_for(task, 10)
    assert time.monotonic() - begun < 3.0
