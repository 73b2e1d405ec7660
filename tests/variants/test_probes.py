"""The laws that every probe type keeps; a new file in agent/probes is enrolled by being there."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import socket
import time
from typing import Any

import msgspec
import pytest

from agent.probes import icmp
from agent.probes.base import Kind, Outcome, ProbeSettings, Reason, Target, read_settings
from agent.results import ProbeResult
from agent.runner import Runner
from gtm.config import Variants, read_plain
from gtm.options import options
from gtm.variants import settings_types, variants

PACKAGE = "agent.probes"
TYPES = sorted(variants(PACKAGE))
SETTINGS: dict[str, Any] = settings_types(PACKAGE)

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "ping": [{}, {"packets": 50, "spacing": "20ms", "loss_limit": "30%", "payload": 1000}],
    "tcp": [
        {"port": 25},
        {"port": 25, "send": "EHLO x\r\n", "expect": "220", "tls": True},
        {"port": 25, "expect": {"regex": "^220 .*ESMTP"}},
    ],
    "tls": [
        {},
        {"port": 8443, "sni": "a.example.com", "min_days_left": 14, "ca": "/etc/ca.pem"},
        {"verify": False, "min_days_left": 1},
    ],
    "dns": [
        {"qname": "www.example.com"},
        {"qname": ".", "qtype": "ns", "port": 5353, "transport": "tcp"},
        {"qname": "x.test", "qtype": "MX", "expect_data": ["10 mail.x.test."]},
        {"qname": "x.test", "qtype": "TYPE65280", "expect_rcode": "NXDOMAIN"},
    ],
    "grpc": [
        {"port": 50051},
        {"port": 443, "service": "shop.v1.Cart", "tls": True},
    ],
    "http": [
        {},
        {"port": 8080, "path": "/a?b=c", "method": "HEAD", "host": "www.example.com:81"},
        {"method": "POST", "body": "é", "headers": {"X-A": "1", "Accept": "text/plain"}},
        {"expect_status": [200, "301-308", 404], "follow_redirects": True},
        {"alert_above": 500, "expect_body": {"regex": "o+k"}, "host": "[2001:db8::1]"},
        {"expect_header": {"Content-Type": "json", "X-B": {"regex": "^v[12]$"}}},
    ],
    "https": [
        {},
        {"sni": "a.example.com", "verify": False, "http2": True},
        {"ca": "/etc/ca.pem", "cert": "/etc/c.pem", "key": "/etc/k.pem", "expect_status": 204},
    ],
}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("ping", {"loss_limit": "0%"}, "loss_limit 0% would fail every probe"),
    ("ping", {"spacing": "5ms"}, "spacing 5ms is not within 10ms and 10s"),
    ("ping", {"packets": 0}, ""),
    ("ping", {"payload": 7}, ""),
    ("tcp", {}, "port"),
    ("tcp", {"port": 25, "expect": ""}, "is not a text or {regex: EXPRESSION}"),
    ("tcp", {"port": 25, "expect": {"regex": "("}}, "is not a regular expression"),
    ("tcp", {"port": 25, "expect": {"rex": "a"}}, "is not a text or {regex: EXPRESSION}"),
    ("tcp", {"port": 25, "expect": "x" * 1025}, "at most 1024 characters"),
    ("tls", {"sni": "a:443"}, "is not a name"),
    ("tls", {"ca": "/c.pem", "verify": False}, "ca without verify"),
    ("tls", {"min_days_left": -1}, ""),
    ("tls", {"min_days_left": 826}, ""),
    ("tls", {"expect": "x"}, ""),
    ("dns", {}, "qname"),
    ("dns", {"qname": ""}, "is not a domain name"),
    ("dns", {"qname": "a..b"}, "is not a domain name"),
    ("dns", {"qname": "x" * 64}, "is not a domain name"),
    ("dns", {"qname": "x.test", "qtype": "AAAAA"}, "is not a type of DNS records"),
    ("dns", {"qname": "x.test", "qtype": "ANY"}, "is not a type of DNS records"),
    ("dns", {"qname": "x.test", "qtype": "AXFR"}, "is not a type of DNS records"),
    ("dns", {"qname": "x.test", "qtype": 1}, "is not a type of DNS records"),
    ("dns", {"qname": "x.test", "expect_rcode": "OK"}, ""),
    ("dns", {"qname": "x.test", "transport": "tls"}, ""),
    ("dns", {"qname": "x.test", "expect_data": ["x"]}, "is no data of A"),
    ("dns", {"qname": "x.test", "expect_data": ["192.0.2.1"] * 33}, "at most 32 records"),
    (
        "dns",
        {"qname": "x.test", "expect_rcode": "REFUSED", "expect_data": ["192.0.2.1"]},
        "expect_data can't hold with expect_rcode REFUSED",
    ),
    ("grpc", {}, "port"),
    ("grpc", {"port": 443, "service": "a b"}, "is not printable ASCII without spaces"),
    ("grpc", {"port": 443, "service": "x" * 254}, ""),
    ("http", {"alert_above": 300}, ""),
    ("http", {"alert_above": 400, "expect_status": 200}, "exclude each other"),
    ("http", {"expect_status": []}, "an empty list of status codes"),
    ("http", {"expect_status": ["200-"]}, "is not a status code or a range"),
    ("http", {"expect_status": ["399-200"]}, "is not a status code or a range"),
    ("http", {"expect_status": [99]}, "is not a status code or a range"),
    ("http", {"expect_status": [True]}, "is not a status code or a range"),
    ("http", {"path": "healthz"}, "must begin with /"),
    ("http", {"path": "/a b"}, "must begin with /"),
    ("http", {"path": "/a\r\nX: y"}, "must begin with /"),
    ("http", {"host": "a b"}, "is not a name or an address"),
    ("http", {"host": "a\r\nX: y"}, "is not a name or an address"),
    ("http", {"method": "DELETE"}, ""),
    ("http", {"body": "x"}, "a body needs method POST or PUT"),
    ("http", {"method": "HEAD", "expect_body": "x"}, "expect_body can't hold with method HEAD"),
    ("http", {"http2": True}, "http2 needs type https"),
    ("http", {"verify": False}, ""),
    ("http", {"headers": {"Host": "x"}}, "set host"),
    ("http", {"headers": {"Connection": "close"}}, "the probe sets it"),
    ("http", {"headers": {"X-A": "a\r\nb"}}, "is not printable ASCII text"),
    ("http", {"headers": {"X A": "a"}}, "is not a header name"),
    ("http", {"headers": {"X-A": "a", "x-a": "b"}}, "stands twice"),
    ("http", {"headers": {f"X-{n}": "a" for n in range(33)}}, "at most 32 headers"),
    ("http", {"headers": {"X-A": "a" * 4097}}, "is not printable ASCII text"),
    ("http", {"expect_header": {"X-A": 1}}, "is not a text or {regex: EXPRESSION}"),
    ("https", {"sni": "a:443"}, "is not a name"),
    ("https", {"key": "/k.pem"}, "key without cert"),
    ("https", {"ca": "/c.pem", "verify": False}, "ca without verify"),
]


def target(type_: str, port: int, timeout: int = 300, **given: Any) -> Target:
    if type_ == "ping":
        port, given = 0, {"packets": 5, "spacing": "20ms", **given}
    if type_ in ("https", "tls"):
        given = {"verify": False, **given}
    if type_ == "dns":  # over UDP nobody says that nobody listens: tests/integration has those
        given = {"qname": "x.test", "transport": "tcp", **given}
    text = msgspec.json.encode(given).decode()
    settings = read_settings(SETTINGS[type_], text, port)
    return Target("c", "127.0.0.1", port, type_, text, 1000, timeout, settings=settings)


def examples() -> list[tuple[str, dict[str, Any]]]:
    return [(type_, example) for type_ in TYPES for example in EXAMPLES.get(type_, [])]


async def probed(one: Target) -> Outcome:
    outcome = await variants(PACKAGE)[one.type].probe(one)
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.fixture(autouse=True)
async def _no_socket_outlives_a_test() -> Any:
    yield
    icmp.close()


# ---- settings ----------------------------------------------------------------------------------


def test_every_type_has_examples_and_a_refusal_here() -> None:
    assert set(EXAMPLES) == set(TYPES) == {type_ for type_, _, _ in REFUSED}


@pytest.mark.parametrize("type_", TYPES)
def test_settings_are_frozen_and_every_one_is_described(type_: str) -> None:
    settings = SETTINGS[type_]
    assert issubclass(settings, ProbeSettings)
    assert settings.__struct_config__.frozen
    for field in msgspec.structs.fields(settings):
        metas = [one for one in field.type.__metadata__ if isinstance(one, msgspec.Meta)]
        assert any(one.description for one in metas), field.name
    module = variants(PACKAGE)[type_]
    assert inspect.iscoroutinefunction(module.probe)
    assert type_ in (module.__doc__ or "")


@pytest.mark.parametrize(("type_", "example"), examples())
def test_what_users_write_arrives_at_the_agent_as_it_was_meant(
    type_: str, example: dict[str, Any]
) -> None:
    known = Variants(probes=SETTINGS, steering={})
    check = {"type": type_, "interval": "1m", **example}
    reading = read_plain({"checks": {"web": check}}, known)
    assert reading.problems == ()
    assert reading.resources is not None
    read = reading.resources.checks["web"]
    arrived = read_settings(SETTINGS[type_], read.options, read.port)
    port = {"port": read.port} if read.port else {}
    direct = msgspec.json.encode({**example, **port}).decode()
    assert arrived == read_settings(SETTINGS[type_], direct, read.port)
    written = options(arrived, without=frozenset({"port"}))
    assert written == read.options  # canonical: written again it is the same text
    assert pickle.loads(pickle.dumps(arrived)) == arrived


@pytest.mark.parametrize(("type_", "given", "sentence"), REFUSED)
def test_settings_that_make_no_sense_are_refused_with_a_sentence(
    type_: str, given: dict[str, Any], sentence: str
) -> None:
    known = Variants(probes=SETTINGS, steering={})
    reading = read_plain({"checks": {"web": {"type": type_, **given}}}, known)
    texts = [problem.text for problem in reading.errors]
    assert texts
    assert any(sentence in text for text in texts), texts


# ---- behaviour ---------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", TYPES)
async def test_a_probe_keeps_its_deadline(type_: str) -> None:
    with socket.socket() as mute:  # takes connections and never says a word
        mute.bind(("127.0.0.1", 0))
        mute.listen(8)
        more = {"expect": "x"} if type_ == "tcp" else {}
        one = target(type_, mute.getsockname()[1], **more)
        began = time.monotonic()
        outcome = await probed(one)
        took_ms = (time.monotonic() - began) * 1000
    assert took_ms < one.span_ms + 500
    if type_ != "ping":
        assert outcome.reason is Reason.TIMEOUT
        assert took_ms >= one.timeout_ms - 5


@pytest.mark.parametrize("type_", TYPES)
async def test_a_failure_is_explained(type_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if type_ == "ping":  # loopback always answers: nothing arrives here
        monkeypatch.setattr(icmp.Pinger, "_take", lambda *_: None)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        outcome = await probed(target(type_, closed.getsockname()[1], timeout=100))
    if outcome.reason is Reason.PERMISSION:
        pytest.skip("ICMP needs net.ipv4.ping_group_range or CAP_NET_RAW")
    assert outcome.kind is Kind.FAILURE
    assert outcome.text


@pytest.mark.parametrize("type_", TYPES)
async def test_a_probe_that_breaks_never_gets_past_the_runner(
    type_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("agent.probes._wire.socket", broken)
    monkeypatch.setattr(icmp, "Pinger", broken)
    results: list[ProbeResult] = []
    runner = Runner("r1/a1", 10, results.append)
    one = target(type_, 9)
    runner.assign({one.identity: one})
    end = time.monotonic() + 5
    while not results:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    await runner.close()
    assert results[0].outcome.kind is Kind.NO_OPINION
    assert results[0].outcome.reason is Reason.FAULT
    assert "a defect" in results[0].outcome.text


@pytest.mark.parametrize("type_", TYPES)
async def test_an_agent_without_permission_has_no_opinion(
    type_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("agent.probes._wire.socket", forbidden)
    monkeypatch.setattr(icmp.socket, "socket", forbidden)
    outcome = await probed(target(type_, 9))
    assert (outcome.kind, outcome.reason) == (Kind.NO_OPINION, Reason.PERMISSION)
    assert outcome.text


@pytest.mark.parametrize("type_", TYPES)
async def test_a_cancelled_probe_leaves_no_open_socket(type_: str) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(8)
        more = {"expect": "x"} if type_ == "tcp" else {}
        one = target(type_, mute.getsockname()[1], timeout=5000, **more)
        task = asyncio.create_task(probed(one))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if type_ != "ping":
            mute.settimeout(2)
            peer, _ = mute.accept()
            peer.settimeout(2)
            while peer.recv(65_536):  # what was sent, and then the end
                pass
            peer.close()
