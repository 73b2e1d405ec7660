"""Plain data into the frozen types of the model where nothing is wrong, and quickly.

The twin of `gtm.decode` for what most resources are: every text in its canonical form already. The
same types are the grammar; msgspec converts, what it does not check (forms of texts, unknown keys,
shapes) is checked here. What is not taken (`OTHER`) is read by `gtm.decode`, which explains; what
is taken is what that gives (docs/decisions/0004).
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import Meta, Struct, UnsetType

from gtm import codec
from gtm.decode import MAX_TEXT
from gtm.document import Unreadable, from_plain
from gtm.forms import FORMS
from gtm.places import BAD, At, Context
from gtm.shapes import SHAPES

OTHER = object()
"""The data is not what is read here."""
MAX_SHAPED = 1_000
"""Values of shapes (steering, failover) that one reading keeps."""

_MAX_INTEGER = 2**53

Pass = Callable[[Any, "Shaped"], Any]
"""Gives the data as msgspec shall convert it; raises _OtherForm."""


class _OtherForm(Exception):
    """The data is not what is read here."""


class Shaped:
    """Values that `gtm.shapes` reads, each read once; the registered variants are its own."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._known: dict[tuple[type, str], Any] = {}

    def read(self, struct: type[Struct], data: Any) -> Any:
        """The plain data of `struct` that `data`, in the users' form, stands for."""
        try:
            key = (struct, data if type(data) is str else repr(data))
            return self._known[key]
        except KeyError:
            pass
        trial = Context(self.context.shapes, self.context.probes, self.context.steering)
        try:
            value = trial.shapes[struct](from_plain(data), At(trial, ""))
        except Unreadable:
            value = BAD
        if value is BAD:
            raise _OtherForm
        found = msgspec.to_builtins(value)
        if len(self._known) < MAX_SHAPED:
            self._known[key] = found
        return found


def convert(struct: type[Struct], data: Any, shaped: Shaped) -> Any:
    """`data` as a `struct`; OTHER where it is anything but plainly right."""
    if struct in SHAPES:
        return OTHER
    try:
        return msgspec.convert(_struct(struct)(data, shaped), struct, dec_hook=codec.parsed)
    except (_OtherForm, ValueError, TypeError):
        return OTHER


# ---- what msgspec does not check ---------------------------------------------------------------


@cache
def _struct(struct: type[Struct]) -> Pass:
    fields = msgspec.structs.fields(struct)
    parts = {field.encode_name: _pass(field.type, ()) for field in fields}
    if hasattr(struct, "problems"):
        return _refuse
    if struct in SHAPES:
        return lambda data, shaped: shaped.read(struct, data)

    def struct_(data: Any, shaped: Shaped) -> Any:
        if type(data) is not dict:
            raise _OtherForm
        changed: dict[str, Any] = {}
        for key, value in data.items():
            try:
                part = parts[key]
            except KeyError:
                raise _OtherForm from None
            if part is not None and (new := part(value, shaped)) is not value:
                changed[key] = new
        return {**data, **changed} if changed else data

    return struct_


def _refuse(data: Any, shaped: Shaped) -> Any:
    raise _OtherForm


def _pass(type_: Any, metas: tuple[Meta, ...]) -> Pass | None:
    """What a value of `type_` must pass before msgspec converts it; None: nothing."""
    while typing.get_origin(type_) is Annotated:
        type_, *marks = typing.get_args(type_)
        metas += tuple(mark for mark in marks if isinstance(mark, Meta))
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if origin in (Union, types.UnionType):
        some = [arg for arg in args if arg not in (type(None), UnsetType)]
        one = _pass(some[0], metas)
        if len(some) > 1:
            return _refuse
        return _or_null(one) if type(None) in args and one is not None else one
    if origin is tuple:
        items = [_pass(arg, ()) for arg in args if arg is not Ellipsis]
        return _list(items, endless=Ellipsis in args)
    if type_ is str:
        return _text(metas)
    if type_ in (int, float):
        return _number(type_)
    if origin is Literal:
        return _word(args)
    if isinstance(type_, type) and issubclass(type_, Struct):
        return _struct(type_)
    return None if type_ is bool or hasattr(type_, "parse") else _refuse


def _or_null(one: Pass) -> Pass:
    return lambda data, shaped: None if data is None else one(data, shaped)


def _list(items: list[Pass | None], *, endless: bool) -> Pass | None:
    if items == [None]:
        return _is_list
    if endless and (one := items[0]) is not None:
        each = one

        def list_(data: Any, shaped: Shaped) -> Any:
            if type(data) is not list and type(data) is not tuple:
                raise _OtherForm
            for index, value in enumerate(data):
                if (new := each(value, shaped)) is not value:
                    before = list(data[:index])
                    return [*before, new, *(each(rest, shaped) for rest in data[index + 1 :])]
            return data

        return list_

    def fixed(data: Any, shaped: Shaped) -> Any:
        if type(data) not in (list, tuple) or len(data) != len(items):
            raise _OtherForm
        for value, one in zip(data, items, strict=True):
            if one is not None and one(value, shaped) is not value:
                raise _OtherForm
        return data

    return fixed


def _is_list(data: Any, shaped: Shaped) -> Any:
    if type(data) is not list and type(data) is not tuple:
        raise _OtherForm
    return data


def _text(metas: tuple[Meta, ...]) -> Pass:
    forms = [FORMS[meta.extra["form"]] for meta in metas if meta.extra and "form" in meta.extra]
    most = min((meta.max_length or MAX_TEXT for meta in metas), default=MAX_TEXT)
    least = max((meta.min_length or 0 for meta in metas), default=0)

    def text(data: Any, shaped: Shaped) -> Any:
        if type(data) is not str or not data.isascii() or not least <= len(data) <= most:
            raise _OtherForm
        for form in forms:
            if form(data) != data:
                raise _OtherForm
        return data

    return text


def _number(type_: type) -> Pass:
    kinds = (int,) if type_ is int else (int, float)

    def number(data: Any, shaped: Shaped) -> Any:
        if type(data) not in kinds or not -_MAX_INTEGER <= data <= _MAX_INTEGER:
            raise _OtherForm
        if not math.isfinite(data):
            raise _OtherForm
        return data

    return number


def _word(words: typing.Iterable[Any]) -> Pass:
    known = {(type(word), word) for word in words}

    def word(data: Any, shaped: Shaped) -> Any:
        if (type(data), data) not in known:
            raise _OtherForm
        return data

    return word
