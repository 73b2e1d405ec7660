"""round_robin: all addresses, each as often in front as any other; of a tier all of its pools.

The plan is one rotation for each address, drawn evenly; `max_answers` takes a window of it. Pools
of a tier that are all round_robin are one list; others follow each other in the order written.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ..plan import Node
from .base import Ground, Option, rotations


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """round_robin has no settings."""


def compile(
    settings: Settings, options: Sequence[Option], max_answers: int, ground: Ground
) -> Node:
    """The rotations of the options."""
    return rotations(range(len(options)), max_answers, ground.pick)
