"""What is answered past the network stack is what the sockets answer, and leaves nothing behind.

Each test has two network namespaces of its own: the resolver in one, who asks in the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import pytest

from gtm.errors import StartError
from gtm.memory import MemoryStore
from resolver.cells import EXPRESS, MALFORMED, UDP, UNSENT
from resolver.loader import native
from resolver.part import serve
from resolver.settings import Settings
from tests.ethernet import between
from tests.express import ODD, PLACES, SOON_S, STEADY, World, meant, question, served
from tests.namespaces import CLIENT, SERVER, End, missing, pair
from tests.takeovers import FIX, FIXED, configuration

NEVER_S = 0.3
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
MODULE = native()

pytestmark = [
    pytest.mark.skipif(MODULE is None, reason="the native responder is not built"),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]


@pytest.fixture
def world() -> Iterator[World]:
    with served(MODULE) as made:
        yield made


@FAMILIES
def test_answers_are_those_of_the_sockets_octet_by_octet(
    world: World, family: socket.AddressFamily
) -> None:
    world.begin()
    queries = [
        question(name, number, **more)
        for number, (name, more) in enumerate(
            (name, more)
            for name in STEADY
            for more in ({"use_edns": False}, {"use_edns": 0}, {"use_edns": 0, "payload": 4096})
        )
    ]
    queries += [query[: len(query) - cut] for cut, query in enumerate(queries)]
    expected = [meant(query, world, family) for query in queries]
    with world.asking(family) as sock:
        for query in queries:
            sock.send(query)
        for reply in filter(None, expected):
            assert sock.recv(65535) == reply
    assert world.count(EXPRESS) == len(queries)
    assert (world.count(MALFORMED), world.count(UNSENT)) == (0, 0)


def test_dig_and_kdig_are_answered_over_udp_and_tcp(world: World) -> None:
    world.begin()
    for host in SERVER:
        for tool in (["dig", "+short", "+time=2", "+tries=1"], ["kdig", "+short", "+timeout=2"]):
            for transport in ("+notcp", "+tcp"):
                said = world.client.run(*tool, transport, f"@{host}", "out.gtm.test")
                assert said == "away.example.org.\n"
    assert world.count(EXPRESS) == 4


@FAMILIES
def test_a_reply_has_headers_that_a_stranger_takes_and_a_wrong_checksum_gets_none(
    world: World, family: int
) -> None:
    world.begin()
    ends = world.ends(family)
    with world.wire() as wire:
        for number, name in enumerate(STEADY):
            query = question(name, number)
            wire.send(ends.frame(ends.packet(ends.datagram(query))))
            assert world.replied(wire, ends) == meant(query, world, family)
        assert world.count(EXPRESS) == len(STEADY)
        wire.send(ends.frame(ends.packet(ends.datagram(query, wrong=1))))
        assert world.replied(wire, ends, NEVER_S) is None
    assert (world.count(EXPRESS), world.count(MALFORMED)) == (len(STEADY) + 1, 1)


def test_a_datagram_without_a_checksum_is_one_in_ipv4_and_none_in_ipv6(world: World) -> None:
    world.begin()
    query = question("out")
    for family in (socket.AF_INET, socket.AF_INET6):
        ends = world.ends(family)
        datagram = ends.datagram(query)
        with world.wire() as wire:
            wire.send(ends.frame(ends.packet(datagram[:6] + b"\0\0" + datagram[8:])))
            answered = world.replied(wire, ends, SOON_S if family == socket.AF_INET else NEVER_S)
        assert answered == (meant(query, world, family) if family == socket.AF_INET else None)
    assert world.count(MALFORMED) == 1


def test_what_is_no_plain_datagram_to_an_address_of_ours_takes_the_ordinary_way(
    world: World,
) -> None:
    world.begin()
    world.server.sum()
    query = question("many", use_edns=0)
    v4, v6 = world.ends(socket.AF_INET), world.ends(socket.AF_INET6)
    whole = v4.datagram(query)
    with world.wire() as wire:
        # fragments, which the kernel puts together
        first, last = whole[:24], whole[24:]
        wire.send(v4.frame(v4.packet(first, fragment=0x2000)))
        wire.send(v4.frame(v4.packet(last, fragment=3)))
        assert world.replied(wire, v4) == meant(query, world, socket.AF_INET)
        # with an option that does nothing
        wire.send(v4.frame(v4.packet(whole, options=b"\x01\x01\x01\x00")))
        assert world.replied(wire, v4) == meant(query, world, socket.AF_INET)
        # behind an extension header with padding
        padding = bytes([17, 0, 1, 4, 0, 0, 0, 0])
        wire.send(v6.frame(v6.packet(padding + v6.datagram(query), protocol=60)))
        assert world.replied(wire, v6) == meant(query, world, socket.AF_INET6)
        counted = world.count(UDP)
        assert counted == 3
        # a VLAN that nobody has, another's MAC address, another port, another address
        tag = b"\x81\x00\x00\x05"
        stranger = between(
            (world.client.mac(), b"\2gtm\0\1"), world.hosts(socket.AF_INET), (ODD, 53)
        )
        elsewhere = world.ends(socket.AF_INET, (ODD, 54))
        nobody = between(v4.macs, (CLIENT[0], "10.77.0.9"), (ODD, 53))
        wire.send(v4.frame(v4.packet(whole), tag))
        for ends in (stranger, elsewhere, nobody):
            wire.send(ends.frame(ends.packet(ends.datagram(query))))
        assert world.replied(wire, v4, NEVER_S) is None
    assert (world.count(EXPRESS), world.count(UDP)) == (0, counted)


def test_a_reply_that_the_interface_cannot_carry_is_said_to_be_truncated(world: World) -> None:
    for end in (world.server, world.client):
        end.run("ip", "link", "set", end.device, "mtu", "900")
    world.begin(PLACES[:1])
    with world.asking(socket.AF_INET) as sock:
        sock.send(question("many", use_edns=0, payload=1232))
        truncated = dns.message.from_wire(sock.recv(65535))
        sock.send(question("out", use_edns=0, payload=1232))
        whole = dns.message.from_wire(sock.recv(65535))
    assert truncated.flags & dns.flags.TC
    assert not truncated.answer
    assert not whole.flags & dns.flags.TC
    assert world.count(EXPRESS) == 2


@pytest.mark.parametrize("count", [3_000])
def test_a_crowd_is_answered_and_frames_come_back(world: World, count: int) -> None:
    world.begin()
    with world.asking(socket.AF_INET) as sock:
        for round_ in range(4):  # more than there are frames
            for start in range(0, count, 100):
                for number in range(start, start + 100):
                    sock.send(question("out", number))
                got = {int.from_bytes(sock.recv(65535)[:2]) for _ in range(100)}
                assert got == set(range(start, start + 100)), round_
    assert world.count(EXPRESS) == 4 * count


def workers(count: int) -> list[Path]:
    """Where the kernel tells of our workers, once there are so many: they name themselves."""
    until = time.monotonic() + SOON_S
    while True:
        found = []
        for one in Path("/proc/self/task").glob("*"):
            with contextlib.suppress(OSError):  # it has ended
                if (one / "comm").read_text() == "dns-xdp\n":
                    found.append(one)
        if len(found) == count or time.monotonic() > until:
            return found
        time.sleep(0.01)


def test_every_queue_has_a_socket_and_a_thread() -> None:
    with served(MODULE, queues=3) as world:
        world.begin()
        assert len(workers(3)) == 3
        for _ in range(30):
            with world.asking(socket.AF_INET) as sock:
                sock.send(question("out"))
                assert sock.recv(65535) == meant(question("out"), world, socket.AF_INET)
        assert world.count(EXPRESS) == 30


def test_a_device_without_a_driver_of_its_own_is_served_all_the_same(world: World) -> None:
    server, device = world.server, world.server.device
    try:
        server.run("ip", "link", "add", "bridge0", "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no bridges here: {error.stderr}")
    server.run("ip", "addr", "flush", "dev", device)
    server.run("ip", "link", "set", device, "master", "bridge0")
    server.run("ip", "addr", "add", f"{server.v4}/24", "dev", "bridge0")
    server.run("ip", "link", "set", "bridge0", "up")
    world.server = replace(server, device="bridge0")
    assert world.begin() == "generic, copied"
    with world.asking(socket.AF_INET) as sock:
        for name in STEADY:
            sock.send(question(name))
            assert sock.recv(65535) == meant(question(name), world, socket.AF_INET)
    assert world.count(EXPRESS) == len(STEADY)


def test_an_end_takes_the_program_away_and_the_sockets_go_on(world: World) -> None:
    world.begin()
    assert world.server.has_program()
    with pytest.raises(OSError) as raised, served(MODULE) as other:
        World(world.server, world.client, other.native).begin()
    assert raised.value.errno == errno.EBUSY
    world.native.end_udp()
    assert not world.server.has_program()
    world.begin()
    with world.asking(socket.AF_INET) as sock:
        sock.send(question("out"))
        assert sock.recv(65535) == meant(question("out"), world, socket.AF_INET)
    assert world.count(EXPRESS) == 1


def test_an_interface_may_go_down_and_up(world: World) -> None:
    world.begin()
    for state in ("down", "up"):
        world.server.run("ip", "link", "set", world.server.device, state)
    with world.asking(socket.AF_INET) as sock:
        until, sock_answer = time.monotonic() + SOON_S, b""
        sock.settimeout(0.2)
        while not sock_answer and time.monotonic() < until:
            with contextlib.suppress(OSError):
                sock.send(question("out"))
                sock_answer = sock.recv(65535)
    assert sock_answer == meant(question("out"), world, socket.AF_INET)
    assert world.count(EXPRESS) >= 1


def test_a_worker_whose_interface_is_gone_sleeps(world: World) -> None:
    world.begin()
    (worker,) = workers(1)
    world.server.run("ip", "link", "del", world.server.device)

    def used_ns() -> int:
        return int((worker / "schedstat").read_text().split()[0])

    time.sleep(NEVER_S)
    before = used_ns()
    time.sleep(NEVER_S)
    assert used_ns() - before < 0.1 * NEVER_S * 1e9


SERVES = """
import sys
from resolver.loader import native
served = native().Native()
try:
    served.serve_xdp(sys.argv[1], [('10.77.0.1', 53)], 1)
except OSError as error:
    sys.exit(error.errno)
print('ready', flush=True)
sys.stdin.readline()
print(served.xdp_lost(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def process(world: World) -> Iterator[subprocess.Popen[str]]:
    """Another process that answers past the network stack, until a line comes."""
    world.begin()  # skips where that can't be
    world.native.end_udp()
    command = world.server.command(sys.executable, "-c", SERVES, world.server.device)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as made:
        try:
            assert made.stdout is not None
            assert made.stdout.readline() == "ready\n"
            yield made
        finally:
            made.kill()


def test_a_killed_process_leaves_no_program_behind(
    world: World, process: subprocess.Popen[str]
) -> None:
    assert world.server.has_program()
    process.kill()
    process.wait(SOON_S)
    until = time.monotonic() + SOON_S
    while world.server.has_program() and time.monotonic() < until:
        time.sleep(0.02)
    assert not world.server.has_program()


def test_what_finds_no_place_is_counted(world: World, process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.send_signal(signal.SIGSTOP)
    arrived = f"/sys/class/net/{world.server.device}/statistics/rx_packets"
    before = int(world.server.run("cat", arrived))
    with world.asking(socket.AF_INET) as sock:
        for start in range(0, 3_000, 200):  # fewer than find a place in the device
            for number in range(start, start + 200):
                sock.send(question("out", number))
            until = time.monotonic() + SOON_S
            while int(world.server.run("cat", arrived)) < before + start + 200:
                assert time.monotonic() < until
    process.send_signal(signal.SIGCONT)
    process.stdin.write("\n")
    process.stdin.flush()
    assert int(process.stdout.readline()) == 3_000 - 2_048


def test_without_privileges_the_kernel_says_so(
    world: World, process: subprocess.Popen[str]
) -> None:
    process.kill()
    process.wait(SOON_S)
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    command = [*bare, sys.executable, "-c", SERVES, world.server.device]
    done = subprocess.run(world.server.command(*command), timeout=SOON_S, check=False)
    assert done.returncode == errno.EPERM


class Threaded:
    """A resolver in a thread that is in a namespace."""

    def __init__(self, end: End, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.ended: Future[BaseException | None] = Future()
        thread = threading.Thread(target=lambda: end.within(lambda: self._run(settings)))
        thread.start()
        self._thread = thread

    def _run(self, settings: Settings) -> None:
        async def work() -> None:
            store = MemoryStore()
            await store.txn((), configuration())
            await serve(settings, store, self._stop)

        try:
            self._loop.run_until_complete(work())
            self.ended.set_result(None)
        except BaseException as error:
            self.ended.set_result(error)

    def end(self) -> None:
        if not self.ended.done():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def start(world: World) -> Iterator[Callable[[Settings], Threaded]]:
    world.begin()  # skips where that can't be
    world.native.close()
    with pair() as (server, client):
        world.server, world.client = server, client
        made: list[Threaded] = []

        def begin(settings: Settings) -> Threaded:
            made.append(Threaded(server, settings))
            return made[-1]

        yield begin
        for one in made:
            one.end()


def settings(folder: Path, **more: Any) -> Settings:
    listen = tuple(f"{host}:53" if ":" not in host else f"[{host}]:53" for host in SERVER)
    given = {"listen": listen, "id": "r1", "data_dir": str(folder), "xdp": "server0", **more}
    return Settings(http="127.0.0.1:0", coordinators=(), takeover=True, **given)


def ready(caplog: pytest.LogCaptureFixture, count: int, one: Threaded) -> None:
    until = time.monotonic() + SOON_S
    while sum(record.getMessage() == "ready" for record in caplog.records) < count:
        assert not one.ended.done(), one.ended.result()
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_resolver_answers_past_the_stack_and_whoever_takes_over_does(
    world: World,
    start: Callable[[Settings], Threaded],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "resolver")
    name = FIX.split()[0]
    former = start(settings(tmp_path))
    for count in (1, 2):
        ready(caplog, count, former)
        for host in SERVER:
            command = ["dig", "+short", "+time=2", "+tries=1", f"@{host}", name]
            assert world.client.run(*command) == f"{FIXED}\n"
            assert world.client.run(*command, "+tcp") == f"{FIXED}\n"
        assert world.server.has_program()
        told = [one for one in caplog.records if "past the network stack" in one.getMessage()]
        assert [one.levelname for one in told] == ["INFO"] * count
        if count == 1:
            former = start(settings(tmp_path))
    former.end()
    assert not world.server.has_program()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"xdp": "none0"}, "--xdp none0: the interface: this machine has no such interface"),
        ({"xdp": "a/very/long/name/of/none"}, "this machine has no such interface"),
        ({"xdp": "lo"}, "--xdp lo: the interface: it is no Ethernet"),
        ({"xdp": "\0"}, "this machine has no such interface"),
        ({"listen": ("0.0.0.0:53",)}, "--xdp server0 answers at addresses, not at all of them"),
    ],
)
def test_what_cannot_be_had_ends_the_start_with_a_sentence(
    start: Callable[[Settings], Threaded], tmp_path: Path, more: dict[str, Any], sentence: str
) -> None:
    error = start(settings(tmp_path, **more)).ended.result(SOON_S)
    assert isinstance(error, StartError)
    assert sentence in str(error)
