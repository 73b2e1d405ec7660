"""A whole set of resources read quickly, or None where anything in it wants explaining.

Puts `gtm.quick_yaml` and `gtm.quick` together for `gtm.config`: a set in which all is right is read
here, each resource that only wants canonical texts by `gtm.decode`; one problem anywhere, and the
whole set is read by `gtm.config`'s own way, which finds and places them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from gtm import forms
from gtm.decode import read
from gtm.document import MAX_DOCUMENT_BYTES, Unreadable, from_plain
from gtm.model import TYPES, Resources
from gtm.places import BAD, At, Context
from gtm.quick import OTHER, Shaped, convert
from gtm.quick_yaml import from_bytes
from gtm.shapes import SHAPES

MAX_KEPT_BYTES = 64 * 2**20
"""Larger sets of files are read one by one, without keeping what they hold."""


class Quick(Struct, frozen=True):
    """A set without problems, as resources and as plain data (kind -> name -> resource)."""

    resources: Resources
    written: Mapping[str, Mapping[str, Any]]


def kept(paths: Iterable[Path]) -> list[tuple[Path, bytes]] | None:
    """What the YAML files hold; None where they are too large, or something else."""
    found: list[tuple[Path, bytes]] = []
    left = MAX_KEPT_BYTES
    for path in paths:
        if path.suffix == ".json":
            return None
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_DOCUMENT_BYTES + 1)
        except OSError:
            return None
        left -= len(raw)
        if left < 0:
            return None
        found.append((path, raw))
    return found


def documents(files: Iterable[tuple[Path, bytes]]) -> list[Any] | None:
    """The documents in files as plain data; None where one is not of the plain forms."""
    found = []
    for _, raw in files:
        document = from_bytes(raw)
        if document is None:
            return None
        found.append(document)
    return found


def of_documents(
    given: Iterable[Any],
    probes: Mapping[str, type[Struct]],
    steering: Mapping[str, type[Struct]],
) -> Quick | None:
    """The set in documents of plain data; None where it is not plainly right."""
    found = outline(given, probes, steering)
    if found is None:
        return None
    shaped = Shaped(Context(SHAPES, probes, steering))
    values: dict[str, dict[str, Any]] = {}
    for kind, named in found.written.items():
        struct = TYPES[kind]
        values[kind] = {}
        for name, data in named.items():
            value = convert(struct, data, shaped)
            if value is OTHER:
                value = _explained(struct, data, shaped.context)
                if value is BAD:
                    return None
            values[kind][name] = value
    return Quick(Resources(**values), found.written)


def outline(
    given: Iterable[Any],
    probes: Mapping[str, type[Struct]],
    steering: Mapping[str, type[Struct]],
) -> Quick | None:
    """The same without a judgement of the resources, and without them: their names are right."""
    written: dict[str, dict[str, Any]] = {}
    for document in given:
        if type(document) is not dict:
            return None
        for kind, named in document.items():
            if kind not in TYPES or (named is not None and type(named) is not dict):
                return None
            if named and not _named(kind, named, written.setdefault(kind, {})):
                return None
    return Quick(Resources(), written)


def _named(kind: str, named: Mapping[Any, Any], written: dict[str, Any]) -> bool:
    """Take the resources of one kind into `written`; False where one has no right name."""
    form = forms.domain if kind == "zones" else forms.label
    for name, data in named.items():
        try:
            if type(name) is not str or form(name) != name or name in written:
                return False
        except ValueError:
            return False
        if data is not None and type(data) is not dict:
            return False
        written[name] = {} if data is None else data
    return True


def _explained(struct: type[Struct], data: Any, like: Context) -> Any:
    """The resource by the reader that explains; BAD where there is something to explain."""
    trial = Context(like.shapes, like.probes, like.steering)
    try:
        return read(struct, from_plain(data), At(trial, ""))
    except Unreadable:
        return BAD
