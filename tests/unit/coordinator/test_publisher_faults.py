"""What a publisher believes to be stored, against the store: heads, gaps, older histories."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from coordinator import publisher as module
from coordinator.batches import Values
from coordinator.election import Leadership
from coordinator.mirror import Mirror
from coordinator.publisher import LED, Publisher
from gtm import codec, keys
from gtm.errors import OutcomeUnknown, StoreDenied
from gtm.memory import MemoryStore
from gtm.state import Head
from gtm.store import Batch, Delete, Event, Listing, Op, Put

A, B, C = (keys.pool(name) for name in "abc")


class Leading:
    """A publisher that leads, over a store whose head is judged by hand."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.named = {A, B, C}
        self.leadership = Leadership(lambda: self.publisher.wake())
        self.publisher = Publisher(
            store, self.leadership, take_over=self.take_over, named=lambda key: key in self.named
        )
        self.read: list[dict[str, bytes]] = []

    async def take_over(self) -> None:
        listings = {prefix: await self.store.list(prefix) for prefix in LED}
        self.read.append(self.publisher.restored(listings))

    async def write(self, *ops: Op) -> int:
        return (await self.store.txn([], ops)).revision

    async def value(self, key: str) -> bytes | None:
        item = await self.store.get(key)
        return None if item is None else item.value


@contextlib.asynccontextmanager
async def leading(store: MemoryStore, helpers: Any) -> AsyncIterator[Leading]:
    made = Leading(store)
    lease = await store.lease(3_600.0)
    fence = await made.write(Put(keys.leader(), b"{}", lease.id))
    task = asyncio.create_task(made.publisher.run())
    made.leadership.won(fence, lease)
    await helpers.until(lambda: made.read)
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Interrupted(MemoryStore):
    """A store in which something happens right after the first transaction of a publisher."""

    then: Callable[[], Any] | None = None

    async def txn(self, compares: Any, then: Any, orelse: Any = ()) -> Any:
        done = await super().txn(compares, then, orelse)
        if compares and (call := self.then) is not None:
            self.then = None
            await call()
        return done


class Late(MemoryStore):
    """A store that one transaction of a publisher reaches late, after something has happened."""

    first: Callable[[], Any] | None = None

    async def txn(self, compares: Any, then: Any, orelse: Any = ()) -> Any:
        if compares and (call := self.first) is not None:
            self.first = None
            await call()
        return await super().txn(compares, then, orelse)


async def test_a_write_of_a_former_leadership_that_comes_late_does_not_end_the_present_one(
    helpers: Any,
) -> None:
    """Seen after an outage of etcd: the key was ours, and nobody campaigned for it any more."""
    store = Late()
    async with leading(store, helpers) as one:

        async def led_again() -> None:
            one.leadership.lost("the lease is over")
            lease = await store.lease(3_600.0)
            await one.write(Delete(keys.leader()))
            one.leadership.won(await one.write(Put(keys.leader(), b"{}", lease.id)), lease)

        store.first = led_again
        one.publisher.want({A: b"1"})
        await helpers.until(lambda: len(one.read) == 2)  # taken over again
        assert one.leadership.fence
        one.publisher.want({A: b"2"})  # as the engine judges after it was restored
        await helpers.until(lambda: one.value(A))


class Lost(MemoryStore):
    """A store whose answer to one write is lost, and which carries that out when told."""

    held: Callable[[], Any] | None = None
    loses = False

    async def txn(self, compares: Any, then: Any, orelse: Any = ()) -> Any:
        if self.loses and compares:
            self.loses = False
            self.held = lambda: super(Lost, self).txn(compares, then, orelse)
            raise OutcomeUnknown("the answer was lost")
        return await super().txn(compares, then, orelse)


async def test_a_write_of_ours_that_comes_late_overtakes_no_newer_one(helpers: Any) -> None:
    store = Lost()
    async with leading(store, helpers) as one:
        one.publisher.want({A: b"old"})
        await helpers.until(lambda: one.value(A))
        store.loses = True
        one.publisher.want({A: b"late"})
        await helpers.until(lambda: store.held)
        one.publisher.want({A: b"new"})

        async def newer() -> bool:
            return await one.value(A) == b"new"

        await helpers.until(newer)
        assert store.held is not None
        assert not (await store.held()).succeeded
        assert await one.value(A) == b"new"
        one.publisher.want({B: b"1"})  # and goes on to write
        await helpers.until(lambda: one.value(B))


def one_by_one(values: dict[str, bytes | None], together: Any) -> list[Values]:
    return [[pair] for pair in values.items()]


async def test_what_was_decided_on_an_older_head_is_not_written_under_a_newer_one(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "batches", one_by_one)
    store = Interrupted()
    async with leading(store, helpers) as one:

        async def applied() -> None:  # pool b goes; the engine judges that at once
            head = await one.write(Put(keys.HEAD, b"{}"), Delete(B))
            one.named.discard(B)
            one.publisher.judged(head)

        store.then = applied
        one.publisher.want({A: b"1", B: b"1", C: b"1"})
        await helpers.until(lambda: not one.publisher.waiting)
        assert await one.value(C) == b"1"
        history = store.cluster.history
        written = [event.key for batch in history.since(1, "") for event in batch.events]
        assert B not in written


async def test_a_pool_that_ended_before_it_was_ever_written_stays_unwritten(helpers: Any) -> None:
    store = MemoryStore()
    async with leading(store, helpers) as one:
        head = await one.write(Put(keys.HEAD, b"{}"), Delete(A))  # nothing to delete: no event
        one.publisher.want({A: b"decided before", B: b"1"})
        await asyncio.sleep(0.02)
        one.named.discard(A)
        one.publisher.seen([Event(keys.HEAD, b"{}", head)])
        one.publisher.judged(head)
        await helpers.until(lambda: one.value(B))
        await helpers.until(lambda: not one.publisher.waiting)
        assert await one.value(A) is None


async def test_what_ended_is_not_remembered(helpers: Any) -> None:
    store = MemoryStore()
    async with leading(store, helpers) as one:
        verdicts = [keys.verdict("web", f"192.0.2.{number}", 80) for number in range(100)]
        for values in (dict.fromkeys(verdicts, b"1"), dict.fromkeys(verdicts)):
            one.publisher.want(values)
            await helpers.until(lambda: not one.publisher.waiting)
        one.publisher.want({A: b"1"})
        await helpers.until(lambda: one.value(A))
        one.named.discard(A)
        gone = await one.write(Delete(A))
        one.publisher.seen([Event(A, None, gone)])
        assert one.publisher._known == one.publisher._wanted == {}


async def test_a_change_that_the_watch_told_of_after_the_list_counts(helpers: Any) -> None:
    made = Leading(MemoryStore())
    await made.write(Put(A, b"old"))
    listings = {prefix: await made.store.list(prefix) for prefix in LED}
    newer = await made.write(Put(A, b"new"))
    made.publisher.seen([Event(A, b"new", newer)])
    assert made.publisher.restored(listings) == {A: b"new"}


async def test_a_store_that_went_back_is_read_again_and_put_right(helpers: Any) -> None:
    before = MemoryStore()
    async with leading(before, helpers) as one:
        for number in range(50):
            await one.write(Put("x", b"%d" % number))
        one.publisher.want({A: b"1", B: b"1"})
        await helpers.until(lambda: not one.publisher.waiting)

        # The cluster is restored from a snapshot of before: the leader key, but none of the rest.
        lease = one.leadership._lease
        older = MemoryStore()
        fence = (await older.txn([], [Put(keys.leader(), b"{}")])).revision
        one.store = older
        one.publisher._store = older
        one.leadership.won(fence, lease)
        one.publisher.gap()
        gone = [Event(key, None, fence) for key in (A, B)]
        one.publisher.seen(gone)
        await helpers.until(lambda: len(one.read) >= 2)
        assert one.read[-1] == {}
        one.publisher.want({A: b"1", B: b"2"})  # as an engine that begins from what was read
        await helpers.until(lambda: not one.publisher.waiting)
        assert (await one.value(A), await one.value(B)) == (b"1", b"2")
        assert (await older.get(A)).version == 1  # and not again and again


class Denying:
    """A store that refuses the first watch after its listing."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner, self.watches = inner, 0
        self.refuse = asyncio.Event()

    def watch(self, prefix: str) -> Any:
        self.watches += 1
        return _Ending(self.inner, prefix, self.refuse if self.watches == 1 else None)


class _Ending:
    def __init__(self, store: MemoryStore, prefix: str, refuse: asyncio.Event | None) -> None:
        self.store, self.prefix, self.refuse = store, prefix, refuse

    async def __aiter__(self) -> AsyncIterator[Listing | Batch]:
        yield await self.store.list(self.prefix)
        await (self.refuse or asyncio.Event()).wait()
        raise StoreDenied("password changed")

    async def close(self) -> None:
        return


async def test_a_watch_that_was_refused_for_a_while_counts_as_a_gap(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.mirror.DENIED_PAUSE_S", 0.01)
    store, told = MemoryStore(), []
    await store.txn([], [Put(keys.HEAD, codec.encode(Head(generation=1)))])
    denying = Denying(store)
    mirror = Mirror(denying, lambda *_: told.append("changed"), lambda: told.append("gap"))
    task = asyncio.create_task(mirror.run())
    await mirror.ready.wait()
    denying.refuse.set()
    await helpers.until(lambda: len(told) == 3)
    assert told == ["changed", "gap", "changed"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_compacted_watch_counts_as_a_gap(helpers: Any) -> None:
    store, told = MemoryStore(), []
    mirror = Mirror(store, lambda *_: told.append("changed"), lambda: told.append("gap"))
    task = asyncio.create_task(mirror.run())
    await mirror.ready.wait()
    store.cut()
    other = store.client()
    for generation in range(3):
        done = await other.txn([], [Put(keys.HEAD, codec.encode(Head(generation=generation)))])
    await other.compact(done.revision)
    store.mend()
    await helpers.until(lambda: len(told) == 3)
    assert told == ["changed", "gap", "changed"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
