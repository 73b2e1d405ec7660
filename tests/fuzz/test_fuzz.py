"""Short forms of `make fuzz`: the same inputs in every run, so that a failure is a change's."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from typing import Any

import grpc
import grpc.aio
import pytest

from gtm import links
from tests.fuzz import runs
from tests.fuzz.files import File, Files, heavy
from tests.fuzz.frames import CAPABLE, Frames, pb
from tests.fuzz.long import COUNTS, fuzz
from tests.fuzz.runs import Defect, run

SEED = 2026
HEAVY = 2_000
"""Entries of the files whose parts must be looked up in each other."""
OCTETS = b"\xff\xff\xff"
NO_MESSAGE = "octets that are no message of an agent"
SHORT = {"datagrams": 5_000, "streams": 300, "frames": 1_000, "files": 700}
SEEN = {
    "datagrams": {"NOERROR", "NXDOMAIN", "SERVFAIL", "FORMERR", "REFUSED", "NOTIMP", "silence"},
    "streams": {"ended by half", "ended by reset", "ended by deaf", "bad lengths", "whole queries"},
    "frames": {"frames", "hellos", "refused as invalid argument", "refused as failed precondition"},
    "files": {"refused", "taken"},
}


@pytest.mark.parametrize("name", COUNTS)
async def test_whatever_comes_is_taken_or_refused_in_bounded_time_and_memory(name: str) -> None:
    done = await fuzz(name, SHORT[name], SEED)
    assert done.inputs == SHORT[name]
    assert {kind for kind in SEEN[name] if not done.counts[kind]} == set()


@pytest.mark.parametrize("shape", heavy(1, 1))
async def test_the_time_that_a_file_takes_grows_with_its_size_alone(shape: str) -> None:
    files = Files()
    given = File(heavy(60, HEAVY)[shape].encode(), is_json=False)
    assert await files.feed(given, Counter()) < files.limit_s(given)
    files.close()


async def test_octets_that_are_no_message_end_their_own_stream_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hello = pb.FromAgent(hello=pb.Hello(region="eu", agent_id="x", capabilities=CAPABLE))
    async with (
        Frames() as frames,
        links.channel(f"127.0.0.1:{frames.coordinator.port}", links.Tls()) as channel,
    ):
        connect = channel.stream_stream("/gtm.v1.Agents/Connect")  # no serializers: octets
        good, bad = connect(), connect()
        await good.write(hello.SerializeToString())
        await bad.write(hello.SerializeToString().replace(b"x", b"y"))
        for call in (good, bad):
            assert pb.ToAgent.FromString(await call.read()).welcome.coordinator_id == "c1"
        await bad.write(OCTETS)
        async with asyncio.timeout(10):
            assert await _ended(bad) == (grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)
            while len(frames.coordinator.gateway.streams) != 1:
                await asyncio.sleep(0.01)
        assert [stream.agent for stream in frames.coordinator.gateway.streams] == ["x"]
        await good.write(pb.FromAgent(heartbeat=pb.Heartbeat(count=1)).SerializeToString())
        assert not good.done()
        mute = connect()
        await mute.write(OCTETS)
        async with asyncio.timeout(10):
            assert await _ended(mute) == (grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)
        good.cancel()
    assert not [record for record in caplog.records if record.exc_info]


async def _ended(call: Any) -> tuple[grpc.StatusCode, str]:
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return await call.code(), await call.details()


class Broken:
    """A target with one defect."""

    name = "broken"

    def __init__(self, defect: str) -> None:
        self._defect, self._kept = defect, []

    def make(self, dice: random.Random) -> int:
        return dice.randrange(100)

    async def feed(self, given: int, counts: Counter[str]) -> float:
        counts["fed"] += 1
        if self._defect == "memory":
            self._kept.append(b"x" * (1 << 23))  # more than other tests may have left free
        if self._defect == "raises" and given == 50:
            raise KeyError(given)
        began = time.thread_time()
        while self._defect == "slow" and given == 50 and time.thread_time() - began < 0.02:
            pass
        return time.thread_time() - began

    def limit_s(self, given: Any) -> float:
        return 0.01


@pytest.mark.parametrize(
    ("defect", "told"), [("raises", "KeyError: 50"), ("slow", "of CPU, more than 0.010")]
)
async def test_a_defect_is_told_with_what_makes_it_again(defect: str, told: str) -> None:
    with pytest.raises(Defect, match=told) as found:
        await run(Broken(defect), 2_000, 7)
    number = int(str(found.value).partition("number ")[2].partition(":")[0])
    with pytest.raises(Defect, match=told):
        await run(Broken(defect), 1, 7, number)


async def test_memory_that_grows_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_GROWTH_MIB", 8.0)
    with pytest.raises(Defect, match="memory grew by"):
        await run(Broken("memory"), 20, 7)
