"""The parts as they run on machines: the real coordinator, agent and resolver's follower.

A machine can be started, killed (nothing of it runs any more), frozen and thawed; what it loses
with that is what a process would lose.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from agent.link import Hello
from agent.probes.base import Target
from agent.results import ProbeResult, ResultLog
from agent.runner import Runner
from agent.uplink import Uplink
from coordinator.part import Coordinator
from coordinator.settings import Settings
from gtm.errors import StartError
from gtm.links import Tls
from resolver.compiler import compile_table
from resolver.follower import Follower
from resolver.place import Unplaced
from resolver.table import AnswerTable, heard

from .loop import MACHINE, Machine, VirtualLoop
from .store import Client, Cluster
from .wire import Net
from .world import World

RESTART_S = 2.0
RECORDS = 2
"""Of standing verdicts, written in one evaluation: few, so that some are always owed."""


class Server:
    """Stands for gRPC's server; a door of the net while it is started."""

    def __init__(self, net: Net, coordinators: dict[str, CoordinatorMachine]) -> None:
        self._net, self._all = net, coordinators

    @property
    def _owner(self) -> CoordinatorMachine:
        machine = MACHINE.get()
        assert machine is not None
        return self._all[machine.name]

    async def start(self) -> None:
        owner = self._owner
        assert owner.part is not None
        assert owner.machine is not None
        self._net.doors[owner.address] = (owner.machine, owner.part.gateway.Connect)

    async def stop(self, grace: float | None = None) -> None:
        self._net.doors.pop(self._owner.address, None)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


class Started:
    """What every kind of machine does alike."""

    def __init__(self, name: str, loop: VirtualLoop, net: Net) -> None:
        self.name, self._loop, self._net = name, loop, net
        self.machine: Machine | None = None
        self.wall_off_s = 0.0

    @property
    def alive(self) -> bool:
        return self.machine is not None and not self.machine.dead

    @property
    def runs(self) -> bool:
        return self.alive and self.machine is not None and not self.machine.frozen

    def start(self) -> None:
        """Begin, unless it runs already."""
        if not self.alive:
            self.machine = Machine(self.name)
            self.machine.wall_off_s = self.wall_off_s
            self._loop.spawn(self.machine, self._live())

    def kill(self) -> None:
        """Die at once."""
        if self.alive and self.machine is not None:
            self._loop.kill(self.machine)
            self._net.gone(self.machine)
            self._died()

    def jump(self, seconds: float) -> None:
        """Set the wall clock."""
        self.wall_off_s += seconds
        if self.machine is not None:
            self.machine.wall_off_s = self.wall_off_s

    def _died(self) -> None:
        return

    async def _live(self) -> None:
        raise NotImplementedError


class CoordinatorMachine(Started):
    """A coordinator with its client of the store; a supervisor starts it again."""

    def __init__(
        self,
        name: str,
        number: int,
        loop: VirtualLoop,
        net: Net,
        cluster: Cluster,
        broke: Callable[[str, BaseException], None],
        began: Callable[[CoordinatorMachine], None],
    ) -> None:
        super().__init__(name, loop, net)
        self.address = f"10.0.0.{number}:7400"
        self.part: Coordinator | None = None
        self._cluster, self._broke, self._began = cluster, broke, began
        self.client = Client(cluster, name)
        self.store_cuts = 0
        self.stop = asyncio.Event()

    def freeze(self) -> None:
        if self.runs and self.machine is not None:
            self._loop.freeze(self.machine)
            self.client.cut()

    def thaw(self) -> None:
        if self.alive and self.machine is not None and self.machine.frozen:
            self._loop.thaw(self.machine)
            self.client.mend()

    def cut(self) -> None:
        """Lose the store."""
        self.store_cuts += 1
        self.client.cut()

    def mend(self) -> None:
        self.store_cuts -= 1
        self.client.mend()

    def _died(self) -> None:
        self.client.closed = True
        self.client._memory.cut()
        self._net.doors.pop(self.address, None)

    async def _live(self) -> None:
        machine = self.machine
        while machine is not None and not machine.dead:
            if self.client.closed:
                self.client = Client(self._cluster, self.name)
                for _ in range(self.store_cuts):
                    self.client.cut()
            self.stop = asyncio.Event()
            settings = Settings(grpc=self.address, http="", id=self.name, insecure=True)
            part = self.part = Coordinator(settings, self.client, _Nobody(), RECORDS)
            self._began(self)
            try:
                await part.start()
                await part.until(self.stop)
            except StartError:
                pass
            except Exception as error:
                self._broke(self.name, error)
            finally:
                await part.close()
                await self.client.close()
            await asyncio.sleep(RESTART_S)


class _Nobody:
    """The policy of a coordinator that nobody asks anything."""

    async def close(self) -> None:
        return


class AgentMachine(Started):
    """An agent: schedule, runner, log, links."""

    def __init__(
        self,
        name: str,
        region: str,
        loop: VirtualLoop,
        net: Net,
        world: World,
        coordinators: tuple[str, ...],
        heard: Callable[[AgentMachine, ProbeResult], None],
    ) -> None:
        super().__init__(name, loop, net)
        self.region, self._world, self._coordinators = region, world, coordinators
        self._heard = heard
        self.lie = ""
        self.buffer = 5_000
        self.runner: Runner | None = None
        self._lives = 0

    async def _live(self) -> None:
        self._lives += 1
        probe = self._world.probe(self.region, lambda: self.lie)

        def probe_of(target: Target) -> Any:
            return None if target.unfit else probe

        def result(one: ProbeResult) -> None:
            self._heard(self, one)
            uplink.offer(one)

        hello = Hello(
            region=self.region,
            agent_id=self.name,
            version="simulated",
            capabilities=("tcp", "family:ipv4"),
            incarnation=f"{self.name}-{self._lives}",
        )
        log = ResultLog(self.buffer)
        runner = Runner(f"{self.region}/{self.name}", 1_000, result, probe_of)
        uplink = Uplink(self._coordinators, hello, log, runner, Tls(), True)
        uplink.start()
        self.runner = runner


class ResolverMachine(Started):
    """A follower with the compiler; `swapped` is called with each table."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        net: Net,
        cluster: Cluster,
        swapped: Callable[[ResolverMachine], None],
    ) -> None:
        super().__init__(name, loop, net)
        self.client = Client(cluster, name)
        self._cluster, self._swapped = cluster, swapped
        self.follower: Follower[AnswerTable] | None = None

    def _died(self) -> None:
        self.client.closed = True
        self.client = Client(self._cluster, self.name)

    async def _live(self) -> None:
        def compiled(view: Any, previous: Any, changes: Any) -> AnswerTable:
            return compile_table(view, Unplaced(), previous, changes)

        follower = Follower[AnswerTable](self.client, compiled, heard, self._told)
        self.follower = follower
        await follower.run()

    def _told(self) -> None:
        self._swapped(self)


def stands_in(
    loop: VirtualLoop, net: Net, dice: random.Random, all_: dict[str, CoordinatorMachine]
) -> dict[str, Any]:
    """What is put in the place of sockets, and of pauses that cost time and decide nothing."""
    return {
        "gtm.links:server": lambda *interceptors: Server(net, all_),
        "gtm.links:listen": lambda server, address, *a, **k: int(address.rpartition(":")[2]),
        "agent.link:channel": net.channel,
        "agent.link:AgentsStub": net.stub,
        "coordinator.judge:TICK_S": 10.0,
        "coordinator.judge:STILL_S": 10.0,
        "coordinator.stream:HEARTBEAT_S": 20.0,
        "coordinator.stream:SILENCE_S": 60.0,
        "coordinator.gateway:HEARTBEAT_S": 20.0,
        "agent.runner:PATIENCE_MS": 10_000,
        "coordinator.flatten:LOOK_S": 3600.0,
        "coordinator.standing:PERIOD_S": 3600.0,
        "resolver.follower:TICK_S": 10.0,
    }
