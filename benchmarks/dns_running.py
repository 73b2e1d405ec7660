"""Servers and loads of `bench_dns` as processes: pinned, watched, and ended by their ids.

Knows where CPU time and memory of a process are read (Linux). Judges nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.dns_numbers import Load, read_dnsperf, read_load
from benchmarks.gdnsd_servers import ended


@dataclass
class Server:
    """A server that runs: its process, port, folder, and how long it took until it answered."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    ready_s: float
    log: Path
    http_port: int = 0

    def cpu_s(self) -> float:
        """CPU seconds of all threads of the process and its children so far."""
        return sum(thread_ns(pid) for pid in family(self.process.pid)) / 1e9

    def rss_bytes(self) -> int:
        """Resident memory of the process and its children."""
        total = 0
        for pid in family(self.process.pid):
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return total * os.sysconf("SC_PAGE_SIZE")


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, task.read_text().split())
    return found


def thread_ns(pid: int) -> int:
    """CPU nanoseconds of the threads of a process (Documentation/scheduler/sched-stats)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total


def others_part(seconds: float = 1.0) -> float:
    """The part of all cores that is not idle while we do nothing (proc(5), /proc/stat)."""

    def times() -> tuple[int, int]:
        row = [int(one) for one in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(row), row[3] + row[4]

    total, idle = times()
    time.sleep(seconds)
    later, idle_later = times()
    return 1 - (idle_later - idle) / max(1, later - total)


def ask(port: int, wire: bytes, timeout_s: float = 2.0) -> bytes | None:
    """The answer to a query; None where there is none in time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(("127.0.0.1", port))
        with contextlib.suppress(OSError):
            sock.send(wire)
            return sock.recv(4096)
    return None


@contextlib.contextmanager
def running(
    name: str,
    command: list[str],
    port: int,
    probe: bytes,
    within_s: float,
    log: Path,
    stdin: int | None = None,
) -> Iterator[Server]:
    """A server on the first core, once it answers `probe`; SystemExit where it does not in time."""
    pinned = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    begun = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(pinned, stdin=stdin, stdout=out, stderr=out, cwd=log.parent)
    try:
        while True:
            reply = ask(port, probe, 0.2)
            if reply is not None and reply[3] & 15 == 0 and reply[6:8] != b"\0\0":
                break
            if process.poll() is not None or time.monotonic() - begun > within_s:
                said = log.read_text(errors="replace")[-2000:]
                raise SystemExit(f"{name} does not answer:\n{said}")
            time.sleep(0.05)
        yield Server(name, process, port, time.monotonic() - begun, log)
    finally:
        ended(process, 15)


def _loaded(command: list[str]) -> str:
    """What a load generator prints that has the last core."""
    pinned = ["taskset", "-c", str(max(os.sched_getaffinity(0))), *command]
    done = subprocess.run(pinned, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr[-1000:]}")
    return done.stdout


def dnsperf(port: int, data: Path, seconds: float, window: int, clients: int) -> Load:
    """Have dnsperf ask the queries in `data`, `window` of them under way, from so many sockets."""
    command = ["dnsperf", "-B", "-d", str(data), "-s", "127.0.0.1", "-p", str(port)]
    command += ["-l", f"{seconds:g}", "-q", str(window), "-c", str(clients)]
    command += ["-b", "1024", "-t", "1"]
    return read_dnsperf(_loaded(command))


def own_load(tool: Path, mode: str, port: int, data: Path, seconds: float, amount: float) -> Load:
    """Have `dns_load.c` ask them: `amount` is the window, or the rate in queries a second."""
    return read_load(_loaded([str(tool), mode, str(port), str(data), str(seconds), str(amount)]))
