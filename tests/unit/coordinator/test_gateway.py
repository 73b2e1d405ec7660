"""The agents' door over real gRPC: hellos, assignments, frames, replacement, malformed columns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from coordinator import gateway, metrics, stream
from coordinator.planner import Request
from gtm import codec, keys, links
from gtm.memory import MemoryStore
from gtm.state import AgentMember, PoolState
from gtm.v1 import agent_pb2 as pb
from gtm.v1.agent_pb2_grpc import AgentsStub

CAPABLE = ("http", "tcp", "family:ipv4", "family:ipv6")


class Agent:
    """A scripted agent: what a coordinator sends is kept, frames are sent by hand."""

    def __init__(self, port: int, region: str, agent: str = "x", capabilities: Any = CAPABLE):
        self.channel = links.channel(f"127.0.0.1:{port}", links.Tls())
        self.call = AgentsStub(self.channel).Connect()
        self.hello = pb.Hello(region=region, agent_id=agent, capabilities=capabilities)
        self.targets: dict[int, pb.Target] = {}
        self.revision = 0
        self.acked = 0
        self.sequence = 0
        self.welcome: pb.Welcome | None = None
        self.asked: list[int] = []
        self.places: list[pb.Place] = []
        self.clock: list[int] = []

    async def open(self) -> Agent:
        await self.call.write(pb.FromAgent(hello=self.hello))
        await self.until(lambda: self.welcome and self.revision)
        return self

    async def close(self) -> None:
        self.call.cancel()
        await self.channel.close()

    async def read(self) -> pb.ToAgent:
        message = await self.call.read()
        if message is grpc.aio.EOF:
            raise await self._error()
        self.clock.append(message.sent_ms)
        match message.WhichOneof("message"):
            case "confirm":
                self.asked += message.confirm.target
            case "place":
                self.places.append(message.place)
            case "welcome":
                self.welcome = message.welcome
            case "assignment":
                given = message.assignment
                assert given.revision == self.revision + 1
                assert given.base == self.revision
                self.revision = given.revision
                self.targets.update((one.index, one) for one in given.set)
                for index in given.remove:
                    del self.targets[index]
            case "ack":
                self.acked = message.ack.sequence
        return message

    async def _error(self) -> grpc.aio.AioRpcError:
        return grpc.aio.AioRpcError(
            await self.call.code(),
            await self.call.initial_metadata(),
            await self.call.trailing_metadata(),
            await self.call.details(),
        )

    async def until(self, condition: Any, seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await self.read()

    async def results(self, result: int, targets: Any = None, /, **more: Any) -> None:
        """One frame with the same result for `targets` (all), and wait for its ack."""
        rows = sorted(self.targets) if targets is None else list(targets)
        self.sequence += 1
        columns = {
            "target": rows,
            "outcome": [result] * len(rows),
            "age_ms": [0] * len(rows),
            "rtt_us": [1_000] * len(rows),
            "reason": [0] * len(rows),
            "reasons": [""],
            "assignment_revision": self.revision,
            "sequence": self.sequence,
            **more,
        }
        await self.call.write(pb.FromAgent(results=pb.Results(**columns)))

    async def said(self, *args: Any, **more: Any) -> None:
        await self.results(*args, **more)
        await self.until(lambda: self.acked == self.sequence)

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """Read until the coordinator ends the stream; code and sentence."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.until(lambda: False)
        return await self.call.code(), await self.call.details()


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    """Opens scripted agents, and closes them."""
    agents: list[Agent] = []

    def new(*args: Any, **more: Any) -> Agent:
        agents.append(Agent(*args, **more))
        return agents[-1]

    yield new
    for agent in agents:
        await agent.close()


async def applied(made: Any, given: Any) -> None:
    outcome = await made.applier.apply(Request(given=given, allow_mass_change=True))
    assert outcome.applied, outcome


async def published(store: MemoryStore, pool: str) -> PoolState | None:
    item = await store.get(keys.pool(pool))
    return None if item is None else codec.decode(item.value, PoolState)


async def test_results_of_a_majority_become_a_published_pool(helpers: Any, connect: Any) -> None:
    store = MemoryStore()
    async with helpers.coordinator(store) as made:
        await applied(made, helpers.SMALL)
        agents = [await connect(made.port, region).open() for region in ("eu", "us", "as")]
        assert agents[0].welcome.coordinator_id == "c1"
        assert agents[0].welcome.coordinators == [f"127.0.0.1:{made.port}"]
        assert {one.address for one in agents[0].targets.values()} == {"192.0.2.1", "192.0.2.2"}
        for agent in agents[:2]:
            await agent.said(pb.OUTCOME_SUCCESS)
        state = await helpers.until(lambda: published(store, "a"))
        assert [member.why for member in state.members] == ["up", "up"]

        down = [i for i, one in agents[0].targets.items() if one.address == "192.0.2.2"]
        for agent in agents[:2]:
            for _ in range(2):
                await agent.said(pb.OUTCOME_FAILURE, down)

        async def left() -> Any:
            now = await published(store, "a")
            return now is not None and [member.why for member in now.members] == ["up", "down"]

        await helpers.until(left)
        assert await store.get(keys.verdict("web", "192.0.2.2", 80)) is not None


async def test_a_restart_of_the_coordinator_changes_nothing(helpers: Any, connect: Any) -> None:
    store = MemoryStore()
    async with helpers.coordinator(store.client()) as made:
        await applied(made, helpers.SMALL)
        for region in ("eu", "us"):
            await (await connect(made.port, region).open()).said(pb.OUTCOME_SUCCESS)
        await helpers.until(lambda: published(store, "a"))
        await helpers.until(lambda: not made.publisher.waiting)
        before = (await store.list(keys.SERVE)).items
    async with helpers.coordinator(store.client()) as made:
        await helpers.until(lambda: made.leadership.fence and not made.publisher.waiting)
        agent = await connect(made.port, "eu").open()
        await agent.said(pb.OUTCOME_SUCCESS)
        assert (await store.list(keys.SERVE)).items == before
        assert made.not_ready() == ""


async def test_a_delta_keeps_indexes_and_never_reuses_one(helpers: Any, connect: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, helpers.SMALL)
        agent = await connect(made.port, "eu").open()
        first = dict(agent.targets)
        check = helpers.SMALL["checks"]["web"]

        await applied(made, {"checks": {"web": {**check, "interval": "2s"}}})
        await agent.until(lambda: agent.revision == 2)
        assert set(agent.targets) == set(first)
        assert {one.interval_ms for one in agent.targets.values()} == {2_000}

        await applied(made, {"checks": {"web": {**check, "path": "/other"}}})
        await agent.until(lambda: agent.revision == 3)
        assert set(agent.targets).isdisjoint(first)
        assert len(agent.targets) == 2

        await applied(made, {"pools": {"a": helpers.pool("192.0.2.2", checks=["web"])}})
        await agent.until(lambda: agent.revision == 4)
        await applied(made, helpers.SMALL)
        await agent.until(lambda: agent.revision == 5)
        assert max(agent.targets) > 3


async def test_an_agent_gets_what_it_can_probe_and_its_region_should(
    helpers: Any, connect: Any
) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        given = {
            **helpers.SMALL,
            "checks": {
                "web": helpers.SMALL["checks"]["web"],
                "near": {"type": "tcp", "port": 81, "regions": ["us"]},
            },
            "pools": {
                "a": helpers.pool("192.0.2.1", checks=["web"]),
                "b": helpers.pool("192.0.2.3", checks=["near"]),
                "c": {**helpers.pool("2001:db8::1", checks=["web"]), "type": "ipv6"},
            },
        }
        await applied(made, given)
        whole = await connect(made.port, "us").open()
        assert {one.address for one in whole.targets.values()} == {
            "192.0.2.1",
            "192.0.2.3",
            "2001:db8::1",
        }
        eu = await connect(made.port, "eu").open()
        assert {one.address for one in eu.targets.values()} == {"192.0.2.1", "2001:db8::1"}
        poor = await connect(made.port, "us", "poor", ("tcp", "family:ipv4")).open()
        assert {one.address for one in poor.targets.values()} == {"192.0.2.3"}


async def test_unknown_rows_and_old_revisions_are_counted_and_dropped(
    helpers: Any, connect: Any
) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, helpers.SMALL)
        agent = await connect(made.port, "eu").open()
        (stream_,) = made.gateway.streams
        await agent.said(pb.OUTCOME_SUCCESS, [0, 1, 2, 4_000_000_000])
        assert (stream_.results, stream_.refused) == (2, 2)

        check = helpers.SMALL["checks"]["web"]
        for number, interval in enumerate(("2s", "3s"), start=2):
            await applied(made, {"checks": {"web": {**check, "interval": interval}}})
            await agent.until(lambda number=number: agent.revision == number)
        await agent.said(pb.OUTCOME_SUCCESS, [0, 1], assignment_revision=2)
        assert (stream_.results, stream_.refused) == (4, 2)
        await agent.said(pb.OUTCOME_SUCCESS, [0, 1], assignment_revision=1)
        await agent.said(pb.OUTCOME_SUCCESS, [0, 1], assignment_revision=4)
        assert (stream_.results, stream_.refused) == (4, 6)


async def test_a_digest_sets_the_vote(helpers: Any, connect: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, helpers.SMALL)
        for region in ("eu", "us"):
            agent = await connect(made.port, region).open()
            rows = sorted(agent.targets)
            agent.sequence += 1
            digest = pb.Digest(
                sequence=1,
                assignment_revision=1,
                target=rows,
                outcome=[pb.OUTCOME_FAILURE] * 2,
                streak=[5, 5],
                age_ms=[100, 100],
                rtt_us=[0, 0],
                reason=[1, 1],
                reasons=["", "refused"],
            )
            await agent.call.write(pb.FromAgent(digest=digest))
            await agent.until(lambda agent=agent: agent.acked == 1)
        views = made.engine.verdicts()
        assert [view.verdict for view in views] == ["down", "down"]
        assert {vote.reason for view in views for vote in view.regions if vote.agents} == {
            "refused"
        }


async def test_what_was_held_up_on_its_way_is_as_old_as_it_is(helpers: Any, connect: Any) -> None:
    """A success that left 20 s before it came is history: it votes nobody up."""
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, helpers.SMALL)
        agent = await connect(made.port, "eu").open()

        async def said(result: int, sent_ms: int) -> list[str]:
            agent.sequence += 1
            rows = sorted(agent.targets)
            frame = pb.Results(
                sequence=agent.sequence,
                assignment_revision=agent.revision,
                target=rows,
                outcome=[result] * len(rows),
                age_ms=[0] * len(rows),
                rtt_us=[0] * len(rows),
                reason=[0] * len(rows),
                reasons=[""],
            )
            await agent.call.write(pb.FromAgent(results=frame, sent_ms=sent_ms))
            await agent.until(lambda: agent.acked == agent.sequence)
            views = made.engine.verdicts()
            return [vote.vote for view in views for vote in view.regions if vote.region == "eu"]

        clock = 1_000_000
        beat = pb.FromAgent(heartbeat=pb.Heartbeat(count=1), sent_ms=clock)
        await agent.call.write(beat)  # came as quickly as any
        assert set(await said(pb.OUTCOME_SUCCESS, clock - 20_000)) == {"none"}
        assert set(await said(pb.OUTCOME_SUCCESS, clock)) == {"up"}


REFUSED_HELLOS = {
    "no name of a region": {"region": "eu/../x"},
    "no agent id": {"agent_id": "a/b"},
    "capabilities; 64 are taken": {"capabilities": ["family:ipv4"] * 65},
    "names no probe type": {"capabilities": ["family:ipv4"]},
    "or no address family": {"capabilities": ["http"]},
}


@pytest.mark.parametrize("sentence", REFUSED_HELLOS)
async def test_a_hello_that_makes_no_sense_is_refused(
    helpers: Any, connect: Any, sentence: str
) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        agent = connect(made.port, "eu")
        fields = {"region": "eu", "agent_id": "x", "capabilities": CAPABLE}
        await agent.call.write(
            pb.FromAgent(hello=pb.Hello(**{**fields, **REFUSED_HELLOS[sentence]}))
        )
        code, details = await agent.ended()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert sentence in details
        assert made.gateway.streams == ()


async def test_a_first_message_that_is_no_hello_is_refused(helpers: Any, connect: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        agent = connect(made.port, "eu")
        await agent.call.write(pb.FromAgent(heartbeat=pb.Heartbeat(count=1)))
        code, details = await agent.ended()
        assert (code, "must be a hello" in details) == (grpc.StatusCode.FAILED_PRECONDITION, True)


MALFORMED: dict[str, dict[str, Any]] = {
    "column outcome has 1 rows where target has 2": {"outcome": [1]},
    "column dns_us has 1 rows where target has 2": {"dns_us": [1]},
    "reason that is not in the frame": {"reason": [0, 7]},
    "9 is no outcome": {"outcome": [1, 9]},
    "frame 3 came after frame 0": {"sequence": 3},
    "5000 reasons": {"reasons": ["x"] * 5_000},
    "a frame of 200001 rows": {"target": [0] * 200_001},
}


@pytest.mark.parametrize("sentence", MALFORMED)
async def test_a_malformed_frame_ends_the_stream(helpers: Any, connect: Any, sentence: str) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, helpers.SMALL)
        agent = await connect(made.port, "eu").open()
        await agent.results(pb.OUTCOME_SUCCESS, **MALFORMED[sentence])
        code, details = await agent.ended()
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert sentence in details
        await helpers.until(lambda: made.gateway.streams == ())


async def test_a_second_stream_of_an_agent_replaces_the_first(helpers: Any, connect: Any) -> None:
    store = MemoryStore()
    async with helpers.coordinator(store) as made:
        await applied(made, helpers.SMALL)
        first = await connect(made.port, "eu").open()
        second = await connect(made.port, "eu").open()
        code, details = await first.ended()
        assert code is grpc.StatusCode.ABORTED
        assert "took over" in details
        assert len(made.gateway.streams) == 1
        await second.said(pb.OUTCOME_SUCCESS)
        assert [agent.connected for agent in made.engine.agents()] == [True]
        key = keys.agent("c1", "eu.x")
        held = await helpers.until(lambda: store.get(key))
        assert codec.decode(held.value, AgentMember).region == "eu"
        await second.close()
        await helpers.until(lambda: made.gateway.streams == ())

        async def gone() -> bool:
            return await store.get(key) is None

        await helpers.until(gone)


async def test_a_silent_agent_is_lost(
    helpers: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SILENCE_S", 0.2)
    async with helpers.coordinator(MemoryStore()) as made:
        agent = await connect(made.port, "eu").open()
        code, details = await agent.ended()
        assert (code, "no word" in details) == (grpc.StatusCode.UNAVAILABLE, True)
        assert made.gateway.streams == ()


async def test_heartbeats_come_while_nothing_else_does(
    helpers: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)
    async with helpers.coordinator(MemoryStore()) as made:
        agent = await connect(made.port, "eu").open()
        beats = [await agent.read() for _ in range(3)]
        assert [beat.heartbeat.count for beat in beats] == [1, 2, 3]


async def test_agents_beyond_the_bound_are_refused(
    helpers: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "MAX_AGENTS", 1)
    async with helpers.coordinator(MemoryStore()) as made:
        await connect(made.port, "eu").open()
        agent = connect(made.port, "us")
        await agent.call.write(pb.FromAgent(hello=agent.hello))
        assert (await agent.ended())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_region_is_met_at_its_first_hello(helpers: Any, connect: Any) -> None:
    store = MemoryStore()
    async with helpers.coordinator(store) as made:
        await connect(made.port, "far-away").open()
        await helpers.until(lambda: store.get(keys.region("far-away")))
        await helpers.until(lambda: [one for one in made.engine.regions() if one.met])


async def test_a_stream_that_was_replaced_is_not_listened_to_any_more() -> None:
    taken: list[Any] = []
    hello = pb.Hello(region="eu", agent_id="x", capabilities=CAPABLE)
    replaced = stream.Stream(pb.FromAgent(hello=hello), taken.append)
    replaced.assign(())
    assert [one.revision for one in replaced.assignment.messages()] == [1]

    class Context:
        async def read(self) -> pb.FromAgent:
            replaced.end(stream.Ended(grpc.StatusCode.ABORTED, "took over", "replaced"))
            return pb.FromAgent(results=pb.Results(sequence=1, assignment_revision=1))

    with pytest.raises(stream.Ended, match="took over"):
        await replaced.read(Context())
    assert replaced._sequence == 0


# ---- quick confirmation, places, canaries, goodbyes ----------------------------------------------


def confirming(helpers: Any, **more: Any) -> Any:
    check = {**helpers.SMALL["checks"]["web"], "confirm": True, **more}
    return {**helpers.SMALL, "checks": {"web": check}}


async def test_the_first_failure_makes_every_region_of_the_check_probe_at_once(
    helpers: Any, connect: Any
) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, confirming(helpers, regions=["eu", "us"]))
        eu, us, other = [await connect(made.port, r).open() for r in ("eu", "us", "as")]
        for agent in (eu, us):
            await agent.said(pb.OUTCOME_SUCCESS)
        failed = [i for i, one in us.targets.items() if one.address == "192.0.2.2"]
        await us.results(pb.OUTCOME_FAILURE, failed)
        for agent in (eu, us):
            await agent.until(lambda agent=agent: agent.asked)
            assert [agent.targets[index].address for index in agent.asked] == ["192.0.2.2"]
        await us.said(pb.OUTCOME_FAILURE, failed)
        await eu.said(pb.OUTCOME_FAILURE, failed)
        assert [len(agent.asked) for agent in (eu, us)] == [1, 1]  # once in half an interval
        assert (other.targets, other.asked) == ({}, [])


async def test_agents_of_a_region_are_told_their_places_and_its_canaries(
    helpers: Any, connect: Any
) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, helpers.SMALL)

        def place(agent: Agent) -> tuple[int, int, tuple[str, ...]]:
            one = agent.places[-1]
            return (one.rank, one.agents, tuple(one.canaries))

        second = await connect(made.port, "eu", "b").open()
        assert place(second) == (0, 1, ())
        first = await connect(made.port, "eu", "a").open()
        alone = await connect(made.port, "us", "a").open()
        await second.until(lambda: place(second) == (1, 2, ()))
        assert place(first) == (0, 2, ())
        assert place(alone) == (0, 1, ())
        regions = {**helpers.SMALL["regions"], "eu": {"canaries": ["192.0.2.250"]}}
        await applied(made, {"regions": regions})
        await second.until(lambda: place(second) == (1, 2, ("192.0.2.250",)))
        await first.until(lambda: place(first) == (0, 2, ("192.0.2.250",)))
        await first.close()
        await second.until(lambda: place(second) == (0, 1, ("192.0.2.250",)))
        assert place(alone) == (0, 1, ())


async def test_every_message_tells_the_clock_and_targets_their_region_s_part(
    helpers: Any, connect: Any
) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, confirming(helpers, max_probe_rate=4))
        agent = await connect(made.port, "us").open()
        await agent.said(pb.OUTCOME_SUCCESS)
        assert all(agent.clock)
        assert agent.clock == sorted(agent.clock)
        told = {(one.slot, one.slots, one.gap_ms) for one in agent.targets.values()}
        assert told == {(2, 3, 750)}  # as, eu, us; 4 a second for three regions


async def test_a_heartbeat_says_that_an_agent_has_no_opinion(helpers: Any, connect: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        agent = await connect(made.port, "eu").open()
        for text in ("192.0.2.250 timeout", ""):
            beat = pb.Heartbeat(count=1, without_opinion=text)
            await agent.call.write(pb.FromAgent(heartbeat=beat))
            await helpers.until(lambda text=text: made.gateway.streams[0].without_opinion == text)
        beat = pb.Heartbeat(count=1, without_opinion="x" * 100_000)
        await agent.call.write(pb.FromAgent(heartbeat=beat))
        await helpers.until(lambda: made.gateway.streams[0].without_opinion)
        assert len(made.gateway.streams[0].without_opinion) == stream.MAX_REASON_CHARS


async def test_an_agent_that_says_goodbye_is_gone_at_once_and_in_order(
    helpers: Any, connect: Any
) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        agent = await connect(made.port, "eu").open()
        await agent.call.write(pb.FromAgent(goodbye=pb.Goodbye()))
        code, _ = await agent.ended()
        assert code is grpc.StatusCode.OK
        assert made.gateway.streams == ()


async def test_targets_that_wait_to_be_asked_for_are_bounded(
    helpers: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_CONFIRM", 1)
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, confirming(helpers))
        agents = [await connect(made.port, region).open() for region in ("eu", "us")]
        for agent in agents:
            await agent.said(pb.OUTCOME_SUCCESS)
        await agents[0].said(pb.OUTCOME_FAILURE)
        await agents[0].until(lambda: agents[0].asked)
        await agents[0].said(pb.OUTCOME_FAILURE)
        assert len(agents[0].asked) == 1


async def test_a_hundred_agents_that_come_and_go_leave_nothing_and_disturb_nobody(
    helpers: Any, connect: Any
) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, helpers.SMALL)
        honest = await connect(made.port, "eu", "honest").open()
        await honest.said(pb.OUTCOME_SUCCESS)

        async def come_and_go(number: int) -> None:
            agent = Agent(made.port, ("us", "as")[number % 2], f"a{number}")
            await agent.open()
            if number % 3:
                await agent.said(pb.OUTCOME_SUCCESS)
            await agent.close()

        sizes = []
        for _ in range(3):
            for start in range(0, 100, 20):
                await asyncio.gather(*(come_and_go(n) for n in range(start, start + 20)))
            await helpers.until(lambda: len(made.gateway.streams) == 1)
            sizes.append(len(made.engine.agents()))
        assert max(sizes) <= 1 + 2 * 64  # of each region: evidence.MAX_AGENTS
        assert max(sizes) <= 101  # the second and the third time are the same agents again
        await helpers.until(lambda: len(made._members.agents()) == 1)
        before = honest.acked
        await honest.said(pb.OUTCOME_SUCCESS)
        assert honest.acked == before + 1


ABSURD = [
    # what is changed in a sound frame of two rows; code, sentence
    ({"sequence": 1}, "came after frame"),
    ({"sequence": 7}, "came after frame"),
    ({"outcome": [1]}, "column outcome has 1 rows"),
    ({"age_ms": [1, 2, 3]}, "column age_ms has 3 rows"),
    ({"outcome": [1, 9]}, "9 is no outcome"),
    ({"reason": [0, 4]}, "reason that is not in the frame"),
    ({"dns_us": [1]}, "column dns_us has 1 rows"),
]


@pytest.mark.parametrize(("changed", "sentence"), ABSURD)
async def test_what_is_absurd_ends_its_stream_with_a_reason_and_no_other(
    helpers: Any, connect: Any, changed: dict[str, Any], sentence: str
) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, helpers.SMALL)
        liar, honest = [await connect(made.port, region).open() for region in ("eu", "us")]
        await liar.said(pb.OUTCOME_SUCCESS)
        ended = _ended("malformed")
        await liar.results(pb.OUTCOME_SUCCESS, **changed)
        code, words = await liar.ended()
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert sentence in words
        assert _ended("malformed") == ended + 1
        await honest.said(pb.OUTCOME_SUCCESS)
        assert [one.agent for one in made.gateway.streams] == [honest.hello.agent_id]


async def test_absurd_ages_and_unknown_indexes_are_counted_and_change_no_vote(
    helpers: Any, connect: Any
) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, helpers.SMALL)
        agent = await connect(made.port, "eu").open()
        await agent.said(pb.OUTCOME_SUCCESS)
        for _ in range(5):
            await agent.said(pb.OUTCOME_FAILURE, age_ms=[2**32 - 1] * 2)
            await agent.said(pb.OUTCOME_FAILURE, [2**32 - 1, 77])
        votes = {one.vote for view in made.engine.verdicts() for one in view.regions}
        assert "down" not in votes
        assert made.gateway.streams[0].refused == 10


async def test_a_message_beyond_the_largest_ends_its_stream_and_no_other(
    helpers: Any, connect: Any
) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        await applied(made, helpers.SMALL)
        liar, honest = [await connect(made.port, region).open() for region in ("eu", "us")]
        reasons = ["x" * (1 << 20)] * 15 + ["x" * 600_000] * 2
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await liar.results(pb.OUTCOME_FAILURE, reasons=reasons)
            await liar.until(lambda: liar.acked == liar.sequence)
        assert await liar.call.code() is not grpc.StatusCode.OK
        await honest.said(pb.OUTCOME_SUCCESS)
        await helpers.until(lambda: len(made.gateway.streams) == 1)


def _ended(reason: str) -> float:
    return metrics.STREAMS_ENDED.labels(reason)._value.get()
