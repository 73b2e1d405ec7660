"""A watch under test: what it has told, held against every rule and against the store itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

from gtm.errors import OutcomeUnknown, StoreUnavailable
from gtm.etcd import EtcdStore
from gtm.etcd_lease import EtcdLease
from gtm.etcd_watch import EtcdWatch
from gtm.store import Batch, Delete, Listing, Put
from tests.etcds import EtcdServer, history

SOON_S = 20.0


async def soon(awaitable: Awaitable[Any]) -> Any:
    """What it gives, in time."""
    async with asyncio.timeout(SOON_S):
        return await awaitable


async def until(holds: Callable[[], object]) -> None:
    """Back when `holds()` is true."""
    async with asyncio.timeout(SOON_S):
        while not holds():
            await asyncio.sleep(0.01)


async def put(store: EtcdStore, key: str, value: bytes = b"") -> int:
    """Write one key; the revision of that."""
    return (await store.txn((), [Put(key, value)])).revision


async def streaming(watch: EtcdWatch) -> None:
    """Back when the watch has a stream that answers."""
    await until(lambda: watch.streams and watch.heard_s() < 0.2)


async def backlog(store: EtcdStore, count: int, size: int = 3_000) -> int:
    """Write `count` revisions: single keys, groups of three, a few too large for one fragment."""

    async def write(n: int) -> int:
        value = b"%d " % n + b"x" * size
        if n % 97 == 13:
            ops: list[Any] = [Put(f"/w/wide/{k}", b"%d" % n + b"y" * 20_000) for k in range(40)]
        elif n % 5 == 2:
            ops = [Put(f"/w/{n % 50}", value), Put(f"/w/own/{n}", value)]
            ops.append(Delete(f"/w/own/{n - 5}"))
        else:
            ops = [Put(f"/w/{n % 50}", value)]
        return (await store.txn((), ops)).revision

    last = 0
    for start in range(0, count, 200):
        part = range(start, min(count, start + 200))
        last = max(last, *await asyncio.gather(*map(write, part)))
    return max(last, await put(store, "/w/end", b"%d" % count))


class Rebuilt:
    """A prefix as a watch tells it: `async with Rebuilt(watch, "/w/")` follows, breaks on a lie.

    `each(batch)` is awaited after each batch. `batches` holds what was told revision by revision.
    """

    def __init__(
        self,
        watch: AsyncIterable[Listing | Batch],
        prefix: str,
        each: Callable[[Batch], Awaitable[None]] | None = None,
    ) -> None:
        self.prefix = prefix
        self.state: dict[str, tuple[bytes, int]] = {}
        self.listed = 0
        self.revision = 0
        self.listings = 0
        self.batches: dict[int, dict[str, bytes | None]] = {}
        self.relisted: list[Batch] = []
        self._watch, self._each = watch, each
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Rebuilt:
        self._task = asyncio.create_task(self._run())
        await self.until(lambda: self.listings)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def until(self, holds: Callable[[], object]) -> None:
        """Back when `holds()` is true; raises what broke the watch."""
        assert self._task is not None
        async with asyncio.timeout(SOON_S):
            while not holds():
                if self._task.done():
                    self._task.result()
                    raise AssertionError("the watch ended")
                await asyncio.sleep(0.01)

    async def equals(self, store: EtcdStore) -> None:
        """Back when everything told makes exactly what a fresh list says."""
        listing = await soon(store.list(self.prefix))
        wanted = {one.key: (one.value, one.mod_revision) for one in listing.items}
        try:
            await self.until(lambda: self.state == wanted)
        except TimeoutError:
            differing = {
                key: (self.state.get(key), wanted.get(key))
                for key in self.state.keys() | wanted.keys()
                if self.state.get(key) != wanted.get(key)
            }
            raise AssertionError(f"told and stored differ: {differing}") from None

    def told_all(self, server: EtcdServer) -> None:
        """Each revision since the list was told once, whole, and as etcdctl knows it."""
        assert not self.relisted
        assert self.batches == history(server, self.prefix, self.listed + 1, self.revision)

    async def _run(self) -> None:
        async for news in self._watch:
            if isinstance(news, Listing):
                self.listings += 1
                self.state = {one.key: (one.value, one.mod_revision) for one in news.items}
                self.listed = self.revision = news.revision
                self.batches = {}
                continue
            self._take(news)
            self.revision = news.revision
            if self._each is not None:
                await self._each(news)

    def _take(self, batch: Batch) -> None:
        keys = [event.key for event in batch.events]
        assert len(keys) == len(set(keys)), f"a key twice in revision {batch.revision}"
        if batch.relisted:
            self.relisted.append(batch)
        else:
            assert batch.revision > self.revision, f"{batch.revision} after {self.revision}"
            assert {event.mod_revision for event in batch.events} == {batch.revision}
            self.batches[batch.revision] = {event.key: event.value for event in batch.events}
        for event in batch.events:
            if event.value is None:
                self.state.pop(event.key, None)
            else:
                self.state[event.key] = (event.value, event.mod_revision)


class Writers:
    """Writes all the time through whatever happens; knows what was acknowledged, what refused."""

    def __init__(self, store: EtcdStore) -> None:
        self.acknowledged: dict[int, bytes] = {}
        self.refused: set[bytes] = set()
        self.unknown = 0
        self._store, self._stop, self._n = store, asyncio.Event(), 0

    async def __aenter__(self) -> Writers:
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(3)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _write(self, writer: int) -> None:
        while not self._stop.is_set():
            self._n += 1
            value = b"%d" % self._n
            try:
                revision = await put(self._store, f"/w/{writer}/{self._n % 40}", value)
                self.acknowledged[revision] = value
            except OutcomeUnknown:
                self.unknown += 1
            except StoreUnavailable:
                self.refused.add(value)
            await asyncio.sleep(0.005)

    def checked(self, told: Rebuilt) -> None:
        """What was acknowledged was told, and what was refused was not."""
        values = {
            revision: next(iter(changes.values())) for revision, changes in told.batches.items()
        }
        assert self.acknowledged.items() <= values.items()
        assert not self.refused & set(values.values())


async def goes_on(told: Rebuilt, writers: Writers) -> None:
    """Back when writes are acknowledged again and told."""
    before = max(writers.acknowledged, default=0)
    await told.until(lambda: max(writers.acknowledged, default=0) > before + 20)
    now = max(writers.acknowledged)
    await told.until(lambda: told.revision >= now)


async def renewed(lease: EtcdLease, than: float) -> float:
    """Back when the lease lives longer `than` it did once, with how long; fails if it is lost."""
    await until(lambda: lease._until > than or not lease.remaining_s())
    assert lease.remaining_s() > 0
    return lease._until


class Relay:
    """A TCP relay in front of an etcd that can be cut silently, closed, slowed or turned."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pause_s = 0.0
        """Between two pieces from the server."""
        self.piece = 65_536
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()

    def cut(self) -> None:
        """Swallow everything from now on; connections stay open."""
        self._flows.clear()

    def mend(self) -> None:
        """Let it flow again."""
        self._flows.set()

    def reset(self) -> None:
        """Close every connection."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        for pipe in (self._pipe(reader, ours), self._pipe(theirs, writer, slowed=True)):
            task = asyncio.ensure_future(pipe)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pipe(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, slowed: bool = False
    ) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(self.piece):
                    await self._flows.wait()
                    sink.write(data)
                    await sink.drain()
                    if slowed and self.pause_s:
                        await asyncio.sleep(self.pause_s)
        finally:
            sink.close()
