"""The quick readers of files and plain data give what those that explain give, or give up."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl.validate import registered
from gtm import quick_set, quick_yaml
from gtm.config import Reading, read_files, read_plain
from gtm.document import Unreadable, from_bytes
from tests.fuzz.files import Files
from tests.property.test_config_round_trip import sets

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = registered()
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PIECES = (
    "a", "b-1", "1", "0o17", "-3", "1.5", "true", "~", "null", "country:CN", "2001:db8::1", "50%",
    "x y", "a: b", "a:b", "#", " #c", "'q'", '"q"', "'it''s'", '"\\n"', "[]", "{}", "[a, b]",
    "[a, [b]]", "{a: 1, b: {c: [d]}}", "{a: 1, a: 2}", "- ", "-", "--", "---", "...", "? ", ": ",
    "&x ", "*x", "!t ", "|", ">", "%", "@", "`", "<<: ", "\n", "\n  ", "\n    ", "\n- ", "\n  - ",
    "k: ", "k:", "l:\n", ", ", "[", "]", "{", "}", "é", "\t", "\r", "  ", "a - b", "x, y", "x [y]",
)  # fmt: skip


def slowly(data: Any) -> Reading:
    """What the reader that explains says of plain data."""
    with mock.patch.object(quick_set, "of_documents", return_value=None):
        return read_plain(data, VARIANTS)


def holds(raw: bytes) -> bool:
    """Whether a text is read quickly; fails where it comes to something else than it is."""
    found = quick_yaml.from_bytes(raw)
    if found is None:
        return False
    try:
        plain = [document.plain() for document in from_bytes(raw)]
    except Unreadable as error:
        raise AssertionError(f"read as {found!r}, though it {error}") from None
    assert repr(plain) == repr([found])
    return True


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_read_quickly_and_rightly(path: Path) -> None:
    raw = path.read_bytes()
    if not holds(raw):
        assert b"note:" in raw  # text that is not as simple as that


def test_files_as_hasty_hands_leave_them_are_read_alike_or_not_at_all() -> None:
    files = Files()
    counts = Counter(holds(files.make(random.Random(seed)).data) for seed in range(1_500))
    files.close()
    assert counts[True] > 100
    assert counts[False] > 100


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join))
@settings(max_examples=3_000, deadline=None)
def test_any_pieces_of_yaml_are_read_alike_or_not_at_all(text: str) -> None:
    holds(text.encode())


@given(sets, st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_a_library_writes_is_read_alike(data: dict[str, Any], flow: bool, wide: bool) -> None:
    style = False if flow else None
    holds(yaml.safe_dump(data, default_flow_style=style, width=4096 if wide else 80).encode())


@given(sets)
@settings(max_examples=150, deadline=None)
def test_a_right_set_is_read_to_the_same_resources(data: dict[str, Any]) -> None:
    found = quick_set.of_documents((data,), VARIANTS.probes, VARIANTS.steering)
    told = slowly(data)
    assert told.problems == ()
    if found is not None:
        assert found.resources == told.sound
        assert repr(found.resources) == repr(told.sound)
        assert slowly(found.written).sound == told.sound


def test_a_wrong_set_is_never_read_quickly() -> None:
    files = Files()
    taken = 0
    for seed in range(1_500):
        data = files.plain(random.Random(seed))
        found = quick_set.of_documents((data,), VARIANTS.probes, VARIANTS.steering)
        told = slowly(data)
        if found is not None:
            taken += 1
            assert told.problems == ()
            assert repr(found.resources) == repr(told.sound)
    files.close()
    assert taken > 50


def test_what_is_read_quickly_knows_its_lines_when_they_are_asked(tmp_path: Path) -> None:
    path = tmp_path / "set.yaml"
    path.write_text("pools:\n  p:\n    type: ipv4\n    addresses: [{value: 192.0.2.1}]\n")
    reading = read_files([path], VARIANTS)
    assert reading.written == {
        "pools": {"p": {"type": "ipv4", "addresses": [{"value": "192.0.2.1"}]}}
    }
    path.write_text("changed: since\n")
    origin = reading.origins["pools", "p"]
    assert (origin.file, origin.line) == (str(path), 2)
    assert list(reading.origins) == [("pools", "p")]
