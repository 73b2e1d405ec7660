"""gRPC links between parts: channels and servers with matching keepalives, mutual TLS.

Decides who may speak in the clear: who was told so by name (`chosen`), and never beyond loopback
without. Who may do what on a link is `coordinator.callers`' business.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import Any

import grpc
import grpc.aio

from gtm.errors import StartError
from gtm.tls_files import Files, Tls, read

__all__ = ["Tls", "channel", "chosen", "is_address", "is_loopback", "listen", "server"]

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


_log = logging.getLogger("links")


def chosen(tls: Tls, *, insecure: bool, what: str) -> Tls:
    """`tls`, whole; or none where `insecure` says so. StartError (2) for anything between.

    `what` is the link in words, for the sentence.
    """
    if insecure and tls:
        raise StartError(f"{what}: --insecure and certificates exclude each other", 2)
    missing = [f"--{name}" for name in ("ca", "cert", "key") if not getattr(tls, name)]
    if missing and not insecure:
        raise StartError(
            f"{what} wants mutual TLS: give --ca, --cert and --key (gtm ca issue makes them; "
            f"missing: {', '.join(missing)}), or --insecure for a link in the clear",
            2,
        )
    return tls


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
        pems = read(tls)
        credentials = grpc.ssl_channel_credentials(pems.ca, pems.key, pems.cert)
        return grpc.aio.secure_channel(address, credentials, options=_CLIENT)
    if not insecure and not is_loopback(address):
        raise StartError(
            f"the link to {address} would be in the clear: give --ca (and --cert, --key), "
            "or --insecure on a network that you trust",
            2,
        )
    return grpc.aio.insecure_channel(address, options=_CLIENT)


def server(*interceptors: grpc.aio.ServerInterceptor) -> grpc.aio.Server:
    """A server whose keepalive rules match `channel`'s; add services, then `listen`."""
    return grpc.aio.server(options=_SERVER, interceptors=interceptors)


def listen(
    server: grpc.aio.Server,
    address: str,
    tls: Tls | Files,
    *,
    insecure: bool = False,
    certified: bool = True,
) -> int:
    """Bind `server` to `host:port`; returns the port. StartError where that can't or must not be.

    `certified`: clients must show a certificate that the authority of `tls` has signed. The files
    are read again when they have changed, before a handshake; links that stand are not touched.
    """
    if isinstance(tls, Tls) and tls:
        tls = Files(tls, _log)
    try:
        if isinstance(tls, Files):
            port = server.add_secure_port(address, _reloading(tls, certified))
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


def _reloading(files: Files, certified: bool) -> Any:
    """Server credentials that follow the files."""

    def configuration() -> Any:
        pems = files.pems
        return grpc.ssl_server_certificate_configuration(
            [(pems.key, pems.cert)], root_certificates=pems.ca if certified else None
        )

    shown = files.pems
    first = configuration()

    def newer() -> Any:
        nonlocal shown
        try:
            if (now := files.pems) is shown:
                return None
            shown = now
            return configuration()
        except Exception:  # in a thread of gRPC's: what it was goes on
            _log.exception("certificates stay as they were")
            return None

    return grpc.dynamic_ssl_server_credentials(
        first, newer, require_client_authentication=certified
    )
