"""A world with two coordinators, each a process of its own, to be killed, stopped and cut off.

`c1` reaches etcd through a relay that can hold, `c2` directly; agents and resolvers are told of
both. The rest is the world of `faults`.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

from ctl.digs import poll
from ctl.origins import Origins
from ctl.running import free_ports
from gtm.v1 import operator_pb2

from . import faults
from .faults import REGIONS, SOON_S, Parts, Relay

RESOLVERS = ("resolver-1", "resolver-2")
IDS = ("c1", "c2")


class World:
    """`with World(folder, origins) as world:` is whole when it is entered."""

    def __init__(self, folder: Path, origins: Origins, *, lease: str = "5s") -> None:
        self.folder, self.origins = folder, origins
        self.parts = Parts(folder)
        self.ports = ports = free_ports(3, 2, coordinators=2)
        self.dns = (ports.dns(0), ports.dns(1))
        self.doors = dict(zip(IDS, ports.all_grpc, strict=True))
        self.relay = Relay(ports.etcd[0])
        self._lease = lease

    def __enter__(self) -> World:
        self.relay.__enter__()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.relay.flow()
        self.parts.__exit__()
        self.relay.__exit__()

    def _start(self) -> None:
        self.parts.start_etcd(*self.ports.etcd)
        for id_ in IDS:
            self.start(id_)
        config = faults.written(self.folder, self.origins.port)
        faults.gtm("--server", self.doors["c2"], "apply", "--yes", str(config))
        for number in range(len(REGIONS)):
            self.start_agent(number)
        for number, name in enumerate(RESOLVERS):
            self.parts.start(
                name, "resolver", f"--id={name}", f"--etcd=127.0.0.1:{self.ports.etcd[0]}",
                f"--listen={self.ports.dns(number)}", f"--http={self.ports.resolver(number)}",
                f"--coordinators={','.join(self.doors.values())}",
                f"--data-dir={self.folder / name}",
            )  # fmt: skip
        assert poll(self.whole, SOON_S, 0.1) is not None

    def start(self, id_: str, *more: str, wait: bool = True) -> None:
        """Start a coordinator."""
        grpc, http = self.ports.coordinator(IDS.index(id_))
        etcd = self.relay.port if id_ == "c1" else self.ports.etcd[0]
        self.parts.start(
            id_, "coordinator", f"--id={id_}", f"--etcd=127.0.0.1:{etcd}", f"--grpc={grpc}",
            f"--http={http}", f"--lease={self._lease}", *more, wait=wait,
        )  # fmt: skip

    def start_agent(self, number: int) -> None:
        """Start the agent of a region, told of both coordinators."""
        region = REGIONS[number]
        self.parts.start(
            f"agent-{region}", "agent", f"--id=agent-{region}", f"--region={region}",
            f"--http={self.ports.agent(number)}",
            f"--coordinators={','.join(self.doors.values())}", wait=False,
        )  # fmt: skip

    def mend(self) -> None:
        """Have both coordinators run and everything whole again."""
        self.relay.flow()
        for id_ in IDS:
            self.parts.mend(id_, lambda id_=id_: self.start(id_))  # type: ignore[misc]
        for number, region in enumerate(REGIONS):
            self.parts.mend(f"agent-{region}", lambda n=number: self.start_agent(n))  # type: ignore[misc]
        assert poll(self.whole, SOON_S, 0.1) is not None

    def whole(self) -> bool:
        """Whether both coordinators hear every agent and resolver, and agree on a leader."""
        told = [faults.status(door) for door in self.doors.values()]
        leaders = {one.leader_id if one else "" for one in told}
        return (
            len(leaders) == 1
            and "" not in leaders
            and all(one is not None and len(one.coordinators) == len(IDS) for one in told)
            and all(faults.settled(door, RESOLVERS) for door in self.doors.values())
            and all(heard(one) for one in told)
        )

    def leader(self, asked: str = "") -> str:
        """Who leads, as the coordinator `asked` (any) says; "" where that is not known."""
        for id_ in (asked,) if asked else IDS:
            if (told := faults.status(self.doors[id_])) is not None:
                return told.leader_id
        return ""

    def lead(self, id_: str) -> None:
        """Have `id_` lead: the other one hands over in order and comes back."""
        if self.leader(id_) == id_:
            return
        other = other_of(id_)
        self.parts.kill(other, signal.SIGTERM)
        assert poll(lambda: self.leader(id_) == id_, SOON_S) is not None
        self.start(other)
        assert poll(self.whole, SOON_S, 0.1) is not None

    def metric(self, id_: str, name: str) -> float:
        """A metric of a coordinator; 0 where it has none of that name and labels."""
        return faults.metric(self.ports.coordinator(IDS.index(id_))[1], name)

    def said(self, id_: str, event: str, since: int = 0) -> list[dict[str, object]]:
        """What a coordinator's log has of an event from that character on."""
        lines = (json.loads(line) for line in self.parts.log(id_)[since:].splitlines() if line)
        return [line for line in lines if line.get("event") == event]


def other_of(id_: str) -> str:
    """The other one of the two."""
    return IDS[1 - IDS.index(id_)]


def heard(told: operator_pb2.StatusResponse | None) -> bool:
    """Whether every agent streams to the coordinator that says so."""
    return told is not None and sum(agent.results > 0 for agent in told.agents) >= len(REGIONS)
