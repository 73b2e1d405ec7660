"""The memory store behind a network: requests take time, are lost, held up, arrive too late.

One `Cluster` for all; a `Client` for each machine. What a client sent may be carried out long
after the client gave it up (`OutcomeUnknown`), even after its lease ended. A lease is over for its
holder when its time has passed since the last answered request was *sent*, and for the cluster when
it has passed since it last *received* one. Every write is told to `Cluster.wrote`, with its writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
from collections.abc import Callable, Sequence
from typing import Any

from gtm import keys
from gtm.errors import OutcomeUnknown, StoreUnavailable
from gtm.etcd_wire import writes
from gtm.memory import MemoryCluster, MemoryStore
from gtm.store import Batch, Compare, Delete, Done, Item, Listing, Op, Put, StoreStatus

from .loop import VirtualLoop

PATIENCE_S = 3.0
"""A client gives a request up after so long."""
FAST_S = (0.001, 0.02)
"""One way, when all is well."""


class Cluster:
    """The content, its leases, the network in front of it."""

    def __init__(self, loop: VirtualLoop, dice: random.Random) -> None:
        self.loop, self.dice = loop, dice
        self.memory = MemoryCluster(loop.time)
        self.wrote: Callable[[Client | None, int], None] = lambda client, revision: None
        self.late = 0
        """Writes that were carried out after their client had given them up."""
        self._outside = contextvars.Context()  # what the network does, no machine does
        self._told = self.memory.history.revision

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something in the network or in the cluster."""
        self.loop.call_later(seconds, what, context=self._outside)

    def tick(self) -> None:
        """End the leases whose time is over."""
        self.memory.tick()
        self.told(None)

    def told(self, client: Client | None) -> None:
        """Tell of every revision since the last one told."""
        history = self.memory.history
        while self._told < history.revision:
            self._told += 1
            self.wrote(client, self._told)


class ServerLease:
    """A lease as the cluster sees it."""

    def __init__(self, cluster: Cluster, id_: int, ttl_s: float) -> None:
        self._cluster, self.id, self.ttl_s = cluster, id_, ttl_s
        self.over = asyncio.Event()
        self.kept()

    def kept(self) -> None:
        """Its time begins anew."""
        self.ends = self._cluster.loop.time() + self.ttl_s
        self._cluster.later(self.ttl_s, self._cluster.tick)

    def until(self) -> float:
        return self.ends

    def held_by(self, store: Any) -> bool:
        return False


class ClientLease:
    """The same as its holder sees it."""

    def __init__(self, client: Client, id_: int, ttl_s: float, sent: float) -> None:
        self.id, self.ttl_s = id_, ttl_s
        self._client, self._until = client, sent + ttl_s
        self._over = asyncio.Event()
        self._beat = client.loop.call_later(ttl_s / 3, self._keep)
        self._end = client.loop.call_at(self._until, self._look)

    def remaining_s(self) -> float:
        left_s = self._until - self._client.loop.time()
        if left_s <= 0:
            self._finish()
        return 0.0 if self._over.is_set() else left_s

    async def lost(self) -> None:
        await self._over.wait()

    async def revoke(self) -> None:
        self._finish()

        def end() -> None:
            lease = self._client.cluster.memory.leases.get(self.id)
            if lease is not None:
                self._client.cluster.memory.end(lease)
                self._client.cluster.told(None)

        with contextlib.suppress(StoreUnavailable):  # it runs out by itself
            await self._client.ask(end, write=False)

    def _finish(self) -> None:
        self._over.set()
        self._beat.cancel()
        self._end.cancel()

    def _look(self) -> None:
        if self.remaining_s() > 0:
            self._end = self._client.loop.call_at(self._until, self._look)

    def _keep(self) -> None:
        """Ask for more time; an answer counts from when it was asked for."""
        if self._over.is_set():
            return
        loop, cluster, sent = self._client.loop, self._client.cluster, self._client.loop.time()
        self._beat = loop.call_later(self.ttl_s / 3, self._keep)
        mine = contextvars.copy_context()

        def arrived() -> None:
            cluster.tick()
            lease: Any = cluster.memory.leases.get(self.id)
            if lease is not None:
                lease.kept()
            if not self._client.is_cut:
                delay_s = self._client.delay_s()
                loop.call_later(delay_s, answered, lease is not None, context=mine)

        def answered(alive: bool) -> None:
            if not alive:
                self._finish()
            elif self.remaining_s() > 0:
                self._until = max(self._until, sent + self.ttl_s)

        if not self._client.is_cut:
            cluster.later(self._client.delay_s(), arrived)


class Client:
    """A `Store`; `cut` and `mend` break and restore its link, `slow_s` delays each way."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name, self.loop = cluster, name, cluster.loop
        self._memory = MemoryStore(cluster=cluster.memory)
        self._cuts = 0
        self.slow_s = 0.0
        self.held_s = 0.0
        """What is under way when the link is cut is carried out after so long; 0: lost."""
        self.trap: Callable[[], None] | None = None
        """Called once, as soon as something to be published is under way."""
        self.closed = False

    @property
    def is_cut(self) -> bool:
        return self._cuts > 0 or self.closed

    def cut(self) -> None:
        """Break the link; cuts add up."""
        self._cuts += 1
        self._memory.cut()

    def mend(self) -> None:
        """Take one cut back."""
        self._cuts -= 1
        if not self.is_cut:
            self._memory.mend()
            self.cluster.told(None)

    def delay_s(self) -> float:
        return self.cluster.dice.uniform(*FAST_S) + self.slow_s

    async def ask(self, what: Callable[[], Any], *, write: bool) -> Any:
        """Have `what` done by the cluster. Raises StoreUnavailable, or OutcomeUnknown."""
        answer: asyncio.Future[Any] = self.loop.create_future()

        def arrive(held: bool = False) -> None:
            if self.is_cut and not held:
                if write and self.held_s:
                    self.cluster.later(self.held_s, lambda: arrive(True))
                return
            self.cluster.tick()
            if answer.done() and write:
                self.cluster.late += 1
            result, error = None, None
            try:
                result = what()
            except Exception as raised:
                error = raised
            self.cluster.memory.wake()
            self.cluster.told(self)
            self.cluster.later(self.delay_s(), lambda: back(result, error))

        def back(result: Any, error: Exception | None) -> None:
            if self.is_cut or answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        if self.is_cut:
            await asyncio.sleep(0.2)
            raise StoreUnavailable("no link to the store")
        self.cluster.later(self.delay_s(), arrive)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await answer
        except TimeoutError:
            answer.cancel()
            if write:
                raise OutcomeUnknown("no answer from the store") from None
            raise StoreUnavailable("no answer from the store") from None

    async def get(self, key: str) -> Item | None:
        history = self.cluster.memory.history
        item: Item | None = await self.ask(lambda: history.at().get(key), write=False)
        return item

    async def list(self, prefix: str, *, revision: int = 0, keys_only: bool = False) -> Listing:
        def listed() -> Listing:
            content = self.cluster.memory.history.at(revision)
            items = tuple(content[key] for key in sorted(content) if key.startswith(prefix))
            return Listing(revision or self.cluster.memory.history.revision, items)

        listing: Listing = await self.ask(listed, write=False)
        return listing

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], orelse: Sequence[Op] = ()
    ) -> Done:
        def run() -> Done:
            return self.cluster.memory.history.run(compares, then, orelse)

        if self.trap is not None and any(
            isinstance(op, Put | Delete) and op.key.startswith(keys.SERVE) for op in then
        ):
            self.loop.call_soon(self.trap, context=contextvars.Context())
            self.trap = None
        done: Done = await self.ask(run, write=writes((*then, *orelse)))
        return done

    def watch(self, prefix: str) -> Watch:
        return Watch(self, prefix)

    async def lease(self, ttl_s: float) -> ClientLease:
        sent = self.loop.time()

        def grant() -> int:
            memory = self.cluster.memory
            memory._last_lease += 1
            lease: Any = ServerLease(self.cluster, memory._last_lease, ttl_s)
            memory.leases[lease.id] = lease
            memory.history.leases.add(lease.id)
            return int(lease.id)

        return ClientLease(self, await self.ask(grant, write=False), ttl_s, sent)

    async def status(self) -> StoreStatus:
        revision = await self.ask(lambda: self.cluster.memory.history.revision, write=False)
        return StoreStatus(("memory",), "memory", "memory", revision, 0)

    async def close(self) -> None:
        self.closed = True
        await self._memory.close()


class Watch:
    """A watch of the memory store whose news take the time of the client's link."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._watch = client._memory.watch(prefix)

        self._news = aiter(self._watch)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Listing | Batch:
        news = await anext(self._news)
        await asyncio.sleep(self._client.delay_s())
        while self._client.is_cut and not self._client.closed:
            await asyncio.sleep(0.5)
        return news

    def heard_s(self) -> float:
        return self._watch.heard_s()

    async def close(self) -> None:
        await self._watch.close()
