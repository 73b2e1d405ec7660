"""From a view of the store to an answer table: state in, table out, remembering nothing else.

What did not change is taken over from the previous table: a change of a pool's state rebuilds that
pool's picks and the plans above them (`planned`), once, however many names use them; a change of
zones or access names makes the dictionary of names anew from zones that are read already. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import UNSET, Struct
from msgspec.structs import replace

from gtm.availability import answers_cname
from gtm.model import FAMILIES, Family
from gtm.view import Changes, View

from .place import Geography, Locator
from .planned import Planned
from .planner import Planner, Spec
from .ranking import lines_of, ranked_rules
from .table import AnswerTable, Name, Serving, Slot, ZoneApex
from .tables import Tables
from .tiers import choose_tier, decide, pin_of, route_of, tier_of
from .zones import Access, ZoneData, assemble, extend, read_zone

__all__ = [
    "Made",
    "choose_tier",
    "compile_table",
    "decide",
    "lines_of",
    "ranked_rules",
    "spec_of",
    "tier_of",
]

SPARE_PLANS = 1024
"""How many more plans and slots than instances may be added before everything is made anew,
so that what nobody uses any more goes."""


class Made(Struct, frozen=True, kw_only=True):
    """What the next compilation takes over: the table's sources and its parts by their names.

    `index` has the number of the plan of each spec, `named` the pools that answer a CNAME, `tables`
    are the tables of clients over one geography and one set of lines, `added` counts the plans and
    slots added since everything was made.
    """

    view: View
    zones: dict[str, ZoneData]
    slot_of: dict[str, int]
    index: dict[Spec, int]
    planned: Planned
    named: frozenset[str]
    tables: Tables
    added: int = 0


def compile_table(
    view: View,
    locator: Locator,
    previous: AnswerTable | None = None,
    changes: Changes | None = None,
    serving: Serving | None = None,
) -> AnswerTable:
    """The table of `view`; equal to what would be made without `previous`, only sooner.

    `changes` must cover everything between `previous` and `view`; None: found by comparison. The
    table keeps `heard_s` and, where none is given, `serving` of the previous one. ValueError says
    what in the view is inconsistent.
    """
    made = previous.made if previous is not None else None
    if serving is None:
        serving = previous.serving if previous is not None else Serving()
    geography = locator.geography
    if previous is None or made is None:
        table = _whole(view, geography, None)
    else:
        if changes is None:
            changes = difference(made.view, view)
        if made.tables.geography is not geography or changes.lines or changes.regions:
            table = _whole(view, geography, made)
        else:
            table = _next(view, previous, made, changes)
    heard_s = previous.heard_s if previous is not None else table.heard_s
    return replace(table, revision=view.revision, locator=locator, serving=serving, heard_s=heard_s)


def difference(old: View, new: View) -> Changes:
    """What differs between two views of one lineage: a value that did not change is the same."""

    def names(kind: str) -> frozenset[str]:
        before, after = getattr(old, kind), getattr(new, kind)
        if before is after:
            return frozenset()
        keys = before.keys() | after.keys()
        return frozenset(key for key in keys if before.get(key) is not after.get(key))

    return Changes(
        head=old.head is not new.head,
        zones=names("zones"),
        records=names("records"),
        lines=names("lines"),
        regions=names("regions"),
        instances=names("instances"),
        pools=names("pools"),
        routes=names("routes"),
    )


def spec_of(view: View, name: str, family: Family) -> Spec:
    """What the plan of an instance for `family` is made from, but the states of pools."""
    instance = view.instances[name]
    rules = instance.rules if instance.enabled else ()
    pins = tuple(pin_of(route_of(view, name, rule.name, family)) for rule in rules)
    ttl = instance.ttl.ms // 1000
    wavering = instance.ttl_wavering
    return Spec(
        family,
        ttl,
        ttl if wavering is UNSET else min(ttl, wavering.ms // 1000),
        instance.when_all_down,
        rules,
        pins,
    )


def _whole(view: View, geography: Geography, made: Made | None) -> AnswerTable:
    """Everything made anew, but for zones that `made` has read already."""
    zones = _read_zones(view, made)
    tables = Tables(geography, view.lines)
    slot_of = {name: slot for slot, name in enumerate(sorted(view.instances))}
    index: dict[Spec, int] = {}
    slots = [_slot(view, name, index) for name in slot_of]
    planner = Planner(view.pools, tables, view.regions)
    planned = Planned(kept=planner.kept).with_specs(planner, tuple(index))
    named = frozenset(name for name, state in view.pools.items() if answers_cname(state))
    apexes, names = assemble(list(zones.values()), _access(view, slot_of))
    fresh = Made(
        view=view,
        zones=zones,
        slot_of=slot_of,
        index=index,
        planned=planned,
        named=named,
        tables=tables,
    )
    return AnswerTable(
        zones=apexes,
        names=names,
        slots=slots,
        plans=planned.plans,
        aliased=_aliased(planned, named),
        made=fresh,
    )


def _next(view: View, previous: AnswerTable, made: Made, changes: Changes) -> AnswerTable:
    """`previous` with `changes` in force."""
    index, slot_of, slots = _listed(view, previous, made, changes)
    fresh = tuple(index)[len(made.index) :] if index is not made.index else ()
    added = made.added + len(fresh) + len(slots) - len(previous.slots)
    if added > SPARE_PLANS + len(slot_of):
        return _whole(view, made.tables.geography, made)
    try:
        planned = _planned(view, made, changes, fresh)
    except ValueError:
        # it matters only where the plan is still in use
        return _whole(view, made.tables.geography, made)
    named = made.named
    if changes.pools:
        answering = {name for name in changes.pools if answers_cname(view.pools.get(name))}
        named = (named - changes.pools) | answering
    if named == made.named:
        aliased = previous.aliased | _aliased(planned, named, len(made.index))
    else:
        aliased = _aliased(planned, named)
    zones = _read_zones(view, made) if changes.zones or changes.records else made.zones
    apexes, names = _named(view, previous, made, changes, zones, slot_of)
    after = Made(
        view=view,
        zones=zones,
        slot_of=slot_of,
        index=index,
        planned=planned,
        named=named,
        tables=made.tables,
        added=added,
    )
    return replace(
        previous,
        zones=apexes,
        names=names,
        slots=slots,
        plans=planned.plans,
        aliased=aliased,
        made=after,
    )


def _listed(
    view: View, previous: AnswerTable, made: Made, changes: Changes
) -> tuple[dict[Spec, int], dict[str, int], Sequence[Slot]]:
    """(index of specs, slot of each instance, slots), with the changed instances in them."""
    touched = changes.instances | changes.routes
    if not touched:
        return made.index, made.slot_of, previous.slots
    index, slot_of, slots = dict(made.index), dict(made.slot_of), list(previous.slots)
    for name in sorted(touched):
        if name not in view.instances:
            slot_of.pop(name, None)
            continue
        slot = _slot(view, name, index)
        if name in slot_of:
            slots[slot_of[name]] = slot
        else:
            slot_of[name] = len(slots)
            slots.append(slot)
    return index, slot_of, slots


def _named(
    view: View,
    previous: AnswerTable,
    made: Made,
    changes: Changes,
    zones: Mapping[str, ZoneData],
    slot_of: Mapping[str, int],
) -> tuple[Sequence[ZoneApex], dict[bytes, Name]]:
    """The zones by index and the dictionary of names, made anew only where that must be."""
    if not changes.zones and not changes.records:
        if not _renamed(made.view, view, changes):
            return previous.zones, previous.names
        if all(_only_new(made.view, view, name) for name in changes.instances):
            come = {name: slot_of[name] for name in changes.instances - made.slot_of.keys()}
            wider = extend(previous.names, list(zones.values()), _access(view, come))
            if wider is not None:
                return previous.zones, wider
    return assemble(list(zones.values()), _access(view, slot_of))


def _read_zones(view: View, made: Made | None) -> dict[str, ZoneData]:
    zones: dict[str, ZoneData] = {}
    for name in sorted(view.zones):
        stored, records = view.zones[name], view.records.get(name, {})
        before = made.zones.get(name) if made is not None else None
        if (
            before is not None
            and made is not None
            and before.stored is stored
            and made.view.records.get(name, {}) is view.records.get(name, {})
        ):
            zones[name] = before
        else:
            zones[name] = read_zone(name, stored, records, before)
    return zones


def _access(view: View, slot_of: Mapping[str, int]) -> Iterable[Access]:
    for name, slot in slot_of.items():
        instance = view.instances[name]
        for access in instance.names():
            yield Access(access, name, slot, not instance.enabled)


def _slot(view: View, name: str, index: dict[Spec, int]) -> Slot:
    """The slot of an instance; its specs get an index where they have none yet."""
    numbers = [index.setdefault(spec_of(view, name, family), len(index)) for family in FAMILIES]
    return Slot(numbers[0], numbers[1], view.instances[name].ttl.ms // 1000)


def _planned(view: View, made: Made, changes: Changes, fresh: Sequence[Spec]) -> Planned:
    """The plans after `changes`, behind them those of `fresh`; ValueError where one can't be."""
    planned, pools = made.planned, changes.pools
    if not pools and not fresh:
        return planned
    kept = planned.kept.without(pools, planned.questions(pools))
    planner = Planner(view.pools, made.tables, view.regions, kept)
    return planned.after(planner, pools).with_specs(planner, fresh)


def _aliased(planned: Planned, named: frozenset[str], first: int = 0) -> frozenset[int]:
    """The numbers, from `first` on, of the plans that may answer a CNAME of a pool of `named`."""
    if not named:
        return frozenset()
    numbered = enumerate(planned.drafts[first:], first)
    return frozenset(
        number for number, draft in numbered if not named.isdisjoint(draft.spec.pools())
    )


def _names(view: View, name: str) -> tuple[bool, tuple[str, ...]] | None:
    instance = view.instances.get(name)
    return None if instance is None else (instance.enabled, instance.names())


def _renamed(old: View, new: View, changes: Changes) -> bool:
    """Whether any name came, went, or was switched on or off."""
    return any(_names(old, name) != _names(new, name) for name in changes.instances)


def _only_new(old: View, new: View, name: str) -> bool:
    """Whether an instance brings names at most: it is new and on, or its names stay."""
    before, after = _names(old, name), _names(new, name)
    return before == after or (before is None and after is not None and after[0])
