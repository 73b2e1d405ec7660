"""How long `gtm plan` takes on a large set, from the start of the command to its end.

Run `python benchmarks/bench_plan.py [--instances 10000]` (Linux; some minutes). It writes YAML
files of so many instances over twice as many pools of two or three addresses, starts an embedded
etcd and a coordinator, and times the command as a user does: its start, reading the files, judging
the set in the coordinator's child, the difference, what changes in answers, printing.

    first plan     nothing is stored, all of it is new
    one change     the set is applied, one address has another weight
    nothing        the set is applied, the files are the same
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ctl.running import free_ports  # noqa: E402
from gtm.embedded import EmbeddedEtcd  # noqa: E402

TARGET_S = 5.0
PER_FILE = 1_000
"""Instances in one file, with their pools."""
START_S = 30.0
QUIET_S = 120.0
STILL_S = 5.0
"""How long no revision must come for the coordinator to be quiet."""
COMMON = """\
zones:
  gtm.test: {nameservers: [ns.example.org]}
checks:
  web: {type: http, port: 80, path: /healthz, interval: 15s, timeout: 2s, fall: 2, rise: 2}
  port: {type: tcp, port: 443}
"""


def pools(number: int) -> str:
    """The two pools of an instance: one by weights, and its backup."""
    high, low = number >> 8, number & 255
    return f"""\
  p{number}-main:
    type: ipv4
    checks: [web]
    addresses:
      - {{value: 10.{high}.{low}.1, weight: 3}}
      - {{value: 10.{high}.{low}.2, weight: 2}}
      - {{value: 10.{high}.{low}.3}}
    steering: weighted
  p{number}-backup:
    type: ipv4
    checks: [web, port]
    addresses:
      - {{value: 11.{high}.{low}.1}}
      - {{value: 11.{high}.{low}.2, mode: smart, note: spare}}
    min_available: 1
"""


def instance(number: int) -> str:
    """An instance of two rules, whose pools stand in for each other."""
    return f"""\
  i{number}:
    id: gtm{number:08}
    domain: www{number}.example.com
    ttl: 60s
    rules:
      - name: mainland
        lines: [country:CN]
        tiers:
          - pools: [p{number}-main]
          - pools: [p{number}-backup]
      - name: world
        lines: [default]
        tiers:
          - pools: [p{number}-backup]
          - pools: [p{number}-main]
"""


def write(folder: Path, instances: int) -> None:
    """The set as files of `PER_FILE` instances each."""
    folder.mkdir()
    (folder / "common.yaml").write_text(COMMON)
    for first in range(0, instances, PER_FILE):
        numbers = range(first, min(first + PER_FILE, instances))
        text = "".join(("pools:\n", *map(pools, numbers), "instances:\n", *map(instance, numbers)))
        (folder / f"part{first // PER_FILE:03}.yaml").write_text(text)


def gtm(*arguments: object, environ: dict[str, str]) -> float:
    """Seconds that a command takes on the wall; its failure ends the run."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ctl", *map(str, arguments)],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    took = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"gtm {arguments[0]} ended with {done.returncode}: {done.stderr[-500:]}")
    return took


def told(what: str, samples: list[float], *, target: bool = True) -> None:
    """Print one line of figures."""
    beside = f" (target: under {TARGET_S:g} s)" if target else ""
    print(
        f"{what}: median {statistics.median(samples):.2f} s, greatest {max(samples):.2f} s{beside}",
        flush=True,
    )


async def measure(folder: Path, instances: int, turns: int) -> None:
    """Start what is needed, then plan again and again."""
    ports = free_ports(1, 1)
    files = folder / "files"
    write(files, instances)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GTM_")}
    environ |= {"GTM_SERVER": ports.grpc, "GTM_INSECURE": "1"}
    async with EmbeddedEtcd(folder / "etcd", *ports.etcd) as etcd:
        with (folder / "coordinator.log").open("ab") as log:
            coordinator = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ctl", "coordinator", f"--grpc={ports.grpc}",
                f"--http={ports.http}", f"--etcd={etcd.endpoint}",
                env=environ, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            await _reached(environ)
            await asyncio.to_thread(_plans, files, environ, turns)
        finally:
            coordinator.terminate()
            await coordinator.wait()


async def _reached(environ: dict[str, str]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            await asyncio.to_thread(gtm, "status", environ=environ)
            return
        except SystemExit:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def _quiet(environ: dict[str, str]) -> None:
    """Wait until the coordinator has published what the apply brought."""
    command = [sys.executable, "-m", "ctl", "status", "-o", "json"]
    before, deadline = "", time.monotonic() + QUIET_S
    while time.monotonic() < deadline:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        revision = str(json.loads(done.stdout)["serve_revision"])
        if revision == before:
            return
        before = revision
        time.sleep(STILL_S)
    raise SystemExit(f"the coordinator was still publishing after {QUIET_S:g} s")


def _plans(files: Path, environ: dict[str, str], turns: int) -> None:
    told("first plan", [gtm("plan", files, environ=environ) for _ in range(turns)])
    told("apply of all", [gtm("apply", "--yes", files, environ=environ)], target=False)
    _quiet(environ)
    part = files / "part000.yaml"
    before = part.read_text()
    part.write_text(before.replace("10.0.0.1, weight: 3", "10.0.0.1, weight: 4"))
    told("one change", [gtm("plan", files, environ=environ) for _ in range(turns)])
    part.write_text(before)
    told("nothing", [gtm("plan", files, environ=environ) for _ in range(turns)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {args.instances:,} instances, "
        f"{2 * args.instances:,} pools",
        flush=True,
    )
    with TemporaryDirectory(prefix="gtm-bench-") as folder:
        asyncio.run(measure(Path(folder), args.instances, args.turns))


if __name__ == "__main__":
    main()
