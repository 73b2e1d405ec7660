"""`Store` in memory with etcd's semantics, for tests and simulation; several clients, one cluster.

`MemoryStore()` is a cluster with one client; `client()` gives another one to the same cluster.
`cut` and `mend` break and restore a client's link, `lose_answers` makes writes end in
`OutcomeUnknown`. With an injected clock nothing happens by itself: call `tick` after moving it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from .errors import Compacted, OutcomeUnknown, StoreUnavailable
from .etcd_wire import writes
from .memory_history import History, matching
from .store import Batch, Compare, Done, Event, Item, Listing, Op, StoreStatus


class MemoryCluster:
    """What all clients share: the history, the leases, the clock."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.history = History()
        self.clock = clock or time.monotonic
        self.own_time = clock is None
        self.leases: dict[int, MemoryLease] = {}
        self.watchers: dict[asyncio.Event, None] = {}  # in order, so that a simulation repeats
        self._last_lease = 0

    def grant(self, holder: MemoryStore, ttl_s: float) -> MemoryLease:
        """A new lease of `holder`."""
        self._last_lease += 1
        lease = MemoryLease(self, holder, self._last_lease, ttl_s)
        self.leases[lease.id] = lease
        self.history.leases.add(lease.id)
        return lease

    def end(self, lease: MemoryLease) -> None:
        """Forget `lease` and delete its keys, all in one revision."""
        lease.over.set()
        if self.leases.pop(lease.id, None) is not None:
            self.history.end_lease(lease.id)
            self.wake()

    def tick(self) -> None:
        """End the leases whose time is over."""
        now = self.clock()
        for lease in list(self.leases.values()):
            if now >= lease.until():
                self.end(lease)

    def wake(self) -> None:
        """Let every watch look again."""
        for event in self.watchers:
            event.set()


class MemoryLease:
    """A lease; kept alive for as long as its holder's link is whole."""

    def __init__(
        self, cluster: MemoryCluster, holder: MemoryStore, lease_id: int, ttl_s: float
    ) -> None:
        self.id = lease_id
        self.ttl_s = ttl_s
        self.over = asyncio.Event()
        self._cluster, self._holder = cluster, holder
        self._left_at: float | None = None

    def until(self) -> float:
        """When it runs out by the cluster's clock: a whole TTL from now while the link is whole."""
        cut_at = self._holder.cut_at if self._left_at is None else self._left_at
        return (self._cluster.clock() if cut_at is None else cut_at) + self.ttl_s

    def remaining_s(self) -> float:
        """Seconds for which the lease is surely alive; 0 when it is over."""
        if self.over.is_set():
            return 0.0
        return max(0.0, self.until() - self._cluster.clock())

    async def lost(self) -> None:
        """Wait until the lease is over."""
        await self.over.wait()

    async def revoke(self) -> None:
        """End the lease and the keys under it; while the link is cut they run out instead."""
        if self._holder.cut_at is None:
            self._cluster.end(self)
        else:
            self.leave(self._holder.cut_at)

    def leave(self, holder_cut_at: float) -> None:
        """The holder is done with it and cannot say so: over for us, running out for the store."""
        self._left_at = holder_cut_at
        self.over.set()

    def held_by(self, store: MemoryStore) -> bool:
        """Whether `store` keeps it alive."""
        return self._holder is store


class MemoryStore:
    """One client of a cluster in memory."""

    def __init__(
        self, clock: Callable[[], float] | None = None, *, cluster: MemoryCluster | None = None
    ) -> None:
        self.cluster = cluster or MemoryCluster(clock)
        self.cut_at: float | None = None
        """When the link was cut, by the cluster's clock; None while it is whole."""
        self.lose_answers = 0
        """So many of the next writes take effect and yet end in OutcomeUnknown."""
        self._closed = False
        self._watches: set[MemoryWatch] = set()

    def client(self) -> MemoryStore:
        """Another client of the same cluster."""
        return MemoryStore(cluster=self.cluster)

    def cut(self) -> None:
        """Break the link: operations fail, watches stand still, leases begin to run out."""
        if self.cut_at is not None:
            return
        self.cut_at = self.cluster.clock()
        if self.cluster.own_time:
            loop = asyncio.get_running_loop()
            for lease in self.cluster.leases.values():
                loop.call_later(max(0.0, lease.until() - self.cut_at), self.cluster.tick)

    def mend(self) -> None:
        """Restore the link: watches catch up, leases that are not over live on."""
        if self._closed:
            return
        self.cluster.tick()
        self.cut_at = None
        self.cluster.wake()

    def tick(self) -> None:
        """End the leases whose time is over; to be called after an injected clock has moved."""
        self.cluster.tick()

    def _reached(self) -> History:
        self.cluster.tick()
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self.cut_at is not None:
            raise StoreUnavailable("the link to the store in memory is cut")
        return self.cluster.history

    async def get(self, key: str) -> Item | None:
        """The key's newest value; None where there is none."""
        return self._reached().at().get(key)

    async def list(self, prefix: str, *, revision: int = 0, keys_only: bool = False) -> Listing:
        """All keys under `prefix` at one revision (0: the newest). Raises Compacted."""
        return self.listing(prefix, revision, keys_only=keys_only)

    def listing(self, prefix: str, revision: int = 0, *, keys_only: bool = False) -> Listing:
        """`list`, at once."""
        history = self._reached()
        content = history.at(revision)
        items = (content[key] for key in matching(content, prefix, prefix=True))
        if keys_only:
            items = (_without_value(item) for item in items)
        return Listing(revision or history.revision, tuple(items))

    async def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Op],
        orelse: Sequence[Op] = (),
    ) -> Done:
        """Run one transaction; OutcomeUnknown where `lose_answers` says so."""
        history = self._reached()
        done = history.run(compares, then, orelse)
        self.cluster.wake()
        if self.lose_answers and writes((*then, *orelse)):
            self.lose_answers -= 1
            raise OutcomeUnknown("the answer of the store in memory was lost")
        return done

    def watch(self, prefix: str) -> MemoryWatch:
        """Follow `prefix`: a listing, then a batch for each revision that changes it."""
        watch = MemoryWatch(self, prefix)
        self._watches.add(watch)
        return watch

    async def lease(self, ttl_s: float) -> MemoryLease:
        """Grant a lease and keep it alive until it is over."""
        self._reached()
        return self.cluster.grant(self, ttl_s)

    async def status(self) -> StoreStatus:
        """How the store is."""
        history = self._reached()
        size = sum(len(item.key) + len(item.value) for item in history.at().values())
        return StoreStatus(("memory",), "memory", "memory", history.revision, size)

    async def compact(self, revision: int) -> None:
        """Forget what came before `revision`; no error where that is done already."""
        history = self._reached()
        try:
            history.compact(revision)
        except Compacted:
            return

    async def close(self) -> None:
        """End every watch; leases run out, they are not revoked."""
        for watch in list(self._watches):
            await watch.close()
        self.cut()
        self._closed = True
        for lease in self.cluster.leases.values():
            if lease.held_by(self):
                lease.leave(self.cut_at if self.cut_at is not None else self.cluster.clock())


class MemoryWatch:
    """One watch; reads the history itself, so nothing waits in a queue however slow the reader."""

    def __init__(self, store: MemoryStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._known: dict[str, int] = {}
        self._resume = 0
        self._closed = False
        self._read: deque[Listing | Batch] = deque()
        self._wake = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[Listing | Batch]:
        return self._items()

    def heard_s(self) -> float:
        """Seconds since the link was cut; 0 while it is whole; inf before the first listing."""
        if not self._resume:
            return float("inf")
        cut_at = self._store.cut_at
        return 0.0 if cut_at is None else self._store.cluster.clock() - cut_at

    async def close(self) -> None:
        """End the watch and its iteration."""
        self._closed = True
        self._wake.set()

    async def _items(self) -> AsyncIterator[Listing | Batch]:
        watchers = self._store.cluster.watchers
        watchers[self._wake] = None
        try:
            while not self._closed:
                self._wake.clear()
                self._look()
                while self._read and not self._closed:
                    yield self._read.popleft()
                if self._read or self._closed or self._more():
                    continue
                await self._wake.wait()
        finally:
            watchers.pop(self._wake, None)

    def _more(self) -> bool:
        whole = self._store.cut_at is None
        return whole and self._store.cluster.history.revision >= self._resume

    def _look(self) -> None:
        """Read what has happened since the last look; nothing while the link is cut."""
        if self._store.cut_at is not None:
            return
        if not self._resume:
            listing = self._store.listing(self._prefix)
            self._known = {item.key: item.mod_revision for item in listing.items}
            self._resume = listing.revision + 1
            self._read.append(listing)
            return
        history = self._store.cluster.history
        try:
            batches = list(history.since(self._resume, self._prefix))
        except Compacted:
            batches = [self._relisted()]
        for batch in batches:
            self._remember(batch)
        self._read.extend(batches)
        self._resume = history.revision + 1

    def _relisted(self) -> Batch:
        listing = self._store.listing(self._prefix)
        present = {item.key for item in listing.items}
        gone = [Event(key, None, listing.revision) for key in self._known if key not in present]
        changed = [
            Event(item.key, item.value, item.mod_revision, item.create_revision)
            for item in listing.items
            if self._known.get(item.key) != item.mod_revision
        ]
        return Batch(listing.revision, (*gone, *changed), relisted=True)

    def _remember(self, batch: Batch) -> None:
        for event in batch.events:
            if event.value is None:
                self._known.pop(event.key, None)
            else:
                self._known[event.key] = event.mod_revision


def _without_value(item: Item) -> Item:
    return Item(item.key, b"", item.create_revision, item.mod_revision, item.version, item.lease)
