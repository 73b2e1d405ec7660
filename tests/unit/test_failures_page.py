"""docs/failures.md names tests; each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(F:|tests/[a-z0-9_/]+\.(?:py|txt))(?:::)?(test_[a-z0-9_]+)?`")
TESTS = sorted(set(NAMED.findall((ROOT / "docs/failures.md").read_text())))


@pytest.mark.parametrize(("place", "test"), TESTS)
def test_what_the_page_names_exists(place: str, test: str) -> None:
    path = ROOT / (place if place != "F:" else "tests/integration/test_faults.py")
    assert f"def {test}(" in path.read_text() if test else path.exists()


def test_the_page_names_tests_in_every_row() -> None:
    rows = [line for line in (ROOT / "docs/failures.md").read_text().splitlines() if "| `" in line]
    assert len(rows) > 15
    assert len(TESTS) > 15
