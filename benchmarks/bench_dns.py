"""Our resolver beside gdnsd, Knot, NSD, PowerDNS and the floor: CPU per answered query, latency.

Run `make bench-dns`. Each server has the first core, the load the last; they take turns for
`--rounds`, with the same number of queries under way. What counts is the CPU time of all threads of
a server by the answers that the load got from it, as ratios within a round: absolute figures move
with the machine. The floor is `dns_floor.c`. Latency is taken afterwards at half of gdnsd's peak,
at a fixed rate, by `dns_load.c`. Peers that are not installed are left out, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dns.message  # noqa: E402
import maxminddb  # noqa: E402

from benchmarks import dns_world as world  # noqa: E402
from benchmarks.dns_numbers import (  # noqa: E402
    Load,
    Sample,
    ratio,
    read_metrics,
    spread,
    verdict,
)
from benchmarks.dns_peers import PEERS, Peer  # noqa: E402
from benchmarks.dns_running import Server, ask, dnsperf, others_part, own_load, running  # noqa: E402
from benchmarks.dns_world import WORKLOADS, Workload  # noqa: E402
from benchmarks.gdnsd_servers import free_port  # noqa: E402
from benchmarks.gdnsd_world import cached_file  # noqa: E402
from resolver.loader import native  # noqa: E402

OURS, FLOOR, GDNSD = "ours", "floor", "gdnsd"
READY_S = {"small": 90.0, "large": 900.0}
"""How long a server may take until it answers."""
WARM_S = 0.5
SAMPLES = 300
"""Queries of each workload whose answers are checked, of each server, before it is measured."""
P50_MORE_US, P99_MORE_US = 50, 200
"""How much more than gdnsd's our latency may be."""
LATENCY_ROUNDS = 3
MIB = 1 << 20
QUIET = 0.05
"""The part of the machine that other work may have before it is told."""
OWN_METRICS = ("gtm_resolver_native_", "gtm_resolver_compile_")
"""What our resolver says of its compiling, its loading and its tables."""


@dataclass
class Result:
    """All that one workload gave: samples by server and round, latencies of gdnsd and ours."""

    workload: Workload
    samples: dict[str, list[Sample]]
    latency: dict[str, dict[str, float]] = field(default_factory=dict)
    rate: float = 0.0


class Bench:
    """One run: its folder, its tools, and the servers that take part."""

    def __init__(self, args: argparse.Namespace, folder: Path, peers: Sequence[Peer]) -> None:
        self.args, self.folder, self.peers = args, folder, peers
        self.geo = cached_file()
        self.tools = {name: compiled(name, folder) for name in ("dns_floor", "dns_load")}
        self.notes: list[str] = []

    def world(self, kind: str, workloads: Sequence[Workload]) -> list[Result]:
        """Start everybody on one world and run its workloads."""
        with contextlib.ExitStack() as stack:
            servers = {OURS: self._ours(stack, kind, workloads[0])}
            for peer in self.peers:
                if kind in peer.worlds() and any(w.key in peer.workloads for w in workloads):
                    servers[peer.name] = self._peer(stack, peer, kind, workloads)
            self._note(kind, servers)
            return [self.workload(one, servers) for one in workloads]

    def workload(self, workload: Workload, servers: Mapping[str, Server]) -> Result:
        """Measure all servers that can serve a workload, in turns."""
        data = self.folder / f"{workload.key}.queries"
        world.write_queries(workload, data)
        able = {peer.name for peer in PEERS if workload.key in peer.workloads} | {OURS}
        taking = {name: server for name, server in servers.items() if name in able}
        self._check(workload, taking)
        with contextlib.ExitStack() as stack:
            taking[FLOOR] = self._floor(stack, workload, servers[OURS])
            for server in taking.values():
                self._load(server, data, WARM_S)
            samples: dict[str, list[Sample]] = {name: [] for name in taking}
            for turn in range(self.args.rounds):
                order = list(taking)
                order = order[turn % len(order) :] + order[: turn % len(order)]
                for name in order:
                    samples[name].append(self._sample(taking[name], data))
            result = Result(workload, samples)
            if not self.args.no_latency:
                self._latency(result, taking, data)
        show(result)
        return result

    def _ours(self, stack: contextlib.ExitStack, kind: str, first: Workload) -> Server:
        port, http = free_port(), free_port()
        command = [sys.executable, str(ROOT / "benchmarks" / "dns_ours.py")]
        command += [kind, str(port), str(http), str(self.geo)]
        return self._start(stack, OURS, command, port, first, http)

    def _peer(
        self, stack: contextlib.ExitStack, peer: Peer, kind: str, workloads: Sequence[Workload]
    ) -> Server:
        port, folder = free_port(), self.folder / f"{peer.name}-{kind}"
        folder.mkdir()
        command = [peer.found() or peer.binary]
        command += peer.prepare(folder, kind, port, str(self.geo))
        first = next(one for one in workloads if one.key in peer.workloads)
        return self._start(stack, peer.name, command, port, first)

    def _floor(self, stack: contextlib.ExitStack, workload: Workload, ours: Server) -> Server:
        """The floor with our own answer to the first query."""
        question = next(world.questions(workload))
        reply = ask(ours.port, question.wire())
        assert reply is not None  # it was checked
        file, port = self.folder / f"{workload.key}.answer", free_port()
        file.write_bytes(reply)
        command = [str(self.tools["dns_floor"]), str(port), str(file)]
        return self._start(stack, FLOOR, command, port, workload)

    def _start(
        self,
        stack: contextlib.ExitStack,
        name: str,
        command: list[str],
        port: int,
        first: Workload,
        http_port: int = 0,
    ) -> Server:
        log = self.folder / f"{name}-{first.key}.log"
        probe = next(world.questions(first)).wire()
        begun = running(name, command, port, probe, READY_S[first.world], log)
        server = stack.enter_context(begun)
        server.http_port = http_port
        return server

    def _check(self, workload: Workload, servers: Mapping[str, Server]) -> None:
        """SystemExit unless every server answers what is meant."""
        with maxminddb.open_database(str(self.geo)) as reader:
            for question in itertools.islice(world.questions(workload), SAMPLES):
                record = None
                if question.client is not None:
                    record = reader.get(".".join(map(str, question.client.to_bytes(4))))
                allowed = world.meant(workload, question, record)
                for name, server in servers.items():
                    if question.client is not None and name in UNSTEERED:
                        continue
                    reply = ask(server.port, question.wire())
                    said = addresses(reply)
                    if len(said) != 1 or not said <= allowed:
                        raise SystemExit(
                            f"{name} is not to be compared: {question} gave {sorted(said)} "
                            f"instead of one of {sorted(allowed)}"
                        )

    def _load(self, server: Server, data: Path, seconds: float) -> Load:
        if self.args.load == "dnsperf":
            return dnsperf(server.port, data, seconds, self.args.window, self.args.clients)
        tool = self.tools["dns_load"]
        return own_load(tool, "window", server.port, data, seconds, self.args.window)

    def _sample(self, server: Server, data: Path) -> Sample:
        before = server.cpu_s()
        load = self._load(server, data, self.args.seconds)
        cpu_s = server.cpu_s() - before
        if load.wrong or not load.answered:
            raise SystemExit(f"{server.name}: {load.wrong} wrong of {load.answered} answers")
        return Sample(load.answered, load.lost, load.seconds, cpu_s)

    def _latency(self, result: Result, servers: Mapping[str, Server], data: Path) -> None:
        """Latency at half of gdnsd's peak, of gdnsd, ours and the floor."""
        if GDNSD not in servers:
            return
        rate = max(sample.qps for sample in result.samples[GDNSD]) / 2
        result.rate = rate
        tool, seconds = self.tools["dns_load"], self.args.seconds
        loads: dict[str, list[Load]] = {name: [] for name in (GDNSD, OURS, FLOOR)}
        for _ in range(LATENCY_ROUNDS):
            for name, seen in loads.items():
                load = own_load(tool, "rate", servers[name].port, data, seconds, rate)
                if load.wrong:
                    raise SystemExit(f"{name}: {load.wrong} wrong answers at {rate:,.0f} a second")
                seen.append(load)
        for name, seen in loads.items():
            result.latency[name] = {
                key: statistics.median(one.latency_us[key] for one in seen)
                for key in ("p50", "p90", "p99", "p999")
            }
            result.latency[name]["lost"] = sum(one.lost for one in seen)

    def _note(self, kind: str, servers: Mapping[str, Server]) -> None:
        """Print what each took until it answered, and what ours says of itself."""
        print(f"\n{kind} world: until ready, and resident memory then")
        for name, server in servers.items():
            print(
                f"{name:<8}{server.ready_s:>8.1f} s, {server.cpu_s():>7.1f} s of CPU"
                f"{server.rss_bytes() / MIB:>10,.0f} MiB"
            )
        ours = servers[OURS]
        told = (line.split() for line in ours.log.read_text().splitlines())
        _, cpu_s, held = next(words for words in told if words[:1] == ["store"])
        print(
            f"of ours, the store in memory: {float(cpu_s):.1f} s of CPU, {int(held) / MIB:,.0f} MiB"
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{ours.http_port}/metrics") as answer:
            said = read_metrics(answer.read().decode(), OWN_METRICS)
        for name, value in said.items():
            print(f"of ours, {name}: {value:,.2f}")


UNSTEERED = frozenset(peer.name for peer in PEERS if not peer.steers)


def addresses(reply: bytes | None) -> frozenset[str]:
    """The addresses in an answer; none where there is no answer."""
    if reply is None:
        return frozenset()
    return frozenset(
        item.address
        for rrset in dns.message.from_wire(reply).answer
        for item in rrset
        if item.rdtype == dns.rdatatype.A
    )


def compiled(name: str, folder: Path) -> Path:
    """A C program of this folder, compiled."""
    made = folder / name
    subprocess.run(
        ["cc", "-O2", "-o", str(made), str(ROOT / "benchmarks" / f"{name}.c")], check=True
    )
    return made


def show(result: Result) -> None:
    """Print the table of one workload."""
    samples = result.samples
    print(f"\n{result.workload.title}")
    print(f"{'server':<8}{'queries/s':>11}{'us/query':>10}{'busy':>6}{'of the floor':>22}", end="")
    print(f"{'against gdnsd':>22}{'lost':>7}")
    for name, seen in samples.items():
        row = f"{name:<8}{statistics.median(one.qps for one in seen):>11,.0f}"
        row += f"{statistics.median(one.us for one in seen):>10.3f}"
        row += f"{100 * statistics.median(one.busy for one in seen):>5.0f}%"
        row += f"{bounds(samples[FLOOR], seen):>22}"
        row += f"{bounds(samples[GDNSD], seen) if GDNSD in samples else '':>22}"
        print(row + f"{sum(one.lost for one in seen):>7}")
    for name, said in result.latency.items():
        print(
            f"{name:<8}at {result.rate:,.0f}/s: "
            + ", ".join(f"{key} {value:.0f} us" for key, value in said.items() if key != "lost")
            + f", {said['lost']:.0f} lost"
        )
    sys.stdout.flush()


def bounds(above: Sequence[Sample], below: Sequence[Sample]) -> str:
    """A ratio with the least and the greatest of its rounds."""
    least, greatest = spread(above, below)
    return f"{ratio(above, below):.3f} ({least:.2f}..{greatest:.2f})"


def summary(results: Sequence[Result]) -> None:
    """Print every target beside what was seen."""
    print("\ntargets")
    print(f"{'workload':<48}{'what':<16}{'seen':>8}{'target':>8}")

    def row(title: str, what: str, seen: float, target: float, said: str) -> None:
        digits = 0 if what.endswith("us") else 3
        print(f"{title:<48}{what:<16}{seen:>8.{digits}f}{target:>8.{min(digits, 2)}f}  {said}")

    for result in results:
        work, samples = result.workload, result.samples
        value = ratio(samples[FLOOR], samples[OURS])
        row(work.title, "of the floor", value, work.efficiency, verdict(value, work.efficiency))
        if GDNSD in samples:
            value = ratio(samples[GDNSD], samples[OURS])
            row(work.title, "against gdnsd", value, work.ahead, verdict(value, work.ahead))
        for key, more in (("p50", P50_MORE_US), ("p99", P99_MORE_US)):
            if result.latency:
                seen, most = result.latency[OURS][key], result.latency[GDNSD][key] + more
                row(work.title, f"{key}, us", seen, most, "hit" if seen <= most else "missed")


def chosen(args: argparse.Namespace) -> tuple[Peer, ...]:
    """The peers that take part; says which are not installed."""
    wanted = args.peers.split(",") if args.peers else [peer.name for peer in PEERS]
    unknown = set(wanted) - {peer.name for peer in PEERS}
    if unknown:
        raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}")
    peers = [peer for peer in PEERS if peer.name in wanted]
    for peer in peers:
        if peer.found() is None:
            print(f"{peer.name} is left out: not installed (Debian: {peer.package})")
    return tuple(peer for peer in peers if peer.found() is not None)


def main() -> None:
    """Measure and print."""
    keys = [one.key for one in WORKLOADS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workload", action="append", choices=keys, help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each server in each round")
    parser.add_argument("--window", type=int, default=100, help="queries under way at once")
    parser.add_argument("--clients", type=int, default=16, help="sockets that dnsperf asks from")
    parser.add_argument("--peers", help="comma-separated; default: all")
    parser.add_argument("--load", choices=("dnsperf", "own"), default="dnsperf")
    parser.add_argument("--no-latency", action="store_true")
    args = parser.parse_args()
    if args.load == "dnsperf" and shutil.which("dnsperf") is None:
        raise SystemExit("dnsperf is not installed (Debian: dnsperf); or take --load own")
    wanted = [one for one in WORKLOADS if not args.workload or one.key in args.workload]
    print(
        f"Python {platform.python_version()}, {platform.machine()}, Linux {platform.release()}, "
        f"{os.cpu_count()} cores; {args.rounds} interleaved rounds of {args.seconds:g} s, "
        f"{args.window} queries under way by {args.load} "
        f"from {args.clients if args.load == 'dnsperf' else 1} sockets"
    )
    print(f"our responder: {'native' if native() is not None else 'reference'}")
    if (part := others_part()) > QUIET:
        print(f"other work has {100 * part:.0f} % of the machine: trust ratios little, latency not")
    peers = chosen(args)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(args, Path(name), peers)
        for kind in ("small", "large"):
            if workloads := [one for one in wanted if one.world == kind]:
                results += bench.world(kind, workloads)
    summary(results)


if __name__ == "__main__":
    main()
