"""Probe type `grpc`: the health service grpc.health.v1 of the target says SERVING, in time.

One unary call of `Check` over HTTP/2 (RFC 9113), as gRPC's protocol over HTTP/2 has it, in the
clear with prior knowledge (RFC 9113, section 3.3) or with `tls` by ALPN (RFC 7301). As for `tcp`,
any certificate is taken: whether it is a good one is for `tls` checks to say. `service` is asked
for by its full name; without it the server answers for itself as a whole. Everything but SERVING
fails, a service that the server does not know included.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote

from msgspec import Meta

from ._tls import context
from ._wire import Stages, Wire
from .base import Fault, Kind, Outcome, ProbeSettings, Reason, Target, failed

if TYPE_CHECKING:
    from .http import Response

PATH = "/grpc.health.v1.Health/Check"
_HEAD = 5
"""Octets before a message: whether it is compressed, and its length in four."""
_STATUS = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


class Settings(ProbeSettings, frozen=True, kw_only=True):
    """Settings of a grpc check."""

    port: Annotated[int, Meta(ge=1, le=65535, description="port to connect to")]
    service: Annotated[
        str, Meta(max_length=253, description="service asked for; default: the server as a whole")
    ] = ""
    tls: Annotated[bool, Meta(description="shake hands first; any certificate is taken")] = False

    def __post_init__(self) -> None:
        if not self.service.isascii() or not self.service.isprintable() or " " in self.service:
            raise ValueError(f"service {self.service!r} is not printable ASCII without spaces")


async def probe(target: Target) -> Outcome:
    """Probe once; `rtt_us` is the whole probe."""
    settings = target.settings
    assert isinstance(settings, Settings)
    stages = Stages()
    wire: Wire | None = None
    try:
        async with asyncio.timeout(target.timeout_ms / 1000):
            wire = await Wire.connect(target.address, target.port)
            if settings.tls:
                stages.end("connect", "in the TLS handshake")
                protocol = await wire.start_tls(context(verify=False, alpn="h2"), target.name)
                stages.end("tls", "waiting for the first byte")
                if protocol != "h2":
                    raise failed(Reason.PROTOCOL, "the server does not speak HTTP/2")
            else:
                stages.end("connect", "waiting for the first byte")
            _judge(await _check(wire, target, settings, stages))
    except TimeoutError:
        return failed(Reason.TIMEOUT, stages.now).outcome(0, stages.phases())
    except Fault as fault:
        return fault.outcome(0, stages.phases())
    finally:
        if wire is not None:
            wire.close()
    return Outcome(Kind.SUCCESS, rtt_us=stages.elapsed_us(), phases=stages.phases())


async def _check(wire: Wire, target: Target, settings: Settings, stages: Stages) -> Response:
    """Call `Check` and read to the end of the stream."""
    from grpc_health.v1.health_pb2 import HealthCheckRequest

    from ._http2 import exchange
    from .http import Request

    message = HealthCheckRequest(service=settings.service).SerializeToString()
    host = f"[{target.host}]" if ":" in target.host else target.host
    request = Request(
        "POST",
        "https" if settings.tls else "http",
        f"{host}:{target.port}",
        PATH,
        (
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", f"{target.timeout_ms}m"),
            ("user-agent", "meridian-gtm"),
        ),
        b"\0" + len(message).to_bytes(4) + message,
    )
    return await exchange(wire, request, stages)


def _judge(response: Response) -> None:
    """Fault where the answer is anything but SERVING."""
    from google.protobuf.message import DecodeError
    from grpc_health.v1.health_pb2 import HealthCheckResponse

    if response.status != 200:
        raise failed(Reason.STATUS, f"HTTP {response.status}")
    fields = dict((*response.headers, *response.trailers))
    code = fields.get(b"grpc-status", b"")
    if not code.isdigit():
        raise failed(Reason.PROTOCOL, "an answer without grpc-status")
    if int(code) != 0:
        name = _STATUS[int(code)] if int(code) < len(_STATUS) else f"code {int(code)}"
        said = unquote(fields.get(b"grpc-message", b"").decode("ascii", "replace"))
        raise failed(Reason.STATUS, f"{name} {said}".strip())
    body = response.body
    if len(body) < _HEAD or body[0] or len(body) != _HEAD + int.from_bytes(body[1:_HEAD]):
        raise failed(Reason.PROTOCOL, "an answer that is not one plain message")
    try:
        status = HealthCheckResponse.FromString(body[_HEAD:]).status
    except DecodeError as error:
        raise failed(Reason.PROTOCOL, f"no health message: {error}") from error
    if status != HealthCheckResponse.SERVING:
        known = HealthCheckResponse.ServingStatus.DESCRIPTOR.values_by_number.get(status)
        raise failed(Reason.STATUS, known.name if known else f"status {status}")
