"""One stream to one coordinator: hello, digest, results in order until acknowledged, heartbeats.

Decides when to send what on this stream and when it is dead; `uplink` decides which coordinators
there are. A stream that ends is opened again after a jittered back-off; what was not acknowledged
on the old one is sent again on the new one, after its digest. Never drops a result: the log does.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc
import grpc.aio
from msgspec import Struct

from gtm import tls_files
from gtm.apart import Apart
from gtm.errors import StartError
from gtm.links import Tls, channel
from gtm.telemetry import transition
from gtm.v1 import agent_pb2
from gtm.v1.agent_pb2_grpc import AgentsStub

from . import metrics
from .frames import DIGEST_ROWS, FRAME_ROWS, digest_frame, digest_rows, results_frame
from .probes.base import Identity
from .results import ResultLog
from .runner import Runner
from .targets import MAX_TARGETS, Assigned

FLUSH_MS = 100
"""Results go out at most this often, unless FRAME_ROWS of them wait."""
NEVER_MS = 1 << 62
"""When nothing is due."""
MAX_UNACKED = 64
"""Frames sent and not acknowledged; then results wait in the log."""
HELLO_TIMEOUT_S = 5.0
"""From the start of a stream until its welcome."""
MAX_PLACES = 100_000
"""Agents of one region, as far as a coordinator is believed."""
MAX_CANARIES = 16
"""Canaries of one coordinator that are taken."""
SILENT_HEARTBEATS = 3
"""A coordinator unheard for so many heartbeats is given up."""
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.1, 3.0
"""Between streams: doubling, and each time multiplied by something in 0.5 .. 1."""

REFUSING = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
"""Codes by which a coordinator says that it does not want this agent."""

log = logging.getLogger("agent")


class Refused(Exception):
    """The coordinator does not want this agent, or speaks another language; with its words."""


class Ended(Exception):
    """The stream is over, and why."""


class Hello(Struct, frozen=True):
    """Who this agent is."""

    region: str
    agent_id: str
    version: str
    capabilities: tuple[str, ...]
    incarnation: str

    def message(self) -> agent_pb2.FromAgent:
        """The first message of a stream."""
        return agent_pb2.FromAgent(
            hello=agent_pb2.Hello(
                region=self.region,
                agent_id=self.agent_id,
                version=self.version,
                capabilities=self.capabilities,
                incarnation=self.incarnation,
            )
        )


class Link:
    """The stream to the coordinator at `address`.

    `on_change` is called whenever its welcome, its assignment or its being open has changed,
    `on_ack` whenever results may have been acknowledged.
    """

    def __init__(
        self,
        address: str,
        hello: Hello,
        results: ResultLog,
        runner: Runner,
        on_change: Callable[[], None],
        on_ack: Callable[[], None],
        tls: Tls,
        insecure: bool,
        without_opinion: Callable[[], str] = str,
    ) -> None:
        self.address = address
        self.assigned = Assigned()
        """Of the stream that is open, or else of the last one."""
        self.has_assignment = False
        """Whether the stream that is open has brought one."""
        self.coordinator_id = ""
        """"" while no stream is open."""
        self.last_id = ""
        """The coordinator of the last stream that was open."""
        self.lost_ms = 0
        """When that ended."""
        self.members: tuple[str, ...] = ()
        """The coordinators that this one named last."""
        self.acked = results.end
        """Position up to which results need no sending."""
        self.met = False
        """Whether it was ever welcomed: only then are results kept for it while it is gone."""
        self._hello = hello
        self._results = results
        self._runner = runner
        self._on_change = on_change
        self._on_ack = on_ack
        self._tls = tls
        self._insecure = insecure
        self._without_opinion = without_opinion
        self._leaving = False
        self._left = asyncio.Event()
        self._wake = asyncio.Event()
        self._trouble = ""
        self._reset()

    def _reset(self) -> None:
        self.coordinator_id, self.has_assignment = "", False
        self._sent = self.acked
        self._sequence = 0
        self._unacked: deque[tuple[int, int]] = deque()  # (sequence, position after it)
        self._fresh: list[Identity] = []  # targets whose standing the coordinator should hear
        self._digest_at_ms = 0
        self._flush_at_ms = 0  # no sooner than that
        self._due_ms = 0  # the results that wait go then
        self._heartbeats = 0
        self.base_ms: int | None = None
        self.place = (0, 1)
        self.canaries: tuple[str, ...] = ()
        self._apart = Apart()
        self._beat_due = False
        self._timed = (0, 0)  # (sequence of the frame that is timed, when it was sent); 0: none
        self._heartbeat_ms = 1000
        self._digest_ms = 60_000
        self._heard_ms = self._runner.now_ms()

    @property
    def open(self) -> bool:
        """Whether the coordinator has welcomed this agent and is being heard."""
        return bool(self.coordinator_id)

    def offered(self, patience_ms: int) -> None:
        """There are new results, which may wait for so long."""
        if not self.met:
            self.acked = self._sent = self._results.end  # its first digest will say it all
            self._on_ack()
        elif self.has_assignment:
            due_ms = max(self._runner.now_ms() + patience_ms, self._flush_at_ms)
            if due_ms < self._due_ms or self._results.end - self._sent >= FRAME_ROWS:
                self._due_ms = min(self._due_ms, due_ms)
                self._wake.set()

    @property
    def flushed(self) -> bool:
        """Whether everything was sent and acknowledged."""
        return self.acked >= self._results.end

    def beat(self) -> None:
        """Send a heartbeat at once."""
        self._beat_due = True
        self._wake.set()

    async def leave(self) -> None:
        """Say goodbye and wait until the stream has ended."""
        self._leaving = True
        self._wake.set()
        if self.open:
            await self._left.wait()

    async def run(self) -> None:
        """Keep the stream open until cancelled."""
        backoff = FIRST_BACKOFF_S
        while True:
            welcomed = False
            try:
                await self._session()
            except Refused as error:
                self._note(f"refused: {error}")
                backoff = LAST_BACKOFF_S
            except (Ended, StartError, ValueError) as error:
                self._note("; ".join(filter(None, (str(error), tls_files.hint(self._tls)))))
            except Exception as error:  # a shell: whatever it is, the agent goes on
                log.error("link to %s", self.address, exc_info=error)
            finally:
                welcomed = self.open
                if welcomed:
                    self.lost_ms = self._runner.now_ms()
                    metrics.RECONNECTS.inc()
                self._reset()
                self._on_change()
            self._left.set()
            if self._leaving:
                return
            self._left.clear()
            if welcomed:
                backoff = FIRST_BACKOFF_S
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(LAST_BACKOFF_S, backoff * 2)

    def _note(self, trouble: str) -> None:
        """Log the first of several equal troubles."""
        if trouble != self._trouble:
            self._trouble = trouble
            transition(
                log, "stream ended", logging.WARNING, coordinator=self.address, reason=trouble
            )

    async def _session(self) -> None:
        files = tls_files.stamp(self._tls)
        async with channel(self.address, self._tls, insecure=self._insecure) as wire:
            call = AgentsStub(wire).Connect()  # type: ignore[no-untyped-call]
            try:
                async with asyncio.timeout(HELLO_TIMEOUT_S):
                    await self._send(call, self._hello.message())
                    first = await call.read()
            except TimeoutError:
                raise Ended("no welcome in time") from None
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                raise await _end(call) from error
            if first is grpc.aio.EOF:
                raise await _end(call)
            self._welcome(first)
            jobs = (self._read(call), self._write(call), self._watch(), self._renewed(files))
            tasks = [asyncio.create_task(job) for job in jobs]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                call.cancel()
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            troubles = [end for end in ends if isinstance(end, Ended | Refused | ValueError)]
            raise troubles[0] if troubles else Ended(f"stream broke: {ends[0]!r}")

    def _welcome(self, message: Any) -> None:
        if message.WhichOneof("message") != "welcome":
            raise Refused("its first message is no welcome")
        welcome = message.welcome
        self.coordinator_id = welcome.coordinator_id or self.address
        self.last_id = self.coordinator_id
        self.members = tuple(welcome.coordinators)
        self._heartbeat_ms = max(100, welcome.heartbeat_ms or 1000)
        self._digest_ms = max(1000, welcome.digest_ms or 60_000)
        self._heard_ms = self._runner.now_ms()
        self._clock(message)
        self._trouble = ""
        self.met = True
        transition(log, "stream open", coordinator=self.address, id=self.coordinator_id)
        self._on_change()

    async def _watch(self) -> None:
        """Ended once the coordinator is silent, whatever the other two jobs wait for."""
        patience_ms = SILENT_HEARTBEATS * self._heartbeat_ms
        while (  # noqa: ASYNC110 (nothing tells of silence)
            left_ms := self._heard_ms + patience_ms - self._runner.now_ms()
        ) > 0:
            await asyncio.sleep(left_ms / 1000)
        raise Ended(f"nothing heard for {patience_ms} ms")

    async def _renewed(self, files: tls_files.Stamp) -> None:
        """Ended once there are new certificates: the next stream shows them."""
        if not self._tls:
            await asyncio.Event().wait()
        await tls_files.changed(self._tls, files)
        raise Ended("our certificates are new: the next stream shows them")

    # ---- down ----------------------------------------------------------------------------------

    async def _read(self, call: Any) -> None:
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                self._heard_ms = self._runner.now_ms()
                self._clock(message)
                match message.WhichOneof("message"):
                    case "assignment":
                        self._take_assignment(message.assignment)
                    case "ack":
                        self._take_ack(message.ack.sequence)
                    case "coordinators":
                        self.members = tuple(message.coordinators.addresses)
                        self._on_change()
                    case "confirm":
                        self._take_confirm(message.confirm.target)
                    case "place":
                        self._take_place(message.place)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise await _end(call) from error
        raise await _end(call)

    def _take_assignment(self, message: agent_pb2.Assignment) -> None:
        refused = self.assigned.refused
        if not message.base:
            self.assigned = Assigned()
        came = self.assigned.apply(message)
        if self.assigned.refused > refused:
            transition(log, "too many targets", logging.ERROR, coordinator=self.address)
        if message.base:
            self._fresh += came
        else:  # a digest of all of them comes first
            self.has_assignment = True
            self._digest_at_ms = 0
        self._on_change()
        self._wake.set()

    def _clock(self, message: Any) -> None:
        """Note what the coordinator's clock shows."""
        if not message.sent_ms:
            return
        base_ms = self._apart.heard(message.sent_ms, self._heard_ms)
        if base_ms != self.base_ms:
            self.base_ms = base_ms
            self._on_change()

    def _take_confirm(self, indexes: Sequence[int]) -> None:
        if len(indexes) > MAX_TARGETS:
            raise ValueError(f"{len(indexes)} targets to confirm; {MAX_TARGETS} are taken")
        known = self.assigned.known(indexes)
        metrics.UNKNOWN.inc(len(indexes) - len(known))
        self._runner.confirm(known)

    def _take_place(self, place: agent_pb2.Place) -> None:
        if not place.rank < place.agents <= MAX_PLACES:
            raise ValueError(f"agent {place.rank} of {place.agents} is no place in a region")
        self.place = (place.rank, place.agents)
        self.canaries = tuple(place.canaries[:MAX_CANARIES])
        self._on_change()

    def _take_ack(self, sequence: int) -> None:
        if sequence > self._sequence:
            raise ValueError(f"frame {sequence} was acknowledged before it was sent")
        timed, sent_ms = self._timed
        if 0 < timed <= sequence:
            metrics.ACKNOWLEDGED.observe((self._runner.now_ms() - sent_ms) / 1000)
            self._timed = (0, 0)
        while self._unacked and self._unacked[0][0] <= sequence:
            self.acked = max(self.acked, self._unacked.popleft()[1])
        self._on_ack()
        self._wake.set()

    # ---- up ------------------------------------------------------------------------------------

    async def _write(self, call: Any) -> None:
        heartbeat_at_ms = self._runner.now_ms()
        try:
            while True:
                now = self._runner.now_ms()
                if self._leaving:
                    await self._send(call, agent_pb2.FromAgent(goodbye=agent_pb2.Goodbye()))
                    await call.done_writing()
                    await asyncio.Event().wait()  # the coordinator ends the stream
                if now >= heartbeat_at_ms or self._beat_due:
                    self._heartbeats += 1
                    self._beat_due = False
                    beat = agent_pb2.Heartbeat(
                        count=self._heartbeats, without_opinion=self._without_opinion()
                    )
                    await self._send(call, agent_pb2.FromAgent(heartbeat=beat))
                    heartbeat_at_ms = now + self._heartbeat_ms
                wake = heartbeat_at_ms
                if self.has_assignment:
                    wake = min(wake, await self._speak(call, now))
                await self._sleep((wake - self._runner.now_ms()) / 1000)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise await _end(call) from error

    async def _speak(self, call: Any, now: int) -> int:
        """Send what is due of digests and results; when to look again."""
        if self._digest_at_ms == 0:  # opens the stream
            await self._digest(call, None)
            self._digest_at_ms = now + self._digest_ms
        elif now >= self._digest_at_ms and await self._flush(call):
            await self._digest(call, None)  # what it contains was sent before
            self._digest_at_ms = now + self._digest_ms
        elif self._fresh:
            fresh, self._fresh = self._fresh, []
            known = [one for one in fresh if (at := self._runner.standing(one)) and at.outcome]
            # By another coordinator's stream, or from before. Without any it is empty: the
            # coordinator waits for a word about all that it assigned.
            await self._digest(call, known)
        if now >= self._due_ms or self._results.end - self._sent >= FRAME_ROWS:
            self._flush_at_ms = now + FLUSH_MS
            self._due_ms = NEVER_MS  # results that come while these are written set it again
            if not await self._flush(call):
                self._due_ms = self._flush_at_ms
        due_ms = min(self._digest_at_ms, self._due_ms)
        return due_ms if due_ms > now else now + FLUSH_MS

    async def _flush(self, call: Any) -> bool:
        """Send the results that wait; False where too many frames are unacknowledged."""
        while self._sent < self._results.end:
            if len(self._unacked) >= MAX_UNACKED:
                return False
            rows, end = self._results.read(self._sent, FRAME_ROWS)
            frame = results_frame(rows, self.assigned, self._runner.now_ms())
            self._sent = end
            if frame is None:
                if self._unacked:  # handled once what was sent before it is
                    self._unacked[-1] = (self._unacked[-1][0], end)
                else:
                    self.acked = end
                    self._on_ack()
                continue
            self._sequence += 1
            frame.sequence = self._sequence
            self._time()
            self._unacked.append((self._sequence, end))
            await self._send(call, agent_pb2.FromAgent(results=frame))
        return True

    async def _digest(self, call: Any, identities: Iterable[Identity] | None) -> None:
        rows = digest_rows(self.assigned, identities, self._runner.standing)
        for start in range(0, max(1, len(rows)), DIGEST_ROWS):
            part = rows[start : start + DIGEST_ROWS]
            frame = digest_frame(part, self.assigned.revision, self._runner.now_ms())
            frame.partial = start + DIGEST_ROWS < len(rows)
            self._sequence += 1
            frame.sequence = self._sequence
            self._time()
            self._unacked.append((self._sequence, self.acked))
            await self._send(call, agent_pb2.FromAgent(digest=frame))

    async def _send(self, call: Any, message: Any) -> None:
        message.sent_ms = self._runner.now_ms()
        await call.write(message)

    def _time(self) -> None:
        """Time the frame that is about to be sent, unless one is being timed."""
        if not self._timed[0]:
            self._timed = (self._sequence, self._runner.now_ms())

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()


async def _end(call: Any) -> Exception:
    """Why a call ended, in words."""
    code, details = await call.code(), await call.details()
    words = f"{code.name.lower().replace('_', ' ')}: {details}" if details else code.name.lower()
    if code in REFUSING:
        return Refused(details or words)
    return Ended(words)
