"""What a steering policy is: a compiler from the members of a pool to a plan, and then gone.

A policy's module has `Settings` (frozen, with the defaults), `compile`, and `join` where several
pools of a tier that all use it form one list. It never sees health, TTL or the wire: it is handed
the members that may be answered and `leaf`, which makes a record set of some of them. Pure.

Laws (tests/variants): never answers a member that it was not handed; same input, same plan; every
draw lands; long-run shares are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol, cast

import msgspec
from msgspec import Struct

from gtm.model import Steering
from gtm.state import Member, PoolState
from gtm.variants import variants

from ..limits import MAX_LEAVES
from ..plan import Answers, Node

PACKAGE = "resolver.steering"
Leaf = Callable[[Sequence[str]], Answers]
"""Makes the leaf of some addresses, in the order given."""


class Policy(Protocol):
    """The shape of a policy's module."""

    Settings: type[Struct]

    def compile(
        self, settings: Any, members: Sequence[Member], max_answers: int, leaf: Leaf
    ) -> Node:
        """The plan that picks among `members`, of which there is at least one."""


def policy_of(steering: Steering) -> tuple[Policy, Struct]:
    """The policy that a pool names and its settings; ValueError where there is none such."""
    return _policy(steering.type, steering.options)


@lru_cache(256)
def _policy(name: str, options: str) -> tuple[Policy, Struct]:
    module = variants(PACKAGE).get(name)
    if module is None:
        raise ValueError(f"no steering policy {name!r}")
    return cast(Policy, module), msgspec.json.decode(options, type=module.Settings)


def in_play(pool: PoolState) -> tuple[Member, ...]:
    """The members that are answered now; those of weight 0 only when there is no other."""
    answered = tuple(member for member in pool.members if member.answered)
    return tuple(member for member in answered if member.weight > 0) or answered


def compile_pool(pool: PoolState, leaf: Leaf) -> Node:
    """The plan of one pool's own pick among its members in play, of which there is at least one."""
    policy, settings = policy_of(pool.steering)
    return policy.compile(settings, in_play(pool), pool.max_answers, leaf)


def most_leaves(members: int) -> int:
    """How many different leaves a pool of that many members can have at most, by any policy."""
    return max(1, members)


def refuse_too_many(leaves: int) -> None:
    """ValueError where a tier would have more than MAX_LEAVES different answers."""
    if leaves > MAX_LEAVES:
        raise ValueError(f"{leaves} different answers in one tier; {MAX_LEAVES} is the most")
