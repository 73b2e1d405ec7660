"""What a coordinator shows at a scrape: lags, what stands, how its etcd is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest

from coordinator import replicas, standing
from coordinator.election import Leadership
from coordinator.engine import Engine
from coordinator.planner import Request
from coordinator.publisher import Publisher
from coordinator.replicas import Replicas
from coordinator.standing import Standing, StoreHealth
from gtm.errors import StoreUnavailable
from gtm.memory import MemoryStore
from gtm.v1 import operator_pb2 as pb


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def shown(made: Standing) -> dict[str, float]:
    """Series as the text form names them."""
    lines = generate_latest(made.registry()).decode().splitlines()
    rows = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(number) for name, _, number in rows}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def report(made: Replicas, id_: str, revision: int, *, stale: bool = False) -> None:
    await made.Report(pb.ReportRequest(id=id_, served_revision=revision, stale=stale), None)


async def test_the_lag_of_a_resolver_is_that_of_the_oldest_revision_it_newly_serves() -> None:
    clock = Clock()
    made = Replicas(lambda: (), clock)
    made.published(5)
    await report(made, "a", 5)
    count, total = (value(f"gtm_coordinator_serve_lag_seconds_{of}") for of in ("count", "sum"))
    made.published(7)
    clock.now += 2
    made.published(9)
    clock.now += 1
    assert made.behind_s() == 3
    await report(made, "a", 9)
    assert made.behind_s() == 0
    assert value("gtm_coordinator_serve_lag_seconds_count") - count == 1
    assert value("gtm_coordinator_serve_lag_seconds_sum") - total == pytest.approx(3)


async def test_a_resolver_that_is_new_or_gone_has_no_lag() -> None:
    clock = Clock()
    made = Replicas(lambda: (), clock)
    made.published(5)
    count = value("gtm_coordinator_serve_lag_seconds_count")
    await report(made, "a", 5)
    assert value("gtm_coordinator_serve_lag_seconds_count") == count
    made.published(6)
    clock.now += replicas.SILENCE_S + 1
    assert made.behind_s() == 0


async def test_revisions_are_remembered_up_to_a_bound_and_of_one_history_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replicas, "MAX_REVISIONS", 8)
    clock = Clock()
    made = Replicas(lambda: (), clock)
    for revision in range(1, 100):
        made.published(revision)
        assert len(made._revisions) == len(made._seen) <= 8
    made.published(99)
    assert made._revisions[-2:] == [98, 99]
    made.published(3)  # the store went back to an older history
    assert made._revisions == [3]


class Silent(MemoryStore):
    async def status(self) -> Any:
        raise StoreUnavailable("no")


async def test_what_stands_is_shown_with_every_state_and_etcds_silence() -> None:
    leadership = Leadership()
    store = MemoryStore()
    publisher = Publisher(store, leadership, take_over=lambda: asyncio.sleep(0))
    reports = Replicas(lambda: ())
    await report(reports, "a", 1, stale=True)
    health = StoreHealth(Silent())
    reason = "no session with etcd"
    made = Standing(Engine(), publisher, health, lambda: reports, lambda: reason)
    before = shown(made)
    assert before["gtm_coordinator_ready"] == 0
    assert before["gtm_coordinator_stale_replicas"] == 1
    assert before['gtm_coordinator_pools{state="unavailable"}'] == 0
    assert before['gtm_coordinator_verdicts{verdict="down"}'] == 0
    assert "gtm_coordinator_etcd_up" not in before, "nobody has asked yet"
    asking = asyncio.create_task(health.run())
    while not health.asked:
        await asyncio.sleep(0)
    asking.cancel()
    reason = ""
    after = shown(made)
    assert after["gtm_coordinator_ready"] == 1
    assert after["gtm_coordinator_etcd_up"] == 0
    assert "gtm_coordinator_etcd_size_bytes" not in after


async def test_verdicts_pools_alarms_and_regions_of_a_whole_coordinator(helpers: Any) -> None:
    given = {
        "regions": {"r1": {}},
        "checks": {"web": {"type": "tcp", "port": 80, "interval": "15s"}},
        "pools": {"a": helpers.pool("192.0.2.1", checks=["web"]), "b": helpers.pool("192.0.2.2")},
    }
    async with helpers.coordinator(MemoryStore()) as part:
        await part.applier.apply(Request(given=given))
        made = Standing(
            part.engine, part.publisher, part._store_health, lambda: part.replicas, part.not_ready
        )

        def judged() -> bool:
            return shown(made).get('gtm_coordinator_pools{state="available"}') == 1

        await helpers.until(judged)
        found = shown(made)
        assert found['gtm_coordinator_pools{state="withheld"}'] == 1
        assert found['gtm_coordinator_verdicts{verdict="unknown"}'] == 1
        assert found["gtm_coordinator_pending_verdicts"] == 1
        assert found['gtm_coordinator_region_agents{region="r1"}'] == 0
        assert found["gtm_coordinator_ready"] == 1
        await helpers.until(lambda: "gtm_coordinator_etcd_up" in shown(made))
        assert shown(made)["gtm_coordinator_etcd_up"] == 1


def test_a_store_that_does_not_answer_is_given_up_in_time() -> None:
    assert standing.TIMEOUT_S < standing.PERIOD_S
