"""From outcomes to opinions, and from opinions to a region's vote; on columns. Pure.

An *opinion* is one agent's, a *vote* one region's; both are codes: none, up, down. Row i of every
array speaks of the same target, and no target has two rows in one call: what several rows in order
mean is `rounds`' business. Whose columns these are and what is too old to count stands in
`evidence`; whether votes make a verdict stands in `quorum`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .events import FAILURE, NO_OPINION, SUCCESS

Codes = NDArray[np.int8]
Ints = NDArray[Any]

NO_VOTE, UP, DOWN = 0, 1, 2
"""Opinions, votes and verdicts in columns."""
NAMES = ("none", "up", "down")
MAX_ROUNDS = 256
"""Rows of one target that count in one frame, the first and the newest ones; fall and rise end at
100, so that no honest agent can tell the difference."""

# The truth about one outcome. `reached`: the streak that ends with it has the needed length,
# which is `fall` for failures and `rise` for successes.
#
#   base   | success        | success, reached | failure | failure, reached | no opinion
#   -------+----------------+------------------+---------+------------------+-----------
#   none   | up             | up               | none    | down             | none
#   up     | up             | up               | up      | down             | none
#   down   | down           | up               | down    | down             | none
_TABLE: Codes = np.zeros(3 * 4 * 2, dtype=np.int8)
for _base in (NO_VOTE, UP, DOWN):
    for _reached in (0, 1):
        _TABLE[(_base * 4 + 0) * 2 + _reached] = _base
        _TABLE[(_base * 4 + SUCCESS) * 2 + _reached] = DOWN if (_base, _reached) == (2, 0) else UP
        _TABLE[(_base * 4 + FAILURE) * 2 + _reached] = DOWN if _reached else _base
        _TABLE[(_base * 4 + NO_OPINION) * 2 + _reached] = NO_VOTE
_TABLE.setflags(write=False)


def opinions(base: Codes, outcome: Codes, streak: Ints, fall: Ints, rise: Ints) -> Codes:
    """The opinions after `outcome`, which makes a streak of length `streak`, on top of `base`.

    An outcome of none leaves the base.
    """
    needed = np.where(outcome == FAILURE, fall, rise)
    code = base * np.int8(8) + outcome * np.int8(2)
    code += streak >= needed
    result: Codes = _TABLE[code]
    return result


def streaks(last: Codes, streak: Ints, outcome: Codes) -> Ints:
    """The streaks after `outcome`, where `last` repeated itself `streak` times before."""
    result: Ints = np.where(last == outcome, streak, 0) + 1
    return result


def votes(agents: Sequence[Codes], stored: Codes, current: Codes) -> Codes:
    """A region's votes: the majority of its agents that have an opinion.

    On a tie a vote stays as it is in `current`; where no agent has an opinion it is the `stored`
    one (none when that has lapsed).
    """
    if len(agents) == 1:
        single: Codes = np.where(agents[0] == NO_VOTE, stored, agents[0])
        return single
    balance = np.zeros(len(stored), dtype=np.int32)
    heard = np.zeros(len(stored), dtype=bool)
    for opinion in agents:
        balance += (opinion == UP).astype(np.int32) - (opinion == DOWN)
        heard |= opinion != NO_VOTE
    tie: Codes = np.where(heard, current, stored)
    result: Codes = np.where(balance > 0, UP, np.where(balance < 0, DOWN, tie)).astype(np.int8)
    return result


def rounds(target: Ints, scratch: Ints) -> Iterator[slice | Ints]:
    """Selections of rows that together are all rows, none of which holds a target twice.

    Rows of one target come in their order. `scratch` is as long as targets have numbers; what it
    holds is overwritten. A frame without repetitions is one selection.
    """
    count = len(target)
    if count == 0:
        return
    position = np.arange(count, dtype=scratch.dtype)
    scratch[target[::-1]] = position[::-1]  # the last write stays: the first row of each target
    first = scratch[target] == position
    if first.all():
        yield slice(None)
        return
    rows = np.flatnonzero(first)
    rest = _newest(target, np.flatnonzero(~first))
    while True:
        yield rows
        if rest.size == 0:
            return
        scratch[target[rest[::-1]]] = rest[::-1]
        first = scratch[target[rest]] == rest
        rows, rest = rest[first], rest[~first]


def _newest(target: Ints, rest: Ints) -> Ints:
    """Those of `rest` that are among the last rows of their target."""
    if rest.size < MAX_ROUNDS or int(np.bincount(target[rest]).max()) < MAX_ROUNDS:
        return rest
    backwards = rest[np.argsort(target[rest], kind="stable")][::-1]
    starts = np.flatnonzero(np.diff(target[backwards], prepend=-1))
    lengths = np.diff(starts, append=len(backwards))
    rank = np.arange(len(backwards)) - np.repeat(starts, lengths)
    return np.sort(backwards[rank < MAX_ROUNDS - 1])
