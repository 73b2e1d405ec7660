"""Damping: an address whose verdict keeps changing is held down until it is quiet. Pure.

Each change of a verdict adds `PENALTY`, which decays with a half-life of `HALF_LIFE_MS`; above
`DAMPED_FROM` the target is damped until the penalty is below `FREE_BELOW`, at most `LONGEST_MS`
(route flap damping, RFC 2439, is the model). The penalty is kept for every target and shown; only
checks with `damping: true` act on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log2

import numpy as np
from numpy.typing import NDArray

from gtm.state import VerdictRecord

from .events import Now

PENALTY = 1000.0
HALF_LIFE_MS = 600_000
DAMPED_FROM = 3000.0
FREE_BELOW = 1000.0
LONGEST_MS = 3_600_000

Numbers = NDArray[np.intp]


class Damping:
    """Penalties by target number, as of the last change of each verdict."""

    def __init__(self, capacity: int) -> None:
        self._penalty: NDArray[np.float64] = np.zeros(capacity)
        self._at_ms: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)
        self._since: dict[int, tuple[float, int]] = {}  # damped: wall, and mono when it began

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` targets."""
        more = capacity - len(self._penalty)
        self._penalty = np.pad(self._penalty, (0, more))
        self._at_ms = np.pad(self._at_ms, (0, more))

    def clear(self, numbers: Iterable[int]) -> None:
        """Forget numbers that went out of use."""
        for number in numbers:
            self._penalty[number] = 0.0
            self._since.pop(number, None)

    def move(self, old: int, new: int) -> None:
        """Carry a penalty to another number: another probe of the same target."""
        self._penalty[new], self._at_ms[new] = self._penalty[old], self._at_ms[old]
        if old in self._since:
            self._since[new] = self._since.pop(old)

    def restore(self, records: Mapping[int, VerdictRecord], now: Now) -> None:
        """Take the penalties of stored verdicts; what time passed since is reckoned this once."""
        self._since = {}
        for number, record in records.items():
            self._penalty[number] = max(0.0, record.penalty)
            self._at_ms[number] = now.mono_ms - _passed_ms(record.since, now)
            if record.damped_since:
                began_ms = now.mono_ms - _passed_ms(record.damped_since, now)
                self._since[number] = (record.damped_since, began_ms)
        self.free(now)

    def changed(self, number: int, damps: bool, now: Now) -> None:
        """A verdict changed; `damps`: its check asks for damping."""
        self._penalty[number] = self.penalty(number, now) + PENALTY
        self._at_ms[number] = now.mono_ms
        if damps and self._penalty[number] > DAMPED_FROM:
            self._since.setdefault(number, (now.wall_s, now.mono_ms))

    def penalty(self, number: int, now: Now) -> float:
        """What is left of a target's penalty."""
        passed_ms = max(0, now.mono_ms - int(self._at_ms[number]))
        return float(self._penalty[number]) * float(2.0 ** (-passed_ms / HALF_LIFE_MS))

    def last(self, number: int) -> int:
        """The penalty as of the last change."""
        return round(float(self._penalty[number]))

    def since(self, number: int) -> float:
        """Since when (Unix) a target is damped; 0: it is not."""
        return self._since.get(number, (0.0, 0))[0]

    def damped(self) -> list[int]:
        """The targets that are damped."""
        return sorted(self._since)

    def free(self, now: Now, undamped: Iterable[int] = ()) -> list[int]:
        """End the damping of those whose time is up, and of `undamped`; who they are."""
        over = {number for number in self._since if self._until_ms(number) <= now.mono_ms}
        over.update(number for number in undamped if number in self._since)
        for number in over:
            del self._since[number]
        return sorted(over)

    def _until_ms(self, number: int) -> int:
        penalty = float(self._penalty[number])
        quiet_ms = HALF_LIFE_MS * log2(penalty / FREE_BELOW) if penalty > FREE_BELOW else 0.0
        at_ms = int(self._at_ms[number])
        return min(at_ms + round(quiet_ms), self._since[number][1] + LONGEST_MS)


def _passed_ms(since: float, now: Now) -> int:
    return max(0, round((now.wall_s - since) * 1000))
