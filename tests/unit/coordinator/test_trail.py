"""The audit trail: every change of an operator's has its entry, and a broken chain is found."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from coordinator import trail
from coordinator.callers import Refusal
from coordinator.plan import Change
from coordinator.trail import MAX_CHANGES, MAX_TEXT_BYTES, Notes, Said, Trail, changes, refused
from gtm import codec, keys, links
from gtm.audit import Verifier
from gtm.errors import StoreUnavailable
from gtm.memory import MemoryStore
from gtm.state import AuditEntry, AuditHead
from gtm.store import Compare, Delete, Put
from gtm.v1 import operator_pb2 as pb
from gtm.v1.operator_pb2_grpc import OperatorStub


async def head_of(store: MemoryStore) -> AuditHead:
    item = await store.get(keys.AUDIT_HEAD)
    assert item is not None
    return codec.decode(item.value, AuditHead)


async def entries(store: MemoryStore) -> list[AuditEntry]:
    listing = await store.list(keys.AUDIT)
    found = [one for one in listing.items if one.key != keys.AUDIT_HEAD]
    return [codec.decode(one.value, AuditEntry) for one in found]


async def wrong(store: MemoryStore) -> list[str]:
    verifier = Verifier(await head_of(store))
    found = verifier.take(await entries(store))
    return [*found, *verifier.end()]


@contextlib.asynccontextmanager
async def asked(helpers: Any, store: MemoryStore) -> AsyncIterator[Any]:
    async with (
        helpers.coordinator(store) as made,
        links.channel(f"127.0.0.1:{made.port}", links.Tls()) as channel,
    ):
        yield OperatorStub(channel)


async def test_applies_forces_releases_and_deletes_stand_in_one_chain(helpers: Any) -> None:
    store = MemoryStore()
    whole = json.dumps(helpers.SMALL)
    pool = next(iter(helpers.SMALL["pools"]))
    async with asked(helpers, store) as ask:
        done = await ask.Apply(pb.ApplyRequest(resources=whole, who="ann", why="first set"))
        assert done.applied
        assert not (await ask.Apply(pb.ApplyRequest(resources=whole, who="ann"))).changes
        await ask.Force(pb.ForceRequest(target=pool, action="down", who="bob", why="disk"))
        await ask.Force(pb.ForceRequest(target=pool, action="drain", who="bob", why="gently"))
        await ask.Release(pb.ReleaseRequest(target=pool, who="eve", why="mended"))
        more = json.dumps({"pools": {"spare": {"type": "ipv4"}}})
        await ask.Apply(pb.ApplyRequest(resources=more, who="ann"))
        await ask.Delete(pb.DeleteRequest(kind="pools", name="spare", who="ann", why="unused"))
        told = [
            (one.who, one.what, one.why, [(c.action, c.kind, c.name) for c in one.changes][-1])
            for one in await entries(store)
        ]
        part = await ask.Audit(pb.AuditRequest())
    last = told[0][3]
    assert told == [
        ("ann", "apply", "first set", last),
        ("bob", "force", "disk", ("create", "forces", pool)),
        ("bob", "force", "gently", ("update", "forces", pool)),
        ("eve", "release", "mended", ("delete", "forces", pool)),
        ("ann", "apply", "", ("create", "pools", "spare")),
        ("ann", "delete", "unused", ("delete", "pools", "spare")),
    ]
    force = (await entries(store))[2].changes[0]
    assert json.loads(force.before)["action"] == "down"
    assert json.loads(force.after)["action"] == "drain"
    assert await wrong(store) == []
    assert len(part.entries) == 6
    assert part.next == 0


async def test_refused_callers_stand_in_the_trail_also_when_the_store_was_away() -> None:
    store = MemoryStore()
    notes = Notes(Trail(store, lambda: 1.0))
    refusal = Refusal(
        who="agent eu/a", peer="ipv4:127.0.0.1:5", method="Connect", reason="region", sentence="no"
    )
    notes.note(refused(refusal))
    broken = store.txn
    tried = asyncio.Event()

    async def away(*_: Any) -> Any:
        tried.set()
        raise StoreUnavailable("away")

    store.txn = away  # type: ignore[method-assign]
    task = asyncio.create_task(notes.run())
    try:
        async with asyncio.timeout(20):
            await tried.wait()
            store.txn = broken  # type: ignore[method-assign]
            while await store.get(keys.AUDIT_HEAD) is None:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
    [entry] = await entries(store)
    assert (entry.who, entry.what, entry.why) == ("agent eu/a", "refused Connect", "no")


def test_notes_that_wait_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "MAX_NOTES", 2)
    before = trail.metrics.AUDIT_DROPPED._value.get()
    notes = Notes(Trail(MemoryStore()))
    for _ in range(5):
        notes.note(Said(who="x", what="refused Connect"))
    assert trail.metrics.AUDIT_DROPPED._value.get() - before == 3


async def test_an_apply_of_what_is_stored_leaves_no_entry_and_no_refused_one_does(
    helpers: Any,
) -> None:
    store = MemoryStore()
    async with asked(helpers, store) as ask:
        broken = json.dumps({"pools": {"x": {"type": "ipv5"}}})
        assert not (await ask.Apply(pb.ApplyRequest(resources=broken))).applied
    assert await store.get(keys.AUDIT_HEAD) is None


async def filled(count: int, most: int = 100_000) -> MemoryStore:
    store = MemoryStore()
    made = Trail(store, lambda: 1.0, most=most)
    for number in range(count):
        await made.note(Said(who="ann", what="apply", why=f"number {number}"))
    return store


@pytest.mark.parametrize(
    ("tampered", "sentence"),
    [
        ("changed", "entry 3 was changed after it was written"),
        ("deleted", "entry 3 is missing"),
        ("rehashed", "entry 4 does not follow the entry before it"),
        ("cut", "entries 4 to 5 are missing"),
        ("head", "entry 5 is not the one that the head names"),
        ("begun", "entries 1 to 2 are missing"),
    ],
)
async def test_what_was_tampered_with_is_found_and_named(tampered: str, sentence: str) -> None:
    store = await filled(5)
    all_of_them = {one.seq: one for one in await entries(store)}
    third = replace(all_of_them[3], why="nothing to see")
    head = await head_of(store)
    match tampered:
        case "changed":
            ops: list[Any] = [Put(keys.audit(3), codec.encode(third))]
        case "deleted":
            ops = [Delete(keys.audit(3))]
        case "rehashed":
            from gtm.audit import hash_of

            ops = [Put(keys.audit(3), codec.encode(replace(third, hash=hash_of(third))))]
        case "cut":
            ops = [Delete(keys.audit(4)), Delete(keys.audit(5))]
        case "head":
            ops = [Put(keys.AUDIT_HEAD, codec.encode(replace(head, hash="0" * 64)))]
        case _:
            ops = [Delete(keys.audit(1)), Delete(keys.audit(2))]
    assert await wrong(store) == []
    await store.txn([], ops)
    assert sentence in await wrong(store)


async def test_the_trail_is_bounded_and_what_is_left_verifies() -> None:
    store = await filled(12, most=5)
    kept = [one.seq for one in await entries(store)]
    assert kept == [8, 9, 10, 11, 12]
    assert (await head_of(store)).first == 8
    assert await wrong(store) == []
    await store.txn([], [Delete(keys.audit(8))])
    assert "entry 8 is missing" in await wrong(store)


async def test_whoever_loses_the_place_takes_the_next_one() -> None:
    store = MemoryStore()
    made = Trail(store, lambda: 1.0)
    place = await made.place()
    compare, ops = made.entry(place, Said(who="ann", what="apply"))
    await made.note(Said(who="bob", what="force"))
    assert not (await store.txn([compare], ops)).succeeded
    assert compare == Compare(keys.AUDIT_HEAD, "mod", "=", 0)
    await made.note(Said(who="ann", what="apply"))
    assert [one.who for one in await entries(store)] == ["bob", "ann"]


def test_an_entry_is_bounded_and_says_what_found_no_room() -> None:
    many = [
        Change(action="create", kind="pools", name=f"p{n}", after="x" * 1_000) for n in range(1_200)
    ]
    told, more = changes(many)
    assert (len(told), more) == (MAX_CHANGES, 200)
    texts = sum(len(one.after) for one in told)
    assert MAX_TEXT_BYTES - 1_000 < texts <= MAX_TEXT_BYTES
    assert all(len(one.after_digest) == 32 for one in told)
    assert not any(one.before_digest for one in told)
