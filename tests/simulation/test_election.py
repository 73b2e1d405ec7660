"""Every interleaving of election and fencing, up to a bound; and that a broken rule is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coordinator import ballot
from gtm.store import Compare

from .explorer import Bounds, Explorer, Rules


@pytest.mark.parametrize(
    ("warm", "bounds"),
    [
        (False, Bounds(steps=10)),
        (True, Bounds(steps=10)),
        (True, Bounds(steps=8, slips=1)),
        (True, Bounds(steps=7, coordinators=3, leases=4)),
    ],
)
def test_no_stale_write_lands_nobody_is_overdue_and_somebody_leads(warm, bounds):
    found = Explorer(bounds=bounds).run(warm=warm)
    assert not found.violations, found.path
    assert found.states > 2_000
    assert found.led


def no_fence(fence: int, head: int) -> list[Compare]:
    return list(ballot.conditions(fence, head)[1:])


def from_the_answer(asked_s: float, answered_s: float, ttl_s: float) -> float:
    return answered_s + ttl_s


BROKEN: list[tuple[str, dict[str, Callable[..., Any]]]] = [
    ("stale", {"conditions": no_fence}),
    ("overdue", {"ends": from_the_answer}),
    ("overdue", {"fence_now": lambda fence, left_s: fence}),
]


@pytest.mark.parametrize(("property_", "broken"), BROKEN, ids=lambda one: str(one)[:40])
def test_a_broken_rule_is_found(property_, broken):
    slips = 0 if property_ == "overdue" else 1
    bounds = Bounds(steps=12, stops=0, losses=0, slips=slips)
    found = Explorer(Rules(**broken), bounds).run(warm=True)
    assert found.violations, found.states
    assert found.violations[0].startswith(property_), found.path
