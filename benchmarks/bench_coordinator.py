"""How many results a second a coordinator takes through gRPC on one core, and whether it stalls.

    python benchmarks/bench_coordinator.py [--targets 100000] [--agents 10] [--rate 100000]
                                           [--seconds 20]

A real coordinator on a real etcd, pinned to the first core; on the second core etcd and agents that
speak the agents' protocol as octets made in advance, one region each, every one assigned all
targets. Printed are

    start        from the first hello until every agent was assigned everything and its digest taken
    published    from then until the first verdict over every target is in etcd
    sustained    results at `--rate`, in frames as an agent makes them every 100 ms
    most         frames as fast as they are acknowledged
    stall        the longest that a small call waited meanwhile: what a lease or a stream would

and the CPU time of the coordinator for each result. Absolute times are of this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import grpc  # noqa: E402
import grpc.aio  # noqa: E402
import numpy as np  # noqa: E402
from grpc_health.v1 import health_pb2  # noqa: E402
from grpc_health.v1.health_pb2_grpc import HealthStub  # noqa: E402

from ctl.digs import free_port  # noqa: E402
from gtm import codec, keys, links  # noqa: E402
from gtm.embedded import EmbeddedEtcd  # noqa: E402
from gtm.etcd import EtcdOptions, connect  # noqa: E402
from gtm.model import Address, Check, Pool, Region  # noqa: E402
from gtm.state import Head  # noqa: E402
from gtm.store import Op, Put, packed  # noqa: E402
from gtm.units import Duration  # noqa: E402
from gtm.v1 import agent_pb2 as pb  # noqa: E402
from gtm.v1 import operator_pb2  # noqa: E402
from gtm.v1.operator_pb2_grpc import OperatorStub  # noqa: E402

POOL_SIZE = 10
FRAME_S = 0.1
MOST_ROWS = 4096
WINDOW = 8
"""Frames of one agent that wait for their acknowledgement."""
DIGEST_ROWS = 8192
PING_S = 0.02
HEARTBEAT_S = 2.0
TICKS = os.sysconf("SC_CLK_TCK")
CAPABLE = ("tcp", "family:ipv4", "family:ipv6", "family:domain")


# ---- the world -----------------------------------------------------------------------------------


async def configure(endpoint: str, targets: int, regions: list[str]) -> None:
    """Write the configuration as an apply leaves it; the files of 100,000 addresses take longer."""
    check = Check(type="tcp", port=80, interval=Duration(10_000), timeout=Duration(2_000))
    ops: list[Op] = [Put(keys.config("checks", "c"), codec.encode(check))]
    ops += [Put(keys.config("regions", name), codec.encode(Region())) for name in regions]
    for first in range(0, targets, POOL_SIZE):
        addresses = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(first, first + 10)]
        pool = Pool(
            type="ipv4", checks=("c",), addresses=tuple(Address(value=a) for a in addresses)
        )
        ops.append(Put(keys.config("pools", f"p{first}"), codec.encode(pool)))
    store = connect(EtcdOptions(endpoints=(endpoint,)))
    for some in range(0, len(ops), 2000):
        await store.txn([], packed(ops[some : some + 2000]))
    await store.txn([], [Put(keys.HEAD, codec.encode(Head(generation=1)))])
    await store.close()


@contextlib.contextmanager
def coordinator(folder: Path, endpoint: str, core: int) -> Iterator[tuple[int, str]]:
    """A coordinator on `core`: its process id and its gRPC door."""
    port = free_port(count=2)
    door = f"127.0.0.1:{port}"
    words = ["coordinator", "--insecure", "--id=c1", f"--etcd={endpoint}", f"--grpc={door}"]
    with (folder / "coordinator.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ctl", *words, f"--http=127.0.0.1:{port + 1}"],
            stdin=subprocess.DEVNULL,
            stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        yield process.pid, door
    finally:
        process.terminate()
        process.wait(15)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mb(pid: int) -> float:
    """Its resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# ---- agents --------------------------------------------------------------------------------------


def numbered(frame: bytes, sequence: int, kind: str) -> bytes:
    """A ready frame with its sequence and its time of sending: what follows merges into it."""
    now_ms = time.monotonic_ns() // 1_000_000
    part = pb.Results if kind == "results" else pb.Digest
    return (
        frame
        + pb.FromAgent(**{kind: part(sequence=sequence)}).SerializeToString()  # type: ignore[arg-type]
        + pb.FromAgent(sent_ms=now_ms).SerializeToString()
    )


class Agent:
    """One agent: a stream of octets; acknowledgements are read as they come."""

    def __init__(self, channel: grpc.aio.Channel, region: str, targets: int) -> None:
        self.region, self.rows = region, 0
        self.acked_rows = 0
        self._targets = targets
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._call = channel.stream_stream(
            "/gtm.v1.Agents/Connect",
            request_serializer=lambda octets: octets,
            response_deserializer=pb.ToAgent.FromString,
        )()
        self._sequence = self._acked = 0
        self._sizes: dict[int, int] = {}
        self._more = asyncio.Event()
        self._failure = ""
        self._speaks = asyncio.Lock()
        self._index: list[int] = []
        self._revision = 0
        self._frames: dict[int, list[bytes]] = {}
        self._next: Iterator[bytes] = iter(())

    async def open(self) -> None:
        """Say hello, take the assignment, send the digest, wait until it is taken."""
        hello = pb.Hello(region=self.region, agent_id="a", capabilities=CAPABLE)
        await self._call.write(pb.FromAgent(hello=hello).SerializeToString())
        beating = asyncio.create_task(self._beat())
        self._tasks = (beating,)
        while len(self._index) < self._targets:
            message = await self._call.read()
            if message is grpc.aio.EOF:
                raise SystemExit(f"refused: {await self._call.details()}")
            if message.WhichOneof("message") == "assignment":
                self._index += [one.index for one in message.assignment.set]
                self._revision = message.assignment.revision
        self._tasks = (beating, asyncio.create_task(self._read()))
        for start in range(0, self._targets, DIGEST_ROWS):
            rows = self._index[start : start + DIGEST_ROWS]
            digest = pb.Digest(
                assignment_revision=self._revision,
                target=rows,
                outcome=[1] * len(rows),
                streak=[9] * len(rows),
                age_ms=[1000] * len(rows),
                rtt_us=[1500] * len(rows),
                reason=[0] * len(rows),
                reasons=[""],
                partial=start + DIGEST_ROWS < self._targets,
            )
            await self._send(pb.FromAgent(digest=digest).SerializeToString(), "digest", 0)
        await self.flushed()

    async def _read(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            if message.WhichOneof("message") == "ack":
                for sequence in range(self._acked + 1, message.ack.sequence + 1):
                    self.acked_rows += self._sizes.pop(sequence)
                self._acked = message.ack.sequence
                self._more.set()
        self._failure = f"the stream of {self.region} ended: {await self._call.details()}"
        self._more.set()

    async def _send(self, frame: bytes, kind: str, rows: int) -> None:
        while self._sequence - self._acked >= WINDOW:
            await self._heard()
        self._sequence += 1
        self._sizes[self._sequence] = rows
        async with self._speaks:
            await self._call.write(numbered(frame, self._sequence, kind))

    async def flushed(self) -> None:
        """Wait until everything is acknowledged."""
        while self._acked < self._sequence:
            await self._heard()

    async def _heard(self) -> None:
        """Wait for an acknowledgement."""
        self._more.clear()
        await self._more.wait()
        if self._failure:
            raise SystemExit(self._failure)

    async def _beat(self) -> None:
        """Heartbeats, as agents send them."""
        beat = pb.FromAgent(heartbeat=pb.Heartbeat()).SerializeToString()
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            async with self._speaks:
                await self._call.write(beat)

    def make(self, rows: int, dice: np.random.Generator) -> None:
        """Make frames of so many rows over all targets, to be sent again and again."""
        order = dice.permutation(np.array(self._index))
        zero = [0] * rows
        self.rows = rows
        frames = []
        for start in range(0, len(order) - rows + 1, rows):
            micro = dice.integers(200, 90_000, size=(4, rows))
            results = pb.Results(
                assignment_revision=self._revision,
                target=order[start : start + rows].tolist(),
                outcome=[1] * rows,
                age_ms=dice.integers(0, 100, rows).tolist(),
                rtt_us=micro.sum(axis=0).tolist(),
                reason=zero,
                reasons=[""],
                dns_us=zero,
                connect_us=micro[0].tolist(),
                tls_us=micro[1].tolist(),
                first_byte_us=micro[2].tolist(),
                body_us=micro[3].tolist(),
            )
            frames.append(pb.FromAgent(results=results).SerializeToString())
        self._next = itertools.cycle(frames)

    async def run(self, seconds: float, rate: float) -> None:
        """Send for so long, `rate` rows a second; 0: as fast as they are acknowledged."""
        began = time.monotonic()
        due = began + random.random() * FRAME_S
        while time.monotonic() - began < seconds:
            if rate:
                await asyncio.sleep(due - time.monotonic())
                due += self.rows / rate
            await self._send(next(self._next), "results", self.rows)
        await self.flushed()

    async def close(self) -> None:
        """End the stream."""
        for task in self._tasks:
            task.cancel()
        self._call.cancel()


# ---- measuring -----------------------------------------------------------------------------------


class Pings:
    """Small calls, one after the other: how long each took, in milliseconds."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = HealthStub(channel)
        self.ms: list[float] = []

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            began = time.monotonic()
            await self._stub.Check(health_pb2.HealthCheckRequest())
            self.ms.append((time.monotonic() - began) * 1000)
            await asyncio.sleep(PING_S)

    def __str__(self) -> str:
        p99 = quantiles(self.ms, n=100)[98] if len(self.ms) > 1 else self.ms[0]
        return f"call: median {median(self.ms):.1f}, p99 {p99:.1f}, stall {max(self.ms):.0f} ms"


@contextlib.asynccontextmanager
async def pinging(door: str) -> AsyncIterator[Pings]:
    """Pings over a channel of their own while the block runs."""
    async with links.channel(door, links.Tls()) as channel:
        pings = Pings(channel)
        task = asyncio.create_task(pings.run())
        try:
            yield pings
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def phase(name: str, agents: list[Agent], pid: int, door: str, seconds: float, rate: float):
    """One phase with its line."""
    before, began, used = sum(one.acked_rows for one in agents), time.monotonic(), cpu_s(pid)
    async with pinging(door) as pings:
        await asyncio.gather(*(one.run(seconds, rate / len(agents)) for one in agents))
    took_s, used = time.monotonic() - began, cpu_s(pid) - used
    rows = sum(one.acked_rows for one in agents) - before
    print(
        f"{name:10} {rows / took_s:>11,.0f} results/s  {used / rows * 1e6:6.2f} us CPU a result  "
        f"{used / took_s:5.0%} of the core  {pings}",
        flush=True,
    )


async def whole(door: str) -> None:
    """Wait until the coordinator answers."""
    for _ in range(600):
        with contextlib.suppress(grpc.aio.AioRpcError):
            async with links.channel(door, links.Tls()) as channel:
                await HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
                return
        await asyncio.sleep(0.1)
    raise SystemExit("the coordinator does not start")


async def published(endpoint: str, targets: int, door: str) -> None:
    """Wait until every target has its verdict in the store."""
    store = connect(EtcdOptions(endpoints=(endpoint,)))
    began = time.monotonic()
    async with pinging(door) as pings:
        while len((await store.list(keys.VERDICTS, keys_only=True)).items) < targets:
            await asyncio.sleep(1.0)
    await store.close()
    print(f"{'published':10} {time.monotonic() - began:.1f} s  {pings}", flush=True)


async def listed(door: str, pid: int) -> None:
    """Read every verdict, and see what waits meanwhile."""
    async with pinging(door) as pings, links.channel(door, links.Tls()) as channel:
        stub = OperatorStub(channel)  # type: ignore[no-untyped-call]
        began, used, count = time.monotonic(), cpu_s(pid), 0
        token = ""
        while True:
            page = await stub.ListVerdicts(operator_pb2.ListVerdictsRequest(page_token=token))
            count += len(page.verdicts)
            if not (token := page.next_page_token):
                break
        took_s, used = time.monotonic() - began, cpu_s(pid) - used
    print(f"{'verdicts':10} {count:,} in {took_s:.1f} s, {used:.1f} s CPU  {pings}", flush=True)


async def bench(options: Any) -> None:
    """All phases."""
    regions = [f"r{number}" for number in range(options.agents)]
    dice = np.random.default_rng(1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port(count=2)
        async with EmbeddedEtcd(folder / "etcd", port, port + 1) as etcd:
            await configure(etcd.endpoint, options.targets, regions)
            with coordinator(folder, etcd.endpoint, options.core) as (pid, door):
                began = time.monotonic()
                await whole(door)
                print(f"up after {time.monotonic() - began:.1f} s", flush=True)
                async with contextlib.AsyncExitStack() as stack:
                    agents = []
                    for region in regions:
                        channel = await stack.enter_async_context(links.channel(door, links.Tls()))
                        agents.append(Agent(channel, region, options.targets))
                        stack.push_async_callback(agents[-1].close)
                    began = time.monotonic()
                    async with pinging(door) as pings:
                        await asyncio.gather(*(one.open() for one in agents))
                    print(f"{'start':10} {time.monotonic() - began:.1f} s  {pings}", flush=True)
                    await published(etcd.endpoint, options.targets, door)
                    rate = options.rate
                    for one in agents:
                        await asyncio.to_thread(
                            one.make, max(1, int(rate / len(agents) * FRAME_S)), dice
                        )
                    await phase("sustained", agents, pid, door, options.seconds, rate)
                    await listed(door, pid)
                    for one in agents:
                        await asyncio.to_thread(one.make, min(MOST_ROWS, options.targets), dice)
                    await phase("most", agents, pid, door, options.seconds, 0)
                    print(f"{'memory':10} {memory_mb(pid):,.0f} MB resident")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", type=int, default=100_000)
    parser.add_argument("--agents", type=int, default=10)
    parser.add_argument("--rate", type=float, default=100_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--core", type=int, default=0, help="of the coordinator")
    options = parser.parse_args()
    print(
        f"{options.targets:,} targets, {options.agents} agents, one a region;"
        f" Python {platform.python_version()}, grpcio {grpc.__version__}, {platform.machine()}"
    )
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - {options.core})
    asyncio.run(bench(options))


if __name__ == "__main__":
    main()
