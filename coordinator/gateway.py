"""The door for agents: who may stream, which stream counts, what each is assigned.

Decides nothing about health. One live stream per agent: a second one with the same region and id
replaces the first, because it is the same agent that lost its link, or a mistake that must show.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from gtm import codec, keys
from gtm.state import AgentMember
from gtm.telemetry import transition
from gtm.v1 import agent_pb2 as pb
from gtm.v1.agent_pb2_grpc import AgentsServicer

from . import metrics
from .callers import Denied, caller_of, misfit
from .election import Membership
from .events import AgentFound, AgentLost, TargetKey
from .judge import Judge
from .stream import DIGEST_S, HEARTBEAT_S, Ended, Stream, received

MAX_AGENTS = 1_000
"""Streams at a time."""
HELLO_S = 10.0
"""For the first message."""
MAX_CAPABILITIES = 64

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")

log = logging.getLogger("coordinator")


class Gateway(AgentsServicer):
    """`Agents.Connect`; `coordinators()` lists the addresses of all that are members."""

    def __init__(
        self,
        id_: str,
        judge: Judge,
        membership: Membership,
        *,
        coordinators: Callable[[], Iterable[str]],
        met: Callable[[str], None],
    ) -> None:
        self._id, self._judge, self._membership = id_, judge, membership
        self._coordinators, self._met = coordinators, met
        self._streams: dict[tuple[str, str], Stream] = {}
        self._behind: dict[Stream, None] = {}  # streams whose assignment is not of now
        self._assigning: asyncio.Task[None] | None = None
        judge.assigned = self._assign
        judge.configured = self._place
        judge.confirm = self._confirm

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The live streams."""
        return tuple(self._streams.values())

    def close(self) -> None:
        """End every stream: the coordinator stops."""
        if self._assigning is not None:
            self._assigning.cancel()
        for stream in self._streams.values():
            stream.end(Ended(grpc.StatusCode.UNAVAILABLE, "this coordinator stops", "stopping"))

    def announce(self) -> None:
        """Tell every stream which coordinators there are, where that has changed."""
        addresses = tuple(sorted(self._coordinators()))
        for stream in self._streams.values():
            stream.tell(addresses)

    def _assign(self, streams: Iterable[Stream] | None = None) -> None:
        """Bring the assignments of `streams`, else of all, up to date."""
        self._behind.update(dict.fromkeys(self._streams.values() if streams is None else streams))
        if self._behind and (self._assigning is None or self._assigning.done()):
            self._assigning = asyncio.get_running_loop().create_task(self._one_by_one())

    async def _one_by_one(self) -> None:
        """One stream after the other: each takes half a second where there are 100,000 targets.

        Rows that come meanwhile speak of numbers that went out of use, which the engine leaves out.
        """
        while self._behind:
            stream = next(iter(self._behind))
            del self._behind[stream]
            if self._streams.get(stream.name) is stream:
                stream.assign(self._judge.engine.assigned(stream.region))
            await asyncio.sleep(0)

    def _place(self) -> None:
        """Tell each agent where it stands in its region: by id, so that all coordinators agree."""
        regions: dict[str, list[Stream]] = {}
        for name in sorted(self._streams):
            regions.setdefault(name[0], []).append(self._streams[name])
        for region, streams in regions.items():
            canaries = self._judge.engine.canaries(region)
            for rank, stream in enumerate(streams):
                stream.place(rank, len(streams), canaries)

    def _confirm(self, keys: Iterable[TargetKey]) -> None:
        known = self._judge.engine.targets()
        targets = [known[key] for key in keys if key in known]
        for stream in self._streams.values():
            stream.confirm(targets)

    async def Connect(self, request_iterator: Any, context: Any) -> None:
        """One agent's stream, from its hello to its end."""
        try:
            stream = Stream(await self._hello(context), self._judge.handle)
            stream.caller = caller_of(context)
            self._admit(stream)
        except Ended as ended:
            await self._refuse(context, ended)
            return
        stream.tell(tuple(sorted(self._coordinators())))
        welcome = pb.Welcome(
            coordinator_id=self._id,
            heartbeat_ms=int(HEARTBEAT_S * 1000),
            digest_ms=int(DIGEST_S * 1000),
        )
        why = Ended(grpc.StatusCode.OK, "the agent ended it", "left")
        tasks = [
            asyncio.create_task(stream.read(context)),
            asyncio.create_task(stream.write(context, welcome)),
            asyncio.create_task(stream.over()),  # also while a write waits for the reader
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Ended as ended:
            why = ended
        finally:
            for task in tasks:
                task.cancel()
            self._leave(stream, why)
            await asyncio.gather(*tasks, return_exceptions=True)
        if why.code is not grpc.StatusCode.OK:
            await self._refuse(context, why)

    async def _refuse(self, context: Any, ended: Ended) -> None:
        metrics.STREAMS_ENDED.labels(ended.reason).inc()
        await context.abort(ended.code, ended.sentence)

    async def _hello(self, context: Any) -> pb.FromAgent:
        try:
            async with asyncio.timeout(HELLO_S):
                first = await received(context)
        except TimeoutError:
            raise _refused(f"no hello came within {HELLO_S:g} s") from None
        if first is grpc.aio.EOF or first.WhichOneof("message") != "hello":
            raise _refused("the first message of a stream must be a hello")
        hello = first.hello
        if not _LABEL.fullmatch(hello.region):
            raise _refused(
                f"{hello.region!r} is no name of a region: letters, digits and -, at most 63"
            )
        if not _ID.fullmatch(hello.agent_id):
            raise _refused(f"{hello.agent_id!r} is no agent id: letters, digits, - _ . or :")
        if wrong := misfit(caller_of(context), hello.region, hello.agent_id):
            raise Denied(grpc.StatusCode.PERMISSION_DENIED, "region", wrong)
        if len(hello.capabilities) > MAX_CAPABILITIES:
            raise _refused(f"{len(hello.capabilities)} capabilities; {MAX_CAPABILITIES} are taken")
        families = [able for able in hello.capabilities if able.startswith("family:")]
        if not families or len(families) == len(hello.capabilities):
            raise _refused(
                "the hello names no probe type, or no address family, that the agent has"
            )
        message: pb.FromAgent = first
        return message

    def _admit(self, stream: Stream) -> None:
        former = self._streams.get(stream.name)
        if former is not None:
            self._leave(former, None)
            former.end(
                Ended(
                    grpc.StatusCode.ABORTED,
                    f"another stream of agent {stream.agent} in {stream.region} took over: "
                    "give each agent an id of its own",
                    "replaced",
                )
            )
        elif len(self._streams) >= MAX_AGENTS or not self._judge.engine.admits(*stream.name):
            raise Ended(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"no room for a further agent beside {len(self._streams)}, or for its region",
                "full",
            )
        self._streams[stream.name] = stream
        metrics.AGENTS.set(len(self._streams))
        member = AgentMember(
            id=stream.agent, region=stream.region, version=stream.version, since=stream.since
        )
        self._membership.put(self._key(stream), codec.encode(member))
        self._met(stream.region)
        self._judge.handle(AgentFound(region=stream.region, agent=stream.agent))
        self._place()
        self._assign([stream])
        transition(log, f"agent {stream.agent} found", region=stream.region)

    def _leave(self, stream: Stream, why: Ended | None) -> None:
        """The stream counts no more; `why` is None where another one takes its place."""
        if self._streams.get(stream.name) is not stream:
            return
        del self._streams[stream.name]
        metrics.AGENTS.set(len(self._streams))
        self._place()
        self._judge.handle(AgentLost(region=stream.region, agent=stream.agent))
        if why is not None:
            self._membership.remove(self._key(stream))
            transition(log, f"agent {stream.agent} lost", region=stream.region, why=why.sentence)

    def _key(self, stream: Stream) -> str:
        return keys.agent(self._id, f"{stream.region}.{stream.agent}")


def _refused(sentence: str) -> Ended:
    return Ended(grpc.StatusCode.FAILED_PRECONDITION, sentence, "hello")
