"""The model and the variants' settings as described fields: what the generated documents say.

Reads the same fields and markers as `gtm.decode`, so documents can't drift from the reader.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import NODEFAULT, UNSET, Meta, Struct, UnsetType

from gtm.choices import AllDown, Failback, Judgement, PoolRef
from gtm.options import default_of, written
from gtm.units import Duration, Least, Share, Voters

UNITS = {
    Duration: "duration",
    Share: "share",
    Least: "count or share",
    Voters: "majority, count or share",
    PoolRef: "name, or `{pool: NAME, weight: 0..255, lines: [...]}`",
    AllDown: "word, `{pool: NAME}` or `{addresses: [...]}`",
    Failback: "`immediate`, `manual` or `{after: DURATION}`",
    Judgement: "`all`, `any`, count or share, or `{must: [CHECK]}`",
}
WORDS = {
    "label": "name", "domain": "domain name", "address": "address", "line": "line",
    "member": "address or domain name", "network": "network",
    "canary": "address, or address and port",
}  # fmt: skip


class Described(Struct, frozen=True):
    """A field as users see it. `default` is its YAML text; None: the key is required."""

    key: str
    type: Any
    metas: tuple[Meta, ...]
    doc: str
    default: str | None


def fields(struct: type[Struct]) -> Iterator[Described]:
    """The fields of a Struct in order."""
    for field in msgspec.structs.fields(struct):
        type_, metas = split(field.type)
        doc = next((meta.description for meta in reversed(metas) if meta.description), "")
        default = None if field.required else shown(default_of(field))
        yield Described(field.encode_name, type_, metas, doc or "", default)


def split(type_: Any) -> tuple[Any, tuple[Meta, ...]]:
    """A type without its annotations, and its markers."""
    metas: tuple[Meta, ...] = ()
    while typing.get_origin(type_) is Annotated:
        type_, *marks = typing.get_args(type_)
        metas += tuple(mark for mark in marks if isinstance(mark, Meta))
    return type_, metas


def parts(type_: Any) -> tuple[Any, ...]:
    """The alternatives of a union, null and unset left out; the type itself where it is none."""
    if typing.get_origin(type_) in (Union, types.UnionType):
        return tuple(a for a in typing.get_args(type_) if a not in (type(None), UnsetType))
    return (type_,)


def is_list(type_: Any) -> bool:
    """Whether it is a list of any length."""
    args = typing.get_args(type_)
    return typing.get_origin(type_) is tuple and len(args) == 2 and args[1] is Ellipsis


def literals(type_: Any) -> tuple[Any, ...]:
    """The words of a Literal; () for other types."""
    return typing.get_args(type_) if typing.get_origin(type_) is Literal else ()


def form_of(metas: tuple[Meta, ...]) -> str:
    """The name of a text's form; "" for free text."""
    return next((meta.extra["form"] for meta in metas if meta.extra and "form" in meta.extra), "")


def limits(metas: tuple[Meta, ...]) -> tuple[float | None, float | None]:
    """The least and the greatest value of a number."""
    low = next((meta.ge for meta in metas if meta.ge is not None), None)
    high = next((meta.le for meta in metas if meta.le is not None), None)
    return low, high


def shown(default: Any) -> str:
    """A default as users would write it; "" where leaving it out has no written form."""
    if default in (NODEFAULT, UNSET, None) or isinstance(default, Struct):
        return ""
    value = written(default)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value in ("", [], {}) else str(value)


def words(type_: Any, metas: tuple[Meta, ...] = ()) -> str:
    """What a value is, in a few words."""
    alternatives = parts(type_)
    if len(alternatives) > 1:
        return " or ".join(words(part, metas) for part in alternatives)
    type_, own = split(alternatives[0])
    metas += own
    if isinstance(type_, type) and type_ in UNITS:
        return UNITS[type_]
    if choice := literals(type_):
        return ", ".join(f"`{word}`" for word in choice if word != "")
    if is_list(type_):
        return f"list of {plural(words(typing.get_args(type_)[0]))}"
    if typing.get_origin(type_) is tuple:
        return f"list of {len(typing.get_args(type_))} numbers"
    if type_ is str:
        return WORDS.get(form_of(metas), "text")
    if type_ is bool:
        return "`true`, `false`"
    if type_ in (int, float):
        low, high = limits(metas)
        kind = "whole number" if type_ is int else "number"
        if low is None or high is None:
            return kind if low is None else f"{kind} from {low} on"
        return f"{low}..{high}"
    return spaced(type_)


def spaced(type_: Any) -> str:
    """A class's name as words: `StatusSet` is a status set."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type_.__name__).lower()
    return "text to find" if text == "text" else text


def plural(text: str) -> str:
    """The plural of a type's words."""
    if text == "address":
        return "addresses"
    return text if text.endswith("s") or " or " in text else f"{text}s"
