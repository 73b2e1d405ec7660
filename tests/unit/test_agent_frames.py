"""Assignments in, columns out, and the log between: values alone, no stream."""

from __future__ import annotations

import msgspec
import pytest

from agent import targets as targets_module
from agent.frames import digest_frame, digest_rows, results_frame
from agent.probes.base import MAX_TEXT, Kind, Outcome, Phases, Reason, Target
from agent.results import SPAN, ProbeResult, ResultLog
from agent.runner import Standing
from agent.targets import Assigned, read_target, union
from gtm.v1 import agent_pb2

GOOD = Outcome(Kind.SUCCESS, rtt_us=900)


def message(index: int, **changed: object) -> agent_pb2.Target:
    fields: dict[str, object] = {
        "index": index,
        "check": "web",
        "address": f"192.0.2.{index}",
        "port": 80,
        "type": "tcp",
        "options": "{}",
        "interval_ms": 15_000,
        "timeout_ms": 2000,
        "fall": 2,
        "rise": 3,
    }
    return agent_pb2.Target(**{**fields, **changed})  # type: ignore[arg-type]


def assignment(
    *given: agent_pb2.Target, revision: int = 1, base: int = 0, remove: tuple[int, ...] = ()
) -> agent_pb2.Assignment:
    return agent_pb2.Assignment(revision=revision, base=base, set=given, remove=remove)


def assigned(*given: agent_pb2.Target) -> Assigned:
    made = Assigned()
    made.apply(assignment(*given))
    return made


def identity(index: int) -> tuple[str, str, int, str, str]:
    return read_target(message(index)).identity


def row(index: int, ended_ms: int = 0, outcome: Outcome = GOOD) -> ProbeResult:
    return ProbeResult(identity(index), outcome, ended_ms)


# ---- assignments ---------------------------------------------------------------------------

UNFIT = [
    ({"type": "carrier_pigeon"}, "this agent has no probe type 'carrier_pigeon'"),
    ({"options": '{"colour":"red"}'}, "this agent does not know the setting colour"),
    ({"options": "[]"}, ""),
    ({"options": "{"}, ""),
    ({"options": '{"tls":"perhaps"}'}, ""),
    ({"port": 0}, ""),
]


@pytest.mark.parametrize(("changed", "reason"), UNFIT)
def test_a_target_that_cannot_be_read_says_why_and_stays_a_target(
    changed: dict[str, object], reason: str
) -> None:
    target = read_target(message(1, **changed))
    assert target.settings is None
    assert target.unfit
    assert reason in target.unfit


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"interval_ms": 2**32 - 1}, "more than 3600000 ms"),
        ({"timeout_ms": 2**32 - 1}, "more than 3600000 ms"),
        ({"fall": 2**32 - 1}, "more than 100"),
        ({"rise": 101}, "more than 100"),
    ],
)
def test_absurd_timing_is_no_opinion_and_binds_nobody_to_it(
    changed: dict[str, int], sentence: str
) -> None:
    target = read_target(message(1, **changed))
    assert sentence in target.unfit
    assert max(target.interval_ms, target.timeout_ms) <= 3_600_000
    assert max(target.fall, target.rise) <= 100


def test_indexes_that_are_not_assigned_are_left_out() -> None:
    assigned = Assigned()
    assigned.apply(agent_pb2.Assignment(revision=1, set=[message(1), message(2)]))
    assert assigned.known([2, 7, 2**32 - 1, 1]) == [identity(2), identity(1)]
    assigned.apply(agent_pb2.Assignment(revision=2, base=1, remove=[2]))
    assert assigned.known([2, 1]) == [identity(1)]


def test_a_snapshot_replaces_and_a_delta_changes() -> None:
    one = assigned(message(1), message(2))
    assert one.apply(assignment(message(3), revision=2, base=1, remove=(1,))) == [identity(3)]
    assert (one.index(identity(1)), one.index(identity(2)), one.index(identity(3))) == (None, 2, 3)
    one.apply(assignment(message(9), revision=3))
    assert [target.identity for target in one.targets()] == [identity(9)]
    assert one.revision == 3


def test_new_timing_for_an_index_is_no_new_target() -> None:
    one = assigned(message(1))
    assert one.apply(assignment(message(1, interval_ms=5000), revision=2, base=1)) == []
    assert [target.interval_ms for target in one.targets()] == [5000]


def test_a_target_that_moves_to_another_index_in_one_delta_keeps_it() -> None:
    one = assigned(message(1))
    moved = message(7, address="192.0.2.1")
    one.apply(assignment(moved, revision=2, base=1, remove=(1,)))
    assert one.index(identity(1)) == 7


def test_a_delta_to_another_revision_is_refused() -> None:
    with pytest.raises(ValueError, match="a delta to revision 4 came while revision 1 stands"):
        assigned(message(1)).apply(assignment(message(2), revision=5, base=4))


def test_more_targets_than_the_bound_are_refused_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(targets_module, "MAX_TARGETS", 3)
    one = assigned(*(message(index) for index in range(1, 6)))
    assert (len(one), one.refused) == (3, 2)
    one.apply(assignment(message(1, interval_ms=9000), revision=2, base=1))
    assert (len(one), one.refused) == (3, 2)  # what is there may still change


def test_what_several_coordinators_assign_is_joined_by_identity() -> None:
    first = assigned(message(1), message(2))
    second = assigned(message(8, address="192.0.2.2", interval_ms=5000), message(3))
    joined = union([first, second])
    assert set(joined) == {identity(1), identity(2), identity(3)}
    assert joined[identity(2)].interval_ms == 5000


# ---- frames --------------------------------------------------------------------------------


def test_rows_become_columns_and_reasons_are_written_once() -> None:
    bad = Outcome(Kind.FAILURE, Reason.STATUS, "503", 1200, Phases(connect_us=300))
    rows = [row(1, 950), row(2, 960, bad), row(5, 970), row(1, 980, bad)]
    frame = results_frame(rows, assigned(message(1), message(2)), 1000)
    assert frame is not None
    assert list(frame.target) == [1, 2, 1]  # nobody assigned the third
    assert list(frame.outcome) == [1, 2, 2]
    assert list(frame.age_ms) == [50, 40, 20]
    assert list(frame.rtt_us) == [900, 1200, 1200]
    assert list(frame.reasons) == ["", "status: 503"]
    assert list(frame.reason) == [0, 1, 1]
    assert list(frame.connect_us) == [0, 300, 300]
    assert len(frame.body_us) == 3


def test_a_frame_without_phases_has_no_phase_columns_and_without_rows_is_none() -> None:
    frame = results_frame([row(1)], assigned(message(1)), 0)
    assert frame is not None
    assert not frame.connect_us
    assert results_frame([row(2)], assigned(message(1)), 0) is None


def test_a_reason_is_cut_at_its_bound() -> None:
    long = Outcome(Kind.FAILURE, Reason.BODY, "x" * 1000)
    assert len(long.text) == MAX_TEXT


def test_a_digest_says_where_the_agent_stands_and_what_it_does_not_know() -> None:
    known = Standing(Target("web", "192.0.2.1", 80, "tcp", "{}", 1000, 500))
    known.take(Outcome(Kind.SUCCESS, rtt_us=700), 400)
    known.take(Outcome(Kind.FAILURE, Reason.REFUSED), 800)
    known.take(Outcome(Kind.FAILURE, Reason.REFUSED), 900)
    frame = digest_frame([(1, known), (2, None)], 4, 1000)
    assert frame.assignment_revision == 4
    columns = zip(frame.target, frame.outcome, frame.streak, frame.age_ms, frame.rtt_us)  # noqa: B905
    assert list(columns) == [(1, 2, 2, 100, 700), (2, 0, 0, 0, 0)]
    assert [frame.reasons[number] for number in frame.reason] == ["refused", ""]


def test_a_digest_of_some_targets_leaves_out_what_the_stream_does_not_have() -> None:
    rows = digest_rows(assigned(message(1)), [identity(1), identity(2)], lambda _: None)
    assert rows == [(1, None)]


# ---- the log -------------------------------------------------------------------------------


def test_the_log_drops_the_oldest_when_full_and_counts_it() -> None:
    log = ResultLog(3)
    for number in range(1, 6):
        log.append(row(number))
    assert (len(log), log.dropped, log.first, log.end) == (3, 2, 2, 5)
    rows, end = log.read(0, 10)
    assert [one.identity for one in rows] == [identity(3), identity(4), identity(5)]
    assert end == 5


def repeat(number: int) -> ProbeResult:
    return msgspec.structs.replace(row(number), repeat=True)


def identities(log: ResultLog, position: int = 0) -> list[object]:
    found, place = [], position
    while place < log.end:
        rows, place = log.read(place, 4)
        found += [one.identity for one in rows]
    return found


def test_a_full_log_drops_repeats_before_what_may_turn_a_vote_and_counts_both() -> None:
    log = ResultLog(4)
    for one in (repeat(1), row(2), repeat(3), row(4)):
        log.append(one)
    log.append(row(5))
    assert identities(log) == [identity(2), identity(3), identity(4), identity(5)]
    log.append(repeat(6))
    log.append(row(7))
    assert identities(log) == [identity(2), identity(4), identity(5), identity(7)]
    assert (log.dropped_repeats, log.dropped_turns) == (3, 0)
    log.append(row(8))  # nothing but turns left: the oldest goes
    assert identities(log) == [identity(4), identity(5), identity(7), identity(8)]
    assert (log.dropped_repeats, log.dropped_turns, len(log)) == (3, 1, 4)


def test_a_transition_survives_any_number_of_repeats_within_the_span_of_the_log() -> None:
    log = ResultLog(10)
    log.append(row(1))
    for number in range(2, 10 * SPAN):
        log.append(repeat(number))
        assert len(log) <= 10
    assert identities(log)[0] == identity(1)
    for number in range(200, 220):
        log.append(repeat(number))
    assert identity(1) not in identities(log)
    assert log.end - log.first <= 10 * SPAN
    assert log.dropped_turns == 1


def test_a_log_with_holes_is_let_go_like_any_other() -> None:
    log = ResultLog(3)
    for number in range(1, 20):
        log.append(repeat(number))
    log.release(log.end - 1)
    assert identities(log) == [identity(19)]
    log.release(log.end)
    assert (len(log), list(log._repeats)) == (0, [])


def test_each_reader_goes_on_from_its_own_place() -> None:
    log = ResultLog(10)
    for number in range(1, 6):
        log.append(row(number))
    rows, place = log.read(1, 2)
    assert ([one.identity for one in rows], place) == ([identity(2), identity(3)], 3)
    log.release(3)
    assert (len(log), log.first) == (2, 3)
    log.release(100)
    assert (len(log), log.dropped) == (0, 0)
    assert log.read(3, 5) == ([], 5)
