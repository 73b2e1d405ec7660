"""Geo files watched while the resolver serves: the shell around `resolver.geo_files`.

Decides nothing: it looks every few seconds in a thread, hands sound new data on, and tells each
change of their standing once. Without news of a refused file it is silent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from gtm.telemetry import transition

from .geo_files import OUTCOMES, Change, GeoFiles
from .locate import Atlas, geo_hash
from .moves import percent
from .place import Locator

_log = logging.getLogger("resolver")


class GeoReloader:
    """Looks after the files every `every_s` seconds; `put` takes a new locator into use.

    `put` raises where it can't; the data in force stay then.
    """

    def __init__(
        self, files: GeoFiles, every_s: float, put: Callable[[Locator], Awaitable[None]]
    ) -> None:
        self.reloads: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        """Changed files by what became of them."""
        self.refusal = ""
        """Why the newest files are not in force; "" where they are."""
        self._files, self._every_s, self._put = files, every_s, put

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        change = await asyncio.to_thread(self._files.look)
        if change is None:
            return
        if (locator := change.locator) is not None:
            try:
                await self._put(locator)
            except Exception as error:
                change = Change("refused", why=f"no table can be made with it: {error}")
            else:
                self._files.put(locator)
        self.reloads[change.outcome] += 1
        self._tell(change)

    def age_s(self) -> float:
        """Seconds since the oldest of the files in force was built, as it says; NaN without any."""
        locator = self._files.locator
        built = [one.built for one in locator.databases] if isinstance(locator, Atlas) else []
        return time.time() - min(built) if built else float("nan")

    def _tell(self, change: Change) -> None:
        self.refusal = change.why
        if change.why:
            transition(
                _log,
                "geo data refused, the last good stay",
                logging.ERROR,
                cause=change.why,
                serving=geo_hash(self._files.locator),
            )
            return
        transition(
            _log,
            "geo data reloaded" if change.outcome == "loaded" else "geo files changed in name only",
            geo=geo_hash(self._files.locator),
            moved_v4=percent(change.moves.v4_space),
            moved_v6=percent(change.moves.v6_space),
        )
