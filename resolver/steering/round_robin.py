"""round_robin: all addresses, each as often in front as any other.

The plan is one rotation for each address, drawn evenly; `max_answers` takes a window of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from gtm.state import Member

from ..plan import Node, Weighted
from .base import Leaf, refuse_too_many


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """round_robin has no settings."""


def compile(settings: Settings, members: Sequence[Member], max_answers: int, leaf: Leaf) -> Node:
    """The rotations of the members."""
    return rotations([member.value for member in members], max_answers, leaf)


def join(pools: Sequence[Sequence[Member]], max_answers: int, leaf: Leaf) -> Node:
    """Pools of a tier as one list, in order, each address once, with one rotation."""
    values = dict.fromkeys(member.value for members in pools for member in members)
    return rotations(list(values), max_answers, leaf)


def rotations(values: Sequence[str], max_answers: int, leaf: Leaf) -> Node:
    """Every rotation of `values`, cut to `max_answers`; each value leads one of them."""
    count = len(values)
    refuse_too_many(count)
    window = min(max_answers, count)
    twice = [*values, *values]
    branches = tuple(leaf(twice[start : start + window]) for start in range(count))
    return branches[0] if count == 1 else Weighted(count, branches)
