"""The settings of a variant (a probe type, a steering policy) as canonical JSON text, and back.

Equal settings have equal text: defaults are left out, keys sorted. What users write is read by
`gtm.config`; `settings` here trusts text that `options` made. Values with `plain()` or `__str__`
are written by it and read by their classmethod `parse`.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import NODEFAULT, UNSET, Struct

from gtm.codec import canonical

S = TypeVar("S", bound=Struct)


def options(settings: Struct, *, without: frozenset[str] = frozenset()) -> str:
    """The JSON text of `settings`, fields named in `without` left out."""
    written = _written(settings)
    return canonical({key: value for key, value in written.items() if key not in without}).decode()


def settings(text: str, type_: type[S], **fixed: Any) -> S:
    """What `options` wrote as a `type_`, with the `fixed` fields added; ValueError if it isn't."""
    data = {**msgspec.json.decode(text), **fixed}
    return msgspec.convert(data, type_, dec_hook=_parse)


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    """A field's default; NODEFAULT where it has none."""
    if field.default_factory is not NODEFAULT:
        return field.default_factory()
    return field.default


def written(value: Any) -> Any:
    """Any value of a settings field as plain data."""
    if isinstance(value, Struct):
        return _written(value)
    if isinstance(value, tuple | list):
        return [written(item) for item in value]
    if isinstance(value, dict):
        return {key: written(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    return value.plain() if hasattr(value, "plain") else str(value)


def _written(settings: Struct) -> dict[str, Any]:
    result = {}
    for field in msgspec.structs.fields(settings):
        value = getattr(settings, field.name)
        if value is not UNSET and value != default_of(field):
            result[field.encode_name] = written(value)
    return result


def _parse(type_: type, value: object) -> object:
    parse = getattr(type_, "parse", None)
    if parse is None:
        raise NotImplementedError(f"{type_.__name__} has no JSON form")
    return parse(value)
