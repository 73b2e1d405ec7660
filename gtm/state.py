"""What the coordinator publishes and remembers, as frozen values: the JSON under the store's keys.

A *state* is published for resolvers (`PoolState`, `Routes`), a verdict's record is what a restarted
coordinator starts from. Instants are Unix seconds, for show and storage only (law 2).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from gtm.model import Family, Record, Soa, Steering
from gtm.units import Duration, Least

Health = Literal["up", "down", "unknown"]
Vote = Literal["up", "down", "none"]
Why = Literal["up", "down", "unknown", "unknown_as_up", "unmonitored", "online", "offline"]
"""Why a member is in or out: the verdict (`up`, `down`), no verdict yet (`unknown`, out;
`unknown_as_up`, in because nobody of its family is up), no check (`unmonitored`), or its mode."""

EXCLUDED: frozenset[Why] = frozenset({"offline"})
"""Reasons that take a member out of every total: shares don't count it, nothing ever answers it."""


class Head(Struct, frozen=True, kw_only=True):
    """`serve/head`: written by every apply and delete, which compare its mod_revision."""

    generation: int = 0
    request_id: str = ""


class StoredZone(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`serve/config/zones/<name>`: a zone without its records, with the serial of its data.

    `bits`: records lie in 2**bits buckets named by that many leading bits of the owner's hash.
    """

    nameservers: tuple[str, ...] = ()
    soa: Soa = field(default_factory=Soa)
    ttl: Duration = Duration(300_000)
    serial: int = 1
    bits: int = 0


class Bucket(Struct, frozen=True, kw_only=True):
    """`serve/records/<zone>/<bucket>`: all records of the owner names that fall into it."""

    records: tuple[Record, ...] = ()


class Member(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One address of a published pool."""

    value: str
    weight: int = 1
    answered: bool = False
    counted: bool = False
    why: Why = "unknown"
    since: float = 0.0


class PoolState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`serve/pools/<name>`: self-contained, so that a resolver never reads the pool's config.

    `generation` is that of the head whose configuration was judged.
    """

    generation: int = 0
    type: Family
    steering: Steering = field(default_factory=Steering)
    min_available: Least = field(default_factory=Least)
    max_answers: int = 8
    members: tuple[Member, ...] = ()


class Route(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The tier (from 1) in force for one rule and family, and who pinned it ("" where nobody)."""

    tier: int
    since: float = 0.0
    pinned_by: str = ""


class Routes(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`serve/routes/<instance>`: rule -> family -> route; only rules with memory or a pin."""

    generation: int = 0
    rules: dict[str, dict[Family, Route]] = field(default_factory=dict)


class VoteRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A region's vote as it was when the verdict last changed."""

    vote: Vote
    streak: int = 0
    reason: str = ""
    rtt_us: int = 0


class VerdictRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`verdicts/<check>/<address>/<port>`: a verdict and the evidence of its last change.

    `probe` is the digest of what was probed (type, port, options): another one, other votes.
    `first_failed` is when the first failure of the streak behind it ended.
    """

    verdict: Health
    since: float
    rule: str = ""
    probe: str = ""
    first_failed: float = 0.0
    votes: dict[str, VoteRecord] = field(default_factory=dict)


class MetRegion(Struct, frozen=True, kw_only=True):
    """`regions/<name>`: when an agent of the region first said hello."""

    since: float


class Identity(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`ids/<id>`: the instance that holds it; `deleted` is when that went away (0: it is there)."""

    instance: str
    deleted: float = 0.0


class CoordinatorMember(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`members/coordinators/<id>`: where a coordinator is reached."""

    id: str
    address: str
    version: str = ""
    since: float = 0.0


class AgentMember(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`members/agents/<coordinator>/<id>`: an agent that streams to that coordinator."""

    id: str
    region: str
    version: str = ""
    since: float = 0.0


class Leader(Struct, frozen=True, kw_only=True):
    """`leaders/<shard>`: who leads."""

    id: str
    since: float = 0.0


class AlarmRecord(Struct, frozen=True, kw_only=True):
    """`alarms/<id>`: something that an operator should know, and since when it stands."""

    text: str
    since: float
