"""The strict reader of what users write: files or plain data in, frozen resources out.

Decides whether each resource by itself is well formed and brings it into the one canonical form;
reports all errors of a file set at once, each with file, line and path. Whether resources fit
together is decided behind `gtm.ports.Policy`. Its place: first, before anything is planned.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from gtm import forms, quick_set
from gtm.decode import read
from gtm.document import MAX_DOCUMENT_BYTES, Node, Unreadable, from_bytes, from_plain
from gtm.expect import MAX_EXPECTATIONS, Expectation
from gtm.model import TYPES, Resources
from gtm.places import BAD, At, Context, nearest
from gtm.ports import Problem, Review
from gtm.shapes import SHAPES

SUFFIXES = (".yaml", ".yml", ".json")
"""What is read of a directory (not of those below it, nor names that begin with a dot)."""
EXPECT = "expect"
"""The key of expectations, which stand beside the resources."""
MAX_FILES = 10_000
"""The most files of one set."""

_Settings = Mapping[str, type[Struct]]
_Quickly = Callable[[Iterable[Any], _Settings, _Settings], quick_set.Quick | None]


class Variants(Struct, frozen=True):
    """The registered settings types by name: of probes and of steering policies."""

    probes: _Settings
    steering: _Settings


class Origin(Struct, frozen=True):
    """Where a resource was written."""

    file: str
    line: int
    node: Node


class Reading(Review, frozen=True, kw_only=True):
    """A review that also knows what was well formed beside the errors, and where all of it stood.

    `sound` holds the resources without errors of their own, `broken` (kind, name) of the others:
    rules over the whole set can judge the first without stumbling over the second. `written` has
    the resources as plain data where that was at hand (treat it as read-only), else nothing.
    """

    sound: Resources = field(default_factory=Resources)
    broken: frozenset[tuple[str, str]] = frozenset()
    origins: Mapping[tuple[str, str], Origin] = field(default_factory=dict)
    expectations: tuple[Expectation, ...] = ()
    written: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def located(self, problem: Problem) -> Problem:
        """`problem` with the file and line of the deepest part of its path that was written."""
        kind, _, rest = problem.path.partition(".")
        if kind.startswith("expect["):
            origin = self.origins.get(("expect", kind))
            return replace(problem, file=origin.file, line=origin.line) if origin else problem
        for name in _prefixes(rest):
            origin = self.origins.get((kind, name))
            if origin:
                line = _line(origin.node, rest[len(name) :], origin.line)
                return replace(problem, file=origin.file, line=line)
        return problem


def read_files(paths: Iterable[str | Path], variants: Variants) -> Reading:
    """All resources of files and directories, as one set; what can't be read is a problem."""
    return _read(paths, variants, quick_set.of_documents)


def read_outline(paths: Iterable[str | Path], variants: Variants) -> Reading:
    """The same for those who have the set judged elsewhere.

    Where all of it is written plainly, nothing but `written` is known of the resources.
    """
    return _read(paths, variants, quick_set.outline)


def _read(paths: Iterable[str | Path], variants: Variants, quickly: _Quickly) -> Reading:
    collected = _Collected(variants)
    listed = _listed(paths, collected)
    files = None if collected.context.problems else quick_set.kept(listed)
    documents = files and quick_set.documents(files)
    found = documents and quickly(documents, variants.probes, variants.steering)
    if not files or not found:
        return _explained(((path, _octets) for path in listed), collected)

    def again() -> Mapping[tuple[str, str], Origin]:
        known = ((path, lambda _, raw=raw: raw) for path, raw in files)
        return _explained(known, _Collected(variants)).origins

    return _plainly_right(found, again)


def _explained(
    files: Iterable[tuple[Path, Callable[[Path], bytes]]], collected: _Collected
) -> Reading:
    """What files hold, with the places of all and all problems; each file comes with its reader."""
    for path, octets in files:
        at = At(collected.context, str(path))
        try:
            documents = from_bytes(octets(path), is_json=path.suffix == ".json")
        except OSError as error:
            at.error(f"cannot be read: {error.strerror}")
        except Unreadable as error:
            At(collected.context, str(path), line=error.line).error(str(error))
        else:
            for document in documents:
                collected.document(document, at)
    return collected.reading()


def _plainly_right(
    found: quick_set.Quick, again: Callable[[], Mapping[tuple[str, str], Origin]]
) -> Reading:
    """A reading without problems; `again` reads where all of it stands, when that is asked."""
    return Reading(
        resources=found.resources,
        sound=found.resources,
        origins=_Origins(again),
        written=found.written,
    )


class _Origins(Mapping[tuple[str, str], Origin]):
    """Origins that are found when the first is asked for."""

    def __init__(self, find: Callable[[], Mapping[tuple[str, str], Origin]]) -> None:
        self._find = find

    @functools.cached_property
    def _found(self) -> Mapping[tuple[str, str], Origin]:
        return self._find()

    def __getitem__(self, key: tuple[str, str]) -> Origin:
        return self._found[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _octets(path: Path) -> bytes:
    """What is in a file, read no further than to see that it is too large."""
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT_BYTES + 1)


def read_text(text: str, variants: Variants, *, file: str = "", is_json: bool = False) -> Reading:
    """The resources of one text, called `file` in problems."""
    collected = _Collected(variants)
    try:
        for document in from_bytes(text.encode("utf-8", "replace"), is_json=is_json):
            collected.document(document, At(collected.context, file))
    except Unreadable as error:
        At(collected.context, file, line=error.line).error(str(error))
    return collected.reading()


def read_plain(data: Any, variants: Variants) -> Reading:
    """The resources in plain data (kind -> name -> resource), as RPC and the store hold them."""
    if found := quick_set.of_documents((data,), variants.probes, variants.steering):
        return _plainly_right(found, dict)
    collected = _Collected(variants)
    at = At(collected.context, "")
    try:
        node = from_plain(data)
    except Unreadable as error:
        at.error(str(error))
    else:
        collected.document(node, at)
    return collected.reading()


def _listed(paths: Iterable[str | Path], collected: _Collected) -> list[Path]:
    """The files to read, each once, directories opened; problems are noted."""
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        at = At(collected.context, str(path))
        try:
            if path.is_dir():
                inside = sorted(
                    entry
                    for entry in path.iterdir()
                    if entry.suffix in SUFFIXES and not entry.name.startswith(".")
                )
                if not inside:
                    at.error(f"holds no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")
            else:
                inside = [path]
            for file in inside:
                found.setdefault(file.resolve(), file)
        except OSError as error:
            at.error(f"cannot be read: {error.strerror}")
    if len(found) > MAX_FILES:
        At(collected.context, "").error(f"more than {MAX_FILES:,} files")
        return []
    return list(found.values())


class _Collected:
    """What the documents read so far hold."""

    def __init__(self, variants: Variants) -> None:
        self.context = Context(SHAPES, variants.probes, variants.steering)
        self.found: dict[str, dict[str, Any]] = {kind: {} for kind in TYPES}
        self.broken: set[tuple[str, str]] = set()
        self.origins: dict[tuple[str, str], Origin] = {}
        self.expectations: list[Any] = []

    def document(self, node: Node, at: At) -> None:
        """Read one document: kind -> name -> resource."""
        if not node.is_map:
            place = At(self.context, at.file, line=node.line)
            place.wrong("a mapping of " + ", ".join(TYPES), node)
            return
        for entry, place in at.entries(node):
            if entry.key == EXPECT:
                self._expect(entry.node, place)
            elif entry.key in TYPES:
                if entry.node.is_map:
                    self._kind(entry.key, entry.node, place)
                elif not entry.node.is_null:
                    place.wrong("a mapping from name to resource", entry.node)
            else:
                place.error(f"unknown key {entry.key!r}{nearest(entry.key, (*TYPES, EXPECT))}")

    def _expect(self, node: Node, at: At) -> None:
        """Read a list of expectations; their paths count over all files of the set."""
        if node.items is None:
            at.wrong("a list of expectations", node)
            return
        for item in node.items:
            path = f"{EXPECT}[{len(self.expectations)}]"
            if len(self.expectations) >= MAX_EXPECTATIONS:
                at.error(f"more than {MAX_EXPECTATIONS:,} expectations")
                return
            line = item.line or at.line
            self.origins[EXPECT, path] = Origin(at.file, line, item)
            self.expectations.append(read(Expectation, item, At(self.context, at.file, path, line)))

    def _kind(self, kind: str, node: Node, at: At) -> None:
        for entry, spot in at.entries(node):
            try:
                name = forms.domain(entry.key) if kind == "zones" else forms.label(entry.key)
            except ValueError as error:
                spot.error(str(error))
                self.broken.add((kind, entry.key))
                continue
            place = At(self.context, at.file, f"{kind}.{name}", entry.line)
            earlier = self.origins.get((kind, name))
            if earlier:
                where = f"{earlier.file}:{earlier.line}" if earlier.line else "above"
                place.error(f"{name!r} is defined twice, first in {where}")
                continue
            self.origins[kind, name] = Origin(at.file, entry.line, entry.node)
            empty = Node(entries=(), line=entry.line)
            value = read(TYPES[kind], empty if entry.node.is_null else entry.node, place)
            if value is BAD:
                self.broken.add((kind, name))
            else:
                self.found[kind][name] = value

    def reading(self) -> Reading:
        """What it comes to."""
        sound = Resources(**self.found)
        problems = self.context.found()
        files = {file: index for index, file in enumerate(dict.fromkeys(p.file for p in problems))}
        problems = tuple(sorted(problems, key=lambda problem: (files[problem.file], problem.line)))
        return Reading(
            resources=None if problems else sound,
            problems=problems,
            sound=sound,
            broken=frozenset(self.broken),
            origins=self.origins,
            expectations=() if problems else tuple(self.expectations),
        )


def _prefixes(path: str) -> list[str]:
    """Beginnings of `path` that may be a name, the longest first: names may have dots."""
    ends = [index for index, char in enumerate(path) if char in ".["]
    return [path[:end] for end in (len(path), *reversed(ends))]


def _line(node: Node, path: str, line: int) -> int:
    """The line of the deepest entry or item along `path` (`.records[0].data`), else `line`."""
    while path:
        if path[0] == "[" and node.items is not None:
            index, _, path = path[1:].partition("]")
            if not index.isdecimal() or int(index) >= len(node.items):
                return line
            node = node.items[int(index)]
            line = node.line or line
        elif path[0] == "." and node.entries is not None:
            keys = _prefixes(path[1:])
            entry = next(
                (entry for key in keys for entry in node.entries if entry.key == key), None
            )
            if entry is None:
                return line
            node, line, path = entry.node, entry.line or line, path[1 + len(entry.key) :]
        else:
            return line
    return line
