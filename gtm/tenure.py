"""How long a lease surely lives, by its holder's own clock. Pure."""

from __future__ import annotations


def ends_s(asked_s: float, answered_s: float, ttl_s: float) -> float:
    """When a lease is over for its holder who asked, and was answered, at these instants.

    The store counts from when it received the request, which is no earlier than when it was sent.
    Counted from the answer, a holder would go on for as long as that was under way.
    """
    del answered_s
    return asked_s + ttl_s
