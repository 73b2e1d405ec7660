"""Our resolver by sockets and by AF_XDP, and Knot in both ways: CPU of a whole core by answer.

Run `make bench-xdp` as root. Each server has a network namespace and a pair of Ethernet devices
(veth) to another, from which kxdpgun asks, from many ports, at fixed rates. The first core has the
server and the thread in which the kernel receives for it (threaded NAPI), as a card's interrupts
would be on the core of its queue; the last has the same of the load. What counts is how long the
first core was not idle (/proc/stat), so that what the kernel does for a server counts as well: on a
machine that does nothing else. The time of the server's threads and of that kernel thread stands
beside, which other work on the machine moves little. What is not installed is left out, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import dns_world as world  # noqa: E402
from benchmarks.dns_peers import write_zone  # noqa: E402
from benchmarks.dns_running import family, others_part, thread_ns  # noqa: E402
from benchmarks.gdnsd_servers import ended  # noqa: E402
from benchmarks.gdnsd_world import cached_file  # noqa: E402
from tests.namespaces import End, missing, pair  # noqa: E402

OURS = "ours"
PORT = 53
READY_S = 90.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
BATCH = 10
"""Queries that kxdpgun sends at once."""
CORES = sorted(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Sample:
    """One run: seconds of asking, queries, answers, seconds of the core, of the threads."""

    seconds: float
    asked: int
    answered: int
    core_s: float
    threads_s: float

    def core_us(self) -> float:
        """Microseconds of the first core for each answer."""
        return 1e6 * self.core_s / max(1, self.answered)

    def threads_us(self) -> float:
        """Microseconds of the server's threads and of its kernel thread for each answer."""
        return 1e6 * self.threads_s / max(1, self.answered)


@dataclass
class Running:
    """A server that answers, and its two ends."""

    name: str
    process: subprocess.Popen[bytes]
    server: End
    client: End

    def threads_s(self) -> float:
        """CPU seconds of the server's threads and of the kernel's that receives for it, so far."""
        pids = [*family(self.process.pid), *receivers(self.server)]
        return sum(map(thread_ns, pids)) / 1e9


def ours(folder: Path, end: End, more: Sequence[str]) -> list[str]:
    """The command of our resolver."""
    program = str(ROOT / "benchmarks" / "dns_ours.py")
    places = [str(PORT), "7440", str(cached_file()), end.v4, *more]
    return [sys.executable, program, "small", *places]


def knot(folder: Path, end: End, more: str = "") -> list[str]:
    """The command of Knot."""
    file = write_zone(folder, world.PLAIN)
    (folder / "knot.conf").write_text(
        f"""server:
    rundir: {folder}
    listen: {end.v4}@{PORT}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
{more}
database:
    storage: {folder}/db
log:
  - target: stderr
    any: warning
template:
  - id: default
    zonefile-load: whole
    journal-content: none
zone:
  - domain: {world.PLAIN}
    file: {file}
"""
    )
    return [shutil.which("knotd") or "/usr/sbin/knotd", "-c", str(folder / "knot.conf")]


SERVERS: dict[str, Callable[[Path, End], list[str]]] = {
    OURS: lambda folder, end: ours(folder, end, []),
    "ours-xdp": lambda folder, end: ours(folder, end, [end.device]),
    "knot": knot,
    "knot-xdp": lambda folder, end: knot(folder, end, f"xdp:\n    listen: {end.device}@{PORT}"),
}


def receivers(end: End) -> list[int]:
    """The kernel's threads that receive from a device."""
    found = []
    for place in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if place.read_text().startswith(f"napi/{end.device}-"):
                found.append(int(place.parent.name))
    return found


def pin(end: End, core: int) -> None:
    """Have the kernel receive from a device in a thread, on one core."""
    end.run("sh", "-c", f"echo 1 > /sys/class/net/{end.device}/threaded")
    for pid in receivers(end):
        os.sched_setaffinity(pid, {core})


@contextlib.contextmanager
def running(number: int, name: str, folder: Path) -> Iterator[Running]:
    """A server in a namespace of its own, once it answers."""
    folder.mkdir()
    with pair(names=(f"s{number}", f"c{number}")) as (server, client):
        for end in (server, client):
            end.poll()
        command = server.command("taskset", "-c", str(CORES[0]), *SERVERS[name](folder, server))
        log = folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder)
        try:
            begun = time.monotonic()
            while not answers(client, server):
                if process.poll() is not None or time.monotonic() - begun > READY_S:
                    raise SystemExit(f"{name} does not answer:\n{log.read_text()[-2000:]}")
                time.sleep(0.1)
            yield Running(name, process, server, client)
        finally:
            ended(process, 15)


def answers(client: End, server: End) -> bool:
    """Whether a server answers rightly."""
    command = client.command("kdig", "+short", "+timeout=1", "+retry=0", f"@{server.v4}")
    done = subprocess.run(
        [*command, f"www.{world.PLAIN}"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() == world.static_address(0)


def core_s() -> float:
    """Seconds that the first core was not idle, from any begin (proc(5), /proc/stat)."""
    name = f"cpu{CORES[0]} "
    row = next(one for one in Path("/proc/stat").read_text().splitlines() if one.startswith(name))
    return time.monotonic() - sum(map(int, row.split()[4:6])) * TICK_S


def asked(one: Running, queries: Path, rate: int, seconds: float) -> Sample:
    """One run of the load."""
    for end, core in ((one.server, CORES[0]), (one.client, CORES[-1])):
        pin(end, core)
    command = ["taskset", "-c", str(CORES[-1]), "kxdpgun", "-F", str(CORES[-1]), "-I"]
    command += [one.client.device, "-i", str(queries), "-t", f"{seconds:g}", "-b", str(BATCH)]
    core, threads = core_s(), one.threads_s()
    said = one.client.run(*command, "-Q", str(rate), one.server.v4)
    core, threads = core_s() - core, one.threads_s() - threads

    def number(what: str) -> int:
        found = re.search(rf"{what}:\s+(\d+)", said)
        return int(found[1]) if found else 0

    good = number("responded NOERROR")
    if good != number("total replies"):
        raise SystemExit(f"{one.name} answers wrongly:\n{said}")
    return Sample(seconds, number("total queries"), good, core, threads)


def show(rate: int, samples: dict[str, list[Sample]]) -> None:
    """Print the table of one rate; ratios are of ours by sockets, within a round."""
    print(f"\n{rate:,} queries a second")
    print(f"{'server':<10}{'answers/s':>11}{'of asked':>10}{'core us':>9}{'ratio':>20}", end="")
    print(f"{'threads us':>12}{'ratio':>20}")
    for name, seen in samples.items():
        row = f"{name:<10}{median(one.answered / one.seconds for one in seen):>11,.0f}"
        row += f"{100 * median(one.answered / one.asked for one in seen):>9.1f}%"
        base = samples.get(OURS, seen)
        for width, us in ((9, Sample.core_us), (12, Sample.threads_us)):
            parts = [us(one) / us(its) for one, its in zip(seen, base, strict=True)]
            row += f"{median(map(us, seen)):>{width}.2f}"
            row += f"{median(parts):>8.2f} ({min(parts):.2f}..{max(parts):.2f})"
        print(row)
    sys.stdout.flush()


def chosen(wanted: str | None) -> list[str]:
    """The servers that take part; says which are not installed."""
    names = wanted.split(",") if wanted else list(SERVERS)
    if unknown := set(names) - set(SERVERS):
        raise SystemExit(f"no such server: {', '.join(sorted(unknown))}")
    if shutil.which("knotd") or shutil.which("knotd", path="/usr/sbin"):
        return names
    print("knot is left out: not installed (Debian: knot)")
    return [name for name in names if not name.startswith("knot")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--servers", help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each server in each round")
    parser.add_argument("--rates", default="50000,100000,200000,400000")
    parser.add_argument("--workload", choices=("static", "names"), default="names")
    args = parser.parse_args()
    if why := missing():
        raise SystemExit(why)
    if shutil.which("kxdpgun") is None or len(CORES) < 2:
        raise SystemExit("wants two cores and kxdpgun (Debian: knot-dnsutils)")
    workload = next(one for one in world.WORKLOADS if one.key == args.workload)
    rates = [int(rate) for rate in args.rates.split(",")]
    print(f"other work has {100 * others_part():.0f} % of the machine; {workload.title}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        queries = Path(folder) / "queries"
        queries.write_text("".join(f"{one.name} A\n" for one in world.questions(workload)))
        servers = [
            stack.enter_context(running(number, name, Path(folder) / name))
            for number, name in enumerate(chosen(args.servers))
        ]
        for rate in rates:
            samples: dict[str, list[Sample]] = {one.name: [] for one in servers}
            for turn in range(args.rounds):
                first = turn % len(servers)
                for one in servers[first:] + servers[:first]:
                    samples[one.name].append(asked(one, queries, rate, args.seconds))
            show(rate, samples)


if __name__ == "__main__":
    main()
