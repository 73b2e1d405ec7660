"""What stands behind an explanation: the verdicts and votes over each candidate. Pure.

The explanation itself is the policy's and knows only what is published. As of now the evidence is
the engine's; as of an older revision it is what the store keeps of each verdict: the votes of its
last change. Adds, changes nothing that was said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gtm.state import VerdictRecord
from gtm.view import View

from .events import TargetKey
from .targets import keys_of
from .views import VerdictView

MAX_CANDIDATES = 1_000
"""Candidates for which evidence is added; the rest is told without."""

Evidence = Callable[[str], Mapping[str, tuple[VerdictView, ...]]]
"""A pool's verdicts by address."""


def with_votes(text: str, evidence: Evidence) -> str:
    """The JSON text of an explanation with `checks` added to its candidates.

    Each has `{check, port, verdict, pending, rule, regions: [{region, vote, streak, reason}]}`.
    """
    told: dict[str, Any] = msgspec.json.decode(text)
    found: dict[str, Mapping[str, tuple[VerdictView, ...]]] = {}
    for candidate in told.get("candidates", ())[:MAX_CANDIDATES]:
        pool = candidate.get("pool", "")
        if pool not in found:
            found[pool] = evidence(pool)
        candidate["checks"] = [_told(view) for view in found[pool].get(candidate["address"], ())]
    return msgspec.json.encode(told).decode()


def behind_at(text: str, view: View) -> dict[tuple[str, str], tuple[TargetKey, ...]]:
    """The targets that the candidates of an explanation were judged by: (pool, address) -> keys.

    `view` is what stood at the revision that it explains.
    """
    found: dict[tuple[str, str], tuple[TargetKey, ...]] = {}
    for candidate in msgspec.json.decode(text).get("candidates", ())[:MAX_CANDIDATES]:
        pool = view.config_pools.get(candidate.get("pool", ""))
        if pool is None:
            continue
        for address in pool.addresses:
            if address.value == candidate["address"]:
                found[candidate["pool"], address.value] = keys_of(pool, address, view.checks)
    return found


def with_records(
    text: str,
    targets: Mapping[tuple[str, str], tuple[TargetKey, ...]],
    records: Mapping[TargetKey, VerdictRecord],
) -> str:
    """The same as `with_votes`, from stored verdicts; without any no `checks` are added."""
    told: dict[str, Any] = msgspec.json.decode(text)
    for candidate in told.get("candidates", ())[:MAX_CANDIDATES]:
        keys = targets.get((candidate.get("pool", ""), candidate["address"]), ())
        candidate["checks"] = [_recorded(key, records[key]) for key in keys if key in records]
    return msgspec.json.encode(told).decode()


def _recorded(key: TargetKey, record: VerdictRecord) -> dict[str, Any]:
    return {
        "check": key.check,
        "port": key.port,
        "verdict": record.verdict,
        "pending": False,
        "rule": record.rule,
        "regions": [
            {"region": region, "vote": one.vote, "streak": one.streak, "reason": one.reason}
            for region, one in sorted(record.votes.items())
        ],
    }


def _told(view: VerdictView) -> dict[str, Any]:
    return {
        "check": view.target.check,
        "port": view.target.port,
        "verdict": view.verdict,
        "pending": view.pending,
        "rule": view.rule,
        "regions": [
            {
                "region": one.region,
                "vote": one.vote,
                "streak": one.streak,
                "reason": one.reason,
            }
            for one in view.regions
        ],
    }
