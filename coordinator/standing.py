"""What stands in a coordinator, as metrics made at a scrape: nothing is kept up to date for it.

Also asks etcd how it is, every `PERIOD_S`, because a scrape can't wait for that. Labels by region
have the bound of the engine (`evidence.MAX_REGIONS`); pools and targets are counted, not named.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gtm import etcd_meters
from gtm.availability import available
from gtm.errors import StoreError
from gtm.state import PoolState
from gtm.store import Store, StoreStatus

from .engine import Engine
from .publisher import Publisher
from .recent import Recent
from .replicas import Replicas

PERIOD_S = 10.0
"""From one question to etcd to the next."""
TIMEOUT_S = 3.0


class StoreHealth:
    """The newest word of etcd about itself; `last` is None while it does not answer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.last: StoreStatus | None = None
        self.asked = False

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    self.last = await self._store.status()
            except (StoreError, TimeoutError):
                self.last = None
            self.asked = True
            await asyncio.sleep(PERIOD_S)


class Standing(Collector):
    """The gauges of one coordinator."""

    def __init__(
        self,
        engine: Engine,
        publisher: Publisher,
        store: StoreHealth,
        replicas: Callable[[], Replicas | None],
        unready: Callable[[], str],
        recent: Callable[[], Recent] = Recent,
    ) -> None:
        self._engine, self._publisher, self._store = engine, publisher, store
        self._replicas, self._unready = replicas, unready
        self._recent = recent

    def registry(self) -> CollectorRegistry:
        """A registry with these, the counters of the process and those of its etcd client."""
        registry = CollectorRegistry()
        for source in (REGISTRY, etcd_meters.REGISTRY, self):
            registry.register(source)  # a registry collects as well
        return registry

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: all is read at a scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """What stands now."""
        yield _gauge("ready", "1 while /readyz says yes.", not self._unready())
        yield from self._judged()
        yield from self._regions()
        yield _gauge("recent_runs", "Runs of results kept for backtests.", self._recent().runs)
        yield _gauge("recent_bytes", "Memory that they take.", self._recent().size_bytes)
        yield _gauge(
            "recent_dropped", "Runs and rows that found no room there.", self._recent().dropped
        )
        yield _gauge(
            "publish_waiting_seconds",
            "For so long something has waited to be published by us, the leader.",
            self._publisher.waits_s,
        )
        replicas = self._replicas()
        yield _gauge(
            "serve_behind_seconds",
            "For so long the resolver that is farthest behind has lacked a published revision.",
            replicas.behind_s() if replicas else 0.0,
        )
        yield _gauge(
            "stale_replicas",
            "Resolvers that mark their answers stale.",
            replicas.stale() if replicas else 0,
        )
        yield from self._etcd()

    def _judged(self) -> Iterator[Metric]:
        health, pending = self._engine.tally()
        verdicts = GaugeMetricFamily(
            "gtm_coordinator_verdicts", "Targets by standing verdict.", labels=("verdict",)
        )
        for verdict, count in health.items():
            verdicts.add_metric((verdict,), count)
        yield verdicts
        yield _gauge(
            "unconfirmed_targets",
            "Times that a target was not probed at once, for the bound on that, since the start.",
            self._engine.unasked,
        )
        yield _gauge("pending_verdicts", "Targets about which too few regions speak.", pending)
        yield _gauge(
            "held_addresses", "Addresses that the guard holds in answers.", len(self._engine.held())
        )
        yield _gauge("damped_targets", "Targets that damping holds down.", self._engine.damped())
        pools = GaugeMetricFamily(
            "gtm_coordinator_pools", "Pools by what they can serve.", labels=("state",)
        )
        states = Counter(_state(pool) for pool in self._engine.pools().values())
        states["withheld"] = len(self._engine.withheld())
        for state in ("available", "unavailable", "withheld"):
            pools.add_metric((state,), states[state])
        yield pools
        alarms = GaugeMetricFamily(
            "gtm_coordinator_alarms", "Alarms that stand, by kind.", labels=("kind",)
        )
        kinds = Counter(alarm.id.partition("/")[0] for alarm in self._engine.alarms())
        for kind, count in sorted(kinds.items()):
            alarms.add_metric((kind,), count)
        yield alarms

    def _regions(self) -> Iterator[Metric]:
        agents = GaugeMetricFamily(
            "gtm_coordinator_region_agents",
            "Agents of each region that is declared or met.",
            labels=("region",),
        )
        silenced = GaugeMetricFamily(
            "gtm_coordinator_region_silenced",
            "1 for a region whose votes do not count: it is set aside or muted.",
            labels=("region",),
        )
        for region in self._engine.regions():
            agents.add_metric((region.name,), region.agents)
            silenced.add_metric((region.name,), float(bool(region.silenced)))
        yield agents
        yield silenced

    def _etcd(self) -> Iterator[Metric]:
        status = self._store.last
        if self._store.asked:
            yield _gauge("etcd_up", "1 where etcd told us lately how it is.", status is not None)
        if status is not None:
            yield _gauge("etcd_size_bytes", "Size of etcd's database.", status.size_bytes)
            yield _gauge("etcd_quota_bytes", "Its quota; 0: unknown.", status.quota_bytes)
            yield _gauge("etcd_alarms", "Alarms that etcd tells of.", len(status.alarms))
            yield _gauge("etcd_revision", "Its revision.", status.revision)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gtm_coordinator_{name}", text, value=float(value))


def _state(pool: PoolState) -> str:
    return "available" if available(pool, None) else "unavailable"
