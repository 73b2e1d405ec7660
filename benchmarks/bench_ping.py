"""5,000 ping targets of one agent, 20 packets a minute each, beside fping on the same targets.

    python benchmarks/bench_ping.py [--targets 5000]

Needs root (a network namespace of its own, nftables in it) and Debian's fping. The targets are
addresses of loopback; a share of the echo requests to some of them is dropped at random. Both are
asked for the same: 20 packets to each target. The agent says up or down, at a loss of 10 % or more,
and the mean round trip; of fping's counts the same verdicts are made. Where packets are lost at
random, the two see different ones: there the shares of targets found down are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.agent_world import agent, assigning, cpu_s, pin, rss_mb, target

MINUTE_MS, PACKETS, LIMIT = 60_000, 20, 0.1
LOSSES = {14: 0, 15: 5, 16: 20, 17: 100}
"""Percent of lost requests by the second octet of the address."""
SHARES = {15: 0.1, 16: 0.1, 17: 0.02}
"""Which share of the targets has a loss; the rest has none."""
INSIDE = "GTM_BENCH_PING_INSIDE"

Verdicts = Mapping[str, tuple[bool, float]]
"""By address: whether it is up, and the mean round trip in microseconds (0: none)."""


def addresses(count: int) -> list[str]:
    """The targets, each loss in its own network."""
    counts = {octet: round(count * share) for octet, share in SHARES.items()}
    counts[14] = count - sum(counts.values())
    return [
        f"127.{octet}.{number // 250}.{number % 250 + 1}"
        for octet in sorted(counts)
        for number in range(counts[octet])
    ]


def lossy() -> None:
    """Drop echo requests in this namespace as LOSSES says."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    rules = "".join(
        f"ip daddr 127.{octet}.0.0/16 icmp type echo-request "
        f"{f'numgen random mod 100 < {percent} ' if percent < 100 else ''}counter drop\n"
        for octet, percent in LOSSES.items()
        if percent
    )
    chain = f"chain in {{\ntype filter hook input priority 0;\n{rules}}}\n"
    table = f"table inet bench {{\n{chain}}}\n"
    subprocess.run(["nft", "-f", "-"], input=table, text=True, check=True)


async def ours(places: Sequence[str]) -> Verdicts:
    """What the agent says in a minute after everything is known; prints what it costs."""
    options = '{"packets":%d}' % PACKETS  # noqa: UP031 (JSON has braces of its own)
    targets = [
        target(index, address, 0, "ping", MINUTE_MS, options)
        for index, address in enumerate(places)
    ]
    async with assigning(targets) as (assigner, where):
        with agent(where, uvloop=False) as pid:
            seen: set[int] = set()
            while len(seen) < len(places):
                await asyncio.sleep(1)
                seen.update(row[0] for row in assigner.rows)
            await asyncio.sleep(10)
            assigner.rows.clear()
            before, began = cpu_s(pid), time.monotonic()
            await asyncio.sleep(MINUTE_MS / 1000 + 3)
            share = (cpu_s(pid) - before) / (time.monotonic() - began)
            rows, memory = list(assigner.rows), rss_mb(pid)
    found: dict[str, tuple[bool, float]] = {}
    unknown: Counter[str] = Counter()
    for index, outcome, rtt_us, reason in rows:
        if outcome == 3:
            unknown[reason] += 1
        else:
            found.setdefault(places[index], (outcome == 1, rtt_us))
    print(
        f"agent: {share:.0%} of a core, {memory:.0f} MB, {len(found)} of {len(places)} targets, "
        f"without opinion: {dict(unknown) or 'none'}"
    )
    return found


def theirs(places: Sequence[str]) -> Verdicts:
    """What fping counts, judged alike; prints what it costs."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    flags = ["-q", "-C", str(PACKETS), "-p", "1500", "-i", "0.2", "-t", "1000"]
    done = subprocess.run(
        [*pin(True), "fping", *flags],
        input="\n".join(places),
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    took = time.monotonic() - began
    found, wanted = {}, frozenset(places)
    for line in done.stderr.splitlines():
        address, _, times = line.partition(" : ")
        if address.strip() not in wanted:
            continue
        back = [float(one) * 1000 for one in times.split() if one != "-"]
        lost = PACKETS - len(back)
        mean = statistics.mean(back) if back else 0.0
        found[address.strip()] = (lost < LIMIT * PACKETS, mean)
    print(
        f"fping: {used:.1f} s of CPU in {took:.0f} s, {used / (MINUTE_MS / 1000):.0%} of a core at "
        f"one round a minute, {len(found)} targets"
    )
    return found


def compare(one: Verdicts, other: Verdicts) -> None:
    """The table: found down by either, by loss, and what chance allows; round trips."""
    print(f"{'loss':<6}{'targets':>8}{'down: agent':>13}{'fping':>8}{'binomial':>10}{'sigma':>7}")
    for octet, percent in LOSSES.items():
        both = [place for place in one if place.split(".")[1] == str(octet) and place in other]
        ours_down = sum(not one[place][0] for place in both) / len(both)
        theirs_down = sum(not other[place][0] for place in both) / len(both)
        p = percent / 100
        lost = math.ceil(LIMIT * PACKETS)
        expected = 1 - sum(
            math.comb(PACKETS, k) * p**k * (1 - p) ** (PACKETS - k) for k in range(lost)
        )
        spread = math.sqrt(2 * expected * (1 - expected) / len(both))
        sigma = abs(ours_down - theirs_down) / spread if spread > 1e-9 else 0.0
        row = f"{percent:>3} %{len(both):>9}{ours_down:>13.1%}{theirs_down:>8.1%}"
        print(f"{row}{expected:>10.1%}{sigma:>7.1f}")
    for name, verdicts in (("agent", one), ("fping", other)):
        times = [rtt for up, rtt in verdicts.values() if up]
        p90 = statistics.quantiles(times, n=10)[8]
        print(f"round trips, {name}: median {statistics.median(times):.0f} us, p90 {p90:.0f} us")


def main() -> None:
    """Enter a namespace, then measure one after the other."""
    parser = argparse.ArgumentParser(description="ping targets beside fping")
    parser.add_argument("--targets", type=int, default=5000)
    args = parser.parse_args()
    missing = [name for name in ("fping", "nft", "ip", "unshare") if not shutil.which(name)]
    if missing or os.geteuid():
        sys.exit(f"needs root and {', '.join(missing) or 'nothing else'}: install it first")
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    lossy()
    print(f"{platform.python_version()} on {os.cpu_count()} cores, {args.targets} targets")
    places = addresses(args.targets)
    compare(asyncio.run(ours(places)), theirs(places))


if __name__ == "__main__":
    main()
