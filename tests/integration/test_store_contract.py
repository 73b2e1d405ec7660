"""What every `Store` promises, on memory and on both generations of etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gtm.errors import Compacted, LeaseLost, StoreError, StoreUnavailable
from gtm.etcd import EtcdOptions, connect
from gtm.memory import MemoryStore
from gtm.store import MAX_OPS, Batch, Compare, Delete, Event, Get, Listing, Put, Txn, packed

pytestmark = pytest.mark.integration

KINDS = ("memory", "path", "wheel")
SOON_S = 10.0


@pytest.fixture(params=KINDS)
async def clients(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[], Any]]:
    """Makes clients of one store."""
    made: list[Any] = []
    memory = MemoryStore()
    if request.param == "memory":
        make: Callable[[], Any] = memory.client
    else:
        endpoint = request.getfixturevalue("etcd_servers")(request.param).endpoint
        make = lambda: connect(EtcdOptions(endpoints=(endpoint,)))  # noqa: E731

    def client() -> Any:
        made.append(make())
        return made[-1]

    yield client
    for one in made:
        await one.close()


@pytest.fixture
def store(clients: Callable[[], Any]) -> Any:
    return clients()


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(SOON_S):
        return await awaitable


async def put(store: Any, **values: bytes) -> int:
    """Write `values` in one transaction; its revision."""
    return (await store.txn((), [Put(key, value) for key, value in values.items()])).revision


# Reads and lists


async def test_an_absent_key_reads_as_none(store: Any, prefix: str) -> None:
    assert await store.get(f"{prefix}nothing") is None


async def test_a_read_tells_the_value_and_its_counters(store: Any, prefix: str) -> None:
    key = f"{prefix}a"
    first = await put(store, **{key: b"1"})
    second = await put(store, **{key: b"2"})
    item = await store.get(key)
    assert (item.key, item.value, item.version) == (key, b"2", 2)
    assert (item.create_revision, item.mod_revision) == (first, second)


async def test_a_list_holds_the_prefix_in_key_order_and_nothing_else(
    store: Any, prefix: str
) -> None:
    await put(store, **{f"{prefix}b": b"2", f"{prefix}a": b"1", f"{prefix[:-1]}0": b"beside"})
    listing = await store.list(prefix)
    assert [(i.key, i.value) for i in listing.items] == [
        (f"{prefix}a", b"1"),
        (f"{prefix}b", b"2"),
    ]
    keys = await store.list(prefix, keys_only=True)
    assert [(i.key, i.value, i.mod_revision) for i in keys.items] == [
        (i.key, b"", i.mod_revision) for i in listing.items
    ]


async def test_a_list_of_many_pages_is_of_one_revision(store: Any, prefix: str) -> None:
    ops = [Put(f"{prefix}{n:05}", b"x" * 200) for n in range(4_000)]
    written = (await store.txn((), packed(ops))).revision
    listing = await store.list(prefix)
    assert listing.revision >= written
    assert [i.key for i in listing.items] == [op.key for op in ops]


async def test_a_list_at_a_revision_tells_the_past(store: Any, prefix: str) -> None:
    then = await put(store, **{f"{prefix}a": b"old"})
    await store.txn((), [Delete(f"{prefix}a"), Put(f"{prefix}b", b"new")])
    past = await store.list(prefix, revision=then)
    assert (past.revision, [(i.key, i.value) for i in past.items]) == (
        then,
        [(f"{prefix}a", b"old")],
    )


async def test_a_compacted_revision_is_refused_with_the_oldest_that_is_left(
    store: Any, prefix: str
) -> None:
    old = await put(store, **{f"{prefix}a": b"1"})
    new = await put(store, **{f"{prefix}a": b"2"})
    await store.compact(new)
    with pytest.raises(Compacted) as caught:
        await store.list(prefix, revision=old)
    assert caught.value.revision == new
    assert (await store.list(prefix, revision=new)).items[0].value == b"2"


async def test_a_revision_of_the_future_is_refused(store: Any, prefix: str) -> None:
    now = await put(store, **{f"{prefix}a": b"1"})
    with pytest.raises(StoreError, match="future"):
        await store.list(prefix, revision=now + 1_000_000)


# Transactions


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (("a", "create", "=", "created"), True),
        (("a", "mod", ">", "created"), True),
        (("a", "mod", "=", "created"), False),
        (("a", "version", "=", 2), True),
        (("a", "version", "<", 2), False),
        (("a", "value", "=", b"2"), True),
        (("a", "value", "!=", b"2"), False),
        (("a", "value", "<", b"3"), True),
        (("none", "version", "=", 0), True),
        (("none", "create", "!=", 0), False),
        (("none", "mod", ">", 0), False),
        (("none", "value", "!=", b"2"), False),
    ],
)
async def test_a_compare_decides_the_branch(
    store: Any, prefix: str, compare: tuple[Any, ...], holds: bool
) -> None:
    created = await put(store, **{f"{prefix}a": b"1"})
    await put(store, **{f"{prefix}a": b"2"})
    key, field, op, value = compare
    condition = Compare(f"{prefix}{key}", field, op, created if value == "created" else value)
    done = await store.txn([condition], [Get(f"{prefix}a")], [Get(f"{prefix}none")])
    assert done.succeeded is holds
    assert [len(read) for read in done.reads] == [1 if holds else 0]


async def test_a_transaction_sees_its_own_writes_and_is_one_revision(
    store: Any, prefix: str
) -> None:
    await put(store, **{f"{prefix}gone": b"1"})
    done = await store.txn(
        (),
        [
            Get(prefix, prefix=True),
            Put(f"{prefix}a", b"1"),
            Delete(f"{prefix}gone"),
            Get(prefix, prefix=True),
        ],
    )
    assert [[i.key for i in read] for read in done.reads] == [[f"{prefix}gone"], [f"{prefix}a"]]
    assert (await store.get(f"{prefix}a")).mod_revision == done.revision


async def test_a_transaction_that_changes_nothing_takes_no_revision(
    store: Any, prefix: str
) -> None:
    before = await put(store, **{f"{prefix}a": b"1"})
    done = await store.txn((), [Delete(f"{prefix}none"), Get(f"{prefix}a")])
    assert (done.succeeded, done.revision) == (True, before)


async def test_compares_of_nested_transactions_see_the_store_as_it_was(
    store: Any, prefix: str
) -> None:
    inner = Txn(
        compares=(Compare(f"{prefix}a", "version", "=", 0),),
        then=(Put(f"{prefix}was-absent", b"1"), Get(f"{prefix}a")),
        orelse=(Put(f"{prefix}was-there", b"1"),),
    )
    done = await store.txn((), [Put(f"{prefix}a", b"1"), inner, Get(f"{prefix}a")])
    assert [[i.value for i in read] for read in done.reads] == [[b"1"], [b"1"]]
    assert await store.get(f"{prefix}was-absent") is not None
    assert await store.get(f"{prefix}was-there") is None


async def test_deleting_a_prefix_deletes_what_begins_with_it(store: Any, prefix: str) -> None:
    await put(store, **{f"{prefix}a/1": b"", f"{prefix}a/2": b"", f"{prefix}b": b""})
    await store.txn((), [Delete(f"{prefix}a/", prefix=True)])
    assert [i.key for i in (await store.list(prefix)).items] == [f"{prefix}b"]


async def test_a_packed_transaction_holds_4096_operations(store: Any, prefix: str) -> None:
    ops = [Put(f"{prefix}{n}", b"v") for n in range(MAX_OPS * MAX_OPS)]
    done = await store.txn([Compare(f"{prefix}0", "version", "=", 0)] * 64, packed(ops))
    listing = await store.list(prefix)
    assert len(listing.items) == len(ops)
    assert {i.mod_revision for i in listing.items} == {done.revision}


@pytest.mark.parametrize(
    ("groups", "each", "fits"), [(1, 127, True), (32, 96, True), (32, 97, False), (129, 0, False)]
)
async def test_a_transaction_inside_another_has_what_that_one_left_over(
    store: Any, prefix: str, groups: int, each: int, fits: bool
) -> None:
    ops = [
        Txn(then=tuple(Put(f"{prefix}{g}/{n}", b"") for n in range(each))) for g in range(groups)
    ]
    if fits:
        assert (await store.txn((), ops)).succeeded
    else:
        with pytest.raises(StoreError, match="too many operations"):
            await store.txn((), ops)
        assert (await store.list(prefix)).items == ()


DUPLICATES = {
    "the same key twice": [Put("a", b""), Put("a", b"")],
    "a put and its deletion": [Put("a", b""), Delete("a")],
    "a put under a deleted prefix": [Delete("", prefix=True), Put("a", b"")],
    "a put around a nested one": [Put("a", b""), Txn(then=(Put("a", b""),))],
    "puts of two nested ones": [Txn(then=(Put("a", b""),)), Txn(orelse=(Put("a", b""),))],
    "a nested put and a deletion around it": [Txn(then=(Put("a", b""),)), Delete("a")],
}
SINGLES = {
    "both branches of one": [Txn(then=(Put("a", b""),), orelse=(Put("a", b""),))],
    "two deletions": [Delete("a"), Delete("", prefix=True)],
    "put in one branch, deleted in the other": [
        Txn(then=(Put("a", b""),), orelse=(Delete("a"),)),
        Txn(then=(Put("b", b""),)),
    ],
}


def under(prefix: str, ops: Any) -> list[Any]:
    moved = []
    for op in ops:
        if isinstance(op, Txn):
            moved.append(
                Txn(op.compares, tuple(under(prefix, op.then)), tuple(under(prefix, op.orelse)))
            )
        elif isinstance(op, Put):
            moved.append(Put(prefix + op.key, op.value))
        else:
            moved.append(Delete(prefix + op.key, op.prefix))
    return moved


@pytest.mark.parametrize("case", DUPLICATES)
async def test_a_transaction_that_writes_a_key_twice_is_refused(
    store: Any, prefix: str, case: str
) -> None:
    with pytest.raises(StoreError, match="duplicate key"):
        await store.txn((), under(prefix, DUPLICATES[case]))


@pytest.mark.parametrize("case", SINGLES)
async def test_writes_that_exclude_each_other_are_taken(store: Any, prefix: str, case: str) -> None:
    assert (await store.txn((), under(prefix, SINGLES[case]))).succeeded


async def test_a_request_that_is_too_large_is_refused(store: Any, prefix: str) -> None:
    with pytest.raises(StoreError, match="too large"):
        await store.txn((), [Put(f"{prefix}a", b"x" * (1_572_864 + 1))])


async def test_two_writers_that_compare_one_revision_do_not_both_win(
    clients: Callable[[], Any], prefix: str
) -> None:
    key = f"{prefix}head"
    seen = await put(clients(), **{key: b"0"})
    condition = [Compare(key, "mod", "=", seen)]
    both = [one.txn(condition, [Put(key, b"1")]) for one in (clients(), clients())]
    done = await asyncio.gather(*both)
    assert sorted(one.succeeded for one in done) == [False, True]


# Watches


async def test_a_watch_begins_with_the_list_and_goes_on_with_each_revision(
    clients: Callable[[], Any], prefix: str
) -> None:
    writer, reader = clients(), clients()
    first = await put(writer, **{f"{prefix}a": b"1"})
    items = aiter(reader.watch(prefix))
    listing = await soon(anext(items))
    assert isinstance(listing, Listing)
    assert [(i.key, i.mod_revision) for i in listing.items] == [(f"{prefix}a", first)]
    await put(writer, **{f"{prefix[:-1]}0": b"beside"})
    done = await writer.txn((), [Put(f"{prefix}a", b"2"), Put(f"{prefix}b", b"1")])
    gone = await writer.txn((), [Delete(prefix, prefix=True)])
    assert await soon(anext(items)) == Batch(
        done.revision,
        (
            Event(f"{prefix}a", b"2", done.revision, first),
            Event(f"{prefix}b", b"1", done.revision, done.revision),
        ),
    )
    assert await soon(anext(items)) == Batch(
        gone.revision,
        (
            Event(f"{prefix}a", None, gone.revision),
            Event(f"{prefix}b", None, gone.revision),
        ),
    )


async def test_a_large_revision_arrives_as_one_batch(
    clients: Callable[[], Any], prefix: str
) -> None:
    writer, reader = clients(), clients()
    items = aiter(reader.watch(prefix))
    await soon(anext(items))
    ops = [Put(f"{prefix}{n:05}", b"x" * 200) for n in range(MAX_OPS * MAX_OPS)]
    done = await writer.txn((), packed(ops))
    again = await writer.txn((), [Delete(prefix, prefix=True)])
    batch = await soon(anext(items))
    assert (batch.revision, len(batch.events)) == (done.revision, len(ops))
    batch = await soon(anext(items))
    assert (batch.revision, len(batch.events)) == (again.revision, len(ops))


async def test_a_slow_reader_misses_nothing(clients: Callable[[], Any], prefix: str) -> None:
    writer, reader = clients(), clients()
    items = aiter(reader.watch(prefix))
    await soon(anext(items))
    written = [await put(writer, **{f"{prefix}a": b"%d" % n}) for n in range(300)]
    got = [await soon(anext(items)) for _ in written]
    assert [batch.revision for batch in got] == written
    assert [batch.events[0].value for batch in got] == [b"%d" % n for n in range(300)]


async def test_a_closed_watch_ends_its_iteration(store: Any, prefix: str) -> None:
    watch = store.watch(prefix)
    got = []

    async def read() -> None:
        async for one in watch:
            got.append(one)
            await watch.close()

    await soon(read())
    assert len(got) == 1


async def test_heard_is_infinite_before_the_list_and_small_after_it(
    store: Any, prefix: str
) -> None:
    watch = store.watch(prefix)
    assert watch.heard_s() == float("inf")
    await soon(anext(aiter(watch)))
    assert watch.heard_s() < SOON_S


# Leases


async def test_a_lease_kept_alive_outlives_its_time(store: Any, prefix: str) -> None:
    lease = await store.lease(1)
    await store.txn((), [Put(f"{prefix}a", b"", lease.id)])
    deadline = asyncio.get_running_loop().time() + 2.5 * lease.ttl_s
    while asyncio.get_running_loop().time() < deadline:
        assert lease.remaining_s() > 0
        await asyncio.sleep(0.1)
    item = await store.get(f"{prefix}a")
    assert item.lease == lease.id


async def test_a_lease_of_a_dead_client_runs_out_with_its_keys_in_one_revision(
    clients: Callable[[], Any], prefix: str
) -> None:
    store, dying = clients(), clients()
    lease = await dying.lease(1)
    await dying.txn((), [Put(f"{prefix}a", b"", lease.id), Put(f"{prefix}b", b"", lease.id)])
    items = aiter(store.watch(prefix))
    await soon(anext(items))
    await dying.close()
    assert lease.remaining_s() == 0
    await soon(lease.lost())
    batch = await soon(anext(items))
    assert [(e.key, e.value) for e in batch.events] == [
        (f"{prefix}a", None),
        (f"{prefix}b", None),
    ]


async def test_revoking_a_lease_deletes_its_keys_at_once(store: Any, prefix: str) -> None:
    lease = await store.lease(60)
    await store.txn((), [Put(f"{prefix}a", b"", lease.id), Put(f"{prefix}b", b"")])
    await lease.revoke()
    assert [i.key for i in (await store.list(prefix)).items] == [f"{prefix}b"]
    assert lease.remaining_s() == 0
    await soon(lease.lost())
    with pytest.raises(LeaseLost):
        await store.txn((), [Put(f"{prefix}c", b"", lease.id)])


async def test_a_key_written_without_its_lease_survives_it(store: Any, prefix: str) -> None:
    lease = await store.lease(60)
    await store.txn((), [Put(f"{prefix}a", b"", lease.id)])
    await store.txn((), [Put(f"{prefix}a", b"")])
    await lease.revoke()
    assert await store.get(f"{prefix}a") is not None


async def test_an_election_by_create_revision_has_one_winner_and_fences(
    clients: Callable[[], Any], prefix: str
) -> None:
    first, second = clients(), clients()
    key = f"{prefix}leader"
    lease = await first.lease(60)
    free = [Compare(key, "create", "=", 0)]
    won = await first.txn(free, [Put(key, b"first", lease.id)])
    assert won.succeeded
    assert not (await second.txn(free, [Put(key, b"second")])).succeeded
    fence = [Compare(key, "create", "=", won.revision)]
    assert (await first.txn(fence, [Put(f"{prefix}state", b"1")])).succeeded
    await lease.revoke()
    assert (await second.txn(free, [Put(key, b"second")])).succeeded
    assert not (await first.txn(fence, [Put(f"{prefix}state", b"2")])).succeeded


# The whole


async def test_status_tells_the_revision_and_size(store: Any, prefix: str) -> None:
    written = await put(store, **{f"{prefix}a": b"1"})
    status = await store.status()
    assert status.revision >= written
    assert status.size_bytes > 0
    assert status.reached in status.endpoints
    assert status.alarms == ()


async def test_a_closed_store_refuses_at_once(store: Any, prefix: str) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.get(f"{prefix}a")
