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

from gtm import codec, forms
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


def of_files(
    files: Iterable[tuple[Path, bytes]],
    probes: Mapping[str, type[Struct]],
    steering: Mapping[str, type[Struct]],
) -> Quick | None:
    """The set in files; None where it is not plainly right."""
    documents = []
    for _, raw in files:
        document = from_bytes(raw)
        if document is None:
            return None
        documents.append(document)
    return of_plain(documents, probes, steering)


def of_plain(
    documents: Iterable[Any],
    probes: Mapping[str, type[Struct]],
    steering: Mapping[str, type[Struct]],
) -> Quick | None:
    """The set in documents of plain data; None where it is not plainly right."""
    shaped = Shaped(Context(SHAPES, probes, steering))
    found: dict[str, dict[str, Any]] = {kind: {} for kind in TYPES}
    written: dict[str, dict[str, Any]] = {}
    for document in documents:
        if type(document) is not dict:
            return None
        for kind, named in document.items():
            if kind not in TYPES or (named is not None and type(named) is not dict):
                return None
            if named and not _kind(kind, named, found[kind], written.setdefault(kind, {}), shaped):
                return None
    return Quick(Resources(**found), written)


def _kind(
    kind: str,
    named: Mapping[Any, Any],
    found: dict[str, Any],
    written: dict[str, Any],
    shaped: Shaped,
) -> bool:
    """Read the resources of one kind into `found` and `written`; False where one is not right."""
    form = forms.domain if kind == "zones" else forms.label
    struct = TYPES[kind]
    for name, given in named.items():
        try:
            if type(name) is not str or form(name) != name or name in found:
                return False
        except ValueError:
            return False
        data = {} if given is None else given
        value = convert(struct, data, shaped)
        if value is OTHER:
            value = _explained(struct, data, shaped.context)
            if value is BAD:
                return False
            data = codec.plain(value)
        found[name], written[name] = value, data
    return True


def _explained(struct: type[Struct], data: Any, like: Context) -> Any:
    """The resource by the reader that explains; BAD where there is something to explain."""
    trial = Context(like.shapes, like.probes, like.steering)
    try:
        return read(struct, from_plain(data), At(trial, ""))
    except Unreadable:
        return BAD
