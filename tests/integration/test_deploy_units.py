"""The systemd units: verified, scored, and their very commands started with the example settings.

The commands run with the unit's bounding set of capabilities (where we may set it) and without
memory that is writable and executable; links have TLS, as the examples say.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctl.digs import Question, ask, free_port
from ctl.main import main
from gtm.settings import settings
from tests.certificates import Authority

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "systemd"
UNITS = {
    "coordinator": "gtm-coordinator.service",
    "agent": "gtm-agent@.service",
    "resolver": "gtm-resolver@.service",
}
INSTANCE = {"coordinator": "", "agent": "eu", "resolver": "1"}
WORST_SCORE = 16
"""Tenths of systemd's exposure level, from 0 to 100."""
PROGRAM = "/opt/gtm/bin/gtm"
NO_NEW_CODE = (
    "import ctypes, os, sys;"
    "ctypes.CDLL(None).prctl(65, 1, 0, 0, 0);"  # PR_SET_MDWE: as MemoryDenyWriteExecute=
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def values(part: str, key: str) -> list[str]:
    """What a unit says under a key, in order."""
    text = (FOLDER / UNITS[part]).read_text()
    return re.findall(rf"^{key}=(.*)$", text, re.M)


def example(part: str) -> dict[str, str]:
    """The settings of the example file of environment."""
    rows = (FOLDER / f"{part}.env").read_text().splitlines()
    return dict(row.split("=", 1) for row in rows if row and not row.startswith("#"))


def analyze(*arguments: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    units = tmp_path / "etc/systemd/system"
    shutil.copytree("/lib/systemd/system", tmp_path / "lib/systemd/system", symlinks=True)
    units.mkdir(parents=True)
    for unit in UNITS.values():
        shutil.copy(FOLDER / unit, units)
    for name in (PROGRAM, "/bin/kill"):
        program = tmp_path / name.removeprefix("/")
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    names = (unit.replace("@", f"@{INSTANCE[part]}") for part, unit in UNITS.items())
    analyze("verify", f"--root={tmp_path}", *names)


@needs_systemd
@pytest.mark.parametrize("part", UNITS)
def test_a_unit_is_not_exposed(part: str) -> None:
    unit = str(FOLDER / UNITS[part])
    analyze("security", "--offline=yes", f"--threshold={WORST_SCORE}", "--no-pager", unit)


@needs_systemd
def test_the_user_of_the_units_is_made_by_the_shipped_file() -> None:
    assert {user for part in UNITS for user in values(part, "User")} == {"gtm"}
    assert re.search(r"^u gtm ", (FOLDER / "gtm.sysusers").read_text(), re.M)


@pytest.mark.parametrize("part", UNITS)
def test_the_examples_set_what_the_part_has(part: str) -> None:
    module = __import__(f"{part}.settings", fromlist=["Settings"])
    assert example(part).keys() <= {one.variable for one in settings(module.Settings)}


# ---- the commands, run ---------------------------------------------------------------------------


class Host:
    """Runs the units' commands with their examples, ports and paths moved to a folder of ours."""

    def __init__(self, folder: Path, etcd: str) -> None:
        self.folder = folder
        self.root = os.geteuid() == 0 and shutil.which("setpriv") is not None
        dice = random.SystemRandom()
        address = f"127.{dice.randrange(64, 250)}.{dice.randrange(256)}.53"
        # Port 53 where the unit's one capability is all that we have: else any port.
        self.dns = f"{address}:53" if self.root and _free(address) else f"127.0.0.1:{free_port()}"
        grpc = f"127.0.0.1:{free_port()}"
        self.grpc = grpc
        authority = Authority(folder)
        authority.issue("gtm://coordinator/c1", "127.0.0.1", file="coordinator")
        authority.issue(f"gtm://agent/{INSTANCE['agent']}", file="agent")
        authority.issue("gtm://resolver/1", file="resolver")
        authority.issue("gtm://operator/anna?role=admin", file="operator")
        self.http = {part: f"127.0.0.1:{free_port()}" for part in UNITS}
        self.moved = {
            "GTM_GRPC": grpc,
            "GTM_ADVERTISE": grpc,
            "GTM_COORDINATORS": grpc,
            "GTM_ETCD": etcd,
            "GTM_ETCD_CA": "",
            "GTM_ETCD_CERT": "",
            "GTM_ETCD_KEY": "",
            "GTM_LISTEN": self.dns,
            "GTM_CA": str(folder / "ca.pem"),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environ(self, part: str) -> dict[str, str]:
        own = {
            "GTM_HTTP": self.http[part],
            "GTM_CERT": str(self.folder / f"{part}.pem"),
            "GTM_KEY": str(self.folder / f"{part}.key"),
        }
        given = example(part)
        moved = {key: text for key, text in (self.moved | own).items() if key in given}
        state = {
            name: text.replace("%S", str(self.folder))
            for name, _, text in (one.partition("=") for one in values(part, "Environment"))
        }
        for directory in values(part, "StateDirectory"):
            (self.folder / directory).mkdir(exist_ok=True)
        return {**state, **given, **moved, "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}

    def command(self, part: str) -> list[str]:
        [line] = values(part, "ExecStart")
        line = line.replace("%i", INSTANCE[part]).replace("%H", socket.gethostname())
        program, *rest = shlex.split(line)
        assert program == PROGRAM
        confined = [sys.executable, "-c", NO_NEW_CODE]
        if self.root:
            [capabilities] = values(part, "CapabilityBoundingSet")
            only = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in
                           capabilities.split())  # fmt: skip
            confined += ["setpriv", "--no-new-privs", "--inh-caps=-all"]
            confined += [f"--bounding-set=-all{only}"]
        return [*confined, sys.executable, "-m", "ctl", *rest]

    def start(self, part: str) -> None:
        with (self.folder / f"{part}.log").open("ab") as log:
            self.processes[part] = subprocess.Popen(
                self.command(part), env=self.environ(part), cwd=ROOT,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until(lambda: self.ready(part), lambda: self.log(part))

    def ready(self, part: str) -> bool:
        assert self.processes[part].poll() is None, self.log(part)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with (
            contextlib.suppress(OSError),
            opener.open(f"http://{self.http[part]}/readyz", timeout=5) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def log(self, part: str) -> str:
        return (self.folder / f"{part}.log").read_text(errors="replace")

    def stop(self) -> None:
        for process in reversed(list(self.processes.values())):
            process.terminate()
        for process in self.processes.values():
            process.wait(15)


def _free(address: str) -> bool:
    with contextlib.suppress(OSError):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.bind((address, 53))
        return True
    return False


def until(condition: Callable[[], Any], why: Callable[[], str], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


@pytest.fixture
def host(tmp_path: Path, start_etcd: Callable[..., Any]) -> Iterator[Host]:
    made = Host(tmp_path, start_etcd().endpoint)
    try:
        yield made
    finally:
        made.stop()


CONFIGURATION = """
regions: {eu: {}}
zones: {gtm-000.test: {nameservers: [ns1.gtm-000.test]}}
checks: {alive: {type: ping, interval: 1s, timeout: 500ms, packets: 2, spacing: 10ms}}
pools: {a: {type: ipv4, checks: [alive], addresses: [{value: 127.0.0.1}]}}
instances:
  shop:
    id: gtm12345678
    rules: [{name: world, lines: [default], tiers: [{pools: [a]}]}]
"""


def test_the_units_commands_become_ready_and_serve_what_ping_finds(
    host: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    for part in UNITS:
        host.start(part)
    (host.folder / "first.yaml").write_text(CONFIGURATION)
    tls = [f"--{name}={host.folder / file}" for name, file in (
        ("ca", "ca.pem"), ("cert", "operator.pem"), ("key", "operator.key"))]  # fmt: skip
    path = str(host.folder / "first.yaml")
    until(
        lambda: main(["apply", path, "--yes", f"--server={host.grpc}", *tls]) == 0,
        lambda: capfd.readouterr().err + host.log("coordinator"),
    )
    question = Question("gtm12345678.gtm-000.test")
    until(
        lambda: ask(host.dns, question, tries=1).addresses == {"127.0.0.1"},
        lambda: host.log("agent") + host.log("coordinator") + host.log("resolver"),
    )
    name = f"{socket.gethostname()}-1"
    assert {path.name for path in (host.folder / "gtm-resolver").iterdir()} == {
        f"{name}.snapshot",
        f"{name}.takeover",
    }
    if host.root and not host.dns.endswith(":53"):
        pytest.skip("all but the port: somebody has port 53 of the whole of 127.0.0.0/8")


def test_the_kernel_that_runs_this_denies_new_code_or_says_that_it_cannot() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    done = subprocess.run(
        [sys.executable, "-c", NO_NEW_CODE, sys.executable, "-c",
         "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)"],
        capture_output=True, check=False,
    )  # fmt: skip
    supported = libc.prctl(66, 0, 0, 0, 0) >= 0  # PR_GET_MDWE, Linux 6.3
    assert (done.returncode != 0) is supported
