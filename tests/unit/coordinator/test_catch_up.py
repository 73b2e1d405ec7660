"""Who campaigns when: digests are awaited, for so long and no longer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from coordinator.part import Coordinator
from gtm import codec, keys, links
from gtm.errors import StartError
from gtm.memory import MemoryStore
from gtm.state import AgentMember
from gtm.store import Put
from gtm.units import Duration
from gtm.v1 import agent_pb2 as pb
from gtm.v1.agent_pb2_grpc import AgentsStub

HELLO = pb.Hello(region="eu", agent_id="x", capabilities=["http", "family:ipv4"])


async def registered(store: MemoryStore, agent: str = "x") -> None:
    """Another coordinator has this agent."""
    value = codec.encode(AgentMember(id=agent, region="eu", version="1", since=1.0))
    await store.txn([], [Put(keys.agent("c9", f"eu.{agent}"), value)])


async def digest(made: Coordinator, *partial: bool) -> list[int]:
    """Stream as an agent that sends so many digests; the fence before each, and after the last."""
    seen = []
    async with links.channel(f"127.0.0.1:{made.port}", links.Tls()) as channel:
        call = AgentsStub(channel).Connect()  # type: ignore[no-untyped-call]
        await call.write(pb.FromAgent(hello=HELLO))
        while (message := await call.read()).WhichOneof("message") != "assignment":
            pass
        revision = message.assignment.revision
        for number, more in enumerate(partial):
            seen.append(made.leadership.fence)
            one = pb.Digest(sequence=number + 1, assignment_revision=revision, partial=more)
            await call.write(pb.FromAgent(digest=one))
            while (await call.read()).ack.sequence <= number:
                pass
        async with asyncio.timeout(5):
            while not made.leadership.fence:
                await asyncio.sleep(0.005)
    return seen


async def test_without_agents_it_leads_at_once(helpers: Any) -> None:
    began = time.monotonic()
    async with helpers.coordinator(MemoryStore(), catch_up=_duration(60)) as made:
        await helpers.until(lambda: made.leadership.fence)
    assert time.monotonic() - began < 5


async def test_it_leads_when_the_last_part_of_the_digest_has_come(helpers: Any) -> None:
    store = MemoryStore()
    await registered(store)
    async with helpers.coordinator(store, catch_up=_duration(60)) as made:
        assert await digest(made, True, True, False) == [0, 0, 0]


async def test_for_one_that_never_comes_it_waits_as_long_as_it_is_told(helpers: Any) -> None:
    store = MemoryStore()
    await registered(store, "gone")
    began = time.monotonic()
    async with helpers.coordinator(store, catch_up=_duration(0.3)) as made:
        await helpers.until(lambda: made.leadership.fence)
    assert time.monotonic() - began >= 0.3


async def test_a_running_stream_hears_of_coordinators_that_come_and_go(helpers: Any) -> None:
    store = MemoryStore()
    async with (
        helpers.coordinator(store) as first,
        links.channel(f"127.0.0.1:{first.port}", links.Tls()) as channel,
    ):
        call = AgentsStub(channel).Connect()  # type: ignore[no-untyped-call]
        await call.write(pb.FromAgent(hello=HELLO))

        async def named(count: int) -> list[str]:
            while True:
                message = await call.read()
                for told in (message.welcome.coordinators, message.coordinators.addresses):
                    if len(told) == count:
                        return list(told)

        async with asyncio.timeout(10):
            assert await named(1) == [first.address]
            async with helpers.coordinator(store, id="c2") as second:
                assert await named(2) == sorted([first.address, second.address])
            assert await named(1) == [first.address]


@pytest.mark.parametrize("text", ["1s", "2500ms"])
async def test_a_lease_that_etcd_would_not_grant_is_refused(helpers: Any, text: str) -> None:
    with pytest.raises(StartError, match="whole seconds"):
        async with helpers.coordinator(MemoryStore(), lease=Duration.parse(text)):
            pass


def _duration(seconds: float) -> Duration:
    return Duration(int(seconds * 1000))
