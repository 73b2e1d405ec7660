"""What the agent's benchmarks run it in: origins, a coordinator that only assigns, CPU by process.

The agent is the real `gtm agent` in a process of its own, with its gRPC stream. The coordinator is
a stand-in in this process: it welcomes, assigns, acknowledges and keeps what it is told. Origins
are child processes. Whatever is measured is pinned to core 0, everything else to core 1 where there
are two.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import multiprocessing
import os
import select
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gtm import links
from gtm.v1 import agent_pb2
from gtm.v1.agent_pb2_grpc import AgentsServicer, add_AgentsServicer_to_server

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 3\r\nConnection: close\r\n\r\nok\n"
)
BIN_S = 0.1
PART = 5_000
"""Targets of one message."""


def pin(measured: bool) -> tuple[str, ...]:
    """What to put before a command so that it runs on its core."""
    return ("taskset", "-c", "0" if measured else str(min(1, (os.cpu_count() or 1) - 1)))


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, in seconds, all its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# ---- origins -----------------------------------------------------------------------------------


def _serve(ready: Connection) -> None:
    """Answer PAGE to whoever says something; give the times of the connections when asked."""
    os.sched_setaffinity(0, {min(1, (os.cpu_count() or 1) - 1)})
    listener = socket.create_server(("0.0.0.0", 0), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(ready.fileno(), select.EPOLLIN)
    ready.send(listener.getsockname()[1])
    open_: dict[int, socket.socket] = {}
    times = array("d")
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        client, _ = listener.accept()
                        times.append(time.monotonic())
                        client.setblocking(False)
                        open_[client.fileno()] = client
                        poll.register(client, select.EPOLLIN)
            elif number == ready.fileno():
                if not ready.recv():
                    return
                ready.send(times.tolist())
                times = array("d")
            else:
                client = open_.pop(number)
                try:
                    if client.recv(65_536):
                        client.send(PAGE)
                except OSError as error:
                    if error.errno not in (errno.ECONNRESET, errno.EPIPE):
                        raise
                client.close()


class Origin:
    """A server on every address of loopback; `times` are those of connections since last asked."""

    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._child = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._child.start()
        self.port: int = self._pipe.recv()

    def times(self) -> list[float]:
        """Monotonic times of the connections since the last call."""
        self._pipe.send(True)
        return list(self._pipe.recv())

    def close(self) -> None:
        """End it."""
        self._pipe.send(False)
        self._child.join()


# ---- the agent ---------------------------------------------------------------------------------


def target(
    index: int, address: str, port: int, type_: str, interval_ms: int, options: str = "{}"
) -> agent_pb2.Target:
    """A target as a coordinator assigns it."""
    return agent_pb2.Target(
        index=index,
        check="bench",
        address=address,
        port=port,
        type=type_,
        options=options,
        interval_ms=interval_ms,
        timeout_ms=1000,
        fall=2,
        rise=2,
    )


class Assigner(AgentsServicer):
    """Assigns `targets` to whoever comes; counts outcomes in `kinds`, hands rows to `keep`."""

    def __init__(self, targets: Sequence[agent_pb2.Target]) -> None:
        self._targets = targets
        self.kinds = {1: 0, 2: 0, 3: 0}
        self.rows: list[tuple[int, int, int, str]] = []
        """(target, outcome, round trip in microseconds, reason) of every result."""

    async def Connect(self, requests: Any, _context: Any) -> AsyncIterator[agent_pb2.ToAgent]:
        """One stream."""
        out: asyncio.Queue[agent_pb2.ToAgent] = asyncio.Queue()
        reading = asyncio.create_task(self._read(requests, out))
        try:
            yield agent_pb2.ToAgent(
                welcome=agent_pb2.Welcome(
                    coordinator_id="bench", heartbeat_ms=1000, digest_ms=60_000
                )
            )
            for number, start in enumerate(range(0, len(self._targets), PART)):
                some = self._targets[start : start + PART]
                assignment = agent_pb2.Assignment(revision=number + 1, base=number, set=some)
                yield agent_pb2.ToAgent(assignment=assignment)
            while True:
                try:
                    async with asyncio.timeout(0.5):
                        message = await out.get()
                except TimeoutError:
                    message = agent_pb2.ToAgent(heartbeat=agent_pb2.Heartbeat())
                yield message
        finally:
            reading.cancel()

    async def _read(self, requests: Any, out: asyncio.Queue[agent_pb2.ToAgent]) -> None:
        async for message in requests:
            kind = message.WhichOneof("message")
            if kind in ("results", "digest"):
                frame = getattr(message, kind)
                out.put_nowait(agent_pb2.ToAgent(ack=agent_pb2.Ack(sequence=frame.sequence)))
            if kind == "results":
                for row, outcome in enumerate(frame.outcome):
                    self.kinds[outcome] += 1
                    reason = frame.reasons[frame.reason[row]]
                    self.rows.append((frame.target[row], outcome, frame.rtt_us[row], reason))


@contextlib.asynccontextmanager
async def assigning(targets: Sequence[agent_pb2.Target]) -> AsyncIterator[tuple[Assigner, str]]:
    """A coordinator's stand-in and where it is reached."""
    assigner = Assigner(targets)
    server = links.server()
    add_AgentsServicer_to_server(assigner, server)  # type: ignore[no-untyped-call]
    port = links.listen(server, "127.0.0.1:0", links.Tls(), insecure=True)
    await server.start()
    try:
        yield assigner, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@contextlib.contextmanager
def agent(coordinator: str, *, uvloop: bool, before: Sequence[str] = ()) -> Iterator[int]:
    """A running `gtm agent` on core 0, started by `before`; gives its process id."""
    without = "" if uvloop else "sys.modules['uvloop'] = None; "
    code = f"import sys; {without}from ctl.main import main; sys.exit(main())"
    command = [*pin(True), *before, sys.executable, "-c", code, "agent", "--region", "bench"]
    flags = ["--id", "bench", "--coordinators", coordinator, "--http", "127.0.0.1:0", "--insecure"]
    with subprocess.Popen([*command, *flags, "--log-level", "WARNING"], cwd=ROOT) as process:
        try:
            yield process.pid
        finally:
            process.terminate()
