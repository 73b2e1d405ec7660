"""What every probe takes and gives: a Target in, an Outcome out.

Decides which errors of the operating system speak of the target (failure) and which of this agent
(no opinion): an agent that cannot probe never says that the target is down. Performs no probe.
"""

from __future__ import annotations

import errno
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from gtm.options import settings

MAX_TEXT = 160
"""Characters of a reason with its detail; what is longer is cut."""
STALLED_MS = 250
"""A time-out noticed so much later than due says that this agent was asleep, not the target."""

Identity = tuple[str, str, int, str, str, int, bool]
"""(check, address, port, type, options, IP version, all addresses): targets with an equal one are
probed once."""


class Kind(IntEnum):
    """What a probe found out, numbered as in agent.proto."""

    SUCCESS = 1
    FAILURE = 2
    NO_OPINION = 3


class Reason(StrEnum):
    """Every reason that a probe may give; what is special to one case goes into the detail."""

    NONE = ""
    # about the target: failures
    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    RESET = "reset"
    CLOSED = "closed early"
    LOSS = "packet loss"
    ANSWER = "unexpected answer"
    STATUS = "status"
    HEADER = "header"
    BODY = "body"
    REDIRECT = "redirect"
    PROTOCOL = "protocol error"
    TOO_LARGE = "answer too large"
    EXPIRED = "certificate expired"
    EXPIRING = "certificate expires soon"
    NOT_YET_VALID = "certificate not yet valid"
    HOSTNAME = "certificate hostname mismatch"
    UNTRUSTED = "certificate untrusted"
    TLS = "tls"
    DNS = "dns"
    # about this agent: no opinion
    RESOURCES = "agent out of resources"
    PERMISSION = "agent lacks permission"
    NO_ROUTE = "agent has no route"
    DNS_SERVER = "agent has no dns server"
    DENIED = "agent denies the address"
    CANARIES = "canaries fail"
    SETTINGS = "settings"
    STALLED = "agent stalled"
    OVERRUN = "probe overran its deadline"
    FAULT = "probe fault"


class Phases(Struct, frozen=True):
    """How long the phases of a probe took, in microseconds; 0 where it did not get that far."""

    dns_us: int = 0
    connect_us: int = 0
    tls_us: int = 0
    first_byte_us: int = 0
    body_us: int = 0


class Outcome(Struct, frozen=True):
    """What one probe found out; `rtt_us` is the whole probe (ping: the mean round trip)."""

    kind: Kind
    reason: Reason = Reason.NONE
    detail: str = ""
    rtt_us: int = 0
    phases: Phases | None = None

    @property
    def text(self) -> str:
        """The reason with its detail, at most MAX_TEXT characters; "" for a success."""
        if not self.detail:
            return str(self.reason)
        return f"{self.reason}: {self.detail}"[:MAX_TEXT]


class ProbeSettings(Struct, frozen=True, kw_only=True):
    """The root of every probe type's Settings; rules between fields stand in `__post_init__`."""

    def span_ms(self, timeout_ms: int) -> int:
        """The longest that one probe lasts with the check's timeout; must fit its interval."""
        return timeout_ms


class Target(Struct, frozen=True):
    """What is probed, and how. `settings` are those of its type, read once from `options`.

    `address` may be a domain name, of which `ip_version` says what is probed (4, 6, 0: both); a
    probe itself sees one of its addresses, with the name in `name`. Any of them must succeed, or,
    with `all_addresses`, each that is probed. `unfit` says why this agent cannot read the settings
    ("": it can). `gap_ms`, `slot` and `slots` are as in agent.proto.
    """

    check: str
    address: str
    port: int
    type: str
    options: str
    interval_ms: int
    timeout_ms: int
    fall: int = 2
    rise: int = 2
    settings: Any = None
    unfit: str = ""
    ip_version: int = 0
    name: str = ""
    all_addresses: bool = False
    gap_ms: int = 0
    slot: int = 0
    slots: int = 0

    @property
    def identity(self) -> Identity:
        """What makes it this target; timing does not."""
        return (
            self.check,
            self.address,
            self.port,
            self.type,
            self.options,
            self.ip_version,
            self.all_addresses,
        )

    @property
    def host(self) -> str:
        """What it is called: its name, else its address."""
        return self.name or self.address

    @property
    def span_ms(self) -> int:
        """The longest that one probe of it lasts."""
        if isinstance(self.settings, ProbeSettings):
            return self.settings.span_ms(self.timeout_ms)
        return self.timeout_ms


class Probe(Protocol):
    """The function `probe` of every module here; keeps the target's span, raises nothing."""

    async def __call__(self, target: Target) -> Outcome:
        """Probe once."""


class Fault(Exception):
    """Ends a probe from within with this outcome; caught in the probe itself."""

    def __init__(self, kind: Kind, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.kind = kind
        self.reason = reason
        self.detail = detail

    def outcome(self, rtt_us: int = 0, phases: Phases | None = None) -> Outcome:
        """The outcome that it stands for."""
        return Outcome(self.kind, self.reason, self.detail, rtt_us, phases)


def failed(reason: Reason, detail: str = "") -> Fault:
    """The target failed."""
    return Fault(Kind.FAILURE, reason, detail)


def unable(reason: Reason, detail: str = "") -> Fault:
    """This agent cannot probe."""
    return Fault(Kind.NO_OPINION, reason, detail)


_LOCAL = {
    errno.EMFILE: Reason.RESOURCES,
    errno.ENFILE: Reason.RESOURCES,
    errno.ENOBUFS: Reason.RESOURCES,
    errno.ENOMEM: Reason.RESOURCES,
    errno.EAGAIN: Reason.RESOURCES,
    errno.EADDRNOTAVAIL: Reason.RESOURCES,  # no free local port
    errno.EPERM: Reason.PERMISSION,  # also: a local packet filter
    errno.EACCES: Reason.PERMISSION,
    errno.EAFNOSUPPORT: Reason.NO_ROUTE,
    errno.EPROTONOSUPPORT: Reason.NO_ROUTE,
    errno.ENETDOWN: Reason.NO_ROUTE,
    errno.ENODEV: Reason.NO_ROUTE,
    errno.EINVAL: Reason.SETTINGS,
}
_TARGET = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.ETIMEDOUT: Reason.TIMEOUT,
    errno.EHOSTUNREACH: Reason.UNREACHABLE,
    errno.EHOSTDOWN: Reason.UNREACHABLE,
    errno.ENETUNREACH: Reason.UNREACHABLE,
    errno.ECONNRESET: Reason.RESET,
    errno.ECONNABORTED: Reason.RESET,
    errno.EPIPE: Reason.RESET,
}


def classify(error: OSError, address: str) -> Fault:
    """Whether `error`, met while probing `address`, speaks of the target or of this agent.

    ENETUNREACH is this agent's where it has no route at all in the address's family. An error
    that stands in neither table is taken as this agent's: no opinion rather than a wrong one.
    """
    number = error.errno or 0
    text = error.strerror or type(error).__name__
    if number == errno.ENETUNREACH and not has_route(address):
        family = "IPv6" if ":" in address else "IPv4"
        return unable(Reason.NO_ROUTE, f"no {family} route beyond this machine")
    if number in _TARGET:
        return failed(_TARGET[number], "" if number == errno.ECONNREFUSED else text)
    return unable(_LOCAL.get(number, Reason.FAULT), text)


def has_route(address: str) -> bool:
    """Whether this machine has any route beyond itself in the family of `address`.

    Read from Linux's own tables; where they can't be read, it has none.
    """
    try:
        if ":" in address:
            lines = Path("/proc/net/ipv6_route").read_text().splitlines()
            return any(
                parts[-1] != "lo" and parts[0][:4] not in ("fe80", "ff00")
                for parts in (line.split() for line in lines)
            )
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
        return any(line.split()[0] != "lo" for line in lines)
    except (OSError, IndexError):
        return False


S = TypeVar("S", bound=ProbeSettings)


def read_settings(type_: type[S], options: str, port: int = 0) -> S:
    """`options` (JSON text) as the settings `type_`; ValueError where they are not.

    A type that has a port takes `port`: it travels beside the options. Strict: an agent older than
    its coordinator must not judge by half of what it was told.
    """
    if unknown := sorted(set(msgspec.json.decode(options)) - set(type_.__struct_fields__)):
        raise ValueError(f"this agent does not know the setting {unknown[0]}")
    fixed = {"port": port} if "port" in type_.__struct_fields__ else {}
    return settings(options, type_, **fixed)
