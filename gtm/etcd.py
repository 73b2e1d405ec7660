"""`Store` over etcd 3.4 and later, for asyncio.

Our own client; docs/decisions/0001-etcd-client.md says why. The work is done below it:

    etcd_link    endpoints, rotation, tokens, unary calls  <- etcd_errors (what a status means),
                                                              etcd_options
    etcd_range   lists in pages at one revision            <- etcd_wire (messages and words)
    etcd_watch   list, then watch                          <- etcd_mirror (the rules to resume),
                                                              etcd_audit (gaps), etcd_stream
    etcd_lease   leases and their keepalive                <- etcd_stream
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from .errors import Compacted, StoreError
from .etcd_lease import EtcdLease, Keeper
from .etcd_link import COMPACT, RANGE, STATUS, TXN, WATCH, Link, RevisionCompacted
from .etcd_options import EtcdOptions
from .etcd_range import read_prefix
from .etcd_stream import Stream, StreamBroken
from .etcd_watch import EtcdWatch
from .etcd_wire import ALL_KEYS, done, item, txn_request, writes
from .store import Compare, Done, Item, Listing, Op, StoreStatus, Watch
from .v1 import etcd_pb2 as pb

__all__ = ["EtcdOptions", "EtcdStore", "connect"]


def connect(options: EtcdOptions) -> EtcdStore:
    """A store on the cluster at `options.endpoints`; nothing is sent before the first operation.

    Raises StartError where an endpoint is misspelt or a TLS file cannot be read.
    """
    return EtcdStore(Link(options))


class EtcdStore:
    """One client of one etcd cluster; make it with `connect`, inside a running loop, `close` it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._keeper = Keeper(link)
        self._watches: set[EtcdWatch] = set()

    async def get(self, key: str) -> Item | None:
        """The key's newest value, linearizable; None where there is none."""
        answer = await self._link.call(RANGE, pb.RangeRequest(key=key.encode()))
        return item(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str, *, revision: int = 0, keys_only: bool = False) -> Listing:
        """All keys under `prefix` at one revision (0: the newest), read in pages.

        Raises Compacted where `revision` is gone.
        """
        for _ in range(3):
            try:
                pages = await read_prefix(
                    self._link, prefix, revision=revision, keys_only=keys_only
                )
            except Compacted as error:
                if revision:
                    raise Compacted(await self._oldest() or error.revision) from None
            else:
                return pages.listing
        raise StoreError(f"{prefix} is compacted faster than it can be listed")

    async def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Op],
        orelse: Sequence[Op] = (),
    ) -> Done:
        """Run one transaction; raises OutcomeUnknown when nobody can tell whether it ran."""
        request = txn_request(compares, then, orelse)
        write = writes((*then, *orelse))
        return done(await self._link.call(TXN, request, write=write))

    def watch(self, prefix: str) -> Watch:
        """Follow `prefix`: list at a revision, then watch from the next one."""
        watch = EtcdWatch(self._link, prefix)
        self._watches.add(watch)
        watch.on_close = self._watches.discard
        return watch

    async def lease(self, ttl_s: float) -> EtcdLease:
        """Grant a lease of at least `ttl_s` seconds and keep it alive until it is over."""
        return await self._keeper.grant(ttl_s)

    async def status(self) -> StoreStatus:
        """Ask the endpoint in use how it is."""
        answer = await self._link.call(STATUS, pb.StatusRequest())
        return StoreStatus(
            endpoints=tuple(one.url for one in self._link.endpoints),
            reached=self._link.current.url,
            version=answer.version,
            revision=answer.header.revision,
            size_bytes=answer.db_size,
            alarms=tuple(answer.errors),
            quota_bytes=answer.db_size_quota,
        )

    async def compact(self, revision: int) -> None:
        """Forget what came before `revision`; for tests, a deployed etcd compacts by itself."""
        with contextlib.suppress(RevisionCompacted):
            await self._link.call(COMPACT, pb.CompactionRequest(revision=revision))

    async def close(self) -> None:
        """End every stream and connection; leases run out, they are not revoked."""
        for watch in list(self._watches):
            await watch.close()
        await self._keeper.close()
        await self._link.close()

    async def _oldest(self) -> int:
        """The oldest revision left; only a watch that begins too early is told. 0 if unknown."""
        stream = Stream(self._link, WATCH, self._link.current)
        create = pb.WatchCreateRequest(key=ALL_KEYS, start_revision=1)
        try:
            await stream.open()
            await stream.send(pb.WatchRequest(create_request=create))
            while answer := await stream.next(self._link.options.timeout_s):
                if answer.canceled:
                    return answer.compact_revision
        except StreamBroken:
            pass
        finally:
            await stream.close()
        return 0
