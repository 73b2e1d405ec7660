"""How long a fault takes to be in force on a hundred resolvers' followers.

    python benchmarks/bench_followers.py [--followers 100] [--processes 5] [--faults 40]

A real `gtm up` probes real origins, which die one after the other; its coordinator judges and
publishes as ever. Beside its own resolver a hundred followers, each the resolver's own with its own
link to the etcd and the real compiler, share a few processes. Times are of the wall clock, which
all of them share:

    death -> table         from the origin's end until the table without it is in force
    publication -> table   from the verdict's `since`, which the coordinator sets before it writes

each of every fault at every follower, and at the last follower of each fault.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench_failover import p99  # noqa: E402

from ctl import show  # noqa: E402
from ctl.client import Client  # noqa: E402
from ctl.origins import Origins  # noqa: E402
from ctl.running import Running  # noqa: E402
from gtm import codec, keys  # noqa: E402
from gtm.etcd import EtcdOptions, EtcdStore, connect  # noqa: E402
from gtm.state import PoolState  # noqa: E402
from gtm.store import Batch  # noqa: E402
from resolver.compiler import compile_table  # noqa: E402
from resolver.follower import Follower  # noqa: E402
from resolver.place import Unplaced  # noqa: E402
from resolver.table import AnswerTable, heard  # noqa: E402

ADDRESSES = tuple(f"127.13.3.{number}" for number in range(1, 13))
PROBED = "probed"
"""The pool whose origins die; all others are there to make the tables of a usual size."""
POOLS, INSTANCES = 100, 1_000
INTERVAL = "1s"
MORE = ("--insecure", "--guard-share=100%")
"""A guard that counted these deaths together would hold the tenth."""
PAUSE_S = 0.3
"""Between a change that all was told of and the next one."""
SOON_S = 15.0
START_S = 120.0
TARGET_S = 1.0


def configuration(port: int) -> dict[str, Any]:
    """The probed pool and its name, and many others that nobody probes."""
    pools: dict[str, Any] = {
        f"p{n}": {
            "type": "ipv4",
            "addresses": [{"value": f"192.0.{n}.{host}"} for host in range(1, 9)],
        }
        for n in range(POOLS)
    }
    pools[PROBED] = {
        "type": "ipv4",
        "checks": ["web"],
        "addresses": [{"value": value} for value in ADDRESSES],
    }
    names = [PROBED, *(f"p{n % POOLS}" for n in range(INSTANCES - 1))]
    return {
        "zones": {"gtm.test": {"nameservers": ["ns.example.org"]}},
        "checks": {
            "web": {
                "type": "http",
                "port": port,
                "interval": INTERVAL,
                "timeout": "500ms",
                "fall": 1,
                "rise": 1,
            }
        },
        "pools": pools,
        "instances": {
            f"i{n}": {
                "id": f"gtm{n:08}",
                "rules": [{"name": "all", "lines": ["default"], "tiers": [{"pools": [name]}]}],
            }
            for n, name in enumerate(names)
        },
    }


@contextmanager
def system(folder: Path) -> Iterator[tuple[Origins, Running]]:
    """Origins, and a running system that probes them; its etcd is in the clear."""
    with Origins(ADDRESSES) as origins:
        config = folder / "bench.yaml"
        config.write_text(show.as_yaml(configuration(origins.port)))
        with Running(folder / "up", config=config, resolvers=1, more=MORE) as running:
            yield origins, running


# ---- followers -----------------------------------------------------------------------------------


async def follow(endpoint: str, count: int) -> None:
    """A process of followers: what each had in force when, once standard input ends."""
    seen: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    followers: list[Follower[AnswerTable]] = []
    locator = Unplaced()  # a fault asks nothing of geo data

    def swapped(at: int) -> None:
        seen[at].append((followers[at].revision, time.time()))

    def compiled(view: Any, before: Any, changes: Any) -> AnswerTable:
        return compile_table(view, locator, before, changes)

    for number in range(count):
        store = connect(EtcdOptions(endpoints=(endpoint,)))
        followers.append(Follower(store, compiled, heard, partial(swapped, number)))
    async with asyncio.TaskGroup() as group:  # a defect of one ends all, and is told
        for follower in followers:
            group.create_task(follower.run())
        for follower in followers:
            await follower.listed.wait()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps(seen), flush=True)
        os._exit(0)  # nothing of it is worth an orderly end


class Followers:
    """Processes of followers."""

    def __init__(self, endpoint: str, count: int, processes: int) -> None:
        self._endpoint = endpoint
        self._shares = [len(range(at, count, processes)) for at in range(processes)]
        self._children: list[asyncio.subprocess.Process] = []

    async def start(self) -> None:
        """Start all, and wait until each follows."""
        for count in self._shares:
            arguments = (f"--follow={self._endpoint}", f"--followers={count}")
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                __file__,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 26,
            )
            self._children.append(child)
        async with asyncio.timeout(START_S):
            for child in self._children:
                assert child.stdout is not None
                if (await child.stdout.readline()).strip() != b"ready":
                    raise SystemExit("followers ended before they followed")

    async def end(self) -> list[list[tuple[int, float]]]:
        """End all; what each follower had in force when, in its order."""
        found = []
        for child in self._children:
            assert child.stdin is not None
            child.stdin.close()  # `communicate` without input does not, before Python 3.12
            told, _ = await child.communicate()
            found += json.loads(told)
        return found


# ---- faults --------------------------------------------------------------------------------------


class Published:
    """Follows the probed pool as the coordinator publishes it."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store
        self._moved = asyncio.Condition()
        self._state: tuple[int, frozenset[str]] = (0, frozenset())

    async def run(self) -> None:
        """Follow until cancelled."""
        key = keys.pool(PROBED)
        async for news in self._store.watch(key):
            found = news.events if isinstance(news, Batch) else news.items
            for one in found:
                if one.key != key or one.value is None:
                    continue
                state = codec.decode(one.value, PoolState)
                answered = frozenset(each.value for each in state.members if each.answered)
                self._state = (one.mod_revision, answered)
            async with self._moved:
                self._moved.notify_all()

    async def once(self, holds: Callable[[frozenset[str]], bool]) -> int:
        """The revision from which on `holds` is true of the addresses answered."""
        async with asyncio.timeout(SOON_S), self._moved:
            await self._moved.wait_for(lambda: holds(self._state[1]))
            return self._state[0]


async def judged(server: str, address: str) -> float:
    """When an address got its present verdict, by the coordinator."""
    async with Client(server) as client:
        return next(one.since for one in (await client.verdicts(address)).verdicts)


async def faults(
    origins: Origins, running: Running, published: Published, count: int
) -> list[tuple[int, float, float]]:
    """Let origins die and come back; of each death the revision, and when it was and was judged."""
    found = []
    for number in range(count):
        address = ADDRESSES[number % len(ADDRESSES)]
        await published.once(frozenset(ADDRESSES).issubset)
        await asyncio.sleep(PAUSE_S + number % 10 / 10)  # at every phase of the probes
        died = time.time()
        await asyncio.to_thread(origins.stop, address)
        revision = await published.once(lambda answered, address=address: address not in answered)
        found.append((revision, died, await judged(running.server, address)))
        await asyncio.sleep(PAUSE_S)
        await asyncio.to_thread(origins.start, address)
    await published.once(frozenset(ADDRESSES).issubset)
    return found


async def bench(options: Any) -> None:
    """Let origins die, and gather when each death was in force where."""
    with TemporaryDirectory(prefix="gtm-bench-") as name, system(Path(name)) as (origins, running):
        endpoint = f"http://127.0.0.1:{running.ports.etcd[0]}"
        followers = Followers(endpoint, options.followers, options.processes)
        await followers.start()
        store = connect(EtcdOptions(endpoints=(endpoint,)))
        published = Published(store)
        watching = asyncio.create_task(published.run())
        try:
            found = await faults(origins, running, published, options.faults)
            await asyncio.sleep(2 * TARGET_S)
        finally:
            seen = await followers.end()
        watching.cancel()
        await store.close()
    tell(found, seen)


def tell(
    found: Sequence[tuple[int, float, float]], seen: Sequence[Sequence[tuple[int, float]]]
) -> None:
    """Print the table."""
    deaths: list[list[float]] = []
    publications: list[list[float]] = []
    missing = 0
    for revision, died, since in found:
        times = []
        for of_one in seen:
            at = bisect_left(of_one, revision, key=lambda pair: pair[0])
            if at < len(of_one):
                times.append(of_one[at][1])
        missing += len(seen) - len(times)
        deaths.append([at - died for at in times])
        publications.append([at - since for at in times])
    print(f"{'milliseconds':38}{'n':>6}{'median':>9}{'p99':>9}{'max':>9}")
    for what, rows in (("publication -> table", publications), ("death -> table", deaths)):
        every = [seconds for row in rows for seconds in row]
        line(f"{what}, every follower", every)
        line(f"{what}, the last one", [max(row) for row in rows if row])
    held = not missing and p99([s for row in publications for s in row]) <= TARGET_S
    verdict = "held" if held else "MISSED"
    print(f"{len(found)} faults, {len(seen)} followers; seen by a follower never: {missing}")
    print(f"publication -> table, p99 at most {TARGET_S * 1000:.0f} ms: {verdict}")


def line(what: str, values: Sequence[float]) -> None:
    """One line of the table."""
    cells = (statistics.median(values), p99(values), max(values))
    print(f"{what:38}{len(values):>6}" + "".join(f"{value * 1000:>9.0f}" for value in cells))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--followers", type=int, default=100)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--follow", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.follow:
        asyncio.run(follow(options.follow, options.followers))
        return
    print(
        f"{options.followers} followers in {options.processes} processes, {POOLS:,} pools,"
        f" {INSTANCES:,} instances; {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    asyncio.run(bench(options))


if __name__ == "__main__":
    main()
