"""Publishing: one transaction an evaluation, differences only, fenced, after outages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordinator import metrics
from coordinator.batches import batches
from coordinator.election import Election, Leadership, Membership
from coordinator.publisher import LED, Publisher
from gtm import codec, keys
from gtm.memory import MemoryStore
from gtm.state import Leader, MetRegion
from gtm.store import MAX_OPS, Delete, Event, Listing, Put

A, B = keys.pool("a"), keys.pool("b")


class Led:
    """A publisher with an election, as a coordinator wires them, without an engine."""

    def __init__(self, store: MemoryStore, id_: str) -> None:
        self.store, self.id = store, id_
        self.leadership = Leadership(lambda: self.publisher.wake())
        self.named: set[str] = {A, B}
        self.publisher = Publisher(
            store,
            self.leadership,
            take_over=self.take_over,
            named=lambda key: key in self.named,
        )
        self.membership = Membership(store)
        self.election = Election(store, id_, self.leadership, self.membership)
        self.wanted: dict[str, bytes | None] = {}

    async def take_over(self) -> None:
        """As with an engine: what it wants beyond the store follows at once."""
        self.publisher.restored({prefix: await self.store.list(prefix) for prefix in LED})
        self.publisher.want(self.wanted)

    def want(self, **values: str | None) -> None:
        changes = {
            keys.pool(name): None if text is None else text.encode()
            for name, text in values.items()
        }
        self.wanted.update(changes)
        self.publisher.want(changes)

    async def watch(self) -> None:
        async for news in self.store.watch(keys.SERVE):
            if isinstance(news, Listing):
                head = [item for item in news.items if item.key == keys.HEAD]
                self.publisher.judged(head[0].mod_revision if head else 0)
            else:
                self.publisher.seen(news.events)
                for event in news.events:
                    if event.key == keys.HEAD:
                        self.publisher.judged(event.mod_revision)


@contextlib.asynccontextmanager
async def led(store: MemoryStore, id_: str, *, judging: bool = True) -> AsyncIterator[Led]:
    made = Led(store, id_)
    work = [made.publisher.run(), made.election.run()]
    if judging:
        work.append(made.watch())
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def value(store: MemoryStore, key: str) -> str | None:
    item = await store.get(key)
    return None if item is None else item.value.decode()


async def test_one_that_is_alone_campaigns_and_is_fenced(helpers: Any) -> None:
    store = MemoryStore()
    async with led(store, "c1") as one:
        await helpers.until(lambda: one.leadership.fence)
        held = await store.get(keys.leader())
        assert held is not None
        assert one.leadership.fence == held.create_revision
        assert held.lease
        assert codec.decode(held.value, Leader).id == "c1"
    assert await store.get(keys.leader()) is None


async def test_all_that_was_decided_at_once_goes_in_one_revision(helpers: Any) -> None:
    store = MemoryStore()
    async with led(store, "c1") as one:
        await helpers.until(lambda: one.leadership.fence)
        one.want(a="1", b="2")
        await helpers.until(lambda: value(store, B))
        revisions = {(await store.get(key)).mod_revision for key in (A, B)}
        assert len(revisions) == 1


async def test_what_does_not_differ_is_not_written(helpers: Any) -> None:
    store = MemoryStore()
    async with led(store, "c1") as one:
        await helpers.until(lambda: one.leadership.fence)
        one.want(a="1")
        await helpers.until(lambda: value(store, A))
        before = (await store.get(A)).mod_revision
        one.want(a="1", b="2")
        await helpers.until(lambda: value(store, B))
        assert (await store.get(A)).mod_revision == before


async def test_a_new_leader_writes_only_what_differs(helpers: Any) -> None:
    store = MemoryStore()
    ending = contextlib.AsyncExitStack()
    one = await ending.enter_async_context(led(store, "c1"))
    await helpers.until(lambda: one.leadership.fence)
    async with led(store.client(), "c2") as two:
        one.want(a="1", b="1")
        two.want(a="1", b="2")
        await helpers.until(lambda: value(store, B))
        before = (await store.get(A)).mod_revision
        assert not two.leadership.fence
        assert await value(store, B) == "1"
        await ending.aclose()
        await helpers.until(lambda: two.leadership.fence)
        await helpers.until(lambda: _is(store, B, "2"))
        assert (await store.get(A)).mod_revision == before


async def test_one_who_lost_the_key_without_knowing_writes_nothing(helpers: Any) -> None:
    store = MemoryStore()
    async with led(store, "c1") as one:
        await helpers.until(lambda: one.leadership.fence)
        one.want(a="1")
        await helpers.until(lambda: value(store, A))
        lease = one.leadership._lease
        stale = one.leadership.fence
        await store.txn([], [Delete(keys.leader())])
        await store.txn([], [Put(keys.leader(), codec.encode(Leader(id="c2")))])
        one.leadership.won(stale, lease)  # as if no word of it had come
        one.want(a="2")
        await helpers.until(lambda: not one.leadership.fence)
        assert await value(store, A) == "1"


async def test_a_write_waits_until_the_new_head_was_judged(helpers: Any) -> None:
    store = MemoryStore()
    async with led(store, "c1", judging=False) as one:
        await helpers.until(lambda: one.leadership.fence)
        done = await store.txn([], [Put(keys.HEAD, b"{}")])
        refused = metrics.PUBLISH_FAILURES.labels("head")._value.get
        before = refused()
        one.want(a="judged before")
        await helpers.until(lambda: refused() > before)
        assert await value(store, A) is None
        one.want(a="judged after")
        one.publisher.judged(done.revision)
        assert await helpers.until(lambda: value(store, A)) == "judged after"


async def test_after_an_outage_the_newest_state_is_published(helpers: Any) -> None:
    store = MemoryStore()
    async with led(store, "c1") as one:
        await helpers.until(lambda: one.leadership.fence)
        one.want(a="1")
        await helpers.until(lambda: value(store, A))
        store.cut()
        for text in ("2", "3", "4"):
            one.want(a=text)
            await asyncio.sleep(0)
        store.mend()
        await helpers.until(lambda: _is(store, A, "4"))
        assert (await store.get(A)).version == 2


async def test_after_a_lease_that_ran_out_it_leads_again_and_publishes(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.election.LEASE_TTL_S", 0.3)
    store = MemoryStore()
    async with led(store, "c1") as one:
        await helpers.until(lambda: one.leadership.fence)
        one.want(a="1")
        await helpers.until(lambda: value(store, A))
        store.cut()
        await helpers.until(lambda: not one.leadership.fence)
        one.want(a="2")
        store.mend()
        await helpers.until(lambda: _is(store, A, "2"))
        assert one.leadership.fence


async def test_a_lost_answer_is_written_again(helpers: Any) -> None:
    store = MemoryStore()
    async with led(store, "c1") as one:
        await helpers.until(lambda: one.leadership.fence)
        store.lose_answers = 1
        one.want(a="1")
        await helpers.until(lambda: store.lose_answers == 0 and not one.publisher.waiting)
        assert await value(store, A) == "1"


async def test_a_pool_deleted_with_its_configuration_stays_deleted(helpers: Any) -> None:
    store = MemoryStore()
    async with led(store, "c1") as one:
        await helpers.until(lambda: one.leadership.fence)
        one.want(a="1")
        await helpers.until(lambda: value(store, A))
        one.named.discard(A)
        await store.txn([], [Delete(A), Put(keys.HEAD, b"{}")])
        one.want(b="2")
        await helpers.until(lambda: value(store, B))
        assert await value(store, A) is None


async def test_a_state_that_somebody_else_broke_is_put_right(helpers: Any) -> None:
    store = MemoryStore()
    async with led(store, "c1") as one:
        await helpers.until(lambda: one.leadership.fence)
        one.want(a="1")
        await helpers.until(lambda: value(store, A))
        await store.txn([], [Put(A, b"by hand")])
        await helpers.until(lambda: _is(store, A, "1"))


async def test_a_leader_clears_what_the_configuration_no_longer_names(helpers: Any) -> None:
    store = MemoryStore()
    await store.txn([], [Put(keys.pool("gone"), b"1"), Put(A, b"1")])
    async with led(store, "c1"):
        await helpers.until(lambda: _is(store, keys.pool("gone"), None))
        assert await value(store, A) == "1"


async def test_a_region_is_noted_once_and_not_again_after_it_was_ended(helpers: Any) -> None:
    store = MemoryStore()
    async with led(store, "c1") as one:
        one.publisher.met("eu")
        await helpers.until(lambda: value(store, keys.region("eu")))
        noted = await store.get(keys.region("eu"))
        assert codec.decode(noted.value, MetRegion).since > 0
        one.publisher.met("eu")
        one.want(a="1")
        await helpers.until(lambda: value(store, A))
        assert (await store.get(keys.region("eu"))).version == 1


async def test_a_process_that_comes_back_does_not_wait_for_its_own_old_key(helpers: Any) -> None:
    store = MemoryStore()
    former = store.client()
    lease = await former.lease(3_600.0)
    left = codec.encode(Leader(id="c1"))
    await former.txn([], [Put(keys.leader(), left, lease.id)])
    former_fence = (await store.get(keys.leader())).create_revision
    async with led(store, "c1") as one:
        await helpers.until(lambda: one.leadership.fence)
        assert one.leadership.fence > former_fence


async def test_member_keys_live_and_die_with_the_lease(helpers: Any) -> None:
    store = MemoryStore()
    async with led(store, "c1") as one:
        one.membership.put(keys.coordinator("c1"), b"here")
        one.membership.put(keys.agent("c1", "eu.x"), b"agent")
        await helpers.until(lambda: value(store, keys.agent("c1", "eu.x")))
        one.membership.remove(keys.agent("c1", "eu.x"))
        await helpers.until(lambda: _is(store, keys.agent("c1", "eu.x"), None))
        assert await value(store, keys.coordinator("c1")) == "here"
    assert await value(store, keys.coordinator("c1")) is None


async def test_member_keys_beyond_one_transaction_go_in_several(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.election.MAX_MEMBER_OPS", 2)
    store = MemoryStore()
    async with led(store, "c1") as one:
        for number in range(5):
            one.membership.put(keys.agent("c1", f"eu.{number}"), b"agent")

        async def all_there() -> bool:
            return len((await store.list(keys.AGENTS)).items) == 5

        await helpers.until(all_there)


async def _is(store: MemoryStore, key: str, text: str | None) -> bool:
    return await value(store, key) == text


def test_what_fits_goes_together_and_what_does_not_keeps_pools_with_their_routes() -> None:
    wanted: dict[str, bytes | None] = {keys.pool(f"p{n}"): b"x" * 100 for n in range(10)}
    wanted[keys.routes("i")] = b"y"
    wanted[keys.verdict("web", "192.0.2.1", 80)] = b"z"
    assert [len(batch) for batch in batches(wanted, dict)] == [12]

    wanted |= {keys.verdict("web", "192.0.2.1", n): b"z" for n in range(MAX_OPS * MAX_OPS)}
    found = list(batches(wanted, lambda: {"i": ("p3", "p7", "absent")}))
    assert [key for key, _ in found[0][:3]] == [keys.routes("i"), keys.pool("p3"), keys.pool("p7")]
    assert sum(map(len, found)) == len(wanted)
    assert all(len(batch) <= MAX_OPS * MAX_OPS for batch in found)

    large = {keys.pool(f"p{n}"): b"x" * 400_000 for n in range(5)}
    assert [len(batch) for batch in batches(large, dict)] == [2, 2, 1]


async def test_a_force_made_meanwhile_is_not_deleted_with_the_one_that_ended(
    helpers: Any,
) -> None:
    store, key = MemoryStore(), keys.force("a")
    await store.txn([], [Put(key, b"old")])
    async with led(store, "c1") as one:
        await helpers.until(lambda: one.leadership.fence)
        one.want(a="1")
        await helpers.until(lambda: value(store, A))
        await store.txn([], [Put(key, b"new")])  # the watch of forces has not told it yet
        refused = metrics.PUBLISH_FAILURES.labels("head")._value.get
        before = refused()
        one.publisher.want({key: None, B: b"2"})
        await helpers.until(lambda: refused() > before)
        assert await value(store, key) == "new"
        item = await store.get(key)
        assert item is not None
        told = Event(key, b"new", item.mod_revision, item.create_revision)
        one.publisher.seen([told])
        await helpers.until(lambda: value(store, B))
        assert await value(store, key) == "new"
        one.publisher.want({key: None})
        one.publisher.seen([told])  # told once more, by a new listing
        await helpers.until(lambda: one.publisher.waiting == 0)
        assert await store.get(key) is None
