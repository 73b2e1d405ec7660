"""Every file of tests/corpus: exactly the problems that its first lines expect, no other.

`# expect: LINE: PATH: TEXT` is an error, `# warning: ...` likewise; LINE is that of the file. A
file under `valid` has no error. To add a rule, add a file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ctl.validate import review_files

CORPUS = Path(__file__).parent.parent / "corpus"
FILES = sorted(CORPUS.glob("*/*.yaml"))


def expected(path: Path) -> list[str]:
    found = []
    for line in path.read_text().splitlines():
        for prefix, severity in (("# expect: ", "error"), ("# warning: ", "warning")):
            if line.startswith(prefix):
                found.append(f"{severity} {line.removeprefix(prefix)}")
    return sorted(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_has_exactly_the_problems_that_it_expects(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    review = review_files([path.name])
    found = sorted(
        f"{problem.severity} {problem.line}: {problem.path}: {problem.text}"
        for problem in review.problems
    )
    assert found == expected(path)
    assert (review.resources is None) == (path.parent.name == "invalid")
    assert bool(review.errors) == (path.parent.name == "invalid")


def test_every_invalid_file_expects_an_error() -> None:
    for path in FILES:
        errors = [text for text in expected(path) if text.startswith("error")]
        assert bool(errors) == (path.parent.name == "invalid"), path


def test_the_whole_corpus_is_there() -> None:
    assert len(FILES) > 60
