"""Many deadlines of which hardly any is ever reached, behind one timer of the loop.

A timer of its own for each probe would be made, sorted in and cancelled for nothing. Here setting a
deadline and forgetting it are a look into a dictionary each; the timer stands at the earliest one
that was set, and when it comes finds out what is left. Decides nothing about what being late means.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

GAP_S = 0.005
"""Deadlines are looked at no more often: one may be noticed so much late."""
_EARLY_S = 0.0005
"""A timer may come so much early."""

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Calls `late` once with each key whose deadline passed before it was forgotten."""

    def __init__(self, loop: asyncio.AbstractEventLoop, late: Callable[[K], None]) -> None:
        self._loop = loop
        self._late = late
        self._at: dict[K, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._armed_s = math.inf

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: K, at_s: float) -> None:
        """The deadline of `key` is at `at_s` of the loop's clock."""
        self._at[key] = at_s
        if at_s < self._armed_s:
            self._arm(at_s)

    def forget(self, key: K) -> bool:
        """`key` has no deadline any more; whether it had one that was not reached."""
        return self._at.pop(key, None) is not None

    def close(self) -> None:
        """Forget all of them."""
        self._at.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_s = at_s
        self._timer = self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        self._timer, self._armed_s = None, math.inf
        now_s = self._loop.time() + _EARLY_S
        passed = [key for key, at_s in self._at.items() if at_s <= now_s]
        if len(passed) < len(self._at):
            next_s = min(at_s for at_s in self._at.values() if at_s > now_s)
            self._arm(max(next_s, now_s + GAP_S))
        for key in passed:
            if self.forget(key):
                self._late(key)
