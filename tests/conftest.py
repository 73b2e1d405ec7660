"""What all tests share: which files a run begins with, and tests that ask each responder.

Whole files go to workers (`--dist loadfile`). Were one of these the last, a worker would be busy
with it alone while the others have nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.responders import KINDS, responder

LONGEST = (
    "test_simulation",
    "test_lab",
    "test_high_availability",
    "test_trust",
    "test_demo",
    "test_confirmation",
    "test_faults",
    "test_etcd_torture",
    "test_explained_live",
)
"""From the longest on; each takes a quarter of a minute to three minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(params=KINDS, scope="module")
def each_responder(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have each responder in turn in the place of the module's `respond`; gives its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request.module, "respond", responder(request.param))
        yield request.param
