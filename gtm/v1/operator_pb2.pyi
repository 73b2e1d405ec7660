from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Health(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEALTH_UNKNOWN: _ClassVar[Health]
    HEALTH_UP: _ClassVar[Health]
    HEALTH_DOWN: _ClassVar[Health]
HEALTH_UNKNOWN: Health
HEALTH_UP: Health
HEALTH_DOWN: Health

class Problem(_message.Message):
    __slots__ = ("severity", "file", "line", "path", "text")
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    severity: str
    file: str
    line: int
    path: str
    text: str
    def __init__(self, severity: _Optional[str] = ..., file: _Optional[str] = ..., line: _Optional[int] = ..., path: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("resources", "prune", "atomic", "allow_mass_change", "request_id", "generation", "who", "why")
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    PRUNE_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MASS_CHANGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    resources: str
    prune: bool
    atomic: bool
    allow_mass_change: bool
    request_id: str
    generation: int
    who: str
    why: str
    def __init__(self, resources: _Optional[str] = ..., prune: bool = ..., atomic: bool = ..., allow_mass_change: bool = ..., request_id: _Optional[str] = ..., generation: _Optional[int] = ..., who: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("action", "kind", "name", "before", "after")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    action: str
    kind: str
    name: str
    before: str
    after: str
    def __init__(self, action: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("problems", "changes", "refusal", "transactions", "generation", "effects", "not_compared", "addresses_leaving")
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    NOT_COMPARED_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_LEAVING_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    refusal: str
    transactions: int
    generation: int
    effects: _containers.RepeatedCompositeFieldContainer[Effect]
    not_compared: int
    addresses_leaving: int
    def __init__(self, problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., refusal: _Optional[str] = ..., transactions: _Optional[int] = ..., generation: _Optional[int] = ..., effects: _Optional[_Iterable[_Union[Effect, _Mapping]]] = ..., not_compared: _Optional[int] = ..., addresses_leaving: _Optional[int] = ...) -> None: ...

class Effect(_message.Message):
    __slots__ = ("instance", "line", "type", "before", "after")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    instance: str
    line: str
    type: str
    before: str
    after: str
    def __init__(self, instance: _Optional[str] = ..., line: _Optional[str] = ..., type: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ("applied", "problems", "changes", "refusal", "generation", "revision")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    applied: bool
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    refusal: str
    generation: int
    revision: int
    def __init__(self, applied: bool = ..., problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., refusal: _Optional[str] = ..., generation: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("kind", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("resources", "revision")
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    resources: str
    revision: int
    def __init__(self, resources: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("kind", "name", "allow_mass_change", "request_id", "who", "why")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MASS_CHANGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    allow_mass_change: bool
    request_id: str
    who: str
    why: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., allow_mass_change: bool = ..., request_id: _Optional[str] = ..., who: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class ForceRequest(_message.Message):
    __slots__ = ("target", "action", "tier", "who", "why", "for_s")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    FOR_S_FIELD_NUMBER: _ClassVar[int]
    target: str
    action: str
    tier: int
    who: str
    why: str
    for_s: float
    def __init__(self, target: _Optional[str] = ..., action: _Optional[str] = ..., tier: _Optional[int] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., for_s: _Optional[float] = ...) -> None: ...

class ForceResponse(_message.Message):
    __slots__ = ("force",)
    FORCE_FIELD_NUMBER: _ClassVar[int]
    force: StandingForce
    def __init__(self, force: _Optional[_Union[StandingForce, _Mapping]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("target", "who", "why")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    target: str
    who: str
    why: str
    def __init__(self, target: _Optional[str] = ..., who: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("force", "failback", "hold")
    FORCE_FIELD_NUMBER: _ClassVar[int]
    FAILBACK_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    force: StandingForce
    failback: bool
    hold: bool
    def __init__(self, force: _Optional[_Union[StandingForce, _Mapping]] = ..., failback: bool = ..., hold: bool = ...) -> None: ...

class StandingForce(_message.Message):
    __slots__ = ("target", "action", "tier", "who", "why", "since", "until")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    target: str
    action: str
    tier: int
    who: str
    why: str
    since: float
    until: float
    def __init__(self, target: _Optional[str] = ..., action: _Optional[str] = ..., tier: _Optional[int] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., since: _Optional[float] = ..., until: _Optional[float] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("target", "since", "cursor")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    target: str
    since: float
    cursor: int
    def __init__(self, target: _Optional[str] = ..., since: _Optional[float] = ..., cursor: _Optional[int] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("entries", "next")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedScalarFieldContainer[str]
    next: int
    def __init__(self, entries: _Optional[_Iterable[str]] = ..., next: _Optional[int] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ("seq",)
    SEQ_FIELD_NUMBER: _ClassVar[int]
    seq: int
    def __init__(self, seq: _Optional[int] = ...) -> None: ...

class AuditResponse(_message.Message):
    __slots__ = ("head", "entries", "next", "revisions")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    head: str
    entries: _containers.RepeatedScalarFieldContainer[str]
    next: int
    revisions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, head: _Optional[str] = ..., entries: _Optional[_Iterable[str]] = ..., next: _Optional[int] = ..., revisions: _Optional[_Iterable[int]] = ...) -> None: ...

class StoredRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StoredPart(_message.Message):
    __slots__ = ("revision", "objects")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    objects: _containers.RepeatedCompositeFieldContainer[StoredObject]
    def __init__(self, revision: _Optional[int] = ..., objects: _Optional[_Iterable[_Union[StoredObject, _Mapping]]] = ...) -> None: ...

class StoredObject(_message.Message):
    __slots__ = ("kind", "name", "digest", "revision")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    digest: str
    revision: int
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., digest: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("coordinator_id", "leader_id", "version", "store", "generation", "serve_revision", "pools", "pools_published", "targets", "coordinators", "agents", "replicas", "regions", "alarms", "forces", "leader_as_of")
    COORDINATOR_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SERVE_REVISION_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    POOLS_PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    COORDINATORS_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    FORCES_FIELD_NUMBER: _ClassVar[int]
    LEADER_AS_OF_FIELD_NUMBER: _ClassVar[int]
    coordinator_id: str
    leader_id: str
    version: str
    store: StoreStatus
    generation: int
    serve_revision: int
    pools: int
    pools_published: int
    targets: int
    coordinators: _containers.RepeatedCompositeFieldContainer[CoordinatorStatus]
    agents: _containers.RepeatedCompositeFieldContainer[AgentStatus]
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaStatus]
    regions: _containers.RepeatedCompositeFieldContainer[RegionStatus]
    alarms: _containers.RepeatedCompositeFieldContainer[Alarm]
    forces: _containers.RepeatedCompositeFieldContainer[StandingForce]
    leader_as_of: float
    def __init__(self, coordinator_id: _Optional[str] = ..., leader_id: _Optional[str] = ..., version: _Optional[str] = ..., store: _Optional[_Union[StoreStatus, _Mapping]] = ..., generation: _Optional[int] = ..., serve_revision: _Optional[int] = ..., pools: _Optional[int] = ..., pools_published: _Optional[int] = ..., targets: _Optional[int] = ..., coordinators: _Optional[_Iterable[_Union[CoordinatorStatus, _Mapping]]] = ..., agents: _Optional[_Iterable[_Union[AgentStatus, _Mapping]]] = ..., replicas: _Optional[_Iterable[_Union[ReplicaStatus, _Mapping]]] = ..., regions: _Optional[_Iterable[_Union[RegionStatus, _Mapping]]] = ..., alarms: _Optional[_Iterable[_Union[Alarm, _Mapping]]] = ..., forces: _Optional[_Iterable[_Union[StandingForce, _Mapping]]] = ..., leader_as_of: _Optional[float] = ...) -> None: ...

class StoreStatus(_message.Message):
    __slots__ = ("endpoints", "version", "revision", "size_bytes", "alarms", "error")
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    endpoints: _containers.RepeatedScalarFieldContainer[str]
    version: str
    revision: int
    size_bytes: int
    alarms: _containers.RepeatedScalarFieldContainer[str]
    error: str
    def __init__(self, endpoints: _Optional[_Iterable[str]] = ..., version: _Optional[str] = ..., revision: _Optional[int] = ..., size_bytes: _Optional[int] = ..., alarms: _Optional[_Iterable[str]] = ..., error: _Optional[str] = ...) -> None: ...

class CoordinatorStatus(_message.Message):
    __slots__ = ("id", "address", "version", "leader")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    id: str
    address: str
    version: str
    leader: bool
    def __init__(self, id: _Optional[str] = ..., address: _Optional[str] = ..., version: _Optional[str] = ..., leader: bool = ...) -> None: ...

class AgentStatus(_message.Message):
    __slots__ = ("id", "region", "version", "connected", "targets", "results", "heard_s", "refused", "without_opinion")
    ID_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    HEARD_S_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_OPINION_FIELD_NUMBER: _ClassVar[int]
    id: str
    region: str
    version: str
    connected: bool
    targets: int
    results: int
    heard_s: float
    refused: int
    without_opinion: str
    def __init__(self, id: _Optional[str] = ..., region: _Optional[str] = ..., version: _Optional[str] = ..., connected: bool = ..., targets: _Optional[int] = ..., results: _Optional[int] = ..., heard_s: _Optional[float] = ..., refused: _Optional[int] = ..., without_opinion: _Optional[str] = ...) -> None: ...

class ReplicaStatus(_message.Message):
    __slots__ = ("id", "version", "listen", "served_revision", "lag", "stale", "snapshot_age_s", "geo_hash", "heard_s", "queries", "refused_states")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LISTEN_FIELD_NUMBER: _ClassVar[int]
    SERVED_REVISION_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_AGE_S_FIELD_NUMBER: _ClassVar[int]
    GEO_HASH_FIELD_NUMBER: _ClassVar[int]
    HEARD_S_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_STATES_FIELD_NUMBER: _ClassVar[int]
    id: str
    version: str
    listen: _containers.RepeatedScalarFieldContainer[str]
    served_revision: int
    lag: int
    stale: bool
    snapshot_age_s: float
    geo_hash: str
    heard_s: float
    queries: int
    refused_states: int
    def __init__(self, id: _Optional[str] = ..., version: _Optional[str] = ..., listen: _Optional[_Iterable[str]] = ..., served_revision: _Optional[int] = ..., lag: _Optional[int] = ..., stale: bool = ..., snapshot_age_s: _Optional[float] = ..., geo_hash: _Optional[str] = ..., heard_s: _Optional[float] = ..., queries: _Optional[int] = ..., refused_states: _Optional[int] = ...) -> None: ...

class RegionStatus(_message.Message):
    __slots__ = ("name", "declared", "met", "agents", "votes", "silenced", "aside_since")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DECLARED_FIELD_NUMBER: _ClassVar[int]
    MET_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    SILENCED_FIELD_NUMBER: _ClassVar[int]
    ASIDE_SINCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    declared: bool
    met: bool
    agents: int
    votes: bool
    silenced: str
    aside_since: float
    def __init__(self, name: _Optional[str] = ..., declared: bool = ..., met: bool = ..., agents: _Optional[int] = ..., votes: bool = ..., silenced: _Optional[str] = ..., aside_since: _Optional[float] = ...) -> None: ...

class Alarm(_message.Message):
    __slots__ = ("id", "text", "since", "kind", "severity")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    id: str
    text: str
    since: float
    kind: str
    severity: str
    def __init__(self, id: _Optional[str] = ..., text: _Optional[str] = ..., since: _Optional[float] = ..., kind: _Optional[str] = ..., severity: _Optional[str] = ...) -> None: ...

class ListVerdictsRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: str
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListVerdictsResponse(_message.Message):
    __slots__ = ("verdicts", "next_page_token")
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    next_page_token: str
    def __init__(self, verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchVerdictsResponse(_message.Message):
    __slots__ = ("verdict", "initial", "gone")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    initial: bool
    gone: bool
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., initial: bool = ..., gone: bool = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("check", "address", "port", "pools", "verdict", "pending", "wavering", "since", "rule", "regions", "forced", "held", "why", "penalty", "damped_since", "unresolved_since")
    CHECK_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    WAVERING_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    FORCED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    PENALTY_FIELD_NUMBER: _ClassVar[int]
    DAMPED_SINCE_FIELD_NUMBER: _ClassVar[int]
    UNRESOLVED_SINCE_FIELD_NUMBER: _ClassVar[int]
    check: str
    address: str
    port: int
    pools: _containers.RepeatedScalarFieldContainer[str]
    verdict: Health
    pending: bool
    wavering: bool
    since: float
    rule: str
    regions: _containers.RepeatedCompositeFieldContainer[RegionVote]
    forced: bool
    held: bool
    why: _containers.RepeatedScalarFieldContainer[str]
    penalty: float
    damped_since: float
    unresolved_since: float
    def __init__(self, check: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., pools: _Optional[_Iterable[str]] = ..., verdict: _Optional[_Union[Health, str]] = ..., pending: bool = ..., wavering: bool = ..., since: _Optional[float] = ..., rule: _Optional[str] = ..., regions: _Optional[_Iterable[_Union[RegionVote, _Mapping]]] = ..., forced: bool = ..., held: bool = ..., why: _Optional[_Iterable[str]] = ..., penalty: _Optional[float] = ..., damped_since: _Optional[float] = ..., unresolved_since: _Optional[float] = ...) -> None: ...

class RegionVote(_message.Message):
    __slots__ = ("region", "vote", "streak", "reason", "rtt_us", "age_s", "phases", "agents")
    REGION_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    STREAK_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RTT_US_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    region: str
    vote: Health
    streak: int
    reason: str
    rtt_us: int
    age_s: float
    phases: Phases
    agents: int
    def __init__(self, region: _Optional[str] = ..., vote: _Optional[_Union[Health, str]] = ..., streak: _Optional[int] = ..., reason: _Optional[str] = ..., rtt_us: _Optional[int] = ..., age_s: _Optional[float] = ..., phases: _Optional[_Union[Phases, _Mapping]] = ..., agents: _Optional[int] = ...) -> None: ...

class Phases(_message.Message):
    __slots__ = ("dns_us", "connect_us", "tls_us", "first_byte_us", "body_us")
    DNS_US_FIELD_NUMBER: _ClassVar[int]
    CONNECT_US_FIELD_NUMBER: _ClassVar[int]
    TLS_US_FIELD_NUMBER: _ClassVar[int]
    FIRST_BYTE_US_FIELD_NUMBER: _ClassVar[int]
    BODY_US_FIELD_NUMBER: _ClassVar[int]
    dns_us: int
    connect_us: int
    tls_us: int
    first_byte_us: int
    body_us: int
    def __init__(self, dns_us: _Optional[int] = ..., connect_us: _Optional[int] = ..., tls_us: _Optional[int] = ..., first_byte_us: _Optional[int] = ..., body_us: _Optional[int] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("name", "client", "type", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    client: str
    type: str
    revision: int
    def __init__(self, name: _Optional[str] = ..., client: _Optional[str] = ..., type: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("id", "version", "listen", "served_revision", "geo_hash", "snapshot_age_s", "stale", "queries", "refused_states")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LISTEN_FIELD_NUMBER: _ClassVar[int]
    SERVED_REVISION_FIELD_NUMBER: _ClassVar[int]
    GEO_HASH_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_AGE_S_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_STATES_FIELD_NUMBER: _ClassVar[int]
    id: str
    version: str
    listen: _containers.RepeatedScalarFieldContainer[str]
    served_revision: int
    geo_hash: str
    snapshot_age_s: float
    stale: bool
    queries: int
    refused_states: int
    def __init__(self, id: _Optional[str] = ..., version: _Optional[str] = ..., listen: _Optional[_Iterable[str]] = ..., served_revision: _Optional[int] = ..., geo_hash: _Optional[str] = ..., snapshot_age_s: _Optional[float] = ..., stale: bool = ..., queries: _Optional[int] = ..., refused_states: _Optional[int] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("coordinators",)
    COORDINATORS_FIELD_NUMBER: _ClassVar[int]
    coordinators: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, coordinators: _Optional[_Iterable[str]] = ...) -> None: ...

class RecentRequest(_message.Message):
    __slots__ = ("check", "since_s")
    CHECK_FIELD_NUMBER: _ClassVar[int]
    SINCE_S_FIELD_NUMBER: _ClassVar[int]
    check: str
    since_s: float
    def __init__(self, check: _Optional[str] = ..., since_s: _Optional[float] = ...) -> None: ...

class RecentTarget(_message.Message):
    __slots__ = ("check", "address", "port", "now", "agents", "agent", "outcome", "count", "began_ms", "ended_ms", "check_json", "voters", "dropped")
    CHECK_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    BEGAN_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    CHECK_JSON_FIELD_NUMBER: _ClassVar[int]
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    check: str
    address: str
    port: int
    now: float
    agents: _containers.RepeatedScalarFieldContainer[str]
    agent: _containers.RepeatedScalarFieldContainer[int]
    outcome: _containers.RepeatedScalarFieldContainer[int]
    count: _containers.RepeatedScalarFieldContainer[int]
    began_ms: _containers.RepeatedScalarFieldContainer[int]
    ended_ms: _containers.RepeatedScalarFieldContainer[int]
    check_json: str
    voters: _containers.RepeatedScalarFieldContainer[str]
    dropped: int
    def __init__(self, check: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., now: _Optional[float] = ..., agents: _Optional[_Iterable[str]] = ..., agent: _Optional[_Iterable[int]] = ..., outcome: _Optional[_Iterable[int]] = ..., count: _Optional[_Iterable[int]] = ..., began_ms: _Optional[_Iterable[int]] = ..., ended_ms: _Optional[_Iterable[int]] = ..., check_json: _Optional[str] = ..., voters: _Optional[_Iterable[str]] = ..., dropped: _Optional[int] = ...) -> None: ...
