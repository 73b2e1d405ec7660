"""From what is stored and what is wanted to the changes between, and the transactions for them.

Pure. A change set that fits goes as one transaction; a larger one as a chain of links, what is
referred to before what refers to it and deletions in reverse, so that a chain that breaks leaves a
valid prefix. Neither judges the resources (`Policy`) nor writes anything (`apply`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct

from gtm import codec, keys
from gtm.model import TYPES, Instance, Pool, Region, Resource, Resources, Zone
from gtm.ports import Problem
from gtm.state import Force, Head, Identity, StoredZone
from gtm.store import MAX_OPS, MAX_TXN_BYTES, Delete, Op, Put, fits, op_bytes
from gtm.view import CONFIG_FIELD, View

from . import buckets, identities
from .forces import ON_RULES

KINDS = tuple(TYPES)
"""The kinds of this version, referred to before referring."""
MAX_EXPIRED = 64
"""Ids that nobody holds any more which one apply clears away."""

HEAD_BYTES = 512
"""Room that each transaction leaves for its head."""
MAX_LINK_OPS = MAX_OPS * MAX_OPS - 4
"""Operations of one link: the head, an entry of the audit trail, its head and its oldest one go
with it."""

Plain = dict[str, dict[str, Any]]
"""kind -> name -> resource as plain data in the form of the files."""


class Change(Struct, frozen=True, kw_only=True):
    """One resource that comes, changes or goes; `before` and `after` are JSON, "" for none."""

    action: Literal["create", "update", "delete"]
    kind: str
    name: str
    before: str = ""
    after: str = ""


class Unit(Struct, frozen=True, kw_only=True):
    """Operations that must not be parted; `change` is done when they are."""

    ops: tuple[Op, ...]
    change: Change | None = None


class Link(Struct, frozen=True, kw_only=True):
    """One transaction of a chain, without its head; `changes` are complete after it."""

    ops: tuple[Op, ...]
    changes: tuple[Change, ...] = ()


# ---- what is stored ------------------------------------------------------------------------


def stored(view: View, kind: str) -> dict[str, Any]:
    """The resources of one kind as they are stored (zones without their records)."""
    found: dict[str, Any] = getattr(view, CONFIG_FIELD.get(kind, kind), {})
    return found


def zone(view: View, name: str) -> Zone:
    """A zone as users write it: its records back, without serial and bits."""
    value = view.zones[name]
    return Zone(
        nameservers=value.nameservers,
        soa=value.soa,
        ttl=value.ttl,
        records=buckets.joined(view.records.get(name, {})),
    )


def resources(view: View) -> Resources:
    """What the engine judges: everything but the zones' records."""
    return Resources(
        zones={
            name: Zone(nameservers=value.nameservers, soa=value.soa, ttl=value.ttl)
            for name, value in view.zones.items()
        },
        regions=view.regions,
        checks=view.checks,
        pools=view.config_pools,
        instances=view.instances,
    )


def resource(view: View, kind: str, name: str) -> Resource:
    """One stored resource as users write it; KeyError where there is none."""
    found: Resource = zone(view, name) if kind == "zones" else stored(view, kind)[name]
    return found


def plain(view: View, without: Mapping[str, Collection[str]] = {}) -> Plain:
    """Everything stored as users write it, but for the names of each kind in `without`."""
    return {
        kind: {
            name: codec.plain(resource(view, kind, name))
            for name in sorted(stored(view, kind).keys() - set(without.get(kind, ())))
        }
        for kind in KINDS
    }


# ---- what is wanted ------------------------------------------------------------------------


def would_be(
    view: View,
    given: Plain,
    ids: Mapping[str, Identity],
    now_s: float,
    draw: Callable[[], int],
    *,
    prune: bool = False,
) -> tuple[Plain, list[Problem]]:
    """The whole set after the apply, ids and single zones filled in; and what is wrong with ids."""
    whole: Plain = {} if prune else plain(view, without=given)
    for kind, named in given.items():
        whole[kind] = {**whole.get(kind, {}), **named}
    fresh = given.get("instances", {})
    if not fresh:
        return whole, []
    known = {name: value.id for name, value in view.instances.items()}
    if prune:
        known = {name: id_ for name, id_ in known.items() if name in fresh}
    chosen, problems = identities.given_ids(fresh, known, ids, now_s, draw)
    zones = whole.get("zones", {})
    only = {"zone": next(iter(zones))} if len(zones) == 1 else {}
    for name, data in fresh.items():
        if isinstance(data, Mapping):
            filled = {"id": chosen[name]} if name in chosen else {}
            given_zone = {} if data.get("zone") else only
            whole["instances"][name] = {**data, **given_zone, **filled}
    return whole, problems


# ---- the difference ------------------------------------------------------------------------


def units(
    view: View,
    wanted: Resources,
    names: Mapping[str, Iterable[str]],
    ids: Mapping[str, Identity],
    now_s: float,
    forces: Iterable[Force] = (),
) -> list[Unit]:
    """What must be written, in order, for the resources called `names` (kind -> names).

    Names that `wanted` lacks are deleted, and those of the stored `forces` with them that were on
    what goes. Nothing is there for what is as it should be.
    """
    puts: list[Unit] = []
    deletes: list[Unit] = []
    for kind in KINDS:
        after = wanted.kind(kind)
        before = stored(view, kind)
        for name in sorted(set(names.get(kind, ()))):
            if name in after:
                puts += _put(view, kind, name, after[name], now_s, forces)
            elif name in before:
                deletes.append(_delete(view, kind, name, now_s, forces))
    found = [*puts, *reversed(deletes)]
    if found:
        spare = itertools.islice(identities.expired(ids, now_s), MAX_EXPIRED)
        touched = {op.key for unit in found for op in unit.ops if isinstance(op, Put | Delete)}
        gone = [keys.identity(id_) for id_ in spare if keys.identity(id_) not in touched]
        if gone:
            found.append(Unit(ops=tuple(Delete(key) for key in gone)))
    return found


def _put(
    view: View, kind: str, name: str, after: Resource, now_s: float, forces: Iterable[Force]
) -> list[Unit]:
    before = stored(view, kind).get(name)
    if isinstance(after, Zone):
        return _put_zone(view, name, after, now_s)
    if after == before:
        return []
    text = codec.encode(after)
    ops: list[Op] = [Put(keys.config(kind, name), text)]
    if isinstance(after, Instance):
        ops += _claim(name, before.id if before else "", after.id, now_s)
        ops += _unpinned(name, _rules(before) - _rules(after), forces)
    change = Change(
        action="create" if before is None else "update",
        kind=kind,
        name=name,
        before="" if before is None else codec.encode(before).decode(),
        after=text.decode(),
    )
    return [Unit(ops=tuple(ops), change=change)]


def _rules(resource: Resource | None) -> set[str]:
    """What a force on a rule of an instance names behind the slash."""
    return {rule.name for rule in resource.rules} if isinstance(resource, Instance) else set()


def _unpinned(name: str, gone: Collection[str], forces: Iterable[Force]) -> list[Op]:
    """The ends of the forces on rules of the instance `name` that go.

    A pool may have its name: what is forced tells which of them is meant.
    """
    targets = {f"{name}/{rule}" for rule in gone}
    return [
        Delete(keys.force(force.target))
        for force in forces
        if force.action in ON_RULES and force.target in targets
    ]


def _unforced(name: str, pool: Pool, forces: Iterable[Force]) -> list[Op]:
    """The ends of the forces on the pool `name` that goes and on its members, former ones too.

    Not of those on rules of an instance that has its name.
    """
    members = {f"{name}/{address.value}" for address in pool.addresses}
    return [
        Delete(keys.force(force.target))
        for force in forces
        if force.target == name
        or (force.action == "release" and force.target in members)
        or (force.action not in ON_RULES and force.target.startswith(f"{name}/"))
    ]


def _claim(name: str, before: str, after: str, now_s: float) -> list[Op]:
    if before == after:
        return []
    claim: list[Op] = [Put(keys.identity(after), codec.encode(Identity(instance=name)))]
    if before:
        ended = Identity(instance=name, deleted=now_s)
        claim.append(Put(keys.identity(before), codec.encode(ended)))
    return claim


def _put_zone(view: View, name: str, given: Zone, now_s: float) -> list[Unit]:
    old = view.zones.get(name)
    here = view.records.get(name, {})
    after = Zone(
        nameservers=given.nameservers,
        soa=given.soa,
        ttl=given.ttl,
        records=buckets.ordered(given.records),
    )
    before = zone(view, name) if old else None
    if after == before:
        return []
    bits = buckets.depth(after.records, old.bits if old else 0)
    put = Put(
        keys.config("zones", name),
        codec.encode(
            StoredZone(
                nameservers=after.nameservers,
                soa=after.soa,
                ttl=after.ttl,
                serial=max((old.serial if old else 0) + 1, int(now_s)),
                bits=bits,
            )
        ),
    )
    change = _change("zones", name, before, after)
    groups = buckets.groups(here, buckets.split(after.records, bits))
    at_once = (put, *(op for group in groups for op in _bucket_ops(name, group)))
    if fits(at_once):
        return [Unit(ops=at_once, change=change)]
    parts: list[tuple[Op, ...]] = [(put,)]
    for group in groups:
        ops = _bucket_ops(name, group)
        if fits(ops):
            parts.append(ops)
        else:
            parts += [_bucket_ops(name, step) for step in buckets.staged(here, group)]
    *first, last = parts
    return [*(Unit(ops=ops) for ops in first), Unit(ops=last, change=change)]


def _bucket_ops(name: str, group: buckets.Group) -> tuple[Op, ...]:
    return (
        *(Delete(keys.records(name, bucket)) for bucket in group.delete),
        *(Put(keys.records(name, at), buckets.encoded(group.put[at])) for at in group.put),
    )


def _delete(view: View, kind: str, name: str, now_s: float, forces: Iterable[Force]) -> Unit:
    before = resource(view, kind, name)
    ops: list[Op] = [Delete(keys.config(kind, name))]
    if isinstance(before, Zone):
        ops.append(Delete(keys.records(name, ""), prefix=True))
    elif isinstance(before, Pool):
        ops.append(Delete(keys.pool(name)))
        ops += _unforced(name, before, forces)
    elif isinstance(before, Region):
        ops.append(Delete(keys.force(f"region:{name}")))
    elif isinstance(before, Instance):
        ended = Identity(instance=name, deleted=now_s)
        ops.append(Delete(keys.routes(name)))
        ops += _unpinned(name, _rules(before), forces)
        ops.append(Put(keys.identity(before.id), codec.encode(ended)))
    return Unit(ops=tuple(ops), change=_change(kind, name, before, None))


def _change(kind: str, name: str, before: Resource | None, after: Resource | None) -> Change:
    return Change(
        action="create" if before is None else "delete" if after is None else "update",
        kind=kind,
        name=name,
        before="" if before is None else codec.encode(before).decode(),
        after="" if after is None else codec.encode(after).decode(),
    )


# ---- the chain -----------------------------------------------------------------------------


def chain(found: Iterable[Unit]) -> tuple[Link, ...]:
    """The units in as few transactions as their order allows, room for the head left in each.

    Raises ValueError naming a unit that no transaction can carry.
    """
    links: list[Link] = []
    ops: list[Op] = []
    changes: list[Change] = []
    spare_bytes = MAX_TXN_BYTES - HEAD_BYTES
    spare = 0
    touched: set[str] = set()
    for unit in found:
        size = sum(map(op_bytes, unit.ops))
        own = {op.key for op in unit.ops if isinstance(op, Put | Delete)}
        if len(unit.ops) > MAX_LINK_OPS or size > spare_bytes:
            first = unit.ops[0]
            key = first.key if isinstance(first, Put | Delete) else ""
            raise ValueError(
                f"{key.removeprefix(keys.SERVE)} is larger than one transaction of etcd carries "
                "(1 MiB): split what it holds"
            )
        full = len(ops) + len(unit.ops) > MAX_LINK_OPS or size > spare
        if ops and (full or not own.isdisjoint(touched)):  # a transaction writes a key once
            links.append(Link(ops=tuple(ops), changes=tuple(changes)))
            ops, changes, touched = [], [], set()
        spare = (spare if ops else spare_bytes) - size
        ops.extend(unit.ops)
        touched |= own
        if unit.change is not None:
            changes.append(unit.change)
    if ops:
        links.append(Link(ops=tuple(ops), changes=tuple(changes)))
    return tuple(links)


def head_put(head: Head) -> Put:
    """The operation that writes the head."""
    return Put(keys.HEAD, codec.encode(head))
