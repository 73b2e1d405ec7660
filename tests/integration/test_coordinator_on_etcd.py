"""A coordinator on a real etcd: starts, refusals, outages, takeover, and how fast it publishes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from coordinator.part import Coordinator, run
from coordinator.settings import Settings
from ctl.policy import DirectPolicy
from gtm import codec, keys, links
from gtm.errors import StartError
from gtm.etcd import connect
from gtm.etcd_options import EtcdOptions
from gtm.state import PoolState
from gtm.v1 import agent_pb2, operator_pb2
from gtm.v1.agent_pb2_grpc import AgentsStub
from gtm.v1.operator_pb2_grpc import OperatorStub

pytestmark = pytest.mark.integration

RESOURCES = {
    "zones": {"gtm.test": {"nameservers": ["ns1.example.net"]}},
    "regions": {"eu": {}},
    "checks": {"web": {"type": "tcp", "port": 80, "interval": "1s", "timeout": "500ms"}},
    "pools": {
        "a": {
            "type": "ipv4",
            "checks": ["web"],
            "addresses": [{"value": "192.0.2.1"}, {"value": "192.0.2.2"}],
        }
    },
    "instances": {
        "shop": {
            "rules": [{"name": "world", "lines": ["default"], "tiers": [{"pools": ["a"]}]}],
        }
    },
}


async def until(condition: Callable[[], Any | Awaitable[Any]], seconds: float = 20.0) -> Any:
    """Wait until `condition()` is true; what it returned."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def coordinator(etcd: Any, id_: str) -> AsyncIterator[Coordinator]:
    store = connect(EtcdOptions(endpoints=(etcd.endpoint,)))
    settings = Settings(id=id_, grpc="127.0.0.1:0", http="127.0.0.1:0")
    made = Coordinator(settings, store, DirectPolicy())
    try:
        await made.start()
        yield made
    finally:
        await made.close()
        await store.close()


@contextlib.asynccontextmanager
async def channel(made: Coordinator) -> AsyncIterator[grpc.aio.Channel]:
    async with links.channel(f"127.0.0.1:{made.port}", links.Tls()) as found:
        yield found


async def apply(made: Coordinator, given: Any = RESOURCES) -> operator_pb2.ApplyResponse:
    async with channel(made) as to:
        request = operator_pb2.ApplyRequest(resources=json.dumps(given))
        done = await OperatorStub(to).Apply(request)
        assert done.applied, done
        return done


class Agent:
    """An agent of region eu that says what it is told."""

    def __init__(self, to: grpc.aio.Channel) -> None:
        self.call = AgentsStub(to).Connect()
        self.sequence = 0

    async def open(self) -> None:
        hello = agent_pb2.Hello(
            region="eu", agent_id="x", capabilities=["tcp", "family:ipv4", "family:ipv6"]
        )
        await self.call.write(agent_pb2.FromAgent(hello=hello))
        self.targets: dict[int, str] = {}
        while not self.targets:
            message = await self.call.read()
            self.targets.update((one.index, one.address) for one in message.assignment.set)
            self.revision = message.assignment.revision

    async def says(self, outcome: int, *addresses: str) -> None:
        rows = [i for i, one in self.targets.items() if not addresses or one in addresses]
        self.sequence += 1
        results = agent_pb2.Results(
            sequence=self.sequence,
            assignment_revision=self.revision,
            target=rows,
            outcome=[outcome] * len(rows),
            age_ms=[0] * len(rows),
            rtt_us=[500] * len(rows),
            reason=[0] * len(rows),
        )
        await self.call.write(agent_pb2.FromAgent(results=results))
        while (await self.call.read()).ack.sequence != self.sequence:
            pass


async def published(store: Any) -> list[str]:
    item = await store.get(keys.pool("a"))
    return [] if item is None else [one.why for one in codec.decode(item.value, PoolState).members]


async def test_a_verdict_reaches_etcd_and_the_next_leader_takes_it_from_there(
    start_etcd: Any,
) -> None:
    etcd = start_etcd()
    reader = connect(EtcdOptions(endpoints=(etcd.endpoint,)))
    ending = contextlib.AsyncExitStack()
    first = await ending.enter_async_context(coordinator(etcd, "c1"))
    await until(lambda: first.leadership.fence)
    async with coordinator(etcd, "c2") as second:
        await apply(second)
        async with channel(first) as to:
            agent = Agent(to)
            await agent.open()
            await agent.says(agent_pb2.OUTCOME_SUCCESS)

            async def both_up() -> bool:
                return await published(reader) == ["up", "up"]

            await until(both_up)
            for _ in range(2):
                await agent.says(agent_pb2.OUTCOME_FAILURE, "192.0.2.2")

            async def one_down() -> bool:
                return await published(reader) == ["up", "down"]

            await until(one_down)
        before = (await reader.list(keys.SERVE)).items
        await ending.aclose()
        await until(lambda: second.leadership.fence)
        await until(lambda: not second.publisher.waiting)
        assert (await reader.list(keys.SERVE)).items == before
        assert second.not_ready() == ""
    await reader.close()


async def test_what_was_judged_while_etcd_was_away_is_published_on_its_return(
    start_etcd: Any,
) -> None:
    etcd = start_etcd()
    async with coordinator(etcd, "c1") as made:
        await apply(made)
        async with channel(made) as to:
            agent = Agent(to)
            await agent.open()
            await agent.says(agent_pb2.OUTCOME_SUCCESS)
            await until(lambda: made.mirror.view.pools)
            etcd.stop()
            for _ in range(2):
                await agent.says(agent_pb2.OUTCOME_FAILURE, "192.0.2.1")
            etcd.start()

            def left() -> bool:
                members = made.mirror.view.pools["a"].members
                return [one.why for one in members] == ["down", "up"]

            await until(left)


async def test_the_part_runs_says_ready_and_ends_cleanly(etcd: Any, port: int) -> None:
    http = _free_port()
    settings = Settings(
        id="c1",
        grpc=f"127.0.0.1:{port}",
        http=f"127.0.0.1:{http}",
        etcd=(etcd.endpoint,),
        insecure=True,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(run(settings, DirectPolicy(), stop))

    async def ready() -> bool:
        assert not running.done(), running.result()
        return (await _get(http, "/readyz")).startswith("200")

    await until(ready)
    assert "gtm_coordinator_leader" in await _get(http, "/metrics")
    stop.set()
    await asyncio.wait_for(running, 10)


async def test_a_start_without_etcd_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.patience.START_S", 0.1)
    nowhere = f"127.0.0.1:{_free_port()}"
    settings = Settings(grpc="127.0.0.1:0", http="", etcd=(nowhere,), insecure=True)
    with pytest.raises(StartError, match=r"no etcd answers at .*--etcd") as caught:
        await run(settings, DirectPolicy(), asyncio.Event())
    assert caught.value.status == 3


async def test_a_taken_port_is_one_sentence(etcd: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        door = f"127.0.0.1:{taken.getsockname()[1]}"
        for settings in (
            Settings(grpc=door, http="", etcd=(etcd.endpoint,), insecure=True),
            Settings(grpc="127.0.0.1:0", http=door, etcd=(etcd.endpoint,), insecure=True),
        ):
            with pytest.raises(StartError, match="cannot listen"):
                await run(settings, DirectPolicy(), asyncio.Event())


async def test_a_wrong_password_is_one_sentence(start_etcd: Any) -> None:
    etcd = start_etcd()
    etcd.ctl("user", "add", "root:secret")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("auth", "enable")
    settings = Settings(
        grpc="127.0.0.1:0",
        http="",
        etcd=(etcd.endpoint,),
        etcd_user="root",
        etcd_password="wrong",
        insecure=True,
    )
    with pytest.raises(StartError, match=r"refuses us .*--etcd-password"):
        await run(settings, DirectPolicy(), asyncio.Event())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


async def _get(port: int, path: str) -> str:
    def ask() -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return f"{answer.status} {answer.read().decode()}"
        except OSError as error:
            return str(error)

    return await asyncio.to_thread(ask)
