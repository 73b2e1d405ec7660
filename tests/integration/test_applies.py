"""Applies on a real etcd: two at once after a shown plan, and a coordinator killed in the middle.

`make acceptance` runs the long form; ACCEPTANCE=long in the environment does the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from gtm import links
from gtm.v1 import operator_pb2 as pb
from gtm.v1.operator_pb2_grpc import OperatorStub
from tests.etcds import EtcdServer, free_port

pytestmark = pytest.mark.integration

LONG = os.environ.get("ACCEPTANCE") == "long"
RACES = 20 if LONG else 4
KILLS = 40 if LONG else 4
RESOURCES = 500
DEADLINE_S = 30.0


class Coordinator:
    """`gtm coordinator` as a process that can be killed and started again on the same store."""

    def __init__(self, etcd: EtcdServer, log: Any) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._arguments = [
            "coordinator", f"--grpc={self.address}", "--http=", f"--etcd={etcd.endpoint}",
            "--id=one", "--insecure",
        ]  # fmt: skip
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; back when it answers."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ctl", *self._arguments, stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.stored()
                return
            assert self._process.returncode is None
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    async def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(by)
            await self._process.wait()

    @contextlib.asynccontextmanager
    async def asked(self) -> AsyncIterator[OperatorStub]:
        """Its operator's door."""
        async with links.channel(self.address, links.Tls(), insecure=True) as to:
            yield OperatorStub(to)  # type: ignore[no-untyped-call]

    async def stored(self) -> dict[str, Any]:
        """The pools that are stored, by name."""
        async with self.asked() as ask:
            answer = await ask.Get(pb.GetRequest(kind="pools"), timeout=5.0)
            found: dict[str, Any] = json.loads(answer.resources).get("pools", {})
            return found


@pytest.fixture
async def coordinator(start_etcd: Any, tmp_path: Any) -> AsyncIterator[Coordinator]:
    with (tmp_path / "coordinator.log").open("ab") as log:
        made = Coordinator(start_etcd(), log)
        await made.start()
        yield made
        await made.end()


def pools(prefix: str, count: int, number: int = 1) -> str:
    """So many pools of one address, as an apply sends them."""
    addresses = [{"value": f"192.0.2.{number}"}]
    return json.dumps(
        {"pools": {f"{prefix}{n}": {"type": "ipv4", "addresses": addresses} for n in range(count)}}
    )


async def test_of_two_applies_after_a_shown_plan_one_wins_and_the_other_is_told(
    coordinator: Coordinator,
) -> None:
    async with coordinator.asked() as ask:
        for turn in range(RACES):
            wanted = [pools("p", 3, number=10 * (turn + 1) + rival) for rival in (1, 2)]
            shown = [await ask.Plan(pb.ApplyRequest(resources=text)) for text in wanted]
            assert len({plan.generation for plan in shown}) == 1
            outcomes = await asyncio.gather(
                *(
                    ask.Apply(pb.ApplyRequest(resources=text, generation=plan.generation))
                    for text, plan in zip(wanted, shown, strict=True)
                )
            )
            if turn == 0:  # nothing was stored: generation 0 guards nothing
                continue
            won = [one for one in outcomes if one.applied]
            lost = [one for one in outcomes if not one.applied]
            assert (len(won), len(lost)) == (1, 1)
            assert "the configuration changed since the plan" in lost[0].refusal
            assert not lost[0].changes
            there = {
                address["value"]
                for pool in (await coordinator.stored()).values()
                for address in pool["addresses"]
            }
            assert len(there) == 1  # of one apply, not of both


async def test_an_apply_whose_coordinator_is_killed_is_there_whole_or_not_at_all(
    coordinator: Coordinator,
) -> None:
    """Killed at any moment from before the apply arrives to after its answer."""
    begun = time.monotonic()
    async with coordinator.asked() as ask:
        assert (await ask.Apply(pb.ApplyRequest(resources=pools("warm", RESOURCES)))).applied
    lasts_s = time.monotonic() - begun
    dice = random.Random(11)
    seen: list[tuple[float, int, bool]] = []
    for turn in range(KILLS):
        after_s = lasts_s * 1.2 * (turn + dice.random()) / KILLS
        answered = False
        async with coordinator.asked() as ask:
            request = pb.ApplyRequest(resources=pools(f"t{turn}-", RESOURCES))
            call = asyncio.ensure_future(ask.Apply(request))
            await asyncio.wait({call}, timeout=after_s)
            await coordinator.end(signal.SIGKILL)
            with contextlib.suppress(grpc.aio.AioRpcError):
                answered = (await call).applied
        await coordinator.start()
        there = sum(name.startswith(f"t{turn}-") for name in await coordinator.stored())
        seen.append((after_s, there, answered))
        assert there in (0, RESOURCES), seen
        assert there == RESOURCES or not answered, seen  # what was answered is there
    print(f"an apply of {RESOURCES} resources takes {lasts_s:.2f} s")
    for after_s, there, answered in seen:
        print(f"  killed after {after_s:.3f} s: {there} are there, answered: {answered}")
