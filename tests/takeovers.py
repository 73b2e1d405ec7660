"""Resolvers as processes that take over from each other, beside a real etcd and under load.

`Line` is one resolver after another, of one id and one address; `load` asks it from several
sockets, so that every socket of it that shares the address is asked.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from ctl.digs import poll
from gtm import codec, keys
from gtm.choices import PoolRef
from gtm.model import Instance, Record, Rule, Tier
from gtm.state import Bucket, Member, PoolState, StoredZone
from gtm.store import Put, Store
from resolver.loader import native
from tests.load import Load, Picture, asked

ZONE, MANY = "gtm-000.test", "many.test"
NAME, FIX, LACKING = f"gtm12345678.{ZONE} A", f"fix.{ZONE} A", f"none.{ZONE} A"
NEAR, FAR, FIXED = "192.0.2.1", "192.0.2.9", "192.0.2.77"
SIDES = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
"""Addresses of one socket on the wildcard; each is asked from a socket of its own."""
IN_BUCKET = 500
"""Names in one key of the store."""
AT_ONCE = 20
"""Keys in one transaction."""
WAIT_S = 60.0
RATE = 5_000.0
"""Questions a second."""
MODES = ("", "off", "off", "") if native() is not None else ("off", "off", "off", "off")
"""GTM_NATIVE of one process after the other: every pair of responders where both are there."""


def pool(name: str, address: str) -> Put:
    """A pool of one address."""
    member = Member(value=address, answered=True, counted=True)
    return Put(keys.pool(name), codec.encode(PoolState(type="ipv4", members=(member,))))


def configuration() -> list[Put]:
    """One instance, whose French clients go to another pool, and one static name."""
    rules = tuple(
        Rule(name=line[-2:].lower(), lines=(line,), tiers=(Tier(pools=(PoolRef(pool=name),)),))
        for line, name in (("country:FR", "far"), ("default", "near"))
    )
    shop = Instance(id="gtm12345678", zone=ZONE, rules=rules)
    static = Bucket(records=(Record(name="fix", type="A", data=(FIXED,)),))
    zone = StoredZone(nameservers=(f"ns1.{ZONE}",))
    return [
        pool("near", NEAR),
        pool("far", FAR),
        Put(keys.config("zones", ZONE), codec.encode(zone)),
        Put(keys.records(ZONE, "-"), codec.encode(static)),
        Put(keys.config("instances", "shop"), codec.encode(shop)),
    ]


def picture(address: str = NEAR, **more: str) -> dict[str, str]:
    """What is answered while the instance answers `address`."""
    return {NAME: f"NOERROR {address}", FIX: f"NOERROR {FIXED}", LACKING: "NXDOMAIN", **more}


async def many(store: Store, count: int) -> Put:
    """Write `count` names; the zone that brings them into force is left to the caller."""
    puts: list[Put] = []
    for start in range(0, count, IN_BUCKET):
        numbers = range(start, min(count, start + IN_BUCKET))
        rows = tuple(Record(name=f"n{n}", type="A", data=(address_of(n),)) for n in numbers)
        puts.append(Put(keys.records(MANY, f"{start:08b}"), codec.encode(Bucket(records=rows))))
    for start in range(0, len(puts), AT_ONCE):
        await store.txn((), puts[start : start + AT_ONCE])
    return Put(keys.config("zones", MANY), codec.encode(StoredZone(nameservers=(f"ns1.{ZONE}",))))


def address_of(number: int) -> str:
    """The address of one of many names."""
    return f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


class Line:
    """One resolver after another; all logs go to one file."""

    def __init__(self, folder: Path, etcd: str, port: int, http: int, *more: str) -> None:
        self.port, self.folder = port, folder
        self.environ: dict[str, str] = {}
        """Further variables of those that are started."""
        self.process: subprocess.Popen[bytes] | None = None
        self.former: list[subprocess.Popen[bytes]] = []
        self._log = folder / "resolvers.log"
        self._command = [
            sys.executable, "-m", "ctl", "resolver", "--id=r1", f"--listen=0.0.0.0:{port}",
            f"--http=127.0.0.1:{http}", f"--etcd={etcd}", "--coordinators=",
            f"--data-dir={folder / 'data'}", "--first-list=30s", *more,
        ]  # fmt: skip

    def start(self, mode: str, *more: str) -> subprocess.Popen[bytes]:
        """Start another, which is the current one from then on."""
        environ = {key: text for key, text in os.environ.items() if not key.startswith("GTM_")}
        environ |= self.environ
        if mode:
            environ["GTM_NATIVE"] = mode
        if self.process is not None:
            self.former.append(self.process)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command, *more], env=environ, stderr=log, stdin=subprocess.DEVNULL
            )
        return self.process

    async def started(self, mode: str, *more: str) -> None:
        """Start one, and wait until it is ready."""
        before = self.events().count("ready")
        process = self.start(mode, *more)
        end = time.monotonic() + WAIT_S
        while self.events().count("ready") == before:
            assert process.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            await asyncio.sleep(0.02)

    async def replaced(self, mode: str) -> int:
        """Have another take over; the status with which the former one ended."""
        former = self.process
        await self.started(mode, "--takeover")
        assert former is not None
        return await asyncio.to_thread(former.wait, WAIT_S)

    def stop(self) -> None:
        """End the current one, and whatever is left of the former ones."""
        for process in (*self.former, *((self.process,) if self.process else ())):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(WAIT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def text(self) -> str:
        """Everything that they logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def told(self, event: str) -> list[dict[str, object]]:
        """The lines of one event."""
        lines = [line for line in self.text().splitlines() if line.startswith("{")]
        rows = [msgspec.json.decode(line, type=dict[str, object]) for line in lines]
        return [row for row in rows if row.get("event") == event]

    def events(self) -> list[str]:
        """What happened, in order."""
        lines = [line for line in self.text().splitlines() if line.startswith("{")]
        return [str(msgspec.json.decode(line)["event"]) for line in lines]

    def load(self, allowed: Picture, rate: float = RATE) -> Load:
        """Questions at `rate` a second in all, from as many sockets as there are sides."""
        servers = [f"{side}:{self.port}" for side in SIDES]
        return Load(servers, allowed, rate=rate / len(servers))


class Pipeline:
    """One TCP connection with many queries under way."""

    def __init__(self, port: int, questions: Sequence[str] = (NAME, FIX)) -> None:
        self._sock = socket.create_connection((SIDES[0], port), timeout=10)
        self._queries = [asked(one) for one in questions]
        self.asked = 0

    def ask(self, count: int) -> None:
        """Send `count` queries, one after the other."""
        for _ in range(count):
            query = self._queries[self.asked % len(self._queries)]
            self.asked += 1
            message = self.asked.to_bytes(2, "big") + query[2:]
            self._sock.sendall(len(message).to_bytes(2, "big") + message)

    def answers(self) -> list[bytes]:
        """Wait for the answers to all, in order."""
        return [self._one() for _ in range(self.asked)]

    def ended(self) -> bool:
        """Wait for the server's end of it."""
        return self._sock.recv(1) == b""

    def close(self) -> None:
        """End it."""
        self._sock.close()

    def _one(self) -> bytes:
        return self._read(int.from_bytes(self._read(2), "big"))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._sock.recv(size - len(data))
            assert more, "the connection ended before its answers"
            data += more
        return data


class Comers:
    """`with Comers(port) as comers:` one TCP connection after the other, each for one query."""

    def __init__(self, port: int) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._port, self._ends = port, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Comers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                one = Pipeline(self._port)
                try:
                    one.ask(1)
                    assert ids(one.answers()) == [1]
                finally:
                    one.close()
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            else:
                self.answered += 1
            self._ends.wait(0.002)


def ids(replies: Iterable[bytes]) -> list[int]:
    """Which queries were answered, and that none of them failed."""
    found = list(replies)
    assert all(reply[3] & 15 == 0 and reply[7] == 1 for reply in found)
    return [int.from_bytes(reply[:2], "big") for reply in found]


async def asked_enough(load: Load, count: int) -> None:
    """Wait until `count` more queries were answered."""
    wanted = load.counts().answered + count
    assert (
        await asyncio.to_thread(poll, lambda: load.counts().answered >= wanted, WAIT_S) is not None
    )
