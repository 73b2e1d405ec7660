"""Buckets: every record in exactly one place, whatever the depth and wherever a change breaks."""

from __future__ import annotations

from coordinator import buckets
from gtm.model import Record


def records(number: int, size: int = 200) -> tuple[Record, ...]:
    return tuple(
        Record(name=f"n{n:05d}", type=type_, data=('"' + size * "x" + '"',))
        for n in range(number)
        for type_ in ("TXT", "SPF")
    )


def test_all_records_of_a_name_share_a_bucket() -> None:
    for bits in range(5):
        found = buckets.split(records(100), bits)
        owners = [{record.name for record in bucket} for bucket in found.values()]
        assert sum(map(len, owners)) == 100
        assert set(map(len, found)) <= {max(bits, 1)}
        assert buckets.joined(found) == buckets.ordered(records(100))


def test_the_depth_stays_where_it_is_until_it_hurts() -> None:
    assert buckets.depth(records(10), 0) == 0
    deep = buckets.depth(records(1_000), 0)
    assert deep > 0
    assert buckets.depth(records(900), deep) == deep
    assert buckets.depth(records(10), deep) == 0
    endless = records(2, size=2 << 30 >> 10)
    assert buckets.depth(endless * 600, 0) == buckets.MAX_BITS


def test_groups_are_independent_and_staged_steps_lose_nothing() -> None:
    for before, after, old_bits, new_bits in (
        (100, 3_000, 0, 5),
        (3_000, 100, 5, 0),
        (1_000, 1_010, 3, 3),
        (1_000, 2_000, 2, 4),
    ):
        stored = buckets.split(records(before), old_bits)
        wanted = buckets.split(records(after), new_bits)
        found = buckets.groups(stored, wanted)
        for staged in (False, True):
            now = dict(stored)
            steps = [
                step
                for group in found
                for step in (buckets.staged(stored, group) if staged else [group])
            ]
            kept = set(records(min(before, after)))
            for step in steps:
                assert not set(step.put) & set(step.delete)
                for name in step.delete:
                    del now[name]
                now |= step.put
                here = [record for bucket in now.values() for record in bucket]
                assert len(here) == len(set(here))
                assert kept <= set(here)
            assert now == wanted


def test_what_a_broken_chain_left_is_taken_from_there() -> None:
    parent = buckets.split(records(400), 1)
    wanted = buckets.split(records(400), 3)
    first, *_ = buckets.groups(parent, wanted)
    left = {name: bucket for name, bucket in parent.items() if name not in first.delete}
    left |= first.put
    again = buckets.groups(left, wanted)
    assert [group.delete for group in again] == [("1",)]
