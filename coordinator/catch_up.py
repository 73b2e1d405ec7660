"""When a coordinator knows enough to lead: a first digest of every agent that is known, or time up.

It joins as a member first, so agents hear of it and open their streams; what no digest says within
the patience is judged from the stored votes. Only campaigning waits: one that has caught up is
always preferred to one that has not, and where no agent is registered nothing is waited for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from gtm.telemetry import transition

LOOK_S = 0.02
"""From look to look while digests are awaited."""

Agent = tuple[str, str]
"""Region and id."""

log = logging.getLogger("coordinator")


class CatchUp:
    """Waits until `heard()` has what `known()` had at the beginning and has now."""

    def __init__(
        self,
        known: Callable[[], Iterable[Agent]],
        heard: Callable[[], Iterable[Agent]],
        patience_s: float,
    ) -> None:
        self._known, self._heard, self._patience_s = known, heard, patience_s

    async def wait(self) -> None:
        """Wait for the digests, at most `patience_s`; says once what came of it."""
        began = time.monotonic()
        awaited = set(self._known())  # also those whose registration ends while we wait for them
        while missing := awaited - set(self._heard()):
            if time.monotonic() - began >= self._patience_s:
                break
            await asyncio.sleep(LOOK_S)
            awaited.update(self._known())
        if awaited:
            transition(
                log,
                "caught up",
                logging.WARNING if missing else logging.INFO,
                agents=len(awaited),
                without=", ".join(sorted("/".join(one) for one in missing)[:8]) or "none",
                took_s=round(time.monotonic() - began, 3),
            )
