"""What the coordinators of a lab say, asked from within its network.

`python -m deploy.lab.asking NAME etcd|coordinators|whole` in the client's namespace waits for that.
"""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from ctl.client import Client
from ctl.commands.health import vote_word
from ctl.digs import poll
from gtm.errors import GtmError
from gtm.v1 import operator_pb2

from . import trust
from .lab import READY_S, Lab
from .nodes import COORDINATOR_HTTP, ETCD_HTTP, GRPC, Node, etcd_address

T = TypeVar("T")

ANSWER_S = 4.0
"""For one part to answer; one that hangs is none. A coordinator without etcd takes two seconds."""


class Said(Struct, frozen=True):
    """What one coordinator says: of the system, and how each region votes on each address."""

    status: operator_pb2.StatusResponse
    votes: Mapping[str, Mapping[str, str]]
    """Region -> address -> `up`, `down`, `none` or `pending`."""

    def vote(self, region: str, address: str) -> str:
        """One vote; "" where there is none to be had."""
        return self.votes.get(region, {}).get(address, "")


def ask(lab: Lab, server: str) -> Said | None:
    """What it says; None where it does not answer in time."""

    async def told(client: Client) -> Said:
        status, verdicts = await client.status(), (await client.verdicts()).verdicts
        votes: dict[str, dict[str, str]] = {}
        for verdict in verdicts:
            for vote in verdict.regions:
                votes.setdefault(vote.region, {})[verdict.address] = vote_word(vote)
        return Said(status, votes)

    return _asked(lab, server, told)


def leads(node: Node) -> bool:
    """Whether this coordinator holds that it leads, by its own clock at this moment."""
    return metric(f"{node.address}:{COORDINATOR_HTTP}", "gtm_coordinator_leader") == 1


def whole(lab: Lab, *, without: Sequence[str] = ()) -> bool:
    """Whether etcd is well, one leads, all hear every agent, resolvers serve all, regions vote.

    `without`: nodes and regions that are left out of it.
    """
    shape = lab.shape
    regions = {f"r{n}" for n in range(1, shape.regions + 1)} - set(without)
    resolvers = {f"resolver-{n}" for n in range(1, shape.resolvers + 1)} - set(without)
    led = False
    if not etcd_answers(lab):
        return False
    for node in lab.chosen("coordinators"):
        if node.name in without:
            continue
        said = ask(lab, f"{node.address}:{GRPC}")
        if said is None or not _well(said, regions):
            return False
        if leads(node):
            serving = {one.id for one in said.status.replicas if not one.stale and not one.lag}
            if led or not serving >= resolvers:
                return False
            led = True
    return led


def _well(said: Said, regions: set[str]) -> bool:
    status = said.status
    if not status.leader_id or status.store.error or status.pools_published < status.pools:
        return False
    heard = {agent.region for agent in status.agents if agent.connected}
    cast = [said.votes.get(region, {}) for region in regions]
    return heard >= regions and all(votes and "none" not in votes.values() for votes in cast)


def _asked(lab: Lab, server: str, call: Callable[[Client], Awaitable[T]]) -> T | None:
    async def told() -> T | None:
        try:
            tls = trust.tls(lab.folder, trust.OPERATOR)
            async with (
                asyncio.timeout(ANSWER_S),
                Client(server, tls or None, insecure=not tls) as client,
            ):
                return await call(client)
        except (GtmError, TimeoutError):
            return None

    return asyncio.run(told())


def etcd_answers(lab: Lab) -> bool:
    """Whether a quorum of etcd answers each of its members."""
    return all(healthy(etcd_address(number)) for number in range(1, lab.shape.etcds + 1))


def healthy(address: str) -> bool:
    """Whether the member of etcd there can answer linearizable requests."""
    return "true" in page(f"{address}:{ETCD_HTTP}", "health")


def leads_etcd(address: str) -> bool:
    """Whether the member of etcd there says that it leads."""
    return metric(f"{address}:{ETCD_HTTP}", "etcd_server_is_leader") == 1


def metric(door: str, name: str) -> float:
    """A metric without labels; -1 where there is none to be had."""
    for line in page(door, "metrics").splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return -1.0


def page(door: str, name: str) -> str:
    """A page of an HTTP door; "" where it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{door}/{name}", timeout=ANSWER_S) as answer:
            return str(answer.read().decode())
    except (OSError, ValueError):
        return ""


WAITS: Mapping[str, Callable[[Lab], bool]] = {
    "etcd": etcd_answers,
    "coordinators": lambda lab: all(ask(lab, one) is not None for one in lab.coordinators),
    "whole": whole,
}
"""What can be waited for."""


def main(name: str, what: str) -> int:
    """Wait until this is so in the lab of this name; 1 where it does not come about."""
    lab = Lab(name)
    if poll(lambda: WAITS[what](lab), READY_S, 0.2) is None:
        print(f"waited {READY_S:g} s for {what}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
