"""Nodes into the frozen types of the model, strictly, with every error and where it stands.

Driven by the types alone: fields, markers and defaults of a Struct are its grammar. What a type
cannot say (a word instead of a mapping, settings that stand flat) comes as a shape from
`gtm.shapes`. Never raises for what users wrote; gives `BAD` and notes a problem instead.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import Meta, Struct, UnsetType

from gtm.document import Entry, Node
from gtm.forms import FORMS
from gtm.places import BAD, At, Context, Read, shown, unknown_key
from gtm.ports import Problem

MAX_TEXT = 64 * 1024
"""The longest text that any key takes, in characters."""
_MAX_INTEGER = 2**53


# ---- structs ---------------------------------------------------------------------------------


@cache
def readers(struct: type[Struct]) -> Mapping[str, tuple[msgspec.structs.FieldInfo, Read]]:
    """Every field of `struct` by the key that users write, with what reads it."""
    return {
        field.encode_name: (field, _reader(field.type, (struct, field.encode_name)))
        for field in msgspec.structs.fields(struct)
    }


def read(struct: type[Struct], node: Node, at: At) -> Any:
    """The node as a `struct`, by its shape where it has one; BAD with problems noted."""
    shape = at.context.shapes.get(struct)
    return shape(node, at) if shape else read_struct(struct, node, at)


def read_struct(struct: type[Struct], node: Node, at: At) -> Any:
    """The node, a mapping, as a `struct` by its fields alone."""
    if not node.is_map:
        return at.wrong("a mapping", node)
    known = readers(struct)
    found: dict[str, tuple[Entry, At]] = {}
    bad = False
    for entry, place in at.entries(node):
        if entry.key in known:
            found[entry.key] = (entry, place)
        else:
            unknown_key(place, entry.key, known)
            bad = True
    values = read_fields(struct, found, at)
    return BAD if bad or values is None else build(struct, values, at)


def read_fields(
    struct: type[Struct], found: Mapping[str, tuple[Entry, At]], at: At
) -> dict[str, Any] | None:
    """The values of a struct's fields among `found`; None with problems noted."""
    values: dict[str, Any] = {}
    bad = False
    for key, (field, reader) in readers(struct).items():
        if key in found:
            entry, place = found[key]
            value = reader(entry.node, place)
            bad = bad or value is BAD
            values[field.name] = value
        elif field.required:
            at.error(f"the key {key!r} is missing")
            bad = True
    return None if bad else values


def build(struct: type[Struct], values: dict[str, Any], at: At) -> Any:
    """A `struct` of its values; rules of its own (`__post_init__`, `problems()`) are noted."""
    try:
        value = struct(**values)
    except ValueError as error:
        return at.error(str(error))
    own = getattr(value, "problems", None)
    texts = tuple(own()) if callable(own) else ()
    for text in texts:
        at.error(text)
    return BAD if texts else value


# ---- types -----------------------------------------------------------------------------------


def _reader(type_: Any, place: tuple[type, str], metas: tuple[Meta, ...] = ()) -> Read:
    """What reads a value of `type_` that stands under the field `place`."""
    while typing.get_origin(type_) is Annotated:
        type_, *marks = typing.get_args(type_)
        metas += tuple(mark for mark in marks if isinstance(mark, Meta))
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if origin in (Union, types.UnionType):
        return _union(args, place, metas)
    if origin is Literal:
        return _words(args)
    if origin is tuple:
        return _list(args, place, metas)
    if origin is dict:
        return _dict(args[1], place, metas)
    if type_ is str:
        return _text(metas)
    if type_ is bool:
        return _truth
    if type_ in (int, float):
        return _number(type_, metas)
    if isinstance(type_, type) and issubclass(type_, Struct):
        return lambda node, at: read(type_, node, at)
    if hasattr(type_, "parse"):
        return _parsed(type_)
    raise TypeError(f"{place[0].__name__}.{place[1]}: no reader for {type_!r}")


def _text(metas: tuple[Meta, ...]) -> Read:
    forms = [FORMS[meta.extra["form"]] for meta in metas if meta.extra and "form" in meta.extra]
    least = max((meta.min_length or 0 for meta in metas), default=0)
    most = min((meta.max_length or MAX_TEXT for meta in metas), default=MAX_TEXT)

    def read_text(node: Node, at: At) -> Any:
        value: Any = node.value
        if not isinstance(value, str):
            if isinstance(value, int | float):
                return at.error(f"{shown(node)} is not text; put it in quotes")
            return at.wrong("text", node)
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            return at.error("has half a character (a lone surrogate)")
        if len(value) > most:
            return at.error(f"is longer than {most:,} characters")
        if len(value) < least:
            return at.error("must not be empty" if least == 1 else f"is shorter than {least}")
        try:
            for form in forms:
                value = form(value)
        except ValueError as error:
            return at.error(str(error))
        return value

    return read_text


def _truth(node: Node, at: At) -> Any:
    return node.value if isinstance(node.value, bool) else at.wrong("true or false", node)


def _number(type_: type, metas: tuple[Meta, ...]) -> Read:
    wanted = "a whole number" if type_ is int else "a number"
    lows = [meta.ge for meta in metas if meta.ge is not None]
    highs = [meta.le for meta in metas if meta.le is not None]
    low, high = max(lows, default=-_MAX_INTEGER), min(highs, default=_MAX_INTEGER)

    def read_number(node: Node, at: At) -> Any:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return at.wrong(wanted, node)
        if type_ is int and not isinstance(value, int):
            return at.wrong(wanted, node)
        if not math.isfinite(value) or not low <= value <= high:
            return at.error(f"{value} is not between {low} and {high}")
        return type_(value)

    return read_number


def _twice(node: Node, at: At) -> bool:
    """Whether a key stands twice anywhere in the node; notes it."""
    if node.items is not None:
        return sum(_twice(item, at.item(index, item)) for index, item in enumerate(node.items)) > 0
    inner = [_twice(entry.node, place) for entry, place in at.entries(node)]
    return any(inner) or len(inner) != len(node.entries or ())


def _parsed(type_: Any) -> Read:
    def read_parsed(node: Node, at: At) -> Any:
        if node.is_null:
            return at.error("has no value; leave the key out for its default")
        if _twice(node, at):
            return BAD
        try:
            return type_.parse(node.plain())
        except (ValueError, TypeError) as error:
            return at.error(str(error))

    return read_parsed


def _words(words: tuple[Any, ...]) -> Read:
    texts = [word for word in words if isinstance(word, str) and word]

    def read_word(node: Node, at: At) -> Any:
        for word in words:
            if node.value == word and type(node.value) is type(word):
                return word
        if len(texts) == 1:
            return at.wrong(repr(texts[0]), node)
        hint = ""
        if isinstance(node.value, str) and (
            close := difflib.get_close_matches(node.value, texts, n=1)
        ):
            hint = f", did you mean {close[0]!r}?"
        listed = ", ".join(str(word) for word in words if word != "")
        return (
            at.wrong(f"one of {listed}", node)
            if not hint
            else at.error(f"{node.value!r} is none of {listed}{hint}")
        )

    return read_word


def _most(metas: tuple[Meta, ...]) -> int:
    return min((meta.max_length for meta in metas if meta.max_length), default=_MAX_INTEGER)


def _list(args: tuple[Any, ...], place: tuple[type, str], metas: tuple[Meta, ...]) -> Read:
    most = _most(metas)
    endless = len(args) == 2 and args[1] is Ellipsis
    reads = [_reader(arg, place) for arg in args if arg is not Ellipsis]

    def read_list(node: Node, at: At) -> Any:
        items = node.items
        if items is None:
            return at.wrong("a list", node)
        if not endless and len(items) != len(reads):
            return at.error(f"must be a list of {len(reads)} values, not of {len(items)}")
        if len(items) > most:
            return at.error(f"has more than {most:,} items")
        values = []
        for index, item in enumerate(items):
            where = at.item(index, item)
            values.append(reads[0 if endless else index](item, where))
        return BAD if BAD in values else tuple(values)

    return read_list


def _dict(arg: Any, place: tuple[type, str], metas: tuple[Meta, ...]) -> Read:
    most = _most(metas)
    value_reader = _reader(arg, place)

    def read_dict(node: Node, at: At) -> Any:
        if not node.is_map:
            return at.wrong("a mapping", node)
        if len(node.entries or ()) > most:
            return at.error(f"has more than {most:,} entries")
        values = {entry.key: value_reader(entry.node, spot) for entry, spot in at.entries(node)}
        twice = len(values) != len(node.entries or ())
        return BAD if twice or BAD in values.values() else values

    return read_dict


def _union(args: tuple[Any, ...], place: tuple[type, str], metas: tuple[Meta, ...]) -> Read:
    null_too = type(None) in args
    reads = [_reader(arg, place, metas) for arg in args if arg not in (type(None), UnsetType)]

    def read_union(node: Node, at: At) -> Any:
        if node.is_null and null_too:
            return None
        if len(reads) == 1:
            return reads[0](node, at)
        refused: list[Problem] = []
        for reader in reads:
            trial = Context(at.context.shapes, at.context.probes, at.context.steering)
            value = reader(node, At(trial, at.file, at.path, at.line))
            if value is not BAD:
                return value
            refused += trial.problems
        for text in dict.fromkeys(problem.text for problem in refused):
            at.error(text)
        return BAD

    return read_union
