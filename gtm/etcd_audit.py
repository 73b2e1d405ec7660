"""The comparison of a watch's memory with the store, every few minutes at a random moment.

A gap in a watch (a server's bug, a restored snapshot that hid itself) would else last for ever.
An audit lists keys only, at one revision, beside the running stream; waits until the stream has
passed that revision or `settle_s` is over; compares. `same_past` is the quick form of it for a
watch that comes back. What is done about a gap is the watch's business.
"""

from __future__ import annotations

import asyncio
import random
import time

from .errors import StoreError
from .etcd_link import RANGE, Link, RevisionCompacted
from .etcd_mirror import Mirror
from .etcd_range import Pages, read_prefix
from .etcd_wire import prefix_range
from .v1 import etcd_pb2 as pb


async def same_past(link: Link, prefix: str, mirror: Mirror) -> bool:
    """Whether the store still has the past that `mirror` knows; asked before a stream resumes.

    A restored snapshot may have reached our revision again before we came back, and then looks
    like a store that just went on. As of the last revision that we were told, it must have as many
    keys as we, and the one that changed last. Raises StoreError where no quorum answers.
    """
    told = mirror.resume - 1
    start, end = prefix_range(prefix)
    header = (await link.call(RANGE, pb.RangeRequest(key=start))).header
    if mirror.another_history(header.revision, header.cluster_id):
        return False
    try:
        counted = pb.RangeRequest(key=start, range_end=end, count_only=True, revision=told)
        if (await link.call(RANGE, counted)).count != len(mirror.known):
            return False
        if not mirror.known:
            return True
        newest, changed = max(mirror.known.items(), key=lambda one: one[1])
        asked = pb.RangeRequest(key=newest.encode(), keys_only=True, revision=told)
        found = (await link.call(RANGE, asked)).kvs
        return bool(found) and found[0].mod_revision == changed
    except RevisionCompacted:
        return True  # nothing can be said of then; whether the watch may resume, etcd will say


class Audit:
    """The audits of one watch; `turn` drives them from the watch's own task."""

    def __init__(self, link: Link, prefix: str, mirror: Mirror) -> None:
        self._link, self._prefix, self._mirror = link, prefix, mirror
        self._listing: asyncio.Task[Pages] | None = None
        self._pages: Pages | None = None
        self._at = self._draw()

    @property
    def at(self) -> float:
        """When `turn` has something to do, by the monotonic clock, unless `waits` is done first."""
        return self._at

    @property
    def waits(self) -> tuple[asyncio.Task[Pages], ...]:
        """What to wait for beside the stream."""
        return (self._listing,) if self._listing is not None else ()

    async def turn(self) -> bool:
        """Go one step on if it is time; True when memory and store differ: a gap."""
        if self._pages is not None:
            passed = self._mirror.resume > self._pages.listing.revision
            if passed or time.monotonic() >= self._at:
                return await self._compare(self._pages)
        elif self._listing is not None:
            if self._listing.done():
                self._take(self._listing)
        elif time.monotonic() >= self._at:
            self._mirror.audit_begins()
            listing = read_prefix(self._link, self._prefix, keys_only=True)
            self._listing = asyncio.ensure_future(listing)
            self._at = float("inf")
        return False

    async def drop(self) -> None:
        """Give up what is under way (the stream broke) and draw the next moment."""
        listing, self._listing, self._pages = self._listing, None, None
        self._at = self._draw()
        if listing is not None:
            listing.cancel()
            await asyncio.wait({listing})
            if not listing.cancelled():
                listing.exception()

    def _take(self, listing: asyncio.Task[Pages]) -> None:
        self._listing = None
        try:
            self._pages = listing.result()
        except StoreError:
            self._at = self._draw()
        else:
            self._at = time.monotonic() + self._link.options.settle_s

    async def _compare(self, pages: Pages) -> bool:
        self._pages = None
        self._at = self._draw()
        listed = {one.key: one.mod_revision for one in pages.listing.items}
        for agrees in self._mirror.audit(pages.listing.revision, listed):
            if not agrees:
                return True
            await asyncio.sleep(0)
        return False

    def _draw(self) -> float:
        mean_s = self._link.options.audit_s
        if not mean_s:
            return float("inf")
        return time.monotonic() + mean_s * random.uniform(0.5, 1.5)
