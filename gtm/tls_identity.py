"""Who a certificate speaks for: one URI among its alternative names (RFC 5280, section 4.2.1.6).

    gtm://agent/REGION          any agent of a region       gtm://coordinator/NAME
    gtm://agent/REGION/ID       one agent of it             gtm://resolver/NAME
    gtm://operator/NAME?role=R  a person or a tool          gtm://etcd/NAME

In the manner of SPIFFE ids, which may not have a query. Decides what such a text says, not what
its bearer may do (`coordinator.callers` does), and never looks at a certificate. Pure.
"""

from __future__ import annotations

import re
from typing import Literal, get_args
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

SCHEME = "gtm"
MAX_CHARS = 300
"""The longest text that is read."""

Kind = Literal["agent", "coordinator", "resolver", "operator", "etcd"]
Role = Literal["read", "operate", "admin"]
"""What an operator may do; each may what those before it may."""
KINDS: tuple[Kind, ...] = get_args(Kind)
ROLES: tuple[Role, ...] = get_args(Role)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_REGION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


class Identity(Struct, frozen=True, kw_only=True):
    """Who somebody is; `name` may be empty for an agent: any of its region."""

    kind: Kind
    name: str = ""
    region: str = ""
    role: Role | None = None

    def __str__(self) -> str:
        path = "/".join(part for part in (self.region, self.name) if part)
        query = f"?role={self.role}" if self.role else ""
        return f"{SCHEME}://{self.kind}/{path}{query}"

    def __post_init__(self) -> None:
        if self.kind == "agent":
            if not _REGION.fullmatch(self.region):
                raise ValueError(f"{self.region!r} is no name of a region")
        elif self.region:
            raise ValueError(f"a {self.kind} has no region")
        if not (_NAME.fullmatch(self.name) or (self.kind == "agent" and not self.name)):
            raise ValueError(
                f"{self.name!r} is no name: letters, digits and . _ : @ -, at most 128"
            )
        if (self.kind == "operator") is (self.role is None):
            raise ValueError("an operator has a role, and nobody else has one")


def parse(uri: str) -> Identity:
    """The identity that `uri` spells; ValueError with the reason where it spells none."""
    if len(uri) > MAX_CHARS:
        raise ValueError(f"more than {MAX_CHARS} characters")
    parts = urlsplit(uri)
    kind = next((known for known in KINDS if parts.netloc == known), None)
    if parts.scheme != SCHEME or kind is None or parts.fragment:
        raise ValueError(f"{uri!r} is not of the form {SCHEME}://KIND/NAME")
    path = parts.path.removeprefix("/").split("/")
    if not path[-1] or len(path) > (2 if kind == "agent" else 1):
        raise ValueError(f"{uri!r} is not of the form {SCHEME}://{kind}/NAME")
    role: Role | None = None
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key != "role" or role is not None or value not in ROLES:
            raise ValueError(f"{uri!r}: all that may follow is one role={'|'.join(ROLES)}")
        role = next(known for known in ROLES if known == value)
    if kind == "agent":
        region, name = path[0], path[1] if len(path) > 1 else ""
        return Identity(kind=kind, region=region, name=name, role=role)
    return Identity(kind=kind, name=path[0], role=role)


def allows(has: Role, needed: Role) -> bool:
    """Whether who has the role `has` may do what needs `needed`."""
    return ROLES.index(has) >= ROLES.index(needed)
