"""How long the engine takes for a result, beside its naive twin; prints medians and p99.

    python benchmarks/bench_engine.py [--targets 100000] [--rows 10000] [--rounds 30]
                                      [--regions 10]

`quiet`: no vote changes, which is the usual frame. `flips`: one target in a hundred changes its
vote in the one region that decides. `kept for backtests`: what the ring of recent results takes of
each frame besides, as a coordinator keeps it. Times are CPU times; only ratios carry over from
machine to machine. Memory is the greatest of a process of its own with all targets judged in
`--regions` regions, the ring included.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import platform
import resource
import sys
import time
from fractions import Fraction
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from coordinator.engine import Engine
from coordinator.events import AgentFound, Configured, Frame, Now, Restored, Tick
from coordinator.recent import Recent
from gtm.model import Address, Check, Pool, Region, Resources
from gtm.units import Duration

REGIONS = ("r1", "r2", "r3")
POOL_SIZE = 10
MEMORY_TARGET_MB = 1500


def resources(targets: int, regions: tuple[str, ...] = REGIONS) -> Resources:
    """Pools of ten addresses, one check, some regions."""
    check = Check(type="tcp", port=80, interval=Duration(10_000), timeout=Duration(2_000), fall=1)
    addresses = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(targets)]
    pools = {
        f"p{first}": Pool(
            type="ipv4",
            checks=("c",),
            addresses=tuple(Address(value=a) for a in addresses[first : first + POOL_SIZE]),
        )
        for first in range(0, targets, POOL_SIZE)
    }
    return Resources(regions={name: Region() for name in regions}, checks={"c": check}, pools=pools)


def frame(region: str, numbers: Any, outcome: Any) -> Frame:
    """A frame as the gateway makes it."""
    zero = np.zeros(len(numbers), dtype=np.int64)
    return Frame(
        region=region,
        agent="a",
        target=numbers,
        outcome=outcome,
        age_ms=zero + 5,
        rtt_us=zero + 1500,
        reason=zero,
        phases=(zero, zero, zero, zero, zero),
    )


def naive_twin() -> Any:
    """The twin that the tests compare with."""
    path = Path(__file__).parents[1] / "tests" / "property" / "naive_engine.py"
    spec = importlib.util.spec_from_file_location("naive_engine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["naive_engine"] = module
    spec.loader.exec_module(module)
    return module


def peak_mb() -> float:
    """The most that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def remember(targets: int, regions: int) -> None:
    """In a process of its own: judge all targets in all regions, and print the memory for it."""
    names = tuple(f"r{number}" for number in range(regions))
    engine, recent, clock, before = Engine(), Recent(), 1_000_000, peak_mb()

    def handle(event: Any) -> None:
        now = Now(clock, clock / 1000)
        if isinstance(event, Frame):
            recent.take(event, engine.graces_ms(), clock)
        engine.handle(event, now)

    handle(Restored(verdicts={}, pools={}, routes={}))
    handle(Configured(resources=resources(targets, names), generation=1, head_revision=1))
    recent.assigned(engine.targets())
    numbers = np.arange(targets, dtype=np.int64)
    for name in names:
        handle(AgentFound(region=name, agent="a"))
    for every in (targets + 1, 100, 100):  # all up, then one in a hundred fails
        clock += 10_000
        for name in names:
            for some in np.split(numbers, range(4096, targets, 4096)):
                handle(frame(name, some, np.where((some + 1) % every, 1, 2)))
        handle(Tick())
    kept, most = recent.size_bytes / 1e6, peak_mb()
    verdict = "held" if most < MEMORY_TARGET_MB else "MISSED"
    print(
        f"{f'memory, {targets:,} x {regions} regions':<34} {most:,.0f} MB at most"
        f" ({before:,.0f} of them before the first target, {kept:,.0f} the ring of results;"
        f" target below {MEMORY_TARGET_MB:,}): {verdict}"
    )


def line(name: str, ns: list[float], unit: str = "ns a result") -> None:
    """One line of the result."""
    p99 = quantiles(ns, n=100)[98] if len(ns) > 1 else ns[0]
    print(f"{name:<34} median {median(ns):>10,.0f}  p99 {p99:>10,.0f}  {unit}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--regions", type=int, default=10, help="of the measurement of memory")
    options = parser.parse_args()
    alone = multiprocessing.get_context("spawn").Process(
        target=remember, args=(options.targets, options.regions)
    )
    alone.start()
    alone.join()
    rows, dice = options.rows, np.random.default_rng(1)
    print(
        f"{options.targets:,} targets, frames of {rows:,} rows, {len(REGIONS)} regions;"
        f" Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}"
    )

    engine, recent, clock = Engine(), Recent(), 1_000_000

    def now() -> Now:
        return Now(clock, clock / 1000)

    def timed(event: Any) -> float:
        start = time.process_time_ns()
        engine.handle(event, now())
        return time.process_time_ns() - start

    everything = resources(options.targets)
    engine.handle(Restored(verdicts={}, pools={}, routes={}), now())
    first = timed(Configured(resources=everything, generation=1, head_revision=1))
    again = timed(Configured(resources=everything, generation=2, head_revision=2))
    print(f"{'configuration, first / again':<34} {first / 1e6:,.0f} / {again / 1e6:,.0f} ms")
    numbers = np.arange(options.targets, dtype=np.int64)
    up = np.ones(options.targets, dtype=np.int64)
    for region in REGIONS:
        engine.handle(AgentFound(region=region, agent="a"), now())
    starts = [timed(frame(region, numbers, up)) / options.targets for region in REGIONS]
    print(
        f"{'first results of each region':<34} {', '.join(f'{ns:,.0f}' for ns in starts)} ns each"
    )

    recent.assigned(engine.targets())
    quiet, flips, ticks, kept = [], [], [], []
    for _ in range(options.rounds):
        clock += 1000
        chosen = dice.choice(numbers, rows, replace=False)
        for region in REGIONS:
            event = frame(region, chosen, up[:rows])
            quiet.append(timed(event) / rows)
            start = time.process_time_ns()
            recent.take(event, engine.graces_ms(), clock)
            kept.append((time.process_time_ns() - start) / rows)
    for round_ in range(options.rounds):
        clock += 1000
        chosen = dice.choice(numbers, rows, replace=False)
        outcome = up[:rows].copy()
        outcome[::100] = 2
        for region in REGIONS[:1] if round_ % 2 else REGIONS[:2]:
            event = frame(region, chosen, outcome)
            flips.append(timed(event) / rows)
        ticks.append(timed(Tick()) / 1000)
    line("columns, quiet", quiet)
    line("kept for backtests besides", kept)
    share = median(kept) / (median(kept) + median(quiet))
    print(f"{'its share of a frame judged':<34} {share:.0%}")
    line("columns, 1 % of rows flip a vote", flips)
    line("tick", ticks, "us")

    module = naive_twin()
    keys = list(range(2000))
    twin = module.Naive(
        module.Rules(10_000, 2_000, 1, 2, REGIONS, Fraction(1, 2), None), "probe", keys
    )
    single = []
    for region in REGIONS:
        twin.found(region, "a")
    for _ in range(5):
        for region in REGIONS:
            start = time.process_time_ns()
            for key in keys:
                twin.result(region, "a", key, 1, 5, clock)
            single.append((time.process_time_ns() - start) / len(keys))
    line("naive twin, votes alone", single)
    print(f"{'ratio':<34} {median(single) / median(quiet):,.0f} : 1")


if __name__ == "__main__":
    main()
