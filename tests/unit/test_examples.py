"""Every complete example is valid without a warning that matters, and its expectations hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctl.prove import prove
from ctl.validate import registered, review
from gtm.config import read_files
from resolver.place import Unplaced

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_and_keeps_what_it_expects(path: Path) -> None:
    reading = read_files([path], registered())
    judged = review(reading, registered())
    assert judged.resources is not None, judged.problems
    assert not judged.problems
    results = prove(judged.resources, reading.expectations, Unplaced())
    assert [result.why for result in results] == [""] * len(results)
    assert results or path.stem == "quickstart"


def test_there_is_an_example_for_every_kind_of_user() -> None:
    kinds = {
        "apex", "canary", "cdn-split", "latency", "mainland", "primary-secondary", "quickstart",
        "sequence",
    }  # fmt: skip
    assert kinds <= {path.stem for path in EXAMPLES}
