"""What the coordinator knows of the store, kept up to date by watches. Decides nothing.

`Mirror` holds the `View` of everything under `serve/`; `Table` any other prefix as it is. A value
that can't be read is counted and logged once, and the last good one stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

from gtm import keys, view
from gtm.errors import StoreDenied
from gtm.store import Batch, Event, Listing, Store
from gtm.telemetry import transition
from gtm.view import Changes, View

from . import metrics

DENIED_PAUSE_S = 5.0
"""Between attempts while the store refuses our user."""
CATCH_UP_S = 10.0
"""How long a reader waits until the view has what the store is known to have."""

log = logging.getLogger("coordinator")


async def followed(store: Store, prefix: str) -> AsyncGenerator[Listing | Batch, None]:
    """`prefix` for ever; a store that refuses us is asked again."""
    while True:
        watch = store.watch(prefix)
        try:
            async for news in watch:
                yield news
            return
        except StoreDenied as error:
            transition(log, "the store refuses us", logging.ERROR, prefix=prefix, cause=str(error))
            await asyncio.sleep(DENIED_PAUSE_S)
        finally:
            await watch.close()


class Mirror:
    """The view of `serve/`; `changed(view, changes, events)` is called for each new one, in order.

    The first call comes with the first listing; its events are all keys there. `gap()` is called
    before the one that comes after a gap in the watch: events before it may have been missed.
    """

    def __init__(
        self,
        store: Store,
        changed: Callable[[View, Changes, tuple[Event, ...]], None],
        gap: Callable[[], None] = lambda: None,
    ):
        self.view = View()
        self.serve_revision = 0
        self.ready = asyncio.Event()
        self._store = store
        self._changed, self._gap = changed, gap
        self._moved = asyncio.Condition()

    async def run(self) -> None:
        """Follow until cancelled."""
        async for news in followed(self._store, keys.SERVE):
            if (isinstance(news, Listing) or news.relisted) and self.ready.is_set():
                transition(log, "a gap in the watch", revision=news.revision)
                self._gap()
            if isinstance(news, Listing):
                events = self._listed(news)
                changes = _everything(self.view)
            else:
                events = news.events
                changes = self._applied(news)
                self.serve_revision = news.revision
            self._changed(self.view, changes, events)
            self.ready.set()
            async with self._moved:
                self._moved.notify_all()

    def _listed(self, listing: Listing) -> tuple[Event, ...]:
        here = tuple(
            Event(item.key, item.value, item.mod_revision, item.create_revision)
            for item in listing.items
        )
        self.view = View()
        self._applied(Batch(listing.revision, here))
        self.serve_revision = max((event.mod_revision for event in here), default=0)
        return here

    def _applied(self, batch: Batch) -> Changes:
        try:
            self.view, changes = view.apply(self.view, batch)
        except ValueError:
            changes = Changes()
            for event in batch.events:
                one = Batch(batch.revision, (event,))
                try:
                    self.view, part = view.apply(self.view, one)
                except ValueError as error:
                    metrics.UNREADABLE.inc()
                    transition(log, "unreadable state", logging.ERROR, cause=str(error))
                else:
                    changes = _joined(changes, part)
        return changes

    async def caught_up(self, head_revision: int, timeout_s: float = CATCH_UP_S) -> None:
        """Wait until the view has the head written at `head_revision`; TimeoutError if it can't."""
        async with asyncio.timeout(timeout_s), self._moved:
            await self._moved.wait_for(lambda: self.view.head_revision >= head_revision)

    async def fresh(self, timeout_s: float = CATCH_UP_S) -> View:
        """A view at least as new as everything applied before the call. Raises StoreError."""
        item = await self._store.get(keys.HEAD)
        if item is not None:
            await self.caught_up(item.mod_revision, timeout_s)
        return self.view


class Table:
    """Every key under a prefix with its value; `changed(events)` is called after each change."""

    def __init__(
        self, store: Store, prefix: str, changed: Callable[[tuple[Event, ...]], None]
    ) -> None:
        self.values: dict[str, bytes] = {}
        self.ready = asyncio.Event()
        self._store, self._prefix, self._changed = store, prefix, changed

    async def run(self) -> None:
        """Follow until cancelled."""
        async for news in followed(self._store, self._prefix):
            if isinstance(news, Listing):
                present = {item.key for item in news.items}
                events = (
                    *(Event(key, None, news.revision) for key in self.values if key not in present),
                    *(
                        Event(item.key, item.value, item.mod_revision, item.create_revision)
                        for item in news.items
                    ),
                )
            else:
                events = news.events
            for event in events:
                if event.value is None:
                    self.values.pop(event.key, None)
                else:
                    self.values[event.key] = event.value
            self._changed(events)
            self.ready.set()


def _everything(now: View) -> Changes:
    return Changes(
        head=True,
        zones=frozenset(now.zones),
        records=frozenset(now.records),
        regions=frozenset(now.regions),
        checks=frozenset(now.checks),
        config_pools=frozenset(now.config_pools),
        instances=frozenset(now.instances),
        pools=frozenset(now.pools),
        routes=frozenset(now.routes),
    )


def _joined(one: Changes, other: Changes) -> Changes:
    return Changes(
        head=one.head or other.head,
        **{
            name: getattr(one, name) | getattr(other, name)
            for name in Changes.__struct_fields__
            if name != "head"
        },
    )
