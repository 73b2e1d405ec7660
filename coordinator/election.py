"""Who leads, and under which leases this coordinator is known. Decides nothing else.

One lease carries the member keys of this coordinator and of the agents that stream to it, and the
leader key while we have it. `fence` is the create revision of that key: every write of a leader
compares it, so that one who lost the key without knowing writes nothing. Even a coordinator that
is alone campaigns and is fenced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable

from gtm import codec, keys
from gtm.errors import StoreError
from gtm.state import Leader
from gtm.store import Compare, Delete, Event, Get, Lease, Listing, Op, Put, Store, packed
from gtm.telemetry import transition

from . import ballot, metrics
from .mirror import followed

LEASE_TTL_S = 5.0
"""After so long without a word a coordinator is gone, and another one may lead."""
RETRY_S = (0.2, 1.0)
"""Least and greatest pause between attempts while the store is away."""
REVOKE_S = 1.0
"""For giving a lease back; it runs out by itself where the store does not hear us."""
MAX_MEMBER_OPS = 1_000
"""Member keys written by one transaction."""

log = logging.getLogger("coordinator")


class Leadership:
    """Whether we lead now; `changed()` is called when that begins or ends."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.changed = changed
        self.mark = 0
        """The mod revision of our leader key: what a write compares, beside the fence."""
        self._fence = 0
        self._lease: Lease | None = None

    @property
    def fence(self) -> int:
        """The create revision of our leader key; 0 where we do not lead, or may not any more."""
        left_s = 0.0 if self._lease is None else self._lease.remaining_s()
        return ballot.fence_now(self._fence, left_s)

    def won(self, fence: int, lease: Lease) -> None:
        """The key is ours."""
        self._fence, self._lease, self.mark = fence, lease, fence
        metrics.LEADER.set(1)
        metrics.LEADERSHIPS.inc()
        transition(log, "leading", fence=fence)
        self.changed()

    async def settle(self, store: Store) -> None:
        """Have every write of ours that may still be on its way miss: the key is written anew.

        Its create revision stays, so that we lead on; what compares the former mark is refused.
        Raises StoreError.
        """
        fence, lease = self._fence, self._lease
        item = await store.get(keys.leader())
        if item is None or item.create_revision != fence or lease is None:
            return  # another one leads, and the fence is enough
        mine = Compare(keys.leader(), "create", "=", fence)
        done = await store.txn([mine], [Put(keys.leader(), item.value, lease.id)])
        if done.succeeded and self._fence == fence:
            self.mark = done.revision

    def lost(self, why: str) -> None:
        """The key is not ours any more; nothing where it was not."""
        if self._fence:
            self._fence, self._lease = 0, None
            metrics.LEADER.set(0)
            transition(log, "leading no more", logging.WARNING, why=why)
            self.changed()


class Membership:
    """The keys under our lease: what `wanted` holds is in the store while the lease lives.

    `is_ours(key)` says whether a member's key that we do not want is for us to delete.
    """

    def __init__(self, store: Store, is_ours: Callable[[str], bool] = lambda key: False) -> None:
        self._store, self._is_ours = store, is_ours
        self._wanted: dict[str, bytes] = {}
        self._written: dict[str, bytes | None] = {}
        self._wake = asyncio.Event()

    def put(self, key: str, value: bytes) -> None:
        """Have `key` under our lease from now on."""
        self._wanted[key] = value
        self._wake.set()

    def remove(self, key: str) -> None:
        """Have it no more."""
        self._wanted.pop(key, None)
        self._wake.set()

    def seen(self, events: Iterable[Event]) -> None:
        """What the store's watch says of members' keys.

        A restored snapshot may lack keys of ours and bring ended ones back under the same lease.
        """
        for event in events:
            if event.value == self._wanted.get(event.key):
                continue
            if event.key in self._wanted:
                self._written.pop(event.key, None)
            elif self._is_ours(event.key):
                self._written[event.key] = event.value
            else:
                continue
            self._wake.set()

    async def keep(self, lease: Lease) -> None:
        """Write what differs, under `lease`, until cancelled."""
        self._written = {}
        pause = _Pause()
        while True:
            self._wake.clear()
            puts = {k: v for k, v in self._wanted.items() if self._written.get(k) != v}
            gone = [key for key in self._written if key not in self._wanted]
            ops: list[Op] = [*(Put(k, v, lease.id) for k, v in puts.items()), *map(Delete, gone)]
            if not ops:
                await self._wake.wait()
                continue
            self._written |= dict.fromkeys(puts)  # from now on perhaps there, with some value
            try:
                for start in range(0, len(ops), MAX_MEMBER_OPS):
                    await self._store.txn([], packed(ops[start : start + MAX_MEMBER_OPS]))
            except StoreError:
                await pause.wait()
                continue
            self._written |= puts
            for key in gone:
                self._written.pop(key, None)
            pause.reset()


async def _at_once() -> None:
    return


class Election:
    """Campaigns for a shard for as long as it runs.

    `caught_up()` is awaited under each new lease before the campaign: who does not know yet what
    agents see leaves the leadership to those who do.
    """

    def __init__(
        self,
        store: Store,
        id_: str,
        leadership: Leadership,
        membership: Membership,
        *,
        ttl_s: float = LEASE_TTL_S,
        caught_up: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        self._store, self._id, self._ttl_s = store, id_, ttl_s
        self._leadership, self._membership = leadership, membership
        self._caught_up = caught_up
        self._key = keys.leader()
        self._lease: Lease | None = None
        self._heard = 0.0
        self.session = asyncio.Event()
        """Set while we hold a lease."""

    def heard(self) -> float:
        """When, in Unix time, what kept our lease was asked of the store; 0.0 where nothing has."""
        if self._lease is not None and (left_s := self._lease.remaining_s()) > 0:
            self._heard = time.time() - max(0.0, self._lease.ttl_s - left_s)
        return self._heard

    async def run(self) -> None:
        """Hold a lease, be a member, campaign, lead; again from the start when the lease is over.

        Cancelled, it gives the leadership up and ends the lease.
        """
        pause = _Pause()
        while True:
            try:
                await self._clear_own()
                lease = await self._store.lease(self._ttl_s)
            except StoreError as error:
                if pause.first:
                    transition(log, "no lease", logging.WARNING, cause=str(error))
                await pause.wait()
                continue
            pause.reset()
            self._lease = lease
            self.session.set()
            tasks = [
                asyncio.create_task(work)
                for work in (self._membership.keep(lease), self._campaign(lease), lease.lost())
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # a defect ends the coordinator rather than hide
            finally:
                self._ended(lease)
                self.session.clear()
                for task in tasks:
                    task.cancel()
                self._leadership.lost("the lease is over")
                await asyncio.gather(*tasks, return_exceptions=True)
                if lease.remaining_s() > 0:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(REVOKE_S):
                            await lease.revoke()
            transition(log, "the lease is over", logging.WARNING)

    def _ended(self, lease: Lease) -> None:
        """Keep what `heard` says for when there is no lease."""
        if lease.remaining_s() > 0:
            self.heard()
        else:  # nobody answered for its whole length
            self._heard = max(self._heard, time.time() - lease.ttl_s)
        self._lease = None

    async def _clear_own(self) -> None:
        """Take away the leader key of our own former life, so that nobody waits for its lease.

        The next key has another create revision: whatever that life still sends is refused.
        """
        item = await self._store.get(self._key)
        if item is not None and _id_of(item.value) == self._id:
            mine = Compare(self._key, "create", "=", item.create_revision)
            await self._store.txn([mine], [Delete(self._key)])

    async def _campaign(self, lease: Lease) -> None:
        await self._caught_up()
        async with contextlib.aclosing(followed(self._store, self._key)) as watch:
            async for news in watch:
                # (create revision, revision of the change); a create revision of 0: not there
                states: list[tuple[int, int]]
                if isinstance(news, Listing):
                    own = [item for item in news.items if item.key == self._key]
                    states = [(item.create_revision, item.mod_revision) for item in own]
                    states = states or [(0, news.revision)]
                else:
                    states = [
                        (0 if event.value is None else event.create_revision, event.mod_revision)
                        for event in news.events
                        if event.key == self._key
                    ]
                listed = isinstance(news, Listing) or news.relisted
                for created, revision in states:
                    await self._seen(created, revision, lease, listed=listed)

    async def _seen(self, created: int, revision: int, lease: Lease, *, listed: bool) -> None:
        """`listed`: read anew, perhaps of another history, whose revisions prove nothing."""
        move = ballot.seen(self._leadership.fence, created, revision, listed=listed)
        if move is ballot.Move.STAY:
            return
        self._leadership.lost("another coordinator leads" if created else "the key went away")
        if move is ballot.Move.RUN:
            await self._try(lease)

    async def _try(self, lease: Lease) -> None:
        """Create the leader key unless it is there; returns when one of both is so."""
        value = codec.encode(Leader(id=self._id, since=time.time()))
        pause = _Pause()
        while True:
            try:
                done = await self._store.txn(
                    [Compare(self._key, "create", "=", 0)],
                    [Put(self._key, value, lease.id)],
                    [Get(self._key)],
                )
            except StoreError:
                await pause.wait()
                continue
            if fence := ballot.won(done, lease.id):
                self._leadership.won(fence, lease)
            return


def _id_of(leader: bytes) -> str:
    """Whose leader key this is; "" where it cannot be read."""
    try:
        return codec.decode(leader, Leader).id
    except ValueError:
        return ""


class _Pause:
    """A jittered pause that doubles."""

    def __init__(self) -> None:
        self.first = True
        self._next_s = RETRY_S[0]

    def reset(self) -> None:
        self.first, self._next_s = True, RETRY_S[0]

    async def wait(self) -> None:
        self.first = False
        await asyncio.sleep(self._next_s * random.uniform(0.5, 1.0))
        self._next_s = min(self._next_s * 2, RETRY_S[1])
