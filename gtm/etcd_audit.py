"""The comparison of a watch's memory with the store, every few minutes at a random moment.

A gap in a watch (a server's bug, a restored snapshot that hid itself) would else last for ever.
Lists keys only, at one revision, beside the running stream; waits until the stream has passed that
revision or `settle_s` is over; compares. What is done about a gap is the watch's business.
"""

from __future__ import annotations

import asyncio
import random
import time

from .errors import StoreError
from .etcd_link import Link
from .etcd_mirror import Mirror
from .etcd_range import Pages, read_prefix


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
