"""`gtm demo`: the seed story, told by the command itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ctl import recursion
from resolver.locate import embedded

pytestmark = pytest.mark.integration


def test_the_seed_story_holds_in_seven_steps_and_through_a_recursive_resolver() -> None:
    if not embedded():
        pytest.skip("python-geoacumen is not installed (make venv installs it)")
    done = subprocess.run(
        [sys.executable, "-m", "ctl", "demo"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout
    assert [f"\n({number}) " in told for number in range(1, 9)] == [True] * 8
    assert told.count("until every resolver gave the new answer") == 4
    assert ("    left out    it needs unbound" in told) == (not recursion.program())
    assert ("from the fault, with a TTL of 5 s" in told) == bool(recursion.program())
    assert told.endswith("Every step held.\n")
    assert done.stderr == ""
