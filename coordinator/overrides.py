"""Operators' forces as they come and go: what may be forced, and how it is written.

Fenced by `serve/head`, as applies are: a force is judged against a configuration and written only
while that stands, so none outlives the resource that it names. The head is compared, not written.
What a force does is the engine's business, and its end the leader's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Literal

from msgspec import Struct

from gtm import codec, forms, keys
from gtm.model import Pool, Rule
from gtm.state import AuditChange, Force, ForceAction
from gtm.store import Compare, Delete, Op, Put, Store
from gtm.telemetry import transition
from gtm.units import MAX_DURATION_MS
from gtm.view import View

from .apply import MAX_ROUNDS, log
from .forces import ON_REGION
from .mirror import Mirror
from .trail import Said, Trail, bounded

MAX_FORCES = 1_000
"""Forces that stand at a time."""
MAX_CHARS = 500
"""The longest `who` and `why`."""

ON_POOLS: tuple[ForceAction, ...] = ("up", "down", "drain")
Kind = Literal["pool", "address", "rule", "region"]


class Unfit(ValueError):
    """What was asked for makes no sense; one sentence."""


class Released(Struct, frozen=True, kw_only=True):
    """What a release ended: a force, a manual failback, a hold of the guard, or several of them."""

    force: Force | None = None
    failback: bool = False
    hold: bool = False


class Named(Struct, frozen=True, kw_only=True):
    """What a target names, in its canonical text; `tiers` are those of a rule."""

    target: str
    kind: Kind
    tiers: int = 0
    manual: bool = False


def named(view: View, target: str, *, rule: bool, regions: Collection[str] = ()) -> Named:
    """What `target` names. Raises LookupError with a sentence and the nearest name.

    `rule`: where it could be a member of a pool as well as a rule, the rule is meant. `regions` are
    those met; declared ones are in `view`.
    """
    if target.startswith(ON_REGION):
        return _region(view, target.removeprefix(ON_REGION), regions)
    name, slash, rest = target.partition("/")
    found: list[Named] = []
    if (pool := view.config_pools.get(name)) is not None:
        if not slash:
            return Named(target=name, kind="pool")
        if (member := _member(pool, rest)) is not None:
            found.append(Named(target=f"{name}/{member}", kind="address"))
    rules = view.instances[name].rules if slash and name in view.instances else ()
    for one in rules:
        if one.name == rest:
            manual = one.failback.word == "manual"
            tiers = len(one.tiers)
            found.append(Named(target=target, kind="rule", tiers=tiers, manual=manual))
    if found:
        return next((one for one in found if (one.kind == "rule") is rule), found[0])
    raise LookupError(_unknown(view, name, rest, pool, rules) if slash else _nothing(view, name))


def _region(view: View, name: str, met: Collection[str]) -> Named:
    known = {*view.regions, *met}
    if name not in known:
        raise LookupError(f"there is no region {name!r}{forms.instead(name, known)}")
    return Named(target=f"{ON_REGION}{name}", kind="region")


def _member(pool: Pool, text: str) -> str | None:
    try:
        text = forms.member(text)
    except ValueError:
        return None
    return text if any(one.value == text for one in pool.addresses) else None


def _nothing(view: View, name: str) -> str:
    if name in view.instances:
        rules = ", ".join(f"{name}/{rule.name}" for rule in view.instances[name].rules)
        return f"{name!r} is an instance: name one of its rules ({rules})"
    return f"there is no pool {name!r}{forms.instead(name, view.config_pools)}"


def _unknown(view: View, name: str, rest: str, pool: Pool | None, rules: tuple[Rule, ...]) -> str:
    if pool is None and not rules:
        near = forms.instead(name, (*view.config_pools, *view.instances))
        return f"there is no pool and no instance {name!r}{near}"
    words = [one.value for one in pool.addresses] if pool is not None else []
    words += [one.name for one in rules]
    has = "no address" if not rules else "no rule" if pool is None else "no address and no rule"
    return f"{name!r} has {has} {rest!r}{forms.instead(rest, words)}"


class Overrides:
    """Writes forces and releases."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        wall_s: Callable[[], float] = time.time,
        regions: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._store, self._mirror, self._wall_s = store, mirror, wall_s
        self._regions = regions  # those met
        self._trail = Trail(store, wall_s)

    async def force(
        self, target: str, action: str, *, tier: int, who: str, why: str, for_s: float
    ) -> Force:
        """Have a force stand, in the place of one that does; `for_s` in seconds, 0: until released.

        Raises Unfit, LookupError, StoreError, TimeoutError.
        """
        kind = _action(action)
        if not why.strip():
            raise Unfit("a force needs a reason: say why")
        _bounded(who, why)
        if not 0 <= for_s <= MAX_DURATION_MS / 1000:
            raise Unfit(f"a force lasts at most {MAX_DURATION_MS // 86_400_000} days")
        for _ in range(MAX_ROUNDS):
            view = await self._mirror.fresh()
            there = named(view, target, rule=kind == "pin", regions=self._regions())
            _fits(there, kind, tier)
            now_s = self._wall_s()
            force = Force(
                target=there.target,
                action=kind,
                tier=tier,
                who=who,
                why=why,
                since=now_s,
                until=now_s + for_s if for_s else 0.0,
            )
            key = keys.force(there.target)
            standing = await self._store.list(keys.FORCES)
            if len(standing.items) >= MAX_FORCES and all(one.key != key for one in standing.items):
                raise Unfit(f"{MAX_FORCES} forces stand already: release some first")
            was = next((one.value for one in standing.items if one.key == key), b"")
            told = _told("force", force.target, was, codec.encode(force), who, why)
            if await self._written(view, Put(key, codec.encode(force)), told):
                transition(log, f"force {force.target}: {action}", who=who, why=why)
                return force
        raise TimeoutError("others kept changing the configuration: try again")

    async def release(self, target: str, *, who: str, why: str) -> Released:
        """End a force, a hold or a manual failback. Raises LookupError where there is none of them.

        Raises StoreError and TimeoutError too. A force on what is gone can be released too.
        """
        _bounded(who, why)
        for _ in range(MAX_ROUNDS):
            view = await self._mirror.fresh()
            try:
                there = named(view, target, rule=True, regions=self._regions())
            except LookupError as unknown:
                there, missing = Named(target=target, kind="pool"), str(unknown)
            else:
                missing = f"nothing to release: no force on {there.target} stands, and no hold"
            key = keys.force(there.target)
            item = await self._store.get(key)
            force = None if item is None else codec.decode(item.value, Force)
            if force is not None and force.action == "release":
                force = None
            failback = there.manual and _later(view, there.target)
            hold = _held(view, there)
            if force is None and not failback and not hold:
                raise LookupError(missing)
            op: Op = Delete(key)
            if failback or hold:
                wish = Force(
                    target=there.target, action="release", who=who, why=why, since=self._wall_s()
                )
                op = Put(key, codec.encode(wish))
            compare = Compare(key, "mod", "=", item.mod_revision if item is not None else 0)
            was = b"" if item is None else item.value
            after = op.value if isinstance(op, Put) else b""
            if await self._written(
                view, op, _told("release", there.target, was, after, who, why), compare
            ):
                transition(log, f"released {there.target}", who=who, why=why)
                return Released(force=force, failback=failback, hold=hold)
        raise TimeoutError("others kept changing the configuration: try again")

    async def _written(self, view: View, op: Op, told: Said, *compares: Compare) -> bool:
        """Whether it was written: false where the configuration is not that of `view` any more.

        Or where somebody else's entry of the audit trail came first.
        """
        head = Compare(keys.HEAD, "mod", "=", view.head_revision)
        audited, noted = self._trail.entry(await self._trail.place(), told)
        done = await self._store.txn([head, audited, *compares], [op, *noted])
        return done.succeeded


def _told(what: str, target: str, before: bytes, after: bytes, who: str, why: str) -> Said:
    action: Literal["create", "update", "delete"] = (
        "delete" if not after else "update" if before else "create"
    )
    change = AuditChange(
        action=action, kind="forces", name=target, before=before.decode(), after=after.decode()
    )
    changes, _ = bounded([change])
    return Said(who=who, what=what, why=why, changes=changes)


def _action(action: str) -> ForceAction:
    for known in (*ON_POOLS, "pin", "mute"):
        if action == known:
            return known
    raise Unfit(f"{action!r} is no action: up, down, drain, pin or mute")


def _bounded(who: str, why: str) -> None:
    if max(len(who), len(why)) > MAX_CHARS or not (who + why).isprintable():
        raise Unfit(f"who and why are at most {MAX_CHARS} plain characters each")


def _fits(there: Named, action: ForceAction, tier: int) -> None:
    if (there.kind == "region") is not (action == "mute"):
        what = "a region, which can only be muted" if there.kind == "region" else "no region"
        raise Unfit(f"{there.target} is {what}; only region:NAME can be muted")
    if there.kind == "rule":
        if action != "pin":
            raise Unfit(f"{there.target} is a rule, which can only be pinned to a tier")
        if not 1 <= tier <= there.tiers:
            raise Unfit(f"{there.target} has tiers 1 to {there.tiers}, not {tier}")
    elif action == "pin":
        raise Unfit(f"{there.target} is no rule; only INSTANCE/RULE can be pinned to a tier")
    elif tier:
        raise Unfit("a tier goes with pin alone")


def _held(view: View, there: Named) -> bool:
    """Whether the guard holds what `there` names, or some member of it."""
    name, _, value = there.target.partition("/")
    state = view.pools.get(name) if there.kind in ("pool", "address") else None
    members = () if state is None else state.members
    return any(member.held_since and value in ("", member.value) for member in members)


def _later(view: View, target: str) -> bool:
    """Whether a later tier than the first is in force for some family of a rule."""
    instance, _, rule = target.partition("/")
    routes = view.routes.get(instance)
    return routes is not None and any(one.tier > 1 for one in routes.rules.get(rule, {}).values())
