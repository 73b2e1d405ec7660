"""Random services on a running system under random forces: dig's answers are those of explain.

`make acceptance` runs the long form (1,000 instances, 100 pairs, 1,000 digs of each, which see all
that explain says is possible); ACCEPTANCE=long in the environment does the same.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from ctl.client import Client
from ctl.digs import Question, ask
from ctl.running import Running
from ctl.show import as_yaml
from gtm.v1 import operator_pb2 as pb

pytestmark = pytest.mark.integration

LONG = os.environ.get("ACCEPTANCE") == "long"
INSTANCES, POOLS, PAIRS, DIGS = (1_000, 200, 100, 1_000) if LONG else (40, 16, 30, 12)
FORCES = POOLS // 4
SEED = int(os.environ.get("ACCEPTANCE_SEED", "20261126"))
LINES = (
    "country:CN", "country:US", "continent:EU", "oversea", "isp:telecom", "network:1.0.0.0/8",
    "network:8.8.0.0/16", "country:DE",
)  # fmt: skip
WORDS = ("round_robin", "weighted", "sequence", "sticky")


def pool(dice: random.Random, number: int) -> dict[str, Any]:
    """A pool of up to four addresses, some of them out by their mode."""
    members: list[dict[str, Any]] = [
        {"value": f"10.{number >> 8}.{number & 255}.{n}", "weight": dice.randint(1, 4)}
        for n in range(1, dice.randint(2, 5))
    ]
    for member in members[1:]:
        member["mode"] = dice.choice(("smart", "online", "offline", "manual_up", "manual_down"))
    steering: Any = dice.choice(WORDS)
    if steering == "weighted" and dice.random() < 0.5:
        steering = {"type": "weighted", "answers": 2}
    return {"type": "ipv4", "addresses": members, "steering": steering}


def instance(dice: random.Random, number: int) -> dict[str, Any]:
    """An instance of some lines and the default, each with up to three tiers."""

    def tiers() -> list[dict[str, Any]]:
        names = dice.sample(range(POOLS), dice.randint(1, 4))
        at = dice.randint(1, len(names))
        return [
            {"pools": [f"p{n}" for n in part], "steering": dice.choice(WORDS)}
            for part in (names[:at], names[at:])
            if part
        ]

    lines = [*dice.sample(LINES, dice.randint(0, 3)), "default"]
    rules = [{"name": f"r{at}", "lines": [text], "tiers": tiers()} for at, text in enumerate(lines)]
    return {"id": f"gtm{number:08}", "ttl": "30s", "rules": rules}


def configuration(dice: random.Random) -> dict[str, Any]:
    """The whole set."""
    return {
        "zones": {"gtm.test": {"nameservers": ["ns.example.org"]}},
        "pools": {f"p{n}": pool(dice, n) for n in range(POOLS)},
        "instances": {f"i{n}": instance(dice, n) for n in range(INSTANCES)},
    }


async def forced(asked: Client, dice: random.Random, pools: dict[str, Any]) -> None:
    """Force some addresses and pools, and wait until every resolver serves that."""
    for name in dice.sample(sorted(pools), FORCES):
        member = dice.choice(pools[name]["addresses"])["value"]
        target = name if dice.random() < 0.3 else f"{name}/{member}"
        await asked.force(
            pb.ForceRequest(
                target=target,
                action=dice.choice(("down", "up", "drain")),
                who="test",
                why="a fault",
                for_s=3600,
            )
        )
    before, still = 0, 0
    async with asyncio.timeout(60.0):
        while still < 5:
            status = await asked.status()
            lags = [one.lag for one in status.replicas]
            quiet = lags and not any(lags)
            still = still + 1 if quiet and status.serve_revision == before else 0
            before = status.serve_revision
            await asyncio.sleep(0.1)


async def test_every_answer_of_dig_is_one_that_explain_says_is_possible(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    whole = configuration(dice)
    path = tmp_path / "random.yaml"
    path.write_text(as_yaml(whole))
    seen_all = 0
    with Running(tmp_path / "system", config=path, regions=("r1",)) as running:
        async with Client(running.server) as asked:
            await forced(asked, dice, whole["pools"])
            for _ in range(PAIRS):
                name = f"gtm{dice.randrange(INSTANCES):08}.gtm.test"
                host = ipaddress.IPv4Address(dice.randrange(1 << 24, 223 << 24) & 0xFFFFFF00)
                client = f"{host}/24"
                request = pb.ExplainRequest(name=name, client=client, type="A")
                told = json.loads(await asked.explain(request))
                possible = {frozenset(one) for one in told["possible_answers"]}
                answers = set()
                for turn in range(DIGS):
                    server = running.dns[turn % len(running.dns)]
                    found = await asyncio.to_thread(ask, server, Question(name, client))
                    assert found.rcode == "NOERROR", (name, client, found)
                    answers.add(found.addresses)
                assert answers <= possible, (SEED, name, client, answers, told)
                seen_all += answers == possible
    print(f"all possible answers were seen of {seen_all} of {PAIRS} pairs")
    assert seen_all == PAIRS or not LONG
