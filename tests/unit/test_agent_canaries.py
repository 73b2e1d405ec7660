"""Canaries: which are looked at, what counts as an answer, and when the agent is blind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from agent import canaries as canaries_module
from agent.canaries import MAX_CANARIES, Canaries, parse
from agent.guard import Guard
from agent.probes.base import Kind, Outcome, Reason, Target

PARSED = [
    ("192.0.2.1", ("192.0.2.1", 0)),
    ("192.0.2.1:443", ("192.0.2.1", 443)),
    ("2001:db8::1", ("2001:db8::1", 0)),
    ("[2001:db8::1]:53", ("2001:db8::1", 53)),
    ("192.0.2.1:70000", None),
    ("192.0.2.1:0", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "place"), PARSED)
def test_an_address_is_pinged_and_a_port_connected_to(
    text: str, place: tuple[str, int] | None
) -> None:
    assert parse(text) == place


@contextlib.contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Watched(Canaries):
    """Canaries that count how often they changed their mind."""

    def __init__(self, *own: str, guard: Guard | None = None) -> None:
        super().__init__(own, guard or Guard(), self.note)
        self.notes: list[str] = []

    def note(self) -> None:
        self.notes.append(self.trouble)


async def test_a_canary_that_accepts_or_refuses_answers() -> None:
    with listening() as port:
        watched = Watched(f"127.0.0.1:{port}", f"127.0.0.1:{closed_port()}")
        await watched.look()
    assert (watched.trouble, watched.notes) == ("", [])
    refusing = Watched(f"127.0.0.1:{closed_port()}")
    await refusing.look()
    assert refusing.trouble == ""


async def test_without_canaries_an_agent_is_taken_to_see() -> None:
    watched = Watched()
    await watched.look()
    assert watched.trouble == ""


async def test_only_when_all_fail_there_is_no_opinion_and_one_answer_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead: set[str] = set()

    async def probe(target: Target) -> Outcome:
        if target.address in dead:
            return Outcome(Kind.FAILURE, Reason.TIMEOUT, "connecting")
        return Outcome(Kind.SUCCESS)

    monkeypatch.setattr(canaries_module.tcp, "probe", probe)
    watched = Watched("192.0.2.1:1")
    watched.told(["192.0.2.2:1", "192.0.2.1:1"])
    for failing, trouble in [
        ({"192.0.2.1"}, ""),
        ({"192.0.2.1", "192.0.2.2"}, "192.0.2.1:1 timeout: connecting, and 1 more"),
        ({"192.0.2.1", "192.0.2.2"}, "192.0.2.1:1 timeout: connecting, and 1 more"),
        ({"192.0.2.2"}, ""),
    ]:
        dead = failing
        await watched.look()
        assert watched.trouble == trouble
    assert len(watched.notes) == 2  # once when it began, once when it ended


async def test_where_pinging_is_not_allowed_a_connection_says_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports = []

    async def not_allowed(_: Target) -> Outcome:
        return Outcome(Kind.NO_OPINION, Reason.PERMISSION)

    async def probe(target: Target) -> Outcome:
        ports.append(target.port)
        return Outcome(Kind.FAILURE, Reason.REFUSED)

    monkeypatch.setattr(canaries_module.icmp, "probe", not_allowed)
    monkeypatch.setattr(canaries_module.tcp, "probe", probe)
    watched = Watched("192.0.2.1")
    await watched.look()
    assert (watched.trouble, ports) == ("", [canaries_module.PORT])


def test_what_the_agent_may_not_probe_is_no_canary_and_their_number_is_bounded() -> None:
    watched = Watched("192.0.2.1", guard=Guard(deny=["192.0.2.7/32"]))
    watched.told(["169.254.169.254", "192.0.2.7", "2852039166", "canary.example.com", "192.0.2.9"])
    assert watched.all == ("192.0.2.1", "192.0.2.9")
    watched.told([f"198.51.100.{n}" for n in range(200)])
    assert len(watched.all) == MAX_CANARIES


async def test_new_canaries_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries_module, "EVERY_S", 3600.0)
    watched = Watched()
    task = asyncio.create_task(watched.run())
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
        monkeypatch.setattr(canaries_module, "TIMEOUT_MS", 1)
        looked = asyncio.Event()
        monkeypatch.setattr(
            canaries_module, "_answers", lambda _: looked.set() or asyncio.sleep(0, "timeout")
        )
        watched.told(["192.0.2.1"])
        async with asyncio.timeout(5):
            await looked.wait()
            while not watched.trouble:
                await asyncio.sleep(0)
        task.cancel()
        await task
    assert watched.notes == ["192.0.2.1 timeout"]
