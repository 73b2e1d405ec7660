"""Backtests: recent results in a bounded ring, judged again by the engine with other thresholds."""

from __future__ import annotations

import json
from typing import Any

import grpc.aio
import numpy as np
import pytest

from coordinator import backtest, recent
from coordinator.backtest import Compared, Run, Thresholds, Turn, compared, replay
from coordinator.events import FAILURE, SUCCESS, Frame, TargetKey
from coordinator.recent import Recent
from coordinator.views import Assigned
from ctl.commands import backtest as command
from ctl.main import main
from gtm import codec
from gtm.memory import MemoryStore
from gtm.model import Check
from gtm.units import Duration, Share, Voters
from gtm.v1 import operator_pb2 as pb
from gtm.v1.operator_pb2_grpc import OperatorStub

KEY = TargetKey("web", "192.0.2.1", 80)
REGIONS = ("r1", "r2", "r3")
CHECK = Check(
    type="tcp", port=80, interval=Duration(10_000), timeout=Duration(2_000), fall=2, rise=2
)
START = 1_700_000_000_000


def assigned(*keys: TargetKey, first: int = 0) -> dict[TargetKey, Assigned]:
    return {
        key: Assigned(
            number=first + at,
            key=key,
            type="tcp",
            options="{}",
            interval_ms=10_000,
            gap_ms=0,
            timeout_ms=2_000,
            fall=2,
            rise=2,
            regions=frozenset(REGIONS),
        )
        for at, key in enumerate(keys)
    }


def frame(agent: str, target: list[int], outcome: list[int], age_ms: list[int]) -> Frame:
    region, _, name = agent.partition("/")
    zero = np.zeros(len(target), dtype=np.int64)
    return Frame(
        region=region,
        agent=name,
        target=np.array(target),
        outcome=np.array(outcome),
        age_ms=np.array(age_ms),
        rtt_us=zero,
        reason=zero,
    )


GRACE = np.full(64, 32_000, dtype=np.int64)


def told(ring: Recent, agent: str, outcomes: str, step_ms: int = 10_000, begin: int = START) -> int:
    """Take one result a step: `+` success, `-` failure, `.` none; when the last one was."""
    at = begin
    for one in outcomes:
        if one != ".":
            ring.take(frame(agent, [0], [SUCCESS if one == "+" else FAILURE], [0]), GRACE, at)
        at += step_ms
    return at - step_ms


def runs(ring: Recent, now: int, key: TargetKey = KEY) -> list[tuple[int, int, int, int]]:
    found = ring.runs_of([key], now, 10**9).get(key)
    if found is None:
        return []
    rows = zip(found.outcome, found.count, found.began_ms, found.ended_ms, strict=True)
    return list(rows)


# ---- the ring ------------------------------------------------------------------------------


def test_equal_outcomes_are_one_run() -> None:
    ring = Recent()
    ring.assigned(assigned(KEY))
    now = told(ring, "r1/a", "+++--+")
    assert runs(ring, now) == [
        (SUCCESS, 3, 50_000, 30_000),
        (FAILURE, 2, 20_000, 10_000),
        (SUCCESS, 1, 0, 0),
    ]


def test_a_silence_longer_than_the_grace_ends_a_run() -> None:
    ring = Recent()
    ring.assigned(assigned(KEY))
    now = told(ring, "r1/a", "++....++")
    assert [row[:2] for row in runs(ring, now)] == [(SUCCESS, 2), (SUCCESS, 2)]


def test_rows_of_one_target_in_one_frame_count_in_their_order() -> None:
    ring = Recent()
    ring.assigned(assigned(KEY))
    ring.take(frame("r1/a", [0, 0, 0], [1, 2, 1], [20, 10, 0]), GRACE, START)
    ring.take(frame("r1/a", [0, 99, -1, 0], [1, 1, 1, 7], [0, 0, 0, 0]), GRACE, START)
    assert [row[:2] for row in runs(ring, START)] == [(1, 1), (2, 1), (1, 1)]


def test_a_number_that_means_another_target_forgets_the_former() -> None:
    ring = Recent()
    ring.assigned(assigned(KEY))
    told(ring, "r1/a", "+-+")
    other = TargetKey("web", "192.0.2.9", 80)
    ring.assigned(assigned(other))
    now = told(ring, "r1/a", "++", begin=START + 60_000)
    assert runs(ring, now) == []
    assert [row[:2] for row in runs(ring, now, other)] == [(SUCCESS, 2)]


def test_the_ring_is_bounded_in_all_and_for_each_target(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Recent(max_runs=8)
    ring.assigned(assigned(KEY))
    now = told(ring, "r1/a", "+-" * 10)
    assert (len(runs(ring, now)), ring.runs, ring.dropped) == (9, 8, 11)
    monkeypatch.setattr(recent, "MAX_TARGET_RUNS", 4)
    thinned = Recent(max_runs=100)
    thinned.assigned(assigned(KEY))
    now = told(thinned, "r1/a", "+-" * 10)
    assert thinned.runs <= 4
    assert runs(thinned, now)[-1] == (FAILURE, 1, 0, 0)


def test_agents_beyond_the_cells_are_counted_and_not_kept() -> None:
    ring = Recent(max_cells=64)
    ring.assigned(assigned(KEY) | assigned(TargetKey("web", "192.0.2.2", 80), first=63))
    now = told(ring, "r1/a", "++")
    told(ring, "r2/a", "++")
    assert (len(runs(ring, now)), ring.dropped) == (1, 2)


def test_memory_is_as_the_page_says() -> None:
    ring = Recent()
    keys = [TargetKey("web", f"n{n}", 80) for n in range(1000)]
    ring.assigned(assigned(*keys))
    for region in REGIONS:
        target = list(range(1000))
        ring.take(frame(f"{region}/a", target, [1] * 1000, [0] * 1000), np.tile(GRACE, 16), START)
    assert ring.size_bytes <= 19 * recent.MAX_RUNS + 3 * 13 * 1000 + 12 * 1000


# ---- the replay ----------------------------------------------------------------------------


def recorded(**of: str) -> dict[TargetKey, list[Run]]:
    """Results of one agent in each region as the ring gives them back."""
    ring = Recent()
    ring.assigned(assigned(KEY))
    for region, outcomes in of.items():
        now = told(ring, f"{region}/a", outcomes)
    found = ring.runs_of([KEY], now, 10**9)[KEY]
    return {
        KEY: [
            Run(
                agent=found.agents[agent],
                outcome=outcome,
                count=count,
                began_ms=now - began,
                ended_ms=now - ended,
            )
            for agent, outcome, count, began, ended in zip(
                found.agent, found.outcome, found.count, found.began_ms, found.ended_ms, strict=True
            )
        ]
    }


FLAPPING = "+++--++" * 5 + "+++-----" + "++++"
"""Five short failures of two probes each, then one of five."""


def at(step: int) -> int:
    return START + 10_000 * step


def test_a_replay_turns_when_the_engine_would_have() -> None:
    found = replay(CHECK, REGIONS, recorded(r1=FLAPPING, r2=FLAPPING, r3=FLAPPING))[KEY]
    assert found[:4] == [
        Turn(at(0), "up"),
        Turn(at(4), "down"),
        Turn(at(6), "up"),
        Turn(at(11), "down"),
    ]
    assert len(found) == 1 + 2 * 6


def test_a_higher_fall_avoids_short_failures_and_delays_the_long_one() -> None:
    data = recorded(r1=FLAPPING, r2=FLAPPING, r3=FLAPPING)
    before = replay(CHECK, REGIONS, data)[KEY]
    after = replay(Thresholds(fall=3).on(CHECK), REGIONS, data)[KEY]
    found = compared(before, after, 500)
    assert len(found.avoided) == 10
    assert found.delayed == ((Turn(at(39), "down"), 10_000),)
    assert [turn.verdict for turn in found.same] == ["up"]
    assert found.added == ()


def test_a_lower_fall_adds_turns_and_comes_earlier() -> None:
    outcomes = "+++-++++--++"
    data = recorded(r1=outcomes, r2=outcomes, r3=outcomes)
    before = replay(CHECK, REGIONS, data)[KEY]
    after = replay(Thresholds(fall=1).on(CHECK), REGIONS, data)[KEY]
    found = compared(before, after, 500)
    assert [by for _, by in found.earlier] == [10_000]
    assert [turn.at_ms for turn in found.added] == [at(3), at(5)]


def test_shares_and_voters_are_replayed_too() -> None:
    data = recorded(r1="++----", r2="++++++", r3="++++++")
    assert [one.verdict for one in replay(CHECK, REGIONS, data)[KEY]] == ["up"]
    one = Thresholds(failing_share=Share.parse("30%")).on(CHECK)
    assert [turn.verdict for turn in replay(one, REGIONS, data)[KEY]] == ["up", "down"]
    lone = recorded(r1="++----")
    assert replay(CHECK, REGIONS, lone)[KEY] == []  # two of three regions say nothing: pending
    few = Thresholds(min_voters=Voters.parse(1)).on(CHECK)
    assert [turn.verdict for turn in replay(few, REGIONS, lone)[KEY]] == ["up", "down"]


def test_a_silence_is_replayed_as_one() -> None:
    data = recorded(r1="++.......--", r2="++.......--", r3="++.......--")
    assert [one.verdict for one in replay(CHECK, REGIONS, data)[KEY]] == ["up", "down"]


def test_too_many_results_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtest, "MAX_RESULTS", 3)
    with pytest.raises(ValueError, match="replay a shorter time"):
        replay(CHECK, REGIONS, recorded(r1="++++"))


def test_nothing_is_compared_with_nothing() -> None:
    assert compared([], [Turn(1, "up")], 0) == Compared()


# ---- the command ---------------------------------------------------------------------------


def message() -> pb.RecentTarget:
    data = recorded(r1=FLAPPING, r2=FLAPPING, r3=FLAPPING)[KEY]
    agents = sorted({run.agent for run in data})
    now = max(run.ended_ms for run in data)
    return pb.RecentTarget(
        check="web",
        address=KEY.address,
        port=KEY.port,
        now=now / 1000,
        agents=agents,
        agent=[agents.index(run.agent) for run in data],
        outcome=[run.outcome for run in data],
        count=[run.count for run in data],
        began_ms=[now - run.began_ms for run in data],
        ended_ms=[now - run.ended_ms for run in data],
        check_json=codec.encode(CHECK).decode(),
        voters=REGIONS,
    )


def test_a_recorded_file_says_what_would_have_been(tmp_path: Any, capsys: Any) -> None:
    path = tmp_path / "flapping.jsonl"
    command.write(path, [message()])
    ask = ["backtest", "--check", "web", "--fall", "3", "--from", str(path)]
    assert main([*ask, "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    totals = {"same": 1, "delayed": 1, "earlier": 0, "avoided": 10, "added": 0}
    assert found["totals"] == totals
    assert found["targets"][0]["delayed"][0]["by_s"] == 10.0
    assert main(ask) == 0
    text = capsys.readouterr().out
    assert "down  delayed by 10s" in text
    assert "turns: 1 same, 1 delayed, 0 earlier, 10 avoided, 0 added" in text
    assert main(["backtest", "--check", "other", "--fall", "3", "--from", str(path)]) == 1


REFUSED = [
    (["--fall", "3", "--interval", "5s"], "--interval cannot be replayed"),
    ([], "say what to try"),
    (["--fall", "0"], "--fall is 1 to 100"),
    (["--failing-share", "x"], "--failing-share"),
    (["--fall", "3", "--since", "x"], "--since"),
    (["--fall", "3", "--from", "/nowhere/x"], "cannot read"),
    (["--fall", "3", "--from", __file__], "is no exported file"),
]


@pytest.mark.parametrize(("flags", "said"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
def test_wrong_use_is_refused_in_a_sentence(flags: list[str], said: str, capsys: Any) -> None:
    assert main(["backtest", "--check", "web", *flags]) == 2
    assert said in capsys.readouterr().err


async def test_a_coordinator_streams_what_it_heard(helpers: Any) -> None:
    async with (
        helpers.coordinator(MemoryStore()) as made,
        grpc.aio.insecure_channel(f"127.0.0.1:{made.port}") as channel,
    ):
        ask = OperatorStub(channel)
        given = codec.canonical(helpers.SMALL).decode()
        await helpers.until(lambda: made.leadership.fence)
        assert (await ask.Apply(pb.ApplyRequest(resources=given))).applied
        engine = made.judge.engine
        await helpers.until(engine.targets)
        key = sorted(engine.targets())[0]
        made.judge.handle(frame("eu/a", [engine.number(key) or 0], [SUCCESS], [0]))
        (one,) = [got async for got in ask.Recent(pb.RecentRequest(check="web"))]
        assert (one.address, list(one.count), list(one.agents)) == (key.address, [1], ["eu/a"])
        assert set(one.voters) == {"eu", "us", "as"}
        with pytest.raises(grpc.aio.AioRpcError, match="there is no check"):
            _ = [got async for got in ask.Recent(pb.RecentRequest(check="none"))]
