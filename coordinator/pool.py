"""From verdicts to a pool's published state: who is in, who is out, and why. Pure.

An address is judged by an operator's force, else its mode, else the verdicts over its checks; what
no verdict speaks of keeps its published state. What a pool remembers stands here too: the member in
force of a sequence that is not pre-emptive, and who was answered when it was last available.
Whether it is available is `gtm.availability`'s business, and which pool serves is the resolver's
and `route`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import UNSET

from gtm.availability import available
from gtm.choices import Judgement
from gtm.model import Address, Check, Family, Pool, Steering
from gtm.state import (
    BRAKED,
    EXCLUDED,
    AddressSet,
    ForceAction,
    Health,
    LastGood,
    LatencyGroup,
    Member,
    PoolState,
    Why,
)
from gtm.units import Share

from .targets import checks_of, probe_ms

RESOLVING_MS = 5000
"""How long an unpublished flattened pool waits for its names, at least."""
WHOLE = ""
"""What stands for the pool itself among the forces on its members."""
NO_FORCES: Mapping[str, ForceAction] = MappingProxyType({})
NO_SETS: Mapping[str, AddressSet] = MappingProxyType({})

_IN: frozenset[Why] = frozenset(
    {"up", "unmonitored", "online", "unknown_as_up", "manual_up", "forced_up"}
)
_KEPT: Mapping[Why, Why] = {
    **{why: why for why in ("up", "down", "unmonitored", "online", "manual_up")},
    **dict.fromkeys(BRAKED, "down"),
}
"""What published reasons make of an address without a verdict; any other leaves it unknown."""
_MODES: Mapping[str, Why] = {
    "online": "online",
    "offline": "offline",
    "manual_up": "manual_up",
    "manual_down": "manual_down",
}
_FORCED: Mapping[str, Why] = {"up": "forced_up", "down": "forced_down", "drain": "drained"}

Verdicts = Sequence[tuple[str, Health]]
"""The verdicts over one address, by check."""
Penalties = Mapping[str, Mapping[str, int]]
"""The penalties of damped targets: address -> check -> penalty."""
NO_PENALTIES: Penalties = MappingProxyType({})


def address_health(judgement: Judgement, verdicts: Iterable[tuple[str, Health]]) -> Health:
    """What the verdicts over an address's checks make together.

    A check without a verdict is left out.
    """
    up = judgement.up(
        (check, verdict == "up") for check, verdict in verdicts if verdict != "unknown"
    )
    return "unknown" if up is None else "up" if up else "down"


def patience_ms(pool: Pool, checks: Mapping[str, Check]) -> int:
    """How long an unpublished pool waits for verdicts: fall x (longest probe + 1 s) + 2 s.

    A flattened one waits at least `RESOLVING_MS`, for addresses.
    """
    named = [checks[name] for name in checks_of(pool) if name in checks]
    waits = [check.fall * (probe_ms(check) + 1000) + 2000 for check in named]
    return max([RESOLVING_MS if _flat(pool) else 0, *waits])


@lru_cache(maxsize=1024)
def stays(steering: Steering) -> bool:
    """Whether it is a sequence that stays with whom it chose while that one is there."""
    if steering.type != "sequence":
        return False
    return msgspec.json.decode(steering.options).get("preemptive") is False


def judge(
    pool: Pool,
    verdicts: Sequence[Verdicts],
    published: PoolState | None,
    *,
    patient: bool,
    generation: int,
    wall_s: float,
    sets: Mapping[str, AddressSet] = NO_SETS,
    forces: Mapping[str, ForceAction] = NO_FORCES,
    latency: Mapping[str, tuple[LatencyGroup, ...]] = MappingProxyType({}),
    penalties: Penalties = NO_PENALTIES,
    held: Mapping[str, float] = MappingProxyType({}),
    wavering: Mapping[Family, bool] = MappingProxyType({}),
) -> PoolState | None:
    """The state of `pool`, given each address's verdicts (in the order of its addresses).

    None: it was never published and waits, as long as it is `patient`, for a verdict over each of
    its smart addresses, and an address for each of its names. A member that is as it was keeps its
    `since`. `sets` are what names of flattened pools stand for, `forces` maps a member's value, or
    `WHOLE`, to what an operator wants of it; whom the guard holds is in `held`, since when (Unix).
    """
    sets = sets if _flat(pool) else NO_SETS
    before = {} if published is None else {member.value: member for member in published.members}
    judged = whys(pool, verdicts, before, penalties)
    if held:
        judged = [
            "held" if why == "down" and address.value in held else why
            for address, why in zip(pool.addresses, judged, strict=True)
        ]
    if _flat(pool):
        judged = [
            why if why in EXCLUDED or address.value in sets else "unresolved"
            for address, why in zip(pool.addresses, judged, strict=True)
        ]
    if published is None and patient and not {"unknown", "unresolved"}.isdisjoint(judged):
        return None
    if not any(why in _IN for why in judged):
        judged = ["unknown_as_up" if why == "unknown" else why for why in judged]
    on = [forces.get(address.value) or forces.get(WHOLE) for address in pool.addresses]
    reasons = [_forced(why, force) for why, force in zip(judged, on, strict=True)]
    if pool.floor is not UNSET:
        for index in _floored(pool, pool.floor, reasons, on, before):
            judged[index] = reasons[index] = "floored"
    places = [_places(sets.get(address.value)) for address in pool.addresses]
    answered = frozenset[str]().union(
        *(place for place, why in zip(places, reasons, strict=True) if why in _IN)
    )
    members = tuple(
        _member(
            address,
            why,
            own if force else "",
            sets.get(address.value),
            counted=why in _IN or (why == "drained" and own in _IN and place <= answered),
            before=before.get(address.value),
            wall_s=wall_s,
            penalty=max(penalties.get(address.value, {}).values(), default=0),
            held_since=held.get(address.value, 0.0) if "held" in (why, own) else 0.0,
        )
        for address, why, own, force, place in zip(
            pool.addresses, reasons, judged, on, places, strict=True
        )
    )
    state = PoolState(
        generation=generation,
        type=pool.type,
        flatten=pool.flatten,
        steering=pool.steering,
        min_available=pool.min_available,
        max_answers=pool.max_answers,
        members=members,
        member_in_force=_in_force(pool, members, published),
        latency=_near(latency, {member.value for member in members}),
        wavering=dict(wavering),
    )
    return msgspec.structs.replace(state, last_good=_last_good(state, published, wall_s))


def same(one: PoolState, other: PoolState) -> bool:
    """Whether two states say the same; the generation that they were judged under says nothing."""
    return msgspec.structs.replace(one, generation=other.generation) == other


def _flat(pool: Pool) -> bool:
    return pool.type == "domain" and pool.flatten


def whys(
    pool: Pool,
    verdicts: Sequence[Verdicts],
    before: Mapping[str, Member],
    penalties: Penalties = NO_PENALTIES,
) -> list[Why]:
    """What each member is without forces and brakes, `unknown` where only the others can tell.

    `before` are the published members by value, `penalties` those of damped checks by address.
    """
    return [
        why_of(pool, address, of, before.get(address.value), penalties.get(address.value))
        for address, of in zip(pool.addresses, verdicts, strict=True)
    ]


def why_of(
    pool: Pool,
    address: Address,
    verdicts: Verdicts,
    before: Member | None,
    penalties: Mapping[str, int] | None = None,
) -> Why:
    """What one member is, in the same way."""
    if address.mode != "smart":
        return _MODES[address.mode]
    if not address.checked_by(pool):
        return "unmonitored"
    health = address_health(pool.check_judgement, verdicts)
    if health == "up" and penalties:
        quiet = [(check, "down" if check in penalties else one) for check, one in verdicts]
        return "up" if address_health(pool.check_judgement, quiet) == "up" else "damped"
    if health != "unknown":
        return health
    return "unknown" if before is None else _KEPT.get(before.judged or before.why, "unknown")


def _floored(
    pool: Pool,
    floor: Share,
    reasons: Sequence[Why],
    forces: Sequence[ForceAction | None],
    before: Mapping[str, Member],
) -> list[int]:
    """The members (by index) that health took out, and that the pool's floor keeps in answers.

    First those that are only damped, then those that the floor keeps already, then those that went
    last.
    """
    total = sum(why not in EXCLUDED for why in reasons)
    kept = sum(why in _IN or why in BRAKED for why in reasons)
    missing = -(-(floor.of_one * total).numerator // (floor.of_one * total).denominator) - kept
    if missing <= 0:
        return []

    def rank(index: int) -> tuple[bool, bool, bool, float, int]:
        was = before.get(pool.addresses[index].value)
        floored = was is not None and was.why == "floored"
        answered = was is not None and was.answered
        since = 0.0 if was is None else was.since
        return (reasons[index] != "damped", not floored, not answered, -since, index)

    may = [
        index
        for index, why in enumerate(reasons)
        if why in ("down", "damped") and forces[index] is None
    ]
    return sorted(may, key=rank)[:missing]


def _forced(judged: Why, force: ForceAction | None) -> Why:
    """What a member is under `force`.

    Who is out of all totals can't be drained, and a name without an address can't be answered.
    """
    if force is None or (force == "drain" and judged in EXCLUDED):
        return judged
    if judged == "unresolved" and force != "down":
        return judged
    return _FORCED.get(force, judged)


def _places(found: AddressSet | None) -> frozenset[str]:
    """The families that a member of a flattened pool is in; for others all members are in one."""
    if found is None:
        return frozenset({""})
    return frozenset("ipv6" if ":" in address else "ipv4" for address in found.addresses)


def _member(
    address: Address,
    why: Why,
    judged: Why | Literal[""],
    found: AddressSet | None,
    *,
    counted: bool,
    before: Member | None,
    wall_s: float,
    penalty: int,
    held_since: float,
) -> Member:
    member = Member(
        value=address.value,
        weight=address.weight,
        lines=address.lines,
        location=address.location,
        answered=why in _IN or why in BRAKED,
        counted=counted,
        why=why,
        judged=judged,
        since=wall_s,
        penalty=penalty,
        held_since=held_since,
        set=found,
    )
    as_before = before is not None and (before.why, before.answered, before.counted) == (
        member.why,
        member.answered,
        member.counted,
    )
    if before is None or not as_before:
        return member
    return msgspec.structs.replace(member, since=before.since)


def _near(
    latency: Mapping[str, tuple[LatencyGroup, ...]], there: Set[str]
) -> dict[str, tuple[LatencyGroup, ...]]:
    """The groups without members that are gone."""
    found: dict[str, tuple[LatencyGroup, ...]] = {}
    for region, groups in latency.items():
        kept = [
            LatencyGroup(
                rtt_us=group.rtt_us, members=tuple(one for one in group.members if one in there)
            )
            for group in groups
        ]
        if left := tuple(group for group in kept if group.members):
            found[region] = left
    return found


def _in_force(pool: Pool, members: tuple[Member, ...], published: PoolState | None) -> str:
    """Whom a sequence that stays answers: who was in force, else the first; "" for others."""
    if not stays(pool.steering):
        return ""
    answered = [member.value for member in members if member.answered]
    if published is not None and published.member_in_force in answered:
        return published.member_in_force
    return answered[0] if answered else ""


def _last_good(state: PoolState, published: PoolState | None, wall_s: float) -> LastGood | None:
    """Who was answered when the pool was last available; None while it is, or never was."""
    if published is None or available(state, None):
        return None
    last = published.last_good
    if available(published, None):
        answered = tuple(
            member.value
            for member in published.members
            if member.answered and member.why not in BRAKED
        )
        last = LastGood(members=answered, until=wall_s)
    if last is None:
        return None
    there = {member.value for member in state.members}
    return LastGood(members=tuple(one for one in last.members if one in there), until=last.until)
