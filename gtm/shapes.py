"""What users write in another shape than the model keeps it: checks, steering, failover.

The settings of a probe type stand flat beside a check's common keys, and a steering policy is a
word or a mapping; both end as canonical JSON text (`gtm.options`). Works for `gtm.config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from gtm.decode import build, read_fields, readers
from gtm.document import Entry, Node
from gtm.model import Check, Failover, Steering
from gtm.options import options
from gtm.places import BAD, At, Read, nearest, unknown_key

_APART = frozenset({"port", "options"})
_COMMON = frozenset(field.encode_name for field in msgspec.structs.fields(Check)) - _APART


def _variant(node: Node | None, at: At, known: Mapping[str, type[Struct]]) -> str | None:
    """The name of a variant under a `type` key or as a bare word; None with a problem noted."""
    if node is None:
        at.error("the key 'type' is missing")
    elif not isinstance(node.value, str):
        at.wrong(f"one of {', '.join(sorted(known))}", node)
    elif node.value in known:
        return node.value
    else:
        at.error(f"unknown type {node.value!r}{nearest(node.value, known)}")
    return None


def _settings(struct: type[Struct], found: Mapping[str, tuple[Entry, At]], at: At) -> Any:
    values = read_fields(struct, found, at)
    return BAD if values is None else build(struct, values, at)


def read_check(node: Node, at: At) -> Any:
    """A check: common keys and the flat settings of its type."""
    if not node.is_map:
        return at.wrong("a mapping", node)
    found = {entry.key: (entry, place) for entry, place in at.entries(node)}
    probes = at.context.probes
    type_entry, type_at = found.pop("type", (None, at))
    name = _variant(type_entry.node if type_entry else None, type_at, probes)
    bad = name is None or len(found) + 1 != len(node.entries or ())
    common = _common(found, at)
    bad = bad or common is None
    rest = {key: value for key, value in found.items() if key not in _COMMON}
    if name is None:
        anywhere = {key for struct in probes.values() for key in readers(struct)}
        for key, (_, place) in rest.items():
            if key not in anywhere:
                unknown_key(place, key, _COMMON | anywhere)
        return BAD
    own = readers(probes[name])
    for key, (_, place) in rest.items():
        if key in own:
            continue
        bad = True
        others = sorted(other for other, struct in probes.items() if key in readers(struct))
        if others:
            place.error(f"{key!r} is no setting of type {name}, only of {', '.join(others)}")
        else:
            unknown_key(place, key, _COMMON | set(own))
    settings = _settings(probes[name], rest, at)
    if bad or settings is BAD:
        return BAD
    return Check(
        type=name,
        port=getattr(settings, "port", 0),
        options=options(settings, without=frozenset({"port"})),
        **(common or {}),
    )


def _common(found: Mapping[str, tuple[Entry, At]], at: At) -> dict[str, Any] | None:
    """A check's common values but its type; None with problems noted."""
    values: dict[str, Any] = {}
    for key, (field, reader) in readers(Check).items():
        if key not in found or key not in _COMMON:
            continue
        entry, place = found[key]
        if key == "regions":
            values["regions"] = _regions(reader, entry.node, place)
        else:
            values[field.name] = reader(entry.node, place)
    return None if BAD in values.values() else values


def _regions(reader: Read, node: Node, at: At) -> Any:
    if node.value == "all":
        return ()
    if node.items is None:
        return at.wrong("all or a list of regions", node)
    if not node.items:
        return at.error("names no region; say all, or leave the key out")
    return reader(node, at)


def read_steering(node: Node, at: At) -> Any:
    """A steering policy: the bare word, or `{type: WORD, ...settings}`."""
    known = at.context.steering
    found = {entry.key: (entry, spot) for entry, spot in at.entries(node)}
    bad = len(found) != len(node.entries or ())
    if node.is_map:
        type_entry, type_at = found.pop("type", (None, at))
        name = _variant(type_entry.node if type_entry else None, type_at, known)
    else:
        name = _variant(node, at, known)
    if name is None:
        return BAD
    own = readers(known[name])
    for key, (_, spot) in found.items():
        if key not in own:
            bad = True
            unknown_key(spot, key, {"type", *own})
    settings = _settings(known[name], found, at)
    if bad or settings is BAD:
        return BAD
    return Steering(type=name, options=options(settings))


def read_failover(node: Node, at: At) -> Any:
    """`auto`, or `{pinned: TIER}`."""
    if node.value == "auto":
        return Failover()
    if not node.is_map:
        return at.wrong("auto or {pinned: TIER}", node)
    found = {entry.key: (entry, place) for entry, place in at.entries(node)}
    bad = len(found) != len(node.entries or ())
    for key, (_, place) in found.items():
        if key != "pinned":
            bad = True
            unknown_key(place, key, ("pinned",))
    if "pinned" not in found:
        return at.error("the key 'pinned' is missing")
    entry, place = found["pinned"]
    tier = entry.node.value
    if isinstance(tier, bool) or not isinstance(tier, int):
        return place.wrong("the number of a tier", entry.node)
    if tier < 1:
        return place.error(f"{tier} is no tier; they are counted from 1")
    return BAD if bad else Failover(pinned=tier)


SHAPES: Mapping[type, Read] = {
    Check: read_check,
    Steering: read_steering,
    Failover: read_failover,
}
"""What reads a type in place of its fields."""
