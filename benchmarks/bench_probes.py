"""CPU time of one probe in this process, beside a bare asyncio connection to the same server.

    python benchmarks/bench_probes.py [PROBES]

The server is a child process that answers a fixed page to whatever it is sent. Prints the median
and the p99 of batches, in microseconds of CPU a probe, and ratios: only those carry over to other
machines.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import platform
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

from agent.probes.base import Kind, Target, read_settings
from gtm.variants import settings_types, variants

BATCH = 100
CONCURRENT = 10
PAGE = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 3\r\nConnection: close\r\n\r\nok\n"
)


def serve(ready: Connection) -> None:
    """Answer PAGE to every connection that says something."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        ready.send(server.getsockname()[1])
        while True:
            client, _ = server.accept()
            with client:
                try:
                    if client.recv(65_536):
                        client.sendall(PAGE)
                except OSError:
                    pass


def target(type_: str, port: int, options: str = "{}") -> Target:
    """A target of `type_` on the child's port."""
    settings = read_settings(settings_types("agent.probes")[type_], options, port)
    address = "127.0.0.1"
    return Target("c", address, port, type_, options, 1000, 5000, settings=settings)


async def bare(one: Target) -> None:
    """What asyncio's own transports cost for a connection and nothing else."""
    _, writer = await asyncio.open_connection(one.address, one.port)
    writer.close()


async def probed(one: Target) -> None:
    """One probe of the project."""
    outcome = await variants("agent.probes")[one.type].probe(one)
    assert outcome.kind is Kind.SUCCESS, outcome


async def batch(do: Callable[[Target], Awaitable[None]], one: Target) -> float:
    """CPU microseconds a probe, over one batch."""

    async def some() -> None:
        for _ in range(BATCH // CONCURRENT):
            await do(one)

    before = time.process_time()
    await asyncio.gather(*(some() for _ in range(CONCURRENT)))
    return (time.process_time() - before) * 1e6 / BATCH


async def measure(port: int, probes: int) -> None:
    """Interleave the batches of all subjects and print their figures."""
    expecting = '{"expect_body":"ok","expect_header":{"Server":"bench"}}'
    pings = '{"packets":1}'
    subjects: dict[str, tuple[Callable[[Target], Awaitable[None]], Target]] = {
        "asyncio connection": (bare, target("tcp", port)),
        "tcp": (probed, target("tcp", port)),
        "http": (probed, target("http", port)),
        "http, body and header": (probed, target("http", port, expecting)),
        "ping, 1 packet": (probed, target("ping", 0, pings)),
    }
    for do, one in subjects.values():
        await batch(do, one)
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(max(3, probes // BATCH)):
        for name, (do, one) in subjects.items():
            times[name].append(await batch(do, one))
    base = statistics.median(times["asyncio connection"])
    print(f"{platform.python_version()} on {os.cpu_count()} cores, {probes} probes each")
    print(f"{'probe':<24}{'median us':>10}{'p99 us':>10}{'ratio':>8}")
    for name, values in times.items():
        median = statistics.median(values)
        p99 = statistics.quantiles(values, n=100, method="inclusive")[98]
        print(f"{name:<24}{median:>10.0f}{p99:>10.0f}{median / base:>8.2f}")


def main(arguments: Any = None) -> None:
    """Run the server in a child process and measure here."""
    arguments = sys.argv[1:] if arguments is None else arguments
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    child.start()
    try:
        asyncio.run(measure(ours.recv(), int(arguments[0]) if arguments else 2000))
    finally:
        child.terminate()
        child.join()


if __name__ == "__main__":
    main()
