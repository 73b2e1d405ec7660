"""How fast answers follow a fault, how fast `gtm up` is ready, what it costs when nothing happens.

Run `python benchmarks/bench_failover.py` (Linux; about five minutes). All of it is measured from
outside, on a real `gtm up`: real origins die (refusing connections, or accepting them and staying
silent), and every resolver is asked over UDP until the address is gone from its answers.

    death -> absence   from the origin's end to its absence from the answers of every resolver,
                       with interval 1 s, fall 2, timeout 500 ms
    verdict -> answer  from the verdict's own `since` to the same moment
    ready              from the start of the process to `ready`, with live origins
    idle               CPU time of all processes together, 50 targets at 15 s, nothing changing
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dns.message  # noqa: E402

from ctl import show  # noqa: E402
from ctl.client import Client  # noqa: E402
from ctl.origins import Origins  # noqa: E402
from ctl.running import Running  # noqa: E402

NAME = "gtm00000001.gtm.test"
INTERVAL_S, FALL, TIMEOUT_S, SLACK_S = 1.0, 2, 0.5, 0.25
DEATH_TARGET_S = FALL * INTERVAL_S + TIMEOUT_S + SLACK_S
ANSWER_TARGET_S = 0.1
READY_TARGET_S = 5.0
IDLE_TARGET = 0.05
POOL = tuple(f"127.13.1.{number}" for number in range(1, 13))
AT_ONCE = 5
"""Origins that die in one round; the rest keep the pool alive."""
POLL_S = 0.002
LOST_S = 10.0
"""An address that is answered for so long after its death counts as never gone."""
TICKS = os.sysconf("SC_CLK_TCK")


def configuration(addresses: Sequence[str], port: int, interval: str) -> dict[str, Any]:
    """One pool of `addresses`, answered whole."""
    return {
        "zones": {"gtm.test": {"nameservers": ["ns.example.org"]}},
        "checks": {"web": {"type": "http", "port": port, "interval": interval, "timeout": "500ms"}},
        "pools": {
            "all": {
                "type": "ipv4",
                "checks": ["web"],
                "max_answers": min(64, len(addresses)),
                "addresses": [{"value": value} for value in addresses],
            }
        },
        "instances": {
            "shop": {
                "id": "gtm00000001",
                "rules": [{"name": "all", "lines": ["default"], "tiers": [{"pools": ["all"]}]}],
            }
        },
    }


@contextlib.contextmanager
def system(folder: Path, addresses: Sequence[str], interval: str) -> Iterator[tuple[Any, Any]]:
    """Origins and a running system that steers to them."""
    with Origins(addresses) as origins:
        folder.mkdir(parents=True)
        config = folder / "bench.yaml"
        config.write_text(show.as_yaml(configuration(addresses, origins.port, interval)))
        with Running(folder, config=config) as running:
            yield origins, running


class Answers:
    """Asks every resolver all the time; knows when each address was last and first seen."""

    def __init__(self, servers: Sequence[str], addresses: Sequence[str]) -> None:
        self._packed = {address: socket.inet_aton(address) for address in addresses}
        self._sockets = []
        for server in servers:
            host, _, port = server.rpartition(":")
            one = socket.socket(type=socket.SOCK_DGRAM)
            one.connect((host, int(port)))
            one.settimeout(1.0)
            self._sockets.append(one)
        query = dns.message.make_query(NAME, "A", use_edns=0, payload=4096)
        self._query = query.to_wire()
        self._ends = threading.Event()
        self._changed = threading.Condition()
        self._seen: list[frozenset[str]] = [frozenset()] * len(self._sockets)
        self._gone: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Answers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        for one in self._sockets:
            one.close()

    def _run(self) -> None:
        while not self._ends.is_set():
            for number, one in enumerate(self._sockets):
                with contextlib.suppress(TimeoutError, OSError):
                    one.send(self._query)
                    data = one.recv(4096)
                    found = frozenset(a for a, packed in self._packed.items() if packed in data)
                    if found != self._seen[number]:
                        self._note(number, found)
            time.sleep(POLL_S)

    def _note(self, number: int, found: frozenset[str]) -> None:
        now = time.time()
        with self._changed:
            before = frozenset().union(*self._seen)
            self._seen[number] = found
            after = frozenset().union(*self._seen)
            for address in before - after:
                self._gone[address] = now
            self._changed.notify_all()

    def wait_gone(self, address: str) -> float | None:
        """When (wall clock) the last resolver stopped answering `address`; None: it did not."""
        with self._changed:
            self._changed.wait_for(
                lambda: all(address not in seen for seen in self._seen), timeout=LOST_S
            )
            gone = all(address not in seen for seen in self._seen)
            return self._gone.get(address) if gone else None

    def wait_all(self) -> None:
        """Wait until every resolver answers every address."""
        with self._changed:
            whole = frozenset(self._packed)
            if not self._changed.wait_for(lambda: set(self._seen) == {whole}, timeout=60):
                raise SystemExit("the addresses did not come back; see the logs")


def since(server: str) -> dict[str, float]:
    """When each address got its present verdict, by the coordinator (wall clock)."""

    async def asked() -> dict[str, float]:
        async with Client(server) as client:
            verdicts = (await client.verdicts()).verdicts
        return {verdict.address: verdict.since for verdict in verdicts}

    return asyncio.run(asked())


def failover(folder: Path, rounds: int) -> tuple[dict[str, list[float]], list[float], int]:
    """Seconds from death to absence by kind of death, from verdict to answer; how many never."""
    deaths: dict[str, list[float]] = {"refused": [], "silent": []}
    answers: list[float] = []
    lost = 0
    dice = random.Random(1)
    with system(folder, POOL, "1s") as (origins, running), Answers(running.dns, POOL) as seen:
        for number in range(rounds):
            kind = ("refused", "silent")[number % 2]
            seen.wait_all()
            time.sleep(dice.uniform(1.0, 2.0))  # every agent has seen them up, at any phase
            died = {}
            for address in dice.sample(POOL, AT_ONCE):
                time.sleep(dice.uniform(0.0, INTERVAL_S / AT_ONCE))
                (origins.stop if kind == "refused" else origins.mute)(address)
                died[address] = time.time()
            gone = {address: seen.wait_gone(address) for address in died}
            judged = since(running.server)
            for address, when in gone.items():
                if when is None:
                    lost += 1
                    continue
                deaths[kind].append(when - died[address])
                answers.append(when - judged[address])
            origins.start(*died)
    return deaths, answers, lost


def readiness(folder: Path, runs: int) -> list[float]:
    """Seconds from the start of `gtm up` to `ready`, each on fresh data."""
    found = []
    with Origins(POOL) as origins:
        for number in range(runs):
            place = folder / f"run-{number}"
            place.mkdir(parents=True)
            config = place / "bench.yaml"
            config.write_text(show.as_yaml(configuration(POOL, origins.port, "15s")))
            running = Running(place, config=config)
            began = time.monotonic()
            try:
                running.start()
                found.append(time.monotonic() - began)
            finally:
                running.stop()
    return found


def processes(root: int) -> dict[int, str]:
    """`root` and all that descend from it: process id -> a name."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_text().split("\0")
            part = words.index("ctl") + 1 if "ctl" in words else 0
            names[pid] = Path(words[part]).name or entry.name
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return {pid: names[pid] for pid in sorted(family) if pid in names}


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def idle(folder: Path, seconds: float) -> dict[str, float]:
    """Cores used by each process (by name, same names together) over `seconds` of quiet."""
    addresses = [f"127.13.2.{number}" for number in range(1, 51)]
    with system(folder, addresses, "15s") as (_, running):
        time.sleep(50)  # three rounds: votes stand, and unchanged results travel together
        family = processes(running.up_pid)
        before = {pid: cpu_s(pid) for pid in family}
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        used: dict[str, float] = {}
        for pid, name in family.items():
            used[name] = used.get(name, 0.0) + (cpu_s(pid) - before[pid]) / took
    return used


def p99(values: Sequence[float]) -> float:
    """The 99th percentile, by nearest rank: of fewer than 100 values the greatest."""
    return sorted(values)[max(0, -(-99 * len(values) // 100) - 1)]


def row(what: str, values: Sequence[float], target: str) -> None:
    """One line: how many, median, p99, greatest, in milliseconds, beside the target."""
    if values:
        cells = (statistics.median(values), p99(values), max(values))
        numbers = "".join(f"{value * 1000:>10.0f}" for value in cells)
        print(f"{what:34}{len(values):>5}{numbers}   {target}", flush=True)


def where() -> str:
    """What this ran on."""
    version = "no etcd"
    if found := shutil.which("etcd"):
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
        version = said.stdout.partition("\n")[0].replace(" Version:", "")
    return (
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.release()}, {version}; 3 agents, 2 resolvers, 1 coordinator"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help=f"of {AT_ONCE} deaths each")
    parser.add_argument("--ready-runs", type=int, default=5)
    parser.add_argument("--idle-s", type=float, default=60.0)
    args = parser.parse_args()
    print(where())
    print(f"{'milliseconds':34}{'n':>5}{'median':>10}{'p99':>10}{'max':>10}   target", flush=True)
    with TemporaryDirectory(prefix="gtm-bench-") as name:
        folder = Path(name)
        if args.ready_runs:
            runs = readiness(folder / "ready", args.ready_runs)
            row("gtm up until ready", runs, f"at most {READY_TARGET_S * 1000:.0f}")
        if args.rounds:
            deaths, answers, lost = failover(folder / "failover", args.rounds)
            bound = f"p99 at most {DEATH_TARGET_S * 1000:.0f}"
            for kind, values in deaths.items():
                row(f"death ({kind}) -> absence", values, bound)
            row(
                "verdict -> answer, every resolver",
                answers,
                f"p99 at most {ANSWER_TARGET_S * 1000:.0f}",
            )
            if lost:
                print(f"{lost} addresses were still answered after {LOST_S:g} s")
        if args.idle_s:
            used = idle(folder / "idle", args.idle_s)
            parts = ", ".join(f"{name} {share:.1%}" for name, share in used.items())
            print(
                f"idle, 50 targets at 15 s: {sum(used.values()):.1%} of a core "
                f"(target: below {IDLE_TARGET:.0%}): {parts}"
            )


if __name__ == "__main__":
    main()
