"""The engine: results in, verdicts and published states out. Pure: no IO, no clock, no dice.

`handle(event, now)` applies one event and evaluates once, after all of it; the effects of one
evaluation belong into one transaction. Effects are differences to what the store has: what
`Restored` said, and the engine's own earlier effects. Nothing comes out before both `Configured`
and `Restored` came in, in either order.

    frame, digest -> evidence (hysteresis) -> verdicts (quorum) -> pool -> route -> effects
    configuration -> targets ------------------^                   ^       ^
    forces --------------------------------------------------------+-------+

Between evidence and verdicts, regions are muted or set aside (`aside`); between verdicts and pool
stand damping and the guard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from gtm.model import Resources
from gtm.state import AddressSet, Force, Health, PoolState

from . import pool, rate_alarms
from .alarms import Alarms, Condition, conditions
from .brakes import Brakes
from .confirm import Confirmation
from .events import (
    AgentFound,
    AgentLost,
    Configured,
    Digest,
    Effect,
    EndForce,
    Forced,
    Frame,
    GoOn,
    Incoming,
    Met,
    Now,
    PublishPool,
    Resolved,
    Restored,
    TargetKey,
    Tick,
    Troubled,
)
from .evidence import Evidence
from .expiry import Certificate, expiring
from .forces import Forces
from .guard import Brake
from .latency import Latency
from .picture import Picture, agent_views, region_views
from .pool_alarms import PoolAlarms
from .router import Router
from .sets import conditions as unresolved
from .sets import names_of, newest, sets_of
from .targets import Targets
from .verdicts import HEALTH, PART, Verdicts
from .views import AgentView, AlarmView, Assigned, RegionView, VerdictView

_NO_NUMBERS: NDArray[np.intp] = np.zeros(0, dtype=np.intp)


class Engine:
    """The judgement over every target, pool and instance; one object, driven by one task."""

    def __init__(self, brake: Brake | None = None, part: int = PART) -> None:
        self._targets = Targets()
        self._evidence = Evidence(self._targets)
        self._verdicts = Verdicts(self._targets, self._evidence, part)
        self._confirmation = Confirmation(self._targets, self._evidence, self._verdicts)
        self._alarms = Alarms()
        self._pool_alarms = PoolAlarms()
        self._troubles: dict[str, Condition] = {}
        self._resources = Resources()
        self._generation = 0
        self._met: frozenset[str] = frozenset()
        self._stored: Restored | None = None  # what came before the first configuration
        self._configured = self._restored = False
        self._pools: dict[str, PoolState] = {}
        self._sets: dict[str, AddressSet] = {}  # of names of flattened pools
        self._latency = Latency(self._targets, self._evidence)
        self._forces = Forces()
        self._router = Router(self._forces)
        self._brakes = Brakes(
            brake or Brake(), self._targets, self._evidence, self._verdicts, self._forces
        )
        self._known_ms: dict[str, int] = {}  # pools never published, and since when we know them
        self._now = Now(0, 0.0)
        self.certificates: tuple[Certificate, ...] = ()
        """Those in use, for alarms; whoever sees them keeps this up to date."""

    # ---- events ------------------------------------------------------------------------------

    def handle(self, event: Incoming, now: Now) -> list[Effect]:
        """Apply `event`, evaluate once, and say what changed against the store."""
        self._now = now
        match event:
            case Frame():
                turned = self._evidence.frame(event, now.mono_ms)
                looks = self._brakes.suspect(event.region, turned)
                return self._evaluate(turned, now, looks=looks) + self._confirm(event, now)
            case Digest():
                turned = self._evidence.digest(event, now.mono_ms)
                pools = self._latency.digest(event, now.mono_ms)
                looks = self._brakes.suspect(event.region, turned)
                effects = self._evaluate(turned, now, pools=pools, looks=looks)
                return effects + self._confirm(event, now)
            case Troubled():
                self._troubles = {id_: Condition(text) for id_, text in event.found.items()}
                return self._evaluate(_NO_NUMBERS, now, alarms=True)
            case Tick():
                changed = self._evidence.lapse(now.mono_ms)
                due = {*self._impatient(now), *self._brakes.eased(now)}
                everybody = self._brakes.everybody()
                return self._evaluate(changed, now, pools=due, looks=everybody, alarms=True)
            case GoOn():
                return self._evaluate(self._verdicts.owed(), now)
            case AgentFound():
                changed = self._evidence.found(event.region, event.agent, now.mono_ms)
                return self._evaluate(changed, now, alarms=True)
            case AgentLost():
                self._evidence.lost(event.region, event.agent)
                return self._evaluate(_NO_NUMBERS, now, alarms=True)
            case Met():
                self._met = event.regions
                return self._reconfigure(self._resources, now)
            case Resolved():
                self._sets |= event.sets
                named = [
                    name
                    for name, config in self._resources.pools.items()
                    if not names_of({name: config}).isdisjoint(event.sets)
                ]
                return self._evaluate(_NO_NUMBERS, now, pools=named)
            case Forced():
                touched = self._forces.replace(event.forces, now)
                return self._evaluate(_NO_NUMBERS, now, forced=touched, again=True)
            case Configured():
                self._generation = event.generation
                self._configured = True
                return self._reconfigure(event.resources, now)
            case Restored():
                self._met = event.met
                self._stored = event
                return self._reconfigure(self._resources, now)

    def _confirm(self, event: Frame | Digest, now: Now) -> list[Effect]:
        """Whom to probe at once, after the evaluation."""
        if not (self._configured and self._restored):
            return []
        return [*self._confirmation.after(event, now.mono_ms)]

    def _reconfigure(self, resources: Resources, now: Now) -> list[Effect]:
        """Take over resources, regions and, once it came, what the store has."""
        self._resources = resources
        capacity = self._targets.capacity
        changes = self._targets.update(resources, self._met, now.mono_ms)
        if self._targets.capacity > capacity:
            self._evidence.grow()
            self._verdicts.grow()
        self._verdicts.move(changes.moved)
        gone = [number for _, number in changes.removed] + [old for old, _ in changes.moved]
        self._evidence.clear(np.array(gone, dtype=np.intp))
        self._verdicts.clear(np.array(gone, dtype=np.intp))
        self._confirmation.clear(np.array(gone, dtype=np.intp))
        retimed = np.array(changes.retimed, dtype=np.intp)
        changed = self._evidence.judge_again(retimed, now.mono_ms)

        dirty = set(changes.pools)
        gone_keys: Set[TargetKey] = {key for key, _ in changes.removed}
        if self._configured and (stored := self._stored) is not None:
            self._stored = None
            alike = self._verdicts.restore(stored.verdicts, now)
            if not self._restored:
                self._evidence.restore(alike, now.mono_ms)
            self._evidence.outvoted(self._targets.numbers(), self._verdicts.code, now.mono_ms)
            self._restored = True
            self._pools = dict(stored.pools)
            self._brakes.restore(stored, self._pools, now)
            self._latency.restore(stored.pools)
            self._router.restore(stored.routes)
            self._forces.restore(stored.forces, now)
            self._alarms.restore(stored.alarms)
            self._sets = newest(self._sets, sets_of(stored.pools.values()))
            changed, dirty = self._targets.numbers(), set(resources.pools)
            gone_keys = self._verdicts.stored()
        if self._configured:
            wanted = names_of(resources.pools)
            self._sets = {name: one for name, one in self._sets.items() if name in wanted}
            dirty |= self._brakes.configure(resources, now)
            self._router.configure(resources)
            self._pool_alarms.configure(resources, self._pools)
            dirty |= self._latency.configure(resources).intersection(resources.pools)
            self._known_ms = {
                name: self._known_ms.get(name, now.mono_ms)
                for name in resources.pools
                if name not in self._pools
            }
        added = np.array([self._targets.number(key) for key in changes.added], dtype=np.intp)
        moved = np.array([new for _, new in changes.moved], dtype=np.intp)
        numbers = np.unique(np.concatenate((changed, retimed, added, moved)))
        return self._evaluate(
            numbers,
            now,
            gone=gone_keys,
            pools=dirty,
            routes=resources.instances,
            looks=self._brakes.asides.standing,
            alarms=True,
        )

    # ---- the one evaluation ------------------------------------------------------------------

    def _evaluate(
        self,
        numbers: NDArray[np.intp],
        now: Now,
        *,
        gone: Iterable[TargetKey] = (),
        pools: Iterable[str] = (),
        routes: Iterable[str] = (),
        forced: Iterable[str] = (),
        again: bool = False,
        looks: Iterable[str] = (),
        alarms: bool = False,
    ) -> list[Effect]:
        """Judge targets whose votes or rules changed, then what stands above them.

        `forced` are the targets of forces that came or went; `again`: those that ended earlier and
        are still stored are to be deleted once more. `looks` are the regions that may have to be
        set aside.
        """
        if not (self._configured and self._restored):
            return []
        effects: list[Effect] = []
        undeleted = self._forces.undeleted() if again else []
        over = self._forces.over(now)
        for target in over:
            self._forces.end(target)
        released = self._forces.releases()
        named = {target.partition("/")[0] for target in (*forced, *over, *released)}
        dirty = {*pools, *named.intersection(self._resources.pools)}
        if looks:
            effects += self._brakes.look(looks, now)
        numbers = self._brakes.silence(numbers)
        turned: list[TargetKey] = []
        if numbers.size:
            turned, records = self._verdicts.judge(numbers, now)
            effects += records
            for key in turned:
                dirty.update(self._targets.pools_of[key])
            dirty |= self._brakes.waver(numbers, now)
        effects += self._verdicts.forget(gone)
        dirty |= self._brakes.hold(pools, turned, released, now)
        changed: list[str] = []
        for name in sorted(dirty):
            judged = self._judge_pool(name, now)
            effects += judged
            changed += [effect.name for effect in judged]
        self._pool_alarms.judged(changed, self._pools)
        instances = {*routes, *named, *self._router.of_pools(changed), *self._router.due(now)}
        effects += self._router.judge(instances, self._pools, self._generation, now)
        for target in released:
            self._forces.end(target)
        ended = dict.fromkeys((*undeleted, *over, *released))
        effects += [EndForce(target=target) for target in ended]
        if alarms:
            regions = self.regions()
            holding = conditions(self._resources, self._targets, self._verdicts.pending, regions)
            holding |= rate_alarms.conditions(self._targets, regions)
            holding |= self._brakes.conditions()
            holding |= expiring(self.certificates, now.wall_s)
            holding |= unresolved(self._resources.pools, self._sets)
            holding |= self._pool_alarms.conditions() | self._troubles
            effects += self._alarms.update(holding, now)
        return effects

    # ---- pools -------------------------------------------------------------------------------

    def _health(self, name: str) -> list[list[tuple[str, Health]]]:
        return [
            [(key.check, self._verdicts.health(key)) for key in keys]
            for keys in self._targets.of_pool(name)
        ]

    def _judge_pool(self, name: str, now: Now) -> list[PublishPool]:
        config, published = self._resources.pools[name], self._pools.get(name)
        state = pool.judge(
            config,
            self._health(name),
            published,
            patient=published is None and self._is_patient(name, now),
            generation=self._generation,
            wall_s=now.wall_s,
            sets=self._sets,
            forces=self._forces.of_pool(name),
            latency=self._latency.of_pool(name),
            penalties=self._brakes.penalties(name),
            held=self._brakes.guard.held(),
            wavering=self._brakes.wavering.of_pool(name),
        )
        if state is None or (published is not None and pool.same(state, published)):
            return []
        self._pools[name] = state
        self._brakes.published(published, name, state)
        self._known_ms.pop(name, None)
        return [PublishPool(name=name, state=state)]

    def _is_patient(self, name: str, now: Now) -> bool:
        waits = pool.patience_ms(self._resources.pools[name], self._resources.checks)
        return now.mono_ms - self._known_ms[name] < waits

    def _impatient(self, now: Now) -> list[str]:
        """The withheld pools whose time is up."""
        return [name for name in self._known_ms if not self._is_patient(name, now)]

    # ---- what others see ---------------------------------------------------------------------

    @property
    def targets_version(self) -> int:
        """Grows whenever `targets()` changes."""
        return self._targets.version

    def targets(self) -> Mapping[TargetKey, Assigned]:
        """Every target that is to be probed, and by whom; read-only."""
        return self._targets.assigned()

    def canaries(self, region: str) -> tuple[str, ...]:
        """The canaries of a region, as its agents are told them."""
        found = self._resources.regions.get(region)
        return found.canaries if found is not None else ()

    def assigned(self, region: str) -> Iterable[Assigned]:
        """The targets that agents of `region` should probe."""
        return (one for one in self.targets().values() if region in one.regions)

    @property
    def owes(self) -> bool:
        """Whether the store lacks verdicts that stand: `GoOn` lets a part of them out."""
        return self._configured and self._restored and self._verdicts.owed().size > 0

    @property
    def unasked(self) -> int:
        """Targets that should have been probed at once, but for the bound on that."""
        return self._confirmation.refused

    def number(self, key: TargetKey) -> int | None:
        """The number of a target in the columns of frames and digests."""
        return self._targets.number(key)

    def graces_ms(self) -> NDArray[np.int64]:
        """How long an opinion counts after the last result, by target number."""
        return self._targets.columns.grace

    def voters(self, check: str) -> tuple[str, ...]:
        """The regions that vote in a check; none where nobody uses it."""
        for key in self.targets():
            if key.check == check:
                return self._targets.electorate(key).regions
        return ()

    def admits(self, region: str, agent: str) -> bool:
        """Whether there is room for an agent; one that is not admitted is not listened to."""
        return self._evidence.admits(region, agent)

    def verdicts(self, filter: str = "", now: Now | None = None) -> list[VerdictView]:
        """The verdicts over an address, a pool, an instance or a check; all of them for "".

        Ages are as of `now`, else of the last event.
        """
        return self._picture(now).listing(filter)

    def named(self, filter: str = "") -> list[TargetKey]:
        """The targets that `verdicts` speaks of, in its order: quick, however many they are."""
        return self._picture(None).named(filter)

    def verdicts_over(self, keys: Iterable[TargetKey], now: Now | None = None) -> list[VerdictView]:
        """The verdicts over these targets, without those that nobody names any more."""
        picture = self._picture(now)
        return [picture.verdict(key) for key in keys if self.number(key) is not None]

    def verdict(self, key: TargetKey, now: Now | None = None) -> VerdictView | None:
        """The verdict over one target; None where nobody names it."""
        return None if self.number(key) is None else self._picture(now).verdict(key)

    def behind(self, pool: str) -> dict[str, tuple[VerdictView, ...]]:
        """The verdicts over each address of a pool; none where it has none, or is not there."""
        config = self._resources.pools.get(pool)
        if config is None:
            return {}
        picture = self._picture(None)
        pairs = zip(config.addresses, self._targets.of_pool(pool), strict=True)
        return {address.value: tuple(map(picture.verdict, keys)) for address, keys in pairs}

    def tally(self) -> tuple[dict[Health, int], int]:
        """How many targets have each standing verdict, and how many of these are pending."""
        numbers = self._targets.numbers()
        counts = np.bincount(self._verdicts.code[numbers], minlength=len(HEALTH))
        pending = int(np.count_nonzero(self._verdicts.pending[numbers]))
        return dict(zip(HEALTH, map(int, counts), strict=True)), pending

    def _picture(self, now: Now | None) -> Picture:
        return Picture(
            self._resources,
            self._targets,
            self._evidence,
            self._verdicts,
            self._pools,
            now or self._now,
        )

    def pools(self) -> Mapping[str, PoolState]:
        """The states of the configured pools as judged; without those still withheld."""
        return MappingProxyType(self._pools)

    def sets(self) -> Mapping[str, AddressSet]:
        """What the names of flattened pools stand for."""
        return MappingProxyType(self._sets)

    def withheld(self) -> frozenset[str]:
        """The configured pools that were never published and still wait for verdicts."""
        return frozenset(self._known_ms)

    def regions(self) -> list[RegionView]:
        """Every region that is declared, met or has an agent."""
        return region_views(
            self._resources, self._met, self._evidence, self._brakes.asides.standing
        )

    def damped(self) -> int:
        """How many targets are damped."""
        return len(self._verdicts.damping.damped())

    def held(self) -> Mapping[str, float]:
        """The addresses that the guard holds, and since when (Unix)."""
        return self._brakes.guard.held()

    def agents(self, now: Now | None = None) -> list[AgentView]:
        """Every agent that streams, or whose opinions still count."""
        return agent_views(self._evidence, now or self._now)

    def forces(self) -> list[Force]:
        """The operators' forces that stand."""
        return self._forces.standing()

    def alarms(self) -> list[AlarmView]:
        """The alarms that stand."""
        return self._alarms.standing()
