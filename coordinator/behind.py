"""What stands behind an explanation: the verdicts and votes over each candidate, as of now. Pure.

The explanation itself is the policy's and knows only what is published; live evidence is the
engine's. Adds, changes nothing that was said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

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
