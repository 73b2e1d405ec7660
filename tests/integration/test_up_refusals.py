"""What `gtm up` refuses to start with: one sentence, the right status, no trace, nothing left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctl.ground import Ports
from ctl.running import free_ports
from gtm.settings import unset

pytestmark = pytest.mark.integration


@pytest.fixture
def ports() -> Ports:
    return free_ports(3, 2)


def up(
    ports: Ports, data: Path, *more: str, environ: dict[str, str] | None = None
) -> tuple[int, str]:
    """(exit status, stderr) of a `gtm up` that must not start."""
    clean = unset(os.environ)
    arguments = [f"--base-port={ports.base}", f"--dns={ports.dns(0)}", f"--data-dir={data}", *more]
    done = subprocess.run(
        [sys.executable, "-m", "ctl", "up", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean | (environ or {}),
        check=False,
    )
    assert "ready" not in done.stdout.split()
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def one_sentence(err: str) -> str:
    """The only line there is, without the command's name."""
    assert err.startswith("gtm: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    return err.removeprefix("gtm: ").rstrip("\n")


TAKEN: list[tuple[str, Callable[[Ports], int], int, str]] = [
    ("coordinator", lambda ports: ports.base, socket.SOCK_STREAM, "--base-port"),
    ("etcd", lambda ports: ports.etcd[0], socket.SOCK_STREAM, "--base-port"),
    ("agent", lambda ports: ports.base + 3, socket.SOCK_STREAM, "--base-port"),
    ("dns over UDP", lambda ports: ports.dns_port + 1, socket.SOCK_DGRAM, "--dns"),
    ("dns over TCP", lambda ports: ports.dns_port, socket.SOCK_STREAM, "--dns"),
]


@pytest.mark.parametrize(("what", "number", "kind", "flag"), TAKEN, ids=[one[0] for one in TAKEN])
def test_a_port_in_use(
    ports: Ports,
    tmp_path: Path,
    what: str,
    number: Callable[[Ports], int],
    kind: int,
    flag: str,
) -> None:
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", number(ports)))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        status, err = up(ports, tmp_path / "data")
    sentence = one_sentence(err)
    assert status == 1
    assert f"port {number(ports)} on 127.0.0.1" in sentence
    assert "is in use" in sentence
    assert flag in sentence


def test_an_etcd_that_nobody_runs(ports: Ports, tmp_path: Path, port: int) -> None:
    status, err = up(ports, tmp_path / "data", f"--etcd=http://127.0.0.1:{port}")
    assert status == 3
    assert one_sentence(err).startswith(f"cannot reach etcd at http://127.0.0.1:{port}")


def test_a_wrong_etcd_password(
    ports: Ports, tmp_path: Path, start_etcd: Callable[..., Any]
) -> None:
    server = start_etcd()
    server.ctl("user", "add", "root:right")
    server.ctl("user", "grant-role", "root", "root")
    server.ctl("auth", "enable")
    for environ in ({"GTM_ETCD_USER": "root", "GTM_ETCD_PASSWORD": "wrong"}, {}):
        status, err = up(ports, tmp_path / "data", f"--etcd={server.endpoint}", environ=environ)
        sentence = one_sentence(err)
        assert status == 1
        assert "refuses us" in sentence
        assert "GTM_ETCD_PASSWORD" in sentence
        assert "wrong)" not in sentence


def test_a_data_directory_that_takes_no_files(ports: Ports, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    status, err = up(ports, in_the_way / "data")
    assert status == 1
    assert one_sentence(err) == (
        f"cannot write the data directory {in_the_way}/data (Not a directory): "
        "mend it or choose another with --data-dir"
    )


def test_a_data_directory_that_another_uses(ports: Ports, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, err = up(ports, tmp_path)
    assert status == 1
    assert "another gtm up uses the data directory" in one_sentence(err)


def test_a_geo_file_that_is_missing_or_none(ports: Ports, tmp_path: Path) -> None:
    status, err = up(ports, tmp_path / "data", f"--geo={tmp_path}/no.mmdb")
    assert status == 2
    assert one_sentence(err).startswith(f"--geo: cannot read {tmp_path}/no.mmdb (No such file")
    (tmp_path / "bad.mmdb").write_bytes(b"not a database" * 100)
    status, err = up(ports, tmp_path / "data", f"--geo={tmp_path}/bad.mmdb")
    assert status == 2
    assert "is no MaxMind-format file" in one_sentence(err)


WRONG_USE = [
    ("--regions=eu,us,eu", "--regions names 'eu' twice: an agent runs once a region"),
    ("--regions=e u", "--regions: 'e u' is no name"),
    ("--regions=" + ",".join(f"r{n}" for n in range(39)), "--regions names 39: 38 is the most"),
    ("--dns=localhost", "--dns 'localhost' is not ADDRESS:PORT"),
    ("--resolvers=0", "--resolvers: '0' is less than 1"),
    ("--resolvers=two", "--resolvers: 'two' is not a whole number"),
    ("--base-port=1", "--base-port 1: choose one from 22"),
    ("--etcd=ftp://x", "--etcd: etcd endpoint 'ftp://x'"),
]


HANDED_ON = [
    ("--guard-share=plenty", "--guard-share: 'plenty' is not a share"),
    ("--webhook=ftp://x", "--webhook is no http:// or https:// URL"),
    ("--webhook-secret=/no/such", "--webhook-secret or --webhook-ca can't be read: No such file"),
    ("--lease=1500ms", "--lease: etcd counts whole seconds"),
]


@pytest.mark.parametrize(("flag", "words"), HANDED_ON, ids=[flag for flag, _ in HANDED_ON])
def test_what_coordinators_refuse(ports: Ports, tmp_path: Path, flag: str, words: str) -> None:
    url = [] if flag.startswith("--webhook=") else ["--webhook=http://127.0.0.1:9"]
    status, err = up(ports, tmp_path / "data", flag, *url)
    assert words in one_sentence(err)
    assert status == 2


@pytest.mark.parametrize(("flag", "words"), WRONG_USE, ids=[flag for flag, _ in WRONG_USE])
def test_wrong_use(ports: Ports, tmp_path: Path, flag: str, words: str) -> None:
    status, err = up(ports, tmp_path / "data", flag)
    assert one_sentence(err).startswith(words)
    assert status == 2
    assert not (tmp_path / "data" / "etcd").exists()


def test_wrong_files_are_all_reported_and_nothing_is_started(ports: Ports, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("pools:\n  a: {type: ipv5}\n")
    (tmp_path / "b.yaml").write_text("zonez: {}\n")
    status, err = up(
        ports, tmp_path / "data", "-c", f"{tmp_path}/a.yaml", "-c", f"{tmp_path}/b.yaml"
    )
    assert status == 1
    assert f"{tmp_path}/a.yaml:2: pools.a.type" in err
    assert f"{tmp_path}/b.yaml:1" in err
    assert not (tmp_path / "data").exists()


def test_files_that_do_not_fit_together_are_refused_with_their_place(
    ports: Ports, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("pools:\n  a:\n    type: ipv4\n    checks: [nothere]\n")
    status, err = up(ports, tmp_path / "data", "-c", f"{tmp_path}/a.yaml")
    assert status == 1
    assert f"{tmp_path}/a.yaml:4: pools.a.checks" in err
    assert not (tmp_path / "data").exists()


def test_a_part_that_refuses_to_start_says_one_sentence_too(port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ctl", "coordinator", f"--grpc=0.0.0.0:{port}", "--http="],
        capture_output=True,
        text=True,
        timeout=60,
        env={name: text for name, text in os.environ.items() if name[:3] not in ("GTM", "GRP")},
        check=False,
    )
    assert done.returncode == 2
    assert "wants mutual TLS: give --ca, --cert and --key" in one_sentence(done.stderr)


def test_an_etcd_that_has_users_is_not_started_in_the_clear(ports: Ports, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "etcd").mkdir(parents=True)
    (data / "tls").mkdir()
    (data / "tls" / "etcd-root.pem").write_text("")
    status, err = up(ports, data, "--insecure")
    assert status == 2
    assert one_sentence(err).startswith(f"the etcd in {data} has users")
