"""Between frozen values and JSON: what lies in the store and what travels through RPC.

Reading here trusts what was validated before it was stored; users' input goes through
`gtm.config`. A value that does not fit its type raises ValueError, nothing else.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import msgspec
from msgspec import NODEFAULT, UNSET, Struct

from gtm.choices import AllDown, Failback, Judgement, PoolRef
from gtm.model import TYPES, Check, Pool, Resource
from gtm.state import PoolState
from gtm.units import Duration, Least, Share, Voters

T = TypeVar("T")

_COMMON = frozenset(Check.__struct_fields__) - {"port", "options"}


_BARE = frozenset({str, int, float, bool})
_PLAIN = (Least, Voters, PoolRef, AllDown, Failback, Judgement)
_PARSED = frozenset({Duration, Share, *_PLAIN})


def _enc_hook(value: object) -> object:
    if isinstance(value, Duration | Share):
        return str(value)
    if isinstance(value, _PLAIN):
        return value.plain()
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


@functools.cache
def _fields(type_: type[Struct]) -> tuple[tuple[str, str, Any], ...]:
    """(attribute, key, default) of each field of a type; defaults are left out when written."""
    fields = msgspec.structs.fields(type_)
    if not type_.__struct_config__.omit_defaults:
        return tuple((field.name, field.encode_name, NODEFAULT) for field in fields)
    return tuple(
        (
            field.name,
            field.encode_name,
            field.default if field.default_factory is NODEFAULT else field.default_factory(),
        )
        for field in fields
    )


def _builtins(value: Any) -> Any:
    """`value` as plain data. Defaults go by equality; msgspec knows them by identity alone."""
    if isinstance(value, Struct):
        data = {}
        for name, key, default in _fields(type(value)):
            part = getattr(value, name)
            if part is not default and part is not UNSET and part != default:
                data[key] = part if type(part) in _BARE else _builtins(part)
        return data
    if isinstance(value, tuple | list):
        return [_builtins(part) for part in value]
    if isinstance(value, dict):
        return {key: _builtins(part) for key, part in value.items()}
    return value if value is None or type(value) in _BARE else _enc_hook(value)


def parsed(type_: type, value: object) -> object:
    """`value` as one of the types of the model that parse (msgspec's `dec_hook`); ValueError."""
    if type_ in _PARSED:
        return type_.parse(value)  # type: ignore[attr-defined]
    raise NotImplementedError(f"{type_.__name__} has no JSON form")


def canonical(value: object) -> bytes:
    """`value` (plain data) as JSON with sorted keys: equal values, equal bytes."""
    return msgspec.json.encode(value, order="sorted")


def plain(value: object) -> Any:
    """Any value of model or state as plain data, in the form that users write."""
    data = _builtins(value)
    if isinstance(value, Check):
        options = msgspec.json.decode(data.pop("options"))
        port = data.pop("port")
        data["regions"] = data["regions"] or "all"
        return {**data, **({"port": port} if port else {}), **options}
    return _unfold(data) if _has_short_forms(type(value)) else data


def _has_short_forms(type_: type) -> bool:
    """Whether a steering or failover policy stands in values of the type."""
    return type_ in (PoolState, Pool) or type_.__name__ == "Instance"


def _unfold(data: Any) -> Any:
    """Steering and failover in their short forms, wherever they stand in `data`."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "steering" and isinstance(value, dict) and "options" in value:
                options = msgspec.json.decode(value["options"])
                data[key] = {"type": value["type"], **options} if options else value["type"]
            elif key == "failover" and isinstance(value, dict):
                data[key] = value if value.get("pinned") else "auto"
            else:
                _unfold(value)
    elif isinstance(data, list | tuple):
        for value in data:
            _unfold(value)
    return data


def _fold(data: Any) -> Any:
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "steering" and isinstance(value, str):
                data[key] = {"type": value, "options": "{}"}
            elif key == "steering" and isinstance(value, dict):
                options = {name: part for name, part in value.items() if name != "type"}
                data[key] = {"type": value.get("type"), "options": canonical(options).decode()}
            elif key == "failover" and value == "auto":
                data[key] = {}
            elif isinstance(value, dict | list | tuple):
                _fold(value)
    elif isinstance(data, list | tuple):
        for value in data:
            _fold(value)
    return data


def encode(value: object) -> bytes:
    """Any value of model or state as JSON bytes; equal values give equal bytes."""
    return canonical(plain(value))


def decode(data: bytes, type_: type[T]) -> T:
    """JSON bytes as a `type_` of model or state; ValueError where they are not."""
    if type_ is Check or _has_short_forms(type_):
        return convert(msgspec.json.decode(data), type_)
    return msgspec.json.decode(data, type=type_, dec_hook=parsed)


def convert(data: Any, type_: type[T]) -> T:
    """Plain data (which is taken over and may be changed) as a `type_`; ValueError if it isn't."""
    if type_ is Check and isinstance(data, dict):
        options = {key: value for key, value in data.items() if key not in _COMMON}
        port = options.pop("port", 0)
        data = {key: value for key, value in data.items() if key in _COMMON}
        if data.get("regions") == "all":
            data["regions"] = ()
        data |= {"port": port, "options": canonical(options).decode()}
    elif _has_short_forms(type_):
        data = _fold(data)
    return msgspec.convert(data, type_, dec_hook=parsed)


def packed(value: object) -> bytes:
    """Any value of model or state as bytes for another process of this version; quick."""
    return msgspec.msgpack.encode(value, enc_hook=_enc_hook)


def unpacked(data: bytes, type_: type[T]) -> T:
    """What `packed` gave; ValueError where it is something else."""
    return msgspec.msgpack.decode(data, type=type_, dec_hook=parsed)


def resource(kind: str, data: Any) -> Resource:
    """Plain data as a resource of `kind`; ValueError where it is not, KeyError for no such kind."""
    return convert(data, TYPES[kind])
