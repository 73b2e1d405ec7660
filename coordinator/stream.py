"""One agent's stream: its frames into events, assignments and acknowledgements out.

Nothing queues here: a frame is judged before the next one is read, only the newest acknowledgement
counts, and an assignment is made when it can be sent. What is malformed ends the stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from gtm.v1 import agent_pb2 as pb

from . import columns, metrics
from .assignment import Assignment, UsedUp
from .callers import ANYBODY
from .delay import Delay
from .events import Digest, Frame, Incoming
from .views import Assigned

HEARTBEAT_S = 5.0
"""Both sides send something at least this often."""
SILENCE_S = 3 * HEARTBEAT_S
"""After so long without a word the agent is taken for gone."""
DIGEST_S = 60.0
MAX_REASON_CHARS = 200
"""Characters of an agent's own reason that are kept."""
MAX_CONFIRM = 10_000
"""Targets that wait to be asked for in one stream; of more the ordinary pace must do."""


class Ended(Exception):
    """The stream ends by our word: a status code, a sentence, and a word for the metrics."""

    def __init__(self, code: grpc.StatusCode, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence, self.reason = code, sentence, reason


async def received(context: Any) -> Any:
    """The next message of an agent, or EOF. Raises Ended for what can't be read."""
    try:
        return await context.read()
    except DecodeError:
        raise Ended(
            grpc.StatusCode.INVALID_ARGUMENT, "octets that are no message of an agent", "malformed"
        ) from None


class Stream:
    """A stream whose first message, a hello, was accepted; `handle` takes its events."""

    def __init__(self, first: pb.FromAgent, handle: Callable[[Incoming], None]) -> None:
        hello = first.hello
        self.region: str = hello.region
        self.agent: str = hello.agent_id
        self.version: str = hello.version
        self.since = time.time()
        self.caller = ANYBODY
        """Whose certificate the link has."""
        self.assignment = Assignment(hello.capabilities, hello.region)
        self.results = 0
        self.refused = 0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handle = handle
        self._heard = time.monotonic()
        self._delay = Delay()
        self._late_ms(first)
        self._sequence = 0
        self._acked = 0
        self._dirty = False
        self._snapshot = 0
        """The revision that completed the first assignment; 0 before that was sent."""
        self._digest = 0
        """The newest revision that a whole digest spoke of."""
        self._coordinators: tuple[str, ...] = ()
        self._told: tuple[str, ...] = ()
        self._place: tuple[int, int, tuple[str, ...]] = (0, 1, ())
        self._placed: tuple[int, int, tuple[str, ...]] | None = None
        self.without_opinion = ""
        self._confirm: dict[Assigned, None] = {}
        self._wake = asyncio.Event()

    @property
    def name(self) -> tuple[str, str]:
        """Region and agent id: what tells one agent from another."""
        return (self.region, self.agent)

    @property
    def heard_s(self) -> float:
        """Seconds since the last message."""
        return time.monotonic() - self._heard

    @property
    def digested(self) -> bool:
        """Whether the agent has said where it stands with all that it was first assigned."""
        return 0 < self._snapshot <= self._digest

    def tell(self, coordinators: tuple[str, ...]) -> None:
        """These are the addresses of all coordinators from now on."""
        self._coordinators = coordinators
        if coordinators != self._told:
            self._wake.set()

    def assign(self, targets: Iterable[Assigned]) -> None:
        """The agent should probe these from now on."""
        first = not self.assignment.revision  # sent even if it is empty
        self._dirty = self.assignment.refresh(targets) or first or self._dirty
        if self._dirty:
            self._wake.set()

    def place(self, rank: int, agents: int, canaries: tuple[str, ...]) -> None:
        """The agent is number `rank` of `agents` in its region, whose canaries these are."""
        self._place = (rank, agents, canaries)
        if self._place != self._placed:
            self._wake.set()

    def confirm(self, targets: Iterable[Assigned]) -> None:
        """The agent should probe these at once, as far as they are its own."""
        for target in targets:
            if self.region in target.regions and len(self._confirm) < MAX_CONFIRM:
                self._confirm[target] = None
        if self._confirm:
            self._wake.set()

    def end(self, ended: Ended) -> None:
        """End the stream, whatever its agent does."""
        if not self._ended.done():
            self._ended.set_exception(ended)

    async def over(self) -> None:
        """Wait until `end` is called, and raise what it was given."""
        await self._ended

    # ---- up ------------------------------------------------------------------------------------

    async def read(self, context: Any) -> None:
        """Take messages until the agent ends the stream. Raises Ended."""
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    message = await received(context)
            except TimeoutError:
                raise Ended(
                    grpc.StatusCode.UNAVAILABLE,
                    f"no word from the agent for {SILENCE_S:g} s",
                    "silence",
                ) from None
            if message is grpc.aio.EOF:
                return
            if self._ended.done():
                self._ended.result()  # another stream speaks for the agent already
            self._heard = time.monotonic()
            try:
                self._take(message)
            except columns.Malformed as error:
                raise Ended(grpc.StatusCode.INVALID_ARGUMENT, str(error), "malformed") from None

    def _take(self, message: pb.FromAgent) -> None:
        late_ms = self._late_ms(message)
        match message.WhichOneof("message"):
            case "results":
                self._numbered(message.results.sequence)
                frame = self._known(message.results, columns.RESULTS, late_ms)
                if frame is not None:
                    self._handle(
                        Frame(
                            region=self.region,
                            agent=self.agent,
                            target=frame.targets,
                            reasons=frame.reasons,
                            phases=frame.phases,
                            **frame.values,
                        )
                    )
            case "digest":
                self._numbered(message.digest.sequence)
                if not message.digest.partial:
                    self._digest = max(self._digest, message.digest.assignment_revision)
                frame = self._known(message.digest, columns.DIGEST, late_ms)
                if frame is not None:
                    self._handle(
                        Digest(
                            region=self.region,
                            agent=self.agent,
                            target=frame.targets,
                            reasons=frame.reasons,
                            **frame.values,
                        )
                    )
            case "heartbeat":
                self.without_opinion = message.heartbeat.without_opinion[:MAX_REASON_CHARS]
                return
            case "goodbye":
                raise Ended(grpc.StatusCode.OK, "the agent stopped", "left")
            case "hello":
                raise columns.Malformed("a second hello in one stream")
            case _:
                return  # a message of a later version
        self._wake.set()

    def _late_ms(self, message: pb.FromAgent) -> int:
        return self._delay.late_ms(message.sent_ms, int(self._heard * 1000))

    def _numbered(self, sequence: int) -> None:
        if sequence != self._sequence + 1:
            raise columns.Malformed(f"frame {sequence} came after frame {self._sequence}")
        self._sequence = sequence

    def _known(self, message: Any, names: tuple[str, ...], late_ms: int) -> columns.Columns | None:
        read = columns.read(message, names)
        read.values["age_ms"] += late_ms
        rows, numbers = self.assignment.take(message.assignment_revision, read.targets)
        known = len(numbers)
        refused = len(read.targets) - known
        self.results += known
        self.refused += refused
        metrics.RESULTS.inc(known)
        metrics.REFUSED_ROWS.inc(refused)
        return read.kept(rows, numbers) if known else None

    # ---- down ----------------------------------------------------------------------------------

    async def write(self, context: Any, welcome: pb.Welcome) -> None:
        """Send what there is to send until cancelled. Raises Ended."""
        self._told = self._coordinators
        welcome.coordinators.extend(self._told)
        await self._send(context, pb.ToAgent(welcome=welcome))
        beats = 0
        while True:
            self._wake.clear()
            if self._told != self._coordinators:
                self._told = self._coordinators
                named = pb.Coordinators(addresses=self._told)
                await self._send(context, pb.ToAgent(coordinators=named))
            if self._placed != self._place:
                self._placed = self._place
                rank, agents, canaries = self._place
                place = pb.Place(rank=rank, agents=agents, canaries=canaries)
                await self._send(context, pb.ToAgent(place=place))
            if self._dirty:
                self._dirty = False
                try:
                    for assignment in self.assignment.messages():
                        await self._send(context, pb.ToAgent(assignment=assignment))
                    self._snapshot = self._snapshot or self.assignment.revision
                except UsedUp:
                    raise Ended(
                        grpc.StatusCode.UNAVAILABLE,
                        "the stream's indexes are used up: connect again",
                        "indexes",
                    ) from None
            if self._confirm:
                asked, self._confirm = self._confirm, {}
                indexes = [self.assignment.index(target) for target in asked]
                known = [index for index in indexes if index is not None]
                if known:
                    await self._send(context, pb.ToAgent(confirm=pb.Confirm(target=known)))
            if self._acked < self._sequence:
                self._acked = self._sequence
                await self._send(context, pb.ToAgent(ack=pb.Ack(sequence=self._acked)))
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._wake.wait()
            except TimeoutError:
                beats += 1
                await self._send(context, pb.ToAgent(heartbeat=pb.Heartbeat(count=beats)))

    async def _send(self, context: Any, message: pb.ToAgent) -> None:
        message.sent_ms = time.monotonic_ns() // 1_000_000
        await context.write(message)
