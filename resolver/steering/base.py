"""What a steering policy is: a compiler from options to a plan, and then gone.

Options are the members of a pool, or the pools of a tier, that may be answered now. A policy's
module has `Settings` (frozen, with the defaults) and `compile`. It never sees health, TTL or the
wire: it is handed the options, of which there is at least one, and a `Ground` that makes the answer
of some of them. Pure.

Laws (tests/variants): never answers an option that it was not handed; same input, same plan; every
draw and every client lands; shares are exact where they are promised.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol, cast

from msgspec import Struct, field

from gtm import options as texts
from gtm.model import Location, Region, Steering
from gtm.variants import variants

from ..clients import Client
from ..limits import MAX_LEAVES
from ..plan import Node, Weighted

PACKAGE = "resolver.steering"


class Option(Struct, frozen=True):
    """What a policy chooses among: a member of a pool, or a pool of a tier.

    `points` are where it is, `rtt_us` its round trip in microseconds as seen from regions.
    """

    key: str
    weight: int = 1
    lines: tuple[str, ...] = ()
    points: tuple[Location, ...] = ()
    rtt_us: Mapping[str, int] = field(default_factory=dict)


class Ground(Protocol):
    """What a policy is handed beside the options."""

    @property
    def regions(self) -> Mapping[str, Region]:
        """The declared regions."""

    @property
    def in_force(self) -> str:
        """The key of the option that a choice with memory stays with; "" where there is none."""

    def pick(self, indexes: Sequence[int]) -> Node:
        """The answer of these options, in this order."""

    def located(
        self, key: Hashable, lines: Collection[str], choose: Callable[[Client], tuple[int, ...]]
    ) -> Node:
        """The answer of the options that `choose` gives a client, each as often first as any other.

        `lines` are all that `choose` asks about, and `key` names it among all others.
        """


class Policy(Protocol):
    """The shape of a policy's module."""

    Settings: type[Struct]

    def compile(
        self, settings: Any, options: Sequence[Option], max_answers: int, ground: Ground
    ) -> Node:
        """The plan that picks among `options`."""


def policy_of(steering: Steering) -> tuple[Policy, Struct]:
    """The policy that a pool or tier names and its settings; ValueError where there is none."""
    return _policy(steering.type, steering.options)


@lru_cache(256)
def _policy(name: str, options: str) -> tuple[Policy, Struct]:
    module = variants(PACKAGE).get(name)
    if module is None:
        raise ValueError(f"no steering policy {name!r}")
    return cast(Policy, module), texts.settings(options, module.Settings)


def rotations(
    indexes: Sequence[int], max_answers: int, pick: Callable[[Sequence[int]], Node]
) -> Node:
    """Every rotation of `indexes`, cut to `max_answers`; each index leads one of them."""
    count = len(indexes)
    refuse_too_many(count)
    window = min(max_answers, count)
    twice = [*indexes, *indexes]
    branches = tuple(pick(twice[start : start + window]) for start in range(count))
    return branches[0] if count == 1 else Weighted(count, branches)


def most_leaves(options: int) -> int:
    """How many different answers a policy can have at most, of so many options."""
    return max(1, options)


def refuse_too_many(leaves: int) -> None:
    """ValueError where a tier would have more than MAX_LEAVES different answers."""
    if leaves > MAX_LEAVES:
        raise ValueError(f"{leaves} different answers in one tier; {MAX_LEAVES} is the most")
