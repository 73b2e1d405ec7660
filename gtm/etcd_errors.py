"""What an etcd status means for the request that got it: try again, new token, or which error.

Pure: decides from the gRPC status and etcd's own text (etcd v3.4/3.5, `rpctypes/error.go`). The
question that matters for writes is whether the request *surely did not* take effect; whatever is
not known to be so is `UNSURE`. `gtm.etcd_link` acts on the meaning.
"""

from __future__ import annotations

from enum import Enum, auto

from .errors import LeaseLost, NoSpace, StoreDenied, StoreError


class Meaning(Enum):
    """What a failed call says about itself."""

    AGAIN = auto()
    """Surely not applied, and another endpoint or a later try may work."""
    RENEW = auto()
    """Surely not applied: the token is old, authenticate and retry."""
    NO_AUTH = auto()
    """The store has authentication switched off: go on without a token."""
    DENIED = auto()
    COMPACTED = auto()
    NO_SPACE = auto()
    LEASE_GONE = auto()
    TOO_LARGE = auto()
    """The answer is larger than we receive: ask for less."""
    REFUSED = auto()
    """Surely not applied and never will be: the request itself is at fault."""
    UNSURE = auto()
    """The link or the member broke: it may or may not have been applied."""


_BY_TEXT = (
    ("invalid auth token", Meaning.RENEW),
    ("revision of auth store is old", Meaning.RENEW),
    ("authentication is not enabled", Meaning.NO_AUTH),
    ("authentication failed", Meaning.DENIED),
    ("user name is empty", Meaning.DENIED),
    ("user name not found", Meaning.DENIED),
    ("permission denied", Meaning.DENIED),
    ("required revision has been compacted", Meaning.COMPACTED),
    ("database space exceeded", Meaning.NO_SPACE),
    ("requested lease not found", Meaning.LEASE_GONE),
    ("received message larger than max", Meaning.TOO_LARGE),
    ("no leader", Meaning.AGAIN),
    ("not capable", Meaning.AGAIN),
    ("too many requests", Meaning.AGAIN),
    ("rpc not supported for learner", Meaning.AGAIN),
)

_BY_CODE = {
    "UNAUTHENTICATED": Meaning.RENEW,
    "PERMISSION_DENIED": Meaning.DENIED,
    "INVALID_ARGUMENT": Meaning.REFUSED,
    "FAILED_PRECONDITION": Meaning.REFUSED,
    "OUT_OF_RANGE": Meaning.REFUSED,
    "NOT_FOUND": Meaning.REFUSED,
    "ALREADY_EXISTS": Meaning.REFUSED,
    "UNIMPLEMENTED": Meaning.REFUSED,
}


def meaning(code: str, details: str) -> Meaning:
    """The meaning of a status: etcd's text first, for one code has many; then the code's name."""
    text = details.lower()
    for part, found in _BY_TEXT:
        if part in text:
            return found
    return _BY_CODE.get(code, Meaning.UNSURE)


def refusal(found: Meaning, where: str, details: str) -> StoreError:
    """The error to raise for a meaning that no retry helps; `where` names the endpoint."""
    told = details.removeprefix("etcdserver: ")
    if found is Meaning.DENIED:
        return StoreDenied(f"etcd at {where} refuses us ({told}): check its user and password")
    if found is Meaning.NO_SPACE:
        return NoSpace(
            f"etcd at {where} has used up its quota: compact, defragment, then "
            "`etcdctl alarm disarm`"
        )
    if found is Meaning.LEASE_GONE:
        return LeaseLost(f"etcd at {where} does not know the lease (any more)")
    return StoreError(f"etcd at {where} refused the request: {told}")
