"""What the design knows and this version does not do yet: refused by name, never ignored.

An entry leaves this table in the change that builds what it names.
"""

from __future__ import annotations

from collections.abc import Mapping

KINDS: frozenset[str] = frozenset()
"""Top-level keys."""

KEYS: Mapping[type, frozenset[str]] = {}
"""Keys of a mapping, by the type that the mapping is read as."""

WORDS: Mapping[tuple[type, str], frozenset[str]] = {}
"""Words that a key would take, by (type, key)."""

FORMS: Mapping[tuple[type, str], frozenset[str]] = {}
"""Mappings that a key (or its items) would take instead of a word, by (type, key): their keys."""


def sentence(what: str) -> str:
    """The refusal of `what`, as users read it."""
    return f"{what!r} is not supported by this version"
