"""From verdicts to a pool's published state: who is in, who is out, and why. Pure.

An address is judged by its mode, then by the verdicts over its checks; what no verdict speaks of
keeps its published state. Whether the pool as a whole is available is `gtm.availability`'s
business, and which pool serves is the resolver's and `route`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from gtm.model import Address, Check, Pool
from gtm.state import EXCLUDED, AddressSet, Health, Member, PoolState, Why

from .targets import probe_ms

RESOLVING_MS = 5000
"""How long an unpublished flattened pool waits for its names, at least."""
NO_SETS: Mapping[str, AddressSet] = MappingProxyType({})

_IN: frozenset[Why] = frozenset({"up", "unmonitored", "online", "unknown_as_up"})
_KEPT: frozenset[Why] = frozenset({"up", "down", "unmonitored", "online"})
"""Published reasons that an address without a verdict keeps; any other leaves it unknown."""


def address_health(verdicts: Iterable[Health]) -> Health:
    """What the verdicts over an address's checks make together: up when all are.

    A check without a verdict is left out.
    """
    judged = [verdict for verdict in verdicts if verdict != "unknown"]
    if not judged:
        return "unknown"
    return "up" if all(verdict == "up" for verdict in judged) else "down"


def patience_ms(pool: Pool, checks: Mapping[str, Check]) -> int:
    """How long an unpublished pool waits for verdicts: fall x (longest probe + 1 s) + 2 s.

    A flattened one waits at least `RESOLVING_MS`, for addresses.
    """
    named = [checks[name] for name in pool.checks if name in checks]
    least = RESOLVING_MS if _flat(pool) else 0
    return max((check.fall * (probe_ms(check) + 1000) + 2000 for check in named), default=least)


def judge(
    pool: Pool,
    verdicts: Sequence[Sequence[Health]],
    published: PoolState | None,
    *,
    patient: bool,
    generation: int,
    wall_s: float,
    sets: Mapping[str, AddressSet] = NO_SETS,
) -> PoolState | None:
    """The state of `pool`, given each address's verdicts (in the order of its addresses).

    None: it was never published and waits, as long as it is `patient`, for a verdict over each of
    its smart addresses, and an address for each of its names. A member that is as it was keeps its
    `since`. `sets` are what names of flattened pools stand for.
    """
    sets = sets if _flat(pool) else NO_SETS
    before = {} if published is None else {member.value: member for member in published.members}
    reasons = [
        _why(pool, address, address_health(of), before.get(address.value))
        for address, of in zip(pool.addresses, verdicts, strict=True)
    ]
    if _flat(pool):
        reasons = [
            why if why in EXCLUDED or address.value in sets else "unresolved"
            for address, why in zip(pool.addresses, reasons, strict=True)
        ]
    if published is None and patient and not {"unknown", "unresolved"}.isdisjoint(reasons):
        return None
    if not any(why in _IN for why in reasons):
        reasons = ["unknown_as_up" if why == "unknown" else why for why in reasons]
    return PoolState(
        generation=generation,
        type=pool.type,
        flatten=pool.flatten,
        steering=pool.steering,
        min_available=pool.min_available,
        max_answers=pool.max_answers,
        members=tuple(
            _member(address, why, before.get(address.value), wall_s, sets)
            for address, why in zip(pool.addresses, reasons, strict=True)
        ),
    )


def same(one: PoolState, other: PoolState) -> bool:
    """Whether two states say the same; the generation that they were judged under says nothing."""
    return msgspec.structs.replace(one, generation=other.generation) == other


def _flat(pool: Pool) -> bool:
    return pool.type == "domain" and pool.flatten


def _why(pool: Pool, address: Address, health: Health, before: Member | None) -> Why:
    """The reason of one member, with `unknown` where only the others can tell."""
    if address.mode == "online":
        return "online"
    if address.mode == "offline":
        return "offline"
    if not pool.checks:
        return "unmonitored"
    if health != "unknown":
        return health
    return before.why if before is not None and before.why in _KEPT else "unknown"


def _member(
    address: Address,
    why: Why,
    before: Member | None,
    wall_s: float,
    sets: Mapping[str, AddressSet],
) -> Member:
    inside = why in _IN
    as_before = before is not None and (before.why, before.answered, before.counted) == (
        why,
        inside,
        inside,
    )
    return Member(
        value=address.value,
        weight=address.weight,
        answered=inside,
        counted=inside,
        why=why,
        since=before.since if before is not None and as_before else wall_s,
        set=sets.get(address.value),
    )
