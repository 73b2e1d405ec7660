"""What the coordinator publishes and remembers, as frozen values: the JSON under the store's keys.

A *state* is published for resolvers (`PoolState`, `Routes`), a verdict's record is what a restarted
coordinator starts from. Instants are Unix seconds, for show and storage only (law 2).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from gtm.model import Family, Location, PoolType, Record, Soa, Steering
from gtm.units import Duration, Least

Health = Literal["up", "down", "unknown"]
Vote = Literal["up", "down", "none"]
Why = Literal[
    "up", "down", "unknown", "unknown_as_up", "unmonitored", "online", "offline", "manual_up",
    "manual_down", "forced_up", "forced_down", "drained", "unresolved", "held", "floored", "damped",
]  # fmt: skip
"""Why a member is in or out: the verdict (`up`, `down`), no verdict yet (`unknown`, out;
`unknown_as_up`, in because nobody of its family is up), no check (`unmonitored`), its mode, an
operator's force (`forced_up`, `forced_down`, `drained`), in a flattened domain pool that its name
never resolved (`unresolved`, out), or a brake: judged down, but too many would leave at once
(`held`) or the pool would fall below its floor (`floored`), so it is answered and not counted; up
just now, but its verdict kept changing (`damped`, out)."""

BRAKED: frozenset[Why] = frozenset({"held", "floored"})
"""Reasons for which a member is answered although it is judged down: such a one never counts."""

EXCLUDED: frozenset[Why] = frozenset({"offline", "manual_down", "forced_down"})
"""Reasons that take a member out of every total: shares don't count it."""
NEVER: frozenset[Why] = EXCLUDED | {"drained"}
"""Reasons for which nothing ever answers a member, not even when all is down."""


FAILING_TTL_S = 5
"""The TTL of what a name resolved to that does not resolve any more."""


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


class AddressSet(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the name of a flattened domain member resolved to: both families, sorted.

    `ttl` is in seconds, `since` when the set was first seen, `failing` since when the name does not
    resolve any more and the set only stands (Unix; 0: it resolves).
    """

    addresses: tuple[str, ...]
    ttl: int
    since: float
    failing: float = 0.0

    @property
    def left_s(self) -> int:
        """The TTL of answers from it: while its name does not resolve nothing of its own is left.

        Clients then ask again soon (docs/decisions/0011).
        """
        return min(self.ttl, FAILING_TTL_S) if self.failing else self.ttl


class Member(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One member of a published pool.

    `answered`: it may stand in answers; `counted`: it counts for min_available. `judged` is what
    `why` would be without the operator's force that is on it ("": there is none). `penalty` is that
    of a damped one when it was damped last; `held_since` (Unix) is when the guard began to hold it.
    """

    value: str
    weight: int = 1
    lines: tuple[str, ...] = ()
    location: Location | None = None
    answered: bool = False
    counted: bool = False
    why: Why = "unknown"
    judged: Why | Literal[""] = ""
    since: float = 0.0
    penalty: int = 0
    held_since: float = 0.0
    set: AddressSet | None = None


class LatencyGroup(Struct, frozen=True, kw_only=True):
    """Members that are equally far from a region: within the tolerance of `rtt_us`, the least."""

    rtt_us: int
    members: tuple[str, ...]


class LastGood(Struct, frozen=True, kw_only=True):
    """Who was answered when a pool was last available, and until when that was (Unix)."""

    members: tuple[str, ...]
    until: float


class PoolState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`serve/pools/<name>`: self-contained, so that a resolver never reads the pool's config.

    `generation` is that of the head whose configuration was judged. `member_in_force` is who a
    sequence that is not pre-emptive stays with. `last_good` is there while the pool is unavailable
    and once was not. `latency` maps a region to its members in groups, the nearest first. The
    families of which `wavering` says so are those about whose members a region disagrees, or did
    lately; it is written only where an instance asks (`ttl_wavering`).
    """

    generation: int = 0
    type: PoolType
    flatten: bool = False
    steering: Steering = field(default_factory=Steering)
    min_available: Least = field(default_factory=Least)
    max_answers: int = 8
    members: tuple[Member, ...] = ()
    member_in_force: str = ""
    last_good: LastGood | None = None
    latency: dict[str, tuple[LatencyGroup, ...]] = field(default_factory=dict)
    wavering: dict[Family, bool] = field(default_factory=dict)


class Route(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is in force for one rule and family: the tier (from 1), and its pool where that stays.

    `pinned_by` is who pinned the tier ("": nobody), `pool_in_force` what a sequence of pools that
    is not pre-emptive stays with, `return_` when an earlier tier that is back takes over (Unix; 0:
    nothing waits); a resolver never acts on it.
    """

    tier: int
    pool_in_force: str = ""
    since: float = 0.0
    return_: float = field(default=0.0, name="return")
    pinned_by: str = ""


class Routes(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`serve/routes/<instance>`: rule -> family -> route; only rules with memory or a pin."""

    generation: int = 0
    rules: dict[str, dict[Family, Route]] = field(default_factory=dict)


ForceAction = Literal["up", "down", "drain", "pin", "mute", "release"]


class Force(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`forces/<TARGET>`: an operator's override: POOL/ADDRESS, POOL, INSTANCE/RULE, region:NAME.

    `tier` (from 1) belongs to `pin`. `until` is when it ends (Unix; 0: never by itself). `release`
    asks the leader once to end a manual failback or a hold, and is deleted when that is done.
    """

    target: str
    action: ForceAction
    tier: int = 0
    who: str = ""
    why: str = ""
    since: float = 0.0
    until: float = 0.0


class VoteRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A region's vote as it was when the verdict last changed; `since` (Unix) is when it turned."""

    vote: Vote
    streak: int = 0
    reason: str = ""
    rtt_us: int = 0
    since: float = 0.0


class VerdictRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`verdicts/<check>/<address>/<port>`: a verdict and the evidence of its last change.

    `probe` is the digest of what was probed (type, port, options): another one, other votes.
    `first_failed` is when the first failure of the streak behind it ended. `penalty` is what its
    changes added up to at `since`; `damped_since` (Unix) is when damping took the target out, 0
    where it did not, or let go before.
    """

    verdict: Health
    since: float
    rule: str = ""
    probe: str = ""
    first_failed: float = 0.0
    penalty: float = 0.0
    damped_since: float = 0.0
    votes: dict[str, VoteRecord] = field(default_factory=dict)


class MetRegion(Struct, frozen=True, kw_only=True):
    """`regions/<name>`: when an agent of the region first said hello."""

    since: float


class Aside(Struct, frozen=True, kw_only=True):
    """`aside/<region>`: a region whose votes do not count for now, why, and since when (Unix)."""

    text: str
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


class AuditChange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One resource or force that an operator created, updated or deleted.

    `before` and `after` are JSON; where an entry has no room for them they are left out, and only
    their digests (BLAKE2b of 128 bits, hexadecimal) tell what they were.
    """

    action: Literal["create", "update", "delete"]
    kind: str
    name: str
    before: str = ""
    after: str = ""
    before_digest: str = ""
    after_digest: str = ""


class AuditEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`audit/<seq>`: who changed what, when (Unix) and why; `more` changes found no room.

    `previous` is the hash of the entry before, `hash` that of this one (`gtm.audit`).
    """

    seq: int = 0
    time: float
    who: str
    what: str
    why: str = ""
    changes: tuple[AuditChange, ...] = ()
    more: int = 0
    previous: str = ""
    hash: str = ""


class AuditHead(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`audit/head`: the last entry and its hash; the first one kept, and the hash before that."""

    seq: int = 0
    hash: str = ""
    first: int = 0
    before_first: str = ""


HistoryKind = Literal["verdict", "address", "pool", "route", "region"]


class HistoryEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`history/<time>-<seq>`: what changed, and the clock of that change, all in Unix seconds.

    `target` is CHECK/ADDRESS/PORT for a verdict, POOL/ADDRESS for an address in a pool, POOL,
    INSTANCE/RULE or region:NAME. `detected` is when the first failed probe behind it ended (0: no
    failure is behind it), `votes` when the vote of each region that says so turned, `time` when it
    was decided, `committed` when the store had it, at `revision`, and `served` when each resolver
    told that it serves that. `committed` and `served` are read off the leader's clock; the others
    are ages on its monotonic clock, reckoned from it.
    """

    time: float
    kind: HistoryKind
    target: str
    before: str
    after: str
    why: str = ""
    detected: float = 0.0
    votes: dict[str, float] = field(default_factory=dict)
    revision: int = 0
    committed: float = 0.0
    served: dict[str, float] = field(default_factory=dict)
    leader: str = ""
