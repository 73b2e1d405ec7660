"""Files made to hurt: each is refused in a sentence, in bounded time and memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ctl.validate import registered, review, review_files, review_plain
from gtm.config import read_text
from gtm.ports import Review

VARIANTS = registered()
MOST_S = 20.0
MOST_BYTES = 64 * 2**20


@contextmanager
def bounded() -> Iterator[None]:
    tracemalloc.start()
    began = time.thread_time()
    try:
        yield
        spent_s = time.thread_time() - began
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert spent_s < MOST_S
    assert peak < MOST_BYTES


def judged(text: str, *, is_json: bool = False) -> Review:
    return review(read_text(text, VARIANTS, is_json=is_json), VARIANTS)


def test_a_file_of_a_hundred_megabytes_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)
    with bounded():
        found = review_files([path], VARIANTS)
    assert [problem.text for problem in found.problems] == ["is larger than 16 MiB; split it"]


def test_a_file_without_an_end_is_refused() -> None:
    with bounded():
        found = review_files(["/dev/zero"], VARIANTS)
    assert "larger than" in found.problems[0].text


def _bomb() -> str:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    return "\n".join(levels)


HURTING = {
    "aliases that multiply": (_bomb(), "values; split it"),
    "a key thousandfold": ("pools:\n" + "  a: {type: ipv4}\n" * 5_000, "stands twice"),
    "open lists": ("[" * 200_000, "deeper than"),
    "no number": ("checks: {w: {type: http, interval: .nan}}", "nan is not a duration"),
    "no count": ("checks: {w: {type: http, fall: .nan}}", "must be a whole number, not nan"),
    "endless": ("checks: {w: {type: http, fall: .inf}}", "must be a whole number, not inf"),
    "many digits": ("checks: {w: {type: http, fall: " + "9" * 100_000 + "}}", "whole number"),
    "hexadecimal": (f"checks: {{w: {{type: http, fall: 0x{'f' * 37}}}}}", "not between"),
    "lines within lines": (
        "lines:\n  l0: {any_of: [default]}\n"
        + "".join(f"  l{n}: {{any_of: [l{n - 1}]}}\n" for n in range(1, 5_000)),
        "deeper than 16",
    ),
    "lines that multiply": (
        "lines:\n  l0: {any_of: [country:DE]}\n"
        + "".join(
            f"  {kind}{n}: {{any_of: [{', '.join(f'{inner}{n - 1}' for inner in 'abcdefgh')}]}}\n"
            for n in range(1, 12)
            for kind in "abcdefgh"
        )
        + "".join(f"  {kind}0: {{any_of: [country:DE]}}\n" for kind in "abcdefgh"),
        "more than 100,000 networks and lines",
    ),
    "a loop of thousands": (
        "lines:\n" + "".join(f"  l{n}: {{any_of: [l{(n + 1) % 5000}]}}\n" for n in range(5_000)),
        "made of itself",
    ),
}


@pytest.mark.parametrize("name", HURTING)
def test_what_hurts_is_refused_in_a_sentence(name: str) -> None:
    text, why = HURTING[name]
    with bounded():
        found = judged(text)
    assert found.resources is None
    assert any(why in problem.text for problem in found.errors), found.errors[:3]
    assert all(len(problem.text) <= 400 for problem in found.problems)


def test_a_number_of_json_has_any_length_and_is_refused_where_it_stands() -> None:
    text = '{"checks": {"w": {"type": "http", "fall": ' + "9" * 5_000 + "}}}"
    (problem,) = judged(text, is_json=True).problems
    assert problem.path == "checks.w.fall"
    assert problem.text.startswith("must be a whole number")


@pytest.mark.parametrize(
    "data",
    [
        {"pools": {"a": {"type": "ipv4", "max_answers": 10**5000}}},
        {"checks": {"w": {"type": "http", "failing_share": -(10**400)}}},
        {"pools": 10**400},
    ],
)
def test_a_number_of_plain_data_over_the_bound_is_refused(data: dict[str, Any]) -> None:
    assert [problem.text for problem in review_plain(data, VARIANTS).problems] == [
        "has a number of more than 40 digits"
    ]


def test_octets_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"pools:\n  caf\xe9: {type: ipv4}\n")
    (problem,) = review_files([path], VARIANTS).problems
    assert (problem.line, problem.text) == (2, "is not UTF-8 text")
