"""What only the store in memory has: a clock to turn, a link to cut, answers to lose, a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from gtm.errors import Compacted, OutcomeUnknown, StoreUnavailable
from gtm.memory import MemoryStore
from gtm.memory_history import History
from gtm.store import Batch, Get, Listing, Put


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(5):
        return await awaitable


async def test_a_lease_runs_out_by_the_injected_clock_once_its_holder_is_cut_off() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    holder = store.client()
    lease = await holder.lease(10)
    await holder.txn((), [Put("a", b"", lease.id)])
    clock.now += 1_000
    store.tick()
    assert lease.remaining_s() == 10
    holder.cut()
    clock.now += 9
    store.tick()
    assert lease.remaining_s() == 1
    assert await store.get("a") is not None
    clock.now += 1
    assert lease.remaining_s() == 0
    store.tick()
    await soon(lease.lost())
    assert await store.get("a") is None
    holder.mend()
    assert lease.remaining_s() == 0


async def test_a_lease_lives_on_when_the_link_is_mended_in_time() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    lease = await store.lease(10)
    store.cut()
    clock.now += 9
    store.mend()
    assert lease.remaining_s() == 10


async def test_a_lease_revoked_behind_a_cut_link_runs_out_later() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    holder = store.client()
    lease = await holder.lease(10)
    await holder.txn((), [Put("a", b"", lease.id)])
    holder.cut()
    await lease.revoke()
    assert lease.remaining_s() == 0
    holder.mend()
    assert await store.get("a") is not None
    clock.now += 10
    assert await store.get("a") is None


async def test_while_the_link_is_cut_calls_fail_and_the_watch_stands_then_catches_up() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    reader = store.client()
    watch = reader.watch("a")
    items = aiter(watch)
    assert isinstance(await soon(anext(items)), Listing)
    reader.cut()
    with pytest.raises(StoreUnavailable):
        await reader.get("a")
    done = await store.txn((), [Put("a", b"1")])
    clock.now += 70
    assert watch.heard_s() == 70
    waiting = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    assert not waiting.done()
    reader.mend()
    assert (await soon(waiting)).revision == done.revision
    assert watch.heard_s() == 0


async def test_a_watch_behind_a_compaction_gets_the_difference() -> None:
    store = MemoryStore()
    reader = store.client()
    await store.txn((), [Put("a", b"1"), Put("b", b"1")])
    items = aiter(reader.watch(""))
    await soon(anext(items))
    reader.cut()
    await store.txn((), [Put("a", b"2")])
    last = (await store.txn((), [Put("c", b"1")])).revision
    await store.compact(last)
    reader.mend()
    batch = await soon(anext(items))
    assert isinstance(batch, Batch)
    assert batch.relisted
    assert {(e.key, e.value) for e in batch.events} == {("a", b"2"), ("c", b"1")}


async def test_a_lost_answer_takes_effect_all_the_same() -> None:
    store = MemoryStore()
    store.lose_answers = 1
    assert (await store.txn((), [Get("a")])).succeeded
    with pytest.raises(OutcomeUnknown):
        await store.txn((), [Put("a", b"1")])
    assert (await store.get("a")).value == b"1"  # type: ignore[union-attr]
    await store.txn((), [Put("a", b"2")])


def test_old_revisions_are_forgotten_beyond_the_bound() -> None:
    history = History(kept=100)
    for n in range(1_000):
        history.run((), [Put("a", b"%d" % n)])
    assert len(list(history.since(history.oldest, ""))) <= 101
    with pytest.raises(Compacted):
        history.at(500)
    assert history.at(history.oldest)["a"].mod_revision == history.oldest
