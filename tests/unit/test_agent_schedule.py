"""The schedule on a virtual clock: spread, no drift, eagerness, skipped slots."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from agent.schedule import EAGER_MS, SLACK_MS, Schedule, spread
from gtm.apart import Apart

INTERVAL = 15_000


def target(number: int) -> tuple[str, str, int, str, str, int]:
    return ("web", f"192.0.2.{number}", 80, "http", "{}", 0, False)


def drive(schedule: Schedule, until: int, *, start: int = 0, takes: int = 5, opinion: bool = True):
    """Let time pass; each probe takes `takes` ms. Yields (time, target) as probes begin."""
    now, ends = start, []
    while (due := schedule.next_ms()) is not None:
        now = min([due, *(at for at, _ in ends)])
        if now >= until:
            return
        for at, one in [end for end in ends if end[0] <= now]:
            schedule.ended(one, at, opinion)
        ends = [end for end in ends if end[0] > now]
        for one in list(schedule.due(now)):
            ends.append((now + takes, one))
            yield now, one


def settled(count: int, interval: int = INTERVAL) -> Schedule:
    """A schedule whose targets all have an opinion, at time 2000."""
    schedule = Schedule("r1/agent")
    for number in range(count):
        schedule.set(target(number), interval, 0)
    assert len({one for _, one in drive(schedule, 2000)}) == count
    return schedule


def test_probes_of_many_targets_are_spread_over_the_interval() -> None:
    schedule = settled(3000)
    begins = [at for at, _ in drive(schedule, 2000 + INTERVAL, start=2000)]
    assert abs(len(begins) - 3000) < 60  # each target about once
    tenths = [sum(1 for at in begins if (at - 2000) * 10 // INTERVAL == n) for n in range(10)]
    assert min(tenths) > 200
    assert max(tenths) < 400


def test_two_agents_probe_one_target_at_different_times() -> None:
    phases = {spread(f"r{n}/agent", target(1)) % INTERVAL for n in range(20)}
    assert len(phases) > 15


def test_the_hash_of_a_target_is_the_same_in_every_process_and_version() -> None:
    assert spread("r1/agent", target(1)) == 0x5F68D6AB54BF8B8E


def test_probes_never_drift_however_late_they_begin_and_however_long_they_take() -> None:
    schedule = settled(1)
    first, *others = [at for at, _ in drive(schedule, 40 * INTERVAL, start=2000, takes=700)]
    assert [at - first for at in others] == [INTERVAL * n for n in range(1, len(others) + 1)]
    assert len(others) >= 37
    assert schedule.skipped == 0


def test_slots_that_passed_while_the_agent_slept_are_counted_and_not_made_up_for() -> None:
    schedule = settled(1)
    first = schedule.next_ms()
    assert first is not None
    woken = first + 5 * INTERVAL + 300
    assert list(schedule.due(woken)) == [target(0)]
    schedule.ended(target(0), woken + 5, True)
    assert schedule.skipped == 5
    assert schedule.next_ms() == first + 6 * INTERVAL
    assert list(schedule.due(woken + 10)) == []


def test_a_slot_that_comes_while_the_former_probe_runs_is_skipped() -> None:
    schedule = settled(1, interval=2000)
    begins = [at for at, _ in drive(schedule, 60_000, start=2000, takes=2500)]
    gaps = {b - a for a, b in itertools.pairwise(begins)}
    assert gaps == {4000}
    assert schedule.skipped in (len(begins) - 1, len(begins))  # the last probe may still run


def test_without_an_opinion_a_target_is_probed_every_second() -> None:
    schedule = Schedule("r1/agent")
    schedule.set(target(0), INTERVAL, 0)
    begins = [at for at, _ in drive(schedule, 10_000, opinion=False)]
    assert begins[0] <= EAGER_MS
    assert {b - a for a, b in itertools.pairwise(begins)} == {EAGER_MS}


def test_a_shorter_interval_than_a_second_is_kept_without_an_opinion() -> None:
    schedule = Schedule("r1/agent")
    schedule.set(target(0), 400, 0)
    begins = [at for at, _ in drive(schedule, 10_000, opinion=False)]
    assert {b - a for a, b in itertools.pairwise(begins)} == {400}


def test_eager_probes_never_overlap_the_former_one() -> None:
    schedule = Schedule("r1/agent")
    schedule.set(target(0), INTERVAL, 0)
    begins = [at for at, _ in drive(schedule, 60_000, takes=3900, opinion=False)]
    assert {b - a for a, b in itertools.pairwise(begins)} == {4000}
    assert schedule.skipped == 0  # those are not slots of the interval


def test_many_new_targets_are_spread_over_the_first_second() -> None:
    schedule = Schedule("r1/agent")
    for number in range(1000):
        schedule.set(target(number), INTERVAL, 50_000)
    begins = [at for at, _ in drive(schedule, 50_000 + EAGER_MS + 1, start=50_000)]
    assert len(begins) == 1000
    halves = sum(1 for at in begins if at < 50_000 + EAGER_MS / 2)
    assert 400 < halves < 600


def test_an_opinion_makes_the_next_probe_the_next_slot_of_the_interval() -> None:
    schedule = Schedule("r1/agent")
    schedule.set(target(0), INTERVAL, 0)
    begins = [at for at, _ in drive(schedule, 3 * INTERVAL)]
    assert begins[1] % INTERVAL == spread("r1/agent", target(0)) % INTERVAL
    assert begins[2] - begins[1] == INTERVAL


def test_a_delta_keeps_the_phases_of_the_targets_that_stay() -> None:
    def begins(schedule: Schedule) -> list[int]:
        end = 2000 + 4 * INTERVAL
        return [at for at, one in drive(schedule, end, start=2000) if one == target(0)]

    changed = settled(10)
    for number in range(5, 10):
        changed.remove(target(number))
    for number in range(20, 30):
        changed.set(target(number), INTERVAL, 2000)
    changed.set(target(0), INTERVAL, 2000)
    assert begins(changed) == begins(settled(10))
    assert target(7) not in changed
    assert len(changed) == 15


def test_another_interval_counts_from_now_on() -> None:
    schedule = settled(1)
    schedule.set(target(0), 5000, 2000)
    begins = [at for at, _ in drive(schedule, 40_000, start=2000)]
    assert begins[0] <= 7000
    assert {b - a for a, b in itertools.pairwise(begins)} == {5000}


def test_a_removed_target_is_due_no_more() -> None:
    schedule = settled(2)
    schedule.remove(target(0))
    assert {one for _, one in drive(schedule, 4 * INTERVAL, start=2000)} == {target(1)}
    schedule.remove(target(1))
    assert schedule.next_ms() is None


def test_targets_that_come_and_go_leave_nothing_behind() -> None:
    schedule = Schedule("r1/agent")
    for number in range(2000):
        schedule.set(target(number), INTERVAL, number)
        schedule.remove(target(number))
    assert len(schedule._heap) <= 64 + 2


@pytest.mark.parametrize("interval", [1000, 1001, 15_000, 3_600_000])
def test_every_target_is_probed_once_an_interval(interval: int) -> None:
    schedule = settled(1, interval)
    begins = [at for at, _ in drive(schedule, 2000 + 5 * interval, start=2000)]
    assert len(begins) == 5


# ---- one clock for all agents --------------------------------------------------------------------


def estimate(zero: int, dice: random.Random, shortest: int) -> int:
    """Where an agent whose clock shows `zero` at the coordinator's 0 places that 0."""
    apart, base = Apart(), 0
    for at in range(0, 10_000, 500):
        base = apart.heard(at, at + zero + shortest + dice.randint(0, 400))
    return base


def agents_of(regions: dict[int, int], one: int, dice: random.Random) -> list[tuple[int, Schedule]]:
    """(offset of its clock, schedule) of each agent; `regions`: region to its agents."""
    made = []
    for region, agents in regions.items():
        for rank in range(agents):
            zero = dice.randint(-(10**9), 10**9)
            schedule = Schedule(f"r{region}/a{rank}")
            base = estimate(zero, dice, shortest=dice.randint(0, 150))
            schedule.align(base, rank, agents)
            schedule.set(target(one), INTERVAL, zero, slot=region, slots=len(regions))
            made.append((zero, schedule))
    return made


def gaps(made: list[tuple[int, Schedule]]) -> list[int]:
    """Between probes of one target by all of these agents, on the coordinator's clock."""
    begins = []
    for zero, schedule in made:
        end = zero + 10 * INTERVAL
        begins += [at - zero for at, _ in drive(schedule, end, start=zero) if at - zero > 2000]
    return [b - a for a, b in itertools.pairwise(sorted(begins))]


@pytest.mark.parametrize("one", range(8))
def test_one_target_sees_an_even_stream_of_the_probes_of_all_regions(one: int) -> None:
    """Clocks that share nothing, and links of 0 to 150 ms with 400 ms of jitter: the gaps stay
    within the even one and the difference of the links' shortest delays."""
    found = gaps(agents_of(dict.fromkeys(range(5), 1), one, random.Random(one)))
    assert len(found) > 35
    for gap in found[5:-5]:
        assert abs(gap - INTERVAL / 5) <= 150 + 50


def test_agents_of_one_region_share_its_part() -> None:
    found = gaps(agents_of({0: 1, 1: 3, 2: 1}, 3, random.Random(1)))
    wanted = sorted([INTERVAL / 3, INTERVAL / 9, INTERVAL / 9, INTERVAL / 9, INTERVAL / 3])
    for gap, even in zip(sorted(found[5:10]), wanted, strict=True):
        assert abs(gap - even) <= 150 + 50


def test_eager_probes_of_several_regions_are_spread_over_the_second_too() -> None:
    made = []
    for region in range(4):
        schedule = Schedule(f"r{region}/a")
        schedule.align(0, 0, 1)
        schedule.set(target(1), INTERVAL, 0, slot=region, slots=4)
        made += [at for at, _ in drive(schedule, 10_000, opinion=False)]
    assert {b - a for a, b in itertools.pairwise(sorted(made)[4:-4])} == {EAGER_MS // 4}


def test_the_probes_of_one_agent_are_within_twice_the_mean_in_each_tenth_of_a_second() -> None:
    schedule = Schedule("r1/agent")
    schedule.align(12_345, 1, 2)
    for number in range(10_000):
        schedule.set(("web", f"t{number}", 80, "http", "{}", 0), 10_000, 0, slot=1, slots=3)
    bins = Counter(at // 100 for at, _ in drive(schedule, 30_000, takes=1) if at >= 10_000)
    mean = sum(bins.values()) / len(bins)
    assert len(bins) == 200
    assert 95 < mean < 105
    assert max(bins.values()) <= 2 * mean


@pytest.mark.parametrize("moved", [-7000, -3000, -60, 60, 3000, 7400])
def test_a_clock_that_moves_takes_the_slots_along_by_half_an_interval_at_most(moved: int) -> None:
    schedule = Schedule("r1/agent")
    schedule.align(0, 0, 1)
    schedule.set(target(1), INTERVAL, 0, slot=1, slots=3)
    before = [at for at, _ in drive(schedule, 3 * INTERVAL)]
    schedule.align(moved, 0, 1)
    after = [at for at, _ in drive(schedule, 8 * INTERVAL, start=3 * INTERVAL)]
    steps = [b - a for a, b in itertools.pairwise([before[-1], *after])]
    assert min(steps) >= INTERVAL // 2
    assert max(steps) <= 3 * INTERVAL // 2 + 1
    assert steps[2:] == [INTERVAL] * len(steps[2:])
    assert (after[-1] - before[-1] - moved) % INTERVAL == 0


# ---- beside the slots, and the bound on the rate -------------------------------------------------


def test_a_target_that_is_wanted_at_once_is_due_at_once_and_keeps_its_slots() -> None:
    schedule, other = settled(1), settled(1)
    slots = [at for at, _ in drive(other, 5 * INTERVAL, start=2000)]
    at = slots[0] - 5000
    assert not schedule.hasten(target(0), at)
    begins = [when for when, _ in drive(schedule, 5 * INTERVAL, start=2000)]
    assert begins == sorted([at, *slots])


def test_a_target_that_is_being_probed_is_wanted_when_that_has_ended() -> None:
    schedule = settled(1)
    due = schedule.next_ms()
    assert due is not None
    assert list(schedule.due(due)) == [target(0)]
    assert schedule.hasten(target(0), due + 10)
    assert schedule.hasten(target(0), due + 20)
    assert list(schedule.due(due + 300)) == []
    schedule.ended(target(0), due + 400, True)
    assert schedule.next_ms() == due + 400
    assert list(schedule.due(due + 400)) == [target(0)]
    schedule.ended(target(0), due + 410, True)
    assert schedule.next_ms() == due + INTERVAL  # asked for twice, probed once


def test_a_target_that_is_gone_cannot_be_wanted() -> None:
    schedule = settled(1)
    assert not schedule.hasten(target(7), 3000)
    schedule.remove(target(0))
    assert not schedule.hasten(target(0), 3000)
    assert schedule.next_ms() is None


@pytest.mark.parametrize(("gap", "agents"), [(700, 1), (1000, 3), (4000, 1), (20_000, 1)])
def test_however_wanted_a_target_is_probed_no_more_often_than_its_rate(
    gap: int, agents: int
) -> None:
    schedule = Schedule("r1/agent")
    schedule.align(0, 0, agents)
    schedule.set(target(0), INTERVAL, 0, gap_ms=gap)
    begins: list[int] = []
    for at in range(0, 20 * INTERVAL, 37):  # eager at first, then wanted all the time
        for one in schedule.due(at):
            begins.append(at)
            schedule.ended(one, at, at > 8000)
        schedule.hasten(target(0), at)
    steps = [b - a for a, b in itertools.pairwise(begins)]
    assert min(steps) >= gap * agents - SLACK_MS
    assert begins[-1] - begins[0] >= (len(steps) - 1) * gap * agents  # and exact in the long run
    assert max(steps) <= max(gap * agents, 74) + 37
    assert schedule.deferred > 0


def test_a_rate_that_the_interval_just_fits_puts_nothing_off() -> None:
    schedule = Schedule("r1/agent")
    schedule.set(target(0), 1000, 0, gap_ms=1000)
    begins = []
    for at in range(0, 60_000, 7):  # each probe begins up to 6 ms late
        for one in schedule.due(at):
            begins.append(at)
            schedule.ended(one, at + 3, True)
    assert len(begins) in (59, 60)
    assert schedule.deferred == 0
