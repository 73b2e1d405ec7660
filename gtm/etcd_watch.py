"""A prefix of etcd as it is: listed at a revision, then watched from the next one, for ever.

Decides when a stream is dead (silence, refusal, cancellation), which endpoint comes next, and when
to list anew. What a stream's answers mean is decided by `gtm.etcd_mirror`; comparing memory with
the store by `gtm.etcd_audit`. Hands batches on through a bounded queue: a slow reader makes the
stream wait, never the memory grow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

from . import etcd_meters
from .errors import StoreDenied, StoreError
from .etcd_audit import Audit, same_past
from .etcd_errors import Meaning, refusal
from .etcd_link import RANGE, WATCH, Backoff, Link
from .etcd_mirror import Mirror, Next
from .etcd_range import read_keys, read_prefix
from .etcd_stream import Stream, StreamBroken
from .etcd_wire import prefix_range
from .store import Batch, Listing
from .v1 import etcd_pb2 as pb

MAX_WAITING = 64
"""Batches between the stream and a slow reader; beyond that the stream itself has to wait."""
MAX_FETCH = 1_024
"""Changed keys that a new list fetches one by one; more are read as a whole range."""

_log = logging.getLogger("gtm.etcd")


class _End:
    """Closes the queue: the iteration ends, or raises `error`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


class EtcdWatch:
    """One watch; made by `EtcdStore.watch`. Its counters are for metrics."""

    def __init__(self, link: Link, prefix: str) -> None:
        self.prefix = prefix
        self.lists = 0
        self.streams = 0
        self.gaps = 0
        self.on_close: Callable[[EtcdWatch], None] = lambda _: None
        self._link = link
        self._mirror = Mirror()
        self._audit = Audit(link, prefix, self._mirror)
        self._to = link.current
        self._backoff = Backoff(0.05, link.options.backoff_most_s)
        self._heard = -float("inf")
        self._broken = False
        self._refused = False
        """Whether etcd cancelled the last stream before anything came."""
        self._queue: asyncio.Queue[Listing | Batch | _End] = asyncio.Queue(MAX_WAITING)
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        etcd_meters.WATCHES.add(self)

    def __aiter__(self) -> AsyncIterator[Listing | Batch]:
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return self._items()

    def heard_s(self) -> float:
        """Seconds since the store last proved on this watch that it is alive (inf: never)."""
        return time.monotonic() - self._heard

    async def close(self) -> None:
        """End the watch and its iteration."""
        if self._closed:
            return
        self._closed = True
        etcd_meters.WATCHES.discard(self)
        self.on_close(self)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(_End())

    async def _items(self) -> AsyncIterator[Listing | Batch]:
        while True:
            got = await self._queue.get()
            if not isinstance(got, _End):
                yield got
                continue
            self._queue.put_nowait(got)
            if got.error is not None:
                raise got.error
            return

    async def _run(self) -> None:
        try:
            await self._follow()
        except StoreDenied as error:
            await self._queue.put(_End(error))
        except Exception as error:
            _log.exception("watch on %s ended by a defect", self.prefix)
            await self._queue.put(_End(error))

    async def _follow(self) -> None:
        todo, link, prefix = Next.RELIST, self._link, self.prefix
        while True:
            try:
                if todo is Next.GO_ON and not await same_past(link, prefix, self._mirror):
                    todo = Next.RETELL
                if todo is not Next.GO_ON:
                    await self._list(tell_all=todo is Next.RETELL)
                    todo = Next.GO_ON
                todo = await self._stream()
                if todo is Next.RENEW:
                    # An old token is refused like a wrong user. A new one may go on from where we
                    # were; where that is refused too, a list tells what is wrong.
                    todo = Next.RELIST if self._refused else Next.GO_ON
                    self._refused = True
                    await self._pause("etcd cancelled the watch")
            except StreamBroken as broken:
                if broken.meaning in (Meaning.DENIED, Meaning.COMPACTED):
                    todo = Next.RELIST
                self._to = self._link.after(self._to)
                await self._pause(str(broken))
            except StoreDenied:
                raise
            except StoreError as error:
                await self._pause(str(error))

    async def _pause(self, reason: str) -> None:
        if not self._broken:
            self._broken = True
            _log.warning("watch on %s lost its link: %s", self.prefix, reason)
        await asyncio.sleep(self._backoff.next_s())

    def _alive(self) -> None:
        self._heard = time.monotonic()

    # Lists.

    async def _list(self, *, tell_all: bool) -> None:
        """List the prefix; hand on all of it the first time, later what differs from memory."""
        mirror, link, prefix = self._mirror, self._link, self.prefix
        first = not self.lists
        pages = await read_prefix(link, prefix, keys_only=not first and not tell_all)
        self._alive()
        listing, cluster = pages.listing, pages.cluster
        if first:
            self.lists += 1
            etcd_meters.LISTS.inc()
            await self._queue.put(mirror.first(listing, cluster))
            return
        if tell_all or mirror.another_history(listing.revision, cluster):
            if not tell_all:
                listing = (await read_prefix(link, prefix, revision=listing.revision)).listing
            present = {one.key for one in listing.items}
            gone = [key for key in mirror.known if key not in present]
            batch = mirror.relisted(listing.revision, cluster, listing.items, gone)
        else:
            changed, gone = mirror.differing(listing)
            if len(changed) <= MAX_FETCH:
                items = await read_keys(link, changed, listing.revision)
            else:
                whole = await read_prefix(link, prefix, revision=listing.revision)
                wanted = set(changed)
                items = {one.key: one for one in whole.listing.items if one.key in wanted}
            batch = mirror.relisted(listing.revision, cluster, items.values(), gone)
        self.lists += 1
        etcd_meters.LISTS.inc()
        _log.info("watch on %s listed again: %d differences", prefix, len(batch.events))
        await self._queue.put(batch)

    # Streams.

    async def _stream(self) -> Next:
        """Follow one stream until something else than going on is to be done, or it breaks."""
        stream = Stream(self._link, WATCH, self._to)
        try:
            await stream.open()
            self.streams += 1
            etcd_meters.STREAMS.inc()
            self._mirror.begin()
            start, end = prefix_range(self.prefix)
            create = pb.WatchCreateRequest(
                key=start, range_end=end, start_revision=self._mirror.resume, fragment=True
            )
            await stream.send(pb.WatchRequest(create_request=create))
            todo = await self._answers(stream)
        except StreamBroken as broken:
            if broken.meaning is Meaning.DENIED and not stream.metadata:
                raise refusal(Meaning.DENIED, self._to.url, str(broken)) from None
            if broken.meaning in (Meaning.RENEW, Meaning.DENIED):
                self._link.forget_token(stream.metadata)
            raise
        finally:
            await self._audit.drop()
            await stream.close()
        if todo is Next.RENEW:
            self._link.forget_token(stream.metadata)
        return todo

    async def _answers(self, stream: Stream[pb.WatchRequest, pb.WatchResponse]) -> Next:
        options, audit = self._link.options, self._audit
        quiet_since, asked = time.monotonic(), False
        while True:
            due = quiet_since + (options.idle_s if asked else options.progress_s)
            answer = await stream.next(min(due, audit.at) - time.monotonic(), *audit.waits)
            if answer is not None:
                self._alive()
                todo = await self._take(answer)
                if todo is not Next.GO_ON:
                    return todo
                quiet_since, asked = time.monotonic(), False
            elif time.monotonic() >= due:
                if asked:
                    raise StreamBroken(f"{stream.to.url} is silent")
                asked = True
                await stream.send(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
            if await audit.turn():
                self.gaps += 1
                etcd_meters.GAPS.inc()
                _log.warning("watch on %s has a gap: listing again", self.prefix)
                return Next.RELIST

    async def _take(self, answer: pb.WatchResponse) -> Next:
        """Hand on what an answer brought; what to do next."""
        step = self._mirror.feed(answer)
        for batch in step.batches:
            await self._queue.put(batch)
        if step.then is Next.CHECK:
            return Next.RETELL if await self._went_back() else Next.GO_ON
        if step.then is Next.GO_ON:
            self._backoff.reset()
            self._refused = False
            if self._broken:
                self._broken = False
                _log.info("watch on %s is back at %s", self.prefix, self._to.url)
        return step.then

    async def _went_back(self) -> bool:
        """Whether a quorum, not one lagging member alone, is behind what this watch has seen."""
        start, end = prefix_range(self.prefix)
        asked = pb.RangeRequest(key=start, range_end=end, count_only=True)
        header = (await self._link.call(RANGE, asked)).header
        return self._mirror.another_history(header.revision, header.cluster_id)
