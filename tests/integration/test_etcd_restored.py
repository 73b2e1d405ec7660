"""The etcd client on a server that goes back to an older snapshot, in view or behind its back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from gtm.errors import LeaseLost
from gtm.store import Compare, Delete, Put
from tests.etcds import restore
from tests.watched import Rebuilt, Relay, backlog, put, soon, streaming

pytestmark = pytest.mark.integration

BOTH = pytest.mark.parametrize("kind", ["path", "wheel"])
ROUNDS = int(os.environ.get("GTM_TORTURE_ROUNDS", "1"))


@BOTH
async def test_a_restored_past_is_told_whole_and_ends_leases_and_old_leaders(
    start_etcd: Any, opened: Any, kind: str, tmp_path: Path
) -> None:
    server = start_etcd(kind)
    store = opened(server.endpoint, timeout_s=15.0)
    await store.txn((), [Put(f"/w/{n}", b"first") for n in range(60)])
    for n in range(ROUNDS):
        async with Rebuilt(store.watch("/w/"), "/w/") as told:
            snapshot = tmp_path / f"snapshot-{n}.db"
            server.ctl("snapshot", "save", str(snapshot))
            then = (await store.list("/w/")).revision
            lease = await store.lease(60)
            won = await store.txn(
                [Compare("/lead", "create", "=", 0)], [Put("/lead", b"", lease.id)]
            )
            fence = Compare("/lead", "create", "=", won.revision)
            await store.txn(
                [fence], [Delete(f"/w/{n + 10}"), Put("/w/new", b""), Put("/w/2", b"late")]
            )
            await backlog(store, 100)
            await told.equals(store)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(restore, server, snapshot)
            await asyncio.to_thread(server.start)
            await told.until(lambda: told.relisted)
            assert told.revision == then
            await told.equals(store)
            assert not (await store.txn([fence], [Put("/w/2", b"by an old leader")])).succeeded
            await soon(lease.lost())
            with pytest.raises(LeaseLost):
                await store.txn((), [Put("/w/leased", b"", lease.id)])
            await put(store, "/w/2", b"on")
            await told.equals(store)
            assert len(told.relisted) == 1


@BOTH
@pytest.mark.parametrize("lost", ["put", "new", "deletion", "list"])
async def test_a_restored_past_that_has_overtaken_the_watch_is_noticed_when_it_comes_back(
    start_etcd: Any, opened: Any, kind: str, lost: str, tmp_path: Path
) -> None:
    server = start_etcd(kind)
    store = opened(server.endpoint, timeout_s=15.0)
    await store.txn((), [Put(f"/w/{n}", b"first") for n in range(5)])
    snapshot = tmp_path / "snapshot.db"
    server.ctl("snapshot", "save", str(snapshot))
    if lost == "list":
        await put(store, "/w/1", b"of no history")
    async with Relay(server.client_port) as relay:
        watch = opened(relay.endpoint).watch("/w/")
        async with Rebuilt(watch, "/w/") as told:
            await streaming(watch)
            if lost == "put":
                await put(store, "/w/1", b"of no history")
            elif lost == "new":
                await put(store, "/w/new", b"of no history")
            elif lost == "deletion":
                await store.txn((), [Delete("/w/1")])
            await told.equals(store)
            relay.cut()
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(restore, server, snapshot)
            await asyncio.to_thread(server.start)
            for n in range(5):
                await put(store, "/elsewhere", b"%d" % n)
            relay.reset()
            relay.mend()
            await told.equals(store)
