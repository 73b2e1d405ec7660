"""How `gtm up` keeps its own etcd: again after each end; a long life resets the back-off."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from ctl import up as module
from ctl.up import Settings, Up

LIVES_S = (0.0, 0.0, 0.0, 0.3, 0.0)


class Etcd:
    """Dies at once, except in its fourth life."""

    pid = 0

    def __init__(self) -> None:
        self.lives = iter(LIVES_S)

    async def wait(self) -> int:
        for life_s in self.lives:
            await asyncio.sleep(life_s)
            return -9
        await asyncio.Event().wait()
        return 0

    async def start(self) -> None:
        pass

    def last_words(self) -> str:
        return "none"


async def test_an_etcd_that_lived_long_starts_its_back_off_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(module.show, "warn", told.append)
    monkeypatch.setattr(module, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(module, "BACKOFF_MOST_S", 0.04)
    monkeypatch.setattr(module, "LIVED_S", 0.25)
    up: Any = Up(Settings(), AsyncExitStack())
    up._etcd = Etcd()
    watching = asyncio.create_task(up.watch())
    async with asyncio.timeout(10):
        while len(told) < len(LIVES_S):
            await asyncio.sleep(0.01)
    watching.cancel()
    waits = [text.rpartition("again in ")[2] for text in told]
    assert waits == ["0.01 s", "0.02 s", "0.04 s", "0.01 s", "0.02 s"]
