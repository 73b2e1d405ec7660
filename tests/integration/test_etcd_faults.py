"""The etcd client while etcd is compacted, restarted, paused, locked, wrapped in TLS or gone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from gtm.errors import NoSpace, OutcomeUnknown, StartError, StoreDenied, StoreUnavailable
from gtm.etcd import EtcdOptions, EtcdStore, connect
from gtm.etcd_watch import MAX_WAITING, EtcdWatch
from gtm.store import Batch, Delete, Get, Listing, Put
from tests.watched import Relay, put, soon, until

pytestmark = pytest.mark.integration

BOTH = pytest.mark.parametrize("kind", ["path", "wheel"])
QUICK: dict[str, Any] = {"timeout_s": 2.0, "progress_s": 0.2, "idle_s": 0.6, "audit_s": 0.0}


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., EtcdStore]]:
    """Opens stores on endpoints, closed after the test."""
    stores: list[EtcdStore] = []

    def open_on(*endpoints: str, **options: Any) -> EtcdStore:
        stores.append(connect(EtcdOptions(endpoints=endpoints, **{**QUICK, **options})))
        return stores[-1]

    yield open_on
    for store in stores:
        await store.close()


# Compaction and restarts


@BOTH
async def test_after_a_compaction_a_cut_off_watch_lists_again_and_tells_the_deletions(
    start_etcd: Any, opened: Any, kind: str
) -> None:
    server = start_etcd(kind)
    writer = opened(server.endpoint)
    await writer.txn((), [Put("/w/kept", b"1"), Put("/w/changed", b"1"), Put("/w/gone", b"1")])
    async with Relay(server.client_port) as relay:
        watch = opened(relay.endpoint).watch("/w/")
        items = aiter(watch)
        await soon(anext(items))
        await until(lambda: watch.streams == 1 and watch.heard_s() < 0.3)
        relay.cut()
        relay.reset()
        await writer.txn((), [Delete("/w/gone"), Put("/w/changed", b"2"), Put("/w/new", b"1")])
        last = await put(writer, "/elsewhere")
        await writer.compact(last)
        relay.mend()
        batch = await soon(anext(items))
    assert batch.relisted
    assert batch.revision == last
    assert {(e.key, e.value) for e in batch.events} == {
        ("/w/gone", None),
        ("/w/changed", b"2"),
        ("/w/new", b"1"),
    }


@BOTH
async def test_a_watch_over_restarts_neither_loses_nor_repeats_an_event(
    start_etcd: Any, opened: Any, kind: str
) -> None:
    server = start_etcd(kind)
    writer, reader = opened(server.endpoint, timeout_s=10.0), opened(server.endpoint)
    items = aiter(reader.watch("/w/"))
    await soon(anext(items))
    told: dict[int, bytes] = {}
    written: dict[int, bytes] = {}

    async def write() -> None:
        for n in range(400):
            value = b"%d" % n
            try:
                written[await put(writer, f"/w/{n % 7}", value)] = value
            except OutcomeUnknown:
                item = await writer.get(f"/w/{n % 7}")
                if item is not None and item.value == value:
                    written[item.mod_revision] = value
        written[await put(writer, "/w/end", b"end")] = b"end"

    async def read() -> None:
        async for batch in items:
            assert isinstance(batch, Batch)
            assert not batch.relisted
            assert batch.revision not in told
            told[batch.revision] = batch.events[0].value or b""
            if batch.events[0].key == "/w/end":
                return

    async def restart() -> None:
        for with_signal in (signal.SIGTERM, signal.SIGTERM):
            seen = len(told)
            await until(lambda seen=seen: len(told) > seen + 50)
            await asyncio.to_thread(server.stop, with_signal)
            await asyncio.to_thread(server.start)

    async with asyncio.timeout(40):
        await asyncio.gather(write(), read(), restart())
    assert told == written
    assert sorted(told) == list(told)


@BOTH
async def test_a_catch_up_of_many_revisions_comes_whole_and_in_order(
    start_etcd: Any, opened: Any, kind: str
) -> None:
    server = start_etcd(kind)
    writer = opened(server.endpoint, timeout_s=30.0)
    async with Relay(server.client_port) as relay:
        watch = opened(relay.endpoint).watch("/w/")
        items = aiter(watch)
        await soon(anext(items))
        await until(lambda: watch.streams == 1 and watch.heard_s() < 0.3)
        relay.cut()
        relay.reset()
        writes = [put(writer, f"/w/{n}", b"x" * 5_000) for n in range(1_500)]
        revisions = sorted(await asyncio.gather(*writes))
        fragments = []
        feed = watch._mirror.feed
        watch._mirror.feed = lambda one: fragments.append(one.fragment) or feed(one)
        relay.mend()
        got = [await soon(anext(items)) for _ in revisions]
    assert [batch.revision for batch in got] == revisions
    assert not any(batch.relisted for batch in got)
    assert any(fragments)


async def test_another_cluster_behind_the_endpoint_is_told_as_a_whole(
    start_etcd: Any, opened: Any
) -> None:
    first, second = start_etcd("path"), start_etcd("path")
    one, two = opened(first.endpoint), opened(second.endpoint)
    await one.txn((), [Put("/w/both", b"first"), Put("/w/first", b"")])
    await two.txn((), [Put("/w/both", b"second"), Put("/w/second", b"")])
    relay = Relay(first.client_port)
    async with relay:
        watch = opened(relay.endpoint).watch("/w/")
        items = aiter(watch)
        await soon(anext(items))
        await until(lambda: watch.streams == 1 and watch.heard_s() < 0.3)
        relay.port = second.client_port
        relay.reset()
        batch = await soon(anext(items))
    assert batch.relisted
    assert {(e.key, e.value) for e in batch.events} == {
        ("/w/both", b"second"),
        ("/w/second", b""),
        ("/w/first", None),
    }


async def test_a_restored_snapshot_with_a_smaller_revision_is_told_as_a_whole(
    start_etcd: Any, opened: Any, tmp_path: Path
) -> None:
    server = start_etcd("path")
    writer = opened(server.endpoint)
    await writer.txn((), [Put("/w/a", b"old"), Put("/w/b", b"old")])
    snapshot = tmp_path / "snapshot.db"
    server.ctl("snapshot", "save", str(snapshot))
    for n in range(5):
        await put(writer, "/w/a", b"%d" % n)
    items = aiter(opened(server.endpoint).watch("/w/"))
    assert isinstance(await soon(anext(items)), Listing)
    server.stop()
    data = server.folder / "data"
    data.rename(server.folder / "lost")
    peer = f"http://127.0.0.1:{server.peer_port}"
    server.ctl(
        *("snapshot", "restore", str(snapshot), "--data-dir", str(data), "--name", "gtm"),
        *("--initial-cluster", f"gtm={peer}", "--initial-advertise-peer-urls", peer),
    )
    server.start()
    batch = await soon(anext(items))
    assert batch.relisted
    assert {(e.key, e.value) for e in batch.events} == {("/w/a", b"old"), ("/w/b", b"old")}
    await put(writer, "/w/a", b"new")
    assert [e.value for e in (await soon(anext(items))).events] == [b"new"]


# Silence


async def test_a_silent_endpoint_makes_heard_grow_and_the_watch_come_back(
    start_etcd: Any, opened: Any
) -> None:
    server = start_etcd("path")
    store = opened(server.endpoint)
    watch = store.watch("/w/")
    items = aiter(watch)
    await soon(anext(items))
    await until(lambda: watch.streams == 1)
    server.pause()
    await until(lambda: watch.heard_s() > 1.0)
    server.resume()
    await until(lambda: watch.heard_s() < 0.5)
    written = await put(store, "/w/a", b"1")
    assert (await soon(anext(items))).revision == written


async def test_a_quiet_watch_stays_fresh_by_asking_for_progress(etcd: Any, opened: Any) -> None:
    watch = opened(etcd.endpoint).watch("/nobody-writes-here/")
    await soon(anext(aiter(watch)))
    await until(lambda: watch.streams == 1)
    worst = 0.0
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        worst = max(worst, watch.heard_s())
        await asyncio.sleep(0.02)
    assert worst < QUICK["idle_s"]
    assert watch.streams == 1


async def test_a_hung_endpoint_is_left_for_the_next_one(
    start_etcd: Any,
    opened: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("gtm.etcd_link.random.randrange", lambda _: 0)
    server = start_etcd("path")
    async with Relay(server.client_port) as hung, Relay(server.client_port) as whole:
        store = opened(hung.endpoint, whole.endpoint, timeout_s=4.0)
        watch = store.watch("/w/")
        items = aiter(watch)
        await soon(anext(items))
        await until(lambda: watch.streams == 1 and watch.heard_s() < 0.3)
        hung.cut()
        written = await put(opened(server.endpoint), "/w/a", b"1")
        assert (await store.get("/w/a")).value == b"1"
        assert (await soon(anext(items))).revision == written
        assert f"{hung.endpoint} is silent" in caplog.text


async def test_refusing_endpoints_are_passed_over(etcd: Any, opened: Any, prefix: str) -> None:
    dead = [f"http://127.0.0.1:{port}" for port in (1, 2, 3)]
    store = opened(*dead, etcd.endpoint)
    await put(store, f"{prefix}a", b"1")
    assert (await store.get(f"{prefix}a")).value == b"1"
    items = aiter(store.watch(prefix))
    assert len((await soon(anext(items))).items) == 1


# What became of a write


async def test_a_write_that_never_left_is_unavailable(opened: Any) -> None:
    store = opened("http://127.0.0.1:1", timeout_s=0.3)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 does not accept"):
        await put(store, "/a")


async def test_a_write_whose_answer_is_lost_is_unknown_and_a_read_is_not(
    start_etcd: Any, opened: Any
) -> None:
    server = start_etcd("path")
    store = opened(server.endpoint, timeout_s=0.5)
    await put(store, "/a", b"1")
    server.pause()
    with pytest.raises(OutcomeUnknown):
        await put(store, "/a", b"2")
    with pytest.raises(StoreUnavailable):
        await store.txn((), [Get("/a")])
    server.resume()
    assert (await soon(store.get("/a"))).value in (b"1", b"2")


async def test_reads_wait_for_a_server_that_comes_up_in_time(start_etcd: Any, opened: Any) -> None:
    server = start_etcd("path")
    store = opened(server.endpoint, timeout_s=10.0)
    await put(store, "/a", b"1")
    server.stop()
    read = asyncio.ensure_future(store.get("/a"))
    await asyncio.to_thread(server.start)
    assert (await soon(read)).value == b"1"


async def test_closing_the_store_ends_a_call_that_hangs(start_etcd: Any, opened: Any) -> None:
    server = start_etcd("path")
    store = opened(server.endpoint, timeout_s=30.0)
    await put(store, "/a", b"1")
    server.pause()
    read = asyncio.ensure_future(store.get("/a"))
    await asyncio.sleep(0.05)
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await soon(read)


# Leases


async def test_a_lease_is_over_by_our_clock_when_the_store_is_silent(
    start_etcd: Any, opened: Any
) -> None:
    server = start_etcd("path")
    store = opened(server.endpoint)
    lease = await store.lease(1)
    server.pause()
    began = time.monotonic()
    await soon(lease.lost())
    assert lease.remaining_s() == 0
    assert time.monotonic() - began <= lease.ttl_s + 0.3
    server.resume()


async def test_a_lease_lives_over_a_restart_within_its_time(start_etcd: Any, opened: Any) -> None:
    server = start_etcd("path")
    store = opened(server.endpoint, timeout_s=10.0)
    lease = await store.lease(6)
    kept = lease._until  # type: ignore[attr-defined]
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await until(lambda: lease._until > kept)  # type: ignore[attr-defined]
    assert lease.remaining_s() > 0


async def test_a_lease_outlives_two_endpoints_that_accept_and_never_answer(
    start_etcd: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gtm.etcd_link.random.randrange", lambda _: 0)
    server = start_etcd("path")
    async with Relay(server.client_port) as first, Relay(server.client_port) as second:
        store = opened(first.endpoint, second.endpoint, server.endpoint)
        lease = await store.lease(3)
        for relay in (first, second):
            relay.cut()
        kept = lease._until  # type: ignore[attr-defined]
        await until(lambda: lease._until > kept or not lease.remaining_s())  # type: ignore[attr-defined]
        assert lease.remaining_s() > 0


async def test_a_lease_that_the_store_forgot_is_lost(start_etcd: Any, opened: Any) -> None:
    server = start_etcd("path")
    store = opened(server.endpoint)
    lease = await store.lease(2)
    server.ctl("lease", "revoke", f"{lease.id:x}")
    await soon(lease.lost())


# Bounds


async def test_an_idle_reader_makes_the_stream_wait_not_the_queue_grow(
    etcd: Any, opened: Any, prefix: str
) -> None:
    writer, reader = opened(etcd.endpoint), opened(etcd.endpoint)
    watch = reader.watch(prefix)
    assert isinstance(watch, EtcdWatch)
    items = aiter(watch)
    await soon(anext(items))
    revisions = [await put(writer, f"{prefix}a", b"%d" % n) for n in range(3 * MAX_WAITING)]
    await until(watch._queue.full)
    assert watch._queue.qsize() == MAX_WAITING
    assert [(await soon(anext(items))).revision for _ in revisions] == revisions


async def test_an_audit_finds_what_a_watch_was_never_told(
    etcd: Any, opened: Any, prefix: str
) -> None:
    store = opened(etcd.endpoint, audit_s=0.3, settle_s=0.2)
    await store.txn((), [Put(f"{prefix}{name}", b"1") for name in ("lost", "stale", "kept")])
    watch = store.watch(prefix)
    assert isinstance(watch, EtcdWatch)
    items = aiter(watch)
    await soon(anext(items))
    await until(lambda: watch.streams == 1)
    del watch._mirror.known[f"{prefix}lost"]
    watch._mirror.known[f"{prefix}stale"] -= 1
    watch._mirror.known[f"{prefix}ghost"] = 1
    batch = await soon(anext(items))
    assert (watch.gaps, batch.relisted) == (1, True)
    assert {(e.key, e.value) for e in batch.events} == {
        (f"{prefix}lost", b"1"),
        (f"{prefix}stale", b"1"),
        (f"{prefix}ghost", None),
    }


async def test_audits_beside_busy_writers_find_nothing(etcd: Any, opened: Any, prefix: str) -> None:
    store = opened(etcd.endpoint, audit_s=0.05, settle_s=1.0)
    watch = store.watch(prefix)
    assert isinstance(watch, EtcdWatch)
    items = aiter(watch)
    await soon(anext(items))
    for n in range(400):
        ops = [Put(f"{prefix}{n % 5}", b""), Delete(f"{prefix}{(n + 2) % 5}")]
        done = await store.txn((), ops)
        batch = await soon(anext(items))
        assert (batch.revision, batch.relisted) == (done.revision, False)
    assert watch.gaps == 0


# Users and TLS


def lock_up(server: Any) -> None:
    """Switch authentication on: root, and `reader` who may read and write /w/ alone."""
    for args in (
        ("user", "add", "root:secret"),
        ("user", "grant-role", "root", "root"),
        ("role", "add", "w"),
        ("role", "grant-permission", "w", "readwrite", "--prefix=true", "/w/"),
        ("user", "add", "reader:word"),
        ("user", "grant-role", "reader", "w"),
        ("auth", "enable"),
    ):
        if args == ("user", "grant-role", "root", "root"):
            with contextlib.suppress(AssertionError):
                server.ctl("role", "add", "root")
        server.ctl(*args)


@BOTH
async def test_users_and_permissions_are_kept_and_tokens_renewed(
    start_etcd: Any, opened: Any, kind: str
) -> None:
    server = start_etcd(kind)
    lock_up(server)
    reader = opened(server.endpoint, user="reader", password="word")
    watch = reader.watch("/w/")
    items = aiter(watch)
    await soon(anext(items))
    written = await put(reader, "/w/a", b"1")
    assert (await soon(anext(items))).revision == written
    for store in (
        opened(server.endpoint, user="reader", password="wrong"),
        opened(server.endpoint, user="nobody", password="word"),
        opened(server.endpoint),
    ):
        with pytest.raises(StoreDenied):
            await store.get("/w/a")
        with pytest.raises(StoreDenied):
            await soon(anext(aiter(store.watch("/w/"))))
    with pytest.raises(StoreDenied, match="permission denied"):
        await reader.get("/other")
    with pytest.raises(StoreDenied, match="permission denied"):
        await soon(anext(aiter(reader.watch("/other/"))))
    lease = await reader.lease(5)
    server.stop()  # tokens are kept in memory: the restart forgets them
    server.start()
    written = await put(reader, "/w/a", b"2")
    assert (await soon(anext(items))).revision == written
    assert lease.remaining_s() > 0
    root = ("--user", "root:secret")
    server.ctl(*root, "role", "add", "another")  # moves the auth store's revision
    written = await put(reader, "/w/a", b"3")
    assert (await soon(anext(items))).revision == written


async def test_a_user_is_no_trouble_where_authentication_is_off_and_later_on(
    start_etcd: Any, opened: Any
) -> None:
    server = start_etcd("path")
    store = opened(server.endpoint, user="reader", password="word")
    await put(store, "/w/a", b"1")
    lock_up(server)
    assert (await store.get("/w/a")).value == b"1"
    await put(store, "/w/a", b"2")


async def test_a_password_does_not_show_in_the_options() -> None:
    options = EtcdOptions(endpoints=("http://h:1",), user="me", password="hidden")
    assert "hidden" not in repr(options)
    assert "hidden" not in str(options)


@BOTH
async def test_tls_with_client_certificates(
    start_etcd: Any, opened: Any, kind: str, tmp_path: Path, port: int
) -> None:
    authority = trustme.CA()
    server_cert, client_cert = authority.issue_cert("127.0.0.1"), authority.issue_cert("client")
    ca, stranger_ca = tmp_path / "ca.pem", tmp_path / "stranger.pem"
    authority.cert_pem.write_to_path(ca)
    trustme.CA().cert_pem.write_to_path(stranger_ca)
    files = {}
    for name, cert in (("server", server_cert), ("client", client_cert)):
        files[name] = (tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        cert.cert_chain_pems[0].write_to_path(files[name][0])
        cert.private_key_pem.write_to_path(files[name][1])
    address = f"https://127.0.0.1:{port}"
    server = start_etcd(
        kind,
        f"--listen-client-urls={address}",
        f"--advertise-client-urls={address}",
        f"--cert-file={files['server'][0]}",
        f"--key-file={files['server'][1]}",
        f"--trusted-ca-file={ca}",
        "--client-cert-auth=true",
        port=port,
    )
    cert, key = map(str, files["client"])
    store = opened(address, ca=str(ca), cert=cert, key=key)
    items = aiter(store.watch("/w/"))
    await soon(anext(items))
    written = await put(store, "/w/a", b"1")
    assert (await soon(anext(items))).revision == written
    bare = opened(f"127.0.0.1:{server.client_port}", ca=str(ca), cert=cert, key=key)
    assert (await bare.get("/w/a")).value == b"1"
    for options in (
        {"ca": str(ca)},
        {"ca": str(stranger_ca), "cert": cert, "key": key},
    ):
        with pytest.raises(StoreUnavailable):
            await opened(address, timeout_s=0.5, **options).get("/w/a")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"endpoints": ()}, "no etcd endpoint"),
        ({"endpoints": ("http://h:port",)}, "not of the form"),
        ({"endpoints": ("ftp://h:1",)}, "not of the form"),
        ({"endpoints": ("http://:2379",)}, "not of the form"),
        ({"endpoints": ("https://h:1",), "ca": "/nowhere/ca.pem"}, "cannot read etcd's TLS file"),
        ({"endpoints": ("https://h:1",), "cert": "/nowhere/c.pem"}, "given together"),
    ],
)
def test_misspelt_options_are_refused_in_one_sentence(options: Any, told: str) -> None:
    with pytest.raises(StartError, match=told):
        connect(EtcdOptions(**options))


async def test_a_full_store_says_so(start_etcd: Any, opened: Any) -> None:
    server = start_etcd("path", f"--quota-backend-bytes={2 << 20}")
    store = opened(server.endpoint)

    async def fill() -> None:
        for n in range(400):  # etcd looks at its size every 100 ms, in which much goes in
            await put(store, f"/a/{n}", b"x" * 500_000)

    with pytest.raises(NoSpace, match="quota"):
        await fill()
    assert (await store.get("/a/0")) is not None
    assert any("NOSPACE" in alarm for alarm in (await store.status()).alarms)
