"""The schedule on a virtual clock: spread, no drift, eagerness, skipped slots."""

from __future__ import annotations

import itertools

import pytest

from agent.schedule import EAGER_MS, Schedule, spread

INTERVAL = 15_000


def target(number: int) -> tuple[str, str, int, str, str, int]:
    return ("web", f"192.0.2.{number}", 80, "http", "{}", 0)


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
