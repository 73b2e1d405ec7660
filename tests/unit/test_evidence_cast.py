"""Votes as they are stored, a column at a time: the same as one at a time."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from coordinator.events import Frame, Now
from coordinator.evidence import Evidence
from coordinator.targets import Targets
from gtm.model import Address, Check, Pool, Region, Resources
from gtm.units import Duration

COUNT = 40
REGIONS = ("one", "two", "still", "muted", "unheard")
RESOURCES = Resources(
    regions={name: Region() for name in REGIONS},
    checks={"c": Check(type="tcp", port=80, interval=Duration(1000), timeout=Duration(500))},
    pools={
        "p": Pool(
            type="ipv4",
            checks=("c",),
            addresses=tuple(Address(value=f"192.0.2.{number}") for number in range(COUNT)),
        )
    },
)


@pytest.mark.parametrize("seed", range(5))
def test_columns_say_what_single_records_say(seed: int) -> None:
    dice = np.random.default_rng(seed)
    targets = Targets()
    targets.update(RESOURCES, frozenset(REGIONS), 0)
    evidence = Evidence(targets)
    agents = [("one", "a"), ("two", "a"), ("two", "b"), ("still", "a"), ("muted", "a")]
    for region, agent in agents:
        evidence.found(region, agent, 0)
    evidence.silenced = {"muted": "muted: by hand"}
    now_ms = 0
    for _ in range(12):
        now_ms += int(dice.integers(100, 900))
        for region, agent in agents:
            some = dice.choice(COUNT, size=COUNT // 2, replace=False).astype(np.int64)
            if region == "still" and now_ms > 2_000:
                continue  # its opinions lapse
            frame = Frame(
                region=region,
                agent=agent,
                target=some,
                outcome=dice.integers(1, 4, len(some)),
                age_ms=dice.integers(0, 50, len(some)),
                rtt_us=dice.integers(0, 9_000, len(some)),
                reason=dice.integers(0, 2, len(some)),
                reasons=("", "refused"),
            )
            evidence.frame(frame, now_ms)
        evidence.lapse(now_ms)
    now = Now(now_ms, 1_000_000.0)
    numbers = targets.numbers()
    kinds = set()
    for region in (*REGIONS, "nowhere"):
        for number, cast in zip(numbers.tolist(), evidence.cast(region, numbers, now), strict=True):
            record = evidence.record(region, number)
            place = evidence.regions.get(region)
            turned_ms = int(place.voted_ms[number]) if place and record.vote != "none" else 0
            since = round(now.wall_s - (now_ms - turned_ms) / 1000, 3) if turned_ms else 0.0
            assert cast == replace(record, since=since)
            kinds.add((cast.vote, bool(cast.reason), bool(cast.since)))
    assert {("up", False, True), ("down", True, True), ("none", True, False)} <= kinds
