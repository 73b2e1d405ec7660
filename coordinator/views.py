"""What the engine shows to those around it: assignments, verdicts with evidence, regions, alarms.

Values only, made on demand; nothing here decides anything.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from gtm.state import Health, Vote

from .events import TargetKey


class Assigned(Struct, frozen=True, kw_only=True):
    """A target as agents are to probe it; `regions` (E, sorted) are those whose agents should.

    `gap_ms` is the least time between two probes of one of them (0: no bound). `number` is the
    engine's: a changed probe gets a new one, and one that went out of use returns for another
    target only after `targets.REUSE_AFTER_MS`.
    """

    number: int
    key: TargetKey
    type: str
    options: str
    interval_ms: int
    timeout_ms: int
    fall: int
    rise: int
    gap_ms: int
    regions: tuple[str, ...]
    ip_version: Literal["auto", 4, 6] = "auto"
    answering: Literal["any", "all"] = "any"


class RegionVoteView(Struct, frozen=True, kw_only=True):
    """One region's vote on a target, with the evidence of the agent heard last.

    `age_s` is of the last result, -1 where there is none; `phases` are microseconds (DNS, connect,
    TLS, first byte, body); `agents` counts those with an opinion.
    """

    region: str
    vote: Vote
    streak: int = 0
    reason: str = ""
    rtt_us: int = 0
    age_s: float = -1.0
    phases: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    agents: int = 0


class VerdictView(Struct, frozen=True, kw_only=True):
    """A verdict with each region's vote and evidence as of now.

    `why` says what became of the address in each of `pools`: a `gtm.state.Why`, or `withheld`
    where the pool was never published. `since` is Unix time, 0 with verdict `unknown`. `held`: the
    guard keeps the address in some pool's answers. `penalty` is what damping counts now, and
    `damped_since` (Unix) says since when it takes the target out, 0: it does not. Nor does the
    name of a flattened pool's member resolve since `unresolved_since` (Unix; 0: it does).
    """

    target: TargetKey
    pools: tuple[str, ...]
    why: tuple[str, ...]
    verdict: Health
    pending: bool
    wavering: bool
    since: float
    rule: str
    regions: tuple[RegionVoteView, ...]
    forced: bool = False
    held: bool = False
    penalty: float = 0.0
    damped_since: float = 0.0
    unresolved_since: float = 0.0


class RegionView(Struct, frozen=True, kw_only=True):
    """A region: declared in the configuration, met, or both; `votes`: counts in `regions: all`.

    `silenced` says why its votes do not count for now (muted, set aside), `aside_since` (Unix)
    since when it is set aside, 0: it is not.
    """

    name: str
    declared: bool
    met: bool
    agents: int
    votes: bool
    aside_since: float = 0.0
    silenced: str = ""


class AgentView(Struct, frozen=True, kw_only=True):
    """An agent that streams or whose opinions have not lapsed yet.

    `results` were taken into account since it connected, `old` only counted (buffered for longer
    than twice the interval, contained in a digest already, or of a target that is gone).
    """

    region: str
    agent: str
    connected: bool
    results: int
    old: int
    heard_s: float


class AlarmView(Struct, frozen=True, kw_only=True):
    """An alarm that stands; `since` is Unix time."""

    id: str
    text: str
    since: float
