"""What `gtm status` shows: members, leader, revisions, alarms, and how far each resolver is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from msgspec import Struct

import gtm
from gtm import codec, keys
from gtm.errors import StoreError
from gtm.state import AgentMember, CoordinatorMember, Leader
from gtm.store import Event, Store
from gtm.v1 import operator_pb2 as pb

from . import alarms, wire
from .election import Election, Leadership
from .engine import Engine
from .mirror import Mirror, Table
from .replicas import Replicas
from .stream import Stream

STORE_STATUS_S = 1.0
"""How old the store's own status may be; asked for no oftener, whoever asks."""
STORE_TIMEOUT_S = 2.0

T = TypeVar("T", bound=Struct)


class Members:
    """Who is there, as the store's member keys say; `changed` is told what those of members say."""

    def __init__(self, store: Store, changed: Callable[[tuple[Event, ...]], None]) -> None:
        self.tables = (
            Table(store, keys.COORDINATORS, changed),
            Table(store, keys.AGENTS, changed),
            Table(store, keys.LEADERS, lambda _: None),
        )

    def coordinators(self) -> list[CoordinatorMember]:
        """Every coordinator that is alive, by id."""
        return _all(self.tables[0].values, CoordinatorMember)

    def agents(self) -> list[AgentMember]:
        """Every agent that streams to some coordinator; one row for each of them."""
        return _all(self.tables[1].values, AgentMember)

    def leader(self) -> str:
        """The id of the leader; "" where none is known."""
        held = self.tables[2].values.get(keys.leader())
        try:
            return codec.decode(held, Leader).id if held else ""
        except ValueError:
            return ""


def _all(values: Mapping[str, bytes], type_: type[T]) -> list[T]:
    found = []
    for _, value in sorted(values.items()):
        try:
            found.append(codec.decode(value, type_))
        except ValueError:
            continue
    return found


class Status:
    """Puts the answer together; everything but the store's own status is in memory."""

    def __init__(
        self,
        id_: str,
        store: Store,
        mirror: Mirror,
        members: Members,
        leadership: Leadership,
        engine: Engine,
        replicas: Replicas,
        streams: Callable[[], Iterable[Stream]],
        election: Election,
    ) -> None:
        self._id, self._store, self._mirror = id_, store, mirror
        self._leadership, self._election = leadership, election
        self._members, self._engine, self._replicas = members, engine, replicas
        self._streams = streams
        self._asked = -STORE_STATUS_S
        self._last = pb.StoreStatus()

    async def answer(self) -> pb.StatusResponse:
        """The status as of now."""
        view = self._mirror.view
        store = await self._store_status()
        leader, as_of = self._leader(silent=bool(store.error))
        return pb.StatusResponse(
            coordinator_id=self._id,
            leader_id=leader,
            leader_as_of=as_of,
            version=gtm.__version__,
            store=store,
            generation=view.head.generation,
            serve_revision=self._mirror.serve_revision,
            pools=len(view.config_pools),
            pools_published=len(view.config_pools.keys() & view.pools.keys()),
            targets=len(self._engine.targets()),
            coordinators=[
                pb.CoordinatorStatus(
                    id=one.id, address=one.address, version=one.version, leader=one.id == leader
                )
                for one in self._members.coordinators()
            ],
            agents=self._agents(),
            replicas=self._replicas.statuses(self._mirror.serve_revision),
            regions=[
                pb.RegionStatus(
                    name=one.name,
                    declared=one.declared,
                    met=one.met,
                    agents=one.agents,
                    votes=one.votes,
                    silenced=one.silenced,
                    aside_since=one.aside_since,
                )
                for one in self._engine.regions()
            ],
            alarms=[
                pb.Alarm(
                    id=one.id,
                    text=one.text,
                    since=one.since,
                    kind=alarms.kind(one.id),
                    severity=alarms.severity(one.id),
                )
                for one in self._engine.alarms()
            ],
            forces=map(wire.force, self._engine.forces()),
        )

    def _leader(self, *, silent: bool) -> tuple[str, float]:
        """Who leads, and as of when where the store is silent, in Unix time (0.0: as of now).

        Whether we lead says our lease; whether another does, the last that the store said.
        """
        if self._leadership.fence:
            return self._id, 0.0
        other = self._members.leader()
        if other in ("", self._id):  # our key may outlive what our lease lets us do
            return "", 0.0
        silent = silent or not self._election.session.is_set()
        return other, self._election.heard() if silent else 0.0

    def _agents(self) -> list[pb.AgentStatus]:
        """Those that stream to us with their counts, then those known by their keys alone."""
        ours = {
            stream.name: pb.AgentStatus(
                id=stream.agent,
                region=stream.region,
                version=stream.version,
                connected=True,
                targets=len(stream.assignment),
                results=stream.results,
                heard_s=stream.heard_s,
                refused=stream.refused,
                without_opinion=stream.without_opinion,
            )
            for stream in self._streams()
        }
        others = {
            (one.region, one.id): pb.AgentStatus(
                id=one.id, region=one.region, version=one.version, connected=True
            )
            for one in self._members.agents()
        }
        return [row for _, row in sorted({**others, **ours}.items())]

    async def _store_status(self) -> pb.StoreStatus:
        if time.monotonic() - self._asked < STORE_STATUS_S:
            return self._last
        self._asked = time.monotonic()
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                found = await self._store.status()
        except (StoreError, TimeoutError) as error:
            why = str(error) or f"no answer within {STORE_TIMEOUT_S:g} s"
            self._last = pb.StoreStatus(endpoints=self._last.endpoints, error=why)
        else:
            self._last = pb.StoreStatus(
                endpoints=found.endpoints,
                version=found.version,
                revision=found.revision,
                size_bytes=found.size_bytes,
                alarms=found.alarms,
            )
        return self._last
