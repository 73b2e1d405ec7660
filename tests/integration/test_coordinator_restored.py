"""A coordinator whose etcd went back to an older snapshot goes on from there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from coordinator.part import Coordinator
from coordinator.settings import Settings
from ctl.policy import DirectPolicy
from gtm import codec, keys, links
from gtm.etcd import EtcdStore, connect
from gtm.etcd_options import EtcdOptions
from gtm.state import PoolState
from gtm.v1 import agent_pb2, operator_pb2
from gtm.v1.agent_pb2_grpc import AgentsStub
from gtm.v1.operator_pb2_grpc import OperatorStub
from tests.etcds import EtcdServer, restore

pytestmark = pytest.mark.integration

DOWN = "192.0.2.2"
RESOURCES = {
    "regions": {"eu": {}},
    "checks": {"web": {"type": "tcp", "port": 80, "interval": "1s", "timeout": "500ms"}},
    "pools": {
        "a": {
            "type": "ipv4",
            "checks": ["web"],
            "addresses": [{"value": "192.0.2.1"}, {"value": DOWN}],
        }
    },
}


async def until(holds: Any, seconds: float = 20.0) -> Any:
    """Wait until `await holds()` is true; what it returned."""
    async with asyncio.timeout(seconds):
        while not (found := await holds()):
            await asyncio.sleep(0.02)
        return found


@contextlib.asynccontextmanager
async def coordinator(etcd: EtcdServer, id_: str) -> AsyncIterator[Coordinator]:
    store = connect(EtcdOptions(endpoints=(etcd.endpoint,), progress_s=0.5, idle_s=2.0))
    made = Coordinator(Settings(id=id_, grpc="127.0.0.1:0", http=""), store, DirectPolicy())
    try:
        await made.start()
        yield made
    finally:
        await made.close()
        await store.close()


async def apply(made: Coordinator, given: Any) -> None:
    async with links.channel(f"127.0.0.1:{made.port}", links.Tls()) as to:
        asked = operator_pb2.ApplyRequest(resources=json.dumps(given))
        done = await OperatorStub(to).Apply(asked)
        assert done.applied, done


class Agent:
    """An agent of region eu that says over and over what it is told to say."""

    def __init__(self, to: grpc.aio.Channel, id_: str) -> None:
        self._call, self._id = AgentsStub(to).Connect(), id_
        self.failing: set[str] = set()

    async def __aenter__(self) -> Agent:
        hello = agent_pb2.Hello(
            region="eu", agent_id=self._id, capabilities=["tcp", "family:ipv4", "family:ipv6"]
        )
        await self._call.write(agent_pb2.FromAgent(hello=hello))
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self._call.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        targets: dict[int, str] = {}
        revision = sequence = 0
        while True:
            with contextlib.suppress(TimeoutError):
                message = await asyncio.wait_for(asyncio.shield(self._read()), 0.1)
                targets.update((one.index, one.address) for one in message.assignment.set)
                revision = message.assignment.revision or revision
            if not targets:
                continue
            sequence += 1
            outcome = [
                agent_pb2.OUTCOME_FAILURE if one in self.failing else agent_pb2.OUTCOME_SUCCESS
                for one in targets.values()
            ]
            results = agent_pb2.Results(
                sequence=sequence,
                assignment_revision=revision,
                target=list(targets),
                outcome=outcome,
                age_ms=[0] * len(targets),
                rtt_us=[500] * len(targets),
                reason=[0] * len(targets),
            )
            await self._call.write(agent_pb2.FromAgent(results=results))

    def _read(self) -> asyncio.Task[Any]:
        if getattr(self, "_reading", None) is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._call.read())
        return self._reading


async def whys(store: EtcdStore) -> list[str]:
    """What is published of each address of the pool."""
    item = await store.get(keys.pool("a"))
    return [] if item is None else [one.why for one in codec.decode(item.value, PoolState).members]


async def names(store: EtcdStore, prefix: str) -> set[str]:
    return {one.key.removeprefix(prefix) for one in (await store.list(prefix)).items}


async def test_after_a_restored_snapshot_members_leader_and_verdicts_are_those_of_now(
    start_etcd: Any, tmp_path: Path
) -> None:
    etcd = start_etcd()
    reader = connect(EtcdOptions(endpoints=(etcd.endpoint,), timeout_s=10.0))
    async with (
        coordinator(etcd, "c1") as made,
        links.channel(f"127.0.0.1:{made.port}", links.Tls()) as to,
    ):
        await apply(made, RESOURCES)
        async with Agent(to, "stays") as stays:
            async with Agent(to, "left"):

                async def both_up() -> bool:
                    return await whys(reader) == ["up", "up"]

                await until(both_up)
                snapshot = tmp_path / "snapshot.db"
                etcd.ctl("snapshot", "save", str(snapshot))
            stays.failing = {DOWN}
            async with Agent(to, "came") as came:
                came.failing = {DOWN}

                async def one_down() -> bool:
                    return await whys(reader) == ["up", "down"]

                await until(one_down)

                async def members() -> bool:
                    return await names(reader, keys.AGENTS) == {"c1/eu.stays", "c1/eu.came"}

                await until(members)
                await asyncio.to_thread(etcd.stop)
                await asyncio.to_thread(restore, etcd, snapshot)
                await asyncio.to_thread(etcd.start)
                await until(one_down)
                await until(members)

                async def leads() -> bool:
                    leader = await reader.get(keys.leader())
                    return leader is not None and leader.create_revision == made.leadership.fence

                await until(leads)
                assert await names(reader, keys.COORDINATORS) == {"c1"}
                assert made.not_ready() == ""
                more = {"checks": {"more": RESOURCES["checks"]["web"]}}
                await apply(made, more)
                listing = await reader.list(keys.SERVE)

                async def equal() -> bool:
                    return made.mirror.serve_revision == max(
                        one.mod_revision for one in listing.items
                    )

                await until(equal)
    await reader.close()
