"""Queries per CPU second of the Python resolver, beside dnslib's own server giving the same answer.

Run `python benchmarks/bench_responder.py`. Both servers get core 0, the load generator the last
core; they take turns, and only servers' CPU time (from /proc, so Linux) is counted. Ratios are
taken pair by pair, because absolute figures move with the machine. The target is 3.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import select
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
NAME, ADDRESS, TTL_S = "www.gtm.test", "192.0.2.1", 60
TARGET = 3.0
SERVERS = ("resolver", "resolver+uvloop", "dnslib")


def query(name: str, subnet: bytes = b"") -> bytes:
    """An A query with id 0, with a client subnet where one is given (3 octets, /24)."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    head = bytes([0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1 if subnet else 0])
    opt = b""
    if subnet:
        option = b"\0\x08\0\x07\0\x01\x18\0" + subnet
        opt = b"\0\0\x29\x04\xd0\0\0\0\0" + len(option).to_bytes(2, "big") + option
    return head + labels + b"\0\0\x01\0\x01" + opt


# The servers, each in a process of its own.


async def serve_resolver(port: int) -> None:
    """The whole resolver, its store in memory: one fixed name, and one that location steers."""
    sys.path.insert(0, str(ROOT))
    from gtm import codec, keys
    from gtm.memory import MemoryStore
    from gtm.model import Instance, Rule, Tier
    from gtm.state import Member, PoolState, StoredZone
    from gtm.store import Put
    from gtm.units import Duration
    from resolver.part import serve
    from resolver.settings import Settings

    def pool(*addresses: str) -> bytes:
        members = tuple(Member(value=one, answered=True, counted=True) for one in addresses)
        return codec.encode(PoolState(type="ipv4", members=members))

    def instance(number: int, name: str, *rules: Rule) -> Put:
        made = Instance(
            id=f"gtm{number:08d}",
            zone="gtm.test",
            access_names=(name,),
            ttl=Duration(TTL_S * 1000),
            rules=rules,
        )
        return Put(keys.config("instances", name), codec.encode(made))

    def rule(name: str, line: str, pool: str) -> Rule:
        return Rule(name=name, lines=(line,), tiers=(Tier(pools=(pool,)),))

    store = MemoryStore()
    zone = StoredZone(nameservers=("ns1.gtm.test",))
    china, world = rule("china", "country:CN", "b"), rule("world", "default", "a")
    ops = [
        Put(keys.config("zones", "gtm.test"), codec.encode(zone)),
        Put(keys.pool("a"), pool(ADDRESS)),
        Put(keys.pool("b"), pool("192.0.2.2", "192.0.2.3", "192.0.2.4")),
        instance(1, NAME, world),
        instance(2, "geo.gtm.test", china, world),
    ]
    await store.txn((), ops)
    with TemporaryDirectory() as folder:
        settings = Settings(
            listen=(f"127.0.0.1:{port}",), http="127.0.0.1:0", data_dir=folder, coordinators=()
        )
        await serve(settings, store, asyncio.Event())


def serve_dnslib(port: int) -> None:
    """dnslib's own server with the same answer, its log switched off."""
    from dnslib import QTYPE, RR, A, DNSRecord
    from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

    answer = RR(NAME, QTYPE.A, rdata=A(ADDRESS), ttl=TTL_S)

    class Fixed(BaseResolver):  # type: ignore[misc]
        def resolve(self, request: DNSRecord, handler: DNSHandler) -> DNSRecord:
            reply = request.reply(ra=0, aa=1)
            reply.add_answer(answer)
            return reply

    silent = DNSLogger("-request,-reply,-truncated,-error,-recv,-send,-data")
    DNSServer(Fixed(), address="127.0.0.1", port=port, logger=silent).start()


def serve_one(kind: str, port: int) -> None:
    """Be the server of `kind`, pinned to the first core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if kind == "dnslib":
        serve_dnslib(port)
    elif kind == "resolver":
        asyncio.run(serve_resolver(port))
    else:
        import uvloop

        uvloop.run(serve_resolver(port))


# The load.


@contextlib.contextmanager
def running(kind: str) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A server of `kind` and a socket connected to it, once it answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, os.path.abspath(__file__), "--serve", kind, "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    try:
        sock.connect(("127.0.0.1", port))
        sock.settimeout(0.2)
        deadline = time.monotonic() + 20
        while True:
            try:
                sock.send(query(NAME))
                sock.recv(4096)
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server {kind} does not answer") from None
                time.sleep(0.05)
        yield process, sock
    finally:
        sock.close()
        process.kill()
        process.wait()


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def per_cpu_second(
    pid: int, sock: socket.socket, asked: bytes, seconds: float, window: int
) -> float:
    """Answered queries per CPU second of the server, `window` of them always under way."""
    sock.setblocking(False)
    while select.select([sock], [], [], 0.05)[0]:
        sock.recv(4096)
    before, end = cpu_s(pid), time.monotonic() + seconds
    answered, under_way, number = 0, 0, 0
    while time.monotonic() < end:
        while under_way < window:
            number = number + 1 & 0xFFFF
            with contextlib.suppress(OSError):
                sock.send(number.to_bytes(2, "big") + asked[2:])
            under_way += 1
        if not select.select([sock], [], [], 0.2)[0]:
            under_way = 0  # lost: begin the window anew
            continue
        with contextlib.suppress(BlockingIOError):
            while under_way:
                sock.recv(4096)
                answered += 1
                under_way -= 1
    return answered / (cpu_s(pid) - before)


def same_answer(sockets: dict[str, socket.socket]) -> None:
    """Raise SystemExit unless every server sends the same bytes."""
    replies = {}
    for kind, sock in sockets.items():
        sock.settimeout(1)
        sock.send(query(NAME))
        replies[kind] = sock.recv(4096)
    if len(set(replies.values())) != 1:
        raise SystemExit(f"the answers differ: {replies}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each server in each round")
    parser.add_argument("--window", type=int, default=64, help="queries under way at once")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve_one(args.serve, args.port)
        return
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kinds = [kind for kind in SERVERS if "uvloop" not in kind or has_uvloop()]
    with contextlib.ExitStack() as stack:
        servers = {kind: stack.enter_context(running(kind)) for kind in kinds}
        same_answer({kind: sock for kind, (_, sock) in servers.items()})
        runs = [(kind, kind, query(NAME)) for kind in kinds]
        runs.append(("resolver, geo + ECS", "resolver", query("geo.gtm.test", b"\x01\x02\x04")))
        rates: dict[str, list[float]] = {label: [] for label, _, _ in runs}
        for _ in range(args.rounds):
            for label, kind, asked in runs:
                process, sock = servers[kind]
                rates[label].append(
                    per_cpu_second(process.pid, sock, asked, args.seconds, args.window)
                )
    report(rates, args)


def has_uvloop() -> bool:
    """Whether uvloop is installed."""
    import importlib.util

    return importlib.util.find_spec("uvloop") is not None


def report(rates: dict[str, list[float]], args: argparse.Namespace) -> None:
    """Print medians, and ratios to dnslib taken round by round."""
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{args.rounds} interleaved rounds of {args.seconds:g} s, {args.window} queries under way"
    )
    width = min(shutil.get_terminal_size().columns, 24)
    print(f"{'server':<{width}} {'queries/CPU s':>14} {'us/query':>9} {'of dnslib':>10}")
    ratio = 0.0
    for label, measured in rates.items():
        pairs = [ours / theirs for ours, theirs in zip(measured, rates["dnslib"], strict=True)]
        middle = statistics.median(measured)
        print(
            f"{label:<{width}} {middle:>14,.0f} {1e6 / middle:>9.1f} "
            f"{statistics.median(pairs):>9.2f}x"
        )
        ratio = statistics.median(pairs) if label == "resolver" else ratio
    verdict = "met" if ratio >= TARGET else "missed"
    print(f"target: resolver at least {TARGET:g}x of dnslib's server: {verdict}")


if __name__ == "__main__":
    main()
