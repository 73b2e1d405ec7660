"""Who watches verdicts, and what waits for each of them. Decides nothing.

A watcher that reads too slowly is ended rather than waited for: judging never stands still.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from msgspec import Struct

from . import metrics
from .events import TargetKey
from .views import VerdictView

MAX_WATCHERS = 64
"""WatchVerdicts calls at a time."""
MAX_WAITING = 1_024
"""Changes that wait for one watcher; one more ends it."""


class Gone(Struct, frozen=True):
    """Nobody names this target any more."""

    target: TargetKey


class TooSlow(Exception):
    """The watcher did not read what came."""


class Watcher:
    """One call's queue: read it by `next`, and give up when `overrun` does."""

    def __init__(self, matches: Callable[[VerdictView], bool], first: Iterable[TargetKey]) -> None:
        self._matches = matches
        self._told = set(first)
        self._waiting: deque[VerdictView | Gone] = deque()
        self._wake = asyncio.Event()
        self._overrun = asyncio.Event()

    def changed(self, target: TargetKey, view: VerdictView | None) -> None:
        """A verdict changed, or (None) its target is gone."""
        if view is not None and self._matches(view):
            self._told.add(target)
            self._add(view)
        elif view is None and target in self._told:
            self._told.discard(target)
            self._add(Gone(target))

    def _add(self, news: VerdictView | Gone) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._overrun.set()
            self._waiting.clear()
        elif not self._overrun.is_set():
            self._waiting.append(news)
        self._wake.set()

    async def overrun(self) -> None:
        """Wait until changes were lost, and raise TooSlow."""
        await self._overrun.wait()
        raise TooSlow

    async def next(self) -> VerdictView | Gone:
        """The next change."""
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        return self._waiting.popleft()


class Watchers:
    """Every open watcher."""

    def __init__(self) -> None:
        self._open: set[Watcher] = set()

    @property
    def full(self) -> bool:
        """Whether no further one is taken."""
        return len(self._open) >= MAX_WATCHERS

    def __len__(self) -> int:
        return len(self._open)

    def add(self, watcher: Watcher) -> None:
        """Tell `watcher` of changes from now on."""
        self._open.add(watcher)
        metrics.WATCHERS.set(len(self._open))

    def remove(self, watcher: Watcher) -> None:
        """Tell it no more."""
        self._open.discard(watcher)
        metrics.WATCHERS.set(len(self._open))

    def changed(self, target: TargetKey, view: VerdictView | None) -> None:
        """Tell everybody whom it concerns."""
        for watcher in self._open:
            watcher.changed(target, view)
