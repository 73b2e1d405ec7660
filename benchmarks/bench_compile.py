"""How long the Python resolver takes to compile: a whole table, and one change of a pool.

Run `python benchmarks/bench_compile.py [--instances 100000]`. The view has a pool for every hundred
instances, rules by country and network in a few shapes, and the embedded country data where it is
installed. Prints process CPU seconds and milliseconds beside their targets.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from pathlib import Path

from msgspec.structs import replace

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gtm import codec  # noqa: E402
from gtm.model import Instance  # noqa: E402
from gtm.state import PoolState, StoredZone  # noqa: E402
from gtm.view import Changes, View  # noqa: E402
from resolver.compiler import compile_table  # noqa: E402
from resolver.locate import open_locator  # noqa: E402

SHAPES = (
    (["country:CN"], ["default"]),
    (["continent:EU"], ["oversea"], ["default"]),
    (["network:10.0.0.0/8"], ["isp:telecom"], ["country:US"], ["default"]),
)
DEPENDENT = 1_000
"""Instances of their own plan that answer from the pool that changes."""


def pool(number: int, up: int = 8) -> PoolState:
    """A published pool of eight members."""
    members = [
        {
            "value": f"192.{number >> 8 & 255}.{number & 255}.{n}",
            "weight": n,
            "answered": n <= up,
            "counted": n <= up,
            "why": "up" if n <= up else "down",
        }
        for n in range(1, 9)
    ]
    return codec.convert({"type": "ipv4", "steering": "weighted", "members": members}, PoolState)


def instance(number: int, pools: int, rule: str = "r") -> Instance:
    """An instance of one of the shapes, over two pools; its rules are called after `rule`."""
    first, backup = f"p{number // 100 % pools}", f"p{(number // 100 + 1) % pools}"
    rules = [
        {"name": f"{rule}{at}", "lines": lines, "tiers": [{"pools": [first]}, {"pools": [backup]}]}
        for at, lines in enumerate(SHAPES[number % len(SHAPES)])
    ]
    data = {"id": f"gtm{number:08}", "zone": "gtm.test", "rules": rules}
    return codec.convert(data, Instance)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=100_000)
    args = parser.parse_args()
    pools = max(2, args.instances // 100)
    locator = open_locator(())
    zones = {"gtm.test": codec.convert({"nameservers": ["ns.example.org"]}, StoredZone)}
    view = View(
        revision=1,
        zones=zones,
        pools={f"p{n}": pool(n) for n in range(pools)},
        instances={f"i{n}": instance(n, pools) for n in range(args.instances)},
    )
    print(f"Python {platform.python_version()}, {platform.machine()}, {args.instances:,} instances")
    begun = time.process_time()
    table = compile_table(view, locator)
    whole_s = time.process_time() - begun
    print(f"whole table, {len(table.plans):,} plans: {whole_s:.1f} s CPU (target: under 30 s)")

    shared = {
        f"d{n}": replace(instance(n % 100, pools), id=f"gtm{9 * 10**7 + n}")
        for n in range(DEPENDENT)
    }
    apart = {
        f"d{n}": replace(instance(0, pools, rule=f"r{n}-"), id=f"gtm{9 * 10**7 + n}")
        for n in range(DEPENDENT)
    }
    for what, dependent in (("one plan shared", shared), ("a plan each", apart)):
        small = View(revision=1, zones=zones, pools=view.pools, instances=dependent)
        table, took = compile_table(small, locator), []
        for turn in range(20):
            after = replace(
                small, revision=turn + 2, pools={**small.pools, "p0": pool(0, up=3 + turn % 5)}
            )
            begun = time.process_time()
            table = compile_table(after, locator, table, Changes(pools=frozenset({"p0"})))
            took.append((time.process_time() - begun) * 1000)
        print(
            f"one pool changes, {DEPENDENT:,} names with {what}: "
            f"median {statistics.median(took):.1f} ms, greatest {max(took):.1f} ms CPU "
            "(target: under 50 ms)"
        )


if __name__ == "__main__":
    main()
