"""The slowest answers while a million names are loaded again and again, and their cause.

Run `python benchmarks/bench_stall.py`. A resolver's responder serves over UDP with one worker; one
query at a time asks it, `--rate` a second at most. The time of an answer is from just before the
send to the kernel's time stamp of the answer, so that a delay of who asks is none of the server's.
Around each query the worker's `schedstat` and page faults are read: what an answer took is either
spent waiting for a processor, which other threads had, or the worker was held by something else: a
lock, the memory map, a fault. The phases are an idle server, hand-overs loaded (all of a table,
which frees the one before), tables compiled and handed over, and, to tell what mere sharing of the
processors does, `--burn` threads that spin in the same process.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dns.message  # noqa: E402

from gtm.model import Record  # noqa: E402
from gtm.state import StoredZone  # noqa: E402
from resolver.compiler import compile_table  # noqa: E402
from resolver.handover import Handover  # noqa: E402
from resolver.loader import native  # noqa: E402
from resolver.native import NativeResponder  # noqa: E402
from resolver.part import SWITCH_S  # noqa: E402
from resolver.place import Unplaced  # noqa: E402
from resolver.table import Serving  # noqa: E402
from tests.worlds import world  # noqa: E402

ZONE, BUCKET = "many.test", 500
TIMESTAMP = 35  # SO_TIMESTAMPNS
MOST_SENDING_NS = 100_000
"""A query whose sending took longer is left out, unless it was answered by then: who asks waited
for a processor, and nobody knows whether before or after the query went."""
PHASES = ("idle", "load", "compile", "burn")


class Asked(NamedTuple):
    """One query: what its answer took, waited for a processor, and cost in page faults."""

    took_ms: float
    waited_ms: float
    faults: int

    @property
    def held_ms(self) -> float:
        """What was neither spent waiting for a processor nor, but for microseconds, answering."""
        return max(0.0, self.took_ms - self.waited_ms)


def names(count: int) -> Iterator[tuple[str, tuple[Record, ...]]]:
    """`count` static names, in buckets as the store has them."""
    for start in range(0, count, BUCKET):
        rows = range(start, min(count, start + BUCKET))
        made = tuple(
            Record(name=f"n{n}", type="A", data=(f"198.{18 + (n >> 16)}.{n >> 8 & 255}.{n & 255}",))
            for n in rows
        )
        yield f"{start:08b}", made


def serve(count: int, burners: int) -> None:
    """Serve, and do what each line of standard input says until the next one."""
    sys.setswitchinterval(SWITCH_S)
    view = world(
        zones={ZONE: StoredZone(nameservers=("ns1.other.test",))},
        records={ZONE: dict(names(count))},
    )
    module = native()
    assert module is not None, "the native responder is not built"
    responder = NativeResponder(module, Serving())
    responder.put(compile_table(view, Unplaced()))
    responder.native.heard(time.monotonic())
    gc.collect()
    gc.freeze()
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    responder.door([sock]).open()
    message = Handover().message(compile_table(view, Unplaced()))

    def compiled() -> None:
        responder._handover.forget()
        responder.put(compile_table(view, Unplaced()))
        responder.native.sweep()

    spun = bytes(1 << 20)
    work: dict[str, Callable[[], object]] = {
        "load": lambda: responder.native.load(message),
        "compile": compiled,
        "burn": lambda: hashlib.sha256(spun).digest(),
    }
    print(sock.getsockname()[1], flush=True)
    done, ends, threads = [0], threading.Event(), list[threading.Thread]()

    def repeat(one: Callable[[], object], ends: threading.Event) -> None:
        while not ends.is_set():
            one()
            done[0] += 1

    for line in sys.stdin:
        ends.set()
        for thread in threads:
            thread.join()
        print(done[0], flush=True)
        done[0], ends, phase = 0, threading.Event(), line.strip()
        many = {"idle": 0, "burn": burners}.get(phase, 1)
        threads = [threading.Thread(target=repeat, args=(work[phase], ends)) for _ in range(many)]
        for thread in threads:
            thread.start()
    ends.set()


def worker_of(pid: int) -> Path:
    """The folder of the worker's thread below /proc."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return next(task for task in tasks if (task / "comm").read_text() == "dns-udp\n")


def ask(port: int, worker: Path, seconds: float, rate: float, count: int) -> list[Asked]:
    """What the answers of `seconds` took; AssertionError where one does not come in ten."""
    found, number = list[Asked](), 0
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        sched = stack.enter_context((worker / "schedstat").open("rb", buffering=0))
        stat = stack.enter_context((worker / "stat").open("rb", buffering=0))

        def standing() -> tuple[int, int]:
            sched.seek(0)
            stat.seek(0)
            fields = stat.read().rpartition(b")")[2].split()
            return int(sched.read().split()[1]), int(fields[7]) + int(fields[9])

        sock.setsockopt(socket.SOL_SOCKET, TIMESTAMP, 1)
        sock.settimeout(10.0)
        sock.connect(("127.0.0.1", port))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            number = (number * 48_271 + 1) % count
            query = dns.message.make_query(f"n{number}.{ZONE}", "A", id=number & 65535).to_wire()
            waited_ns, faults = standing()
            sent_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
            sock.send(query)
            sending_ns = time.clock_gettime_ns(time.CLOCK_REALTIME) - sent_ns
            reply, extra, _, _ = sock.recvmsg(4096, 64)
            assert (reply[:2], reply[7]) == (query[:2], 1), reply
            second, part = struct.unpack("qq", extra[0][2][:16])
            after_ns, after = standing()
            took_ns = second * 10**9 + part - sent_ns
            if sending_ns < MOST_SENDING_NS or took_ns < sending_ns:
                found.append(Asked(took_ns / 1e6, (after_ns - waited_ns) / 1e6, after - faults))
            time.sleep(1 / rate)
    return found


def show(phase: str, done: int, asked: list[Asked]) -> None:
    """One row."""
    by_time = sorted(one.took_ms for one in asked)
    slowest = max(asked)
    at = [by_time[int(len(by_time) * share)] for share in (0.5, 0.99, 0.999)]
    held = max(one.held_ms for one in asked)
    print(
        f"{phase:8} {done:7,} {len(asked):8,} {at[0]:8.3f} {at[1]:8.3f} {at[2]:8.3f}"
        f" {slowest.took_ms:9.2f} {slowest.waited_ms:9.2f} {held:9.2f}"
        f" {sum(one.faults for one in asked):7,}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=25.0, help="of each phase")
    parser.add_argument("--rate", type=float, default=1_000.0, help="queries a second at most")
    parser.add_argument("--burn", type=int, default=3, help="threads that spin in the last phase")
    parser.add_argument("--phases", default=",".join(PHASES))
    args = parser.parse_args()
    command = [sys.executable, str(Path(__file__).resolve()), "serve", str(args.names)]
    server = subprocess.Popen(
        [*command, str(args.burn)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    port = int(server.stdout.readline())
    print(
        f"{'phase':8} {'done':>7} {'answers':>8} {'p50 ms':>8} {'p99':>8} {'p99.9':>8}"
        f" {'slowest':>9} {'waiting':>9} {'held':>9} {'faults':>7}"
    )
    results = list[list[Asked]]()
    phases = args.phases.split(",")
    for number, phase in enumerate([*phases, "idle"]):
        server.stdin.write(f"{phase}\n")
        server.stdin.flush()
        done = int(server.stdout.readline())
        if number:
            show(phases[number - 1], done, results[-1])
        if number < len(phases):
            worker = worker_of(server.pid)
            results.append(ask(port, worker, args.seconds, args.rate, args.names))
    server.stdin.close()
    server.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
