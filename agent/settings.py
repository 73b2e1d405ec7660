"""What an agent may be told, with defaults. Values only; `part` acts on them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of `gtm agent`."""

    region: Annotated[str, Meta(description="name of the region that this agent probes from")]
    id: Annotated[
        str, Meta(description="name of the agent, unique in its region; default: the host's name")
    ] = ""
    coordinators: Annotated[
        tuple[str, ...],
        Meta(description="gRPC addresses of coordinators; those learn the agent of the others"),
    ] = ("127.0.0.1:7400",)
    http: Annotated[str, Meta(description="address of the HTTP door (metrics, health)")] = (
        "127.0.0.1:7402"
    )
    ca: Annotated[str, Meta(description="PEM file: authority of the coordinators")] = ""
    cert: Annotated[str, Meta(description="PEM file: certificate shown to coordinators")] = ""
    key: Annotated[str, Meta(description="PEM file: its key")] = ""
    insecure: Annotated[bool, Meta(description="links in the clear, without certificates")] = False
    resolver: Annotated[
        str,
        Meta(
            description="address:port of the DNS server for targets that are names; default: "
            "those of /etc/resolv.conf"
        ),
    ] = ""
    deny: Annotated[
        tuple[str, ...],
        Meta(
            description="networks of which no address is probed, whatever coordinators say; "
            "link-local, multicast and cloud metadata addresses are denied anyway"
        ),
    ] = ()
    allow: Annotated[
        tuple[str, ...],
        Meta(description="networks that may be probed all the same; the narrowest one decides"),
    ] = ()
    canary: Annotated[
        tuple[str, ...],
        Meta(
            description="canaries beside the region's, ADDRESS or ADDRESS:PORT: while none "
            "answers, the agent has no opinion"
        ),
    ] = ()
    max_probes: Annotated[
        int, Meta(ge=1, le=65536, description="probes under way at once; further ones wait")
    ] = 1000
    buffer: Annotated[
        int,
        Meta(ge=100, le=5_000_000, description="results kept while no coordinator takes them"),
    ] = 50_000
