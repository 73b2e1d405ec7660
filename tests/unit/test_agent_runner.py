"""The runner on a loop with virtual time: deadlines, bounds, streaks, opinions."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from agent import metrics
from agent.probes.base import Kind, Outcome, ProbeSettings, Reason, Target
from agent.results import ProbeResult
from agent.runner import CONFIRM_GAP_MS, HARD_MS, STALLED_MS, Opinion, Runner

GOOD = Outcome(Kind.SUCCESS, rtt_us=800)
BAD = Outcome(Kind.FAILURE, Reason.REFUSED)
UNABLE = Outcome(Kind.NO_OPINION, Reason.PERMISSION)
LATE = Outcome(Kind.FAILURE, Reason.TIMEOUT)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when nothing else is left to do, and then at once."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.now = 1000.0
        real = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None = None) -> Any:
            if timeout is None:
                raise AssertionError("the loop would wait for ever")
            self.now += timeout
            return real(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scene in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())


def target(number: int = 0, *, interval: int = 10_000, timeout: int = 500, **more: Any) -> Target:
    return Target(
        "web", f"192.0.2.{number}", 80, "tcp", "{}", interval, timeout, settings=None, **more
    )


class Stage:
    """A runner with probes from `script`, and what it reported."""

    def __init__(
        self, script: Callable[[Target], Awaitable[Outcome]], max_probes: int = 100
    ) -> None:
        self.results: list[ProbeResult] = []
        self.running = self.peak = 0
        self._script = script
        self.runner = Runner("r1/agent", max_probes, self.results.append, lambda _: self._probe)

    async def _probe(self, one: Target) -> Outcome:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            return await self._script(one)
        finally:
            self.running -= 1

    def assign(self, *targets: Target) -> None:
        self.runner.assign({one.identity: one for one in targets})

    def standing(self, one: Target) -> Any:
        return self.runner.standing(one.identity)


def sequence(*outcomes: Outcome) -> Callable[[Target], Awaitable[Outcome]]:
    """Each probe takes 50 ms and has the next outcome, the last one for ever."""
    left = list(outcomes)

    async def probe(_: Target) -> Outcome:
        await asyncio.sleep(0.05)
        return left.pop(0) if len(left) > 1 else left[0]

    return probe


def test_one_success_is_an_opinion_and_slows_probing_down_to_the_interval() -> None:
    async def scene() -> None:
        stage = Stage(sequence(BAD, GOOD))
        stage.assign(target())
        await asyncio.sleep(60)
        ends = [result.ended_ms for result in stage.results]
        assert ends[1] - ends[0] == pytest.approx(1000, abs=2)
        assert ends[3] - ends[2] == pytest.approx(10_000, abs=2)
        assert stage.standing(target()).opinion is Opinion.UP

    play(scene)


TURNS = [
    # outcomes, fall, rise, opinion, streak
    ([BAD], 2, 2, Opinion.NONE, 1),
    ([BAD, BAD], 2, 2, Opinion.DOWN, 2),
    ([BAD, UNABLE, BAD], 2, 2, Opinion.NONE, 1),
    ([GOOD, BAD], 2, 2, Opinion.UP, 1),
    ([GOOD, BAD, BAD], 2, 2, Opinion.DOWN, 2),
    ([BAD, BAD, GOOD], 2, 2, Opinion.DOWN, 1),
    ([BAD, BAD, GOOD, GOOD], 2, 2, Opinion.UP, 2),
    ([GOOD, UNABLE, UNABLE], 1, 1, Opinion.UP, 2),
    ([UNABLE], 1, 1, Opinion.NONE, 1),
    ([BAD, GOOD], 1, 3, Opinion.DOWN, 1),
]


@pytest.mark.parametrize(("outcomes", "fall", "rise", "opinion", "streak"), TURNS)
def test_opinions_turn_as_the_thresholds_say(
    outcomes: list[Outcome], fall: int, rise: int, opinion: Opinion, streak: int
) -> None:
    async def scene() -> None:
        stage = Stage(sequence(*outcomes))
        one = target(interval=1000, fall=fall, rise=rise)
        stage.assign(one)
        while len(stage.results) < len(outcomes):
            await asyncio.sleep(0.1)
        standing = stage.standing(one)
        assert (standing.opinion, standing.streak) == (opinion, streak)

    play(scene)


def test_a_probe_that_never_ends_is_cancelled_and_gives_no_opinion() -> None:
    async def forever(_: Target) -> Outcome:
        await asyncio.sleep(1e6)
        return GOOD

    async def scene() -> None:
        before = metrics.OVERRUN._value.get()
        stage = Stage(forever)
        stage.assign(target())
        await asyncio.sleep(4.0)
        outcomes = {(one.outcome.kind, one.outcome.reason) for one in stage.results}
        assert outcomes == {(Kind.NO_OPINION, Reason.OVERRUN)}
        assert metrics.OVERRUN._value.get() - before == len(stage.results)
        assert stage.running <= 1

    play(scene)


def test_a_probe_that_swallows_its_cancellation_blocks_its_own_target_alone() -> None:
    async def stubborn(one: Target) -> Outcome:
        if one.address != "192.0.2.1":
            return GOOD
        end = asyncio.get_running_loop().time() + 30
        while (left := end - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                pass
        return GOOD

    async def scene() -> None:
        stage = Stage(stubborn)
        stage.assign(target(1, interval=1000), target(2, interval=1000))
        await asyncio.sleep(25)
        mine = [one for one in stage.results if one.identity[1] == "192.0.2.1"]
        others = [one for one in stage.results if one.identity[1] == "192.0.2.2"]
        assert [one.outcome.reason for one in mine] == [Reason.OVERRUN]
        assert len(others) >= 24
        await asyncio.sleep(10)  # it ended at last: probed again
        assert len([one for one in stage.results if one.identity[1] == "192.0.2.1"]) >= 1
        assert stage.standing(target(1, interval=1000)).task is not None

    play(scene)


@pytest.mark.parametrize("error", [ValueError("boom"), OSError(5, "io"), asyncio.CancelledError()])
def test_what_a_probe_raises_is_no_opinion_and_goes_no_further(error: BaseException) -> None:
    async def broken(_: Target) -> Outcome:
        await asyncio.sleep(0.01)
        raise error

    async def scene() -> None:
        stage = Stage(broken)
        stage.assign(target())
        await asyncio.sleep(3.5)
        assert len(stage.results) >= 3
        assert {one.outcome.reason for one in stage.results} == {Reason.FAULT}
        assert {one.outcome.kind for one in stage.results} == {Kind.NO_OPINION}

    play(scene)


def test_a_time_out_noticed_much_too_late_is_this_agents_fault() -> None:
    async def asleep(_: Target) -> Outcome:
        await asyncio.sleep((500 + STALLED_MS + 100) / 1000)
        return LATE

    async def in_time(_: Target) -> Outcome:
        await asyncio.sleep(0.5)
        return LATE

    async def scene() -> None:
        slow, sound = Stage(asleep), Stage(in_time)
        slow.assign(target())
        sound.assign(target())
        await asyncio.sleep(2)
        assert {one.outcome.reason for one in slow.results} == {Reason.STALLED}
        assert {one.outcome.kind for one in slow.results} == {Kind.NO_OPINION}
        assert {one.outcome.reason for one in sound.results} == {Reason.TIMEOUT}

    play(scene)


def test_no_more_probes_run_at_once_than_allowed_and_none_is_lost() -> None:
    async def slow(_: Target) -> Outcome:
        await asyncio.sleep(0.2)
        return GOOD

    async def scene() -> None:
        before = metrics.LATE._value.get()
        stage = Stage(slow, max_probes=3)
        stage.assign(*(target(number) for number in range(60)))
        await asyncio.sleep(6)
        assert stage.peak == 3
        assert len({one.identity for one in stage.results}) == 60
        assert metrics.LATE._value.get() > before

    play(scene)


def test_a_target_that_is_no_more_assigned_is_not_reported_on() -> None:
    async def slow(_: Target) -> Outcome:
        await asyncio.sleep(0.4)
        return GOOD

    async def scene() -> None:
        stage = Stage(slow)
        stage.assign(target(1), target(2))
        while stage.running < 1:
            await asyncio.sleep(0.01)
        stage.assign()
        await asyncio.sleep(2)
        assert stage.results == []
        assert stage.running == 0
        assert len(stage.runner) == 0

    play(scene)


def test_what_stays_assigned_keeps_where_it_stands() -> None:
    async def scene() -> None:
        stage = Stage(sequence(GOOD))
        stage.assign(target(1))
        await asyncio.sleep(2)
        stage.assign(target(1, fall=5), target(2))
        standing = stage.standing(target(1))
        assert standing.opinion is Opinion.UP
        assert standing.target.fall == 5

    play(scene)


def test_a_target_that_this_agent_cannot_read_gives_no_opinion_with_the_reason() -> None:
    async def scene() -> None:
        results: list[ProbeResult] = []
        runner = Runner("r1/agent", 10, results.append)
        odd = Target("c", "192.0.2.1", 0, "carrier_pigeon", "{}", 1000, 100, unfit="no such type")
        runner.assign({odd.identity: odd})
        await asyncio.sleep(2.5)
        assert len(results) >= 2
        assert results[0].outcome.text == "settings: no such type"
        assert results[0].outcome.kind is Kind.NO_OPINION

    play(scene)


def test_round_trips_are_smoothed_over_successes_only() -> None:
    async def scene() -> None:
        first = Outcome(Kind.SUCCESS, rtt_us=800)
        second = Outcome(Kind.SUCCESS, rtt_us=1600)
        stage = Stage(sequence(first, BAD, second, BAD))
        stage.assign(target(interval=1000))
        while len(stage.results) < 4:
            await asyncio.sleep(0.1)
        assert stage.standing(target(interval=1000)).smoothed_us == 900

    play(scene)


def test_closing_ends_every_probe_and_reports_none_of_them() -> None:
    async def scene() -> None:
        stage = Stage(sequence(GOOD))
        stage.assign(*(target(number) for number in range(50)))
        await asyncio.sleep(0.5)
        await stage.runner.close()
        seen = len(stage.results)
        await asyncio.sleep(5)
        assert len(stage.results) == seen
        assert stage.running == 0

    play(scene)


def test_the_hard_deadline_is_that_of_the_type_with_its_own_span() -> None:
    class Long(ProbeSettings, frozen=True):
        def span_ms(self, timeout_ms: int) -> int:
            return 3000 + timeout_ms

    async def long(_: Target) -> Outcome:
        await asyncio.sleep(3.4)
        return GOOD

    async def scene() -> None:
        stage = Stage(long)
        one = Target("c", "192.0.2.1", 0, "ping", "{}", 10_000, 500, settings=Long())
        stage.assign(one)
        await asyncio.sleep(6)
        assert 3000 + 500 + HARD_MS > 3400
        assert [result.outcome.kind for result in stage.results] == [Kind.SUCCESS]

    play(scene)


def test_each_probe_keeps_a_hard_deadline_of_its_own() -> None:
    async def stuck(_: Target) -> Outcome:
        await asyncio.Event().wait()
        return GOOD

    async def scene() -> None:
        stage = Stage(stuck)
        spans = {1: 900, 2: 100, 3: 500}
        began: dict[str, int] = {}
        stage._script = lambda one: began.setdefault(one.address, now()) and stuck(one)
        now = stage.runner.now_ms
        stage.assign(*(target(number, timeout=span) for number, span in spans.items()))
        await asyncio.sleep(HARD_MS / 1000 + 1.95)
        ends = {result.identity[1]: result.ended_ms for result in stage.results[:3]}
        for number, span in spans.items():
            address = target(number).address
            assert ends[address] - began[address] == pytest.approx(span + HARD_MS, abs=2)
        assert {one.outcome.reason for one in stage.results} == {Reason.OVERRUN}

    play(scene)


def test_a_target_that_goes_before_its_probe_had_a_turn_leaves_no_slot_taken() -> None:
    async def scene() -> None:
        kept, gone = target(1, interval=1_000), target(2, interval=1_000)
        probed: list[str] = []

        async def probe(one: Target) -> Outcome:
            probed.append(one.address)
            stage.assign(kept)  # the other one's task stands in line behind this one
            return GOOD

        stage = Stage(probe, max_probes=2)
        stage.assign(kept, gone)
        for one in (kept, gone):
            stage.runner._schedule._entries[one.identity].slot_ms = stage.runner.now_ms() + 5
            stage.runner._schedule._push(stage.runner._schedule._entries[one.identity])
        stage.runner._arm()
        await asyncio.sleep(0.5)
        assert probed == [kept.address]
        assert stage.runner.running == 0
        assert len(stage.results) == 1

    play(scene)


def test_only_results_that_turn_no_vote_may_wait_for_others() -> None:
    async def scene() -> None:
        stage = Stage(sequence(GOOD, GOOD, GOOD, GOOD, GOOD, GOOD, BAD, BAD))
        stage.assign(target(interval=1_000, fall=2, rise=3))
        await asyncio.sleep(12)
        found = [(one.outcome.kind, one.patience_ms) for one in stage.results]
        good, bad = Kind.SUCCESS, Kind.FAILURE
        assert found[:6] == [*[(good, 0)] * 3, *[(good, 250)] * 3]
        assert found[6:10] == [*[(bad, 0)] * 2, *[(bad, 250)] * 2]

    play(scene)


# ---- asked by a coordinator ----------------------------------------------------------------------


def test_a_target_to_confirm_is_probed_at_once_until_its_failures_turn_the_opinion() -> None:
    async def scene() -> None:
        stage = Stage(sequence(GOOD, BAD))
        one = target(fall=3)
        stage.assign(one)
        while not stage.results:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        asked = stage.runner.now_ms()
        stage.runner.confirm([one.identity])
        await asyncio.sleep(2.0)
        ends = [result.ended_ms - asked for result in stage.results[1:]]
        assert len(ends) == 3
        assert stage.standing(one).opinion is Opinion.DOWN
        assert ends[0] < 100  # a probe takes 50 ms
        assert ends[2] < 3 * 50 + 2 * CONFIRM_GAP_MS + 50
        stage.runner.confirm([one.identity])  # what is down needs no confirming
        await asyncio.sleep(1.0)
        assert len(stage.results) == 4

    play(scene)


def test_a_success_ends_the_confirming() -> None:
    async def scene() -> None:
        stage = Stage(sequence(GOOD))
        stage.assign(target(1))
        await asyncio.sleep(2)
        seen = len(stage.results)
        for _ in range(5):
            stage.runner.confirm([target(1).identity])
            stage.runner.confirm([target(1).identity])  # another coordinator asks the same
        await asyncio.sleep(2)
        assert len(stage.results) == seen + 1

    play(scene)


def test_a_probe_that_was_under_way_when_it_was_asked_for_does_not_answer() -> None:
    async def scene() -> None:
        stage = Stage(sequence(GOOD, GOOD, BAD))
        one = target(1, fall=2)
        stage.assign(one)
        while not stage.results:
            await asyncio.sleep(0.01)
        while stage.running == 0:  # the next regular probe has begun
            await asyncio.sleep(0.01)
        stage.runner.confirm([one.identity])
        await asyncio.sleep(1.0)
        kinds = [result.outcome.kind for result in stage.results]
        assert kinds == [Kind.SUCCESS, Kind.SUCCESS, Kind.FAILURE, Kind.FAILURE]
        assert stage.peak == 1
        assert stage.standing(one).opinion is Opinion.DOWN

    play(scene)


def test_confirming_keeps_the_rate_of_a_target_and_its_length_is_bounded() -> None:
    async def scene() -> None:
        before = metrics.DEFERRED._value.get()
        stage = Stage(sequence(GOOD, BAD))
        one = target(1, interval=60_000, fall=4, gap_ms=1500)
        stage.assign(one)
        while not stage.results:
            await asyncio.sleep(0.01)
        stage.runner.confirm([one.identity, target(9).identity])
        await asyncio.sleep(8.0)
        ends = [result.ended_ms for result in stage.results]
        steps = [b - a for a, b in itertools.pairwise(ends)]
        assert len(steps) == 4
        assert min(steps) >= 1450
        assert metrics.DEFERRED._value.get() > before

    play(scene)


def test_while_no_canary_answers_every_result_is_no_opinion_with_the_reason() -> None:
    async def scene() -> None:
        stage = Stage(sequence(GOOD))
        one = target(1, interval=1000)
        stage.assign(one)
        await asyncio.sleep(2)
        stage.runner.blind = "192.0.2.250 timeout"
        await asyncio.sleep(2)
        outcome = stage.results[-1].outcome
        assert (outcome.kind, outcome.reason) == (Kind.NO_OPINION, Reason.CANARIES)
        assert outcome.text == "canaries fail: 192.0.2.250 timeout"
        stage.runner.blind = ""
        await asyncio.sleep(2)
        assert stage.results[-1].outcome.kind is Kind.SUCCESS

    play(scene)


def test_draining_lets_probes_end_and_begins_no_other_one() -> None:
    async def some_slow(one: Target) -> Outcome:
        await asyncio.sleep(50 if one.address == "192.0.2.7" else 0.4)
        return GOOD

    async def scene() -> None:
        stage = Stage(some_slow)
        stage.assign(*(target(number, interval=1000, timeout=100_000) for number in range(10)))
        while stage.running < 5:
            await asyncio.sleep(0.01)
        before, running = len(stage.results), stage.running
        hung = any(row.identity[1] == "192.0.2.7" for row in stage.results)
        assert not hung
        began = stage.runner.now_ms()
        await stage.runner.drain(2.0)
        assert stage.runner.now_ms() - began <= 2100
        assert before + running - 1 <= len(stage.results) <= before + running
        told = len(stage.results)
        await asyncio.sleep(5)
        assert len(stage.results) == told
        await stage.runner.close()
        assert stage.running == 0

    play(scene)
