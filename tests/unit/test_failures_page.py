"""docs/failures.md names tests and scripts of the lab: each exists, and none is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.lab.walk import ELSEWHERE, SCRIPTS, rows

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/failures.md").read_text()
NAMED = re.compile(r"`(F:|tests/[a-z0-9_/]+\.(?:py|txt))(?:::)?(test_[a-z0-9_]+)?`")
TESTS = sorted(set(NAMED.findall(PAGE)))
ROWS = rows(PAGE)


@pytest.mark.parametrize(("place", "test"), TESTS)
def test_what_the_page_names_exists(place: str, test: str) -> None:
    path = ROOT / (place if place != "F:" else "tests/integration/test_faults.py")
    assert f"def {test}(" in path.read_text() if test else path.exists()


def test_the_page_names_tests_in_every_row() -> None:
    found = [line for line in PAGE.splitlines() if "| `" in line]
    assert len(found) > 15
    assert len(found) == len(ROWS)
    assert len(TESTS) > 15


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_the_lab_does_a_row_or_says_why_not(row: object) -> None:
    assert set(row.scripts) <= set(SCRIPTS)
    assert bool(row.scripts) is (row.what not in ELSEWHERE)


def test_every_script_of_the_lab_belongs_to_one_row() -> None:
    named = [script for row in ROWS for script in row.scripts]
    assert sorted(named) == sorted(SCRIPTS)
    assert {row.what for row in ROWS} >= set(ELSEWHERE)
