"""Quantities: what users may write, the one canonical text, exact arithmetic."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtm.units import Duration, Least, Share, Voters

GOOD_DURATIONS = {
    "500ms": (500, "500ms"),
    "15s": (15_000, "15s"),
    "1.5s": (1500, "1500ms"),
    "90s": (90_000, "90s"),
    "1m": (60_000, "1m"),
    "120s": (120_000, "2m"),
    "2h": (7_200_000, "2h"),
    "7d": (604_800_000, "7d"),
    2: (2000, "2s"),
    0.25: (250, "250ms"),
    0: (0, "0s"),
}


@pytest.mark.parametrize(("written", "meant"), GOOD_DURATIONS.items())
def test_a_duration_is_read_and_printed(written: object, meant: tuple[int, str]) -> None:
    duration = Duration.parse(written)
    assert (duration.ms, str(duration)) == meant
    assert Duration.parse(str(duration)) == duration


@pytest.mark.parametrize(
    "written", ["", "15", "s", "1 year", "-1s", -1, True, None, "1:30", float("inf"), "400d", 1e-9]
)
def test_what_is_no_duration_is_refused_in_a_sentence(written: object) -> None:
    with pytest.raises(ValueError, match="is"):
        Duration.parse(written)


@given(st.integers(0, 10**9))
def test_every_duration_survives_its_own_text(ms: int) -> None:
    assert Duration.parse(str(Duration(ms))) == Duration(ms)


@pytest.mark.parametrize(
    ("written", "exact", "text"),
    [
        ("50%", Fraction(1, 2), "50%"),
        (0.5, Fraction(1, 2), "50%"),
        (0.1, Fraction(1, 10), "10%"),
        ("33.3%", Fraction(333, 1000), "33.3%"),
        (1, Fraction(1), "100%"),
        ("0%", Fraction(0), "0%"),
        ("0.05%", Fraction(1, 2000), "0.05%"),
    ],
)
def test_a_share_is_exact(written: object, exact: Fraction, text: str) -> None:
    share = Share.parse(written)
    assert (share.of_one, str(share)) == (exact, text)
    assert Share.parse(text) == share


@pytest.mark.parametrize("written", ["101%", 1.5, -0.1, "half", True, None, "50", float("nan")])
def test_what_is_no_share_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        Share.parse(written)


LEAST = [
    # written, (number, total) that meet it, (number, total) that do not
    (1, [(1, 5)], [(0, 5), (0, 0)]),
    (2, [(2, 2), (5, 9)], [(1, 1), (1, 9)]),
    ("any", [(1, 100)], [(0, 100)]),
    ("all", [(3, 3)], [(2, 3), (0, 0)]),
    ("50%", [(1, 2), (2, 4), (2, 3)], [(1, 3), (0, 2)]),
    (0.3, [(1, 3), (3, 10)], [(2, 10)]),
]


@pytest.mark.parametrize(("written", "met", "unmet"), LEAST)
def test_a_least_number_is_met_or_not(
    written: object, met: list[tuple[int, int]], unmet: list[tuple[int, int]]
) -> None:
    least = Least.parse(written)
    assert all(least.met(*pair) for pair in met)
    assert not any(least.met(*pair) for pair in unmet)
    assert Least.parse(least.plain()) == least


@pytest.mark.parametrize("written", [0, -1, "0%", "none", None, True])
def test_a_least_number_that_asks_for_nothing_is_refused(written: object) -> None:
    with pytest.raises(ValueError):
        Least.parse(written)


@pytest.mark.parametrize(
    ("written", "needed"),
    # needed of 0, 1, 2, 3, 4, 5 regions
    [
        ("majority", [1, 1, 2, 2, 3, 3]),
        (1, [1, 1, 1, 1, 1, 1]),
        (3, [1, 1, 2, 3, 3, 3]),
        ("50%", [1, 1, 1, 2, 2, 3]),
        ("100%", [1, 1, 2, 3, 4, 5]),
    ],
)
def test_voters_needed(written: object, needed: list[int]) -> None:
    voters = Voters.parse(written)
    assert [voters.needed(regions) for regions in range(6)] == needed
    assert Voters.parse(voters.plain()) == voters


def test_quantities_do_not_change() -> None:
    for value in (Duration(1), Share(Fraction(1)), Least(), Voters()):
        with pytest.raises(AttributeError):
            value.ms = 3  # type: ignore[union-attr,misc]
