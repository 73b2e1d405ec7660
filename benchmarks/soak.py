"""Does anything grow? Memory and file descriptors of every part over a long, even load.

Run `python benchmarks/soak.py --minutes 60` (Linux). A real `gtm up` probes 100 targets every
second and answers 1,000 queries a second, each of which is held against what is right, while one
origin after another goes and comes back. What a part has after the warm-up stands beside what it
has at the end, each over a minute, or a fifth of a short run: the median of the memory, the least
of the descriptors. Exit status 1 where memory grew by more than 5 % and 1 MiB, descriptors grew,
an answer was wrong, or more than one in a thousand was missing.

etcd keeps its history for 24 hours and maps its file into memory: it is shown and not judged.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ctl import show  # noqa: E402
from ctl.digs import in_order  # noqa: E402
from ctl.origins import Origins  # noqa: E402
from ctl.running import Running  # noqa: E402
from tests.load import Load  # noqa: E402

POOLS, MEMBERS = 20, 5
TARGETS = tuple(
    tuple(f"127.24.{pool}.{member}" for member in range(1, MEMBERS + 1))
    for pool in range(1, POOLS + 1)
)
RATE = 1_000.0
"""Queries a second, to all resolvers together."""
SAMPLE_S = 2.0
CHANGE_S = 10.0
"""From one origin's going, or coming back, to the next."""
WARM_S = 60.0
GROWTH, LEAST_BYTES = 0.05, 1 << 20
NOT_JUDGED = ("etcd",)
LOST = 0.001
"""Share of queries that a busy machine may lose."""


def configuration(port: int) -> dict[str, Any]:
    """Twenty pools of five addresses, each answered by a name."""
    # Patient: origins and load share one process, and what is dead refuses at once.
    check = {"type": "http", "port": port, "interval": "1s", "timeout": "1s", "fall": 8}
    return {
        "zones": {"gtm.test": {"nameservers": ["ns.example.org"]}},
        "checks": {"web": check},
        "pools": {
            f"p{number}": {
                "type": "ipv4",
                "checks": ["web"],
                "addresses": [{"value": value} for value in values],
            }
            for number, values in enumerate(TARGETS, 1)
        },
        "instances": {
            f"i{number}": {
                "id": f"gtm{number:08}",
                "rules": [
                    {"name": "all", "lines": ["default"], "tiers": [{"pools": [f"p{number}"]}]}
                ],
            }
            for number in range(1, POOLS + 1)
        },
    }


def picture(down: str = "") -> dict[str, str]:
    """What is right while `down` is down."""
    return {
        f"gtm{number:08}.gtm.test A": f"NOERROR {' '.join(in_order({*values} - {down}))}"
        for number, values in enumerate(TARGETS, 1)
    }


def parts(running: Running) -> dict[str, int]:
    """The name of every process of the system, and its id."""
    found = {file.stem: running.pid(file.stem) for file in (running.data / "run").glob("*.pid")}
    found["up"] = running.up_pid
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == running.up_pid and (entry / "comm").read_text() == "etcd\n":
                found["etcd"] = int(entry.name)
    return dict(sorted(found.items()))


def resident(pid: int) -> int:
    """Bytes of memory that a process has for itself or shares."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """Files that a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def soak(folder: Path, seconds: float) -> bool:
    """Run it, print what was seen, and say whether all stayed flat and every answer was right."""
    every = [value for values in TARGETS for value in values]
    memory: dict[str, list[int]] = defaultdict(list)
    files: dict[str, list[int]] = defaultdict(list)
    with Origins(every) as origins:
        config = folder / "soak.yaml"
        config.write_text(show.as_yaml(configuration(origins.port)))
        with Running(folder, config=config) as running:
            family, servers = parts(running), running.dns
            load = Load(running.dns, picture(), RATE / len(running.dns), limit_s=seconds + 600)
            with load:
                began = changed = time.monotonic()
                number, down = 0, ""
                while (now := time.monotonic()) - began < seconds:
                    if now - changed > CHANGE_S:
                        changed = now
                        number += 1
                        down = "" if down else every[7 * number % len(every)]
                        load.turning(picture(down))
                        origins.start(*every)
                        if down:
                            origins.stop(down)
                        if load.arrives(30.0) is None:
                            print(f"the answers do not follow: {down or 'all'} {load.told}")
                            return False
                    if now - began > min(WARM_S, seconds / 5):
                        for part, pid in family.items():
                            memory[part].append(resident(pid))
                            files[part].append(descriptors(pid))
                    time.sleep(SAMPLE_S)
                alive = parts(running) == family
    print(f"{'part':14}{'RSS start':>12}{'end':>10}{'change':>9}{'fds start':>11}{'end':>6}")
    flat = alive
    window = max(1, min(int(60 / SAMPLE_S), len(memory["up"]) // 5))
    for part in family:
        rss = [statistics.median(some) for some in ends(memory[part], window)]
        fds = [min(some) for some in ends(files[part], window)]  # probes under way aside
        grown = rss[1] - rss[0]
        bad = part not in NOT_JUDGED and (
            (grown > GROWTH * rss[0] and grown > LEAST_BYTES) or fds[1] > fds[0] + 1
        )
        flat = flat and not bad
        cells = f"{rss[0] / 2**20:>8.1f} MiB{rss[1] / 2**20:>6.1f} MiB{grown / rss[0]:>+8.1%}"
        print(f"{part:14}{cells}{fds[0]:>11}{fds[1]:>6}{'  grows' if bad else ''}")
    total = load.counts(*servers)
    print(
        f"{total.asked} queries: {total.wrong} wrong, {total.slow} slow, "
        f"{total.unanswered} unanswered; {number} changes of an origin"
    )
    if not alive:
        print("a part ended and was started again: see the logs")
    for told in load.told:
        print(told)
    return flat and not total.wrong and total.unanswered <= LOST * total.asked


def ends(samples: Sequence[int], window: int) -> tuple[Sequence[int], Sequence[int]]:
    """The first and the last `window` samples."""
    return samples[:window], samples[-window:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    args = parser.parse_args()
    print(
        f"{args.minutes:g} minutes, {POOLS * MEMBERS} targets at 1 s in 3 regions, "
        f"{RATE:g} queries/s; Python {platform.python_version()}, {os.cpu_count()} cores",
        flush=True,
    )
    with TemporaryDirectory(prefix="gtm-soak-") as name:
        flat = soak(Path(name), args.minutes * 60)
    print("flat" if flat else "NOT flat")
    sys.exit(not flat)


if __name__ == "__main__":
    main()
