"""How far apart two monotonic clocks are, from messages that tell their sender's. Pure.

The clocks share no zero, but what a message shows of their difference is least for the one that
came quickest: that is the difference and the shortest way, and no clock needs to be set.
"""

from __future__ import annotations

WINDOW_MS = 60_000
"""The quickest of the present window and of the one before it counts, for clocks drift apart."""


class Apart:
    """Of one stream; `heard` is called for each of its messages, in order."""

    def __init__(self) -> None:
        self._least: int | None = None
        self._former: int | None = None
        self._began_ms = 0

    def heard(self, sent_ms: int, now_ms: int) -> int:
        """The reading of our clock when theirs showed 0, after a message that left at `sent_ms`."""
        apart = now_ms - sent_ms
        if self._least is None:
            self._least, self._began_ms = apart, now_ms
        elif now_ms - self._began_ms >= WINDOW_MS:
            self._former, self._least, self._began_ms = self._least, apart, now_ms
        else:
            self._least = min(self._least, apart)
        return self._least if self._former is None else min(self._least, self._former)
