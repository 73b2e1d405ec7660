"""Leadership when the store refuses, forgets, goes back or is away at the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from coordinator import election as module
from coordinator.election import Election, Leadership, Membership
from gtm import codec, keys
from gtm.errors import OutcomeUnknown, StoreDenied, StoreUnavailable
from gtm.memory import MemoryStore
from gtm.state import Leader
from gtm.store import Batch, Delete, Event, Listing, Put


class Campaign:
    """An election at work."""

    def __init__(self, store: Any, id_: str = "c1") -> None:
        self.leadership = Leadership()
        self.membership = Membership(store)
        self.election = Election(store, id_, self.leadership, self.membership)
        self.task = asyncio.create_task(self.election.run())

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@contextlib.asynccontextmanager
async def campaign(store: Any, id_: str = "c1") -> AsyncIterator[Campaign]:
    made = Campaign(store, id_)
    try:
        yield made
    finally:
        await made.end()


class Scripted(MemoryStore):
    """A store whose watches can be told to say or raise something."""

    def __init__(self) -> None:
        super().__init__()
        self.said: asyncio.Queue[Batch | Exception] = asyncio.Queue()
        self.watches = 0

    def watch(self, prefix: str) -> Any:
        self.watches += 1
        return _Scripted(self, prefix)


class _Scripted:
    def __init__(self, store: Scripted, prefix: str) -> None:
        self.store, self.prefix = store, prefix

    async def __aiter__(self) -> AsyncIterator[Listing | Batch]:
        yield await self.store.list(self.prefix)
        while True:
            news = await self.store.said.get()
            if isinstance(news, Exception):
                raise news
            yield news

    async def close(self) -> None:
        return


async def test_a_refused_watch_ends_neither_the_leadership_nor_the_coordinator(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.mirror.DENIED_PAUSE_S", 0.01)
    store = Scripted()
    async with campaign(store) as one:
        await helpers.until(lambda: one.leadership.fence)
        fence = one.leadership.fence
        store.said.put_nowait(StoreDenied("the password was changed"))
        await helpers.until(lambda: store.watches == 2)
        await asyncio.sleep(0.02)
        assert one.leadership.fence == fence
        assert not one.task.done()


async def test_a_leader_key_that_an_older_history_lacks_is_campaigned_for(helpers: Any) -> None:
    store = Scripted()
    for _ in range(20):
        await store.txn([], [Put("x", b"")])
    async with campaign(store) as one:
        await helpers.until(lambda: one.leadership.fence)
        before = one.leadership.fence
        await store.txn([], [Delete(keys.leader())])
        gone = Event(keys.leader(), None, 3)
        store.said.put_nowait(Batch(3, (gone,), relisted=True))
        await helpers.until(lambda: one.leadership.fence not in (0, before))


class Failing(MemoryStore):
    """A store in which reading single keys fails so often."""

    failures = 3

    async def get(self, key: str) -> Any:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("no answer")
        return await super().get(key)


async def test_an_attempt_that_fails_leaves_no_lease_behind(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", (0.001, 0.002))
    store = Failing()
    async with campaign(store) as one:
        await helpers.until(lambda: one.leadership.fence)
        assert len(store.cluster.leases) == 1


async def test_a_leader_key_that_cannot_be_read_is_somebody_elses(helpers: Any) -> None:
    store = MemoryStore()
    await store.txn([], [Put(keys.leader(), b"\xff not ours")])
    async with campaign(store) as one:
        await helpers.until(one.election.session.is_set)
        await asyncio.sleep(0.02)
        assert not one.leadership.fence
        await store.txn([], [Delete(keys.leader())])
        await helpers.until(lambda: one.leadership.fence)


class Unsure(MemoryStore):
    """A store whose next write of a member key is done and not answered, and then it is away."""

    armed = True
    then: Callable[[], None] = staticmethod(lambda: None)

    async def txn(self, compares: Any, then: Any, orelse: Any = ()) -> Any:
        done = await super().txn(compares, then, orelse)
        ours = any(isinstance(op, Put) and op.key.startswith(keys.AGENTS) for op in then)
        if self.armed and ours:
            self.armed = False
            self.then()
            raise OutcomeUnknown("the answer was lost")
        return done


async def test_a_member_that_left_before_its_key_was_answered_for_leaves_no_key(
    helpers: Any,
) -> None:
    store, key = Unsure(), keys.agent("c1", "eu.x")
    async with campaign(store) as one:
        store.then = lambda: one.membership.remove(key)
        await helpers.until(one.election.session.is_set)
        one.membership.put(key, b"agent")

        async def gone() -> bool:
            return not store.armed and await store.get(key) is None

        await helpers.until(gone)


class Hanging(MemoryStore):
    """A store that takes for ever to end a lease."""

    async def lease(self, ttl_s: float) -> Any:
        held = await super().lease(ttl_s)

        async def revoke() -> None:
            await asyncio.Event().wait()

        held.revoke = revoke  # type: ignore[method-assign]
        return held


async def test_the_end_does_not_wait_for_a_store_that_is_away(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REVOKE_S", 0.05)
    async with campaign(Hanging()) as one:
        await helpers.until(lambda: one.leadership.fence)
        begun = time.monotonic()
        await one.end()
        assert time.monotonic() - begun < 2.0
        assert not one.leadership.fence


async def test_the_key_of_another_one_is_left_alone(helpers: Any) -> None:
    store = MemoryStore()
    await store.txn([], [Put(keys.leader(), codec.encode(Leader(id="c2")))])
    async with campaign(store) as one:
        await helpers.until(one.election.session.is_set)
        await asyncio.sleep(0.02)
        held = await store.get(keys.leader())
        assert held is not None
        assert codec.decode(held.value, Leader).id == "c2"
