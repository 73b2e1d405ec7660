"""From the store to one reference: whole revisions, refusals, recovery, snapshots, ages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest
from msgspec import Struct
from msgspec.structs import replace

from gtm import codec, keys
from gtm.errors import StoreDenied
from gtm.memory import MemoryStore
from gtm.model import Instance
from gtm.state import Head, Member, PoolState
from gtm.store import Batch, Delete, Event, Item, Listing, Put
from gtm.view import Changes, View
from resolver import follower as module
from resolver.follower import NEVER, Follower
from resolver.snapshot import Snapshot


class Table(Struct, frozen=True):
    """What the tests compile to: the pools' addresses, and how the table was made."""

    revision: int
    pools: dict[str, tuple[str, ...]]
    heard_s: float = NEVER
    changed: frozenset[str] | None = None


def compiled(view: View, previous: Table | None, changes: Changes | None) -> Table:
    pools = {
        name: tuple(member.value for member in pool.members) for name, pool in view.pools.items()
    }
    for name, instance in view.instances.items():
        if not instance.id:
            raise LookupError(f"instance {name} is inconsistent")
    return Table(view.revision, pools, changed=None if changes is None else changes.pools)


def aged(table: Table, heard_s: float) -> Table:
    return replace(table, heard_s=heard_s)


def pool(*addresses: str) -> bytes:
    members = tuple(Member(value=address, answered=True, counted=True) for address in addresses)
    return codec.encode(PoolState(type="ipv4", members=members))


async def until(condition: Callable[[], object], deadline_s: float = 5.0) -> None:
    """Wait for `condition`, letting everything else run."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.001)


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    yield store
    await store.close()


@contextlib.asynccontextmanager
async def following(store: MemoryStore) -> AsyncIterator[Follower[Table]]:
    follower = Follower(store, compiled, aged)
    task = asyncio.ensure_future(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.wait({task})


async def put(store: MemoryStore, key: str, value: bytes) -> int:
    return (await store.txn((), [Put(key, value)])).revision


def addresses(follower: Follower[Table], name: str) -> tuple[str, ...] | None:
    return follower.table.pools.get(name) if follower.table else None


async def test_what_is_there_and_what_changes_is_served(store: MemoryStore) -> None:
    await put(store, keys.pool("a"), pool("192.0.2.1", "192.0.2.2"))
    async with following(store) as follower:
        await until(follower.listed.is_set)
        assert addresses(follower, "a") == ("192.0.2.1", "192.0.2.2")
        revision = await put(store, keys.pool("a"), pool("192.0.2.2"))
        await until(lambda: follower.revision == revision)
        assert addresses(follower, "a") == ("192.0.2.2",)
        assert follower.table is not None
        assert follower.table.changed == {"a"}
        await store.txn((), [Delete(keys.pool("a"))])
        await until(lambda: addresses(follower, "a") is None)


async def test_what_one_revision_changed_becomes_visible_together(store: MemoryStore) -> None:
    seen: list[tuple[object, object]] = []
    follower = Follower(store, compiled, aged, lambda: seen.append(_pair(follower)))
    task = asyncio.ensure_future(follower.run())
    await until(follower.listed.is_set)
    for number in range(20):
        both = pool(f"192.0.2.{number}")
        await store.txn((), [Put(keys.pool("a"), both), Put(keys.pool("b"), both)])
    await until(lambda: len(seen) == 21)
    assert all(a == b for a, b in seen)
    task.cancel()


def _pair(follower: Follower[Table]) -> tuple[object, object]:
    return addresses(follower, "a"), addresses(follower, "b")


async def test_an_empty_store_is_a_state_too(store: MemoryStore) -> None:
    async with following(store) as follower:
        await until(follower.listed.is_set)
        assert follower.table is not None
        assert follower.table.pools == {}


async def test_kinds_that_a_resolver_does_not_read_may_be_anything(store: MemoryStore) -> None:
    await put(store, keys.config("pools", "a"), b"not JSON")
    await put(store, keys.config("checks", "a"), b"not JSON")
    async with following(store) as follower:
        await until(follower.listed.is_set)
        assert follower.refused == 0


async def test_an_unreadable_state_is_refused_once_and_nothing_is_lost(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    await put(store, keys.pool("a"), pool("192.0.2.1"))
    async with following(store) as follower:
        await until(follower.listed.is_set)
        good = follower.table
        with caplog.at_level(logging.INFO, "resolver"):
            await put(store, keys.pool("b"), b"{broken")
            await until(lambda: follower.refused == 1)
            assert addresses(follower, "a") == ("192.0.2.1",)
            assert follower.revision == good.revision if good else False
            assert "serve/pools/b" in follower.refusal
            # What comes while a state is refused waits: the revision is whole or not in force.
            await put(store, keys.pool("a"), pool("192.0.2.9"))
            await store.txn((), [Put(keys.pool("c"), pool("192.0.2.3"))])
            await until(lambda: follower.refused == 3)
            assert addresses(follower, "a") == ("192.0.2.1",)
            assert follower.good() is None
            revision = await put(store, keys.pool("b"), pool("192.0.2.2"))
            await until(lambda: follower.revision == revision)
        assert follower.refusal == ""
        assert follower.table is not None
        assert follower.table.pools == {
            "a": ("192.0.2.9",),
            "b": ("192.0.2.2",),
            "c": ("192.0.2.3",),
        }
        assert follower.table.changed == {"a", "b", "c"}
        events = [record.getMessage() for record in caplog.records]
        assert events == ["state refused, the last table stays", "state is good again"]


async def test_a_state_that_does_not_compile_is_refused_like_an_unreadable_one(
    store: MemoryStore,
) -> None:
    async with following(store) as follower:
        await until(follower.listed.is_set)
        bad = codec.encode(Instance(zone="gtm.test"))
        await put(store, keys.config("instances", "shop"), bad)
        await until(lambda: follower.refused == 1)
        assert "LookupError: instance shop is inconsistent" in follower.refusal
        await store.txn((), [Delete(keys.config("instances", "shop"))])
        await until(lambda: not follower.refusal)
        assert follower.table is not None


async def test_a_first_state_that_is_refused_leaves_no_table_until_a_good_one(
    store: MemoryStore,
) -> None:
    await put(store, keys.HEAD, b"[]")
    await put(store, keys.pool("a"), pool("192.0.2.1"))
    async with following(store) as follower:
        await until(lambda: follower.refused == 1)
        assert follower.table is None
        assert not follower.listed.is_set()
        await put(store, keys.HEAD, codec.encode(Head(generation=1)))
        await until(follower.listed.is_set)
        assert addresses(follower, "a") == ("192.0.2.1",)


async def test_changes_during_a_cut_and_a_compaction_arrive(store: MemoryStore) -> None:
    await put(store, keys.pool("a"), pool("192.0.2.1"))
    await put(store, keys.pool("gone"), pool("192.0.2.7"))
    mine = store.client()
    async with following(mine) as follower:
        await until(follower.listed.is_set)
        mine.cut()
        await put(store, keys.pool("a"), pool("192.0.2.2"))
        revision = (await store.txn((), [Delete(keys.pool("gone"))])).revision
        await store.compact(revision)
        assert addresses(follower, "a") == ("192.0.2.1",)
        mine.mend()
        await until(lambda: addresses(follower, "a") == ("192.0.2.2",))
        assert addresses(follower, "gone") is None


async def test_the_table_is_told_when_the_store_was_last_heard(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.01)
    async with following(store) as follower:
        assert follower.age_s() == float("inf")
        await until(follower.listed.is_set)
        assert follower.table is not None
        first = follower.table.heard_s
        assert time.monotonic() - first < 1.0
        await until(lambda: follower.table is not None and follower.table.heard_s > first)
        store.cut()
        await until(lambda: follower.age_s() > 0.1)
        cut_at = follower.table.heard_s
        await until(lambda: follower.age_s() > 0.2)
        assert follower.table.heard_s - cut_at < 0.05


async def test_becoming_stale_and_fresh_again_is_told_once(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.01)
    monkeypatch.setattr(module, "STALE_AFTER_S", 0.05)
    mine = store.client()
    with caplog.at_level(logging.INFO, "resolver"):
        async with following(mine) as follower:
            await until(follower.listed.is_set)
            mine.cut()
            await until(lambda: follower.age_s() > 0.15)
            mine.mend()
            await until(lambda: len(caplog.records) == 2)
    events = [record.getMessage() for record in caplog.records]
    assert events == ["answers are stale", "answers are fresh again"]


async def test_while_a_state_is_refused_the_table_ages(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.01)
    async with following(store) as follower:
        await until(follower.listed.is_set)
        await put(store, keys.HEAD, b"[]")
        await until(lambda: follower.refused == 1)
        await until(lambda: follower.age_s() > 0.1)


def snapshot(*items: Item, age_s: float = 0.0) -> Snapshot:
    return Snapshot(Listing(7, items), time.time() - age_s)


async def test_a_snapshot_is_served_as_stale_until_the_stores_own_state_is_there(
    store: MemoryStore,
) -> None:
    follower = Follower(store, compiled, aged)
    assert follower.begin(snapshot(Item(keys.pool("a"), pool("192.0.2.1"), 5, 6), age_s=90))
    assert follower.table == Table(7, {"a": ("192.0.2.1",)}, NEVER)
    assert follower.revision == 7
    assert 90 <= follower.age_s() < 91
    assert follower.good() is None
    task = asyncio.ensure_future(follower.run())
    await until(follower.listed.is_set)
    assert follower.table is not None
    assert follower.table.pools == {}
    assert follower.age_s() < 1
    task.cancel()


async def test_a_snapshot_that_does_not_compile_is_refused_and_told(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    follower = Follower(store, compiled, aged)
    assert not follower.begin(snapshot(Item(keys.pool("a"), b"{", 5, 6)))
    assert follower.table is None
    assert [record.getMessage() for record in caplog.records] == ["snapshot refused"]


async def test_what_goes_into_the_snapshot_is_the_state_in_force(store: MemoryStore) -> None:
    await put(store, keys.pool("a"), pool("192.0.2.1"))
    await put(store, keys.pool("b"), pool("192.0.2.2"))
    async with following(store) as follower:
        await until(follower.listed.is_set)
        await store.txn((), [Delete(keys.pool("a"))])
        revision = await put(store, keys.pool("c"), pool("192.0.2.3"))
        await until(lambda: follower.revision == revision)
        good = follower.good()
        assert good is not None
        assert good[0] == revision
        listing = await store.list(keys.SERVE)
        ours = {(item.key, item.value, item.mod_revision) for item in good[1]}
        assert ours == {(item.key, item.value, item.mod_revision) for item in listing.items}


class Locked(MemoryStore):
    """A store that refuses the first two watches."""

    refusals = 2

    def watch(self, prefix: str):  # type: ignore[no-untyped-def]
        watch = super().watch(prefix)
        if self.refusals:
            self.refusals -= 1
            watch._items = _denied  # type: ignore[method-assign]
        return watch


async def _denied() -> AsyncIterator[Listing | Batch]:
    raise StoreDenied("wrong password")
    yield


async def test_a_store_that_refuses_us_is_asked_again_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    store = Locked()
    with caplog.at_level(logging.INFO, "resolver"):
        async with following(store) as follower:
            await until(follower.denied.is_set)
            assert follower.denial == "wrong password"
            await until(follower.listed.is_set)
            assert follower.denial == ""
    events = [record.getMessage() for record in caplog.records]
    assert events == ["store refuses us", "store lets us in again"]


async def test_pending_changes_are_bounded_by_the_keys_that_changed(store: MemoryStore) -> None:
    follower = Follower(store, compiled, aged)
    follower.take(Listing(1, ()))
    follower.take(Batch(2, (Event(keys.HEAD, b"[]", 2),)))
    for revision in range(3, 1_000):
        follower.take(Batch(revision, (Event(keys.pool("a"), pool("192.0.2.1"), revision),)))
    assert len(follower._pending) == 2


async def test_long_work_leaves_the_serving_thread(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONG_WORK", 3)
    served_meanwhile = threading.Event()

    def slow(view: View, previous: Table | None, changes: Changes | None) -> Table:
        if len(view.instances) > 3:
            assert served_meanwhile.wait(5), "the loop did not turn while the table was made"
        return compiled(view, previous, changes)

    follower = Follower(store, slow, aged)
    task = asyncio.ensure_future(follower.run())
    try:
        await until(follower.listed.is_set)
        many = [
            Put(keys.config("instances", f"i{n}"), codec.encode(Instance(id=f"gtm0000000{n}")))
            for n in range(5)
        ]
        revision = (await store.txn((), many)).revision
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, served_meanwhile.set)
        await until(lambda: follower.revision == revision)
        assert served_meanwhile.is_set()
        assert not follower.refusal
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_defect_of_the_ageing_is_raised_and_does_not_vanish(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.01)
    follower = Follower(store, compiled, aged)
    running = asyncio.ensure_future(follower.run())
    await until(follower.listed.is_set)

    def broken(table: Table, heard_s: float) -> Table:
        raise KeyError("defect")

    follower._aged = broken
    with pytest.raises(ExceptionGroup, match="TaskGroup") as caught:
        await asyncio.wait_for(running, 5)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


# ---- another compiler ------------------------------------------------------------------------


def marked(view: View, previous: Table | None, changes: Changes | None) -> Table:
    """Compiles as `compiled` does and tells that it did, by a pool of its own."""
    table = compiled(view, previous, changes)
    return replace(table, pools={**table.pools, "marked": ()})


async def test_another_compiler_makes_what_is_in_force_anew_and_all_that_follows(
    store: MemoryStore,
) -> None:
    await put(store, keys.pool("a"), pool("192.0.2.1"))
    async with following(store) as follower:
        await until(follower.listed.is_set)
        revision = follower.revision
        await follower.recompile(marked)
        assert follower.table is not None
        assert follower.table.pools == {"a": ("192.0.2.1",), "marked": ()}
        assert follower.revision == revision
        assert time.monotonic() - follower.table.heard_s < 5
        revision = await put(store, keys.pool("b"), pool("192.0.2.2"))
        await until(lambda: follower.revision == revision)
        assert follower.table.pools.keys() == {"a", "b", "marked"}
        assert follower.table.changed == {"b"}


async def test_a_compiler_before_any_state_makes_the_first(store: MemoryStore) -> None:
    follower = Follower(store, compiled, aged)
    await follower.recompile(marked)
    assert follower.table is None
    task = asyncio.ensure_future(follower.run())
    await until(follower.listed.is_set)
    assert follower.table is not None
    assert follower.table.pools == {"marked": ()}
    task.cancel()


async def test_a_compiler_that_fails_changes_nothing(store: MemoryStore) -> None:
    def broken(view: View, previous: Table | None, changes: Changes | None) -> Table:
        raise LookupError("no such place")

    async with following(store) as follower:
        await until(follower.listed.is_set)
        before = follower.table
        with pytest.raises(LookupError, match="no such place"):
            await follower.recompile(broken)
        assert follower.table is before
        await put(store, keys.pool("a"), pool("192.0.2.1"))
        await until(lambda: addresses(follower, "a"))


async def test_a_snapshot_made_anew_is_as_stale_as_before(store: MemoryStore) -> None:
    follower = Follower(store, compiled, aged)
    assert follower.begin(snapshot(Item(keys.pool("a"), pool("192.0.2.1"), 5, 6)))
    await follower.recompile(marked)
    assert follower.table == Table(7, {"a": ("192.0.2.1",), "marked": ()}, NEVER)


async def test_news_of_the_store_go_in_force_while_a_table_is_made_anew(
    store: MemoryStore,
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    rounds: list[int] = []

    def slow(view: View, previous: Table | None, changes: Changes | None) -> Table:
        if threading.current_thread() is not threading.main_thread():
            rounds.append(view.revision)
            begun.set()
            assert go_on.wait(5)
        return marked(view, previous, changes)

    await put(store, keys.pool("a"), pool("192.0.2.1"))
    async with following(store) as follower:
        await until(follower.listed.is_set)
        making = asyncio.ensure_future(follower.recompile(slow))
        await until(begun.is_set)
        revision = await put(store, keys.pool("a"), pool("192.0.2.2"))
        await until(lambda: follower.revision == revision)
        assert follower.table is not None
        assert follower.table.pools == {"a": ("192.0.2.2",)}
        go_on.set()
        await making
        assert follower.table.pools == {"a": ("192.0.2.2",), "marked": ()}
        assert follower.revision == revision
        assert len(rounds) == 2


async def test_news_that_were_compiled_by_the_former_compiler_meanwhile_are_compiled_again(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONG_WORK", 0)
    begun, go_on = threading.Event(), threading.Event()

    def former(view: View, previous: Table | None, changes: Changes | None) -> Table:
        if view.instances:
            begun.set()
            assert go_on.wait(5)
        return compiled(view, previous, changes)

    follower = Follower(store, former, aged)
    task = asyncio.ensure_future(follower.run())
    try:
        await until(follower.listed.is_set)
        shop = Put(keys.config("instances", "shop"), codec.encode(Instance(id="gtm00000001")))
        revision = (await store.txn((), [shop, Put(keys.pool("a"), pool("192.0.2.1"))])).revision
        await until(begun.is_set)
        await follower.recompile(marked)
        go_on.set()
        await until(lambda: follower.revision == revision)
        assert follower.table is not None
        assert follower.table.pools == {"a": ("192.0.2.1",), "marked": ()}
    finally:
        task.cancel()
        await asyncio.wait({task})
