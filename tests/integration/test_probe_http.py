"""The probes http and https against real servers, good, slow, half-open, broken and hostile."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import msgspec
import pytest
import trustme

from agent.probes import _tls, http
from agent.probes.base import Kind, Outcome, Reason, Target, read_settings

pytestmark = pytest.mark.integration

Streams = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Build: v1.2\r\n\r\nready\n"


@contextlib.asynccontextmanager
async def serving(
    behave: Streams, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """A server with this behaviour on a free port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behave(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, host, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def saying(answer: bytes, seen: list[bytes] | None = None) -> Streams:
    """Reads a request's head (and body), answers, closes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                head += await reader.readexactly(int(line.split(b":")[1]))
        if seen is not None:
            seen.append(head)
        writer.write(answer)
        await writer.drain()

    return behave


def target(
    port: int,
    type_: str = "http",
    address: str = "127.0.0.1",
    timeout: int = 2000,
    **options: object,
) -> Target:
    text = msgspec.json.encode(options).decode()
    settings = read_settings(http.SETTINGS[type_], text, port)
    return Target("c", address, port, type_, text, 15_000, timeout, settings=settings)


def head(outcome: Outcome) -> tuple[Kind, Reason]:
    return outcome.kind, outcome.reason


# ---- what is expected of an answer -----------------------------------------------------------

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
ERROR = b"HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n4\r\ndy!!\r\n0\r\n\r\n"
OLD = b"HTTP/1.0 200 OK\r\n\r\nready until the end"
HINTED = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK

EXPECTATIONS = [
    # answer, options, reason of the failure (NONE: a success)
    (OK, {}, Reason.NONE),
    (MOVED, {}, Reason.NONE),
    (NOT_FOUND, {}, Reason.STATUS),
    (ERROR, {}, Reason.STATUS),
    (NOT_FOUND, {"expect_status": [200, "400-404"]}, Reason.NONE),
    (OK, {"expect_status": [204]}, Reason.STATUS),
    (NOT_FOUND, {"alert_above": 400}, Reason.STATUS),
    (NOT_FOUND, {"alert_above": 500}, Reason.NONE),
    (ERROR, {"alert_above": 500}, Reason.STATUS),
    (OK, {"expect_body": "ready"}, Reason.NONE),
    (OK, {"expect_body": "failed"}, Reason.BODY),
    (OK, {"expect_body": {"regex": "^re[a-d]+y$"}}, Reason.NONE),
    (OK, {"expect_body": {"regex": "^x"}}, Reason.BODY),
    (CHUNKED, {"expect_body": "ready!!"}, Reason.NONE),
    (OLD, {"expect_body": "until the end"}, Reason.NONE),
    (HINTED, {"expect_body": "ready"}, Reason.NONE),
    (OK, {"expect_header": {"x-build": "v1"}}, Reason.NONE),
    (OK, {"expect_header": {"X-BUILD": {"regex": r"^v\d\.\d$"}}}, Reason.NONE),
    (OK, {"expect_header": {"X-Build": "v2"}}, Reason.HEADER),
    (OK, {"expect_header": {"X-Other": "v1"}}, Reason.HEADER),
    (b"HTTP/1.1 204 No Content\r\n\r\n", {}, Reason.NONE),
]


@pytest.mark.parametrize(("answer", "options", "reason"), EXPECTATIONS)
async def test_an_answer_is_judged_by_its_expectations(
    answer: bytes, options: dict[str, object], reason: Reason
) -> None:
    async with serving(saying(answer)) as port:
        outcome = await http.probe(target(port, **options))
    assert outcome.reason is reason, outcome
    assert outcome.kind is (Kind.FAILURE if reason else Kind.SUCCESS)
    assert outcome.phases is not None
    assert outcome.phases.connect_us > 0
    assert outcome.phases.first_byte_us > 0
    assert outcome.phases.body_us > 0
    assert outcome.phases.tls_us == 0


async def test_the_request_is_what_the_settings_say() -> None:
    seen: list[bytes] = []
    options = {
        "path": "/healthz?deep=1",
        "method": "POST",
        "host": "www.example.com",
        "headers": {"X-Probe": "yes", "User-Agent": "me"},
        "body": "ping",
    }
    async with serving(saying(OK, seen)) as port:
        outcome = await http.probe(target(port, **options))
    assert outcome.kind is Kind.SUCCESS
    lines = seen[0].split(b"\r\n")
    assert lines[0] == b"POST /healthz?deep=1 HTTP/1.1"
    fields = {line.split(b": ")[0].lower(): line.split(b": ")[1] for line in lines[1:-2] if line}
    assert fields[b"host"] == b"www.example.com"
    assert fields[b"x-probe"] == b"yes"
    assert fields[b"user-agent"] == b"me"
    assert fields[b"connection"] == b"close"
    assert seen[0].endswith(b"\r\n\r\nping")


@pytest.mark.parametrize(
    ("address", "host"), [("127.0.0.1", "127.0.0.1:{port}"), ("::1", "[::1]:{port}")]
)
async def test_the_host_is_the_address_where_none_is_given(address: str, host: str) -> None:
    seen: list[bytes] = []
    async with serving(saying(OK, seen), host=address) as port:
        outcome = await http.probe(target(port, address=address))
    assert outcome.kind is Kind.SUCCESS
    assert f"\r\nhost: {host.format(port=port)}\r\n".encode() in seen[0].lower()


async def test_head_has_no_body_to_wait_for() -> None:
    async with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n")) as port:
        outcome = await http.probe(target(port, method="HEAD"))
    assert outcome.kind is Kind.SUCCESS


# ---- redirects -------------------------------------------------------------------------------


def moving(hops: int, location: str = "/next") -> Streams:
    """Redirects so often, then answers."""
    left = [hops]

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if left[0]:
            left[0] -= 1
            line = f"Location: {location}\r\n" if location else ""
            writer.write(f"HTTP/1.1 302 Found\r\n{line}Content-Length: 0\r\n\r\n".encode())
        else:
            writer.write(OK)

    return behave


REDIRECTS = [
    (1, "/next", Reason.NONE),
    (5, "/next", Reason.NONE),
    (6, "/next", Reason.REDIRECT),
    (1, "next?a=b#part", Reason.NONE),
    (1, "http://www.example.com/next", Reason.NONE),
    (1, "HTTP://WWW.EXAMPLE.COM:80/", Reason.NONE),
    (1, "http://other.example.com/", Reason.REDIRECT),
    (1, "https://www.example.com/", Reason.REDIRECT),
    (1, "http://www.example.com:8080/", Reason.REDIRECT),
    (1, "http://169.254.169.254/latest", Reason.REDIRECT),
    (1, "//other.example.com/", Reason.REDIRECT),
    (1, "file:///etc/passwd", Reason.REDIRECT),
    (1, "http://[bad", Reason.REDIRECT),
    (1, "http://www.example.com:99999/", Reason.REDIRECT),
    (1, "", Reason.NONE),
]


@pytest.mark.parametrize(("hops", "location", "reason"), REDIRECTS)
async def test_redirects_are_followed_within_the_target_only(
    hops: int, location: str, reason: Reason
) -> None:
    async with serving(moving(hops, location)) as port:
        one = target(port, host="www.example.com", follow_redirects=True, expect_status=["200-302"])
        outcome = await http.probe(one)
    assert outcome.reason is reason, outcome


async def test_redirects_are_not_followed_unless_told() -> None:
    async with serving(moving(1)) as port:
        outcome = await http.probe(target(port, expect_status=[200]))
    assert outcome.text == "status: 302"


# ---- servers that misbehave --------------------------------------------------------------------


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def closing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    for byte in OK * 50:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def stalling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(OK[:-2])
    await reader.read(-1)


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


async def endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 10_000)
        await writer.drain()


async def hinting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0)  # the probe shares this loop


GARBAGE = saying(b"\x00\x01\x02 what is this\r\n\r\n")
SSH = saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
TWICE = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nready")

MISBEHAVIOUR = [
    (silent, Reason.TIMEOUT, "waiting for the first byte"),
    (dripping, Reason.TIMEOUT, ""),
    (stalling, Reason.TIMEOUT, "reading the body"),
    (closing, Reason.CLOSED, "without an answer"),
    (resetting, Reason.RESET, ""),
    (endless_head, Reason.TOO_LARGE, ""),
    (hinting, Reason.PROTOCOL, "1xx"),
    (GARBAGE, Reason.PROTOCOL, ""),
    (SSH, Reason.PROTOCOL, ""),
    (TWICE, Reason.PROTOCOL, ""),
    (endless_body, Reason.NONE, ""),
]


@pytest.mark.parametrize(
    ("behave", "reason", "detail"),
    MISBEHAVIOUR,
    ids=[getattr(one[0], "__name__", "") for one in MISBEHAVIOUR],
)
async def test_a_server_that_misbehaves_fails_in_time_and_says_how(
    behave: Streams, reason: Reason, detail: str
) -> None:
    async with serving(behave) as port:
        began = asyncio.get_running_loop().time()
        timeout = 400 if reason is Reason.TIMEOUT else 5000
        outcome = await http.probe(target(port, timeout=timeout))
        took = asyncio.get_running_loop().time() - began
    assert outcome.reason is reason, outcome
    assert detail in outcome.detail
    assert outcome.kind is (Kind.FAILURE if reason else Kind.SUCCESS)
    assert took < 2 or reason is not Reason.TIMEOUT


async def test_the_body_is_read_to_its_bound_and_no_further() -> None:
    async def late_words(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"x" * (http.MAX_BODY - 4) + b"heretoolate"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with serving(late_words) as port:
        inside = await http.probe(target(port, expect_body="here"))
        outside = await http.probe(target(port, expect_body="toolate"))
    assert inside.kind is Kind.SUCCESS
    assert outside.reason is Reason.BODY


async def test_a_slow_expression_is_no_opinion_and_does_not_stop_the_agent() -> None:
    body = b"a" * 40
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + body
    async with serving(saying(answer)) as port:
        began = asyncio.get_running_loop().time()
        outcome = await http.probe(target(port, expect_body={"regex": "(a+)+b"}))
        assert asyncio.get_running_loop().time() - began < 2
    assert head(outcome) == (Kind.NO_OPINION, Reason.SETTINGS)


async def test_nobody_listening_is_refused() -> None:
    async with serving(silent) as port:
        pass
    assert head(await http.probe(target(port))) == (Kind.FAILURE, Reason.REFUSED)


# ---- TLS ---------------------------------------------------------------------------------------


class Authority:
    """A certificate authority and the files that a check names."""

    def __init__(self, place: Path) -> None:
        self.ca = trustme.CA()
        self.path = str(place / "ca.pem")
        self.ca.cert_pem.write_to_path(self.path)

    def server(self, *names: str, alpn: str = "", **how: object) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names, **how).configure_cert(made)  # type: ignore[arg-type]
        if alpn:
            made.set_alpn_protocols([alpn])
        return made


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
FUTURE = datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC)


async def test_https_verifies_against_the_host_and_sends_it_as_sni(authority: Authority) -> None:
    tls = authority.server("www.example.com")
    names: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    async with serving(saying(OK), tls) as port:
        good = await http.probe(target(port, "https", host="www.example.com", ca=authority.path))
        sni = await http.probe(
            target(port, "https", host="other.test", sni="www.example.com", ca=authority.path)
        )
    assert (good.kind, sni.kind) == (Kind.SUCCESS, Kind.SUCCESS), (good, sni)
    assert names == ["www.example.com", "www.example.com"]
    assert good.phases is not None
    assert good.phases.tls_us > 0


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_without_a_host_the_certificate_must_name_the_address(
    authority: Authority, address: str
) -> None:
    async with serving(saying(OK), authority.server(address), address) as port:
        good = await http.probe(target(port, "https", address, ca=authority.path))
    async with serving(saying(OK), authority.server("www.example.com"), address) as port:
        bad = await http.probe(target(port, "https", address, ca=authority.path))
    assert good.kind is Kind.SUCCESS, good
    assert head(bad) == (Kind.FAILURE, Reason.HOSTNAME)


async def test_what_is_wrong_with_a_certificate_is_said(authority: Authority) -> None:
    cases = [
        (authority.server("www.example.com", not_after=PAST), authority.path, Reason.EXPIRED),
        (
            authority.server("www.example.com", not_before=FUTURE, not_after=FUTURE),
            authority.path,
            Reason.NOT_YET_VALID,
        ),
        (authority.server("other.example.com"), authority.path, Reason.HOSTNAME),
        (authority.server("www.example.com"), "", Reason.UNTRUSTED),
    ]
    for tls, ca, reason in cases:
        async with serving(saying(OK), tls) as port:
            outcome = await http.probe(target(port, "https", host="www.example.com", ca=ca))
            blind = await http.probe(target(port, "https", host="www.example.com", verify=False))
        assert head(outcome) == (Kind.FAILURE, reason), outcome
        assert blind.kind is Kind.SUCCESS


async def test_the_authority_may_stand_in_the_settings_themselves(authority: Authority) -> None:
    text = Path(authority.path).read_text()
    async with serving(saying(OK), authority.server("127.0.0.1")) as port:
        assert (await http.probe(target(port, "https", ca=text))).kind is Kind.SUCCESS
        bad = await http.probe(target(port, "https", ca="-----BEGIN CERTIFICATE-----\nxx"))
    assert head(bad) == (Kind.NO_OPINION, Reason.SETTINGS)


async def test_a_client_certificate_is_shown(authority: Authority, tmp_path: Path) -> None:
    pem = str(tmp_path / "client.pem")
    authority.ca.issue_cert("agent.test").private_key_and_cert_chain_pem.write_to_path(pem)
    tls = authority.server("127.0.0.1")
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.ca.configure_trust(tls)
    async with serving(saying(OK), tls) as port:
        good = await http.probe(target(port, "https", ca=authority.path, cert=pem))
        bare = await http.probe(target(port, "https", ca=authority.path))
    assert good.kind is Kind.SUCCESS, good
    assert bare.kind is Kind.FAILURE


async def test_a_file_that_changes_is_read_again_and_one_that_is_gone_is_no_opinion(
    authority: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "changing.pem"
    path.write_text(Path(Authority(tmp_path).path).read_text())
    async with serving(saying(OK), authority.server("127.0.0.1")) as port:
        one = target(port, "https", ca=str(path))
        assert head(await http.probe(one)) == (Kind.FAILURE, Reason.UNTRUSTED)
        path.write_bytes(authority.ca.cert_pem.bytes())
        assert (await http.probe(one)).kind is Kind.SUCCESS
        path.unlink()
        gone = await http.probe(one)
    assert head(gone) == (Kind.NO_OPINION, Reason.SETTINGS)
    assert str(path) in gone.detail


def test_tls_contexts_are_kept_to_their_bound(tmp_path: Path) -> None:
    pem = trustme.CA().cert_pem
    paths = [tmp_path / f"{number}.pem" for number in range(_tls.MAX_CONTEXTS + 5)]
    for path in paths:
        pem.write_to_path(str(path))
        _tls.context(verify=True, ca=str(path))
    assert _tls._build.cache_info().currsize == _tls.MAX_CONTEXTS
    last = str(paths[-1])
    assert _tls.context(verify=True, ca=last) is _tls.context(verify=True, ca=last)


async def test_a_server_that_speaks_no_tls_fails_and_one_that_says_nothing_times_out() -> None:
    async with serving(saying(OK)) as port:
        plain = await http.probe(target(port, "https", verify=False, timeout=500))
    assert plain.kind is Kind.FAILURE
    async with serving(silent) as port:
        mute = await http.probe(target(port, "https", verify=False, timeout=300))
    assert mute.text == "timeout: in the TLS handshake"


async def test_a_tls_server_answers_http_in_the_clear_with_a_failure(authority: Authority) -> None:
    async with serving(saying(OK), authority.server("127.0.0.1")) as port:
        outcome = await http.probe(target(port, timeout=1000))
    assert outcome.kind is Kind.FAILURE


# ---- HTTP/2 ------------------------------------------------------------------------------------


def speaking_h2(
    status: int = 200, body: bytes = b"ready\n", seen: list[object] | None = None
) -> Streams:
    """Answers each request of a connection so."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        machine.initiate_connection()
        writer.write(machine.data_to_send())
        left = body
        while data := await reader.read(65_536):
            for event in machine.receive_data(data):
                if seen is not None:
                    seen.append(event)
                if isinstance(event, h2.events.StreamEnded):
                    machine.send_headers(1, [(":status", str(status)), ("x-build", "v1")])
                    if not left:
                        machine.end_stream(1)
            while left and 1 in machine.streams:
                size = min(machine.local_flow_control_window(1), 16_384, len(left))
                if size <= 0 or not machine.streams[1].open:
                    break
                piece, left = left[:size], left[size:]
                machine.send_data(1, piece, end_stream=not left)
            writer.write(machine.data_to_send())
            await writer.drain()

    return behave


async def test_http2_is_spoken_where_alpn_agrees(authority: Authority) -> None:
    seen: list[object] = []
    tls = authority.server("127.0.0.1", alpn="h2")
    options = {"ca": authority.path, "http2": True, "method": "POST", "body": "ping"}
    async with serving(speaking_h2(seen=seen), tls) as port:
        good = await http.probe(
            target(port, "https", expect_body="ready", expect_header={"X-Build": "v1"}, **options)
        )
    assert good.kind is Kind.SUCCESS, good
    assert good.phases is not None
    assert good.phases.first_byte_us > 0
    request = next(one for one in seen if isinstance(one, h2.events.RequestReceived))
    fields = dict(request.headers or ())
    assert fields[b":authority"] == f"127.0.0.1:{port}".encode()
    assert fields[b"user-agent"] == b"meridian-gtm"


async def test_http2_answers_are_judged_alike_and_read_to_the_same_bound(
    authority: Authority,
) -> None:
    tls = authority.server("127.0.0.1", alpn="h2")
    async with serving(speaking_h2(503), tls) as port:
        bad = await http.probe(target(port, "https", ca=authority.path, http2=True))
    assert bad.text == "status: 503"
    async with serving(speaking_h2(body=b"x" * 300_000), tls) as port:
        large = await http.probe(target(port, "https", ca=authority.path, http2=True))
    assert large.kind is Kind.SUCCESS


async def test_http2_fails_where_the_server_does_not_speak_it(authority: Authority) -> None:
    async with serving(saying(OK), authority.server("127.0.0.1")) as port:
        outcome = await http.probe(target(port, "https", ca=authority.path, http2=True))
    assert outcome.text == "protocol error: the server does not speak HTTP/2"
    tls = authority.server("127.0.0.1", alpn="h2")
    async with serving(saying(OK), tls) as port:
        lying = await http.probe(target(port, "https", ca=authority.path, http2=True, timeout=800))
    assert lying.kind is Kind.FAILURE
