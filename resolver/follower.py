"""From the store to one reference: follows `serve/`, compiles what changed, swaps the table.

Decides when a new state is in force (whole revisions only) and what happens when one is unreadable
or inconsistent: the last table stays, the refusal is counted and told once, and every change since
is kept, one for each key, until the state is good again. Never answers, never judges health.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from gtm import keys
from gtm.errors import StoreDenied
from gtm.store import Batch, Event, Item, Listing, Store, Watch
from gtm.telemetry import transition
from gtm.view import Changes, View, apply, rebuild

from .limits import STALE_AFTER_S
from .snapshot import Snapshot

T = TypeVar("T")

SKIPPED = frozenset({"checks", "pools"})
"""Kinds of configuration that a resolver does not read: what it needs of pools is published."""
TICK_S = 1.0
"""How often the table is told when the store was last heard."""
LONG_WORK = 2_000
"""Instances, static records and changes from which compiling configuration leaves our thread."""
RETRY_S = 2.0
"""Wait before a watch that ended (no permission) is begun again."""
LONG_KINDS = (keys.CONFIG, keys.RECORDS)
"""Keys whose changes may make the whole dictionary of names anew."""
CATCH_UPS = 2
"""Rounds in a thread in which a table that is made anew catches up with the store."""
NEVER = -float("inf")
"""The instant at which an unmarked table was last up to date."""

_log = logging.getLogger("resolver")


class Compiler(Protocol[T]):
    """How a view becomes a table; any exception refuses the view."""

    def __call__(self, view: View, previous: T | None, changes: Changes | None) -> T:
        """The table of `view`; with `previous`, `changes` is all that differs from its view.

        With `previous` and without `changes` the compiler finds them by comparison.
        """


class Follower(Generic[T]):
    """Keeps `table` equal to the store's newest good state.

    `aged(table, heard_s)` is `table` with the monotonic instant at which it was last known to be
    up to date. `on_table` is called after each swap that brought another state.
    """

    def __init__(
        self,
        store: Store,
        compiler: Compiler[T],
        aged: Callable[[T, float], T],
        on_table: Callable[[], None] = lambda: None,
    ) -> None:
        self.table: T | None = None
        """What is served; None before the first good state."""
        self.listed = asyncio.Event()
        """Set once a state of the store itself, not of the snapshot, is in force."""
        self.denied = asyncio.Event()
        """Set when the store refused us."""
        self.denial = ""
        self.refused = 0
        """States refused so far."""
        self.refusal = ""
        """Why the newest state is not in force; "" where it is."""
        self.revision = 0
        """The revision in force."""
        self.compiled, self.compiling_s = 0, 0.0
        """States compiled, or refused, and the seconds that it took."""
        self._store, self._compile, self._aged, self._on_table = store, compiler, aged, on_table
        self._watch: Watch | None = None
        self._known = NEVER
        self._stale = False
        self._view: View | None = None
        self._base: tuple[View, T | None] = (View(), None)
        self._pending: dict[str, Event] = {}
        self._items: dict[str, Item] = {}

    def age_s(self) -> float:
        """Seconds since what is served was last known to be up to date; inf: never."""
        return time.monotonic() - self._known

    async def run(self) -> None:
        """Follow the store for ever."""
        async with asyncio.TaskGroup() as both:  # a defect of one ends both, and is raised
            both.create_task(self._tick())
            both.create_task(self._keep_following())

    async def _keep_following(self) -> None:
        while True:
            await self._follow()
            await asyncio.sleep(RETRY_S)

    def take(self, news: Listing | Batch) -> None:
        """Put what the watch brought in force, or refuse it and keep it for the next attempt."""
        self._note(news)
        self._settle(news.revision, self._made(news.revision))

    async def _take(self, news: Listing | Batch) -> None:
        """The same; long work is done in a thread, so that queries are answered meanwhile."""
        self._note(news)
        compiler: Compiler[T] | None = None
        while compiler is not self._compile:  # it may be replaced while we wait
            compiler = self._compile
            if self._is_long():
                made = await asyncio.to_thread(self._made, news.revision)
            else:
                made = self._made(news.revision)
        self._settle(news.revision, made)

    async def recompile(self, compiler: Compiler[T]) -> None:
        """Have `compiler` make the table in force anew, swap it, and go on with `compiler`.

        It is given the former table, to take over what it can. The work is done in a thread, and
        news of the store go in force meanwhile as ever. Raises what `compiler` raises; then
        everything stays as it was.
        """
        table = self._base[1]
        view, rounds = None, 0
        while view is not self._view:
            view, rounds = self._view, rounds + 1
            assert view is not None  # a state in force is only ever followed by another
            if rounds <= 1 + CATCH_UPS:
                table = await asyncio.to_thread(self._timed, compiler, view, table)
            else:
                table = self._timed(compiler, view, table)
        self._compile = compiler
        if view is None or table is None:
            return  # nothing is in force yet
        if self._base[1] is not None:
            self._base = (view, table)
        known = self._known if self.listed.is_set() else NEVER
        self._serve(self._aged(table, known), self.revision)

    def _timed(self, compiler: Compiler[T], view: View, previous: T | None) -> T:
        begun = time.monotonic()
        try:
            return compiler(view, previous, None)
        finally:
            self.compiled += 1
            self.compiling_s += time.monotonic() - begun

    def _is_long(self) -> bool:
        if not any(key.startswith(LONG_KINDS) for key in self._pending):
            return False
        view = self._base[0]
        static = sum(len(rows) for zone in view.records.values() for rows in zone.values())
        return len(view.instances) + static + len(self._pending) > LONG_WORK

    def _note(self, news: Listing | Batch) -> None:
        """Keep what the watch brought, one event for each key."""
        if isinstance(news, Listing):
            self._base = (View(), None)
            self._items = {item.key: item for item in news.items}
            self._pending = {
                item.key: Event(item.key, item.value, item.mod_revision, item.create_revision)
                for item in news.items
            }
        else:
            for event in news.events:
                self._pending[event.key] = event
                if event.value is None:
                    self._items.pop(event.key, None)
                else:
                    self._items[event.key] = Item(
                        event.key, event.value, event.create_revision, event.mod_revision
                    )

    def begin(self, snapshot: Snapshot) -> bool:
        """Serve a snapshot's state, marked stale, until the store's own is there.

        False (and told) where it can't be compiled.
        """
        try:
            view = rebuild(snapshot.listing, skip=SKIPPED)
            table = self._compile(view, None, None)
        except Exception as error:
            transition(_log, "snapshot refused", logging.ERROR, cause=error)
            return False
        self._view = view
        self._known = time.monotonic() - max(0.0, time.time() - snapshot.written)
        self._serve(self._aged(table, NEVER), snapshot.listing.revision)
        return True

    def good(self) -> tuple[int, Sequence[Item]] | None:
        """The revision in force and its raw items, for the snapshot; None while one is refused."""
        if self._pending or not self.listed.is_set():
            return None
        return self.revision, tuple(self._items.values())

    def _made(self, revision: int) -> tuple[View, T] | Exception:
        """The state with everything that is pending in force, or why it can't be. Any thread."""
        begun = time.monotonic()
        try:
            return self._attempt(revision)
        finally:
            self.compiled += 1
            self.compiling_s += time.monotonic() - begun

    def _attempt(self, revision: int) -> tuple[View, T] | Exception:
        view, previous = self._base
        events = Batch(revision, tuple(self._pending.values()))
        try:
            view, changes = apply(view, events, skip=SKIPPED)
            table = self._compile(view, previous, None if previous is None else changes)
        except Exception as error:
            return error
        return view, table

    def _settle(self, revision: int, made: tuple[View, T] | Exception) -> None:
        """Put a state in force, or refuse it."""
        if isinstance(made, Exception):
            self._refuse(revision, made)
            return
        self._base, self._view = made, made[0]
        self._pending = {}
        if self.refusal:
            self.refusal = ""
            transition(_log, "state is good again", revision=revision)
        self._hear()
        self._serve(self._aged(made[1], self._known), revision)
        self.listed.set()

    def _refuse(self, revision: int, error: Exception) -> None:
        self.refused += 1
        reason = f"{type(error).__name__}: {error}"
        if reason == self.refusal:
            return
        self.refusal = reason
        _log.error(
            "state refused, the last table stays",
            exc_info=None if isinstance(error, ValueError) else error,
            extra={"fields": {"revision": revision, "cause": reason, "serving": self.revision}},
        )

    def _serve(self, table: T, revision: int) -> None:
        self.table, self.revision = table, revision
        self._on_table()

    def _hear(self) -> None:
        """Note that what is in force is the newest, unless a newer state was refused."""
        if self._watch is not None and not self.refusal:
            self._known = max(self._known, time.monotonic() - self._watch.heard_s())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self.listed.is_set() and self.table is not None:
                self._hear()
                self.table = self._aged(self.table, self._known)
                self._tell_stale()

    def _tell_stale(self) -> None:
        age_s = self.age_s()
        if (age_s > STALE_AFTER_S) is self._stale:
            return
        self._stale = not self._stale
        if self._stale:
            reason = self.refusal or "the store is silent"
            transition(
                _log, "answers are stale", logging.WARNING, age_s=round(age_s), cause=reason
            )  # fmt: skip
        else:
            transition(_log, "answers are fresh again", revision=self.revision)

    async def _follow(self) -> None:
        """Follow one watch until it ends; only a refusal of the store ends one."""
        self._watch = watch = self._store.watch(keys.SERVE)
        try:
            async for news in watch:
                if self.denial:
                    self.denial = ""
                    transition(_log, "store lets us in again")
                await self._take(news)
        except StoreDenied as error:
            if not self.denial:
                transition(_log, "store refuses us", logging.ERROR, cause=error)
            self.denial = str(error)
            self.denied.set()
        except Exception:
            _log.exception("watch ended by a defect; it is begun again")
        finally:
            with contextlib.suppress(Exception):
                await watch.close()
