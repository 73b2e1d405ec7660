"""Faults by script, each under a steady load of queries whose every answer must be right.

`make faults` runs the long form and prints the table; FAULTS=long in the environment does the same.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.edns
import dns.message
import dns.query
import pytest

from ctl.digs import poll
from ctl.origins import Origins
from ctl.running import Running, free_ports
from gtm.embedded import find_etcd
from gtm.errors import StartError
from resolver import snapshot
from tests import faults
from tests.faults import NOT_READY, REGIONS, SOON_S, A, B, Parts, Relay, Report, now, picture
from tests.load import Load, asked

pytestmark = pytest.mark.integration

LONG = os.environ.get("FAULTS") == "long"
RATE = 250.0 if LONG else 150.0
"""Queries a second to each resolver."""
OUTAGE_S = 30.0 if LONG else 6.0
"""How long etcd is away: longer than its leases."""
RESTARTS = 20 if LONG else 4
CUT_S = 600.0 if LONG else 8.0
"""How long an agent is cut off: longer than the grace of its votes."""
QUIET_S = 5.0 if LONG else 1.0
"""How long is looked on after a recovery."""
PUBLISHED_S = 2.0 if LONG else 5.0
"""From etcd's return to the answers that say what was judged meanwhile; 2 s, where no other tests
run beside."""
STALE, NOT_READY_CODE = 3, 14
SICK = A[2]
"""Down from the beginning, and to stay out of every answer."""
USUAL = picture(SICK)
CHILDREN = ["coordinator", "agent-r1", "resolver-1", "etcd"]
CHILDREN += ["agent-r2", "agent-r3", "resolver-2"] if LONG else []


@pytest.fixture(scope="module")
def report() -> Iterator[Report]:
    report = Report()
    yield report
    print(f"\n{report}")


@pytest.fixture(scope="module")
def origins() -> Iterator[Origins]:
    with Origins((*A, *B)) as origins:
        origins.stop(SICK)
        yield origins


def has_etcd() -> None:
    try:
        find_etcd()
    except StartError as error:
        pytest.skip(str(error))


# ---- every child of `gtm up` ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def up(origins: Origins, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    has_etcd()
    folder = tmp_path_factory.mktemp("up")
    with Running(folder, config=faults.written(folder, origins.port)) as running:
        assert poll(lambda: whole(running), SOON_S, 0.1) is not None
        yield running


def whole(running: Running) -> bool:
    return faults.settled(running.server, ("resolver-1", "resolver-2"))


def pid_of(running: Running, child: str) -> int:
    if child != "etcd":
        return running.pid(child)
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == running.up_pid and (entry / "comm").read_text() == "etcd\n":
                return int(entry.name)
    return 0


@pytest.mark.parametrize("child", CHILDREN)
def test_a_killed_child_is_started_again_and_no_answer_is_wrong(
    up: Running, report: Report, child: str
) -> None:
    hurt = up.dns[int(child[-1]) - 1] if child.startswith("resolver") else ""
    with Load(up.dns, USUAL, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
        old, began = pid_of(up, child), now()
        os.kill(old, signal.SIGKILL)

        def back() -> bool:
            there = pid_of(up, child) not in (0, old) and whole(up)
            return there and (not hurt or load.heard(hurt) > began + 0.05)

        recovered_s = poll(back, SOON_S, 0.1)
        poll(lambda: False, QUIET_S)
    report.add(faults.row(f"kill -9 {child}", load, recovered_s))
    faults.all_right(load, recovered_s, [one for one in up.dns if one != hurt])


def test_after_all_of_it_answers_still_follow_their_origins(up: Running, origins: Origins) -> None:
    with Load(up.dns, USUAL, RATE) as load:
        load.turning(picture(A[0], SICK))
        origins.stop(A[0])
        assert load.arrives(SOON_S) is not None
        load.turning(USUAL)
        origins.start(A[0])
        followed_s = load.arrives(SOON_S)
    faults.all_right(load, followed_s, up.dns)


@pytest.mark.long  # CI has unit tests of the supervisor that say the same
def test_a_full_disk_under_gtm_up_keeps_no_child_from_its_next_life(
    world: World, origins: Origins, report: Report, tmp_path: Path
) -> None:
    with faults.small_disk(tmp_path / "up") as mounted:
        if not mounted:
            pytest.skip("a small disk must be mounted, and we may not")
        config = faults.written(tmp_path, origins.port)
        given = [f"--etcd=127.0.0.1:{world.ports.etcd[0]}"]
        running = Running(tmp_path / "up", config=config, more=given)
        with running, Load(running.dns, USUAL, RATE) as load:
            assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
            hurt, old = running.dns[0], running.pid("resolver-1")
            with faults.full(running.folder):
                began = now()
                os.kill(old, signal.SIGKILL)
                poll(lambda: now() > began + 0.1, 1.0)
                recovered_s = poll(lambda: load.heard(hurt) > began + 0.1, SOON_S, 0.1)
    report.add(faults.row("disk of gtm up full, kill -9 resolver-1", load, recovered_s))
    faults.all_right(load, recovered_s, [running.dns[1]])


# ---- parts one by one ----------------------------------------------------------------------------


class World:
    """Every part as a process of its own; region r3 reaches the coordinator through a relay."""

    def __init__(self, folder: Path, parts: Parts, origins: Origins) -> None:
        self.folder, self.parts, self.origins = folder, parts, origins
        self.ports = ports = free_ports(3, 2)
        self.dns = (ports.dns(0), ports.dns(1))
        self.relay = Relay(ports.base)
        self.disk = folder / "resolver-1"
        self.mounted = False

    def start(self) -> None:
        self.start_etcd()
        self.start_coordinator()
        faults.gtm(
            "--server", self.ports.grpc, "apply", "--yes",
            str(faults.written(self.folder, self.origins.port)),
        )  # fmt: skip
        for number, region in enumerate(REGIONS):
            self.parts.start(
                f"agent-{region}", "agent", f"--id=agent-{region}", f"--region={region}",
                f"--http={self.ports.agent(number)}",
                f"--coordinators={self.ports.grpc if number < 2 else self.relayed}",
                wait=False,
            )  # fmt: skip
        for number in (1, 2):
            self.start_resolver(number)
        assert poll(self.whole, SOON_S, 0.1) is not None

    @property
    def relayed(self) -> str:
        return f"127.0.0.1:{self.relay.port}"

    @property
    def etcd(self) -> str:
        return f"--etcd=127.0.0.1:{self.ports.etcd[0]}"

    def start_etcd(self, *, wait: bool = True) -> None:
        self.parts.start_etcd(*self.ports.etcd, wait=wait)

    def start_coordinator(self) -> None:
        self.parts.start(
            "coordinator", "coordinator", "--id=coordinator", self.etcd,
            f"--grpc={self.ports.grpc}", f"--http={self.ports.http}",
            f"--advertise={self.relayed}",
        )  # fmt: skip

    def start_resolver(self, number: int, *, wait: bool = True) -> None:
        self.parts.start(
            f"resolver-{number}", "resolver", f"--id=resolver-{number}", self.etcd,
            f"--listen={self.ports.dns(number - 1)}", f"--http={self.ports.resolver(number - 1)}",
            f"--coordinators={self.ports.grpc}", f"--data-dir={self.folder / f'resolver-{number}'}",
            wait=wait,
        )  # fmt: skip

    def whole(self) -> bool:
        return faults.settled(self.ports.grpc, ("resolver-1", "resolver-2"))

    @property
    def snapshot(self) -> Path:
        return self.disk / "resolver-1.snapshot"

    def extended(self) -> set[int]:
        """The extended errors with which the first resolver answers."""
        host, _, port = self.dns[0].rpartition(":")
        query = dns.message.from_wire(asked(faults.NEAR))
        reply = dns.query.udp(query, host, port=int(port), timeout=2)
        return {int(one.code) for one in reply.options if isinstance(one, dns.edns.EDEOption)}

    def metric(self, door: str, name: str) -> float:
        with urllib.request.urlopen(f"http://{door}/metrics", timeout=5) as page:
            for line in page.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise AssertionError(f"{door} has no {name}")


@pytest.fixture(scope="module")
def world(origins: Origins, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    has_etcd()
    folder = tmp_path_factory.mktemp("world")
    with Parts(folder) as parts:
        world = World(folder, parts, origins)
        with faults.small_disk(world.disk) as mounted, world.relay:
            world.mounted = mounted
            world.start()
            try:
                yield world
            finally:
                parts.__exit__()


@pytest.fixture(autouse=True)
def usual_again(request: pytest.FixtureRequest, origins: Origins) -> Iterator[None]:
    """A test that fails leaves the others a whole world."""
    yield
    if "world" not in request.fixturenames:
        return
    world: World = request.getfixturevalue("world")
    world.relay.flow()
    origins.start(*(one for one in (*A, *B) if one != SICK))
    world.parts.mend("etcd", world.start_etcd)
    world.parts.mend("coordinator", world.start_coordinator)
    for number in (1, 2):
        world.parts.mend(f"resolver-{number}", lambda number=number: world.start_resolver(number))
    assert poll(world.whole, SOON_S, 0.1) is not None
    with Load(world.dns, USUAL, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
    assert load.counts().wrong == 0, load.told


@pytest.mark.parametrize("end", ["runs on", "is killed"] if LONG else ["is killed"])
def test_while_etcd_is_away_answers_stand_and_what_was_judged_follows_its_return(
    world: World, report: Report, end: str
) -> None:
    later = picture(A[0], SICK)
    with Load(world.dns, USUAL, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
        world.parts.pause("etcd")
        gone = now()
        world.origins.stop(A[0], B[0])  # the one for good, the other until before the return
        judged = poll(lambda: is_down(world, A[0], B[0]), SOON_S, 0.1)
        assert judged is not None, "the coordinator does not judge without etcd"
        world.origins.start(B[0])
        assert poll(lambda: not is_down(world, B[0]), SOON_S, 0.1) is not None
        if end == "is killed":
            poll(lambda: now() - gone > OUTAGE_S / 2, OUTAGE_S)
            world.parts.kill("etcd")
        poll(lambda: now() - gone > OUTAGE_S, OUTAGE_S)
        load.turning(later)
        if end == "is killed":
            world.start_etcd()  # its return is when it says that it is healthy
        else:
            world.parts.resume("etcd")
        recovered_s = load.arrives(SOON_S)
        poll(lambda: False, QUIET_S)
        load.turning(USUAL)
        world.origins.start(A[0])
        assert load.arrives(SOON_S) is not None
    report.add(faults.row(f"etcd stopped {OUTAGE_S:g} s, {end}", load, recovered_s))
    faults.all_right(load, recovered_s, world.dns)
    assert recovered_s is not None
    assert recovered_s < PUBLISHED_S


def is_down(world: World, *addresses: str) -> bool:
    """Whether every region votes so."""
    cast = [faults.votes(world.ports.grpc, region) for region in REGIONS]
    return all(one.get(address) == "down" for one in cast for address in addresses)


def test_a_coordinator_restarted_again_and_again_flips_nothing_and_loses_nothing(
    world: World, report: Report
) -> None:
    dice = random.Random(3)
    down: set[str] = {SICK}
    slowest_s = 0.0
    with Load(world.dns, USUAL, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
        for number in range(RESTARTS):
            one = dice.choice((A[0], A[1], B[0]) if number % 2 == 0 else sorted(down - {SICK}))
            down ^= {one}
            load.turning(picture(*down))
            (world.origins.stop if one in down else world.origins.start)(one)
            # Before anybody probed it, amid the streaks, after the verdict.
            poll(lambda: False, dice.random() * 3.0)
            world.parts.kill("coordinator", dice.choice((signal.SIGKILL, signal.SIGTERM)))
            began = now()
            world.start_coordinator()
            assert load.arrives(SOON_S) is not None, f"restart {number}: {one}, {load.told}"
            slowest_s = max(slowest_s, now() - began)
        poll(lambda: False, QUIET_S)
        poll(world.whole, SOON_S, 0.1)
    report.add(faults.row(f"coordinator restarted {RESTARTS} times", load, slowest_s, "slowest"))
    faults.all_right(load, slowest_s, world.dns)


@pytest.mark.parametrize("etcd", ["is silent", "is not there"] if LONG else ["is silent"])
def test_a_resolver_that_starts_without_etcd_serves_its_snapshot(
    world: World, report: Report, etcd: str
) -> None:
    assert poll(world.snapshot.exists, SOON_S) is not None
    with Load(world.dns, USUAL, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
        if etcd == "is silent":
            world.parts.pause("etcd")
        else:
            world.parts.kill("etcd")
        recovered_s = restarted(world, load)
        assert world.extended() == {STALE}
        poll(lambda: False, QUIET_S)
        if etcd == "is silent":
            world.parts.resume("etcd")
        else:
            world.start_etcd()
        fresh_s = poll(lambda: world.extended() == set(), SOON_S)
    note = f"fresh {fresh_s:.1f} s after etcd's return"
    report.add(faults.row(f"resolver started, etcd {etcd}", load, recovered_s, note))
    faults.all_right(load, recovered_s, [world.dns[1]])
    assert fresh_s is not None


@pytest.mark.parametrize("left", ["corrupt", "missing"] if LONG else ["corrupt"])
def test_a_resolver_with_neither_etcd_nor_snapshot_says_not_ready_and_never_no(
    world: World, report: Report, left: str
) -> None:
    with (
        Load([world.dns[0]], USUAL, RATE) as hurt,
        Load([world.dns[1]], USUAL, RATE) as other,
    ):
        assert poll(lambda: hurt.counts().answered > 50, SOON_S) is not None
        world.parts.pause("etcd")
        world.parts.kill("resolver-1")
        spoil(world.snapshot, left)
        hurt.turning(NOT_READY)
        world.start_resolver(1)
        assert hurt.arrives(SOON_S) is not None
        assert world.extended() == {NOT_READY_CODE}
        poll(lambda: False, QUIET_S)
        hurt.turning(USUAL)
        world.parts.resume("etcd")
        recovered_s = hurt.arrives(SOON_S)
    if left == "corrupt":
        assert "snapshot refused" in world.parts.events("resolver-1")
    report.add(faults.row(f"resolver started, etcd silent, snapshot {left}", hurt, recovered_s))
    faults.all_right(hurt, recovered_s, ())
    faults.all_right(other, recovered_s, [world.dns[1]])


def test_a_corrupt_snapshot_beside_a_good_etcd_is_written_anew(
    world: World, report: Report
) -> None:
    with Load(world.dns, USUAL, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
        assert poll(world.snapshot.exists, SOON_S) is not None
        recovered_s = restarted(world, load, lambda: spoil(world.snapshot, "corrupt"))
        assert world.extended() == set()
        assert poll(lambda: whole_file(world.snapshot), SOON_S) is not None
    report.add(faults.row("resolver started, snapshot corrupt", load, recovered_s))
    faults.all_right(load, recovered_s, [world.dns[1]])


def whole_file(path: Path) -> bool:
    try:
        return snapshot.load(path) is not None
    except snapshot.SnapshotRefused:
        return False


def restarted(
    world: World, load: Load, meanwhile: Callable[[], None] = lambda: None
) -> float | None:
    """Kill the first resolver and start it; seconds from its end to its next answer."""
    began = now()
    world.parts.kill("resolver-1")
    meanwhile()
    there = now()
    world.start_resolver(1)
    if poll(lambda: load.heard(world.dns[0]) > there, SOON_S) is None:
        return None
    return now() - began


def spoil(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_full_disk_costs_the_snapshot_and_no_answer(world: World, report: Report) -> None:
    later = picture(A[0], SICK)
    door, errors = world.ports.resolver(0), "gtm_resolver_snapshot_errors_total"
    with Load(world.dns, USUAL, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
        with no_room(world):
            load.turning(later)
            world.origins.stop(A[0])
            assert load.arrives(SOON_S) is not None
            assert poll(lambda: world.metric(door, errors) > 0, SOON_S, 0.1) is not None
            assert world.mounted is ("snapshot cannot be written" in said(world))
            recovered_s = restarted(world, load)
        load.turning(USUAL)
        world.origins.start(A[0])
        assert load.arrives(SOON_S) is not None
        revision = "gtm_resolver_snapshot_revision"
        assert poll(lambda: world.metric(door, revision) > 0, SOON_S, 0.1) is not None
    report.add(faults.row("disk full, resolver killed on it", load, recovered_s))
    faults.all_right(load, recovered_s, [world.dns[1]])


def said(world: World) -> list[str]:
    return world.parts.events("resolver-1")


@contextlib.contextmanager
def no_room(world: World) -> Iterator[None]:
    """The first resolver can write nothing in its folder; without a disk of its own, nowhere."""
    if world.mounted:
        with faults.full(world.disk):
            yield
        return
    resource.prlimit(world.parts.pid("resolver-1"), resource.RLIMIT_FSIZE, (1, -1))
    yield


def test_an_agent_that_was_cut_off_changes_nothing_by_its_return(
    world: World, report: Report
) -> None:
    """Its old results say down of what is up, and up of what is down."""
    buffered = "gtm_agent_buffered_results"
    door = world.ports.agent(2)
    with Load(world.dns, USUAL, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
        world.relay.hold()
        cut = now()
        assert poll(lambda: lapsed(world), SOON_S, 0.1) is not None
        load.turning(picture(A[0], SICK), picture(A[0], B[0], SICK))
        world.origins.stop(A[0])
        world.origins.stop(B[0])
        assert load.arrives(SOON_S) is not None
        load.turning(picture(B[0], SICK))
        world.origins.start(A[0])
        assert load.arrives(SOON_S) is not None
        poll(lambda: now() - cut > CUT_S, CUT_S)
        kept = world.metric(door, buffered)
        world.relay.flow()
        back = now()
        recovered_s = poll(lambda: votes_right(world), SOON_S, 0.1)
        poll(lambda: now() - back > 5.0, 5.0)
        assert world.metric(door, buffered) < kept / 2
        load.turning(USUAL)
        world.origins.start(B[0])
        assert load.arrives(SOON_S) is not None
    cut_s, results = back - cut, f"{kept:.0f} results kept"
    report.add(faults.row(f"agent cut off {cut_s:.0f} s", load, recovered_s, results))
    faults.all_right(load, recovered_s, world.dns)
    assert kept > CUT_S


def lapsed(world: World) -> bool:
    return set(faults.votes(world.ports.grpc, REGIONS[2]).values()) == {"none"}


def votes_right(world: World) -> bool:
    cast = faults.votes(world.ports.grpc, REGIONS[2])
    return (cast.get(A[0]), cast.get(B[0])) == ("up", "down")
