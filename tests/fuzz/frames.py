"""Agents' messages through the gateway's decoding into the engine, as octets off the wire.

A whole coordinator on a store in memory judges them. Whatever an agent sends, its stream goes on or
ends with a status of ours; the engine takes it within a bound, and honest agents are still heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from msgspec import Struct

from coordinator import columns
from coordinator.part import Coordinator
from coordinator.planner import Request
from coordinator.settings import Settings
from ctl.policy import DirectPolicy
from gtm.memory import MemoryStore
from gtm.v1 import agent_pb2 as pb
from tests.fuzz.octets import mutated

ADDRESSES = [f"192.0.2.{n}" for n in range(1, 41)]
RESOURCES = {
    "zones": {"gtm.test": {"nameservers": ["ns1.example.net"]}},
    "regions": {name: {} for name in ("eu", "us", "as")},
    "checks": {
        "web": {"type": "http", "port": 80, "interval": "1s", "timeout": "500ms"},
        "tcp": {"type": "tcp", "port": 80, "interval": "2s", "timeout": "1s", "fall": 1},
    },
    "pools": {
        name: {
            "type": "ipv4",
            "checks": [check],
            "addresses": [{"value": address} for address in ADDRESSES],
        }
        for name, check in (("a", "web"), ("b", "tcp"))
    },
    "instances": {
        "shop": {"rules": [{"name": "w", "lines": ["default"], "tiers": [{"pools": ["a", "b"]}]}]}
    },
}
CAPABLE = ("http", "tcp", "family:ipv4", "family:ipv6")
REGIONS = (
    "eu",
    "us",
    "as",
    "eu",
    "us",
    "as",
    "mars",
    "EU",
    "",
    "x" * 64,
    "a/b",
    "\u00e9",
    "-",
    "a\n",
)
AGENTS = ("x", "y", "z.1", "", "x" * 129, "a/b", "x\0", "\u2603")
NUMBERS = (0, 0, 1, 2, 3, 4, 100, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1)
LONG = (0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = ("", "timeout", "connection refused", "x" * 600, "\u2603" * 300, "a\nb\0c", '{"a": 1}')
ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}
WAIT_S = 20.0


class Given(Struct, frozen=True):
    """What decides the message: the dice, as what was assigned decides it too."""

    seed: int

    def dice(self) -> random.Random:
        """The same dice each time."""
        return random.Random(self.seed)


class Aborted(Exception):
    """The gateway ended the call with this status."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code, self.sentence = code, sentence


class Call:
    """One call of an agent as the gateway sees it; messages come as octets."""

    def __init__(self) -> None:
        self.revision = 0
        self.sequence = 0
        self.indexes: list[int] = []
        self.worst_s = 0.0
        self.wanting = asyncio.Event()
        self._coming: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._began = 0.0

    async def read(self) -> Any:
        """The gateway wants a message: it is done with the one before."""
        self.done()
        self.wanting.set()
        data = await self._coming.get()
        self._began = time.thread_time()
        return grpc.aio.EOF if data is None else pb.FromAgent.FromString(data)

    def done(self) -> None:
        """Note the time since the last message came."""
        if self._began:
            self.worst_s, self._began = time.thread_time() - self._began, 0.0

    async def write(self, message: pb.ToAgent) -> None:
        """What the agent gets."""
        for target in message.assignment.set:
            self.indexes.append(target.index)
        self.revision = max(self.revision, message.assignment.revision)

    async def abort(self, code: grpc.StatusCode, sentence: str) -> None:
        """As gRPC does."""
        raise Aborted(code, sentence)

    def send(self, data: bytes | None) -> None:
        """Hand the gateway its next message; None ends the stream."""
        self.wanting.clear()
        self._coming.put_nowait(data)


class Frames:
    """A coordinator and the stream of one agent after another."""

    name = "frames"

    async def __aenter__(self) -> Frames:
        logging.getLogger("coordinator").setLevel(logging.CRITICAL)
        settings = Settings(id="c1", grpc="127.0.0.1:0", http="127.0.0.1:0")
        self.coordinator = Coordinator(settings, MemoryStore(), DirectPolicy())
        self._task: asyncio.Task[None] | None = None
        await self.coordinator.start()
        done = await self.coordinator.applier.apply(Request(given=RESOURCES))
        assert done.applied, done
        async with asyncio.timeout(WAIT_S):
            while len(self.coordinator.engine.targets()) != 2 * len(ADDRESSES):
                await asyncio.sleep(0.01)
        self._call: Call | None = None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.coordinator.close()
        logging.getLogger("coordinator").setLevel(logging.NOTSET)

    def make(self, dice: random.Random) -> Given:
        """A seed."""
        return Given(dice.getrandbits(64))

    async def feed(self, given: Given, counts: Counter[str]) -> float:
        """Send one message, on a new stream where there is none; the time of its judgement."""
        dice = given.dice()
        if self._task is None:
            self._call = Call()
            self._task = asyncio.create_task(self.coordinator.gateway.Connect(None, self._call))
            data = mutated(dice, _hello(dice)) if dice.random() < 0.1 else _hello(dice)
            counts["hellos"] += 1
        else:
            data = message(dice, self._call)
            counts["frames"] += 1
        call, task = self._call, self._task
        assert call is not None
        await self._either(call, task)
        call.send(data)
        await self._either(call, task)
        call.done()
        if task.done():
            self._task = None
            self._ended(task, counts)
        return call.worst_s

    def limit_s(self, given: Given) -> float:
        """Twice what the largest frame that is taken costs on a slow machine."""
        return 2.0

    async def _either(self, call: Call, task: asyncio.Task[None]) -> None:
        """Until the gateway wants a message or has ended the call."""
        async with asyncio.timeout(WAIT_S):
            while not (call.wanting.is_set() or task.done()):
                wanting = asyncio.ensure_future(call.wanting.wait())
                await asyncio.wait({wanting, task}, return_when=asyncio.FIRST_COMPLETED)
                wanting.cancel()

    def _ended(self, task: asyncio.Task[None], counts: Counter[str]) -> None:
        error = task.exception()
        if error is None:
            counts["streams ended in order"] += 1
        elif isinstance(error, Aborted):
            assert error.code in ALLOWED, error
            assert len(error.sentence) < 1000, f"a sentence of {len(error.sentence)} characters"
            counts[f"refused as {error.code.name.lower().replace('_', ' ')}"] += 1
        else:
            raise error
        assert not self.coordinator.gateway.streams, "a stream that ended is still listed"

    async def honest(self) -> bool:
        """Whether agents of all regions that tell of success are believed, after all that."""
        calls = []
        async with contextlib.AsyncExitStack() as ending:
            for region in ("eu", "us", "as"):
                call = Call()
                task = asyncio.create_task(self.coordinator.gateway.Connect(None, call))
                ending.callback(task.cancel)
                calls.append(call)
                await self._either(call, task)
                hello = pb.Hello(region=region, agent_id="honest", capabilities=CAPABLE)
                call.send(pb.FromAgent(hello=hello).SerializeToString())
            async with asyncio.timeout(WAIT_S):
                while not all(len(call.indexes) == 2 * len(ADDRESSES) for call in calls):
                    await asyncio.sleep(0.01)
                while not self._all_up():
                    for call in calls:
                        await call.wanting.wait()
                        rows = len(call.indexes)
                        results = _results(call, call.indexes, [pb.OUTCOME_SUCCESS] * rows)
                        call.sequence += 1
                        call.send(pb.FromAgent(results=results).SerializeToString())
                    await asyncio.sleep(0.05)
        return self._all_up()

    def _all_up(self) -> bool:
        views = self.coordinator.engine.verdicts("", self.coordinator.judge.now)
        return len(views) == 2 * len(ADDRESSES) and all(view.verdict == "up" for view in views)


def _hello(dice: random.Random) -> bytes:
    good = dice.random() < 0.8
    capabilities = (
        CAPABLE if good else dice.choice(((), ("http",), CAPABLE * 40, ("\0", "family:")))
    )
    hello = pb.Hello(
        region=dice.choice(REGIONS[:3] if good else REGIONS),
        agent_id=dice.choice(AGENTS[:3] if good else AGENTS),
        version=dice.choice(TEXTS),
        capabilities=capabilities,
    )
    return pb.FromAgent(hello=hello, sent_ms=_clock(dice)).SerializeToString()


def _clock(dice: random.Random) -> int:
    """An agent's clock in milliseconds: going, standing still, or running wild."""
    return int(time.monotonic() * 1000) if dice.random() < 0.95 else dice.choice(LONG)


def message(dice: random.Random, call: Call | None) -> bytes:
    """A frame, a digest or something else; good, wrong in one way, or mutated octets."""
    assert call is not None
    kind = dice.random()
    if kind < 0.03:
        return dice.randbytes(int(300 ** dice.random()))
    if kind < 0.05:
        blind = pb.Heartbeat(count=1, without_opinion=dice.choice(TEXTS))
        beats = (pb.FromAgent(heartbeat=one) for one in (pb.Heartbeat(count=1), blind))
        given = dice.choice((pb.FromAgent(), *beats))
        return given.SerializeToString() + dice.choice((b"", b"\xfa\x01\x02ab"))
    if kind < 0.055:
        return pb.FromAgent(goodbye=pb.Goodbye()).SerializeToString()
    if kind < 0.06:
        return _hello(dice)
    rows = _rows(dice)
    known = call.indexes or [0]
    target, outcome = dice.choices(known, k=rows), dice.choices((1, 1, 2, 3), k=rows)
    frame = _results(call, target, outcome) if kind < 0.7 else _digest(dice, call, target, outcome)
    if dice.random() < 0.5:
        frame.reasons.extend(dice.choice(TEXTS) for _ in range(dice.choice((1, 2, 5, 50))))
        frame.reasons.append(f"reason {dice.getrandbits(40)}")
        most = len(frame.reasons)
        frame.reason[:] = dice.choices(range(most), k=rows)
    if dice.random() < 0.3 and "dns_us" in frame.DESCRIPTOR.fields_by_name:
        for name in columns.PHASES:
            getattr(frame, name).extend(dice.choices(NUMBERS, k=rows))
    if dice.random() < 0.15:
        _spoil(dice, frame)
    results = isinstance(frame, pb.Results)
    whole = pb.FromAgent(results=frame) if results else pb.FromAgent(digest=frame)
    if dice.random() < 0.5:
        whole.sent_ms = _clock(dice)
    data = whole.SerializeToString()
    if dice.random() < 0.06:
        data = mutated(dice, data, 2)
    try:  # what the stream will count, to stay in step
        read = pb.FromAgent.FromString(data)
    except DecodeError:
        return data
    call.sequence += read.WhichOneof("message") in ("results", "digest")
    return data


def _rows(dice: random.Random) -> int:
    kind = dice.random()
    if kind < 0.0005:
        return columns.MAX_ROWS + dice.choice((0, 1))
    return dice.choice((0, 1, 1, 2, 10, 80)) if kind < 0.99 else dice.choice((300, 3_000))


def _results(call: Call, target: list[int], outcome: list[int]) -> pb.Results:
    rows = len(target)
    return pb.Results(
        sequence=call.sequence + 1,
        assignment_revision=call.revision,
        target=target,
        outcome=outcome,
        age_ms=[0] * rows,
        rtt_us=[900] * rows,
        reason=[0] * rows,
        reasons=[""],
    )


def _digest(dice: random.Random, call: Call, target: list[int], outcome: list[int]) -> pb.Digest:
    rows = len(target)
    return pb.Digest(
        sequence=call.sequence + 1,
        assignment_revision=call.revision,
        target=target,
        outcome=outcome,
        streak=dice.choices(NUMBERS, k=rows),
        age_ms=dice.choices((0, 10, 900), k=rows),
        rtt_us=dice.choices(NUMBERS, k=rows),
        reason=[0] * rows,
        reasons=[""],
    )


def _spoil(dice: random.Random, frame: Any) -> None:
    """Make one or two things wrong: a number out of range, a column too short, another sequence."""
    names = [
        name
        for name, field in frame.DESCRIPTOR.fields_by_name.items()
        if field.is_repeated and name != "reasons"
    ]
    for _ in range(dice.randint(1, 2)):
        column = getattr(frame, dice.choice(names))
        match dice.randrange(6):
            case 0 if column:
                column[dice.randrange(len(column))] = dice.choice(NUMBERS)
            case 1:
                del column[dice.randint(0, len(column)) :]
            case 2:
                column.append(dice.choice(NUMBERS))
            case 3:
                frame.assignment_revision = dice.choice(LONG)
            case 4 if dice.random() < 0.3:
                frame.sequence = dice.choice(LONG)
            case 5:
                del frame.reasons[dice.randint(0, len(frame.reasons)) :]
