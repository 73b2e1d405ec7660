"""The quorum as truth tables: who says what, on top of which verdict, and what comes of it."""

from __future__ import annotations

import pytest

from coordinator.hysteresis import DOWN, NO_VOTE, UP
from coordinator.quorum import Electorate, decide, electorate
from gtm.model import Check
from gtm.units import Share, Voters

NAMES = ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j")
WORDS = {NO_VOTE: "none", UP: "up", DOWN: "down"}
STANDING = {word: code for code, word in WORDS.items()}

#  regions  share     voters      votes (. has none)  standing  verdict
TABLE = """
   1        50%       majority    u                   none      up
   1        50%       majority    d                   none      down
   1        50%       majority    .                   up        up pending
   2        50%       majority    ud                  up        down
   2        100%      majority    ud                  up        up
   2        51%       majority    ud                  up        up
   2        50%       majority    d.                  up        up pending
   2        50%       1           d.                  up        down
   2        50%       9           d.                  up        up pending
   3        50%       majority    uuu                 none      up
   3        50%       majority    uu.                 none      up
   3        50%       majority    u..                 none      none pending
   3        50%       majority    uud                 up        up
   3        50%       majority    udd                 up        down
   3        50%       majority    ud.                 up        up
   3        50%       majority    ud.                 down      down
   3        50%       majority    ud.                 none      up
   3        50%       majority    dd.                 up        down
   3        50%       majority    uu.                 down      up
   3        50%       majority    d..                 up        up pending
   3        50%       1           d..                 up        down
   3        50%       1           ud.                 down      down
   3        33.3%     majority    uud                 up        down
   3        33.4%     majority    uud                 up        up
   3        20%       majority    uud                 up        down
   3        100%      majority    udd                 down      up
   3        100%      majority    ddd                 up        down
   3        0%        majority    uuu                 up        up
   3        0%        majority    uud                 up        down
   4        50%       majority    uudd                up        down
   4        50%       majority    uud.                up        up
   4        50%       majority    uud.                down      down
   4        50%       2           u.d.                up        up
   4        50%       2           u.d.                down      down
   4        50%       50%         u.d.                none      up
   4        50%       51%         u.d.                down      down pending
   5        80%       majority    udddd               up        down
   5        80%       majority    uuddd               down      up
   5        80%       majority    u.ddd               down      down
   5        80%       majority    u.ddd               up        up
   5        80%       majority    ..ddd               up        down
   10       20%       majority    uuuuuuuuud          up        up
   10       20%       majority    uuuuuuuudd          up        down
   10       80%       majority    uudddddddd          up        down
   10       80%       majority    uuuddddddd          down      up
"""


def who(regions: str, share: str, voters: str) -> Electorate:
    check = Check(
        type="tcp",
        failing_share=Share.parse(share),
        min_voters=Voters.parse(int(voters) if voters.isdigit() else voters),
    )
    return electorate(check, NAMES[: int(regions)])


@pytest.mark.parametrize("line", TABLE.strip().splitlines(), ids=lambda line: line.strip())
def test_votes_make_the_verdict_of_the_table(line: str) -> None:
    regions, share, voters, votes, standing, verdict, *pending = line.split()
    assert len(votes) == int(regions)
    decision = decide(
        who(regions, share, voters), votes.count("u"), votes.count("d"), STANDING[standing]
    )
    assert WORDS[decision.verdict] == verdict
    assert decision.pending == bool(pending)


def test_a_check_without_regions_is_pending_for_ever() -> None:
    decision = decide(who("0", "50%", "majority"), 0, 0, UP)
    assert (decision.verdict, decision.pending) == (UP, True)


def test_a_check_names_its_voters_or_takes_everybody() -> None:
    assert electorate(Check(type="tcp", regions=("b", "a")), NAMES).regions == ("a", "b")
    assert electorate(Check(type="tcp"), NAMES).regions == NAMES


@pytest.mark.parametrize(
    ("votes", "standing", "rule"),
    [
        ((3, 0), UP, "all regions agree: 3 of 3 up"),
        ((0, 2), UP, "all regions that vote agree: 2 down, 1 without a vote"),
        ((1, 2), UP, "2 of 3 regions down: down from 2 on (50%)"),
        ((2, 1), DOWN, "1 of 3 regions down: up below 2 (50%)"),
        (
            (1, 1),
            DOWN,
            "2 of 3 regions down (1 without a vote counted as down): down from 2 on (50%)",
        ),
        ((0, 1), UP, "pending: 1 of 3 regions voting, 2 needed; the last verdict stands"),
        ((0, 1), NO_VOTE, "pending: 1 of 3 regions voting, 2 needed; no verdict yet"),
    ],
)
def test_the_rule_that_decided_is_said_in_words(
    votes: tuple[int, int], standing: int, rule: str
) -> None:
    assert decide(who("3", "50%", "majority"), *votes, standing).rule == rule
