"""What a resolver may be told, and its defaults. Decides nothing but what an address looks like."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from msgspec import Meta, Struct

from gtm.errors import StartError
from gtm.units import Duration, Share

from .moves import MOVE_LIMIT

Count = Annotated[int, Meta(ge=1, le=100_000)]


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of `gtm resolver`; `gtm.settings` makes flags and variables of the fields."""

    id: Annotated[
        str, Meta(description="name among the resolvers; empty: the host's name and the DNS port")
    ] = ""
    listen: Annotated[
        tuple[str, ...], Meta(description="addresses that answer DNS, each over UDP and TCP")
    ] = ("127.0.0.1:5300",)
    http: Annotated[str, Meta(description="address of /metrics, /livez and /readyz")] = (
        "127.0.0.1:7440"
    )
    etcd: Annotated[tuple[str, ...], Meta(description="endpoints of etcd")] = ("127.0.0.1:7379",)
    etcd_user: Annotated[str, Meta(description="user at etcd; empty: none")] = ""
    etcd_password: Annotated[str, Meta(description="password of that user")] = ""
    etcd_ca: Annotated[str, Meta(description="PEM file of who signed etcd's certificate")] = ""
    etcd_cert: Annotated[str, Meta(description="PEM file of the certificate shown to etcd")] = ""
    etcd_key: Annotated[str, Meta(description="PEM file of its key")] = ""
    coordinators: Annotated[
        tuple[str, ...], Meta(description="coordinators to report to; they name the others")
    ] = ("127.0.0.1:7400",)
    ca: Annotated[str, Meta(description="PEM file of who signed the coordinators")] = ""
    cert: Annotated[str, Meta(description="PEM file of the certificate shown to them")] = ""
    key: Annotated[str, Meta(description="PEM file of its key")] = ""
    insecure: Annotated[bool, Meta(description="report in the clear, without certificates")] = False
    geo: Annotated[
        tuple[str, ...],
        Meta(description="MaxMind-format files, the first that knows a client goes first"),
    ] = ()
    geo_reload: Annotated[
        Duration, Meta(description="how often geo files are looked after; 0: never")
    ] = Duration(10_000)
    geo_move_limit: Annotated[
        Share,
        Meta(description="part of known clients that a changed file may move before it is refused"),
    ] = Share(MOVE_LIMIT)
    data_dir: Annotated[
        str, Meta(description="folder of the snapshot for a start without etcd; empty: none")
    ] = ".gtm"
    nsid: Annotated[str, Meta(description="text answered to NSID (RFC 5001); empty: the id")] = ""
    version_bind: Annotated[
        bool, Meta(description="answer version.bind and id.server in class CH")
    ] = False
    workers: Annotated[
        int,
        Meta(ge=0, le=64, description="threads that answer UDP on each address; 0: one a core"),
    ] = 0
    xdp: Annotated[
        str,
        Meta(
            description="interface whose UDP queries are answered past the kernel's network stack "
            "(AF_XDP); empty: none"
        ),
    ] = ""
    query_log: Annotated[
        str,
        Meta(description="file of a query log of JSON lines; -: standard output; empty: none"),
    ] = ""
    query_log_sample: Annotated[
        int, Meta(ge=1, le=1_000_000_000, description="one query of so many is logged")
    ] = 100
    top_sample: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="one query of so many counts for /debug/top; 0: none",
        ),
    ] = 256
    edns_buffer: Annotated[
        int, Meta(ge=512, le=4096, description="largest answer over UDP, in bytes")
    ] = 1232
    tcp_connections: Annotated[Count, Meta(description="TCP connections at once")] = 1024
    tcp_per_client: Annotated[
        Count, Meta(description="TCP connections at once of one IPv4 address or IPv6 /64")
    ] = 32
    tcp_idle: Annotated[
        Duration, Meta(description="time without a whole query that ends a connection")
    ] = Duration(10_000)
    tcp_total: Annotated[Duration, Meta(description="longest life of a connection")] = Duration(
        300_000
    )
    drain: Annotated[
        Duration,
        Meta(description="time that open TCP connections have when another has taken over"),
    ] = Duration(10_000)
    takeover: Annotated[
        bool,
        Meta(description="take the sockets over from the resolver of this id that runs already"),
    ] = False
    first_list: Annotated[
        Duration, Meta(description="wait for etcd before the snapshot is used")
    ] = Duration(1_000)
    not_ready: Annotated[
        Duration, Meta(description="wait for any table before SERVFAIL is answered")
    ] = Duration(5_000)


def endpoint(text: str, setting: str) -> tuple[str, int]:
    """`text` as (IP address, port); StartError (2) names `setting` where it is none."""
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        if (address.version == 6) != host.startswith("["):
            raise ValueError
        if not (port.isascii() and port.isdecimal() and int(port) < 65536):
            raise ValueError
    except ValueError:
        raise StartError(
            f"--{setting} {text}: not an IP address and a port, as in 127.0.0.1:5300 or [::1]:5300",
            2,
        ) from None
    return str(address), int(port)


def shown(host: str, port: int) -> str:
    """An address as `endpoint` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
