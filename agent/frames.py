"""Frames for the agent stream: values in, columns as proto/gtm/v1/agent.proto says out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gtm.v1 import agent_pb2

from .probes.base import Identity, Phases
from .results import ProbeResult
from .runner import Standing
from .targets import Assigned

FRAME_ROWS = 4096
"""Rows of one frame of results."""
DIGEST_ROWS = 2048
"""Rows of one digest; a longer one goes as several, between which a coordinator does all else."""

_NO_PHASES = Phases()
_UINT32 = 0xFFFFFFFF


class _Reasons:
    """The reasons of one frame, each once; 0 is ""."""

    def __init__(self) -> None:
        self._number = {"": 0}

    def number(self, text: str) -> int:
        return self._number.setdefault(text, len(self._number))

    def texts(self) -> list[str]:
        return list(self._number)


def results_frame(
    rows: Iterable[ProbeResult], assigned: Assigned, now_ms: int
) -> agent_pb2.Results | None:
    """The rows that the stream has an index for; None where it has one for none of them."""
    columns: dict[str, Any] = {
        name: [] for name in ("target", "outcome", "age_ms", "rtt_us", "reason")
    }
    phases: list[Phases] = []
    reasons = _Reasons()
    for row in rows:
        index = assigned.index(row.identity)
        if index is None:
            continue
        columns["target"].append(index)
        columns["outcome"].append(int(row.outcome.kind))
        columns["age_ms"].append(min(_UINT32, max(0, now_ms - row.ended_ms)))
        columns["rtt_us"].append(min(_UINT32, row.outcome.rtt_us))
        columns["reason"].append(reasons.number(row.outcome.text))
        phases.append(row.outcome.phases or _NO_PHASES)
    if not columns["target"]:
        return None
    timed: dict[str, Any] = {}
    if any(phase is not _NO_PHASES for phase in phases):
        timed = {
            name: [getattr(phase, name) for phase in phases] for name in Phases.__struct_fields__
        }
    return agent_pb2.Results(
        assignment_revision=assigned.revision, reasons=reasons.texts(), **columns, **timed
    )


def digest_frame(
    rows: Iterable[tuple[int, Standing | None]], revision: int, now_ms: int
) -> agent_pb2.Digest:
    """Where the agent stands with each (index, standing); None: nothing is known."""
    columns: dict[str, Any] = {
        name: [] for name in ("target", "outcome", "streak", "age_ms", "rtt_us", "reason")
    }
    reasons = _Reasons()
    for index, standing in rows:
        outcome = standing.outcome if standing is not None else None
        columns["target"].append(index)
        if standing is None or outcome is None:
            for name in ("outcome", "streak", "age_ms", "rtt_us", "reason"):
                columns[name].append(0)
            continue
        columns["outcome"].append(int(outcome.kind))
        columns["streak"].append(standing.streak)
        columns["age_ms"].append(min(_UINT32, max(0, now_ms - standing.ended_ms)))
        columns["rtt_us"].append(min(_UINT32, standing.smoothed_us))
        columns["reason"].append(reasons.number(outcome.text))
    return agent_pb2.Digest(assignment_revision=revision, reasons=reasons.texts(), **columns)


def digest_rows(
    assigned: Assigned, identities: Iterable[Identity] | None, standing: Any
) -> list[tuple[int, Standing | None]]:
    """(index, standing) of `identities`, or of every target where it is None."""
    if identities is None:
        return [(index, standing(identity)) for identity, index in assigned.indexes()]
    return [
        (index, standing(identity))
        for identity in identities
        if (index := assigned.index(identity)) is not None
    ]
