"""Many deadlines behind one timer: each is told once, in time, unless it was forgotten."""

from __future__ import annotations

import asyncio

from agent.deadlines import Deadlines


async def test_what_passes_is_told_once_and_what_was_forgotten_never() -> None:
    loop = asyncio.get_running_loop()
    told: list[tuple[str, float]] = []
    deadlines: Deadlines[str] = Deadlines(loop, lambda key: told.append((key, loop.time())))
    began = loop.time()
    for key, after_s in (("third", 0.09), ("first", 0.03), ("never", 0.05), ("second", 0.06)):
        deadlines.set(key, began + after_s)
    assert deadlines.forget("never")
    assert not deadlines.forget("never")
    async with asyncio.timeout(10):
        while deadlines:
            await asyncio.sleep(0.01)
    assert [key for key, _ in told] == ["first", "second", "third"]
    for (_, at_s), after_s in zip(told, (0.03, 0.06, 0.09), strict=True):
        assert at_s - began >= after_s - 0.001
    deadlines.set("later", loop.time() + 0.02)
    deadlines.close()
    await asyncio.sleep(0.05)
    assert len(told) == 3


async def test_one_that_is_told_may_set_and_forget_others() -> None:
    loop = asyncio.get_running_loop()
    told: list[int] = []

    def late(key: int) -> None:
        told.append(key)
        if key < 3:
            deadlines.set(key + 1, loop.time())

    deadlines: Deadlines[int] = Deadlines(loop, late)
    deadlines.set(0, loop.time())
    async with asyncio.timeout(10):
        while len(told) < 4:
            await asyncio.sleep(0.005)
    assert told == [0, 1, 2, 3]
    assert not deadlines
