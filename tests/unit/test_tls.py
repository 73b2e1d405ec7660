"""Identities, certificates, their files as they change, and what gRPC says of failed handshakes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import stat
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from coordinator.expiry import Certificate, expiring
from ctl.authority import Authority as Folder
from ctl.beside import beside_up
from ctl.main import main
from ctl.up_tls import Trust
from gtm import grpc_log, links, tls_files
from gtm.errors import StartError
from gtm.tls_files import Files, Tls
from gtm.tls_identity import Identity, parse
from gtm.tls_issue import BACKDATED_S, common_name, signed, told
from gtm.tls_meter import CertificateMeter
from gtm.v1 import operator_pb2 as pb
from gtm.v1 import operator_pb2_grpc
from tests.certificates import DAY_S, Authority

LOG = logging.getLogger("test")

GOOD = [
    "gtm://agent/eu",
    "gtm://agent/eu/host-1",
    "gtm://coordinator/c1",
    "gtm://resolver/ns1.example:53",
    "gtm://operator/alice@example.org?role=operate",
    "gtm://etcd/m0",
]
BAD = [
    ("", "not of the form gtm://KIND/NAME"),
    ("spiffe://agent/eu", "not of the form"),
    ("gtm://agents/eu", "not of the form"),
    ("gtm://AGENT/eu", "not of the form"),
    ("gtm://agent:1/eu", "not of the form"),
    ("gtm://root@agent/eu", "not of the form"),
    ("gtm://agent/", "not of the form gtm://agent/NAME"),
    ("gtm://agent/eu/", "not of the form"),
    ("gtm://agent/eu/a/b", "not of the form"),
    ("gtm://agent/e_u", "no name of a region"),
    ("gtm://agent/eu?role=admin", "nobody else has one"),
    ("gtm://operator/alice", "an operator has a role"),
    ("gtm://operator/alice?role=root", "all that may follow"),
    ("gtm://operator/alice?role=read&role=admin", "all that may follow"),
    ("gtm://operator/alice?role=admin#x", "not of the form"),
    ("gtm://coordinator/a/b", "not of the form"),
    ("gtm://resolver/%2e", "is no name"),
    ("gtm://resolver/" + "x" * 300, "more than 300 characters"),
]


@pytest.mark.parametrize("uri", GOOD)
def test_an_identity_reads_back_as_it_is_written(uri: str) -> None:
    assert str(parse(uri)) == uri


@pytest.mark.parametrize(("uri", "why"), BAD)
def test_what_is_no_identity_is_refused_with_the_reason(uri: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse(uri)


# ---- gtm ca --------------------------------------------------------------------------------------


def ca(folder: Path, *words: str) -> int:
    at = [f"--dir={folder}"] if words[0] not in ("show", "token") else []
    return main(["ca", words[0], *words[1:], *at])


def test_an_authority_issues_what_each_needs_and_no_more(tmp_path: Path) -> None:
    tls = tmp_path / "tls"
    assert ca(tls, "init") == 0
    for words in (
        ["agent", "--region=eu"],
        ["agent", "--region=eu", "--id=a1", "--days=7"],
        ["coordinator", "--host=gtm.example.org", "--host=192.0.2.1"],
        ["resolver", "--name=ns1"],
        ["operator", "--role=operate", "--name=alice", "--for=12h"],
        ["etcd", "--name=m0"],
    ):
        assert ca(tls, "issue", *words) == 0
    made = {path.stem: told(path.read_bytes()) for path in tls.glob("*.pem")}
    assert {name: str(one.identity or "") for name, one in made.items()} == {
        "ca": "",
        "agent-eu": "gtm://agent/eu",
        "agent-eu-a1": "gtm://agent/eu/a1",
        "coordinator": "gtm://coordinator/coordinator",
        "resolver-ns1": "gtm://resolver/ns1",
        "operator-alice": "gtm://operator/alice?role=operate",
        "etcd-m0": "gtm://etcd/m0",
    }
    assert made["coordinator"].names == ("gtm.example.org", "192.0.2.1")
    assert made["etcd-m0"].names == ("localhost", "127.0.0.1", "::1")
    assert made["agent-eu"].names == ()
    lives = {name: one.ends - one.begins - BACKDATED_S for name, one in made.items()}
    assert lives["agent-eu"] == 30 * DAY_S
    assert lives["agent-eu-a1"] == 7 * DAY_S
    assert lives["operator-alice"] == DAY_S / 2
    users = {name: common_name((tls / f"{name}.pem").read_bytes()) for name in made}
    assert users["coordinator"] == "gtm-coordinator"
    assert users["resolver-ns1"] == "gtm-resolver"
    assert users["operator-alice"] == "operator alice", "nobody is etcd's root by being called so"
    for path in tls.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o600 if path.suffix == ".key" else 0o644), path
    assert stat.S_IMODE(tls.stat().st_mode) == 0o700


def test_openssl_finds_the_certificates_good_for_their_use_alone(tmp_path: Path) -> None:
    import shutil
    import subprocess

    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    tls = tmp_path / "tls"
    ca(tls, "init")
    ca(tls, "issue", "agent", "--region=eu")
    ca(tls, "issue", "coordinator")

    def verified(purpose: str, name: str) -> bool:
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose,
             "-CAfile", str(tls / "ca.pem"), str(tls / f"{name}.pem")],
            capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0

    assert verified("sslclient", "agent-eu")
    assert not verified("sslserver", "agent-eu")
    assert verified("sslserver", "coordinator")
    assert verified("sslclient", "coordinator")


def test_nothing_is_overwritten_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tls = tmp_path / "tls"
    ca(tls, "init")
    before = (tls / "ca.key").read_bytes()
    assert ca(tls, "init") == 2
    assert "is there already" in capsys.readouterr().err
    assert (tls / "ca.key").read_bytes() == before
    assert ca(tls, "init", "--force") == 0
    assert (tls / "ca.key").read_bytes() != before


WRONG = [
    (["issue", "agent", "--region=eu"], "there is no authority in"),
    (["issue", "agent", "--region=e_u"], "'e_u' is no name of a region"),
    (["issue", "coordinator", "--host=no host"], "there is no authority in"),
    (["issue", "resolver", "--days=0"], "--days: from 1 to"),
    (["issue", "resolver", "--for=soon"], "--for: 'soon' is not a duration"),
    (["renew", "nothing.pem"], "cannot read nothing.pem"),
    (["show", "nothing.pem"], "cannot read nothing.pem"),
    (["token", "--name=a/b", "--role=read"], "'a/b' is no name"),
]


@pytest.mark.parametrize(("words", "why"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_use_of_the_authority_is_one_sentence(
    words: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ca(tmp_path / "tls", *words) in (1, 2)
    told_ = capsys.readouterr().err.splitlines()
    assert len(told_) == 1
    assert why in told_[0]


def test_a_certificate_never_outlives_its_authority(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.init("short", for_s=100.0)
    made = told(folder.issue(Identity(kind="resolver", name="r")).read_bytes())
    assert made.ends <= told((tmp_path / "ca.pem").read_bytes()).ends


def test_renewal_gives_the_same_again_when_a_third_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tls = tmp_path / "tls"
    ca(tls, "init")
    authority = Authority(tmp_path / "other")
    (tls / "ca.pem").write_bytes(authority.pair.cert)
    (tls / "ca.key").write_bytes(authority.pair.key)
    authority.folder = tls
    authority.issue("gtm://agent/eu/a1", file="due", for_s=90.0, ago_s=61.0)
    authority.issue("gtm://coordinator/c1", "a.example", "::1", file="good", for_s=90.0, ago_s=50.0)
    (tls / "due.key").chmod(0o640)
    old = {name: (tls / f"{name}.pem").read_bytes() for name in ("due", "good")}
    capsys.readouterr()
    assert ca(tls, "renew") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].rpartition("/")[2] for line in lines] == ["due.pem", "good.pem"]
    assert "renewed until" in lines[0]
    assert "nothing to do" in lines[1]
    assert (tls / "good.pem").read_bytes() == old["good"]
    new = told((tls / "due.pem").read_bytes())
    assert (new.identity, new.names) == (parse("gtm://agent/eu/a1"), ())
    assert 89 <= new.ends - time.time() <= 91
    assert stat.S_IMODE((tls / "due.key").stat().st_mode) == 0o640, "as its reader needs it"
    assert ca(tls, "renew", str(tls / "good.pem"), "--all") == 0
    again = told((tls / "good.pem").read_bytes())
    assert again.names == ("a.example", "::1")
    assert signed((tls / "good.pem").read_bytes(), authority.pair.cert)
    assert not tls_files.flaw(tls_files.read(Folder(tls).tls("due")))


def test_show_tells_what_a_certificate_says_as_text_and_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tls = tmp_path / "tls"
    ca(tls, "init")
    ca(tls, "issue", "operator", "--role=admin", "--name=anna")
    capsys.readouterr()
    file = str(tls / "operator-anna.pem")
    assert ca(tls, "show", file, str(tls / "ca.pem")) == 0
    text = capsys.readouterr().out
    assert "for       gtm://operator/anna?role=admin" in text
    assert "for       an authority" in text
    assert ca(tls, "show", file, "-o", "json") == 0
    [shown] = json.loads(capsys.readouterr().out)
    assert shown["identity"] == "gtm://operator/anna?role=admin"
    assert shown["life_s"] == 30 * DAY_S


# ---- files that change ---------------------------------------------------------------------------


def test_files_that_are_replaced_one_by_one_are_never_used_half(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    tls = authority.issue("gtm://agent/eu")
    files = Files(tls, LOG)
    first = files.pems
    made = authority.pair_of(parse("gtm://agent/eu"))
    with caplog.at_level(logging.INFO):
        put(Path(tls.key), made.key)
        assert files.pems is first
        assert files.pems is first
        assert [one.getMessage() for one in caplog.records] == ["certificates stay as they were"]
        put(Path(tls.cert), made.cert)
        assert files.pems.cert == made.cert
        assert files.pems.key == made.key
        assert caplog.records[-1].getMessage() == "certificates read again"
        Path(tls.cert).unlink()
        assert files.pems.cert == made.cert
        put(Path(tls.ca), b"nonsense")
        put(Path(tls.cert), made.cert)
        assert files.pems.ca == authority.pair.cert


def put(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


def test_files_that_never_fitted_end_the_start(tmp_path: Path) -> None:
    one, two = Authority(tmp_path / "1"), Authority(tmp_path / "2")
    mixed = Tls(
        ca=str(one.ca), cert=one.issue("gtm://agent/eu").cert, key=two.issue("gtm://agent/eu").key
    )
    with pytest.raises(StartError, match="the key is not that of the certificate"):
        Files(mixed, LOG)
    with pytest.raises(StartError, match="go together"):
        Files(Tls(ca=str(one.ca), cert=mixed.cert), LOG)
    with pytest.raises(StartError, match="not what PEM files hold"):
        Files(Tls(ca=mixed.key), LOG)


def test_an_own_certificate_that_has_ended_is_told_to_who_is_not_heard(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert not tls_files.hint(authority.issue("gtm://agent/eu"))
    assert not tls_files.hint(Tls())
    ended = authority.issue("gtm://agent/eu", for_s=DAY_S, ago_s=2 * DAY_S)
    assert "ended on" in tls_files.hint(ended)


def test_the_time_left_is_a_metric_of_the_files_in_use(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.issue("gtm://agent/eu", for_s=100.0)
    registry = CollectorRegistry()
    files = {"grpc": Files(tls, LOG)}
    registry.register(CertificateMeter("agent", lambda: files))

    def left(of: str) -> float:
        labels = {"use": "grpc", "of": of}
        return registry.get_sample_value("gtm_agent_certificate_seconds", labels) or 0.0

    assert 95 < left("own") <= 100
    assert left("authority") > 99 * DAY_S
    authority.issue("gtm://agent/eu", for_s=200.0)
    assert 195 < left("own") <= 200


class Answering(operator_pb2_grpc.OperatorServicer):
    async def WatchVerdicts(self, request: Any, context: Any) -> None:
        for number in range(2):
            await context.write(pb.WatchVerdictsResponse(gone=bool(number)))
            await asyncio.Event().wait() if number else await asyncio.sleep(0)

    async def Status(self, request: Any, context: Any) -> pb.StatusResponse:
        return pb.StatusResponse(coordinator_id="c1")


async def test_a_server_shows_new_certificates_and_its_streams_stand(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.coordinator()
    server = links.server()
    operator_pb2_grpc.add_OperatorServicer_to_server(Answering(), server)
    port = links.listen(server, "127.0.0.1:0", tls)
    await server.start()
    mine = authority.issue("gtm://operator/anna?role=admin")
    try:
        async with links.channel(f"127.0.0.1:{port}", mine) as early:
            stub = operator_pb2_grpc.OperatorStub(early)
            call = stub.WatchVerdicts(pb.ListVerdictsRequest())
            await call.read()
            # Another authority beside the first one, and the server's certificate of the new one.
            after = Authority(tmp_path / "after")
            authority.ca.write_bytes(authority.pair.cert + after.pair.cert)
            fresh = after.pair_of(parse("gtm://coordinator/c1"), "127.0.0.1")
            put(Path(tls.key), fresh.key)
            put(Path(tls.cert), fresh.cert)
            assert (await call.read()).gone, "a stream that stands is not touched"
            new = after.issue("gtm://operator/anna?role=admin")
            async with links.channel(f"127.0.0.1:{port}", new) as late:
                answer = await operator_pb2_grpc.OperatorStub(late).Status(
                    pb.StatusRequest(), timeout=10
                )
            assert answer.coordinator_id == "c1"
            only = Tls(ca=str(after.ca), cert=mine.cert, key=mine.key)
            async with links.channel(f"127.0.0.1:{port}", only) as both:  # the old one still counts
                await operator_pb2_grpc.OperatorStub(both).Status(pb.StatusRequest(), timeout=10)
            authority.ca.write_bytes(after.pair.cert)
            async with links.channel(f"127.0.0.1:{port}", only) as gone:
                with pytest.raises(grpc.aio.AioRpcError):
                    await operator_pb2_grpc.OperatorStub(gone).Status(
                        pb.StatusRequest(), timeout=10
                    )
            await stub.Status(pb.StatusRequest(), timeout=10)
            call.cancel()
    finally:
        await server.stop(None)


# ---- handshakes, alarms --------------------------------------------------------------------------

SAID = [
    (
        b"I1126 16:01:08.765999   11399 ssl_transport_security.cc:2563] Handshake failed with error"
        b" SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: "
        b"unable to get local issuer certificate",
        "authority",
    ),
    (b"ssl_transport_security.cc:1] Handshake failed with x: certificate has expired\n", "expired"),
    (
        b"ssl_transport_security.cc:1] Handshake failed with error SSL_ERROR_SSL: error:100000c0:"
        b"SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE: Invalid",
        "none",
    ),
    (b"ssl_transport_security.cc:1] Handshake failed with WRONG_VERSION_NUMBER", "clear"),
    (b"ssl_transport_security.cc:1] Handshake failed with something else", "other"),
    (b"Traceback (most recent call last):", None),
    (b"", None),
]


@pytest.mark.parametrize(("line", "reason"), SAID)
def test_a_line_of_grpc_about_a_handshake_is_understood(line: bytes, reason: str | None) -> None:
    found = grpc_log.meaning(line)
    assert (found and found.reason) == reason


def test_certificates_that_end_soon_are_one_condition_a_group() -> None:
    def one(group: str, whose: str, ends: float) -> Certificate:
        return Certificate(group=group, whose=whose, begins=0.0, ends=ends)

    now = 850.0
    assert not expiring([one("agents", "agent eu", 1001.0)], now)
    ending = [one("agents", f"agent r{n}", 900.0 + n) for n in range(5)]
    found = expiring([*ending, one("c1", "own", 700.0), one("c1", "etcd", 5000.0)], now)
    assert sorted(found) == ["certificates-end/agents", "certificates-end/c1"]
    text = found["certificates-end/agents"].text
    assert "agent r0 on 1970-01-01 00:15 UTC" in text
    assert "agent r3" not in text
    assert "and 2 more" in text


# ---- gtm up --------------------------------------------------------------------------------------


def test_up_has_a_certificate_for_each_part_keeps_it_and_renews_what_is_due(tmp_path: Path) -> None:
    trust = Trust(tmp_path, for_s=60.0)
    trust.prepare("127.0.0.1:7400", ["eu", "us"], 1)
    names = {path.stem for path in trust.folder.glob("*.pem")} - {"ca"}
    assert names == {
        "etcd", "etcd-root", "coordinator", "resolver-1", "agent-eu", "agent-us", "operator",
    }  # fmt: skip
    before = {name: (trust.folder / f"{name}.pem").read_bytes() for name in names}
    again = Trust(tmp_path, for_s=60.0)
    again.prepare("127.0.0.1:7400", ["eu", "us"], 1)
    assert {name: (trust.folder / f"{name}.pem").read_bytes() for name in names} == before
    assert again.renew() == []
    authority = Authority(tmp_path / "other")
    authority.pair = Folder(trust.folder)._pair()
    authority.folder = trust.folder
    authority.issue("gtm://agent/eu/agent-eu", file="agent-eu", for_s=60.0, ago_s=50.0)
    assert [path.stem for path in again.renew()] == ["agent-eu"]
    (trust.folder / "ca.pem").write_bytes(Authority(tmp_path / "x").pair.cert)
    with pytest.raises(StartError, match="key is not that of its certificate"):
        Folder(trust.folder).issue(Identity(kind="agent", region="eu"), force=True)
    again.prepare("127.0.0.1:7400", ["eu", "us"], 1)
    ca = (trust.folder / "ca.pem").read_bytes()
    assert all(signed((trust.folder / f"{name}.pem").read_bytes(), ca) for name in names)


def test_a_command_finds_the_certificate_of_the_up_beside_it_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = Trust(tmp_path / ".gtm")
    trust.prepare("127.0.0.1:7400", [], 0)
    monkeypatch.chdir(tmp_path)
    found = beside_up("127.0.0.1:7400", {})
    assert found is not None
    assert Path(found.cert).samefile(trust.tls("operator").cert)
    assert beside_up("127.0.0.1:7401", {}) is None
    monkeypatch.chdir("/")
    assert beside_up("127.0.0.1:7400", {}) is None
    assert beside_up("127.0.0.1:7400", {"GTM_DATA_DIR": str(tmp_path / ".gtm")}) is not None
    assert os.stat(found.key if found.key.startswith("/") else tmp_path / found.key).st_size
