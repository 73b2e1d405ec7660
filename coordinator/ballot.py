"""The rules of leading, without clock or store: when to run, when to yield, what a write compares.

`election` and `publisher` act by these; an explorer of every interleaving of two coordinators, a
store and a network that loses and delays (`tests/simulation/explorer.py`) acts by the same. A
*fence* is the create revision of our leader key, 0 where we have none. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from gtm import keys
from gtm.store import Compare, Done


class Move(Enum):
    """What news of the leader key asks of a candidate."""

    STAY = "stay"
    """Nothing changed: the news is older than our own key, or that key itself."""
    YIELD = "yield"
    """Another one leads."""
    RUN = "run"
    """Nobody leads: if it was us, no more; try to become it."""


def seen(fence: int, created: int, revision: int, *, listed: bool) -> Move:
    """What follows from the leader key's create revision (0: not there) as of `revision`.

    `listed`: read anew, perhaps of another history, whose revisions prove nothing.
    """
    if (revision < fence and not listed) or (created and created == fence):
        return Move.STAY
    return Move.YIELD if created else Move.RUN


def won(done: Done, lease: int) -> int:
    """The fence that an attempt to create the key gave us; 0 where another one has it.

    An attempt whose answer was lost may have succeeded: the key is then under our own lease.
    """
    if done.succeeded:
        return done.revision
    if done.reads and done.reads[0] and done.reads[0][0].lease == lease:
        return done.reads[0][0].create_revision
    return 0


def fence_now(fence: int, remaining_s: float) -> int:
    """The fence under which we may write now: none once our lease may be over."""
    return fence if remaining_s > 0 else 0


def conditions(fence: int, head: int) -> Sequence[Compare]:
    """What every write of a leader compares: its key is the store's, the head is as judged."""
    return (
        Compare(keys.leader(), "create", "=", fence),
        Compare(keys.HEAD, "mod", "=", head),
    )
