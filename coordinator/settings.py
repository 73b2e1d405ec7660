"""Run a coordinator: it judges what agents report and publishes what resolvers serve."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from gtm.units import Duration, Share

from .guard import Brake


def _doc(text: str) -> Meta:
    return Meta(description=text)


class Alike(Struct, frozen=True, kw_only=True):
    """What all coordinators of a system are told alike; `gtm up` takes it and hands it on."""

    guard_share: Annotated[
        Share,
        _doc("addresses are held when more than this share would leave in a window; 100%: never"),
    ] = field(default_factory=lambda: Share(Brake().share))
    guard_least: Annotated[int, _doc("and at least so many")] = Brake().least
    guard_window: Annotated[Duration, _doc("that window")] = Duration(Brake().window_ms)
    guard_hold: Annotated[Duration, _doc("how long a verdict must persist to end a hold")] = (
        Duration(Brake().hold_ms)
    )
    lease: Annotated[
        Duration,
        _doc("after so long without a word a coordinator is gone; whole seconds from 2 on"),
    ] = Duration(5_000)
    catch_up: Annotated[
        Duration,
        _doc("before it may lead, it waits at most so long for a first digest of every agent"),
    ] = Duration(5_000)
    webhook: Annotated[str, _doc("URL that alarms are posted to; empty: none")] = ""
    webhook_secret: Annotated[
        str, _doc("file with the secret that signs what is posted; empty: it is not signed")
    ] = ""
    webhook_ca: Annotated[str, _doc("PEM file: whom to trust as webhook; default: system's")] = ""


class Settings(Alike, frozen=True, kw_only=True):
    """How a coordinator is reached, what it reaches, and where geo data lies."""

    id: Annotated[str, _doc("unique among coordinators; default: HOST-PORT of --grpc")] = ""
    grpc: Annotated[str, _doc("host:port for agents, resolvers and operators")] = "127.0.0.1:7400"
    advertise: Annotated[str, _doc("host:port told to them; default: that of --grpc")] = ""
    http: Annotated[str, _doc("host:port of /metrics, /livez and /readyz; empty: none")] = (
        "127.0.0.1:7401"
    )
    etcd: Annotated[tuple[str, ...], _doc("endpoints of etcd")] = ("127.0.0.1:7379",)
    etcd_user: Annotated[str, _doc("user of etcd")] = ""
    etcd_password: Annotated[str, _doc("its password")] = ""
    etcd_ca: Annotated[str, _doc("PEM file: whom to trust as etcd")] = ""
    etcd_cert: Annotated[str, _doc("PEM file: our certificate for etcd")] = ""
    etcd_key: Annotated[str, _doc("PEM file: its key")] = ""
    resolver: Annotated[
        str,
        _doc(
            "address:port of the DNS server for names of flattened pools; default: those of "
            "/etc/resolv.conf"
        ),
    ] = ""
    geo: Annotated[tuple[str, ...], _doc("files in MaxMind format, for explain")] = ()
    ca: Annotated[
        str, _doc("PEM file: the authority that agents, resolvers and operators have")
    ] = ""
    cert: Annotated[str, _doc("PEM file: the certificate of the gRPC door")] = ""
    key: Annotated[str, _doc("PEM file: its key")] = ""
    insecure: Annotated[bool, _doc("gRPC in the clear; everybody may do everything")] = False
    operators: Annotated[
        str,
        _doc("host:port of a further door, for operators who show a token; empty: none"),
    ] = ""
    tokens: Annotated[str, _doc("file of their tokens' hashes, as gtm ca token prints them")] = ""

    def brake(self) -> Brake:
        """How the guard brakes; every coordinator should be told the same."""
        return Brake(
            share=self.guard_share.of_one,
            least=self.guard_least,
            window_ms=self.guard_window.ms,
            hold_ms=self.guard_hold.ms,
        )
