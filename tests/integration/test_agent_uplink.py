"""The uplink against real gRPC servers that play the coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
import grpc.aio
import pytest

from agent import link as link_module
from agent import metrics
from agent.guard import Guard
from agent.link import Hello
from agent.named import by_name
from agent.part import run
from agent.probes.base import Kind, Outcome, Reason, Target
from agent.results import ProbeResult, ResultLog
from agent.runner import Runner
from agent.settings import Settings
from agent.uplink import MAX_LINKS, Uplink
from gtm import links
from gtm.errors import StartError
from gtm.names import Names
from gtm.v1 import agent_pb2
from gtm.v1.agent_pb2_grpc import AgentsServicer, add_AgentsServicer_to_server

pytestmark = pytest.mark.integration

HEARTBEAT_MS = 200
HELLO = Hello("r1", "a1", "1", ("tcp", "family:ipv4"), "i1")


@pytest.fixture(autouse=True)
def _settling_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.uplink.SETTLE_S", 0.5)
    monkeypatch.setattr("agent.uplink.OWNED_MS", 600)


async def until(condition: Callable[[], Any], seconds: float = 8.0) -> Any:
    """Wait for a condition; AssertionError when it does not come true in time."""
    end = asyncio.get_running_loop().time() + seconds
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < end, "waited in vain"
        await asyncio.sleep(0.01)
    return value


def target(index: int, *, interval_ms: int = 250, address: str = "") -> agent_pb2.Target:
    return agent_pb2.Target(
        index=index,
        check="web",
        address=address or f"192.0.2.{index % 250}",
        port=80 + index // 250,
        type="tcp",
        options="{}",
        interval_ms=interval_ms,
        timeout_ms=500,
        fall=2,
        rise=2,
    )


def snapshot(
    *targets: agent_pb2.Target, revision: int = 1, base: int = 0, remove: Iterable[int] = ()
) -> agent_pb2.ToAgent:
    return agent_pb2.ToAgent(
        assignment=agent_pb2.Assignment(revision=revision, base=base, set=targets, remove=remove)
    )


class Stream:
    """One stream as the coordinator saw it."""

    def __init__(self) -> None:
        self.messages: list[agent_pb2.FromAgent] = []
        self.out: asyncio.Queue[agent_pb2.ToAgent | None] = asyncio.Queue()

    def kinds(self) -> list[str]:
        return [str(message.WhichOneof("message")) for message in self.messages]

    @property
    def results(self) -> list[agent_pb2.Results]:
        return [one.results for one in self.messages if one.WhichOneof("message") == "results"]

    @property
    def digests(self) -> list[agent_pb2.Digest]:
        return [one.digest for one in self.messages if one.WhichOneof("message") == "digest"]

    def rows(self) -> list[int]:
        """The round trips of all results in order: tests number probes by them."""
        return [rtt for frame in self.results for rtt in frame.rtt_us]


class Coordinator(AgentsServicer):
    """Welcomes, assigns, records; acknowledges while `acks`; beats while `beats`."""

    def __init__(self, id_: str = "c1", *first: agent_pb2.ToAgent) -> None:
        self.id = id_
        self.first = list(first)
        self.members: list[str] = []
        self.acks = True
        self.beats = True
        self.refusal = ""
        self.digest_ms = 60_000
        self.streams: list[Stream] = []
        self.address = ""
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str = "127.0.0.1:0") -> None:
        self._server = links.server()
        add_AgentsServicer_to_server(self, self._server)
        port = links.listen(self._server, address, links.Tls())
        await self._server.start()
        self.address = f"127.0.0.1:{port}"

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    @property
    def now(self) -> Stream:
        return self.streams[-1]

    async def Connect(self, requests: Any, context: Any) -> AsyncIterator[agent_pb2.ToAgent]:
        stream = Stream()
        for former in self.streams:  # one stream an agent: the newest
            former.out.put_nowait(None)
        self.streams.append(stream)
        reader = asyncio.create_task(self._read(requests, stream))
        try:
            await until(lambda: stream.messages)
            if self.refusal:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refusal)
            yield agent_pb2.ToAgent(
                welcome=agent_pb2.Welcome(
                    coordinator_id=self.id,
                    heartbeat_ms=HEARTBEAT_MS,
                    digest_ms=self.digest_ms,
                    coordinators=self.members or [self.address],
                )
            )
            for message in self.first:
                yield message
            while True:
                try:
                    message = await asyncio.wait_for(stream.out.get(), HEARTBEAT_MS / 1000)
                    if message is None:
                        return
                    yield message
                except TimeoutError:
                    if self.beats:
                        yield agent_pb2.ToAgent(heartbeat=agent_pb2.Heartbeat(count=1))
        finally:
            reader.cancel()

    async def _read(self, requests: Any, stream: Stream) -> None:
        async for message in requests:
            stream.messages.append(message)
            kind = message.WhichOneof("message")
            if self.acks and kind in ("results", "digest"):
                sequence = getattr(message, kind).sequence
                stream.out.put_nowait(agent_pb2.ToAgent(ack=agent_pb2.Ack(sequence=sequence)))


class Agent:
    """An uplink with a runner whose probes succeed, numbered by their round trip."""

    def __init__(self, *addresses: str, bound: int = 10_000) -> None:
        self.probes = 0
        self.outcome: Outcome | None = None
        self.log = ResultLog(bound)
        self.runner = Runner("r1/a1", 100, lambda row: self.uplink.offer(row), lambda _: self.probe)
        self.uplink = Uplink(addresses, HELLO, self.log, self.runner, links.Tls(), False)
        self.uplink.start()

    async def probe(self, _: Target) -> Outcome:
        if self.outcome is not None:
            return self.outcome
        self.probes += 1
        return Outcome(Kind.SUCCESS, rtt_us=self.probes)

    async def close(self) -> None:
        await self.runner.close()
        await self.uplink.close()


@contextlib.asynccontextmanager
async def playing(*coordinators: Coordinator, bound: int = 10_000) -> AsyncIterator[Agent]:
    for one in coordinators:
        if not one.address:
            await one.start()
    agent = Agent(*(one.address for one in coordinators), bound=bound)
    try:
        yield agent
    finally:
        await agent.close()
        for one in coordinators:
            await one.stop()


async def test_a_stream_opens_with_hello_then_a_digest_then_results_in_order() -> None:
    coordinator = Coordinator("c1", snapshot(target(1), target(2)))
    async with playing(coordinator) as agent:
        await until(lambda: coordinator.streams and len(coordinator.now.rows()) >= 4)
        stream = coordinator.now
        assert stream.messages[0].hello.region == "r1"
        assert list(stream.messages[0].hello.capabilities) == ["tcp", "family:ipv4"]
        spoken = [kind for kind in stream.kinds() if kind not in ("hello", "heartbeat")]
        assert spoken[0] == "digest"
        assert spoken.count("digest") == 1
        assert sorted(stream.digests[0].target) == [1, 2]
        assert stream.rows() == list(range(1, len(stream.rows()) + 1))
        sequences = [stream.digests[0].sequence, *(frame.sequence for frame in stream.results)]
        assert sequences == list(range(1, len(sequences) + 1))
        assert {frame.assignment_revision for frame in stream.results} == {1}
        await until(lambda: len(agent.log) == 0)  # all acknowledged, nothing kept


async def test_reasons_outcomes_and_ages_travel_as_columns() -> None:
    coordinator = Coordinator("c1", snapshot(target(7)))
    async with playing(coordinator) as agent:
        agent.outcome = Outcome(Kind.FAILURE, Reason.REFUSED, "by peer")
        frame = (await until(lambda: coordinator.streams and coordinator.now.results))[0]
        assert list(frame.target) == [7]
        assert list(frame.outcome) == [agent_pb2.OUTCOME_FAILURE]
        assert frame.age_ms[0] < 1000
        assert [frame.reasons[number] for number in frame.reason] == ["refused: by peer"]
        assert frame.reasons[0] == ""
        assert not frame.connect_us  # no row has phases


async def test_both_sides_beat() -> None:
    coordinator = Coordinator("c1")
    async with playing(coordinator):
        await until(lambda: coordinator.streams and coordinator.now.kinds().count("heartbeat") >= 3)
        assert len(coordinator.streams) == 1


async def test_after_a_reconnect_a_digest_comes_first_and_kept_results_follow_with_their_age() -> (
    None
):
    coordinator = Coordinator("c1", snapshot(target(1)))
    async with playing(coordinator) as agent:
        await until(lambda: coordinator.streams and coordinator.now.rows())
        await until(lambda: len(agent.log) == 0)
        address = coordinator.address
        await coordinator.stop()
        await until(lambda: len(agent.log) >= 2)  # probing goes on, results wait
        before = coordinator.now
        waiting = [row.outcome.rtt_us for row in agent.log.read(0, 100)[0]]
        await coordinator.start(address)
        stream = await until(lambda: coordinator.now is not before and coordinator.now)
        await until(lambda: set(waiting) <= set(stream.rows()))
        spoken = [kind for kind in stream.kinds() if kind not in ("hello", "heartbeat")]
        assert spoken[0] == "digest"
        assert stream.digests[0].streak[0] >= 3
        assert stream.digests[0].rtt_us[0] > 0
        assert stream.rows() == sorted(stream.rows())
        ages = [age for frame in stream.results[:1] for age in frame.age_ms]
        assert ages == sorted(ages, reverse=True)
        assert ages[0] >= 200  # the oldest waited for at least one more probe


async def test_what_was_not_acknowledged_is_sent_again_and_nothing_else() -> None:
    coordinator = Coordinator("c1", snapshot(target(1)))
    async with playing(coordinator):
        await until(lambda: coordinator.streams and len(coordinator.now.rows()) >= 1)
        first = coordinator.now
        await asyncio.sleep(0.05)  # its acknowledgement is under way
        coordinator.acks = False
        seen = len(first.rows())
        await until(lambda: len(first.rows()) >= seen + 2)
        acked = first.rows()[:seen]
        coordinator.acks = True
        first.out.put_nowait(None)
        await until(lambda: coordinator.now is not first and coordinator.now.rows())
        again = coordinator.now.rows()
        assert again[0] == acked[-1] + 1
        assert again[:2] == first.rows()[seen : seen + 2]


async def test_a_new_stream_uses_its_own_indexes_for_kept_results() -> None:
    coordinator = Coordinator("c1", snapshot(target(1, address="192.0.2.9")))
    async with playing(coordinator):
        await until(lambda: coordinator.streams and coordinator.now.rows())
        coordinator.acks = False
        first = coordinator.now
        await until(lambda: len(first.rows()) >= 2)
        coordinator.acks = True
        coordinator.first = [snapshot(target(77, address="192.0.2.9"), revision=5)]
        first.out.put_nowait(None)
        await until(lambda: coordinator.now is not first and coordinator.now.results)
        frame = coordinator.now.results[0]
        assert set(frame.target) == {77}
        assert frame.assignment_revision == 5
        assert list(coordinator.now.digests[0].target) == [77]


async def test_patient_results_travel_together_and_with_the_first_that_is_not() -> None:
    hour_ms = 3_600_000
    coordinator = Coordinator("c1", snapshot(target(1, interval_ms=hour_ms)))
    async with playing(coordinator) as agent:
        await until(lambda: coordinator.streams and coordinator.now.rows() and not len(agent.log))
        (identity,) = agent.uplink._targets

        def offer(number: int, patience_ms: int) -> None:
            outcome = Outcome(Kind.SUCCESS, rtt_us=number)
            agent.uplink.offer(ProbeResult(identity, outcome, agent.runner.now_ms(), patience_ms))

        for number in (11, 12, 13):
            offer(number, hour_ms)
            await asyncio.sleep(0.15)
        assert len(coordinator.now.results) == 1
        offer(14, 0)
        await until(lambda: len(coordinator.now.results) == 2)
        assert list(coordinator.now.results[1].rtt_us) == [11, 12, 13, 14]
        offer(15, 50)  # and none waits longer than it may
        await until(lambda: coordinator.now.rows()[-1] == 15)
        offer(16, hour_ms)
        await agent.uplink.drain(5.0)  # the last ones go when the agent ends
        assert coordinator.now.rows()[-1] == 16


async def test_frames_without_acknowledgement_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "MAX_UNACKED", 3)
    monkeypatch.setattr(link_module, "FLUSH_MS", 20)
    coordinator = Coordinator("c1", snapshot(*(target(n, interval_ms=1000) for n in range(1, 40))))
    coordinator.acks = False
    async with playing(coordinator) as agent:
        await until(lambda: agent.probes >= 39 and coordinator.streams)
        await asyncio.sleep(0.2)
        sent = coordinator.now.digests[-1].sequence + len(coordinator.now.results)
        assert sent == 3
        coordinator.acks = True
        for sequence in range(1, 4):
            ack = agent_pb2.ToAgent(ack=agent_pb2.Ack(sequence=sequence))
            coordinator.now.out.put_nowait(ack)
        await until(lambda: len(coordinator.now.rows()) >= 39)
        assert coordinator.now.rows()[:39] == list(range(1, 40))


async def test_long_digests_and_results_go_in_frames_of_bounded_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "FRAME_ROWS", 7)
    monkeypatch.setattr(link_module, "DIGEST_ROWS", 10)
    coordinator = Coordinator("c1", snapshot(*(target(n) for n in range(1, 31))))
    async with playing(coordinator) as agent:
        await until(lambda: coordinator.streams and len(coordinator.now.digests) == 3)
        assert [len(one.target) for one in coordinator.now.digests] == [10, 10, 10]
        address, first = coordinator.address, coordinator.now
        await coordinator.stop()
        await until(lambda: len(agent.log) >= 40)
        await coordinator.start(address)
        await until(lambda: coordinator.now is not first and len(coordinator.now.rows()) >= 40)
        lengths = [len(frame.target) for frame in coordinator.now.results]
        assert max(lengths) == 7
        assert coordinator.now.rows() == sorted(coordinator.now.rows())


async def test_the_buffer_is_bounded_and_what_it_drops_is_counted() -> None:
    coordinator = Coordinator("c1", snapshot(*(target(n) for n in range(1, 60))))
    async with playing(coordinator, bound=100) as agent:
        await until(lambda: agent.probes >= 59)
        dropped = metrics.DROPPED.labels("repeat")._value.get()
        address, first = coordinator.address, coordinator.now
        await coordinator.stop()
        before = agent.probes
        await until(lambda: agent.probes >= before + 150)
        assert len(agent.log) == 100
        assert agent.log.dropped >= 40
        assert metrics.DROPPED.labels("repeat")._value.get() - dropped == agent.log.dropped_repeats
        assert agent.log.dropped_repeats >= 40
        oldest = agent.log.read(0, 1)[0][0].outcome.rtt_us
        await coordinator.start(address)
        await until(lambda: coordinator.now is not first and coordinator.now.rows())
        assert coordinator.now.rows()[0] >= oldest


async def test_deltas_add_remove_and_retime_targets() -> None:
    coordinator = Coordinator("c1", snapshot(target(1), target(2)))
    async with playing(coordinator) as agent:
        await until(lambda: len(agent.runner) == 2)
        delta = snapshot(target(3), target(1, interval_ms=5000), revision=2, base=1, remove=[2])
        coordinator.now.out.put_nowait(delta)
        await until(lambda: any(3 in frame.target for frame in coordinator.now.results))
        assert len(agent.runner) == 3  # the one that went stays for a moment
        await until(lambda: len(agent.runner) == 2)
        frame = coordinator.now.results[-1]
        assert frame.assignment_revision == 2
        assert 2 not in frame.target
        standing = agent.runner.standing(("web", "192.0.2.1", 80, "tcp", "{}", 0, False))
        assert standing is not None
        assert standing.target.interval_ms == 5000
        assert len(coordinator.streams) == 1


async def test_a_delta_that_does_not_fit_ends_the_stream_and_a_snapshot_mends_it() -> None:
    coordinator = Coordinator("c1", snapshot(target(1)))
    async with playing(coordinator) as agent:
        await until(lambda: len(agent.runner) == 1)
        coordinator.first = [snapshot(target(1), target(2), revision=9)]
        coordinator.now.out.put_nowait(snapshot(target(2), revision=8, base=7))
        await until(lambda: len(coordinator.streams) == 2 and len(agent.runner) == 2)


async def test_a_set_that_comes_again_in_parts_loses_no_standing() -> None:
    coordinator = Coordinator("c1", snapshot(target(1), target(2)))
    async with playing(coordinator):
        await until(lambda: coordinator.streams and len(coordinator.now.rows()) >= 4)
        first = coordinator.now
        coordinator.first = [snapshot()]  # it knows nothing yet
        first.out.put_nowait(None)
        await until(lambda: coordinator.now is not first and coordinator.now.digests)
        assert not coordinator.now.digests[0].target
        coordinator.now.out.put_nowait(snapshot(target(7, address="192.0.2.1"), revision=2, base=1))
        coordinator.now.out.put_nowait(snapshot(target(8, address="192.0.2.2"), revision=3, base=2))
        await until(lambda: sum(len(one.target) for one in coordinator.now.digests) >= 2)
        streaks = [streak for one in coordinator.now.digests for streak in one.streak]
        assert all(streak >= 2 for streak in streaks)


async def test_two_coordinators_hear_every_result_of_a_target_that_is_probed_once() -> None:
    first = Coordinator("c1", snapshot(target(1, address="192.0.2.9")))
    second = Coordinator("c2", snapshot(target(5, address="192.0.2.9"), target(6)))
    async with playing(first, second) as agent:
        await until(lambda: first.streams and second.streams and len(agent.runner) == 2)
        await until(lambda: first.now.rows() and len(second.now.rows()) >= 6)
        assert {index for frame in first.now.results for index in frame.target} == {1}
        assert {index for frame in second.now.results for index in frame.target} == {5, 6}
        shared = [
            rtt
            for frame in second.now.results
            for index, rtt in zip(frame.target, frame.rtt_us, strict=True)
            if index == 5
        ]
        mine = first.now.rows()
        low, high = max(mine[0], shared[0]), min(mine[-1], shared[-1])
        both = [rtt for rtt in mine if low <= rtt <= high]
        assert both
        assert both == [rtt for rtt in shared if low <= rtt <= high]


async def test_coordinators_that_a_welcome_names_are_spoken_to_and_dropped_when_gone() -> None:
    second = Coordinator("c2", snapshot(target(2)))
    await second.start()
    first = Coordinator("c1", snapshot(target(1)))
    await first.start()
    first.members = [first.address, second.address]
    async with playing(first) as agent:
        await until(lambda: agent.uplink.streams == 2 and len(agent.runner) == 2)
        first.members = [first.address]
        await second.stop()
        await until(lambda: agent.uplink.streams == 1)
        first.now.out.put_nowait(None)  # its next welcome names itself alone
        await until(lambda: agent.uplink.streams == 1 and len(agent.uplink._links) == 1)
        await until(lambda: len(agent.runner) == 1)


async def test_one_coordinator_under_two_names_gets_one_stream() -> None:
    coordinator = Coordinator("c1", snapshot(target(1)))
    await coordinator.start()
    port = coordinator.address.rpartition(":")[2]
    coordinator.members = [f"localhost:{port}"]
    async with playing(coordinator) as agent:
        await until(lambda: len(coordinator.streams) >= 2)
        await until(lambda: len(agent.uplink._links) == 1 and agent.uplink.streams == 1)
        settled = len(coordinator.streams)
        await until(lambda: len(coordinator.now.rows()) >= 2)
        assert len(coordinator.streams) == settled  # the two names don't take turns


async def test_a_welcome_that_names_too_many_coordinators_is_followed_to_the_bound() -> None:
    coordinator = Coordinator("c1", snapshot(target(1)))
    await coordinator.start()
    coordinator.members = [coordinator.address, *(f"127.0.0.1:{port}" for port in range(1, 40))]
    async with playing(coordinator) as agent:
        await until(lambda: len(agent.uplink._links) == MAX_LINKS)
        await until(lambda: coordinator.now.rows())
        assert len(agent.uplink._links) == MAX_LINKS


async def test_without_any_coordinator_the_last_assignment_is_probed_on() -> None:
    coordinator = Coordinator("c1", snapshot(target(1)))
    async with playing(coordinator) as agent:
        await until(lambda: agent.probes >= 1)
        assert agent.uplink.trouble() == ""
        await coordinator.stop()
        await until(lambda: agent.uplink.streams == 0)
        before = agent.probes
        await until(lambda: agent.probes >= before + 2)
        assert agent.uplink.trouble() == ""  # it buffers


async def test_a_silent_coordinator_is_given_up_and_spoken_to_again() -> None:
    coordinator = Coordinator("c1", snapshot(target(1)))
    async with playing(coordinator):
        await until(lambda: coordinator.streams and coordinator.now.digests)
        coordinator.acks = coordinator.beats = False
        await until(lambda: len(coordinator.streams) == 2)


async def test_a_refusal_is_logged_once_with_the_coordinators_words(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "LAST_BACKOFF_S", 0.05)
    caplog.set_level("INFO")
    coordinator = Coordinator("c1")
    coordinator.refusal = "region r1 has an agent a1 already"
    async with playing(coordinator) as agent:
        await until(lambda: len(coordinator.streams) >= 3)
        said = [one for one in caplog.records if one.getMessage() == "stream ended"]
        assert [one.fields["reason"] for one in said] == [  # type: ignore[attr-defined]
            "refused: region r1 has an agent a1 already"
        ]
        assert "no coordinator reached yet" in agent.uplink.trouble()


async def test_a_digest_is_repeated_and_never_overtakes_results() -> None:
    coordinator = Coordinator("c1", snapshot(*(target(n) for n in range(1, 6))))
    coordinator.digest_ms = 1000
    async with playing(coordinator):
        await until(lambda: coordinator.streams and len(coordinator.now.digests) >= 3)
        counted: dict[int, int] = {}
        for message in coordinator.now.messages:
            if message.WhichOneof("message") == "results":
                for index in message.results.target:
                    counted[index] = counted.get(index, 0) + 1
            elif message.WhichOneof("message") == "digest":
                digest = message.digest
                for index, streak in zip(digest.target, digest.streak, strict=True):
                    assert counted.get(index, 0) == streak


async def test_the_part_probes_real_targets_and_ends_cleanly() -> None:
    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    origin = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = origin.sockets[0].getsockname()[1]
    alive = agent_pb2.Target(
        index=1, check="c", address="127.0.0.1", port=port, type="tcp", options="{}",
        interval_ms=1000, timeout_ms=500, fall=2, rise=2,
    )  # fmt: skip
    odd = agent_pb2.Target(
        index=2, check="c", address="127.0.0.1", port=port, type="tcp", options='{"x":1}',
        interval_ms=1000, timeout_ms=500, fall=2, rise=2,
    )  # fmt: skip
    coordinator = Coordinator("c1", snapshot(alive, odd))
    await coordinator.start()
    stop = asyncio.Event()
    settings = Settings(
        region="r1", coordinators=(coordinator.address,), http="127.0.0.1:0", insecure=True
    )
    part = asyncio.create_task(run(settings, stop))
    await until(lambda: coordinator.streams and len(coordinator.now.rows()) >= 2)
    seen = {
        index: (outcome, frame.reasons[reason])
        for frame in coordinator.now.results
        for index, outcome, reason in zip(frame.target, frame.outcome, frame.reason, strict=True)
    }
    assert seen == {
        1: (agent_pb2.OUTCOME_SUCCESS, ""),
        2: (
            agent_pb2.OUTCOME_NO_OPINION,
            "settings: this agent does not know the setting x",
        ),
    }
    assert any(frame.connect_us for frame in coordinator.now.results)
    hello = coordinator.now.messages[0].hello
    assert {"http", "https", "ping", "tcp", "family:ipv4"} <= set(hello.capabilities)
    stop.set()
    await asyncio.wait_for(part, 5)
    origin.close()
    await coordinator.stop()


BROKEN = [
    (Settings(region="no region"), "'no region' is no name"),
    (Settings(region="r1", id="-"), "id '-' is not 1 to 128"),
    (Settings(region="r1", http="7402", insecure=True), "is not HOST:PORT"),
    (Settings(region="r1", coordinators=()), "needs a coordinator"),
    (Settings(region="r1"), "the link to 127.0.0.1:7400 wants mutual TLS: give --ca"),
    (Settings(region="r1", ca="/ca.pem"), r"missing: --cert, --key\)"),
    (Settings(region="r1", ca="/ca.pem", insecure=True), "exclude each other"),
    (
        Settings(region="r1", ca="/nowhere/ca.pem", cert="/nowhere/c.pem", key="/nowhere/k.pem"),
        "cannot read /nowhere/ca.pem",
    ),
]


@pytest.mark.parametrize(("settings", "sentence"), BROKEN)
async def test_settings_that_can_not_work_end_the_part_with_one_sentence(
    settings: Settings, sentence: str
) -> None:
    with pytest.raises(StartError, match=sentence) as caught:
        await run(settings, asyncio.Event())
    assert "\n" not in str(caught.value)


# ---- what coordinators ask, and what they must not get -------------------------------------------


async def test_what_is_to_be_confirmed_is_probed_at_once_and_unknown_indexes_are_counted() -> None:
    hour_ms = 3_600_000
    coordinator = Coordinator("c1", snapshot(target(1, interval_ms=hour_ms)))
    async with playing(coordinator):
        await until(lambda: coordinator.streams and coordinator.now.rows())
        before = metrics.UNKNOWN._value.get()
        seen = len(coordinator.now.rows())
        asked = agent_pb2.Confirm(target=[1, 7, 2**32 - 1])
        coordinator.now.out.put_nowait(agent_pb2.ToAgent(confirm=asked))
        await until(lambda: len(coordinator.now.rows()) == seen + 1)
        assert metrics.UNKNOWN._value.get() == before + 2
        assert len(coordinator.streams) == 1


ABSURD = [
    (agent_pb2.ToAgent(ack=agent_pb2.Ack(sequence=10**9)), "acknowledged before it was sent"),
    (agent_pb2.ToAgent(place=agent_pb2.Place(rank=3, agents=3)), "no place in a region"),
    (agent_pb2.ToAgent(place=agent_pb2.Place(rank=0, agents=2**32 - 1)), "no place in a region"),
    (agent_pb2.ToAgent(confirm=agent_pb2.Confirm(target=[1] * 200_001)), "targets to confirm"),
    (snapshot(target(1), revision=9, base=8), "a delta to revision 8"),
]


@pytest.mark.parametrize(("message", "sentence"), ABSURD)
async def test_an_absurd_message_ends_its_stream_with_the_reason_and_no_other(
    message: agent_pb2.ToAgent, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Coordinator("c1", snapshot(target(1))), Coordinator("c2", snapshot(target(1)))
    async with playing(first, second):
        await until(lambda: all(one.streams and one.now.rows() for one in (first, second)))
        first.now.out.put_nowait(message)
        await until(lambda: len(first.streams) == 2)
        said = [getattr(one, "fields", {}).get("reason", "") for one in caplog.records]
        assert any(sentence in reason for reason in said)
        seen = len(second.now.rows())
        await until(lambda: len(second.now.rows()) > seen)
        assert len(second.streams) == 1


async def test_slots_follow_the_clock_of_the_coordinator_with_the_first_id() -> None:
    first, second = (Coordinator(id_, snapshot(target(1, interval_ms=3000))) for id_ in ("b", "a"))
    async with playing(first, second) as agent:
        await until(lambda: all(one.streams and one.now.digests for one in (first, second)))
        now_ms = agent.runner.now_ms()
        told = agent_pb2.Place(rank=1, agents=2)
        up_ms = {first: 9_000_000, second: 1_000_000}  # since their machines began
        for one, sent_ms in up_ms.items():
            heartbeat = agent_pb2.Heartbeat(count=1)
            one.now.out.put_nowait(agent_pb2.ToAgent(heartbeat=heartbeat, sent_ms=sent_ms))
        second.now.out.put_nowait(agent_pb2.ToAgent(place=told))
        aligned = await until(lambda: agent.runner._aligned and agent.runner._aligned[2] == 2)
        assert aligned
        base_ms, rank, _ = agent.runner._aligned
        assert 0 <= base_ms - (now_ms - up_ms[second]) < 5_000
        assert rank == 1
        second.now.out.put_nowait(None)  # its stream ends: the other one's clock, until it is back
        await until(lambda: agent.runner._aligned[0] < now_ms - 8_000_000)


async def test_a_lying_coordinator_gets_no_probe_of_what_the_agent_denies() -> None:
    """Whatever is assigned: metadata, link-local, odd texts, names that resolve to such."""
    denied = ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "2852039166", "0x7f.1",
              "100.100.100.200", "127.0.0.2", "224.0.0.1", "0.0.0.0"]  # fmt: skip
    touched: list[Any] = []

    async def probe(target: Target) -> Outcome:
        touched.append(target.address)
        return Outcome(Kind.SUCCESS, rtt_us=1)

    targets = [target(n, address=one, interval_ms=250) for n, one in enumerate((*denied, "::1"))]
    coordinator = Coordinator("c1", snapshot(*targets))
    async with playing(coordinator) as agent:
        guard = Guard(deny=["127.0.0.0/8"])
        agent.runner._probe_of = by_name(Names("127.0.0.1:1"), guard)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("agent.probes.tcp.probe", probe)
            await until(lambda: coordinator.streams and len(set(_told(coordinator.now))) == 10)
        kinds = dict(_told(coordinator.now))
        assert kinds.pop(9) == (agent_pb2.OUTCOME_SUCCESS, "")
        assert {kind for kind, _ in kinds.values()} == {agent_pb2.OUTCOME_NO_OPINION}
        _, name = kinds.pop(4)  # what may be a name is asked of the DNS server, and of nobody else
        assert name.startswith("agent has no dns server")
        assert all(why.startswith("agent denies the address: ") for _, why in kinds.values())
        assert set(touched) == {"::1"}


def _told(stream: Stream) -> list[tuple[int, tuple[int, str]]]:
    """(index, (outcome, reason)) of each result."""
    return [
        (index, (kind, frame.reasons[why]))
        for frame in stream.results
        for index, kind, why in zip(frame.target, frame.outcome, frame.reason, strict=True)
    ]


async def test_an_agent_without_opinion_says_so_at_once() -> None:
    coordinator = Coordinator("c1", snapshot(target(1)))
    async with playing(coordinator) as agent:
        await until(lambda: coordinator.streams and coordinator.now.rows())
        agent.uplink.without_opinion = "192.0.2.250 timeout"
        agent.uplink.beat()

        def beats() -> list[str]:
            return [one.heartbeat.without_opinion for one in coordinator.now.messages]

        await until(lambda: "192.0.2.250 timeout" in beats())


async def test_a_stopping_agent_says_goodbye_after_its_last_results() -> None:
    coordinator = Coordinator("c1", snapshot(target(1)))
    async with playing(coordinator) as agent:
        await until(lambda: coordinator.streams and coordinator.now.rows())
        stream = coordinator.now
        await agent.runner.drain(1.0)
        probes = agent.probes
        await agent.uplink.drain(5.0)
        leaving = asyncio.ensure_future(agent.uplink.leave(5.0))
        await until(lambda: stream.kinds()[-1] == "goodbye")
        stream.out.put_nowait(None)
        await leaving
        assert stream.rows()[-1] == probes
        assert len(agent.log) == 0
        assert coordinator.now is stream  # it does not come back


async def test_an_agent_that_is_told_to_stop_ends_with_status_0_after_its_goodbye() -> None:
    coordinator = Coordinator("c1", snapshot(target(1, address="127.0.0.1")))
    await coordinator.start()
    arguments = ("--region=r1", f"--coordinators={coordinator.address}", "--http=127.0.0.1:0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ctl", "agent", *arguments, "--insecure"
    )
    try:
        await until(lambda: coordinator.streams and coordinator.now.rows(), 30)
        stream = coordinator.now
        process.send_signal(signal.SIGTERM)
        await until(lambda: "goodbye" in stream.kinds(), 10)
        stream.out.put_nowait(None)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
        kinds = [kind for kind in stream.kinds() if kind != "heartbeat"]
        assert kinds[-1] == "goodbye"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await coordinator.stop()
