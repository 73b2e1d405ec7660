"""sequence: the first that is available, in the order written.

With `preemptive: false` it stays with whom it has for as long as that one is available, also when
an earlier one is back: who that is, the coordinator decides and publishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from ..plan import Node
from .base import Ground, Option


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What sequence may be told."""

    preemptive: Annotated[
        bool, Meta(description="return to an earlier one as soon as it is available again")
    ] = True


def compile(
    settings: Settings, options: Sequence[Option], max_answers: int, ground: Ground
) -> Node:
    """The one option whose turn it is."""
    if not settings.preemptive:
        for index, option in enumerate(options):
            if option.key == ground.in_force:
                return ground.pick((index,))
    return ground.pick((0,))
