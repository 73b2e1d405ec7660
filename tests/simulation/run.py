"""One seed: a virtual hour of a whole system under a nemesis; and many of them, from a shell.

    python -m tests.simulation.run --seeds 1000 --jobs 2
    python -m tests.simulation.run --seed 17 --trace

A seed gives the same hour each time: the same trace, by its hash.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import multiprocessing
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .loop import VirtualLoop, in_place
from .machines import AgentMachine, CoordinatorMachine, ResolverMachine, stands_in
from .monitor import Monitor
from .nemesis import Nemesis
from .store import Client, Cluster
from .wire import Net
from .world import Size, World

HOUR_S = 3600.0
CALM_S = 600.0
"""At the end nothing goes wrong for so long: longer than the guard holds."""
PAUSE_S = (1.0, 60.0)
"""Between two faults."""


@dataclass
class Seen:
    """What came of one seed."""

    seed: int
    size: str = ""
    trace: str = ""
    violations: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    changes: list[tuple[float, Any, str]] = field(default_factory=list)
    moves: int = 0
    leaderships: int = 0
    revisions: int = 0
    late_writes: int = 0
    steps: int = 0


class Simulation:
    """Everything of one seed, wired; `run` it once."""

    def __init__(
        self,
        seed: int,
        *,
        hours: float = 1.0,
        nemesis: bool = True,
        trace: bool = False,
        script: str = "",
        **size: int,
    ) -> None:
        self.seed, self._hours, self._strikes = seed, hours, nemesis
        self.dice = random.Random(seed)
        self.loop = VirtualLoop()
        self.cluster = Cluster(self.loop, self.dice)
        self.net = Net(self.loop, self.dice)
        self.world = World(Size(self.dice, **size), self.loop, self.dice)
        self.monitor = Monitor(self.world, self.loop, self.cluster)
        self.monitor.keep_lines = trace
        self.cluster.wrote = self.monitor.wrote
        self.at = self._script(script)
        """(seconds from the start, what to do then): a script beside the nemesis."""
        numbers = range(1, self.world.size.coordinators + 1)
        self.coordinators = [
            CoordinatorMachine(
                f"c{number}", number, self.loop, self.net, self.cluster,
                self.monitor.broke, self.monitor.began,
            )
            for number in numbers
        ]  # fmt: skip
        addresses = tuple(one.address for one in self.coordinators)
        regions = [*self.world.regions, *self.world.regions[: self.world.size.doubled]]
        self.agents = [
            AgentMachine(
                f"a{number}", region, self.loop, self.net, self.world, addresses,
                self.monitor.heard,
            )
            for number, region in enumerate(regions, 1)
        ]  # fmt: skip
        self.resolvers = [
            ResolverMachine(f"s{number}", self.loop, self.net, self.cluster, self.monitor.swapped)
            for number in range(1, self.world.size.resolvers + 1)
        ]

    def _script(self, name: str) -> list[tuple[float, Callable[[], None]]]:
        """ "one": the first origin dies after 1,800 s and returns after 2,700 s; "failing": and a
        region sees everything fail from 120 s on."""
        world, first = self.world, self.world.addresses[0]
        everything = {(world.regions[1], address) for address in world.addresses}
        rows: list[tuple[float, Callable[[], None]]] = []
        if name:
            rows += [
                (1800.0, lambda: world.down.add(first)),
                (2700.0, lambda: world.down.discard(first)),
            ]
        if name == "failing":
            rows.append((120.0, lambda: world.hidden.update(everything)))
        return rows

    def run(self) -> Seen:
        """The whole of it."""
        by_name = {one.name: one for one in self.coordinators}
        everywhere = stands_in(self.loop, self.net, self.dice, by_name)
        heard = _Errors(self.monitor)
        logging.getLogger().addHandler(heard)
        former, logging.root.manager.disable = logging.root.manager.disable, logging.WARNING
        try:
            with in_place(self.loop, self.dice, **everywhere), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                asyncio.set_event_loop(self.loop)
                self.loop.set_exception_handler(self._trouble)
                self.loop.run_until_complete(self._story())
                seen = self._seen()
        finally:
            logging.root.manager.disable = former
            logging.getLogger().removeHandler(heard)
            asyncio.set_event_loop(None)
        return seen

    async def _story(self) -> None:
        operator = Client(self.cluster, "operator")
        await operator.txn([], self.world.written())
        for machine in (*self.coordinators, *self.agents, *self.resolvers):
            await asyncio.sleep(self.dice.uniform(0, 3))
            machine.start()
        start = self.loop.time()
        for seconds, act in self.at:
            self.loop.call_later(seconds, act, context=self.net.outside)
        nemesis = Nemesis(
            self.dice, self.world, self.net, self.monitor,
            self.coordinators, self.agents, self.resolvers,
        )  # fmt: skip
        self.faults = nemesis.begun
        until = start + self._hours * HOUR_S
        if self._strikes:
            self.monitor.disturbed(self.world.regions)
            while self.loop.time() < until - CALM_S and not self.monitor.violations:
                await asyncio.sleep(self.dice.uniform(*PAUSE_S))
                self.loop.call_soon(nemesis.strike, context=self.net.outside)
            await asyncio.sleep(0)
            nemesis.heal()
        while self.loop.time() < until and not self.monitor.violations:
            await asyncio.sleep(10)
        if not self.monitor.violations:
            self.monitor.settled(self.coordinators, self.resolvers)

    def _seen(self) -> Seen:
        return Seen(
            seed=self.seed,
            size=str(self.world.size),
            trace=self.monitor.trace,
            violations=self.monitor.violations,
            lines=self.monitor.lines,
            faults=self.faults,
            changes=self.monitor.changes,
            moves=self.monitor.moves,
            leaderships=self.monitor.leaderships,
            revisions=self.cluster.memory.history.revision,
            late_writes=self.cluster.late,
            steps=self.loop.steps,
        )

    def _trouble(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and "never retrieved" not in context["message"]:
            self.monitor.violated("nobody caught:", f"{type(error).__name__}: {error}")


class _Errors(logging.Handler):
    """What a part logs as a defect of its own is a violation."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__(logging.ERROR)
        self._monitor = monitor

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            words = f"{type(error).__name__}: {error}"
            self._monitor.violated(f"{record.name}: {record.getMessage()}:", words)


_KEPT: list[Simulation] = []
"""Of this process: what stood still in the middle must not be collected."""


def _one(seed: int, more: dict[str, Any]) -> Seen:
    gc.disable()  # what is collected when would be chance
    _KEPT.append(Simulation(seed, **more))
    return _KEPT[-1].run()


def simulate(seed: int, **more: Any) -> Seen:
    """What comes of a seed, in a process of its own."""
    return next(many([seed], 1, **more))


def many(seeds: Iterable[int], jobs: int, **more: Any) -> Iterator[Seen]:
    """What comes of many, on so many processes at a time, in the order of the seeds."""
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        yield from pool.imap(partial(_one, more=more), seeds)


def main() -> int:
    """Run seeds; 1 where one of them violates something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--stop", action="store_true", help="at the first violation")
    parser.add_argument("--trace", action="store_true", help="with its whole trace")
    given = parser.parse_args()
    if given.seed is not None:
        seen = simulate(given.seed, trace=given.trace)
        print(*seen.lines, sep="\n", end="\n" if seen.lines else "")
        print(f"seed {seen.seed}: {seen.size} trace {seen.trace}")
        print(*seen.violations, sep="\n")
        return bool(seen.violations)
    begun, bad, totals = time.perf_counter(), 0, Seen(0)
    for count, seen in enumerate(
        many(range(given.first, given.first + given.seeds), given.jobs), 1
    ):
        bad += bool(seen.violations)
        for text in seen.violations:
            print(f"seed {seen.seed}: {text}", flush=True)
        if bad and given.stop:
            return 1
        for name in ("moves", "leaderships", "revisions", "late_writes"):
            setattr(totals, name, getattr(totals, name) + getattr(seen, name))
        for name, faults in seen.faults.items():
            totals.faults[name] = totals.faults.get(name, 0) + faults
        if count % 50 == 0 or count == given.seeds:
            rate = count / (time.perf_counter() - begun)
            print(f"{count} seeds, {bad} with violations, {rate:.2f} seeds/s", flush=True)
    print(
        f"{totals.moves} members left or returned, {totals.leaderships} leaderships, "
        f"{totals.revisions} revisions, {totals.late_writes} writes carried out too late"
    )
    print(", ".join(f"{name} {count}" for name, count in totals.faults.items()))
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
