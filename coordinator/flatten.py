"""Resolves the names of flattened pools off the query path, and tells the engine of new addresses.

Decides when a name is due; whether what it resolved to is news says `sets`, and who is answered the
engine. Only the leader asks: another coordinator's sets come to it as published states. A name that
can't be resolved keeps the addresses that it had.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from gtm.model import FAMILIES
from gtm.names import Names, Unresolved
from gtm.state import AddressSet
from gtm.telemetry import transition

from . import metrics
from .events import Now
from .sets import LEAST_S, news

FAILING_FROM = 2
"""Failures in a row that make a set one that only stands; one may be a lost packet's."""
FIRST_RETRY_S = 2
"""A name that never resolved is asked for again so soon, then later and later, up to LEAST_S."""
LIMIT_S = 4.0
"""For one name to resolve."""
MAX_AT_ONCE = 128
"""Names resolved at once; further ones wait for the next look."""
LOOK_S = 0.5
"""How often it is looked for names that are due."""

log = logging.getLogger("coordinator")


class Flattener:
    """Keeps the sets of all names of flattened pools fresh while this coordinator leads.

    `wanted()` are the names, `known()` their sets now, `tell` takes sets that are news.
    """

    def __init__(
        self,
        names: Names,
        *,
        wanted: Callable[[], frozenset[str]],
        known: Callable[[], Mapping[str, AddressSet]],
        leads: Callable[[], bool],
        tell: Callable[[dict[str, AddressSet]], None],
        clock: Callable[[], Now],
    ) -> None:
        self._names, self._wanted, self._known = names, wanted, known
        self._leads, self._tell, self._clock = leads, tell, clock
        self._due_ms: dict[str, int] = {}
        self._failed: dict[str, int] = {}  # failures in a row

    async def run(self) -> None:
        """Look for names that are due, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Resolve the names that are due now, MAX_AT_ONCE at most, and tell what is news."""
        wanted = self._wanted() if self._leads() else frozenset()
        for name in self._due_ms.keys() - wanted:
            del self._due_ms[name]
            self._failed.pop(name, None)
        now_ms = self._clock().mono_ms
        due = sorted(
            (self._due_ms.get(name, now_ms), name)
            for name in wanted
            if self._due_ms.get(name, now_ms) <= now_ms
        )[:MAX_AT_ONCE]
        found = await asyncio.gather(*(self._resolve(name) for _, name in due))
        metrics.OLD_SETS.set(len(self._failed))
        fresh = {name: one for (_, name), one in zip(due, found, strict=True) if one is not None}
        if fresh and self._leads():
            self._tell(fresh)

    async def _resolve(self, name: str) -> AddressSet | None:
        """The set of a name where it is news; notes when the name is due again."""
        try:
            told = await self._names.resolve(name, FAMILIES, LIMIT_S)
        except Unresolved as error:
            return self._miss(name, str(error))
        now, before = self._clock(), self._known().get(name)
        metrics.RESOLUTIONS.labels("success").inc()
        if self._failed.pop(name, 0):
            transition(log, f"{name} resolves again")
        self._due_ms[name] = now.mono_ms + 1000 * max(LEAST_S, told.ttl)
        fresh = news(told, before, now.wall_s)
        if fresh is not None and (before is None or before.addresses != fresh.addresses):
            transition(log, f"{name} resolves to {', '.join(fresh.addresses)}", ttl=fresh.ttl)
        return fresh

    def _miss(self, name: str, why: str) -> AddressSet | None:
        """Note a failure; the set as one that only stands, from the FAILING_FROM-th in a row on."""
        now, before = self._clock(), self._known().get(name)
        metrics.RESOLUTIONS.labels("failure").inc()
        count = self._failed[name] = self._failed.get(name, 0) + 1
        wait_s = LEAST_S if before is not None else min(LEAST_S, FIRST_RETRY_S << min(count - 1, 4))
        self._due_ms[name] = now.mono_ms + 1000 * wait_s
        if count == 1:
            age = "none so far" if before is None else f"seen {now.wall_s - before.since:.0f} s ago"
            transition(log, f"{name} does not resolve: {why}", logging.WARNING, addresses=age)
        if before is None or before.failing or count < FAILING_FROM:
            return None
        return replace(before, failing=now.wall_s)
