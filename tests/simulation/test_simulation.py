"""The whole system on one thread under a nemesis: seeds without violations, each the same again.

`SIMULATION_SEEDS` says how many (default: 100), `SIMULATION_FIRST` from which on.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from agent.probes.base import Kind

from .monitor import Opinion
from .mutants import COPIED, MUTANTS, ROOT, planted
from .run import Seen, Simulation, many, simulate

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "100"))
FIRST = int(os.environ.get("SIMULATION_FIRST", "1"))
PART = 5
"""Seeds of one test."""
FIVE: dict[str, Any] = {
    "coordinators": 1,
    "regions": 5,
    "addresses": 5,
    "interval_s": 30,
    "fall": 2,
    "rise": 2,
    "share": 50,
    "resolvers": 1,
    "doubled": 0,
}


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, PART))
def test_an_hour_under_the_nemesis_violates_nothing(first):
    for seen in many(range(first, min(first + PART, FIRST + SEEDS)), 1):
        print(f"seed {seen.seed}: {seen.size} trace {seen.trace}")
        assert not seen.violations, f"seed {seen.seed}: {seen.violations}"
        assert sum(seen.faults.values()) > 50


def test_a_seed_gives_the_same_hour_again():
    one, other = many([7, 7], 1, trace=True, hours=0.5)
    assert one.trace == other.trace
    assert one.lines == other.lines
    assert one.trace != simulate(8, hours=0.5).trace


def scripted(failing: bool) -> Seen:
    """An hour in which one origin dies at 1,800 s; `failing`: and one of five regions sees all
    fail, from 120 s on."""
    return simulate(3, nemesis=False, script="failing" if failing else "one", **FIVE)


def test_a_region_that_fails_everything_changes_no_verdict_and_delays_none():
    plain, failing = scripted(False), scripted(True)
    for seen in (plain, failing):
        assert not seen.violations
        turned = [(at, key.address, verdict) for at, key, verdict in seen.changes if at > 1_100]
        assert [row[1:] for row in turned] == [("192.0.2.1", "down"), ("192.0.2.1", "up")]
    times = [[at for at, _, verdict in seen.changes if at > 1_100] for seen in (plain, failing)]
    assert times[0] == pytest.approx(times[1], abs=FIVE["interval_s"])


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_every_mutant_can_still_be_planted(mutant, tmp_path):
    for path in {edit.path for edit in mutant.edits}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text((ROOT / path).read_text())
        assert path.partition("/")[0] in COPIED
    planted(mutant, tmp_path)


def test_a_simulation_prints_its_size():
    assert "coordinators=1" in str(Simulation(1, **FIVE).world.size)


def test_who_missed_results_may_hold_either_vote_until_a_streak_is_long_enough() -> None:
    opinion, up, down = Opinion(), Kind.SUCCESS, Kind.FAILURE
    calm = [opinion.take(kind, 3, 2, shaken=False) for kind in (down, down, down, up, down)]
    assert calm == [{"none"}, {"none"}, {"down"}, {"down"}, {"down"}]
    assert opinion.take(up, 3, 2, shaken=True) == {"down", "up"}
    for kind in (down, up, down, up, down, down):
        assert opinion.take(kind, 3, 2, shaken=False) == {"down", "up"}
    assert opinion.take(down, 3, 2, shaken=False) == {"down"}


def test_who_begins_anew_may_begin_with_the_last_result() -> None:
    opinion = Opinion()
    for kind in (Kind.FAILURE, Kind.FAILURE, Kind.SUCCESS):
        opinion.take(kind, 2, 3, shaken=False)
    assert opinion.votes == {"down"}
    assert opinion.anew(2, 3) == {"down", "up"}
