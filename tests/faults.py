"""What fault runs are made of: a small world with known right answers, parts one by one, a relay.

The world holds two pools with origins and one without, so that every kind of wrong answer can show:
an address that comes back or goes without cause, a backup that is taken for nothing, one that is
not taken. `picture` is the plain truth about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from ctl import show
from ctl.client import Client
from ctl.digs import in_order, poll
from ctl.supervised import PARENT
from gtm.embedded import arguments, command, environment, find_etcd, healthy
from gtm.errors import GtmError
from gtm.settings import unset
from gtm.v1 import operator_pb2

from .load import Counts, Load, Picture

ZONE = "gtm.test"
A = ("127.23.1.1", "127.23.1.2", "127.23.1.3")
B = ("127.23.2.1", "127.23.2.2")
DEAD = "127.23.3.1"
"""No origin is ever there."""
REGIONS = ("r1", "r2", "r3")
NEAR, FAR, BACKED = (f"gtm0000000{number}.{ZONE} A" for number in (1, 2, 3))
DISK_FILES = 256
DISK = f"size=1m,nr_inodes={DISK_FILES}"
"""A disk that is soon full."""
SOON_S = 40.0
"""For what must come true at all."""


def configuration(port: int) -> dict[str, Any]:
    """The resources of the world; origins listen on `port`.

    One region that sees an address of pool a down turns it down, and all must for one of pool b:
    so a single vote of another opinion, old or lost, shows in the answers.
    """

    def check(share: str) -> dict[str, Any]:
        every = {"interval": "1s", "timeout": "500ms", "fall": 2, "rise": 2}
        return {"type": "http", "port": port, "failing_share": share, **every}

    def pool(name: str, *values: str) -> dict[str, Any]:
        return {"type": "ipv4", "checks": [name], "addresses": [{"value": one} for one in values]}

    def instance(number: int, first: str, second: str) -> dict[str, Any]:
        tiers = [{"pools": [first]}, {"pools": [second]}]
        rules = [{"name": "all", "lines": ["default"], "tiers": tiers}]
        return {"id": f"gtm0000000{number}", "zone": ZONE, "ttl": "30s", "rules": rules}

    static = {"name": "ns1", "type": "A", "data": ["127.0.0.1"]}
    return {
        "zones": {ZONE: {"nameservers": [f"ns1.{ZONE}"], "records": [static]}},
        "regions": {name: {} for name in REGIONS},
        "checks": {"any": check("33%"), "every": check("100%")},
        "pools": {"a": pool("any", *A), "b": pool("every", *B), "c": pool("any", DEAD)},
        "instances": {
            "near": instance(1, "a", "b"),
            "far": instance(2, "b", "a"),
            "backed": instance(3, "c", "b"),
        },
    }


def picture(*down: str) -> Picture:
    """What is right while exactly these origins are down; one of pool b at least is up."""
    a, b = (" ".join(in_order({*pool} - {*down})) for pool in (A, B))
    assert b
    return {
        NEAR: f"NOERROR {a or b}",
        FAR: f"NOERROR {b}",
        BACKED: f"NOERROR {b}",
        f"ns1.{ZONE} A": "NOERROR 127.0.0.1",
        f"nobody.{ZONE} A": "NXDOMAIN",
    }


NOT_READY: Picture = dict.fromkeys(picture(), "SERVFAIL")
"""What a resolver with neither etcd nor snapshot says to everything."""


# ---- the table -----------------------------------------------------------------------------------


class Row(Struct, frozen=True):
    """One fault: what came of the queries, and seconds until all was as if it had not been."""

    fault: str
    counts: Counts
    recovered_s: float
    note: str = ""


class Report:
    """The rows of a run."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Keep a row."""
        self._rows.append(row)

    def __str__(self) -> str:
        wide = max((len(row.fault) for row in self._rows), default=5)
        head = f"{'fault':{wide}}{'queries':>9}{'wrong':>7}{'slow':>6}{'unanswered':>12}"
        lines = [f"{head}{'gap s':>8}{'recovered s':>13}"]
        total = Counts()
        for row in self._rows:
            total += row.counts
            lines.append(self._line(row.fault, row.counts, wide) + f"{row.recovered_s:>13.2f}")
            if row.note:
                lines[-1] += f"  {row.note}"
        return "\n".join([*lines, self._line("all", total, wide)])

    @staticmethod
    def _line(what: str, seen: Counts, wide: int) -> str:
        cells = f"{seen.asked:>9}{seen.wrong:>7}{seen.slow:>6}{seen.unanswered:>12}"
        return f"{what:{wide}}{cells}{seen.gap_s:>8.2f}"


# ---- asking the coordinator ----------------------------------------------------------------------


def status(server: str) -> operator_pb2.StatusResponse | None:
    """What a coordinator says of itself and the others; None where it does not answer."""

    async def told() -> operator_pb2.StatusResponse | None:
        async with Client(server) as client:
            try:
                return await client.status()
            except GtmError:
                return None

    return asyncio.run(told())


def votes(server: str, region: str) -> dict[str, str]:
    """Address -> the vote of `region`; nothing where the coordinator does not answer."""

    async def listed() -> dict[str, str]:
        from ctl.commands.health import vote_word

        async with Client(server) as client:
            try:
                verdicts = (await client.verdicts()).verdicts
            except GtmError:
                return {}
        return {
            verdict.address: vote_word(vote)
            for verdict in verdicts
            for vote in verdict.regions
            if vote.region == region
        }

    return asyncio.run(listed())


def metric(door: str, name: str) -> float:
    """A metric of the HTTP door HOST:PORT; 0 where that does not answer or has none of the name."""
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://{door}/metrics", timeout=5) as page,
    ):
        for line in page.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    return 0.0


def settled(server: str, resolvers: Collection[str], regions: Collection[str] = REGIONS) -> bool:
    """Whether a leader has etcd, every agent and vote, and resolvers that serve what it says."""
    told = status(server)
    if told is None or not told.leader_id or told.store.error:
        return False
    if told.pools_published < told.pools:
        return False
    agents = {agent.region for agent in told.agents if agent.connected}
    serving = {one.id for one in told.replicas if not one.stale and not one.lag}
    if not agents >= set(regions) or not serving >= set(resolvers):
        return False
    return all(
        (cast := votes(server, region)) and "none" not in cast.values() for region in regions
    )


# ---- parts, one by one ---------------------------------------------------------------------------


class Parts:
    """Parts and an etcd as processes of their own, each to be killed and started by itself.

    Every log is `folder/NAME.log`; all of them end with this process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._etcd: tuple[int, int] = (0, 0)
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._running):
            self.kill(name, signal.SIGKILL)

    def start(self, name: str, *words: str, wait: bool = True) -> None:
        """Start `gtm WORDS` in the clear as `name`; back when it says that it is ready."""
        environ = unset(os.environ)
        environ |= {PARENT: str(os.getpid()), "GTM_INSECURE": "1"}
        said = len(self.log(name))
        with self._log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", "ctl", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        if wait and not self.wait(name, lambda: "ready" in self.events(name, said)):
            raise AssertionError(f"{name} is not ready: {self.log(name)[said:]}")

    def start_etcd(self, client_port: int, peer_port: int, *, wait: bool = True) -> None:
        """Start an etcd, on the data that it has; back when it is healthy."""
        self._etcd = (client_port, peer_port)
        flags = arguments(self.folder / "etcd", client_port, peer_port)
        with self._log("etcd").open("ab") as log:
            self._running["etcd"] = subprocess.Popen(
                command(find_etcd(), flags), stderr=log, env=environment()
            )
        if wait and not self.wait("etcd", lambda: asyncio.run(healthy(client_port))):
            raise AssertionError(f"etcd is not healthy: {self.log('etcd')[-2000:]}")

    def mend(self, name: str, start: Callable[[], None]) -> None:
        """Let a part run on, or `start` it where it has ended."""
        if self._running[name].poll() is None:
            self.resume(name)
        else:
            start()

    def wait(self, name: str, holds: Callable[[], bool]) -> bool:
        """Wait for what a part is to do; False where it ends or is late."""
        process = self._running[name]
        poll(lambda: holds() or process.poll() is not None, SOON_S, 0.02)
        return holds()

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a part and wait for its end; nothing where it has ended."""
        process = self._running[name]
        process.send_signal(number)
        if number is not signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        process.wait(15)

    def pause(self, name: str) -> None:
        """Stop every thread of a part: its connections stand, nothing is answered."""
        self._running[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a part run on."""
        self._running[name].send_signal(signal.SIGCONT)

    def pid(self, name: str) -> int:
        """The process id of a part."""
        return self._running[name].pid

    def log(self, name: str) -> str:
        """What a part has said in all its lives."""
        with contextlib.suppress(FileNotFoundError):
            return self._log(name).read_text(errors="replace")
        return ""

    def events(self, name: str, since: int = 0) -> list[str]:
        """The events in its log from that character on."""
        found = []
        for line in self.log(name)[since:].splitlines():
            with contextlib.suppress(ValueError):
                found.append(str(json.loads(line).get("event", "")))
        return found

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def gtm(*words: str) -> str:
    """Run a client command on parts in the clear; what it prints. Fails where it does."""
    environ = unset(os.environ)
    environ["GTM_INSECURE"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "ctl", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env=environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(folder: Path, port: int) -> Path:
    """The configuration as a file."""
    path = folder / "world.yaml"
    path.write_text(show.as_yaml(configuration(port)) + "\n")
    return path


# ---- a relay that holds --------------------------------------------------------------------------


class Relay:
    """A TCP relay on a thread of its own: `hold` keeps every byte and every end back until `flow`.

    Nothing is lost: what was sent while it held arrives afterwards, late, in order, whether or not
    the sender is still there.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.held = 0
        """Bytes that were held back for a while."""
        self._target = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._flows = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Relay:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hold(self) -> None:
        """Keep back all that comes from now on."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def flow(self) -> None:
        """Hand on what was kept back, and all that comes."""
        self._loop.call_soon_threadsafe(self._flows.set)

    async def _open(self) -> None:
        self._flows.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._flows.wait()
            with contextlib.suppress(OSError):
                there = await asyncio.open_connection("127.0.0.1", self._target)
                await asyncio.gather(self._carry(reader, there[1]), self._carry(there[0], writer))
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self._flows.is_set():
                    self.held += len(data)
                    await self._flows.wait()
                writer.write(data)
                await writer.drain()
        await self._flows.wait()
        writer.close()


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """The disk under `folder`, a small one of its own, takes no byte and no file within."""
    filler = folder / "filler"
    filler.mkdir()
    try:
        with contextlib.suppress(OSError):
            for number in range(DISK_FILES):
                (filler / str(number)).touch()
        for piece in (4096, 1):
            with contextlib.suppress(OSError), (filler / "0").open("ab", 0) as file:
                while file.write(bytes(piece)):
                    pass
        yield
    finally:
        shutil.rmtree(filler)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """`folder` as a disk of `DISK`; False, and an ordinary folder, where we may not mount."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and not subprocess.run(mount, capture_output=True).returncode
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def row(fault: str, load: Load, recovered_s: float | None, note: str = "") -> Row:
    """The row of a fault; not recovered is told as inf."""
    return Row(fault, load.counts(), float("inf") if recovered_s is None else recovered_s, note)


def all_right(load: Load, recovered_s: float | None, unhurt: Collection[str]) -> None:
    """Fail where an answer was wrong, nothing recovered, or one of `unhurt` left one out."""
    assert load.counts().answered > 0
    assert load.counts().wrong == 0, load.told
    assert recovered_s is not None, "it did not recover"
    for server in unhurt:
        assert load.counts(server).unanswered == 0, (server, load.counts(server))


def now() -> float:
    """The monotonic clock."""
    return time.monotonic()
