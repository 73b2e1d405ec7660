"""How etcd is reached: endpoints, user, TLS files, times.

Refuses what is misspelt or unreadable with one sentence; opens no connection (see `etcd_link`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from msgspec import Struct

from .errors import StartError


class EtcdOptions(Struct, frozen=True, kw_only=True):
    """How to reach etcd. `ca`, `cert` and `key` are paths of PEM files; times in seconds."""

    endpoints: tuple[str, ...]
    user: str = ""
    password: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    timeout_s: float = 5.0
    """For one call in all, whatever the number of endpoints tried."""
    progress_s: float = 4.0
    """A watch that heard nothing for so long asks for a sign of life."""
    idle_s: float = 12.0
    """A watch that heard nothing for so long takes the next endpoint."""
    audit_s: float = 240.0
    """Mean time between comparisons of a watch's memory with the store; 0 for never."""
    settle_s: float = 3.0
    """How long such a comparison waits for events that are still on their way."""
    backoff_most_s: float = 1.0
    """Longest pause between attempts: what was judged meanwhile is out soon after its return."""

    def __repr__(self) -> str:
        return f"EtcdOptions(endpoints={self.endpoints!r}, user={self.user!r}, password=...)"


class Endpoint(Struct, frozen=True):
    """One member's client address: as users wrote it, as gRPC wants it, with TLS or without."""

    url: str
    target: str
    secure: bool


def endpoint(text: str, *, secure: bool = False) -> Endpoint:
    """`http://host:2379`, `https://host:2379` or `host:2379` as an Endpoint; else StartError.

    A bare `host:port` is taken to speak TLS when `secure`.
    """
    written = text if "://" in text else f"{'https' if secure else 'http'}://{text}"
    try:
        parts = urlsplit(written)
        port = parts.port or 2379
    except ValueError:
        raise StartError(f"etcd endpoint {text!r} is not of the form http://host:port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise StartError(f"etcd endpoint {text!r} is not of the form http://host:port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Endpoint(f"{parts.scheme}://{host}:{port}", f"{host}:{port}", parts.scheme == "https")


def credentials(options: EtcdOptions) -> Any:
    """gRPC's credentials from the PEM files; StartError where one is missing or unreadable."""
    if bool(options.cert) != bool(options.key):
        raise StartError("etcd client certificate and key must be given together")
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(options.ca),
        private_key=_pem(options.key),
        certificate_chain=_pem(options.cert),
    )


def _pem(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"cannot read etcd's TLS file {path}: {error.strerror}") from None
