"""CPU of one probe of `gtm agent` beside one of blackbox_exporter, and of 10,000 HTTP targets.

    python benchmarks/bench_agent.py [--rounds 3] [--seconds 8] [--rate 500] [--only NAME]

Needs Debian's prometheus-blackbox-exporter (install it first; without it only our side is shown).
Both probe the same origin as often, each pinned to core 0 in its turn; the origin, the load on
blackbox_exporter and the coordinator's stand-in are on core 1. CPU is of the whole process: ours
with its schedule and its stream of results, blackbox_exporter's with the request that asks for a
probe and the metrics that answer it, over connections that stay open. Ratios carry over to other
machines, microseconds do not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.agent_world import (
    BIN_S,
    Origin,
    agent,
    assigning,
    cpu_s,
    pin,
    rss_mb,
    target,
)

BLACKBOX = "prometheus-blackbox-exporter"
MODULES = """\
modules:
  tcp: {prober: tcp, timeout: 1s, tcp: {preferred_ip_protocol: ip4}}
  http: {prober: http, timeout: 1s, http: {preferred_ip_protocol: ip4, follow_redirects: false}}
"""
TARGETS = {"tcp": 0.5, "http": 0.7}
"""The most of blackbox_exporter's CPU that ours may take."""
TOLERATED = 0.3
"""Share of the probes that a busy machine may cost before figures mean nothing."""
SETTLE_S = 4.0
CONNECTIONS = 20
MANY, MANY_INTERVAL_MS = 10_000, 10_000


def addresses(count: int) -> list[str]:
    """Addresses of loopback, each its own target."""
    return [f"127.13.{number // 250}.{number % 250 + 1}" for number in range(count)]


async def ours(origin: Origin, type_: str, rate: int, seconds: float, uvloop: bool) -> float:
    """CPU microseconds of one probe of the agent, everything included."""
    targets = [
        target(index, address, origin.port, type_, 1000)
        for index, address in enumerate(addresses(rate))
    ]
    async with assigning(targets) as (assigner, where):
        with agent(where, uvloop=uvloop) as pid:
            while assigner.kinds[1] < rate:
                await asyncio.sleep(0.1)
            await asyncio.sleep(SETTLE_S)
            origin.times()
            before, began = cpu_s(pid), time.monotonic()
            await asyncio.sleep(seconds)
            used, took = cpu_s(pid) - before, time.monotonic() - began
            probes = len(origin.times())
        assert assigner.kinds[2] + assigner.kinds[3] <= TOLERATED * probes, assigner.kinds
    assert abs(probes / took / rate - 1) < TOLERATED, f"{probes} probes in {took:.1f} s"
    return used * 1e6 / probes


@contextlib.contextmanager
def blackbox(folder: Path) -> Iterator[tuple[int, int]]:
    """A running blackbox_exporter on core 0: its process id and its port."""
    (folder / "modules.yml").write_text(MODULES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [f"--config.file={folder / 'modules.yml'}", f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(
        [*pin(True), BLACKBOX, *flags, "--log.level=error"], stderr=subprocess.DEVNULL
    ) as process:
        try:
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                time.sleep(0.05)
            yield process.pid, port
        finally:
            process.terminate()


async def theirs(origin: Origin, type_: str, rate: int, seconds: float, folder: Path) -> float:
    """CPU microseconds of one probe of blackbox_exporter, asked for over open connections."""
    place = f"127.0.0.1:{origin.port}" if type_ == "tcp" else f"http://127.0.0.1:{origin.port}/"
    request = (
        f"GET /probe?module={type_}&target={place} HTTP/1.1\r\nHost: x\r\n"
        "Accept-Encoding: identity\r\n\r\n"
    ).encode()
    with blackbox(folder) as (pid, port):
        end = time.monotonic() + SETTLE_S + seconds
        window = [end - seconds, 0.0]

        async def ask(number: int) -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            done, due = 0, time.monotonic() + number / rate
            while due < end:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                if b"\r\nTransfer-Encoding: chunked" in head:
                    body = b""
                    while size := int(await reader.readline(), 16):
                        body += (await reader.readexactly(size + 2))[:-2]
                    await reader.readline()
                else:
                    length = head.partition(b"\r\nContent-Length: ")[2].partition(b"\r\n")[0]
                    body = await reader.readexactly(int(length))
                assert b"\nprobe_success 1\n" in body
                done += due >= window[0]
                due += CONNECTIONS / rate
            writer.close()
            return done

        async def watch() -> float:
            await asyncio.sleep(window[0] - time.monotonic())
            before = cpu_s(pid)
            await asyncio.sleep(end - time.monotonic())
            return cpu_s(pid) - before

        watching = asyncio.create_task(watch())
        asked = await asyncio.gather(*(ask(number) for number in range(CONNECTIONS)))
        used = await watching
    assert abs(sum(asked) / seconds / rate - 1) < TOLERATED, f"{sum(asked)} probes in {seconds} s"
    return used * 1e6 / sum(asked)


async def beside(origin: Origin, args: argparse.Namespace) -> None:
    """The table of both, round by round in turn."""
    loops = [False, True] if importlib.util.find_spec("uvloop") else [False]
    found: dict[tuple[str, str], list[float]] = {}
    with TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for type_ in TARGETS:
                if shutil.which(BLACKBOX):
                    one = await theirs(origin, type_, args.rate, args.seconds, Path(folder))
                    found.setdefault((type_, "blackbox"), []).append(one)
                for uvloop in loops:
                    name = "agent with uvloop" if uvloop else "agent"
                    one = await ours(origin, type_, args.rate, args.seconds, uvloop)
                    found.setdefault((type_, name), []).append(one)
    print(f"{args.rate} probes/s, {args.rounds} rounds of {args.seconds:g} s")
    print(f"{'probe':<8}{'who':<20}{'CPU us':>8}{'least':>8}{'most':>8}{'ratio':>8}{'target':>8}")
    for (type_, name), values in found.items():
        median = statistics.median(values)
        row = f"{type_:<8}{name:<20}{median:>8.0f}{min(values):>8.0f}{max(values):>8.0f}"
        if name != "blackbox" and (type_, "blackbox") in found:
            ratio = median / statistics.median(found[type_, "blackbox"])
            row += f"{ratio:>8.2f}{TARGETS[type_]:>8.1f}"
        print(row)


async def many(origin: Origin, args: argparse.Namespace) -> None:
    """10,000 HTTP targets every 10 s: CPU, memory, and how even the probes are."""
    targets = [
        target(index, address, origin.port, "http", MANY_INTERVAL_MS)
        for index, address in enumerate(addresses(MANY))
    ]
    for uvloop in [False, True] if importlib.util.find_spec("uvloop") else [False]:
        async with assigning(targets) as (assigner, where):
            with agent(where, uvloop=uvloop) as pid:
                while assigner.kinds[1] < MANY:
                    await asyncio.sleep(0.2)
                await asyncio.sleep(3 * MANY_INTERVAL_MS / 1000)
                origin.times()
                assigner.rows.clear()
                before, began = cpu_s(pid), time.monotonic()
                await asyncio.sleep(3 * MANY_INTERVAL_MS / 1000)
                share = (cpu_s(pid) - before) / (time.monotonic() - began)
                times, memory = origin.times(), rss_mb(pid)
        failed = Counter(
            reason.partition(":")[0] for _, outcome, _, reason in assigner.rows if outcome != 1
        )
        bins = Counter(int((at - began) / BIN_S) for at in times if at >= began)
        full = [bins[number] for number in range(int(3 * MANY_INTERVAL_MS / 1000 / BIN_S))]
        mean = statistics.mean(full)
        print(
            f"{MANY} http targets every {MANY_INTERVAL_MS // 1000} s"
            f"{', uvloop' if uvloop else ''}: {share:.0%} of a core (target below 100%), "
            f"{memory:.0f} MB (target below 300), {len(times)} probes, "
            f"failed: {dict(failed) or 'none'}; "
            f"probes in {BIN_S * 1000:g} ms {min(full)} to {max(full)}, mean {mean:.0f}, "
            f"greatest {max(full) / mean:.2f} times (target at most 2)"
        )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description="CPU of the agent's probes beside blackbox")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rate", type=int, default=300, help="probes a second")
    parser.add_argument("--only", choices=("beside", "many"), default="")
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(1, (os.cpu_count() or 1) - 1)})
    print(f"{platform.python_version()} on {os.cpu_count()} cores")
    if not shutil.which(BLACKBOX):
        print(f"{BLACKBOX} is not installed: our side alone")
    origin = Origin()
    try:
        for name, run in (("beside", beside), ("many", many)):
            if args.only in ("", name):
                asyncio.run(run(origin, args))
    finally:
        origin.close()


if __name__ == "__main__":
    main()
