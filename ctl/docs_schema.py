"""docs/gtm.schema.json: the keys and types of the model for editors (JSON Schema 2020-12).

Weaker than the reader on purpose: it says which keys and words there are, not whether resources
fit together.
"""

from __future__ import annotations

import typing
from typing import Any

from msgspec import Struct

from gtm import model
from gtm.choices import AllDown, Failback, Judgement, PoolRef
from gtm.config import Variants
from gtm.units import Duration, Least, Share, Voters

from . import docs_types as described

_NUMBER = {"type": "number", "minimum": 0}
_SHARE = {
    "anyOf": [
        {"type": "string", "pattern": r"^\d+(\.\d+)?\s*%$"},
        {"type": "number", "minimum": 0, "maximum": 1},
    ]
}
_COUNT = {"type": "integer", "minimum": 1}
_LEAST = [{"enum": ["any", "all"]}, _COUNT, *_SHARE["anyOf"]]
_DURATION = {"anyOf": [{"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h|d)$"}, _NUMBER]}
_LABEL = "^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$"
_NAME = {"type": "string", "pattern": _LABEL}
_TEXT = {"type": "string"}
_WEIGHT = {"type": "integer", "minimum": 0, "maximum": 255}


def _object(properties: dict[str, Any], required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [required],
        "additionalProperties": False,
    }


def _texts(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_UNITS: dict[Any, dict[str, Any]] = {
    Duration: _DURATION,
    Share: _SHARE,
    Least: {"anyOf": _LEAST},
    Voters: {"anyOf": [{"const": "majority"}, _COUNT, *_SHARE["anyOf"]]},
    PoolRef: {
        "anyOf": [
            _NAME,
            _object({"pool": _NAME, "weight": _WEIGHT, "lines": _texts(_TEXT)}, "pool"),
        ]
    },
    AllDown: {
        "anyOf": [
            {"enum": list(AllDown.WORDS)},
            _object({"pool": _NAME}, "pool"),
            _object({"addresses": {**_texts(_TEXT), "minItems": 1}}, "addresses"),
        ]
    },
    Failback: {"anyOf": [{"enum": list(Failback.WORDS)}, _object({"after": _DURATION}, "after")]},
    Judgement: {"anyOf": [*_LEAST, _object({"must": {**_texts(_NAME), "minItems": 1}}, "must")]},
}


def schema(variants: Variants) -> dict[str, Any]:
    """The whole schema."""
    maker = _Maker(variants)
    kinds = {}
    for kind, type_ in model.TYPES.items():
        names = {} if kind == "zones" else {"propertyNames": {"pattern": _LABEL}}
        value = {"anyOf": [maker.value(type_), {"type": "null"}]}
        kinds[kind] = {"type": ["object", "null"], "additionalProperties": value, **names}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Meridian GTM resources",
        "type": "object",
        "properties": kinds,
        "additionalProperties": False,
    }


class _Maker:
    def __init__(self, variants: Variants) -> None:
        self.variants = variants

    def value(self, type_: Any, metas: tuple[Any, ...] = ()) -> dict[str, Any]:
        """The schema of a value."""
        alternatives = described.parts(type_)
        if len(alternatives) > 1:
            return {"anyOf": [self.value(part, metas) for part in alternatives]}
        type_, own = described.split(alternatives[0])
        metas += own
        if isinstance(type_, type) and type_ in _UNITS:
            return _UNITS[type_]
        if choice := described.literals(type_):
            return {"enum": [word for word in choice if word != ""]}
        if described.is_list(type_):
            return {"type": "array", "items": self.value(typing.get_args(type_)[0])}
        if typing.get_origin(type_) is tuple:
            items = [self.value(arg) for arg in typing.get_args(type_)]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
        if type_ is str:
            pattern = {"pattern": _LABEL} if described.form_of(metas) == "label" else {}
            return {"type": "string", **pattern}
        if type_ is bool:
            return {"type": "boolean"}
        if type_ in (int, float):
            low, high = described.limits(metas)
            found: dict[str, Any] = {"type": "integer" if type_ is int else "number"}
            found |= {} if low is None else {"minimum": low}
            return found | ({} if high is None else {"maximum": high})
        if isinstance(type_, type) and issubclass(type_, Struct):
            return self.struct(type_)
        return {}  # a form with a `parse` of its own

    def struct(self, struct: type[Struct]) -> dict[str, Any]:
        """The schema of a mapping."""
        if struct is model.Check:
            return {"oneOf": [self.check(name) for name in sorted(self.variants.probes)]}
        if struct is model.Steering:
            policies = self.variants.steering
            forms = [self.typed(name, {}, policies[name]) for name in sorted(policies)]
            return {"anyOf": [{"enum": sorted(policies)}, *forms]}
        if struct is model.Failover:
            pinned = {"type": "object", "properties": {"pinned": _COUNT}, "required": ["pinned"]}
            return {"anyOf": [{"const": "auto"}, {**pinned, "additionalProperties": False}]}
        properties, required = self.properties(struct)
        return self.mapping(properties, required)

    def properties(self, struct: type[Struct]) -> tuple[dict[str, Any], list[str]]:
        """The schemas of a Struct's keys, and which of them are required."""
        properties, required = {}, []
        for field in described.fields(struct):
            value = self.value(field.type, field.metas)
            properties[field.key] = {**value, "description": field.doc} if field.doc else value
            if field.default is None:
                required.append(field.key)
        return properties, required

    def check(self, name: str) -> dict[str, Any]:
        """A check of one type."""
        common, _ = self.properties(model.Check)
        del common["port"], common["options"], common["type"]
        names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        described_as = common["regions"]["description"]
        common["regions"] = {"anyOf": [{"const": "all"}, names], "description": described_as}
        return self.typed(name, common, self.variants.probes[name])

    def typed(self, name: str, common: dict[str, Any], struct: type[Struct]) -> dict[str, Any]:
        """A mapping whose `type` is `name`, with common keys and a variant's settings."""
        own, required = self.properties(struct)
        return self.mapping({"type": {"const": name}, **common, **own}, ["type", *required])

    @staticmethod
    def mapping(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
        """An object of these keys and no others."""
        found: dict[str, Any] = {"type": "object", "properties": properties}
        found |= {"required": required} if required else {}
        return found | {"additionalProperties": False}
