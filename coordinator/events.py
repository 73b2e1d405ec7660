"""What goes into the engine and what comes out of it. Values only.

`engine.handle(event, now) -> effects`: no clock, socket, store or dice inside a decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from gtm.model import Resources
from gtm.state import AddressSet, Aside, Force, PoolState, Routes, VerdictRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Column = NDArray[np.int64]


class Now(Struct, frozen=True):
    """The instant of an event: `mono_ms` for durations, `wall_s` (Unix) for show and storage."""

    mono_ms: int
    wall_s: float


class TargetKey(Struct, frozen=True, order=True):
    """What is probed and judged once, however many pools name it."""

    check: str
    address: str
    port: int


NONE, SUCCESS, FAILURE, NO_OPINION = 0, 1, 2, 3
"""Outcomes in columns, numbered as in agent.proto."""


# ---- in ------------------------------------------------------------------------------------


class Configured(Struct, frozen=True, kw_only=True):
    """The configuration as of a head: `generation` and the mod_revision of `serve/head`."""

    resources: Resources
    generation: int
    head_revision: int


class Restored(Struct, frozen=True, kw_only=True):
    """What the store says at start, before any result: verdicts and published states.

    Votes in the records count for one grace; `pools` and `routes` are what resolvers serve now,
    `alarms` those that stand (id -> text and Unix time), `forces` are by target, `aside` by region.
    A later one, after a takeover, a refused write or a gap in the watch, replaces what the engine
    believes to be stored, standing verdicts included, but not what agents said meanwhile.
    """

    verdicts: dict[TargetKey, VerdictRecord]
    pools: dict[str, PoolState]
    routes: dict[str, Routes]
    met: frozenset[str] = frozenset()
    alarms: dict[str, tuple[str, float]] = field(default_factory=dict)
    forces: dict[str, Force] = field(default_factory=dict)
    aside: dict[str, Aside] = field(default_factory=dict)


class Met(Struct, frozen=True, kw_only=True):
    """The regions met by any coordinator, as the store lists them now."""

    regions: frozenset[str]


class Forced(Struct, frozen=True, kw_only=True):
    """The operators' forces by target, as the store lists them now."""

    forces: dict[str, Force]


class AgentFound(Struct, frozen=True, kw_only=True):
    """An agent opened a stream; until its digest comes it has the opinions that have not lapsed."""

    region: str
    agent: str


class AgentLost(Struct, frozen=True, kw_only=True):
    """An agent's stream ended; its opinions lapse with the grace."""

    region: str
    agent: str


class Frame(Struct, frozen=True, kw_only=True):
    """Results of one agent in order; row i of every column speaks of the same probe.

    `target` holds the engine's own numbers (`Engine.number`); rows of unknown targets are gone
    already. `rtt_us` and the phases are 0 where unknown; `reason` indexes `reasons` (0 is "").
    Rows older than twice the interval, or contained in the agent's last digest by their age, are
    counted and change no vote.
    """

    region: str
    agent: str
    target: Column
    outcome: Column
    age_ms: Column
    rtt_us: Column
    reason: Column
    reasons: tuple[str, ...] = ("",)
    phases: tuple[Column, Column, Column, Column, Column] | None = None


class Digest(Struct, frozen=True, kw_only=True):
    """Where one agent stands with each target: last outcome, streak, age, smoothed round trip."""

    region: str
    agent: str
    target: Column
    outcome: Column
    streak: Column
    age_ms: Column
    rtt_us: Column
    reason: Column
    reasons: tuple[str, ...] = ("",)


class Resolved(Struct, frozen=True, kw_only=True):
    """What names of flattened pools resolve to from now on; other names keep their sets."""

    sets: dict[str, AddressSet]


class Troubled(Struct, frozen=True, kw_only=True):
    """What is worth an alarm outside of the judgement (etcd, resolvers), by id; all of it now."""

    found: dict[str, str]


class Tick(Struct, frozen=True):
    """Time passed: graces and withheld pools are looked at."""


class GoOn(Struct, frozen=True):
    """Go on with what is owed to the store: records that it lacks, a part of them at a time."""


Incoming = (
    Configured
    | Restored
    | Met
    | Forced
    | AgentFound
    | AgentLost
    | Frame
    | Digest
    | Resolved
    | Troubled
    | Tick
    | GoOn
)


# ---- out -----------------------------------------------------------------------------------


class PublishPool(Struct, frozen=True, kw_only=True):
    """Write `serve/pools/<name>`; state None deletes it."""

    name: str
    state: PoolState | None


class PublishRoutes(Struct, frozen=True, kw_only=True):
    """Write `serve/routes/<instance>`; None deletes it."""

    instance: str
    routes: Routes | None


class PublishVerdict(Struct, frozen=True, kw_only=True):
    """Write `verdicts/<target>`; None deletes it (nobody names the target any more)."""

    target: TargetKey
    record: VerdictRecord | None


class PublishAside(Struct, frozen=True, kw_only=True):
    """Write `aside/<region>`; None deletes it: its votes count again."""

    region: str
    record: Aside | None


class EndForce(Struct, frozen=True, kw_only=True):
    """Delete `forces/<target>`: its time is up, or what it asked for once is done."""

    target: str


class Confirm(Struct, frozen=True, kw_only=True):
    """Ask the agents of all regions of a target to probe it at once; nothing is stored."""

    target: TargetKey


class RaiseAlarm(Struct, frozen=True, kw_only=True):
    """Something that an operator should know stands from now on.

    `since` (Unix; 0: from now on) is there where it stood already and its text changed.
    """

    id: str
    text: str
    since: float = 0.0


class ClearAlarm(Struct, frozen=True, kw_only=True):
    """It stands no more; what it said, and since when (Unix)."""

    id: str
    text: str = ""
    since: float = 0.0


Stored = (
    PublishPool | PublishRoutes | PublishVerdict | PublishAside | EndForce | RaiseAlarm | ClearAlarm
)
"""Effects that change what the store has."""
Effect = Stored | Confirm
