"""gRPC links between parts: channels and servers with matching keepalives, TLS or loopback only.

Decides who may speak in the clear: loopback always, others only with `insecure`.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

import grpc
import grpc.aio
from msgspec import Struct

from gtm.errors import StartError

KEEPALIVE_MS = 20_000
"""A client pings a quiet link this often; not under 5 s (facts of gRPC servers)."""
SPOKEN = (("gtm-spoken", "1"),)
"""Trailing metadata of a refusal whose sentence is a part's own, not gRPC's of a broken link."""
MAX_MESSAGE_BYTES = 16 << 20
"""The largest message either way: a frame of results, a set of resources."""

_COMMON = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
_CLIENT = [
    *_COMMON,
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_http_proxy", 0),
]
_SERVER = [
    *_COMMON,
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 4),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 4),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
]


class Tls(Struct, frozen=True, kw_only=True):
    """Paths of PEM files, "" where there is none; without any of them the link is in the clear."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def __bool__(self) -> bool:
        return bool(self.ca or self.cert or self.key)


def _read(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}") from error


def is_loopback(address: str) -> bool:
    """Whether `host:port` is surely this machine's loopback."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_address(address: str) -> bool:
    """Whether this has the form `host:port`, an IPv6 address in brackets."""
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host[:1] + host[-1:] == "[]" else host
    return (
        bool(bare)
        and (":" not in bare or bare != host)
        and (port.isascii() and port.isdigit() and 0 < int(port) < 65536)
    )


def channel(address: str, tls: Tls, *, insecure: bool = False) -> grpc.aio.Channel:
    """A channel to `host:port`; StartError where that is none, or in the clear beyond loopback."""
    if not is_address(address):
        raise StartError(f"{address!r} is not HOST:PORT such as 127.0.0.1:7400", 2)
    if tls:
        credentials = grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.cert))
        return grpc.aio.secure_channel(address, credentials, options=_CLIENT)
    if not insecure and not is_loopback(address):
        raise StartError(
            f"the link to {address} would be in the clear: give --ca (and --cert, --key), "
            "or --insecure on a network that you trust",
            2,
        )
    return grpc.aio.insecure_channel(address, options=_CLIENT)


def server() -> grpc.aio.Server:
    """A server whose keepalive rules match `channel`'s; add services, then `listen`."""
    return grpc.aio.server(options=_SERVER)


def listen(server: grpc.aio.Server, address: str, tls: Tls, *, insecure: bool = False) -> int:
    """Bind `server` to `host:port`; returns the port. StartError where that can't or must not be.

    With `tls.ca` clients must show a certificate that it signed.
    """
    try:
        if tls:
            cert, key = _read(tls.cert), _read(tls.key)
            if cert is None or key is None:
                raise StartError("TLS needs both --cert and --key", 2)
            ca = _read(tls.ca)
            credentials = grpc.ssl_server_credentials(
                [(key, cert)], root_certificates=ca, require_client_auth=ca is not None
            )
            port = server.add_secure_port(address, credentials)
        else:
            if not insecure and not is_loopback(address):
                raise StartError(
                    f"gRPC on {address} would be in the clear beyond loopback: give --cert and "
                    "--key, or --insecure on a network that you trust",
                    2,
                )
            port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(
            f"cannot listen on {address} for gRPC: it is taken or not ours; "
            "stop what uses it or choose another with --base-port or --grpc"
        ) from error
    if port == 0:
        raise StartError(f"cannot listen on {address} for gRPC; choose another")
    return int(port)
