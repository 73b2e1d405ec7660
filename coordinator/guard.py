"""The brake: too many addresses that would leave service at once are held. Pure.

When more than a share of all smart addresses in service, and at least `least` of them, would leave
within one window, those whose verdicts came last are *held*: answered while their pool is the one
chosen, never counted. A hold ends when the verdict turns, when an operator releases it, or when
the verdict has persisted for `hold_ms`. An address counts once, however many pools name it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

from msgspec import Struct

from gtm.state import PoolState, Why

from .events import Now

IN_SERVICE: frozenset[Why] = frozenset({"up", "unknown_as_up"})
"""Reasons that health gives for a smart address to be answered and counted."""


class Brake(Struct, frozen=True, kw_only=True):
    """How the guard brakes; a share of 1 never does."""

    share: Fraction = Fraction(3, 10)
    least: int = 10
    window_ms: int = 60_000
    hold_ms: int = 300_000


class Guard:
    """Who left lately, and who is held; addresses by value."""

    def __init__(self, brake: Brake) -> None:
        self.brake = brake
        self._serving: Counter[str] = Counter()  # by how many pools
        self._left_ms: dict[str, int] = {}
        self._held: dict[str, tuple[float, int]] = {}  # since (Unix), until (monotonic)
        self._persisted: set[str] = set()  # held for long enough: out, as long as they are down
        self._back: set[str] = set()  # of those who left lately: who may leave once more

    # ---- what is published ---------------------------------------------------------------------

    def restore(self, pools: Mapping[str, PoolState], now: Now) -> None:
        """Take over from published states: who serves, who is held, who left within the window."""
        self._serving = Counter()
        self._left_ms, self._held, self._persisted, self._back = {}, {}, set(), set()
        for state in pools.values():
            self.published(None, state)
            for member in state.members:
                passed_ms = max(0, round((now.wall_s - member.since) * 1000))
                if member.why == "down" and passed_ms < self.brake.window_ms:
                    self._left_ms[member.value] = now.mono_ms - passed_ms
                if member.held_since:
                    waited_ms = max(0, round((now.wall_s - member.held_since) * 1000))
                    until_ms = now.mono_ms + max(0, self.brake.hold_ms - waited_ms)
                    self._held[member.value] = (member.held_since, until_ms)

    def published(self, before: PoolState | None, after: PoolState | None) -> None:
        """A pool's state is another one."""
        for value in _serving(before):
            self._serving[value] -= 1
            if not self._serving[value]:
                del self._serving[value]
        self._serving.update(_serving(after))

    # ---- what would leave ----------------------------------------------------------------------

    def leave(self, leaving: Iterable[str], now: Now) -> None:
        """These would leave service now, in this order: they go, or are held."""
        window_ms = now.mono_ms - self.brake.window_ms
        self._left_ms = {one: ms for one, ms in self._left_ms.items() if ms > window_ms}
        self._back &= self._left_ms.keys()
        base = len(self._serving) + sum(one not in self._serving for one in self._left_ms)
        most = max(self.brake.least - 1, int(self.brake.share * base))
        if self.brake.share >= 1:
            most = base
        for one in leaving:
            if one in self._back:  # it has its place in the window already, from now on
                self._back.discard(one)
                self._left_ms[one] = now.mono_ms
            if one in self._left_ms or one in self._held or one in self._persisted:
                continue
            if len(self._left_ms) < most:
                self._left_ms[one] = now.mono_ms
            else:
                self._held[one] = (now.wall_s, now.mono_ms + self.brake.hold_ms)

    def recovered(self, value: str) -> None:
        """No pool judges the address down any more."""
        self._held.pop(value, None)
        self._persisted.discard(value)
        if value in self._left_ms:
            self._back.add(value)

    def release(self, values: Iterable[str]) -> None:
        """An operator lets go of these."""
        for value in values:
            if self._held.pop(value, None) is not None:
                self._persisted.add(value)

    def over(self, now: Now) -> list[str]:
        """Those whose verdict persisted for long enough; they are held no more."""
        over = sorted(one for one, (_, until_ms) in self._held.items() if until_ms <= now.mono_ms)
        self.release(over)
        return over

    def forget(self, known: Iterable[str]) -> None:
        """Only these addresses are still named by some pool."""
        there = set(known)
        self._held = {one: held for one, held in self._held.items() if one in there}
        self._left_ms = {one: ms for one, ms in self._left_ms.items() if one in there}
        self._persisted &= there

    # ---- asked ---------------------------------------------------------------------------------

    def held(self) -> Mapping[str, float]:
        """Who is held, and since when (Unix)."""
        return {value: since for value, (since, _) in self._held.items()}

    def knows(self, value: str) -> bool:
        """Whether the address is held, or was until its time was up."""
        return value in self._held or value in self._persisted


def _serving(state: PoolState | None) -> list[str]:
    members = () if state is None else state.members
    return [member.value for member in members if member.why in IN_SERVICE]
