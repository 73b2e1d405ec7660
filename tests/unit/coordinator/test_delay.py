"""How late messages are, from two clocks that share no zero."""

from __future__ import annotations

from coordinator.delay import MOST_MS, Delay
from gtm.apart import WINDOW_MS

AGENT_MS = 77_000_000
"""What the agent's clock shows when the coordinator's shows 0."""


def late(*messages: tuple[int, int]) -> list[int]:
    """How late each of (sent, came) is, both by the coordinator's clock."""
    delay = Delay()
    return [delay.late_ms(AGENT_MS + sent, came) for sent, came in messages]


def test_messages_that_travel_alike_are_not_late_whatever_the_clocks_show() -> None:
    assert late((0, 40), (1_000, 1_040), (5_000, 5_040)) == [0, 0, 0]


def test_what_was_held_up_is_late_by_as_much_and_what_comes_after_it_is_not() -> None:
    held = [(1_000, 9_040), (2_000, 9_040), (8_900, 9_040), (9_100, 9_140)]
    assert late((0, 40), *held) == [0, 8_000, 7_000, 100, 0]


def test_a_message_that_comes_quicker_than_any_before_it_sets_the_measure() -> None:
    assert late((0, 500), (1_000, 1_040), (2_000, 2_500)) == [0, 0, 460]


def test_a_longer_way_is_the_usual_one_after_two_windows() -> None:
    steady = [(at, at + 300) for at in range(0, 3 * WINDOW_MS, 1_000)]
    found = late((-1, 0), *steady)
    assert found[1] == 299
    assert found[-1] == 0


def test_clocks_that_drift_apart_make_nothing_late() -> None:
    delay = Delay()
    hours = [delay.late_ms(AGENT_MS + at - at // 1_000, at) for at in range(0, 10**7, 5_000)]
    assert max(hours) <= 2 * WINDOW_MS // 1_000


def test_a_clock_that_says_nothing_or_nonsense_is_bounded() -> None:
    delay = Delay()
    assert delay.late_ms(0, 5) == 0
    assert delay.late_ms(2**64 - 1, 5) == 0
    assert delay.late_ms(1, 6) == MOST_MS
