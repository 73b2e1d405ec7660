"""The etcd client tortured on one server: whatever happens, told is what is stored.

`make torture` runs more rounds of it. Clusters: test_etcd_cluster.py; an older
snapshot: test_etcd_restored.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coordinator import mirror
from gtm.errors import NoSpace, StoreDenied, StoreError
from gtm.etcd_watch import MAX_WAITING
from gtm.store import Batch, Delete, Put, packed
from gtm.v1 import etcd_pb2 as pb
from tests.etcds import EtcdServer
from tests.watched import Rebuilt, Relay, backlog, put, soon, streaming, until

pytestmark = pytest.mark.integration

BOTH = pytest.mark.parametrize("kind", ["path", "wheel"])
ROUNDS = int(os.environ.get("GTM_TORTURE_ROUNDS", "1"))


async def drained(items: AsyncIterator[Any]) -> None:
    """Read until the iteration ends, or raises."""
    async for _ in items:
        pass


async def restarted(server: EtcdServer, with_signal: int = signal.SIGKILL) -> None:
    await asyncio.to_thread(server.stop, with_signal)
    await asyncio.to_thread(server.start)


# Kills


@BOTH
async def test_kill_9_in_mid_catch_up_loses_nothing_and_repeats_nothing(
    start_etcd: Any, opened: Any, kind: str
) -> None:
    server = start_etcd(kind)
    writer = opened(server.endpoint)
    kills = 0
    fragments: list[bool] = []
    async with Relay(server.client_port) as relay:
        watch = opened(relay.endpoint).watch("/w/")

        async def kill(_: Batch) -> None:
            nonlocal kills
            if len(told.batches) % 250 == 100 and told.batches and told.revision < last - 100:
                kills += 1
                await restarted(server)

        async with Rebuilt(watch, "/w/", kill) as told:
            feed = watch._mirror.feed
            watch._mirror.feed = lambda one: fragments.append(one.fragment) or feed(one)
            for _ in range(ROUNDS):
                await streaming(watch)
                relay.cut()
                relay.reset()
                last = await backlog(writer, 900)
                # What is killed is the catching up: no write may be under way, for 3.5.1 is known
                # to lose what it was writing. Its batches are on the disk after 100 ms.
                await asyncio.sleep(0.2)
                relay.mend()
                await told.until(lambda last=last: told.revision == last)
            await told.equals(writer)
            told.told_all(server)
    assert kills >= 2 * ROUNDS
    assert any(fragments)


async def test_kill_9_between_writes_loses_nothing_that_was_acknowledged(
    start_etcd: Any, opened: Any
) -> None:
    server = start_etcd("path")
    store = opened(server.endpoint)
    written: dict[int, int] = {}
    async with Rebuilt(opened(server.endpoint).watch("/w/"), "/w/") as told:

        async def write(writer: int) -> None:
            for n in range(250 * ROUNDS):
                try:
                    written[await put(store, f"/w/{writer}/{n % 9}", b"%d" % n)] = n
                except StoreError:
                    await asyncio.sleep(0.02)

        async def kill() -> None:
            for _ in range(3 * ROUNDS):
                seen = len(told.batches)
                await told.until(lambda seen=seen: len(told.batches) > seen + 60)
                await restarted(server)

        await asyncio.gather(*(write(n) for n in range(4)), kill())
        last = await put(store, "/w/end")
        await told.until(lambda: told.revision == last)
        await told.equals(store)
        told.told_all(server)
        assert written.keys() <= told.batches.keys()


# A slow link


async def test_a_list_over_a_slow_link_comes_in_pages_that_arrive_in_time(
    start_etcd: Any, opened: Any
) -> None:
    server = start_etcd("path")
    writer = opened(server.endpoint)
    for start in range(0, 9_000, 600):
        keys = [f"/w/{n:05}" for n in range(start, start + 600)]
        await writer.txn((), packed([Put(key, b"x" * 1_000) for key in keys]))
    async with Relay(server.client_port) as relay:
        relay.piece, relay.pause_s = 16_384, 0.005  # 3 MB/s: a page of 4 MiB takes 1.4 s
        slow = opened(relay.endpoint, timeout_s=1.0)
        async with Rebuilt(slow.watch("/w/"), "/w/") as told:
            await told.equals(writer)
            assert len(told.state) == 9_000


# Compaction


@BOTH
async def test_a_compaction_past_a_reader_that_stands_still_is_told_as_a_difference(
    start_etcd: Any, opened: Any, kind: str
) -> None:
    server = start_etcd(kind)
    writer = opened(server.endpoint)
    gate = asyncio.Event()

    async def wait(_: Batch) -> None:
        await gate.wait()

    watch = opened(server.endpoint).watch("/w/")
    await writer.txn((), [Put(f"/w/old/{n}", b"") for n in range(50)])
    async with Rebuilt(watch, "/w/", wait) as told:
        for _ in range(ROUNDS):
            await streaming(watch)
            gate.clear()
            # More than sockets and queues hold, so that etcd itself falls behind with this watch.
            await backlog(writer, 1_500, size=20_000)
            assert watch._queue.qsize() == MAX_WAITING
            before = len(told.relisted)
            await writer.txn((), [Delete("/w/old/", prefix=True), Delete("/w/7")])
            await writer.compact(await put(writer, "/w/end", b"after"))
            gate.set()
            await told.until(lambda before=before: len(told.relisted) > before)
            await told.equals(writer)
            gone = {event.key for event in told.relisted[-1].events if event.value is None}
            assert {f"/w/old/{n}" for n in range(50)} <= gone
            await writer.txn((), [Put(f"/w/old/{n}", b"") for n in range(50)])
            await told.equals(writer)


@BOTH
async def test_deletions_compacted_while_the_watch_was_cut_off_arrive_as_one_batch(
    start_etcd: Any, opened: Any, kind: str
) -> None:
    server = start_etcd(kind)
    writer = opened(server.endpoint)
    async with Relay(server.client_port) as relay:
        watch = opened(relay.endpoint).watch("/w/")
        async with Rebuilt(watch, "/w/") as told:
            for n in range(3 * ROUNDS):
                for start in range(0, 240, 60):
                    some = range(start, start + 60)
                    await writer.txn((), [Put(f"/w/{k}", b"%d" % n) for k in some])
                await told.equals(writer)
                relay.cut()
                relay.reset()
                await writer.txn((), [Delete(f"/w/{k}") for k in range(60)])
                await writer.compact(await put(writer, "/w/0", b"again"))
                relay.mend()
                await told.until(lambda n=n: len(told.relisted) == n + 1)
                gone = {event.key for event in told.relisted[-1].events if event.value is None}
                assert gone == {f"/w/{k}" for k in range(1, 60)}
                await told.equals(writer)


# Progress answers that overtake events


@BOTH
async def test_progress_answers_that_overtake_events_move_nothing(
    start_etcd: Any, opened: Any, kind: str
) -> None:
    server = start_etcd(kind)
    writer = opened(server.endpoint)
    overtaken = 0
    cuts = 0
    async with Relay(server.client_port) as relay:
        relay.piece = 4_096
        watch = opened(relay.endpoint, progress_s=0.002, idle_s=5.0).watch("/w/")
        async with Rebuilt(watch, "/w/") as told:
            feed = watch._mirror.feed

            def fed(answer: pb.WatchResponse) -> Any:
                nonlocal overtaken, cuts
                step = feed(answer)
                ahead = answer.header.revision >= last > watch._mirror.resume
                if not answer.events and not answer.created and not answer.canceled and ahead:
                    overtaken += 1
                    if cuts < 6 * ROUNDS:
                        cuts += 1
                        relay.reset()
                return step

            for _ in range(ROUNDS):
                last = 1 << 60
                await streaming(watch)
                relay.cut()
                relay.reset()
                last = await backlog(writer, 700)
                watch._mirror.feed = fed
                relay.pause_s = 0.003
                relay.mend()
                await told.until(lambda last=last: told.revision == last)
                relay.pause_s = 0.0
                watch._mirror.feed = feed
            await told.equals(writer)
            told.told_all(server)
    assert overtaken
    assert cuts


# Tokens


def lock_up(server: EtcdServer) -> None:
    """Switch authentication on: root, and `reader` who may read and write /w/ alone."""
    for args in (
        ("role", "add", "root"),
        ("user", "add", "root:secret"),
        ("user", "grant-role", "root", "root"),
        ("role", "add", "w"),
        ("role", "grant-permission", "w", "readwrite", "--prefix=true", "/w/"),
        ("user", "add", "reader:word"),
        ("user", "grant-role", "reader", "w"),
        ("auth", "enable"),
    ):
        server.ctl(*args)


def password(server: EtcdServer, new: str) -> None:
    """Change that of `reader`."""
    args = ("--user", "root:secret", "user", "passwd", "--interactive=false", "reader")
    server.ctl(*args, stdin=f"{new}\n")


def token_flags(tokens: str, folder: Path) -> tuple[str, ...]:
    """etcd's flags for tokens that live a second or two."""
    if tokens == "simple":
        return ("--auth-token-ttl=1", "--bcrypt-cost=4")
    private, public = folder / "jwt.key", folder / "jwt.pem"
    for args in (
        ("genrsa", "-out", str(private), "2048"),
        ("rsa", "-in", str(private), "-pubout", "-out", str(public)),
    ):
        subprocess.run(["openssl", *args], check=True, capture_output=True)
    keys = f"pub-key={public},priv-key={private}"
    return (f"--auth-token=jwt,{keys},sign-method=RS256,ttl=1s", "--bcrypt-cost=4")


@BOTH
@pytest.mark.parametrize("tokens", ["simple", "jwt"])
async def test_a_watch_and_a_lease_live_over_many_tokens(
    start_etcd: Any, opened: Any, kind: str, tokens: str, tmp_path: Path
) -> None:
    server = start_etcd(kind, *token_flags(tokens, tmp_path))
    lock_up(server)
    root = opened(server.endpoint, user="root", password="secret")
    renewals = 0
    async with Relay(server.client_port) as relay:
        store = opened(relay.endpoint, user="reader", password="word")
        authenticate = store._link._authenticate

        async def counted(channel: Any) -> None:
            nonlocal renewals
            renewals += 1
            await authenticate(channel)

        store._link._authenticate = counted
        lease = await store.lease(2)
        await store.txn((), [Put("/w/leased", b"", lease.id)])
        async with Rebuilt(store.watch("/w/"), "/w/") as told:
            for _ in range(2 * ROUNDS):
                # Longer than a token lives, which a look every second ends, or its own word.
                await asyncio.sleep(2.2)
                await put(store, "/w/a", b"%d" % renewals)
                relay.reset()
                await put(root, "/w/b", b"%d" % renewals)
                await told.equals(root)
            assert lease.remaining_s() > 0
            assert (await root.get("/w/leased")) is not None
            await told.equals(root)
            assert not told.relisted
    assert renewals > 2 * ROUNDS


@BOTH
async def test_a_changed_password_is_told_and_a_consumer_that_asks_again_recovers(
    start_etcd: Any, opened: Any, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(mirror, "DENIED_PAUSE_S", 0.2)
    server = start_etcd(kind, "--auth-token-ttl=1", "--bcrypt-cost=4")
    lock_up(server)
    root = opened(server.endpoint, user="root", password="secret")
    async with Relay(server.client_port) as relay:
        store = opened(relay.endpoint, user="reader", password="word")
        bare = aiter(store.watch("/w/"))
        await soon(anext(bare))
        async with Rebuilt(mirror.followed(store, "/w/"), "/w/") as told:
            for n in range(ROUNDS):
                await put(store, "/w/a", b"%d" % n)
                await told.equals(root)
                listings = told.listings
                password(server, "other")
                with pytest.raises(StoreDenied, match="password"):
                    await soon(put(store, "/w/a"))
                relay.reset()
                if not n:
                    with pytest.raises(StoreDenied, match="password"):
                        await soon(drained(bare))
                await told.until(lambda: "the store refuses us" in caplog.text)
                caplog.clear()
                await put(root, "/w/missed", b"%d" % n)
                password(server, "word")
                await told.until(lambda listings=listings: told.listings > listings)
                await told.equals(root)
                await put(store, "/w/a", b"back")
                await told.equals(root)


# Space


@BOTH
async def test_without_space_reads_watches_and_leases_go_on_until_writes_can(
    start_etcd: Any, opened: Any, kind: str
) -> None:
    server = start_etcd(kind, f"--quota-backend-bytes={4 << 20}")
    store = opened(server.endpoint)
    lease = await store.lease(2)
    await store.txn((), [Put("/w/leased", b"", lease.id)])

    async def fill() -> None:
        for n in range(400):
            await put(store, f"/w/{n % 3}", b"%d" % n + b"x" * 200_000)

    async with Relay(server.client_port) as relay:
        cut_off = opened(relay.endpoint).watch("/w/")
        async with (
            Rebuilt(store.watch("/w/"), "/w/") as told,
            Rebuilt(cut_off, "/w/") as behind,
        ):
            for n in range(ROUNDS):
                await streaming(cut_off)
                relay.cut()
                relay.reset()
                with pytest.raises(NoSpace, match="compact, defragment"):
                    await fill()
                await told.equals(store)
                with pytest.raises(NoSpace):
                    await store.lease(2)
                assert any("NOSPACE" in alarm for alarm in (await store.status()).alarms)
                async with Rebuilt(store.watch("/w/"), "/w/") as late:
                    revision = late.revision
                server.ctl("compact", "--physical", str(revision))
                relay.mend()
                await behind.until(lambda n=n: len(behind.relisted) == n + 1)
                await behind.equals(store)
                before = lease._until
                await until(lambda before=before: lease._until > before)
                server.ctl("defrag")
                server.ctl("alarm", "disarm")
                await put(store, "/w/on", b"%d" % n)
                await told.equals(store)
                await behind.equals(store)
                assert (await store.get("/w/leased")) is not None
            assert not told.relisted


@BOTH
async def test_defragmentation_under_load_changes_nothing(
    start_etcd: Any, opened: Any, kind: str
) -> None:
    server = start_etcd(kind)
    store = opened(server.endpoint, audit_s=0.3, settle_s=1.0)
    lease = await store.lease(2)
    await store.txn((), [Put("/w/leased", b"", lease.id)])
    watch = store.watch("/w/")
    stop = asyncio.Event()
    async with Rebuilt(watch, "/w/") as told:

        async def write(writer: int) -> int:
            n = 0
            while not stop.is_set():
                ops = [Put(f"/w/{writer}/{n % 200}", b"%d" % n + b"x" * 5_000)]
                await store.txn((), [*ops, Delete(f"/w/{writer}/{(n + 100) % 200}")])
                n += 1
            return n

        async def defragment() -> None:
            for _ in range(4 * ROUNDS):
                seen = len(told.batches)
                await told.until(lambda seen=seen: len(told.batches) > seen + 100)
                await asyncio.to_thread(server.ctl, "defrag")
            stop.set()

        *counts, _ = await asyncio.gather(*(write(n) for n in range(3)), defragment())
        await told.until(lambda: len(told.batches) == sum(counts))
        await told.equals(store)
        told.told_all(server)
        assert watch.gaps == 0
        assert lease.remaining_s() > 0
