"""What tests of the coordinator share: a policy that accepts, small resources, waiting."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from coordinator.apply import Applier
from coordinator.mirror import Mirror
from coordinator.part import Coordinator
from coordinator.planner import Planner, Request
from coordinator.settings import Settings
from gtm import codec
from gtm.memory import MemoryStore
from gtm.model import TYPES, Resources
from gtm.ports import Effect, Problem, Question, Review
from gtm.view import View

WALL_S = 1_800_000_000.0


class Accepting:
    """A policy that takes what can be decoded, refuses unknown references, and may be told more."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.refuse: Callable[[Mapping[str, Any]], list[Problem]] = lambda resources: []
        self.slow = False

    async def problems(self, resources: Mapping[str, Mapping[str, Any]]) -> Review:
        if self.slow:
            raise TimeoutError
        whole = copy.deepcopy({kind: dict(named) for kind, named in resources.items()})
        self.seen.append(whole)
        problems = []
        read: dict[str, dict[str, Any]] = {}
        for kind, named in whole.items():
            for name, data in named.items():
                try:
                    read.setdefault(kind, {})[name] = codec.resource(kind, copy.deepcopy(data))
                except (ValueError, KeyError) as error:
                    problems.append(Problem(path=f"{kind}.{name}", text=str(error)))
        for name, instance in read.get("instances", {}).items():
            for rule in instance.rules:
                problems += (
                    Problem(path=f"instances.{name}", text=f"no pool {pool!r}")
                    for tier in rule.tiers
                    for pool in tier.names()
                    if pool not in read.get("pools", {})
                )
        for name, pool in read.get("pools", {}).items():
            problems += (
                Problem(path=f"pools.{name}", text=f"no check {check!r}")
                for check in pool.checks
                if check not in read.get("checks", {})
            )
        problems += self.refuse(whole)
        if any(problem.severity == "error" for problem in problems):
            return Review(resources=None, problems=tuple(problems))
        known = {kind: read.get(kind, {}) for kind in TYPES}
        return Review(resources=Resources(**known), problems=tuple(problems))

    async def effects(
        self, before: Resources, after: Resources, names: Sequence[str]
    ) -> tuple[Effect, ...]:
        if self.slow:
            raise TimeoutError
        return tuple(
            Effect(instance=name, line="default", type="A", before="", after="something")
            for name in names
        )

    async def explain(self, view: View, question: Question) -> str:
        if self.slow:
            raise TimeoutError
        if question.name not in view.instances:
            raise LookupError(f"no instance has the name {question.name!r}")
        return f'{{"qname": "{question.name}", "revision": {view.revision}}}'

    async def close(self) -> None:
        return


def zone(records: int = 0, **more: Any) -> dict[str, Any]:
    """A zone with so many TXT records of about 300 bytes."""
    return {
        "nameservers": ["ns1.gtm.test"],
        "records": [
            {"name": f"name-{number:06d}", "type": "TXT", "data": ['"' + 240 * "x" + '"']}
            for number in range(records)
        ],
        **more,
    }


def instance(pool: str, **more: Any) -> dict[str, Any]:
    """An instance whose one rule has one tier."""
    rules = [{"name": "world", "lines": ["default"], "tiers": [{"pools": [pool]}]}]
    return {"rules": rules, **more}


def pool(*addresses: str, **more: Any) -> dict[str, Any]:
    """An IPv4 pool of these addresses."""
    return {"type": "ipv4", "addresses": [{"value": one} for one in addresses], **more}


SMALL: dict[str, Any] = {
    "zones": {"gtm.test": zone(2)},
    "regions": {"eu": {}, "us": {}, "as": {}},
    "checks": {"web": {"type": "http", "port": 80, "interval": "1s", "timeout": "500ms"}},
    "pools": {"a": pool("192.0.2.1", "192.0.2.2", checks=["web"])},
    "instances": {"shop": instance("a")},
}


async def until(condition: Callable[[], Any | Awaitable[Any]], seconds: float = 10.0) -> Any:
    """Wait until `condition()` is true; what it returned."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.005)


class Bench:
    """A store in memory, a mirror of it and an applier."""

    def __init__(self, store: MemoryStore, seed: int = 1) -> None:
        self.store, self.policy = store, Accepting()
        self.wall_s = WALL_S
        self.mirror = Mirror(store, lambda view, changes, events: None)
        dice = random.Random(seed)
        planner = Planner(
            store, self.policy, draw=lambda: dice.randrange(10**8), wall_s=lambda: self.wall_s
        )
        self.applier = Applier(store, self.mirror, planner)

    @property
    def view(self) -> View:
        return self.mirror.view

    async def apply(self, given: Any = None, **more: Any) -> Any:
        return await self.applier.apply(Request(given=copy.deepcopy(given or {}), **more))


@pytest.fixture
def helpers() -> Any:
    """The functions above, for tests that can't import this file."""

    class Helpers:
        Accepting, Bench = Accepting, Bench
        SMALL, WALL_S = SMALL, WALL_S

    for function in (zone, instance, pool, until):
        setattr(Helpers, function.__name__, staticmethod(function))
    Helpers.bench = staticmethod(_bench)
    Helpers.coordinator = staticmethod(_coordinator)
    return Helpers


@contextlib.asynccontextmanager
async def _bench(store: MemoryStore | None = None, seed: int = 1) -> AsyncIterator[Bench]:
    made = Bench(store or MemoryStore(), seed)
    following = asyncio.create_task(made.mirror.run())
    try:
        await asyncio.wait_for(made.mirror.ready.wait(), 5)
        yield made
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A bench on a store of its own."""
    async with _bench() as made:
        yield made


@contextlib.asynccontextmanager
async def _coordinator(
    store: Any, policy: Any = None, **settings: Any
) -> AsyncIterator[Coordinator]:
    given = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "id": "c1", **settings}
    made = Coordinator(Settings(**given), store, policy or Accepting())
    try:
        await made.start()
        yield made
    finally:
        await made.close()
