"""Leases of etcd: granted, kept alive over one stream for all of a store, over by our own clock.

A lease is over when its time has passed since the last *sent* request that was answered, whatever
the store may say later: the store counts from when it received that request, so it ends no lease
before we do. But for one case: an etcd before 3.4.31 or 3.5.13 whose leader stood still for longer
than a lease may end it when that leader comes back; the next keepalive tells us.
Guards nothing by itself: writers fence with the election key's create revision.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time

from . import tenure
from .errors import StoreError
from .etcd_errors import Meaning
from .etcd_link import CONNECT_MOST_S, GRANT, KEEPALIVE, REVOKE, Backoff, Link
from .etcd_stream import Stream, StreamBroken
from .v1 import etcd_pb2 as pb

RENEWALS = 5
"""A lease is renewed so often in its time: what is left when the store falters is most of it."""
PAUSES = 10
"""A pause between attempts takes at most this part of a lease."""

_log = logging.getLogger("gtm.etcd")


class EtcdLease:
    """One lease; made by `EtcdStore.lease`."""

    def __init__(self, keeper: Keeper, lease_id: int, ttl_s: float, sent: float) -> None:
        self.id = lease_id
        self.ttl_s = ttl_s
        self.due = sent + ttl_s / RENEWALS
        self.asked: float | None = None
        """When the request that is under way was sent; None where none is."""
        self._keeper = keeper
        self._until = tenure.ends_s(sent, time.monotonic(), ttl_s)
        self._over = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._set_timer()

    def remaining_s(self) -> float:
        """Seconds for which the lease is surely alive; 0 when it is over, and then for ever."""
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            self.end()
        return 0.0 if self._over.is_set() else left_s

    async def lost(self) -> None:
        """Wait until the lease is over."""
        await self._over.wait()

    async def revoke(self) -> None:
        """End the lease and the keys under it; no error if the store cannot be reached."""
        self.end()
        try:
            await self._keeper.link.call(REVOKE, pb.LeaseRevokeRequest(ID=self.id))
        except StoreError as error:
            _log.info("lease %x was not revoked, it will run out: %s", self.id, error)

    def answered(self, ttl_s: int) -> None:
        """The request under way was answered: alive for `ttl_s` since it was sent, or unknown."""
        sent, self.asked = self.asked, None
        if ttl_s <= 0 or not self.remaining_s():
            self.end()
        elif sent is not None:
            self.ttl_s = float(ttl_s)
            self._until = tenure.ends_s(sent, time.monotonic(), ttl_s)
            self.due = sent + ttl_s / RENEWALS

    def end(self) -> None:
        """Over, for good."""
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()
        self._keeper.forget(self)

    def _set_timer(self) -> None:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            self.end()
        else:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._set_timer)


class Keeper:
    """Keeps every lease of one store alive, over one stream, each `RENEWALS` times in its time."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._leases: dict[int, EtcdLease] = {}
        self._task: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    async def grant(self, ttl_s: float) -> EtcdLease:
        """A new lease of at least `ttl_s` seconds (etcd counts whole ones)."""
        sent = time.monotonic()
        # Trying again is safe: a lease that nobody heard of runs out by itself. `sent` stays that
        # of the first try, so the deadline is early rather than late.
        answer = await self.link.call(GRANT, pb.LeaseGrantRequest(TTL=max(1, math.ceil(ttl_s))))
        lease = EtcdLease(self, answer.ID, float(answer.TTL), sent)
        if lease.remaining_s():
            self._leases[lease.id] = lease
            self._more.set()
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run())
        return lease

    def forget(self, lease: EtcdLease) -> None:
        """Keep `lease` alive no longer."""
        self._leases.pop(lease.id, None)

    async def close(self) -> None:
        """End every lease for us; the store lets them run out."""
        for lease in list(self._leases.values()):
            lease.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        backoff = Backoff(0.05, self.link.options.backoff_most_s)
        to = self.link.current
        while True:
            while not self._leases:
                self._more.clear()
                await self._more.wait()
            stream = Stream(self.link, KEEPALIVE, to)
            try:
                await stream.open(self._connect_s())
                for lease in self._leases.values():
                    lease.asked = None
                await self._keep(stream, backoff)
            except StreamBroken as broken:
                if broken.meaning in (Meaning.RENEW, Meaning.DENIED):
                    self.link.forget_token(stream.metadata)
                _log.warning("lease keepalive lost its link: %s", broken)
                to = self.link.after(to)
            except Exception:
                _log.exception("lease keepalive failed by a defect")
            finally:
                await stream.close()
            for lease in self._leases.values():
                lease.due = 0.0  # asked at once: what broke the link may have ended the lease too
            await asyncio.sleep(min(backoff.next_s(), self._pause_most_s()))

    async def _keep(
        self,
        stream: Stream[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse],
        backoff: Backoff,
    ) -> None:
        while self._leases:
            self._more.clear()
            for lease in list(self._leases.values()):
                now = time.monotonic()
                if lease.asked is None and lease.due <= now:
                    lease.asked = now
                    await stream.send(pb.LeaseKeepAliveRequest(ID=lease.id))
                elif lease.asked is not None and now - lease.asked > _patience_s(lease):
                    raise StreamBroken(f"{stream.to.url} does not answer keepalives")
            more = asyncio.ensure_future(self._more.wait())
            try:
                answer = await stream.next(self._pause_s(), more)
            finally:
                more.cancel()
            if answer is not None:
                backoff.reset()
                if (kept := self._leases.get(answer.ID)) is not None:
                    kept.answered(answer.TTL)

    def _pause_most_s(self) -> float:
        """Between connections: a pause must not eat up a lease."""
        return min((one.ttl_s for one in self._leases.values()), default=0.0) / PAUSES

    def _connect_s(self) -> float:
        """For one connection: where there are others to try, no more than for an answer."""
        if len(self.link.endpoints) == 1:
            return CONNECT_MOST_S
        return min(CONNECT_MOST_S, *map(_patience_s, self._leases.values()))

    def _pause_s(self) -> float:
        """Until the next lease is due, or has waited too long for an answer."""
        moments = (
            one.due if one.asked is None else one.asked + _patience_s(one) + 0.001
            for one in self._leases.values()
        )
        return min(moments, default=0.0) - time.monotonic()


def _patience_s(lease: EtcdLease) -> float:
    """For a connection, and for an answer: two endpoints more fit before the lease ends."""
    return lease.ttl_s / 6
