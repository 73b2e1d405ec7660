"""How late a message is: the time that it travelled beyond what others of its stream took. Pure.

Ages on the wire count up to the moment of sending, so a link that held a stream back and then let
it go would make old results look new: an address long dead would be up again for a moment. The two
monotonic clocks share no zero, but their difference is least for the message that came quickest,
and every other one is late by what it shows beyond that.
"""

from __future__ import annotations

from gtm.apart import Apart

MOST_MS = 86_400_000
"""No message is taken to be later than this, whatever clock its sender shows."""


class Delay:
    """Of one stream; `late_ms` is called for each of its messages, in order."""

    def __init__(self) -> None:
        self._apart = Apart()

    def late_ms(self, sent_ms: int, now_ms: int) -> int:
        """How late a message is that left at `sent_ms` (their clock, 0: unknown, so 0)."""
        if not sent_ms:
            return 0
        return min(now_ms - sent_ms - self._apart.heard(sent_ms, now_ms), MOST_MS)
