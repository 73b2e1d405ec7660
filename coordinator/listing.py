"""Verdicts in small helpings: all of a large set at once would let leases and streams starve.

Making 100,000 verdicts with ten votes each takes some twenty seconds; between two helpings the loop
does everything else that waits. What is listed is therefore each verdict as of its own moment.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence

from .engine import Engine
from .events import Now, TargetKey
from .views import VerdictView

MAX_PAGE = 1_000
"""Verdicts in one answer of ListVerdicts."""
HELPING = 50
"""Verdicts made without a pause, some milliseconds."""


async def views(
    engine: Engine, keys: Sequence[TargetKey], now: Callable[[], Now]
) -> AsyncIterator[VerdictView]:
    """The verdicts over `keys` in their order, without those that went meanwhile."""
    for start in range(0, len(keys), HELPING):
        for view in engine.verdicts_over(keys[start : start + HELPING], now()):
            yield view
        await asyncio.sleep(0)


def page(keys: Sequence[TargetKey], token: str, size: int) -> tuple[Sequence[TargetKey], str]:
    """At most `size` (0: as many as there may be) of the sorted `keys` after `token`.

    And the token that continues after them, "" where nothing is left. Raises ValueError for what
    is no token.
    """
    start = bisect_right(keys, _key(token)) if token else 0
    part = keys[start : start + (min(size, MAX_PAGE) or MAX_PAGE)]
    more = start + len(part) < len(keys)
    return part, _token(part[-1]) if more else ""


def _token(key: TargetKey) -> str:
    return f"{key.check}/{key.address}/{key.port}"


def _key(token: str) -> TargetKey:
    parts = token.split("/")
    if len(parts) != 3 or not parts[2].isdecimal():
        raise ValueError(f"{token!r} is no page token of ours")
    return TargetKey(parts[0], parts[1], int(parts[2]))
