"""Whatever a coordinator sends, an agent takes it or refuses it: ValueError, and nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.probes.base import Kind, Outcome
from agent.results import ResultLog
from agent.schedule import Schedule
from agent.targets import MAX_MS, MAX_STREAK, Assigned
from gtm.v1 import agent_pb2 as pb

word = st.sampled_from([0, 1, 2, 3, 99, 250, 1000, 65535, 65536, 2**31, 2**32 - 1])
text = st.sampled_from(["", "{}", "tcp", "http", "ping", "{", '{"port": 1}', "\u2603", "x" * 5000])
address = st.sampled_from(
    ["192.0.2.1", "2001:db8::1", "www.example.com", "", "2852039166", "::ffff:1.2.3.4", "\0", "."]
)
target = st.builds(
    pb.Target,
    index=st.integers(0, 5),
    check=text,
    address=address,
    port=word,
    type=text,
    options=text,
    interval_ms=word,
    timeout_ms=word,
    fall=word,
    rise=word,
    ip_version=word,
    gap_ms=word,
    slot=word,
    slots=word,
)
assignment = st.builds(
    pb.Assignment,
    revision=st.integers(0, 4),
    base=st.integers(0, 3),
    set=st.lists(target, max_size=4),
    remove=st.lists(st.integers(0, 6), max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(assignment, max_size=6), st.integers(-(2**62), 2**62), word, word)
def test_any_assignment_is_taken_or_refused_as_a_whole(
    messages: list[Any], base_ms: int, rank: int, agents: int
) -> None:
    assigned, schedule, now = Assigned(), Schedule("r/a"), 0
    schedule.align(base_ms, rank, agents)
    for message in messages:
        before = (assigned.revision, dict(assigned.indexes()))
        try:
            assigned.apply(message)
        except ValueError:
            assert (assigned.revision, dict(assigned.indexes())) == before
            continue
        for one in assigned.targets():
            assert 100 <= one.interval_ms <= MAX_MS
            assert 1 <= one.timeout_ms <= MAX_MS
            assert 1 <= min(one.fall, one.rise) <= max(one.fall, one.rise) <= MAX_STREAK
            assert 0 <= one.gap_ms <= MAX_MS
            assert one.slot < max(1, one.slots)
            schedule.set(
                one.identity,
                one.interval_ms,
                now,
                gap_ms=one.gap_ms,
                slot=one.slot,
                slots=one.slots,
            )
        for identity, index in assigned.indexes():
            assert assigned.known([index]) == [identity]
    for _ in range(20):  # nobody is due in the past, and time goes on
        due = schedule.next_ms()
        if due is None:
            return
        assert due <= now + 2 * MAX_MS * max(1, agents)
        now = max(now + 1, due)
        for identity in list(schedule.due(now)):
            schedule.ended(identity, now, True)


row = st.tuples(st.integers(0, 2), st.booleans())


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), st.lists(st.one_of(row, st.integers(0, 40)), max_size=80))
def test_a_log_holds_no_more_than_its_bound_and_drops_turns_only_when_no_repeat_is_left(
    bound: int, story: list[Any]
) -> None:
    from agent.results import SPAN, ProbeResult

    log, read = ResultLog(bound), 0
    for step in story:
        if isinstance(step, int):
            rows, read = log.read(read, 1 + step % 3)
            assert len(rows) <= 1 + step % 3
            if step % 5 == 0:
                log.release(read)
            continue
        number, repeat = step
        identity = ("c", f"192.0.2.{number}", 80, "tcp", "{}", 0)
        repeats = [one for one in log._rows.values() if one.repeat]
        before = log.dropped_turns
        log.append(ProbeResult(identity, Outcome(Kind.SUCCESS), log.end, repeat=repeat))
        assert len(log) <= bound
        assert log.end - log.first <= SPAN * bound + 1
        if repeats and log.end - log.first < SPAN * bound:
            assert log.dropped_turns == before
