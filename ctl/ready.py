"""When `gtm up` may go on: the coordinator answers, every pool is published, every resolver serves.

Asks the coordinator and waits; changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gtm.errors import UnreachableError
from gtm.v1 import operator_pb2 as pb

from .client import Client

T = TypeVar("T")

POLL_S = 0.03
"""Between looks at the coordinator while something is awaited."""
COORDINATOR_S = 30.0
"""For the coordinator to answer at all."""
TELL_AFTER_S = 5.0
"""What is awaited is told when it takes this long, and again when it changes."""


async def unless(broken: asyncio.Task[None], work: Awaitable[T]) -> T:
    """The result of `work`, unless a child breaks first, whose error is raised."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((broken, task), return_when=asyncio.FIRST_COMPLETED)
        if broken.done():
            broken.result()
        return await task
    finally:
        task.cancel()


async def answering(client: Client) -> tuple[str, ...]:
    """Wait until the coordinator answers; the regions that are stored."""
    deadline = time.monotonic() + COORDINATOR_S
    while True:
        try:
            stored = json.loads((await client.get("regions")).resources or "{}")
            return tuple(stored.get("regions", ()))
        except UnreachableError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(POLL_S)


async def joined(
    client: Client, resolvers: frozenset[str], agents: int, coordinators: int = 1
) -> None:
    """Wait until so many agents stream, every one of `resolvers` has reported, all coordinate."""

    def missing(status: pb.StatusResponse) -> str:
        connected = sum(agent.connected for agent in status.agents)
        if (there := len(status.coordinators)) < coordinators:
            return f"{coordinators - there} of {coordinators} coordinators to join"
        if connected < agents:
            return f"{agents - connected} of {agents} agents to connect"
        return ", ".join(sorted(resolvers - {replica.id for replica in status.replicas}))

    await _until(client, missing)


async def served(client: Client, revision: int, resolvers: frozenset[str]) -> None:
    """Wait until every pool is published and each of `resolvers` serves the newest revision.

    `revision` is that of the apply that must be part of it.
    """

    def missing(status: pb.StatusResponse) -> str:
        if not status.leader_id:
            return "a leader"
        if status.serve_revision < revision:
            return "the coordinator to read what was applied"
        if left := status.pools - status.pools_published:
            return f"a verdict on {left} of {status.pools} pools"
        serving = {
            replica.id
            for replica in status.replicas
            if not replica.stale and replica.served_revision >= status.serve_revision
        }
        return ", ".join(sorted(resolvers - serving))

    await _until(client, missing)


async def _until(client: Client, missing: Callable[[pb.StatusResponse], str]) -> None:
    """Look at the status until nothing is missing; tell what is when it takes long."""
    began, told = time.monotonic(), ""
    while True:
        try:
            waiting = missing(await client.status())
        except UnreachableError:
            waiting = "the coordinator"
        if not waiting:
            return
        if waiting != told and time.monotonic() - began > TELL_AFTER_S:
            told = waiting
            print(f"waiting for {waiting}", file=sys.stderr, flush=True)
        await asyncio.sleep(POLL_S)
