"""The history: what an evaluation changed, in entries, and the clock that each gets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from coordinator import chronicle
from coordinator.chronicle import Chronicle
from coordinator.election import Leadership
from coordinator.events import Now, PublishAside, PublishPool, PublishRoutes, PublishVerdict
from coordinator.events import TargetKey as Target
from coordinator.telling import Telling
from gtm import codec, keys
from gtm.memory import MemoryStore
from gtm.state import (
    Aside,
    HistoryEntry,
    Member,
    PoolState,
    Route,
    Routes,
    VerdictRecord,
    VoteRecord,
)
from gtm.store import Delete, Put

NOW = Now(5_000, 100.0)
KEY = Target("web", "192.0.2.1", 80)


def member(value: str, why: str) -> Member:
    up = why == "up"
    return Member(value=value, why=why, answered=up, counted=up)  # type: ignore[arg-type]


def state(one: str, other: str = "up") -> PoolState:
    members = (member("192.0.2.1", one), member("192.0.2.2", other))
    return PoolState(type="ipv4", members=members)


DOWN = VerdictRecord(
    verdict="down",
    since=100.0,
    rule="2 of 3 regions down",
    first_failed=98.5,
    votes={
        "eu": VoteRecord(vote="down", since=99.0),
        "us": VoteRecord(vote="down", since=99.9),
        "asia": VoteRecord(vote="up", since=1.0),
    },
)


def told(telling: Telling, *effects: object) -> list[tuple[str, str, str, str]]:
    entries = [entry for _, entry in telling.told(effects, NOW)]  # type: ignore[arg-type]
    return [(one.kind, one.target, one.before, one.after) for one in entries]


def known() -> Telling:
    telling = Telling()
    telling.restore({KEY: VerdictRecord(verdict="up", since=1.0)}, {"a": state("up")}, {})
    return telling


def test_a_death_is_told_with_the_address_and_the_clock_of_its_verdict() -> None:
    effects = [
        PublishVerdict(target=KEY, record=DOWN),
        PublishPool(name="a", state=state("down")),
    ]
    [(key, entry)] = known().told(effects, NOW)
    assert key == keys.pool("a")
    assert (entry.kind, entry.target) == ("address", "a/192.0.2.1")
    assert (entry.before, entry.after, entry.why) == ("up", "down", "2 of 3 regions down")
    assert (entry.time, entry.detected) == (100.0, 98.5)
    assert entry.votes == {"eu": 99.0, "us": 99.9}


def test_a_verdict_that_changes_no_member_is_told_by_itself() -> None:
    assert told(known(), PublishVerdict(target=KEY, record=DOWN)) == [
        ("verdict", "web/192.0.2.1/80", "up", "down")
    ]


def test_pools_routes_and_regions_are_told() -> None:
    telling = known()
    assert told(telling, PublishPool(name="a", state=state("down", "held"))) == [
        ("address", "a/192.0.2.1", "up", "down"),
        ("address", "a/192.0.2.2", "up", "held"),
        ("pool", "a", "available for ipv4", "unavailable for ipv4"),
    ]
    routes = Routes(rules={"all": {"ipv4": Route(tier=2, pinned_by="force")}})
    assert told(telling, PublishRoutes(instance="shop", routes=routes)) == [
        ("route", "shop/all", "first available tier", "tier 2 pinned by force")
    ]
    assert told(telling, PublishRoutes(instance="shop", routes=None)) == [
        ("route", "shop/all", "tier 2 pinned by force", "first available tier")
    ]
    aside = PublishAside(region="eu", record=Aside(text="5 of 5", since=1.0))
    assert told(telling, aside) == [("region", "region:eu", "counts", "aside")]
    assert told(telling, PublishPool(name="a", state=state("down", "held"))) == []


# ---- the clock ---------------------------------------------------------------------------------


class World:
    """A chronicle on a store that it leads."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.leadership = Leadership(lambda: None)
        self.resolvers: list[str] = ["r1", "r2"]
        self.wall_s = 1_000.0
        self.chronicle = Chronicle(
            self.store,
            self.leadership,
            lambda: "c1",
            lambda: self.resolvers,
            wall_s=lambda: self.wall_s,
            most=5,
        )

    async def lead(self) -> None:
        done = await self.store.txn([], [Put(keys.leader(), b"{}")])
        self.leadership.won(done.revision, await self.store.lease(60.0))

    async def entries(self) -> list[HistoryEntry]:
        listing = await self.store.list(keys.HISTORY)
        return [codec.decode(item.value, HistoryEntry) for item in listing.items]


def entry(target: str = "a", at: float = 999.0) -> HistoryEntry:
    return HistoryEntry(time=at, kind="pool", target=target, before="x", after="y")


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    task = asyncio.create_task(world.chronicle.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(world: World, holds: object) -> None:
    async with asyncio.timeout(20):
        while not holds(await world.entries()):  # type: ignore[operator]
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "PAUSE_S", 0.01)


async def test_an_entry_is_written_once_committed_and_once_more_with_who_serves_it() -> None:
    world = World()
    await world.lead()
    async with running(world):
        world.chronicle.decided([(keys.pool("a"), entry())])
        world.chronicle.committed([keys.pool("a"), keys.pool("b")], 42)
        await until(world, lambda found: len(found) == 1)
        [first] = await world.entries()
        assert (first.revision, first.committed, first.leader) == (42, 1_000.0, "c1")
        assert first.served == {}
        world.wall_s = 1_001.0
        world.chronicle.served("r1", 41)
        world.chronicle.served("r1", 43)
        world.wall_s = 1_002.0
        world.chronicle.served("r2", 42)
        await until(world, lambda found: found[0].served == {"r1": 1_001.0, "r2": 1_002.0})


async def test_a_resolver_that_never_tells_does_not_hold_an_entry_for_ever() -> None:
    world = World()
    await world.lead()
    async with running(world):
        world.chronicle.decided([(keys.pool("a"), entry())])
        world.chronicle.committed([keys.pool("a")], 42)
        await until(world, lambda found: len(found) == 1)
        world.chronicle.served("r2", 42)
        world.wall_s += chronicle.SERVED_WAIT_S + 1
        world.chronicle.served("r2", 43)
        await until(world, lambda found: found[0].served == {"r2": 1_000.0})


async def test_what_was_decided_without_leading_is_not_told_later() -> None:
    world = World()
    async with running(world):
        world.chronicle.decided([(keys.pool("a"), entry("early"))])
        await world.lead()
        world.chronicle.decided([(keys.pool("a"), entry("late"))])
        world.chronicle.committed([keys.pool("a")], 42)
        await until(world, lambda found: [one.target for one in found] == ["late"])


async def test_a_former_leader_writes_nothing() -> None:
    world = World()
    await world.lead()
    world.chronicle.decided([(keys.pool("a"), entry())])
    world.chronicle.committed([keys.pool("a")], 42)
    await world.store.txn([], [Delete(keys.leader())])
    done = await world.store.txn([], [Put(keys.leader(), b"{}")])
    refused = asyncio.Event()
    txn = world.store.txn

    async def watched(*arguments: object) -> object:
        result = await txn(*arguments)  # type: ignore[arg-type]
        refused.set()
        return result

    world.store.txn = watched  # type: ignore[method-assign, assignment]
    async with running(world), asyncio.timeout(20):
        await refused.wait()
    assert await world.entries() == []
    assert (await world.store.list(keys.ROOT)).revision == done.revision


async def test_the_history_is_bounded_in_number_and_age() -> None:
    world = World()
    await world.lead()
    world.wall_s = chronicle.MAX_AGE_S + 10.0
    async with running(world):
        for number in range(8):
            at = world.wall_s - 8 + number
            world.chronicle.decided([(keys.pool("a"), entry(f"p{number}", at))])
            world.chronicle.committed([keys.pool("a")], 42 + number)
            await until(world, lambda found, name=f"p{number}": found and found[-1].target == name)
        await until(world, lambda found: len(found) <= 5)
        assert (await world.entries())[-1].target == "p7"


async def test_what_waits_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "MAX_WAITING", 3)
    world = World()
    await world.lead()
    before = chronicle.metrics.HISTORY_DROPPED._value.get()
    for number in range(5):
        world.chronicle.decided([(keys.pool(f"p{number}"), entry())])
    assert chronicle.metrics.HISTORY_DROPPED._value.get() - before == 2
