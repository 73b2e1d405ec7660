"""What changed, in words for the history: from effects to entries. Pure.

A verdict that turned is told with each member of a pool that changed for it, and by itself only
where none did. Keeps the states that were told last, to know what each change began from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gtm.availability import available, serves
from gtm.model import FAMILIES
from gtm.state import (
    HistoryEntry,
    Member,
    PoolState,
    Route,
    Routes,
    VerdictRecord,
)

from . import keyed
from .events import Effect, Now, PublishAside, PublishPool, PublishRoutes, PublishVerdict, TargetKey

NEW = "new"
"""What something was that was not there."""
GONE = "gone"


class Telling:
    """The states as they were told last."""

    def __init__(self) -> None:
        self._verdicts: dict[TargetKey, VerdictRecord] = {}
        self._pools: dict[str, PoolState] = {}
        self._routes: dict[str, Routes] = {}

    def restore(
        self,
        verdicts: Mapping[TargetKey, VerdictRecord],
        pools: Mapping[str, PoolState],
        routes: Mapping[str, Routes],
    ) -> None:
        """Take what the store has."""
        self._verdicts, self._pools, self._routes = dict(verdicts), dict(pools), dict(routes)

    def told(self, effects: Iterable[Effect], now: Now) -> list[tuple[str, HistoryEntry]]:
        """The entries of one evaluation, each with the key whose write commits it."""
        found: list[tuple[str, HistoryEntry]] = []
        turned: dict[str, tuple[TargetKey, VerdictRecord, str]] = {}  # by address
        carried: set[str] = set()
        effects = list(effects)
        for effect in effects:
            if isinstance(effect, PublishVerdict):
                before = self._verdicts.pop(effect.target, None)
                if (record := effect.record) is None:
                    continue
                self._verdicts[effect.target] = record
                was = NEW if before is None else before.verdict
                if was != record.verdict:
                    turned[effect.target.address] = (effect.target, record, was)
        for effect in effects:
            match effect:
                case PublishPool(name=name, state=state):
                    before_state = self._pools.pop(name, None)
                    if state is None:
                        continue
                    self._pools[name] = state
                    for entry, address in _pool(name, before_state, state, turned, now):
                        found.append((keyed.of(effect), entry))
                        carried.add(address)
                case PublishRoutes(instance=name, routes=routes):
                    before_routes = self._routes.pop(name, None)
                    if routes is not None:
                        self._routes[name] = routes
                    found += [
                        (keyed.of(effect), one) for one in _routes(name, before_routes, routes, now)
                    ]
                case PublishAside(region=region, record=aside):
                    entry = HistoryEntry(
                        time=now.wall_s,
                        kind="region",
                        target=f"region:{region}",
                        before="counts" if aside is not None else "aside",
                        after="aside" if aside is not None else "counts",
                        why=aside.text if aside is not None else "",
                    )
                    found.append((keyed.of(effect), entry))
        for effect in effects:
            if isinstance(effect, PublishVerdict) and effect.record is not None:
                told = turned.get(effect.target.address)
                if told is not None and told[0] == effect.target and told[0].address not in carried:
                    found.append((keyed.of(effect), _verdict(*told, now)))
        return found


def _verdict(target: TargetKey, record: VerdictRecord, was: str, now: Now) -> HistoryEntry:
    return HistoryEntry(
        time=now.wall_s,
        kind="verdict",
        target=f"{target.check}/{target.address}/{target.port}",
        before=was,
        after=record.verdict,
        why=record.rule,
        detected=record.first_failed,
        votes=_votes(record),
    )


def _votes(record: VerdictRecord) -> dict[str, float]:
    """When the votes turned that say what the verdict says."""
    return {
        region: vote.since
        for region, vote in record.votes.items()
        if vote.vote == record.verdict and vote.since
    }


def _pool(
    name: str,
    before: PoolState | None,
    after: PoolState,
    turned: Mapping[str, tuple[TargetKey, VerdictRecord, str]],
    now: Now,
) -> Iterator[tuple[HistoryEntry, str]]:
    """A pool's members that changed, then whether it can serve; with the address of each."""
    was = {} if before is None else {member.value: member for member in before.members}
    is_ = {member.value: member for member in after.members}
    for value in [*is_, *(value for value in was if value not in is_)]:
        one, other = _word(was.get(value), NEW), _word(is_.get(value), GONE)
        if one == other:
            continue
        entry = HistoryEntry(
            time=now.wall_s, kind="address", target=f"{name}/{value}", before=one, after=other
        )
        if value in turned:
            _, record, _ = turned[value]
            entry = HistoryEntry(
                time=now.wall_s,
                kind="address",
                target=f"{name}/{value}",
                before=one,
                after=other,
                why=record.rule,
                detected=record.first_failed,
                votes=_votes(record),
            )
        yield entry, value
    for family in FAMILIES:
        if not serves(after, family):
            continue
        could = before is not None and available(before, family)
        can = available(after, family)
        if before is None or could != can:
            yield (
                HistoryEntry(
                    time=now.wall_s,
                    kind="pool",
                    target=name,
                    before=NEW if before is None else _serving(could, family),
                    after=_serving(can, family),
                ),
                "",
            )


def _word(member: Member | None, none: str) -> str:
    return none if member is None else member.why


def _serving(can: bool, family: str) -> str:
    return f"{'available' if can else 'unavailable'} for {family}"


def _routes(
    name: str, before: Routes | None, after: Routes | None, now: Now
) -> Iterator[HistoryEntry]:
    was = {} if before is None else before.rules
    is_ = {} if after is None else after.rules
    for rule in dict.fromkeys((*was, *is_)):
        for family in FAMILIES:
            one, other = was.get(rule, {}).get(family), is_.get(rule, {}).get(family)
            if _tier(one) != _tier(other):
                yield HistoryEntry(
                    time=now.wall_s,
                    kind="route",
                    target=f"{name}/{rule}",
                    before=_tier(one),
                    after=_tier(other),
                    why=f"for {family}",
                )


def _tier(route: Route | None) -> str:
    if route is None:
        return "first available tier"
    by = f" pinned by {route.pinned_by}" if route.pinned_by else ""
    pool = f", pool {route.pool_in_force}" if route.pool_in_force else ""
    return f"tier {route.tier}{by}{pool}"
