"""Which targets the agents of all regions should probe again at once: quick confirmation. Pure.

A failure that may be the first of a streak, seen by a region that votes (neither muted nor set
aside), on a target that stands up and whose check says `confirm`, asks every region for extra
probes: an agent that is asked probes at once, and goes on until its streak of failures has reached
`fall` or broke. So a verdict takes about `fall` round trips and not `fall` intervals. Asking
decides nothing: votes and verdicts come from the results.

A target is asked for at most once in half its interval, and all targets together at most MAX_ASKED
times in WINDOW_MS; beyond that the ordinary pace has to do, until a later failure asks again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .events import FAILURE, Confirm, Digest, Frame
from .evidence import Evidence
from .hysteresis import UP
from .targets import Targets
from .verdicts import Verdicts

SHARE = 2
"""A target is asked for once in the n-th part of its interval at most."""
MAX_ASKED = 1000
"""Targets asked for in one window: a network that fails as a whole is no time for more probes."""
WINDOW_MS = 1000
NEVER = -(1 << 61)


class Confirmation:
    """When each target was last asked for, by its number."""

    def __init__(self, targets: Targets, evidence: Evidence, verdicts: Verdicts) -> None:
        self._targets, self._evidence, self._verdicts = targets, evidence, verdicts
        self._asked: NDArray[np.int64] = np.full(targets.capacity, NEVER, dtype=np.int64)
        self._window_ms = NEVER
        self._count = 0
        self.refused = 0
        """Targets that would have been asked for but for MAX_ASKED, in all."""

    def clear(self, numbers: NDArray[Any]) -> None:
        """Forget numbers that went out of use."""
        self._grow()
        self._asked[numbers] = NEVER

    def after(self, event: Frame | Digest, now_ms: int) -> list[Confirm]:
        """Whom to ask for after `event` was judged, by target."""
        failed = event.target[event.outcome == FAILURE]
        columns = self._targets.columns
        if failed.size == 0 or not columns.confirm.any():
            return []
        failed = failed[(failed >= 0) & (failed < self._targets.capacity)]
        failed = np.unique(failed[columns.confirm[failed]])
        place = self._evidence.regions.get(event.region)
        agent = place.agents.get(event.agent) if place else None
        if failed.size == 0 or agent is None or event.region in self._evidence.silenced:
            return []
        self._grow()
        begins = (agent.last[failed] == FAILURE) & (agent.streak[failed] <= columns.fall[failed])
        begins &= self._verdicts.code[failed] == UP
        begins &= now_ms - self._asked[failed] >= columns.interval[failed] // SHARE
        asked: list[Confirm] = []
        for number in failed[begins].tolist():
            key = self._targets.key(number)
            if event.region not in self._targets.electorate(key).regions:
                continue
            if not self._room(now_ms):
                self.refused += 1
                continue
            self._asked[number] = now_ms
            asked.append(Confirm(target=key))
        asked.sort(key=lambda effect: effect.target)
        return asked

    def _room(self, now_ms: int) -> bool:
        if now_ms - self._window_ms >= WINDOW_MS:
            self._window_ms, self._count = now_ms, 0
        if self._count >= MAX_ASKED:
            return False
        self._count += 1
        return True

    def _grow(self) -> None:
        more = self._targets.capacity - len(self._asked)
        if more > 0:
            self._asked = np.pad(self._asked, (0, more), constant_values=NEVER)
