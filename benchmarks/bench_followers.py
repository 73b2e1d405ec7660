"""How long a published fault takes to be in force on a hundred resolvers' followers.

    python benchmarks/bench_followers.py [--followers 100] [--processes 2] [--faults 100]

Each follower is the resolver's own, with its own links to a real etcd and the real compiler; a
hundred of them share a few processes, as many resolvers would share the machine. A fault is what a
leader writes when an address dies: one pool of a hundred. Times are of the
machine's monotonic clock, from before the write until the table with it is in force.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench_compile import instance, pool  # noqa: E402

from ctl.digs import free_port  # noqa: E402
from gtm import codec, keys  # noqa: E402
from gtm.embedded import EmbeddedEtcd  # noqa: E402
from gtm.etcd import EtcdOptions, EtcdStore, connect  # noqa: E402
from gtm.state import Head, StoredZone  # noqa: E402
from gtm.store import Op, Put, packed  # noqa: E402
from resolver.compiler import compile_table  # noqa: E402
from resolver.follower import Follower  # noqa: E402
from resolver.place import Unplaced  # noqa: E402
from resolver.table import AnswerTable, heard  # noqa: E402

POOLS, INSTANCES = 100, 100
PAUSE_S = 0.3
TARGET_S = 1.0
START_S = 120.0


async def filled(store: EtcdStore) -> None:
    """Zones, pools and instances as a leader and applies leave them."""
    zone = codec.convert({"nameservers": ["ns1.example.net"], "serial": 7}, StoredZone)
    ops: list[Op] = [Put(keys.config("zones", "gtm.test"), codec.encode(zone))]
    ops += [Put(keys.pool(f"p{n}"), codec.encode(pool(n))) for n in range(POOLS)]
    for n in range(INSTANCES):
        ops.append(Put(keys.config("instances", f"i{n}"), codec.encode(instance(n, POOLS))))
    for some in range(0, len(ops), 500):
        await store.txn([], packed(ops[some : some + 500]))
    await store.txn([], [Put(keys.HEAD, codec.encode(Head(generation=1)))])


async def follow(endpoint: str, count: int) -> None:
    """A process of followers: a line for each revision in force, until standard input ends."""
    stores, tasks, seen = [], [], []
    locator = Unplaced()  # a fault asks nothing of geo data

    def swapped(at: int) -> None:
        seen.append((followers[at].revision, time.monotonic()))

    followers: list[Follower[AnswerTable]] = []
    for number in range(count):
        stores.append(connect(EtcdOptions(endpoints=(endpoint,))))
        followers.append(
            Follower(
                stores[-1],
                lambda view, before, changes: compile_table(view, locator, before, changes),
                heard,
                partial(swapped, number),
            )
        )
        tasks.append(asyncio.create_task(followers[-1].run()))
    for follower in followers:
        await follower.listed.wait()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps(seen), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(store.close() for store in stores))


async def spawned(endpoint: str, count: int) -> asyncio.subprocess.Process:
    """Such a process."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        f"--follow={endpoint}",
        f"--followers={count}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
    )


async def bench(options: Any) -> None:
    """Write faults, and gather when each was in force where."""
    with TemporaryDirectory() as folder:
        port = free_port(count=2)
        async with EmbeddedEtcd(Path(folder) / "etcd", port, port + 1) as etcd:
            store = connect(EtcdOptions(endpoints=(etcd.endpoint,)))
            await filled(store)
            each = options.followers // options.processes
            children = [await spawned(etcd.endpoint, each) for _ in range(options.processes)]
            async with asyncio.timeout(START_S):
                for child in children:
                    assert child.stdout is not None
                    assert (await child.stdout.readline()).strip() == b"ready"
            wrote = {}
            for fault in range(options.faults):
                await asyncio.sleep(PAUSE_S)
                number = fault % POOLS
                began = time.monotonic()
                state = pool(number, up=7 - fault // POOLS % 7)
                done = await store.txn([], [Put(keys.pool(f"p{number}"), codec.encode(state))])
                wrote[done.revision] = began
            await asyncio.sleep(2 * TARGET_S)
            took: dict[int, list[float]] = defaultdict(list)
            for child in children:
                told, _ = await child.communicate()
                for revision, at in json.loads(told):
                    if revision in wrote:
                        took[revision].append(at - wrote[revision])
            await store.close()
    every = [seconds for one in took.values() for seconds in one]
    last = [max(one) for one in took.values()]
    missing = options.faults * each * options.processes - len(every)
    print(f"{'faults published':32}{options.faults:>8,}, seen late or never: {missing}")
    for name, seconds in (("at a follower", every), ("at the last of all", last)):
        p99 = quantiles(seconds, n=100)[98]
        print(
            f"{name:32}{median(seconds) * 1e3:8.0f} ms median, {p99 * 1e3:.0f} ms p99, "
            f"{max(seconds) * 1e3:.0f} ms greatest"
        )
    verdict = "held" if not missing and quantiles(every, n=100)[98] <= TARGET_S else "MISSED"
    print(f"{'p99 at most 1 s':32}{verdict:>8}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--followers", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--follow", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.follow:
        asyncio.run(follow(options.follow, options.followers))
        return
    print(
        f"{options.followers} followers in {options.processes} processes, {POOLS:,} pools, "
        f"{INSTANCES:,} instances; {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    asyncio.run(bench(options))


if __name__ == "__main__":
    main()
