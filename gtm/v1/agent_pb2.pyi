from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_NONE: _ClassVar[Outcome]
    OUTCOME_SUCCESS: _ClassVar[Outcome]
    OUTCOME_FAILURE: _ClassVar[Outcome]
    OUTCOME_NO_OPINION: _ClassVar[Outcome]
OUTCOME_NONE: Outcome
OUTCOME_SUCCESS: Outcome
OUTCOME_FAILURE: Outcome
OUTCOME_NO_OPINION: Outcome

class FromAgent(_message.Message):
    __slots__ = ("hello", "results", "digest", "heartbeat", "goodbye", "sent_ms")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    results: Results
    digest: Digest
    heartbeat: Heartbeat
    goodbye: Goodbye
    sent_ms: int
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., results: _Optional[_Union[Results, _Mapping]] = ..., digest: _Optional[_Union[Digest, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., sent_ms: _Optional[int] = ...) -> None: ...

class ToAgent(_message.Message):
    __slots__ = ("welcome", "assignment", "ack", "heartbeat", "confirm", "place", "coordinators", "sent_ms")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    CONFIRM_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    COORDINATORS_FIELD_NUMBER: _ClassVar[int]
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    assignment: Assignment
    ack: Ack
    heartbeat: Heartbeat
    confirm: Confirm
    place: Place
    coordinators: Coordinators
    sent_ms: int
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., confirm: _Optional[_Union[Confirm, _Mapping]] = ..., place: _Optional[_Union[Place, _Mapping]] = ..., coordinators: _Optional[_Union[Coordinators, _Mapping]] = ..., sent_ms: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("region", "agent_id", "version", "capabilities", "incarnation")
    REGION_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    region: str
    agent_id: str
    version: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    incarnation: str
    def __init__(self, region: _Optional[str] = ..., agent_id: _Optional[str] = ..., version: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., incarnation: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("coordinator_id", "heartbeat_ms", "digest_ms", "coordinators")
    COORDINATOR_ID_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_MS_FIELD_NUMBER: _ClassVar[int]
    COORDINATORS_FIELD_NUMBER: _ClassVar[int]
    coordinator_id: str
    heartbeat_ms: int
    digest_ms: int
    coordinators: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, coordinator_id: _Optional[str] = ..., heartbeat_ms: _Optional[int] = ..., digest_ms: _Optional[int] = ..., coordinators: _Optional[_Iterable[str]] = ...) -> None: ...

class Coordinators(_message.Message):
    __slots__ = ("addresses",)
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class Results(_message.Message):
    __slots__ = ("sequence", "assignment_revision", "target", "outcome", "age_ms", "rtt_us", "reason", "reasons", "dns_us", "connect_us", "tls_us", "first_byte_us", "body_us")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_REVISION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    RTT_US_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    DNS_US_FIELD_NUMBER: _ClassVar[int]
    CONNECT_US_FIELD_NUMBER: _ClassVar[int]
    TLS_US_FIELD_NUMBER: _ClassVar[int]
    FIRST_BYTE_US_FIELD_NUMBER: _ClassVar[int]
    BODY_US_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    assignment_revision: int
    target: _containers.RepeatedScalarFieldContainer[int]
    outcome: _containers.RepeatedScalarFieldContainer[int]
    age_ms: _containers.RepeatedScalarFieldContainer[int]
    rtt_us: _containers.RepeatedScalarFieldContainer[int]
    reason: _containers.RepeatedScalarFieldContainer[int]
    reasons: _containers.RepeatedScalarFieldContainer[str]
    dns_us: _containers.RepeatedScalarFieldContainer[int]
    connect_us: _containers.RepeatedScalarFieldContainer[int]
    tls_us: _containers.RepeatedScalarFieldContainer[int]
    first_byte_us: _containers.RepeatedScalarFieldContainer[int]
    body_us: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, sequence: _Optional[int] = ..., assignment_revision: _Optional[int] = ..., target: _Optional[_Iterable[int]] = ..., outcome: _Optional[_Iterable[int]] = ..., age_ms: _Optional[_Iterable[int]] = ..., rtt_us: _Optional[_Iterable[int]] = ..., reason: _Optional[_Iterable[int]] = ..., reasons: _Optional[_Iterable[str]] = ..., dns_us: _Optional[_Iterable[int]] = ..., connect_us: _Optional[_Iterable[int]] = ..., tls_us: _Optional[_Iterable[int]] = ..., first_byte_us: _Optional[_Iterable[int]] = ..., body_us: _Optional[_Iterable[int]] = ...) -> None: ...

class Digest(_message.Message):
    __slots__ = ("sequence", "assignment_revision", "target", "outcome", "streak", "age_ms", "rtt_us", "reason", "reasons", "partial")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_REVISION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STREAK_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    RTT_US_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    assignment_revision: int
    target: _containers.RepeatedScalarFieldContainer[int]
    outcome: _containers.RepeatedScalarFieldContainer[int]
    streak: _containers.RepeatedScalarFieldContainer[int]
    age_ms: _containers.RepeatedScalarFieldContainer[int]
    rtt_us: _containers.RepeatedScalarFieldContainer[int]
    reason: _containers.RepeatedScalarFieldContainer[int]
    reasons: _containers.RepeatedScalarFieldContainer[str]
    partial: bool
    def __init__(self, sequence: _Optional[int] = ..., assignment_revision: _Optional[int] = ..., target: _Optional[_Iterable[int]] = ..., outcome: _Optional[_Iterable[int]] = ..., streak: _Optional[_Iterable[int]] = ..., age_ms: _Optional[_Iterable[int]] = ..., rtt_us: _Optional[_Iterable[int]] = ..., reason: _Optional[_Iterable[int]] = ..., reasons: _Optional[_Iterable[str]] = ..., partial: bool = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("count", "without_opinion")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_OPINION_FIELD_NUMBER: _ClassVar[int]
    count: int
    without_opinion: str
    def __init__(self, count: _Optional[int] = ..., without_opinion: _Optional[str] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Confirm(_message.Message):
    __slots__ = ("target",)
    TARGET_FIELD_NUMBER: _ClassVar[int]
    target: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, target: _Optional[_Iterable[int]] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("rank", "agents", "canaries")
    RANK_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    CANARIES_FIELD_NUMBER: _ClassVar[int]
    rank: int
    agents: int
    canaries: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, rank: _Optional[int] = ..., agents: _Optional[int] = ..., canaries: _Optional[_Iterable[str]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("revision", "base", "set", "remove")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    revision: int
    base: int
    set: _containers.RepeatedCompositeFieldContainer[Target]
    remove: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, revision: _Optional[int] = ..., base: _Optional[int] = ..., set: _Optional[_Iterable[_Union[Target, _Mapping]]] = ..., remove: _Optional[_Iterable[int]] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("index", "check", "address", "port", "type", "options", "interval_ms", "timeout_ms", "fall", "rise", "ip_version", "all_addresses", "gap_ms", "slot", "slots")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    FALL_FIELD_NUMBER: _ClassVar[int]
    RISE_FIELD_NUMBER: _ClassVar[int]
    IP_VERSION_FIELD_NUMBER: _ClassVar[int]
    ALL_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    GAP_MS_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    index: int
    check: str
    address: str
    port: int
    type: str
    options: str
    interval_ms: int
    timeout_ms: int
    fall: int
    rise: int
    ip_version: int
    all_addresses: bool
    gap_ms: int
    slot: int
    slots: int
    def __init__(self, index: _Optional[int] = ..., check: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., type: _Optional[str] = ..., options: _Optional[str] = ..., interval_ms: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., fall: _Optional[int] = ..., rise: _Optional[int] = ..., ip_version: _Optional[int] = ..., all_addresses: bool = ..., gap_ms: _Optional[int] = ..., slot: _Optional[int] = ..., slots: _Optional[int] = ...) -> None: ...
