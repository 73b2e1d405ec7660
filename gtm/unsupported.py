"""What the design knows and this version does not do yet: refused by name, never ignored.

An entry leaves this table in the change that builds what it names.
"""

from __future__ import annotations

from collections.abc import Mapping

from gtm.model import (
    Address,
    Check,
    Instance,
    Pool,
    Region,
    Rule,
    Tier,
)

KINDS = frozenset({"lines"})
"""Top-level keys."""

KEYS: Mapping[type, frozenset[str]] = {
    Region: frozenset({"canaries"}),
    Check: frozenset(
        {"healthy_share", "rise_share", "confirm", "damping", "ip_version", "max_probe_rate"}
    ),
    Pool: frozenset({"check_judgement", "floor", "flatten"}),
    Address: frozenset({"lines", "location", "checks", "capacity"}),
    Instance: frozenset({"ttl_wavering"}),
    Tier: frozenset({"steering", "min_available", "max_answers"}),
}
"""Keys of a mapping, by the type that the mapping is read as."""

WORDS: Mapping[tuple[type, str], frozenset[str]] = {
    (Check, "type"): frozenset({"tls", "dns", "grpc"}),
    (Pool, "type"): frozenset({"domain"}),
    (Pool, "steering"): frozenset({"sequence", "nearest", "latency", "sticky"}),
    (Address, "mode"): frozenset({"manual_up", "manual_down"}),
    (Instance, "when_all_down"): frozenset({"last_good", "drop"}),
    (Rule, "failback"): frozenset({"manual"}),
}
"""Words that a key would take, by (type, key)."""

FORMS: Mapping[tuple[type, str], frozenset[str]] = {
    (Instance, "when_all_down"): frozenset({"pool", "addresses"}),
    (Rule, "failback"): frozenset({"after"}),
    (Tier, "pools"): frozenset({"pool", "weight", "lines"}),
}
"""Mappings that a key (or its items) would take instead of a word, by (type, key): their keys."""


def sentence(what: str) -> str:
    """The refusal of `what`, as users read it."""
    return f"{what!r} is not supported by this version"
