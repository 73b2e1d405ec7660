"""How late a message is: the time that it travelled beyond what others of its stream took. Pure.

Ages on the wire count up to the moment of sending, so a link that held a stream back and then let
it go would make old results look new: an address long dead would be up again for a moment. The two
monotonic clocks share no zero, but their difference is least for the message that came quickest,
and every other one is late by what it shows beyond that.
"""

from __future__ import annotations

MOST_MS = 86_400_000
"""No message is taken to be later than this, whatever clock its sender shows."""
WINDOW_MS = 60_000
"""The quickest of the present window and of the one before it counts, for clocks drift apart."""


class Delay:
    """Of one stream; `late_ms` is called for each of its messages, in order."""

    def __init__(self) -> None:
        self._least: int | None = None
        self._former: int | None = None
        self._began_ms = 0

    def late_ms(self, sent_ms: int, now_ms: int) -> int:
        """How late a message is that left at `sent_ms` (their clock, 0: unknown, so 0)."""
        if not sent_ms:
            return 0
        apart = now_ms - sent_ms
        if self._least is None:
            self._least, self._began_ms = apart, now_ms
        elif now_ms - self._began_ms >= WINDOW_MS:
            self._former, self._least, self._began_ms = self._least, apart, now_ms
        else:
            self._least = min(self._least, apart)
        quickest = self._least if self._former is None else min(self._least, self._former)
        return min(apart - quickest, MOST_MS)
