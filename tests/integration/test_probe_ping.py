"""The probe ping over real ICMP sockets on loopback, and with sockets that play the network.

Where this process may open neither kind of ICMP socket the real ones are skipped by name.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from agent.probes import icmp
from agent.probes.base import Fault, Kind, Reason, Target, read_settings
from gtm.units import Duration

pytestmark = pytest.mark.integration


def allowed(kind: socket.SocketKind) -> bool:
    try:
        socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP).close()
    except OSError:
        return False
    return True


RAW, DATAGRAM = allowed(socket.SOCK_RAW), allowed(socket.SOCK_DGRAM)
icmp_allowed = pytest.mark.skipif(
    not (RAW or DATAGRAM), reason="ICMP needs net.ipv4.ping_group_range or CAP_NET_RAW"
)


def target(address: str, timeout: int = 500, **options: object) -> Target:
    text = msgspec.json.encode({"packets": 5, "spacing": "10ms", **options}).decode()
    settings = read_settings(icmp.Settings, text)
    return Target("c", address, 0, "ping", text, 15_000, timeout, settings=settings)


@pytest.fixture(autouse=True)
async def _no_socket_outlives_a_test() -> Any:
    yield
    icmp.close()


@icmp_allowed
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.77", "::1"])
async def test_loopback_answers(address: str) -> None:
    outcome = await icmp.probe(target(address, payload=1000))
    assert outcome.kind is Kind.SUCCESS, outcome
    assert 0 < outcome.rtt_us < 500_000


@icmp_allowed
async def test_all_targets_of_a_family_share_one_socket_and_no_request_is_left_waiting() -> None:
    targets = [target(f"127.0.0.{number}") for number in range(1, 41)]
    outcomes = await asyncio.gather(*(icmp.probe(one) for one in targets))
    assert {one.kind for one in outcomes} == {Kind.SUCCESS}
    first = icmp._pinger("127.0.0.1")
    assert first is icmp._pinger("127.0.0.2")
    assert first is not icmp._pinger("::1")
    assert first.waiting == 0


@icmp_allowed
@pytest.mark.parametrize("raw", [kind for kind, may in ((True, RAW), (False, DATAGRAM)) if may])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_each_kind_of_socket_that_is_allowed_works(raw: bool, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    pinger = icmp.Pinger(family, raw)
    try:
        outcome = await icmp.ping(pinger, target(address))
    finally:
        pinger.close()
    assert outcome.kind is Kind.SUCCESS


@icmp_allowed
async def test_a_probe_that_is_cancelled_leaves_no_request_waiting() -> None:
    task = asyncio.create_task(icmp.probe(target("127.0.0.1", packets=50, spacing="1s")))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert icmp._pinger("127.0.0.1").waiting == 0


@icmp_allowed
async def test_an_agent_that_is_busy_does_not_take_its_own_delay_for_the_networks() -> None:
    task = asyncio.create_task(icmp.probe(target("127.0.0.1", packets=1)))
    await asyncio.sleep(0)
    time.sleep(0.3)
    outcome = await task
    assert outcome.kind is Kind.SUCCESS, outcome
    assert outcome.rtt_us < 150_000


# ---- a network that is played ------------------------------------------------------------------


class Network:
    """In place of a datagram ICMP socket: `answer(n, packet)` gives replies to the n-th packet."""

    def __init__(self, answer: Any) -> None:
        self.inner, self.outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.inner.setblocking(False)
        self.sent = 0
        self._answer = answer
        self._sources: list[str] = []
        self.stamps: list[tuple[int, int, bytes]] = []

    def fileno(self) -> int:
        return self.inner.fileno()

    def sendto(self, packet: bytes, where: tuple[str, int]) -> int:
        self.sent += 1
        for source, reply in self._answer(self.sent, packet, where[0]):
            self._sources.append(source)
            self.outer.send(reply)
        return len(packet)

    def recvmsg(self, size: int, _: int) -> tuple[bytes, list[Any], int, tuple[str, int]]:
        data = self.inner.recv(size)
        return data, self.stamps, 0, (self._sources.pop(0), 0)

    def close(self) -> None:
        self.inner.close()
        self.outer.close()


def reply_to(packet: bytes) -> bytes:
    return b"\0" + packet[1:]


@pytest.fixture
def playing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a Pinger over a played network."""
    made: list[icmp.Pinger] = []

    def play(answer: Any) -> tuple[icmp.Pinger, Network]:
        network = Network(answer)
        monkeypatch.setattr(icmp.Pinger, "_open", lambda *_: network)
        pinger = icmp.Pinger(socket.AF_INET)
        made.append(pinger)
        return pinger, network

    yield play
    for pinger in made:
        pinger._socket.close()


async def test_a_stamp_from_before_a_jump_of_the_wall_clock_is_left_aside(playing: Any) -> None:
    pinger, network = playing(lambda _, packet, where: [(where, reply_to(packet))])
    network.stamps = [(socket.SOL_SOCKET, 35, struct.pack("@ll", int(time.time()) - 3600, 0))]
    outcome = await icmp.ping(pinger, target("192.0.2.1", packets=1))
    assert outcome.kind is Kind.SUCCESS, outcome
    assert 0 < outcome.rtt_us < 2_000_000


LOSSES = [
    # packets, loss limit, which are lost, success
    (20, "10%", {3}, True),
    (20, "10%", {3, 9}, False),
    (20, "100%", set(range(1, 20)), True),
    (20, "100%", set(range(1, 21)), False),
    (1, "10%", {1}, False),
    (3, "50%", {1}, True),
    (3, "50%", {1, 2}, False),
    (5, "1%", {5}, False),
]


@pytest.mark.parametrize(("packets", "limit", "lost", "success"), LOSSES)
async def test_a_probe_fails_at_its_loss_limit_and_not_below(
    packets: int, limit: str, lost: set[int], success: bool, playing: Any
) -> None:
    pinger, _ = playing(lambda n, packet, where: [] if n in lost else [(where, reply_to(packet))])
    one = target("192.0.2.1", timeout=60, packets=packets, loss_limit=limit)
    outcome = await icmp.ping(pinger, one)
    assert outcome.kind is (Kind.SUCCESS if success else Kind.FAILURE), outcome
    assert pinger.waiting == 0


async def test_a_failure_says_how_much_was_lost_and_ends_as_soon_as_it_is_certain(
    playing: Any,
) -> None:
    pinger, network = playing(lambda *_: [])
    outcome = await icmp.ping(pinger, target("192.0.2.1", timeout=40, packets=50, spacing="20ms"))
    assert outcome.reason is Reason.LOSS
    assert "packets lost, the limit is 10%" in outcome.detail
    assert network.sent < 50


FOREIGN = [
    ("another source", lambda packet: ("192.0.2.99", reply_to(packet))),
    ("another nonce", lambda packet: ("192.0.2.1", reply_to(packet[:8] + b"x" * 8 + packet[16:]))),
    ("a request", lambda packet: ("192.0.2.1", packet)),
    ("too short", lambda packet: ("192.0.2.1", reply_to(packet)[:12])),
]


@pytest.mark.parametrize("forge", [one[1] for one in FOREIGN], ids=[one[0] for one in FOREIGN])
async def test_what_is_no_reply_of_this_target_does_not_count(forge: Any, playing: Any) -> None:
    pinger, _ = playing(lambda _n, packet, _where: [forge(packet)])
    outcome = await icmp.ping(pinger, target("192.0.2.1", timeout=50, packets=2))
    assert outcome.reason is Reason.LOSS


async def test_a_reply_that_comes_twice_counts_once(playing: Any) -> None:
    def answer(n: int, packet: bytes, where: str) -> list[tuple[str, bytes]]:
        return [(where, reply_to(packet))] * 5 if n == 1 else []

    pinger, _ = playing(answer)
    one = target("192.0.2.1", timeout=50, packets=4, loss_limit="50%")
    assert (await icmp.ping(pinger, one)).reason is Reason.LOSS


async def test_more_requests_without_reply_than_the_bound_are_no_opinion(
    playing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(icmp, "MAX_WAITING", 3)
    pinger, _ = playing(lambda *_: [])
    with pytest.raises(Fault) as caught:
        await icmp.ping(pinger, target("192.0.2.1", packets=10, loss_limit="100%"))
    assert (caught.value.kind, caught.value.reason) == (Kind.NO_OPINION, Reason.RESOURCES)
    assert pinger.waiting == 0


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EPERM, Reason.PERMISSION),
        (errno.EACCES, Reason.PERMISSION),
        (errno.EMFILE, Reason.RESOURCES),
        (errno.EAFNOSUPPORT, Reason.NO_ROUTE),
    ],
)
async def test_without_a_socket_there_is_no_opinion(
    number: int, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, errno.errorcode[number])

    monkeypatch.setattr(icmp.socket, "socket", refuse)
    outcome = await icmp.probe(target("127.0.0.1"))
    assert (outcome.kind, outcome.reason) == (Kind.NO_OPINION, reason)


def test_a_request_has_the_right_checksum() -> None:
    # RFC 1071: the sum over a packet with its checksum in place is 0
    head = struct.pack("!BBHHH", 8, 0, 0, 77, 1)
    for payload in (b"abcdefgh", b"abcdefghi", bytes(range(256)) * 5):
        sum_ = icmp.checksum(head + payload)
        whole = struct.pack("!BBHHH", 8, 0, sum_, 77, 1) + payload
        assert icmp.checksum(whole) == 0


@pytest.mark.parametrize(
    ("packets", "limit", "losses"),
    [(20, "10%", 2), (20, "11%", 3), (50, "1%", 1), (100, "100%", 100), (3, "50%", 2)],
)
def test_the_limit_is_exact(packets: int, limit: str, losses: int) -> None:
    one = target("192.0.2.1", packets=packets, loss_limit=limit)
    assert one.settings.losses() == losses


def test_a_probe_lasts_as_long_as_its_packets() -> None:
    settings = icmp.Settings(packets=20, spacing=Duration(100))
    assert settings.span_ms(2000) == 3900
