"""The resources that users write, as frozen values: from zones and lines to pools and instances.

What a check of some type or a steering policy may be told is not spelled here: it stands in that
variant's own file and travels as canonical JSON text (`options`). Names, defaults and meanings are
those of docs/configuration.md, which is generated from this module; `gtm.config` fills it from
files and RPC, `gtm.codec` writes and reads it as JSON.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from gtm.choices import AllDown, Failback, Judgement, PoolRef
from gtm.units import Duration, Least, Share, Voters

KINDS = ("zones", "lines", "regions", "checks", "pools", "instances")
"""Every kind of resource, referenced ones before those that refer to them."""

Kind = Literal["zones", "lines", "regions", "checks", "pools", "instances"]
Family = Literal["ipv4", "ipv6"]
FAMILIES: tuple[Family, ...] = ("ipv4", "ipv6")
PoolType = Literal["ipv4", "ipv6", "domain"]
Mode = Literal["smart", "online", "offline", "manual_up", "manual_down"]
OUT: tuple[Mode, ...] = ("offline", "manual_down")
"""Modes of members that nothing ever answers or counts."""


def _form(name: str) -> Meta:
    return Meta(extra={"form": name})


def _doc(text: str) -> Meta:
    return Meta(description=text)


Label = Annotated[str, _form("label")]
"""DNS-label characters, at most 63."""
DomainName = Annotated[str, _form("domain")]
"""An absolute domain name in lower case without the last dot; "." is the root."""
MemberText = Annotated[str, _form("member")]
"""The canonical text of an IPv4 or IPv6 address, or of a domain name."""
NetworkText = Annotated[str, _form("network")]
"""The canonical text of a network."""
LineText = Annotated[str, _form("line")]
"""The canonical text of a line (`gtm.lines`)."""
CanaryText = Annotated[str, _form("canary")]
"""The canonical text of an address, pinged, or of an address and a port, connected to."""
Port = Annotated[int, Meta(ge=1, le=65535)]
Answers = Annotated[int, Meta(ge=1, le=64)]
Capacity = Annotated[int, Meta(ge=1)]
HALF = Share.parse("50%")
ProbeRate = Annotated[float, Meta(ge=0.001, le=1000)]
"""Probes a second."""
Location = tuple[float, float]
"""Latitude and longitude in degrees."""


class Soa(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The start of authority of a zone (RFC 1035, section 3.3.13)."""

    mname: Annotated[DomainName, _doc("primary server; default: the first nameserver")] = ""
    rname: Annotated[DomainName, _doc("mailbox as a name; default: hostmaster.ZONE")] = ""
    refresh: Annotated[Duration, _doc("refresh timer")] = Duration(3_600_000)
    retry: Annotated[Duration, _doc("retry timer")] = Duration(600_000)
    expire: Annotated[Duration, _doc("expire timer")] = Duration(7 * 86_400_000)
    minimum: Annotated[Duration, _doc("TTL of negative answers (RFC 2308)")] = Duration(30_000)


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Static records of one name and type."""

    name: Annotated[
        str,
        _doc("relative to the zone, @ is the apex, * a wildcard (RFC 4592), \\DDD any octet"),
    ]
    type: Annotated[str, _doc("any type, by name or as TYPE123")]
    ttl: Annotated[Duration | None, _doc("default: the zone's ttl")] = None
    data: Annotated[tuple[str, ...], _doc("one text in zone-file form for each record")]


class Zone(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A domain that we are authoritative for; access names live under it."""

    nameservers: Annotated[tuple[DomainName, ...], _doc("names of the NS records at the apex")]
    soa: Annotated[Soa, _doc("start of authority")] = field(default_factory=Soa)
    ttl: Annotated[Duration, _doc("TTL of static records")] = Duration(300_000)
    records: Annotated[tuple[Record, ...], _doc("static records")] = ()


class ClientLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A set of clients, named once and used by rules, members of pools and regions.

    A client is on it that is in one of `networks` or on one of `any_of` (where either is given), on
    each of `all_of`, and on none of `not`.
    """

    networks: Annotated[tuple[NetworkText, ...], _doc("clients in these networks")] = ()
    any_of: Annotated[tuple[LineText, ...], _doc("clients on one of these lines")] = ()
    all_of: Annotated[tuple[LineText, ...], _doc("only clients on each of these lines")] = ()
    not_: Annotated[tuple[LineText, ...], _doc("no client on one of these lines")] = field(
        default=(), name="not"
    )

    def refers(self) -> tuple[LineText, ...]:
        """Every line that it is made of, in the order written."""
        return (*self.any_of, *self.all_of, *self.not_)


class Region(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place from which agents probe."""

    location: Annotated[Location | None, _doc("[latitude, longitude]")] = None
    lines: Annotated[tuple[LineText, ...], _doc("the clients it stands for")] = ()
    canaries: Annotated[
        tuple[CanaryText, ...],
        Meta(max_length=16),
        _doc("its agents have no opinion while none of these answers"),
    ] = ()


class Check(Struct, frozen=True, kw_only=True):
    """A health-check template; `options` is the JSON text of the settings of its type.

    In JSON the settings stand beside the common keys; `gtm.codec` folds and unfolds them. `port`
    is always written where the type has one, 0 is ping's.
    """

    type: Annotated[str, _doc("ping, tcp, tls, http, https, dns or grpc")]
    interval: Annotated[Duration, _doc("from probe to probe, 1s to 1h")] = Duration(15_000)
    timeout: Annotated[Duration, _doc("for the whole probe (ping: for each packet)")] = Duration(
        2_000
    )
    fall: Annotated[int, Meta(ge=1, le=100), _doc("failures in a row that turn a vote down")] = 2
    rise: Annotated[int, Meta(ge=1, le=100), _doc("successes in a row that turn it up")] = 2
    regions: Annotated[tuple[Label, ...], _doc("who votes: all, or names of regions")] = ()
    failing_share: Annotated[
        Share | UnsetType,
        _doc(
            "down from this share of failing regions on; default: 50%, or what healthy_share says"
        ),
    ] = UNSET
    healthy_share: Annotated[
        Share | UnsetType,
        _doc("the other form: up when more than this share of the regions say so"),
    ] = UNSET
    rise_share: Annotated[
        Share | UnsetType,
        _doc("up again only from this share of healthy regions on; below, the verdict stands"),
    ] = UNSET
    min_voters: Annotated[Voters, _doc("majority, a count or a share of the regions")] = Voters()
    damping: Annotated[
        bool, _doc("hold an address down whose verdict keeps changing, until it is quiet")
    ] = False
    confirm: Annotated[
        bool, _doc("a first failure makes all regions probe at once, until it is sure")
    ] = False
    max_probe_rate: Annotated[
        ProbeRate | None,
        _doc("probes a second on one target, from all regions together; default: no bound"),
    ] = None
    ip_version: Annotated[
        Literal["auto", 4, 6], _doc("which addresses of a domain member are probed")
    ] = "auto"
    answering: Annotated[
        Literal["any", "all"], _doc("how many of a domain member's probed addresses must succeed")
    ] = "any"
    port: int = 0
    options: str = "{}"

    @property
    def fails_from(self) -> Share:
        """The share of failing regions from which on a target is down, in whichever form given."""
        if self.healthy_share is not UNSET:
            return Share(1 - self.healthy_share.of_one)
        return HALF if self.failing_share is UNSET else self.failing_share


class Address(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One member of a pool."""

    value: Annotated[MemberText, _doc("an IPv4 or IPv6 address; in a domain pool a domain name")]
    port: Annotated[Port | UnsetType, _doc("to probe, instead of the check's")] = UNSET
    weight: Annotated[int, Meta(ge=0, le=255), _doc("0: only when no other is up")] = 1
    mode: Annotated[
        Mode,
        _doc(
            "smart: health decides; online: always in, offline: always out, neither is probed; "
            "manual_up, manual_down: probed, but in or out whatever health says"
        ),
    ] = "smart"
    checks: Annotated[
        tuple[Label, ...] | UnsetType, _doc("instead of the pool's; none: unmonitored")
    ] = UNSET
    lines: Annotated[tuple[LineText, ...], _doc("the clients it is near to, for nearest")] = ()
    location: Annotated[Location | None, _doc("[latitude, longitude], for nearest")] = None
    capacity: Annotated[
        Capacity | UnsetType, _doc("load that it can carry, for simulate, in any unit")
    ] = UNSET
    note: Annotated[str, _doc("for people")] = ""

    def checked_by(self, pool: Pool) -> tuple[Label, ...]:
        """The checks that judge it in `pool`."""
        return pool.checks if self.checks is UNSET else self.checks


class Steering(Struct, frozen=True, kw_only=True):
    """Which policy picks among addresses; `options` is the JSON text of its settings.

    In JSON: the bare word, or `{type: WORD, ...settings}`.
    """

    type: str = "round_robin"
    options: str = "{}"


class Pool(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A set of addresses of one family, or of domain names, that stand for each other."""

    type: Annotated[PoolType, _doc("what its members are")]
    checks: Annotated[tuple[Label, ...], _doc("who judges; none: always up, unmonitored")] = ()
    check_judgement: Annotated[
        Judgement, _doc("how many of its checks must be up, or which, for an address to be up")
    ] = Judgement()
    addresses: Annotated[tuple[Address, ...], _doc("the members, in order")] = ()
    flatten: Annotated[
        bool, _doc("domain pools: answer the addresses of the names, not a CNAME")
    ] = False
    steering: Annotated[Steering, _doc("who of the available members is answered")] = Steering()
    min_available: Annotated[Least, _doc("count or share below which it is unavailable")] = Least()
    floor: Annotated[
        Share | UnsetType,
        _doc("share of its members that health alone never takes out of answers; default: none"),
    ] = UNSET
    max_answers: Annotated[int, Meta(ge=1, le=64), _doc("addresses in one answer")] = 8


class Tier(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Pools that serve together; the next tier serves when this one is not available."""

    pools: Annotated[tuple[PoolRef, ...], _doc("names of pools, or mappings")]
    steering: Annotated[Steering, _doc("who of the available pools is answered")] = Steering()
    min_available: Annotated[
        Least | None, _doc("addresses over all its pools below which it is unavailable")
    ] = None
    max_answers: Annotated[
        Answers | UnsetType,
        _doc("addresses in one answer; default: 8 of pools that are joined, else as its pool says"),
    ] = UNSET

    def names(self) -> tuple[Label, ...]:
        """The names of its pools, in order."""
        return tuple([ref.pool for ref in self.pools])


class Failover(Struct, frozen=True, kw_only=True):
    """How a rule chooses its tier: the first available (auto), or always tier `pinned` (from 1)."""

    pinned: int = 0


class Rule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Clients of these lines get these tiers."""

    name: Annotated[Label, _doc("unique in the instance")]
    lines: Annotated[tuple[LineText, ...], _doc("which clients")]
    tiers: Annotated[tuple[Tier, ...], _doc("ordered pool sets, the first goes first")]
    failover: Annotated[Failover, _doc("auto, or {pinned: TIER} counted from 1")] = Failover()
    failback: Annotated[Failback, _doc("when an earlier tier that is back takes over")] = Failback()
    on_exhausted: Annotated[
        Literal["stop", "widen"], _doc("stop: when_all_down; widen: the rule of the wider line")
    ] = "stop"


class Instance(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A service under our steering: its names, and which clients get which pools."""

    id: Annotated[str, _doc("gtm and 8 digits; allocated when left out")] = ""
    zone: Annotated[DomainName, _doc("required with more than one zone")] = ""
    access_names: Annotated[tuple[DomainName, ...], _doc("default: ID.ZONE")] = ()
    domain: Annotated[DomainName, _doc("the users' own service name, for people")] = ""
    aliases: Annotated[tuple[DomainName, ...], _doc("further names of the users")] = ()
    ttl: Annotated[Duration, _doc("TTL of the addresses")] = Duration(60_000)
    ttl_wavering: Annotated[
        Duration | UnsetType,
        _doc("a shorter TTL while regions disagree about the pools that answer; default: ttl"),
    ] = UNSET
    unmatched: Annotated[
        Literal["", "nodata"], _doc("clients that no rule matches; needed without a default rule")
    ] = ""
    enabled: Annotated[bool, _doc("false: NXDOMAIN")] = True
    when_all_down: Annotated[AllDown, _doc("what is answered when no tier is available")] = (
        AllDown()
    )
    rules: Annotated[tuple[Rule, ...], _doc("lines to tiers")] = ()

    def names(self) -> tuple[str, ...]:
        """The access names, the system's own where none is given."""
        return self.access_names or (f"{self.id}.{self.zone}",)

    def pools(self) -> tuple[Label, ...]:
        """Every pool that it may answer from, each once, in order."""
        tiers = (tier for rule in self.rules for tier in rule.tiers)
        spare = (self.when_all_down.pool,) if self.when_all_down.pool else ()
        return tuple(dict.fromkeys((*(name for tier in tiers for name in tier.names()), *spare)))


Resource = Zone | ClientLine | Region | Check | Pool | Instance
TYPES: dict[str, type[Resource]] = {
    "zones": Zone,
    "lines": ClientLine,
    "regions": Region,
    "checks": Check,
    "pools": Pool,
    "instances": Instance,
}


class Resources(Struct, frozen=True, kw_only=True):
    """A whole set of resources, by kind and name; treat the mappings as read-only."""

    zones: dict[str, Zone] = field(default_factory=dict)
    lines: dict[str, ClientLine] = field(default_factory=dict)
    regions: dict[str, Region] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)

    def kind(self, kind: str) -> dict[str, Resource]:
        """The resources of one kind; empty for kinds that have none yet."""
        return getattr(self, kind, {})


def target_port(check: Check, address: Address) -> int:
    """The port that is probed: the address's own, else the check's; 0 for types without one."""
    if check.port == 0 or address.port is UNSET:
        return check.port
    return address.port
