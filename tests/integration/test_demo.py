"""`gtm demo`: the seed story, told by the command itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from resolver.locate import embedded

pytestmark = pytest.mark.integration


def test_the_seed_story_holds_in_seven_steps() -> None:
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
    assert [f"\n({number}) " in told for number in range(1, 8)] == [True] * 7
    assert told.count("until every resolver gave the new answer") == 4
    assert told.endswith("Every step held.\n")
    assert done.stderr == ""
