"""Probe types `http` and `https`: one request, and everything expected of its answer, in time.

The probe connects to the target's address, never to what a name resolves to; Host and SNI are
what the settings say, else the name of a target that has one. It asks for one answer and closes. An
answer's body is read to its end or for 64 KiB, whichever comes first; `expect_body` is looked for
in that.

Redirects (`follow_redirects`) are followed up to 5 times and only within the target: same scheme,
same host, same port, same address. One that leads elsewhere fails the probe, since whether that
other place is well is another check's business; no name is ever resolved.

`https` verifies the certificate against the SNI name, else the host, else the address. With
`http2` the server must speak HTTP/2, agreed on by ALPN; HTTP/2 in the clear is refused.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

from ._forms import ExpectedHeaders, Headers, StatusSet, Text, TooSlow
from ._tls import context
from ._wire import Stages, Wire
from .base import Fault, Kind, Outcome, ProbeSettings, Reason, Target, failed, unable

NAMES = ("http", "https")
MAX_BODY = 65_536
"""Bytes of an answer's body that are read."""
MAX_HEAD = 16_384
"""Bytes of an answer's head; a longer one fails the probe."""
MAX_INFORMATIONAL = 8
"""Answers of class 1xx before the real one."""
MAX_REDIRECTS = 5
"""Redirects followed in one probe."""
DEFAULT_STATUS = StatusSet.parse("200-399")

_HOST = re.compile(r"[A-Za-z0-9._\-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_NAME = re.compile(r"[A-Za-z0-9._\-]{1,253}")
_PATH = re.compile(r"/[\x21-\x7e]{0,2047}")


class Settings(ProbeSettings, frozen=True, kw_only=True):
    """Settings of an http check."""

    port: Annotated[int, Meta(ge=1, le=65535, description="port to connect to")] = 80
    path: Annotated[str, Meta(description="path and query, percent-encoded")] = "/"
    method: Annotated[
        Literal["GET", "HEAD", "OPTIONS", "POST", "PUT"], Meta(description="request method")
    ] = "GET"
    host: Annotated[
        str, Meta(description="Host sent, exactly so; default: address or name, port if unusual")
    ] = ""
    headers: Annotated[Headers, Meta(description="further header fields to send")] = Headers()
    body: Annotated[str, Meta(max_length=16_384, description="body to send")] = ""
    expect_status: Annotated[
        StatusSet | None, Meta(description="codes and ranges that are good; default 200-399")
    ] = None
    alert_above: Annotated[
        Literal[400, 500] | None,
        Meta(description="400 or 500: a greater code fails; instead of expect_status"),
    ] = None
    expect_body: Annotated[
        Text | None,
        Meta(description="text, or {regex: EXPRESSION}, in the first 64 KiB of the body"),
    ] = None
    expect_header: Annotated[
        ExpectedHeaders,
        Meta(description="header name to text, or {regex: EXPRESSION}, in its value"),
    ] = ExpectedHeaders()
    follow_redirects: Annotated[
        bool, Meta(description="follow up to 5 redirects within the target")
    ] = False
    http2: Annotated[bool, Meta(description="speak HTTP/2 (https only)")] = False

    def __post_init__(self) -> None:
        if self.expect_status is not None and self.alert_above is not None:
            raise ValueError("expect_status and alert_above exclude each other; keep one")
        if not _PATH.fullmatch(self.path):
            raise ValueError(
                f"path {self.path!r} must begin with / and be printable ASCII without spaces "
                "(percent-encode the rest), at most 2048 characters"
            )
        if self.host and not _HOST.fullmatch(self.host):
            raise ValueError(
                f"host {self.host!r} is not a name or an address, with or without port"
            )
        if self.body and self.method not in ("POST", "PUT"):
            raise ValueError(f"a body needs method POST or PUT, not {self.method}")
        if self.method == "HEAD" and self.expect_body is not None:
            raise ValueError("expect_body can't hold with method HEAD, whose answer has no body")
        if self.http2 and not isinstance(self, HttpsSettings):
            raise ValueError("http2 needs type https: HTTP/2 in the clear is not spoken")

    def good(self, status: int) -> bool:
        """Whether `status` is as expected."""
        if self.alert_above is not None:
            return status <= self.alert_above
        return status in (self.expect_status or DEFAULT_STATUS)

    def authority(self, address: str, port: int) -> str:
        """The Host to send."""
        if self.host:
            return self.host
        host = f"[{address}]" if ":" in address else address
        usual = 443 if isinstance(self, HttpsSettings) else 80
        return host if port == usual else f"{host}:{port}"


class HttpsSettings(Settings, frozen=True, kw_only=True):
    """Settings of an https check."""

    port: Annotated[int, Meta(ge=1, le=65535, description="port to connect to")] = 443
    sni: Annotated[str, Meta(description="name asked for and verified; default: the host's")] = ""
    verify: Annotated[
        bool,
        Meta(
            description="whether the certificate must be valid and name sni, else host, else the "
            "target: its name, or its address, which few do, so that is warned of"
        ),
    ] = True
    ca: Annotated[
        str,
        Meta(description="authorities: a PEM file on the agents, or PEM text; default: system's"),
    ] = ""
    cert: Annotated[str, Meta(description="client certificate: a PEM file on the agents")] = ""
    key: Annotated[str, Meta(description="its key; default: in the same file")] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sni and not _NAME.fullmatch(self.sni):
            raise ValueError(f"sni {self.sni!r} is not a name")
        if self.key and not self.cert:
            raise ValueError("key without cert: give the client certificate too")
        if self.ca and not self.verify:
            raise ValueError("ca without verify: nothing would be verified against it")

    @property
    def names_address(self) -> bool:
        """Whether the certificate of a target without a name must name its address."""
        return self.verify and not self.sni and not self.host

    def server_name(self, address: str) -> str:
        """What the certificate is verified against (an address is not sent as SNI)."""
        if self.sni:
            return self.sni
        if self.host.startswith("["):
            return self.host[1:].partition("]")[0]
        return self.host.partition(":")[0] or address


SETTINGS = {"http": Settings, "https": HttpsSettings}


class Request(Struct, frozen=True):
    """One request as it goes on the wire; names in lower case."""

    method: str
    scheme: str
    authority: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Response(Struct, frozen=True):
    """One answer; `body` holds at most MAX_BODY bytes. HTTP/1.1's trailers are not kept."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]] = []


async def probe(target: Target) -> Outcome:
    """Probe once; `rtt_us` is the whole probe."""
    settings = target.settings
    assert isinstance(settings, Settings)
    stages = Stages()
    try:
        async with asyncio.timeout(target.timeout_ms / 1000):
            response = await _fetch(target, settings, stages)
            _judge(settings, response)
    except TimeoutError:
        return failed(Reason.TIMEOUT, stages.now).outcome(0, stages.phases())
    except Fault as fault:
        return fault.outcome(0, stages.phases())
    return Outcome(Kind.SUCCESS, rtt_us=stages.elapsed_us(), phases=stages.phases())


async def _fetch(target: Target, settings: Settings, stages: Stages) -> Response:
    path = settings.path
    for _ in range(MAX_REDIRECTS + 1):
        request = _request(target, settings, path)
        response = await _exchange(target, settings, request, stages)
        location = b""
        if settings.follow_redirects and response.status in (301, 302, 303, 307, 308):
            location = next((v for k, v in response.headers if k.lower() == b"location"), b"")
        if not location:
            return response
        path = _within(request, location.decode("ascii", "replace"))
    raise failed(Reason.REDIRECT, f"more than {MAX_REDIRECTS}")


def _request(target: Target, settings: Settings, path: str) -> Request:
    fields = tuple((name.lower(), value) for name, value in settings.headers.fields)
    names = {name for name, _ in fields}
    for name, value in (
        ("user-agent", "meridian-gtm"),
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
    ):
        if name not in names:
            fields += ((name, value),)
    if settings.body or settings.method in ("POST", "PUT"):
        fields += (("content-length", str(len(settings.body.encode()))),)
    return Request(
        settings.method,
        "https" if isinstance(settings, HttpsSettings) else "http",
        settings.authority(target.host, target.port),
        path,
        fields,
        settings.body.encode(),
    )


async def _exchange(
    target: Target, settings: Settings, request: Request, stages: Stages
) -> Response:
    stages.now = "connecting"
    wire = await Wire.connect(target.address, target.port)
    try:
        if isinstance(settings, HttpsSettings):
            stages.end("connect", "in the TLS handshake")
            chosen = context(
                verify=settings.verify,
                ca=settings.ca,
                cert=settings.cert,
                key=settings.key,
                alpn="h2" if settings.http2 else "http/1.1",
            )
            protocol = await wire.start_tls(chosen, settings.server_name(target.host))
            stages.end("tls", "waiting for the first byte")
            if settings.http2:
                if protocol != "h2":
                    raise failed(Reason.PROTOCOL, "the server does not speak HTTP/2")
                from ._http2 import exchange as exchange2

                return await exchange2(wire, request, stages)
        else:
            stages.end("connect", "waiting for the first byte")
        from ._http1 import exchange

        return await exchange(wire, request, stages)
    finally:
        wire.close()


def _within(request: Request, location: str) -> str:
    """The path that `location` leads to; Fault where that is not within the target."""
    from urllib.parse import urljoin, urlsplit

    try:
        here = f"{request.scheme}://{request.authority}"
        there = urlsplit(urljoin(f"{here}{request.path}", location))
        origin = urlsplit(here)
        usual = 443 if request.scheme == "https" else 80
        same = (
            there.scheme == request.scheme
            and there.hostname == origin.hostname
            and (there.port or usual) == (origin.port or usual)
        )
    except ValueError:
        same = False
    if not same:
        raise failed(Reason.REDIRECT, f"leads outside the target: {location}")
    path = (there.path or "/") + (f"?{there.query}" if there.query else "")
    if not _PATH.fullmatch(path):
        raise failed(Reason.REDIRECT, f"a path that can't be asked for: {path!r}")
    return path


def _judge(settings: Settings, response: Response) -> None:
    """Fault where the answer is not as expected."""
    if not settings.good(response.status):
        raise failed(Reason.STATUS, str(response.status))
    try:
        if missing := settings.expect_header.missing(response.headers):
            raise failed(Reason.HEADER, f"{missing} is not as expected")
        if settings.expect_body is not None and not settings.expect_body.found(response.body):
            text = response.body[:60].decode(errors="replace")
            raise failed(Reason.BODY, f"not as expected: {text!r}")
    except TooSlow:
        raise unable(Reason.SETTINGS, "an expression to expect takes too long") from None
