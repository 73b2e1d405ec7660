"""The one owner of the engine: events go in here in order, effects go out from here.

`handle` runs the engine at once and hands its effects to the publisher, the watchers and the log,
so nothing queues between an agent's frame and the judgement. Decides nothing itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar

from gtm import codec, keys
from gtm.state import (
    AlarmRecord,
    Aside,
    Force,
    HistoryEntry,
    MetRegion,
    PoolState,
    Routes,
    VerdictRecord,
)
from gtm.store import Event, Listing, Store
from gtm.telemetry import transition
from gtm.view import Changes, View

from . import keyed, metrics, plan
from .engine import Engine
from .events import (
    ClearAlarm,
    Configured,
    Confirm,
    Effect,
    EndForce,
    Forced,
    Frame,
    GoOn,
    Incoming,
    Met,
    Now,
    PublishAside,
    PublishPool,
    PublishVerdict,
    RaiseAlarm,
    Restored,
    TargetKey,
    Tick,
)
from .publisher import LED, Publisher
from .recent import Recent
from .telling import Telling
from .views import AlarmView, VerdictView
from .watchers import Watcher, Watchers

TICK_S = 0.25
"""How late a grace or a withheld pool is noticed at most."""
READ_PART = 1_000
"""Stored verdicts that are read in one turn of the loop, in some 10 ms."""
STILL_S = 1.0
"""After so long without a tick we stood still, and votes may have lapsed meanwhile."""

K = TypeVar("K")
T = TypeVar("T")

log = logging.getLogger("coordinator")


def clock() -> Now:
    """The instant now."""
    return Now(mono_ms=time.monotonic_ns() // 1_000_000, wall_s=time.time())


class Judge:
    """Drives the engine.

    `assigned` is called whenever what agents should probe changed, `configured` after each new
    configuration, `confirm` with targets that agents should probe at once, `decided` with what the
    history tells of each evaluation that changed something.
    `alarmed(event, alarm, Unix time)` is called for each alarm that comes (raise), changes its text
    (update) or goes (clear).
    """

    def __init__(
        self, engine: Engine, publisher: Publisher, clock: Callable[[], Now] = clock
    ) -> None:
        self.engine, self.watchers = engine, Watchers()
        self.assigned: Callable[[], None] = lambda: None
        self.configured: Callable[[], None] = lambda: None
        self.confirm: Callable[[Iterable[TargetKey]], None] = lambda targets: None
        self.decided: Callable[[list[tuple[str, HistoryEntry]]], None] = lambda entries: None
        self._telling = Telling()
        self.alarmed: Callable[[str, AlarmView, float], None] = lambda event, alarm, at: None
        self.view = View()
        self.recent = Recent()
        self._publisher = publisher
        self._clock = clock
        self._ticked_ms = clock().mono_ms
        self._version = -1
        self._head = -1
        self._said: dict[TargetKey, str] = {}

    @property
    def now(self) -> Now:
        """The instant now, by the judge's clock."""
        return self._clock()

    # ---- fed -----------------------------------------------------------------------------------

    async def restore(self, store: Store, view: Callable[[], View]) -> None:
        """Begin, or as a new leader go on, from what the store has. Raises StoreError.

        `view()` is the newest view of the configuration.
        """
        listings = {prefix: await store.list(prefix) for prefix in LED}
        ahead = await _read_ahead(listings[keys.VERDICTS])
        self.view = view()
        there = self._publisher.restored(listings)
        verdicts = _read(there, keys.VERDICTS, _target, VerdictRecord, ahead)
        alarms = _read(there, keys.ALARMS, str, AlarmRecord)
        pools = _read(there, keys.POOLS, str, PoolState)
        routes = _read(there, keys.ROUTES, str, Routes)
        self._said = {target: record.verdict for target, record in verdicts.items()}
        self._telling.restore(verdicts, pools, routes)
        self.handle(
            Restored(
                verdicts=verdicts,
                pools=pools,
                routes=routes,
                met=frozenset(_read(there, keys.REGIONS, str, MetRegion)),
                alarms={id_: (alarm.text, alarm.since) for id_, alarm in alarms.items()},
                forces=_read(there, keys.FORCES, keys.force_target, Force),
                aside=_read(there, keys.ASIDE, str, Aside),
            )
        )
        if self._head < 0:
            self._configure(self.view)
            transition(log, "restored", verdicts=len(verdicts), pools=len(self.view.pools))

    def changed(self, view: View, changes: Changes, events: Iterable[Event]) -> None:
        """The store has a new view."""
        self.view = view
        self._publisher.seen(events)
        if changes.head or changes.configuration():
            self._configure(view)

    def _configure(self, view: View) -> None:
        self.handle(
            Configured(
                resources=plan.resources(view),
                generation=view.head.generation,
                head_revision=view.head_revision,
            )
        )
        self.configured()
        self._head = view.head_revision
        self._publisher.judged(view.head_revision)

    def met(self, regions: Mapping[str, bytes], events: Iterable[Event]) -> None:
        """The store has a new set of regions met."""
        self._publisher.seen(events)
        names = frozenset(key.removeprefix(keys.REGIONS) for key in regions)
        self.handle(Met(regions=names))

    def forced(self, forces: Mapping[str, bytes], events: Iterable[Event]) -> None:
        """The store has a new set of operators' forces."""
        self._publisher.seen(events)
        self.handle(Forced(forces=_read(forces, keys.FORCES, keys.force_target, Force)))

    def handle(self, event: Incoming) -> None:
        """Put one event through the engine."""
        now = self._clock()
        if isinstance(event, Tick):
            self._ticked_ms = now.mono_ms
        elif now.mono_ms - self._ticked_ms > STILL_S * 1000:
            self.handle(Tick())  # what lapsed while we stood still has no vote on what comes now
        if isinstance(event, Frame):
            self.recent.take(event, self.engine.graces_ms(), now.mono_ms)
        metrics.EVENTS.labels(type(event).__name__).inc()
        with metrics.JUDGING.time():
            effects = self.engine.handle(event, now)
        if effects:
            self._out(effects, now)
        if self.engine.targets_version != self._version:
            self._version = self.engine.targets_version
            metrics.TARGETS.set(len(self.engine.targets()))
            self.recent.assigned(self.engine.targets())
            self.assigned()

    async def run(self) -> None:
        """Tell the engine that time passes, until cancelled; let out what it owes meanwhile."""
        while True:
            await asyncio.sleep(TICK_S)
            self.handle(Tick())
            while self.engine.owes and self.now.mono_ms - self._ticked_ms < TICK_S * 1000:
                await asyncio.sleep(0)
                self.handle(GoOn())

    # ---- out -----------------------------------------------------------------------------------

    def _out(self, effects: list[Effect], now: Now) -> None:
        stored = [effect for effect in effects if not isinstance(effect, Confirm)]
        self.decided(self._telling.told(stored, now))
        if stored:
            self._publisher.want({keyed.of(one): keyed.written(one, now) for one in stored})
        if asked := [effect.target for effect in effects if isinstance(effect, Confirm)]:
            self.confirm(asked)
        for effect in effects:
            metrics.DECISIONS.labels(type(effect).__name__).inc()
            if isinstance(effect, PublishVerdict):
                self._verdict(effect)
            elif isinstance(effect, RaiseAlarm):
                if not effect.since:  # one whose text changed was told of
                    transition(log, f"alarm {effect.id}: {effect.text}", logging.WARNING)
                self._alarmed("update" if effect.since else "raise", effect, now)
            elif isinstance(effect, ClearAlarm):
                transition(log, f"alarm {effect.id} is over")
                self._alarmed("clear", effect, now)
            elif isinstance(effect, PublishAside):
                _said_aside(effect)
            elif isinstance(effect, EndForce):
                transition(log, f"force {effect.target} is over")
            elif isinstance(effect, PublishPool) and effect.state is not None:
                members = effect.state.members
                answered = sum(member.answered for member in members)
                transition(log, f"pool {effect.name}: {answered} of {len(members)} answered")

    def _alarmed(self, event: str, effect: RaiseAlarm | ClearAlarm, now: Now) -> None:
        alarm = AlarmView(id=effect.id, text=effect.text, since=effect.since or now.wall_s)
        self.alarmed(event, alarm, now.wall_s)

    def _verdict(self, effect: PublishVerdict) -> None:
        target, record = effect.target, effect.record
        if record is None:
            self._said.pop(target, None)
            self.watchers.changed(target, None)
            return
        before = self._said.get(target, "unknown")
        if before != record.verdict:
            self._said[target] = record.verdict
            metrics.VERDICTS.labels(record.verdict).inc()
            place = f"{_host(target.address)}:{target.port}" if target.port else target.address
            transition(
                log, f"verdict {place} {target.check} {before} -> {record.verdict}: {record.rule}"
            )
        if len(self.watchers):  # a view costs more than the verdict did
            self.watchers.changed(target, self.engine.verdict(target))

    # ---- asked ---------------------------------------------------------------------------------

    def named(self, key: str) -> bool:
        """Whether the configuration judged still names what a published key is about."""
        if key.startswith(keys.POOLS):
            return key.removeprefix(keys.POOLS) in self.view.config_pools
        if key.startswith(keys.ROUTES):
            return key.removeprefix(keys.ROUTES) in self.view.instances
        if key.startswith(keys.VERDICTS):
            try:
                return TargetKey(*keys.verdict_target(key)) in self.engine.targets()
            except ValueError:
                return False
        return False

    def together(self) -> dict[str, tuple[str, ...]]:
        """The pools of each instance."""
        return {name: instance.pools() for name, instance in self.view.instances.items()}

    def watch(self, filter_: str) -> tuple[list[TargetKey], Watcher]:
        """The targets that `filter_` names now, and a watcher (not yet added) for what comes."""
        keys = self.engine.named(filter_)

        def matches(view: VerdictView) -> bool:
            if not filter_ or filter_ in (view.target.address, view.target.check, *view.pools):
                return True
            instance = self.view.instances.get(filter_)
            return instance is not None and not set(instance.pools()).isdisjoint(view.pools)

        return keys, Watcher(matches, keys)


def _said_aside(effect: PublishAside) -> None:
    if effect.record is None:
        transition(log, f"region {effect.region} counts again")
    else:
        text = f"region {effect.region} is set aside: {effect.record.text}"
        transition(log, text, logging.WARNING)


def _target(name: str) -> TargetKey:
    return TargetKey(*keys.verdict_target(keys.VERDICTS + name))


async def _read_ahead(listing: Listing) -> dict[bytes, VerdictRecord]:
    """What the values of a listing say, read in parts between which all else goes on."""
    found: dict[bytes, VerdictRecord] = {}
    for number, item in enumerate(listing.items, 1):
        with contextlib.suppress(ValueError):  # told of by whoever wants it
            found[item.value] = codec.decode(item.value, VerdictRecord)
        if number % READ_PART == 0:
            await asyncio.sleep(0)
    return found


def _read(
    there: Mapping[str, bytes],
    prefix: str,
    named: Callable[[str], K],
    type_: type[T],
    ahead: Mapping[bytes, T] = MappingProxyType({}),
) -> dict[K, T]:
    """The values of a prefix by name; one that can't be read is counted, logged and left out.

    `ahead` has what some values say already.
    """
    found: dict[K, T] = {}
    for key, value in there.items():
        if not key.startswith(prefix):
            continue
        try:
            found[named(key.removeprefix(prefix))] = ahead.get(value) or codec.decode(value, type_)
        except ValueError as error:
            metrics.UNREADABLE.inc()
            transition(log, "unreadable state", logging.ERROR, key=key, cause=str(error))
    return found


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
