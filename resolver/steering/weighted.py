"""weighted: some addresses drawn by weight, without repetition; of a tier one pool, or several.

Systematic sampling (Madow 1949) in integers: an address of weight w among a sum S is in a share of
exactly min(1, k*w/S) of the answers of k addresses, and few different sets exist (at most one for
each address), so all are ready in advance.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from msgspec import Meta, Struct

from ..plan import Node, Weighted
from .base import Ground, Option, refuse_too_many


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What weighted may be told."""

    answers: Annotated[int, Meta(ge=1, le=64, description="addresses in one answer")] = 1


def compile(
    settings: Settings, options: Sequence[Option], max_answers: int, ground: Ground
) -> Node:
    """The draws of `answers` options (never more than `max_answers`) by weight."""
    weights = [option.weight for option in options]
    if not any(weights):  # only options of weight 0 are left: all alike
        weights = [1] * len(weights)
    sets = samples(weights, min(settings.answers, max_answers, len(options)))
    refuse_too_many(len(sets))
    branches = tuple(ground.pick(picked) for picked, _ in sets)
    if len(branches) == 1:
        return branches[0]
    ends, total = [], 0
    for _, weight in sets:
        total += weight
        ends.append(total)
    return Weighted(total, branches, tuple(ends))


def samples(weights: Sequence[int], count: int) -> list[tuple[tuple[int, ...], int]]:
    """(picked indexes, weight) of every set of `count` that can be drawn, in order of the draw.

    With S the sum of weights and u drawn from 0..S-1, index j of cumulated weight c is picked when
    its interval [k*c, k*(c + w)) holds u + i*S for an i in 0..k-1; who weighs S/k or more is always
    in, and is taken out first. Weights are positive, and `count` is at most their number.
    """
    certain: set[int] = set()
    rest, total, left = dict(enumerate(weights)), sum(weights), count
    while heavy := [j for j, weight in rest.items() if left and weight * left >= total]:
        certain.add(heavy[0])
        total -= rest.pop(heavy[0])
        left -= 1
    if not left:
        return [(tuple(sorted(certain)), 1)]
    members, starts, end = list(rest), [], 0
    for weight in rest.values():
        starts.append(end)
        end += left * weight
    sets: list[tuple[tuple[int, ...], int]] = []
    for low, high in pairwise(sorted({start % total for start in starts} | {total})):
        points = (low + turn * total for turn in range(left))
        drawn = {members[bisect_right(starts, point) - 1] for point in points}
        picked = tuple(sorted(certain | drawn))
        if sets and sets[-1][0] == picked:
            sets[-1] = (picked, sets[-1][1] + high - low)
        else:
            sets.append((picked, high - low))
    return sets
