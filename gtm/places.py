"""Where a reading stands and what it found: places with file, line and path; problems; BAD.

The ground under `gtm.decode` and `gtm.shapes`; decides nothing about values.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from msgspec import Struct

from gtm.document import Entry, Node
from gtm.ports import Problem

MAX_PROBLEMS = 1000
"""The most problems that one reading lists."""
_MAX_SENTENCE = 400


class _Bad(Enum):
    BAD = "bad"


BAD = _Bad.BAD
"""What a reader gives instead of a value after it has noted a problem."""

Read = Callable[[Node, "At"], Any]


class Context:
    """What one reading shares: shapes, registered variants, the problems found so far."""

    def __init__(
        self,
        shapes: Mapping[type, Read],
        probes: Mapping[str, type[Struct]],
        steering: Mapping[str, type[Struct]],
    ) -> None:
        self.shapes = shapes
        self.probes = probes
        self.steering = steering
        self.problems: list[Problem] = []
        self.left_out = 0

    def note(self, problem: Problem) -> None:
        """Keep a problem, up to `MAX_PROBLEMS`."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.left_out += 1

    def found(self) -> tuple[Problem, ...]:
        """All problems noted, and how many more there were."""
        if not self.left_out:
            return tuple(self.problems)
        return (*self.problems, Problem(text=f"and {self.left_out:,} more errors"))


class At:
    """A place: file, path, line; errors are noted here."""

    __slots__ = ("context", "file", "line", "path")

    def __init__(self, context: Context, file: str, path: str = "", line: int = 0) -> None:
        self.context = context
        self.file = file
        self.path = path
        self.line = line

    def key(self, entry: Entry) -> At:
        """The place of a mapping's entry."""
        key = entry.key if entry.key.isprintable() else repr(entry.key)
        path = f"{self.path}.{key}" if self.path else key
        return At(self.context, self.file, path, entry.line)

    def item(self, index: int, node: Node) -> At:
        """The place of a list's item."""
        return At(self.context, self.file, f"{self.path}[{index}]", node.line)

    def error(self, text: str) -> Any:
        """Note an error here; gives BAD."""
        if len(text) > _MAX_SENTENCE:
            text = text[: _MAX_SENTENCE - 3] + "..."
        self.context.note(Problem(text=text, path=self.path, file=self.file, line=self.line))
        return BAD

    def wrong(self, wanted: str, node: Node) -> Any:
        """Note that something else than `wanted` stands here; gives BAD."""
        if node.is_null:
            return self.error(f"has no value; it must be {wanted}")
        return self.error(f"must be {wanted}, not {shown(node)}")

    def entries(self, node: Node) -> Iterable[tuple[Entry, At]]:
        """A mapping's entries with their places; of a key that stands twice the first."""
        first: dict[str, int] = {}
        for entry in node.entries or ():
            at = self.key(entry)
            if entry.key in first:
                earlier = f" (first in line {first[entry.key]})" if first[entry.key] else ""
                at.error(f"the key {entry.key!r} stands twice{earlier}")
                continue
            first[entry.key] = entry.line
            yield entry, at


def shown(node: Node) -> str:
    """What a node is, in a sentence."""
    if node.is_map:
        return "a mapping"
    if node.items is not None:
        return "a list"
    if isinstance(node.value, bool):
        return "true" if node.value else "false"
    return "nothing" if node.value is None else repr(node.value)


def nearest(word: str, known: Iterable[str], *, most: int = 40) -> str:
    """`, did you mean 'x'?` for the nearest known word, else the list of at most `most`."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1)
    if not close:
        close = [known for known in words if known.lower() == word.lower()][:1]
    if close:
        return f", did you mean {close[0]!r}?"
    return f"; known are {', '.join(words)}" if 0 < len(words) <= most else ""


def unknown_key(at: At, key: str, known: Iterable[str]) -> None:
    """Note that `key` is refused, with the nearest key."""
    at.error(f"unknown key {key!r}{nearest(key, known)}")
