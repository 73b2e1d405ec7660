"""One pool shared by 100,000 names changes while queries run: when is the change answered, and how?

Run `python benchmarks/bench_change.py`. 100,000 access names over 1,000 sets of rules all lead to
one pool. Under a fixed rate of queries for all of them one member of the pool goes and comes back,
`--changes` times. Told are: from the change in the store to the first answer that has it, queries
that were sent after that and answered by the old state (there may be none: a change is whole), lost
queries, and the latency in the second around the change.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dns.message  # noqa: E402

from benchmarks.bench_dns import compiled  # noqa: E402
from benchmarks.dns_numbers import read_load  # noqa: E402
from benchmarks.dns_ours import TTL, batched, zone  # noqa: E402
from benchmarks.dns_running import running  # noqa: E402
from benchmarks.gdnsd_servers import free_port  # noqa: E402
from gtm import codec, keys  # noqa: E402
from gtm.memory import MemoryStore  # noqa: E402
from gtm.model import Instance, Rule, Steering, Tier  # noqa: E402
from gtm.state import Member, PoolState  # noqa: E402
from gtm.store import Put  # noqa: E402
from gtm.units import Duration  # noqa: E402
from resolver.part import serve  # noqa: E402
from resolver.settings import Settings  # noqa: E402

ZONE = "shared.test"
NAMES, RULE_SETS = 100_000, 1_000
TARGET_MS, TARGET_P99_US = 200, 5_000
GOING = "192.0.2.1"


def name(number: int) -> str:
    """Access name number `number`."""
    return f"n{number:06d}.{ZONE}"


def pool(key: str, *addresses: str) -> Put:
    """A published pool that answers all of `addresses`."""
    members = tuple(Member(value=one, answered=True, counted=True, why="up") for one in addresses)
    state = PoolState(
        type="ipv4", steering=Steering(type="round_robin"), max_answers=8, members=members
    )
    return Put(keys.pool(key), codec.encode(state))


def shared(*addresses: str) -> Put:
    """The pool that all names share."""
    return pool("shared", *addresses)


async def main(port: int) -> None:
    """Serve; each line of standard input takes a member away or brings it back, and is timed."""
    store = MemoryStore()
    both = (GOING, "192.0.2.2")
    ops = [*zone(ZONE, []), shared(*both)]
    ops += [pool(f"own{number}", f"198.51.100.{number % 250 + 1}") for number in range(RULE_SETS)]
    for number in range(NAMES):
        own = number % RULE_SETS
        lines = (f"network:10.{own >> 8}.{own & 255}.0/24",)
        rules = (
            Rule(name="own", lines=lines, tiers=(Tier(pools=(f"own{own}",)),)),
            Rule(name="all", lines=("default",), tiers=(Tier(pools=("shared",)),)),
        )
        made = Instance(
            id=f"gtm{number:08d}", zone=ZONE, access_names=(name(number),), ttl=TTL, rules=rules
        )
        ops.append(Put(keys.config("instances", f"i{number}"), codec.encode(made)))
    for some in batched(iter(ops)):
        await store.txn((), some)
    ops.clear()
    settings = Settings(
        id="bench", listen=(f"127.0.0.1:{port}",), http="127.0.0.1:0", data_dir="",
        coordinators=(), not_ready=Duration(600_000),
    )  # fmt: skip
    stop = asyncio.Event()
    there = True

    def turn() -> None:
        nonlocal there
        if not sys.stdin.readline():
            stop.set()
            return
        there = not there
        begun = time.monotonic()
        task = asyncio.ensure_future(store.txn((), [shared(*(both if there else both[1:]))]))
        task.add_done_callback(lambda _: print(f"{begun:.6f}", flush=True))

    asyncio.get_running_loop().add_reader(sys.stdin, turn)
    await serve(settings, store, stop)


def wire(number: int) -> bytes:
    """The query for an access name."""
    return dns.message.make_query(name(number), "A", id=0).to_wire()


def watch(port: int, going: bool, until: float) -> tuple[float | None, int, int]:
    """(when the first changed answer came, old answers to later queries, queries lost)."""
    first, old, lost = None, 0, 0
    dice = random.Random(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1.0)
        sock.connect(("127.0.0.1", port))
        while time.monotonic() < until:
            sent = time.monotonic()
            sock.send(wire(dice.randrange(NAMES)))
            try:
                reply = sock.recv(4096)
            except TimeoutError:
                lost += 1
                continue
            changed = (struct.unpack(">H", reply[6:8])[0] == 1) == going
            if changed and first is None:
                first = time.monotonic()
            elif not changed and first is not None and sent > first:
                old += 1
    return first, old, lost


def measure(args: argparse.Namespace, folder: Path) -> bool:
    """Run and tell; whether the targets were met."""
    load = compiled("dns_load", folder)
    data = folder / "queries"
    order = random.Random(2).sample(range(NAMES), NAMES)
    data.write_bytes(b"".join(struct.pack(">H", len(one)) + one for one in map(wire, order)))
    port = free_port()
    command = [sys.executable, str(Path(__file__).resolve()), "serve", str(port)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            running("ours", command, port, wire(0), 300.0, folder / "log", stdin=subprocess.PIPE)
        )
        assert server.process.stdin is not None
        print(f"{NAMES:,} names, ready after {server.ready_s:.1f} s; {args.rate:,} queries/s")
        delays, p99s, olds, losses = [], [], 0, 0
        for change in range(args.changes):
            pinned = ["taskset", "-c", str(max(os.sched_getaffinity(0))), str(load)]
            loading = subprocess.Popen(
                [*pinned, "rate", str(port), str(data), "1", str(args.rate)],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            time.sleep(0.25)
            log_size = server.log.stat().st_size
            server.process.stdin.write(b"\n")
            server.process.stdin.flush()
            first, old, lost = watch(port, change % 2 == 0, time.monotonic() + 0.6)
            out, _ = loading.communicate()
            told = read_load(out)
            while server.log.stat().st_size == log_size:
                time.sleep(0.01)
            begun = float(server.log.read_bytes()[log_size:].split()[0])
            delays.append(((first or float("inf")) - begun) * 1e3)
            p99s.append(told.latency_us["p99"])
            olds, losses = olds + old, losses + lost + told.lost
        server.process.stdin.close()
    print(
        f"{args.changes} changes: to the first changed answer median"
        f" {statistics.median(delays):.1f} ms, greatest {max(delays):.1f} (target {TARGET_MS});"
        f" old answers afterwards {olds}; lost {losses}; p99 in the second median"
        f" {statistics.median(p99s):,.0f} us, greatest {max(p99s):,.0f} (target {TARGET_P99_US:,})"
    )
    return max(delays) <= TARGET_MS and not olds and not losses and max(p99s) <= TARGET_P99_US


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(main(int(sys.argv[2])))
    else:
        parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
        parser.add_argument("--changes", type=int, default=20)
        parser.add_argument("--rate", type=int, default=50_000, help="queries a second")
        with tempfile.TemporaryDirectory() as temporary:
            measure(parser.parse_args(), Path(temporary))
