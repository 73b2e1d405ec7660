"""What the audit trail accounts for of what is stored, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from gtm.audit import Stored, account, digest_of
from gtm.state import AuditChange, AuditEntry


def changed(name: str, after: str, kind: str = "pools") -> AuditChange:
    return AuditChange(
        action="update" if after else "delete",
        kind=kind,
        name=name,
        after_digest=digest_of(after.encode()),
    )


def entry(seq: int, *changes: AuditChange, more: int = 0) -> tuple[AuditEntry, int]:
    """Entry `seq`, written at ten times that."""
    return AuditEntry(
        seq=seq, time=1.0, who="a", what="apply", changes=changes, more=more
    ), seq * 10


def there(name: str, value: str, revision: int, kind: str = "pools") -> Stored:
    return Stored(kind, name, digest_of(value.encode()), revision)


A, B, GONE = changed("a", "one"), changed("a", "two"), changed("a", "")

ROWS: list[tuple[str, list[Any], list[Stored], tuple[int, int], str]] = [
    # what, entries, stored, (covered, older), what is wrong
    ("nothing at all", [], [], (0, 0), ""),
    ("as the only entry left it", [entry(5, A)], [there("a", "one", 50)], (1, 0), ""),
    ("as the newest one left it", [entry(5, A), entry(6, B)], [there("a", "two", 60)], (1, 0), ""),
    ("put back into another etcd", [entry(5, A)], [there("a", "one", 99)], (1, 0), ""),
    ("written past us", [entry(5, A)], [there("a", "two", 55)], (0, 0), "not what entry 5 left"),
    ("as an older entry left it", [entry(5, A), entry(6, B)], [there("a", "one", 61)], (0, 0),
     "not what entry 6 left"),
    ("unreadable", [entry(5, A)], [Stored("pools", "a", "", 55)], (0, 0), "not what entry 5 left"),
    ("new past us", [entry(5)], [there("a", "one", 55)], (0, 0), "no entry names it"),
    ("new without a trail", [], [there("a", "one", 5)], (0, 0), "no entry names it"),
    ("of another kind", [entry(5, A)], [there("a", "one", 55, "checks"), there("a", "one", 50)],
     (1, 0), "checks/a in etcd (revision 55)"),
    ("deleted, and back past us", [entry(5, A), entry(6, GONE)], [there("a", "one", 61)], (0, 0),
     "entry 6 deleted it"),
    ("deleted past us", [entry(5, A)], [], (0, 0), "pools/a was deleted from etcd"),
    ("deleted", [entry(5, A), entry(6, GONE)], [], (0, 0), ""),
    ("older than the trail", [entry(5)], [there("a", "one", 49)], (0, 1), ""),
    ("as old, but named", [entry(5, A)], [there("a", "two", 49)], (0, 0), "not what entry 5 left"),
    ("left out by an entry", [entry(5, more=1)], [there("a", "one", 50)], (1, 0), ""),
    ("left out by a later entry", [entry(5, A), entry(6, more=1)], [there("a", "two", 60)], (1, 0),
     ""),
    ("written after an entry that left some out", [entry(5, more=1)], [there("a", "one", 51)],
     (0, 0), "no entry names it"),
    ("perhaps deleted by one that left some out", [entry(5, A), entry(6, more=1)], [], (0, 0), ""),
    ("part of a zone by an apply that ended early", [entry(5, A), entry(6, changed("z", "x"))],
     [there("a", "two", 60), there("z", "x", 60)], (2, 0), ""),
    ("not what its own entry says", [entry(5, A)], [there("a", "two", 50)], (0, 0),
     "not what entry 5 left"),
    ("changed since it was read", [entry(5, A), entry(11, B)], [there("a", "one", 50)], (1, 0), ""),
    ("a force", [entry(5, changed("a", "down", "forces"))], [], (0, 0), ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "stored", "counts", "wrong"),
    [row[1:] for row in ROWS],
    ids=[row[0] for row in ROWS],
)
def test_what_is_stored_is_held_against_the_trail(
    entries: list[Any], stored: list[Stored], counts: tuple[int, int], wrong: str
) -> None:
    found = account(entries, stored, as_of=100)
    assert (found.covered, found.older) == counts
    assert len(found.wrong) == bool(wrong)
    assert all(wrong in sentence for sentence in found.wrong)
