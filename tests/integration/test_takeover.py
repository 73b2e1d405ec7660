"""A resolver takes over from another of its id: no query lost, none wrong, nobody else let in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ctl.digs import free_port
from gtm.errors import StartError
from gtm.etcd import EtcdStore
from gtm.memory import MemoryStore
from gtm.store import Store
from gtm.units import Duration
from resolver import part, takeover
from resolver.part import serve
from resolver.settings import Settings
from resolver.snapshot import load as load_snapshot
from resolver.takeover import Ask, Link, Message, Sockets
from tests.geo_files import placed
from tests.load import asked
from tests.takeovers import (
    FAR,
    FIX,
    MANY,
    MODES,
    RATE,
    Comers,
    Line,
    Pipeline,
    address_of,
    asked_enough,
    configuration,
    ids,
    many,
    picture,
    pool,
)

pytestmark = pytest.mark.integration

NAMES = 100_000
PIPELINED = 40
SOON_S = 20.0


async def soon(holds: Callable[[], object]) -> None:
    """Back when `holds()` is true."""
    async with asyncio.timeout(SOON_S):
        while not holds():
            await asyncio.sleep(0.005)


# ---- processes, a real etcd, load ----------------------------------------------------------------


@pytest.fixture
def endpoint(start_etcd: Callable[..., Any]) -> str:
    return str(start_etcd().endpoint)


@pytest.fixture
async def store(endpoint: str, opened: Callable[..., EtcdStore]) -> EtcdStore:
    made = opened(endpoint)
    await made.txn((), configuration())
    return made


@pytest.fixture
def line(tmp_path: Path, store: EtcdStore, endpoint: str) -> Iterator[Line]:
    geo = tmp_path / "geo.mmdb"
    placed(geo, "DE")
    flags = (f"--geo={geo}", "--geo-reload=50ms", "--drain=5s")
    made = Line(tmp_path, endpoint, free_port(), free_port(), *flags)
    yield made
    made.stop()


async def test_resolvers_follow_each_other_under_load_and_no_query_is_lost(line: Line) -> None:
    await line.started(MODES[0])
    with line.load(picture()) as load, Comers(line.port) as comers:
        for mode in MODES[1:]:
            pipeline = Pipeline(line.port)
            pipeline.ask(PIPELINED)
            await asked_enough(load, 1_000)
            taking = asyncio.ensure_future(line.replaced(mode))
            while not taking.done():
                pipeline.ask(1)
                await asyncio.sleep(0.02)
                if "relieved" in line.events()[-3:]:
                    break
            pipeline.ask(PIPELINED)
            got = ids(await asyncio.to_thread(pipeline.answers))
            assert got == list(range(1, pipeline.asked + 1))
            pipeline.close()
            assert await taking == 0
        await asked_enough(load, 1_000)
    counts = load.counts()
    assert (counts.unanswered, counts.wrong) == (0, 0), (counts, load.told, line.text())
    assert counts.answered == counts.asked
    assert comers.failures == []
    assert comers.answered > 100
    assert len(line.told("left")) == len(line.told("taken over")) == len(MODES) - 1
    assert all(int(str(row["queries"])) > 0 for row in line.told("left"))


async def test_a_process_that_dies_before_it_serves_changes_nothing(
    line: Line, store: EtcdStore
) -> None:
    await line.started(MODES[0])
    assert line.process is not None
    first = line.process
    with line.load(picture()) as load:
        await asked_enough(load, 500)
        # It asks another store, which is silent: it holds the sockets and never serves.
        silent = socket.create_server(("127.0.0.1", 0))
        dying = line.start(MODES[0], "--takeover", f"--etcd=127.0.0.1:{silent.getsockname()[1]}")
        await soon(lambda: "taking over" in line.events())
        await asked_enough(load, 1_000)
        dying.kill()
        await soon(lambda: "the newer process ended before it served: going on" in line.events())
        await asked_enough(load, 1_000)
        assert first.poll() is None
        line.process = first
        assert await line.replaced(MODES[0]) == 0
        await asked_enough(load, 500)
        silent.close()
    counts = load.counts()
    assert (counts.unanswered, counts.wrong) == (0, 0), (counts, load.told, line.text())


async def test_changes_many_names_and_a_geo_file_lose_no_query(
    line: Line, store: EtcdStore, tmp_path: Path
) -> None:
    await line.started(MODES[0])
    last = f"n{NAMES - 1}.{MANY} A"
    # The reference shares one interpreter with the compiler: it has time for fewer.
    rate = RATE if MODES[0] != "off" else RATE / 10
    with line.load(picture(**{last: "REFUSED"}), rate) as load:
        await asked_enough(load, 500)
        load.turning(picture("192.0.2.2", **{last: "REFUSED"}))
        await store.txn((), [pool("near", "192.0.2.2")])
        assert await asyncio.to_thread(load.arrives, SOON_S) is not None

        zone = await many(store, NAMES)
        there = {last: f"NOERROR {address_of(NAMES - 1)}"}
        load.turning(picture("192.0.2.2", **there))
        await store.txn((), [zone])
        assert await asyncio.to_thread(load.arrives, 4 * SOON_S) is not None, line.text()

        load.turning(picture(FAR, **there))
        placed(tmp_path / "geo.mmdb", "FR")
        assert await asyncio.to_thread(load.arrives, SOON_S) is not None, line.text()

        assert await line.replaced(MODES[0]) == 0
        await asked_enough(load, 1_000)
    counts = load.counts()
    assert (counts.unanswered, counts.wrong) == (0, 0), (counts, load.told, line.text())


async def test_a_signal_has_a_resolver_replaced_by_its_own_command_and_tells_the_manager(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the systemd unit does: READY=1 at first, then MAINPID= of who has taken over."""
    monkeypatch.chdir(tmp_path)
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind("notify")
    manager.settimeout(SOON_S)
    line.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    await line.started(MODES[0])
    assert manager.recv(100) == b"READY=1"
    assert line.process is not None
    line.process.send_signal(part.REPLACE)
    await soon(lambda: "taken over" in line.events())
    [row] = line.told("replacement started")
    assert await asyncio.to_thread(manager.recv, 100) == f"MAINPID={row['pid']}".encode()
    assert await asyncio.to_thread(line.process.wait, SOON_S) == 0
    await soon(lambda: line.events().count("ready") == 2)
    os.kill(int(str(row["pid"])), 15)
    await soon(lambda: "stopping" in line.events())


async def test_another_user_is_refused(line: Line, tmp_path: Path) -> None:
    await line.started(MODES[0])
    path = tmp_path / "data" / "r1.takeover"
    assert path.stat().st_mode & 0o777 == 0o600
    if os.geteuid():
        return  # only root can be somebody else
    path.chmod(0o666)
    ask = (
        "import os, socket; os.setuid(65534);"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
        """s.connect("r1.takeover"); s.send(b'{"type":"ask","protocol":1,"version":""}');"""
        "print(socket.recv_fds(s, 1000, 10)[:2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=path.parent, capture_output=True, text=True,
        timeout=SOON_S, check=True,
    )  # fmt: skip
    assert "user 65534 is neither ours (0) nor root" in done.stdout
    assert done.stdout.rstrip().endswith("[])")


# ---- one process, a store in memory --------------------------------------------------------------


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    await store.txn((), configuration())
    yield store
    await store.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        id="r1",
        listen=(f"127.0.0.1:{free_port()}",),
        http="127.0.0.1:0",
        coordinators=(),
        data_dir=str(tmp_path),
        takeover=True,
    )


class Running:
    """A resolver in this process."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.stop = asyncio.Event()
        self.task = asyncio.ensure_future(serve(settings, store, self.stop))

    async def end(self) -> None:
        self.stop.set()
        with contextlib.suppress(StartError):
            await asyncio.wait_for(self.task, SOON_S)


@pytest.fixture
async def start() -> AsyncIterator[Callable[[Settings, Store], Running]]:
    runs: list[Running] = []

    def begin(settings: Settings, store: Store) -> Running:
        runs.append(Running(settings, store))
        return runs[-1]

    yield begin
    for one in runs:
        await one.end()


Start = Callable[[Settings, Store], Running]


def path_of(settings: Settings) -> Path:
    return Path(settings.data_dir) / "r1.takeover"


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    records = [one for one in caplog.records if one.getMessage() == event]
    return [vars(one)["fields"] for one in records]


async def ready(caplog: pytest.LogCaptureFixture, count: int = 1) -> None:
    await soon(lambda: len(told(caplog, "ready")) >= count)


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "resolver")


async def talk(path: Path, *messages: Message) -> list[Message | None]:
    """Say something to the resolver at `path`; the answer to each."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(str(path))
    link, fds = Link(sock), list[int]()
    answers = []
    for message in messages:
        await link.send(message)
        answers.append(await link.receive(fds))
    for fd in fds:
        os.close(fd)
    link.close()
    return answers


async def query(address: str, question: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((host, int(port)))
        sock.send(question)
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 4096), 2)


async def test_a_takeover_where_nobody_runs_is_an_ordinary_start(
    settings: Settings, memory: MemoryStore, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    first = start(settings, memory)
    await ready(caplog)
    assert len(told(caplog, "no resolver to take over from: an ordinary start")) == 1
    await first.end()
    assert not path_of(settings).exists()


async def test_what_a_killed_resolver_left_behind_is_nobody(
    settings: Settings, memory: MemoryStore, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(path_of(settings)))
    start(settings, memory)
    await ready(caplog)
    assert len(told(caplog, "no resolver to take over from: an ordinary start")) == 1


async def test_without_a_data_folder_there_is_no_takeover(
    settings: Settings, memory: MemoryStore
) -> None:
    with pytest.raises(StartError, match="--takeover needs --data-dir"):
        await serve(replace(settings, data_dir=""), memory, asyncio.Event())


async def test_an_address_that_both_have_is_taken_a_new_one_opened_the_rest_closed(
    settings: Settings, memory: MemoryStore, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    kept, former, fresh = (f"127.0.0.1:{free_port()}" for _ in range(3))
    first = start(replace(settings, listen=(kept, former)), memory)
    await ready(caplog)
    start(replace(settings, listen=(fresh, kept)), memory)
    await ready(caplog, 2)
    await first.task
    assert told(caplog, "ready")[1]["dns"] == f"{fresh} {kept}"
    assert former in told(caplog, "taken over")[0]["given_up"].split()
    for address in (fresh, kept):
        assert (await query(address, _fix()))[7] == 1
    with pytest.raises((ConnectionRefusedError, TimeoutError)):
        await query(former, _fix())


def _fix() -> bytes:
    return asked(FIX)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
async def test_the_number_of_workers_may_change_and_no_socket_is_left_unread(
    settings: Settings,
    memory: MemoryStore,
    start: Start,
    caplog: pytest.LogCaptureFixture,
    before: int,
    after: int,
) -> None:
    first = start(replace(settings, workers=before), memory)
    await ready(caplog)
    start(replace(settings, workers=after), memory)
    await ready(caplog, 2)
    await first.task
    for _ in range(60):  # each from a port of its own: every socket is chosen, nearly surely
        assert (await query(settings.listen[0], _fix()))[7] == 1


async def test_a_data_folder_may_have_a_longer_path_than_a_unix_socket(
    settings: Settings, memory: MemoryStore, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(settings, data_dir=f"{settings.data_dir}/{'deep/' * 30}")
    first = start(settings, memory)
    await ready(caplog)
    start(settings, memory)
    await ready(caplog, 2)
    await first.task
    assert len(told(caplog, "taken over")) == 1


async def test_only_one_takes_over_at_a_time(
    settings: Settings, memory: MemoryStore, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    first = start(settings, memory)
    await ready(caplog)
    silent = MemoryStore()
    silent.cut()
    waiting = start(settings, silent)
    await soon(lambda: told(caplog, "taking over"))
    late = start(settings, memory)
    with pytest.raises(StartError, match=f"process {os.getpid()} is taking over already"):
        await late.task
    await waiting.end()
    await soon(lambda: told(caplog, "the newer process ended before it served: going on"))
    start(settings, memory)
    await ready(caplog, 2)
    await first.task


async def test_another_protocol_is_refused_by_either_side(
    settings: Settings,
    memory: MemoryStore,
    start: Start,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = start(settings, memory)
    await ready(caplog)
    with monkeypatch.context() as patch:
        patch.setattr(takeover, "PROTOCOL", 2)
        with pytest.raises(StartError, match="hand over by protocol 1, and it asks by 2"):
            await start(settings, memory).task
    assert not first.task.done()
    assert (await query(settings.listen[0], _fix()))[7] == 1


@pytest.mark.parametrize("said", [b"{}", b"\xff", b'{"type":"serving"}', b'{"type":"ask"}'])
async def test_whoever_talks_nonsense_is_let_go(
    settings: Settings,
    memory: MemoryStore,
    start: Start,
    caplog: pytest.LogCaptureFixture,
    said: bytes,
) -> None:
    start(settings, memory)
    await ready(caplog)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.setblocking(False)
        sock.connect(str(path_of(settings)))
        sock.send(said)
        assert await asyncio.get_running_loop().sock_recv(sock, 100) == b""
    assert len(told(caplog, "takeover broken off")) == 1
    [answer] = await talk(path_of(settings), Ask(takeover.PROTOCOL, "0"))
    assert isinstance(answer, Sockets)
    assert answer.last
    assert set(answer.kinds) == {"udp", "tcp", "http"}


async def test_a_newer_process_that_does_not_reach_the_formers_revision_waits(
    settings: Settings,
    memory: MemoryStore,
    start: Start,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers never go back in time: an old snapshot is not served while the former one knows."""
    monkeypatch.setattr(part, "BESIDE_S", 0.1)
    first = start(settings, memory)
    await ready(caplog)
    snapshot = Path(settings.data_dir) / "r1.snapshot"
    await soon(snapshot.exists)
    old = snapshot.read_bytes()
    await memory.txn((), [pool("near", "192.0.2.3")])
    before = load_snapshot(snapshot)
    assert before is not None

    def written() -> bool:
        got = load_snapshot(snapshot)
        return got is not None and got.listing.revision > before.listing.revision

    await soon(written)
    fresh = snapshot.read_bytes()
    snapshot.write_bytes(old)
    cut = memory.client()
    cut.cut()
    waiting = start(settings, cut)
    event = "no table as new as the former resolver's: it goes on"
    await soon(lambda: told(caplog, event))
    assert not first.task.done()
    await waiting.end()
    snapshot.write_bytes(fresh)
    start(settings, cut)
    await ready(caplog, 2)
    await first.task
    cut.mend()


async def test_a_connection_that_never_ends_is_ended_when_the_drain_is_over(
    settings: Settings, memory: MemoryStore, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(settings, drain=Duration(300))
    first = start(settings, memory)
    await ready(caplog)
    pipeline = await asyncio.to_thread(Pipeline, int(settings.listen[0].rpartition(":")[2]))
    pipeline.ask(3)
    assert ids(await asyncio.to_thread(pipeline.answers)) == [1, 2, 3]
    start(settings, memory)
    await ready(caplog, 2)
    assert not first.task.done()
    assert await asyncio.to_thread(pipeline.ended)
    pipeline.close()
    await first.task
    assert told(caplog, "relieved")[0]["connections"] == 1


async def test_a_former_resolver_that_is_told_to_stop_meanwhile_leaves_its_sockets(
    settings: Settings, memory: MemoryStore, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    first = start(settings, memory)
    await ready(caplog)
    other = MemoryStore()
    await other.txn((), configuration())
    other.cut()
    start(settings, other)
    await soon(lambda: told(caplog, "taking over"))
    await first.end()
    waiting = asyncio.ensure_future(query(settings.listen[0], _fix()))
    await asyncio.sleep(0)
    other.mend()
    assert (await waiting)[7] == 1
