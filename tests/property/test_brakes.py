"""What guard, damping and setting aside promise, whatever comes and however often it restarts."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coordinator.damping import DAMPED_FROM, FREE_BELOW, LONGEST_MS, Damping
from coordinator.engine import Engine
from coordinator.events import (
    AgentFound,
    Configured,
    Frame,
    Now,
    PublishPool,
    PublishVerdict,
    Restored,
    TargetKey,
    Tick,
)
from coordinator.guard import Brake, Guard
from gtm.model import Address, Check, Pool, Region, Resources
from gtm.state import Member, PoolState, VerdictRecord
from gtm.units import Duration, Share

WINDOW_MS, HOLD_MS = 60_000, 300_000
VALUES = [f"192.0.2.{n}" for n in range(1, 41)]


def state(up: set[str], held: dict[str, float]) -> PoolState:
    def member(value: str) -> Member:
        if value in up:
            return Member(value=value, why="up", answered=True, counted=True)
        since = held.get(value, 0.0)
        return Member(value=value, why="held" if since else "down", held_since=since)

    return PoolState(type="ipv4", members=tuple(map(member, VALUES)))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([Fraction(1, 10), Fraction(3, 10), Fraction(1, 2), Fraction(1)]),
    st.integers(1, 12),
    st.lists(
        st.tuples(
            st.sampled_from([0, 1000, 20_000, 59_000, 61_000, 299_000, 301_000]),
            st.sets(st.sampled_from(VALUES), max_size=40),
            st.booleans(),
        ),
        max_size=12,
    ),
)
@example(  # who left, came back and left again counts from then on
    share=Fraction(1, 10),
    least=1,
    story=[
        (0, set(VALUES[:2]), True),
        (1000, {VALUES[0], VALUES[1], VALUES[3], VALUES[4]}, False),
        (59_000, {VALUES[2]}, False),
    ],
)
def test_no_more_leave_within_a_window_than_the_brake_lets_go(
    share: Fraction, least: int, story: list[tuple[int, set[str], bool]]
) -> None:
    guard = Guard(Brake(share=share, least=least, window_ms=WINDOW_MS, hold_ms=HOLD_MS))
    up, now_ms = set(VALUES), 1_000_000
    published = state(up, {})
    guard.published(None, published)
    most = max(least - 1, int(share * len(VALUES)))
    went: list[tuple[int, int]] = []
    for pause_ms, dying, healed in story:
        now_ms += pause_ms
        now = Now(now_ms, now_ms / 1000)
        guard.over(now)
        leaving = sorted(dying & up)
        guard.leave(leaving, now)
        went.append((now_ms, len(set(leaving) - guard.held().keys())))
        up -= set(leaving)
        if healed:  # whoever left before may leave, and count, once more
            went, up = [], set(VALUES)
            for value in VALUES:
                guard.recovered(value)
        after = state(up, dict(guard.held()))
        guard.published(published, after)
        published = after
        inside = sum(many for at, many in went if at > now_ms - WINDOW_MS)
        assert share == 1 or inside <= most
        assert share < 1 or not guard.held()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 900_000), min_size=1, max_size=12),
    st.integers(0, 4_000_000),
    st.floats(-3600, 3600),
)
def test_a_restart_changes_nothing_about_damping(
    pauses_ms: list[int], later_ms: int, ahead_s: float
) -> None:
    """Also with another monotonic clock; the wall clock is the one that both share."""
    kept, now_ms, wall_s = Damping(1), 5_000, 1_700_000_000.0
    for pause in pauses_ms:
        now_ms, wall_s = now_ms + pause, wall_s + pause / 1000
        kept.free(Now(now_ms, wall_s))
        kept.changed(0, damps=True, now=Now(now_ms, wall_s))
    record = VerdictRecord(
        verdict="up",
        since=wall_s,
        penalty=kept.penalty(0, Now(now_ms, wall_s)),
        damped_since=kept.since(0),
    )
    now_ms, wall_s = now_ms + later_ms, wall_s + later_ms / 1000
    other = Damping(1)
    there = Now(now_ms + 86_400_000, wall_s)
    other.restore({0: record}, there)
    kept.free(Now(now_ms, wall_s))
    assert abs(other.penalty(0, there) - kept.penalty(0, Now(now_ms, wall_s))) < 0.01
    if abs(kept.penalty(0, Now(now_ms, wall_s)) - FREE_BELOW) > 1:
        assert other.since(0) == kept.since(0)


def test_damping_ends_after_an_hour_at_most() -> None:
    damping = Damping(1)
    for second in range(100):
        damping.changed(0, damps=True, now=Now(second * 1000, float(second)))
    assert damping.penalty(0, Now(100_000, 100.0)) > 10 * DAMPED_FROM
    begun_ms = round(damping.since(0) * 1000)
    assert damping.free(Now(begun_ms + LONGEST_MS - 1, 0.0)) == []
    assert damping.free(Now(begun_ms + LONGEST_MS, 0.0)) == [0]


REGIONS = ("r1", "r2", "r3", "r4", "r5")


class Five:
    """Five regions that see twenty addresses, one of which lies; the truth is `alive`."""

    def __init__(self, share: str, liar: str) -> None:
        check = Check(
            type="tcp",
            port=80,
            interval=Duration(5000),
            timeout=Duration(1000),
            failing_share=Share.parse(share),
        )
        addresses = tuple(Address(value=value) for value in VALUES[:20])
        self.resources = Resources(
            regions={name: Region() for name in REGIONS},
            checks={"web": check},
            pools={"p": Pool(type="ipv4", checks=("web",), addresses=addresses)},
        )
        self.engine, self.ms, self.liar = Engine(), 1_000_000, liar
        self.verdicts: dict[TargetKey, str] = {}
        self.changes: list[tuple[int, str, str]] = []
        self.alive = dict.fromkeys(VALUES[:20], True)
        self.feed(Restored(verdicts={}, pools={}, routes={}))
        self.feed(Configured(resources=self.resources, generation=1, head_revision=1))
        for name in REGIONS:
            self.feed(AgentFound(region=name, agent="a"))

    def feed(self, event: Any) -> None:
        for effect in self.engine.handle(event, Now(self.ms, self.ms / 1000)):
            if isinstance(effect, PublishVerdict) and effect.record is not None:
                before = self.verdicts.get(effect.target, effect.record.verdict)
                if before != effect.record.verdict:
                    self.changes.append((self.ms, effect.target.address, effect.record.verdict))
                self.verdicts[effect.target] = effect.record.verdict
            assert not isinstance(effect, PublishPool) or effect.state is not None

    def round(self, lies: dict[str, bool] | None = None) -> None:
        """One interval: the regions report one after the other, each with its own phase."""
        keys = sorted(self.engine.targets())
        numbers = np.array([self.engine.number(key) for key in keys], dtype=np.int64)
        zero = np.zeros(len(keys), dtype=np.int64)
        for name in REGIONS:
            self.ms += 1000
            seen = self.alive if lies is None or name != self.liar else lies
            outcome = np.array([1 if seen[key.address] else 2 for key in keys], dtype=np.int64)
            self.feed(
                Frame(
                    region=name,
                    agent="a",
                    target=numbers,
                    outcome=outcome,
                    age_ms=zero,
                    rtt_us=zero,
                    reason=zero,
                )
            )
            self.feed(Tick())


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["40%", "50%", "60%", "80%"]), st.sampled_from(REGIONS), st.randoms())
def test_one_lying_region_of_five_turns_no_verdict(share: str, liar: str, dice: Any) -> None:
    five = Five(share, liar)
    for _ in range(3):
        five.round()
    for _ in range(dice.randint(1, 30)):
        how = dice.choice(["down", "up", "random"])
        five.round(
            {
                value: how == "up" or (how == "random" and dice.random() < 0.5)
                for value in five.alive
            }
        )
    assert five.changes == []


def test_a_region_that_sees_everything_fail_turns_nothing_even_where_its_word_is_enough() -> None:
    five = Five("20%", "r3")
    for _ in range(3):
        five.round()
    for _ in range(720):  # an hour
        five.round(dict.fromkeys(five.alive, False))
    assert five.changes == []
    assert [one.name for one in five.engine.regions() if one.aside_since] == ["r3"]


def rounds_to_down(lies: bool) -> int:
    five = Five("50%", "r3")
    for _ in range(3):
        five.round(dict.fromkeys(five.alive, False) if lies else None)
    five.alive["192.0.2.7"] = False
    began = five.ms
    while not five.changes:
        five.round(dict.fromkeys(five.alive, False) if lies else None)
    assert {address for _, address, _ in five.changes} == {"192.0.2.7"}
    return five.changes[0][0] - began


def test_a_true_verdict_takes_as_long_beside_a_region_in_trouble() -> None:
    assert rounds_to_down(lies=True) <= rounds_to_down(lies=False) + 1000
