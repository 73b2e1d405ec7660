"""Certificates in running systems: renewal under traffic, the walk-through of docs/deploy.md."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctl.digs import poll
from ctl.main import main
from ctl.origins import Origins
from ctl.running import Running
from gtm.embedded import find_etcd
from gtm.errors import StartError
from gtm.tls_files import until
from tests import faults
from tests.etcds import free_port
from tests.faults import REGIONS, SOON_S, A, B, picture
from tests.load import Load

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/deploy.md").read_text()
RATE = 100.0
"""Queries a second to each resolver."""
SICK = A[2]
DROPPED = "gtm_agent_dropped_results_total"


def fetched(door: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{door}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def metric(door: str, name: str, **labels: str) -> float:
    wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    for line in fetched(door).splitlines():
        if line.startswith((f"{name}{{{wanted}}} ", f"{name} ")):
            return float(line.rpartition(" ")[2])
    return -1.0


@pytest.fixture(scope="module")
def origins() -> Iterator[Origins]:
    with Origins((*A, *B)) as origins:
        origins.stop(SICK)
        yield origins


@pytest.fixture(scope="module")
def up(origins: Origins, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    try:
        find_etcd()
    except StartError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("up")
    with Running(folder, config=faults.written(folder, origins.port)) as running:
        assert poll(lambda: whole(running), SOON_S, 0.1) is not None
        yield running


def whole(running: Running) -> bool:
    return faults.settled(running.server, ("resolver-1", "resolver-2"))


def events(up: Running, part: str) -> list[str]:
    found = []
    for line in (up.data / "logs" / f"{part}.log").read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            found.append(str(json.loads(line).get("event", "")))
    return found


PARTS = ("coordinator", *(f"agent-{region}" for region in REGIONS), "resolver-1", "resolver-2")


def test_renewal_under_traffic_costs_no_answer_no_result_and_no_restart(
    up: Running, origins: Origins
) -> None:
    tls = up.data / "tls"
    pids = {part: up.pid(part) for part in PARTS}
    agents = {f"agent-{region}": up.ports.agent(n) for n, region in enumerate(REGIONS)}
    opened = {name: events(up, name).count("stream open") for name in agents}
    turned = changes(up)
    with Load(up.dns, picture(SICK), RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
        before = {name: until((tls / f"{name}.pem").read_bytes()) for name in PARTS}
        time.sleep(1.0 - time.time() % 1.0)  # ends are whole seconds
        assert main(["ca", "renew", "--all", f"--dir={tls}"]) == 0
        after = {name: until((tls / f"{name}.pem").read_bytes()) for name in PARTS}
        assert all(after[name] > before[name] for name in PARTS)

        def renewed() -> bool:
            streams = all(events(up, name).count("stream open") > opened[name] for name in agents)
            return streams and whole(up)

        renewed_s = poll(renewed, SOON_S, 0.2)
        assert poll(lambda: served(up, after), SOON_S, 0.2) is not None
        load.turning(picture(SICK, A[0]))  # the agents' results go on to count
        origins.stop(A[0])
        assert load.arrives(SOON_S) is not None
        load.turning(picture(SICK))
        origins.start(A[0])
        assert load.arrives(SOON_S) is not None
    faults.all_right(load, renewed_s, up.dns)
    assert {part: up.pid(part) for part in PARTS} == pids
    for name, door in agents.items():
        lost = [line for line in fetched(door).splitlines() if line.startswith(DROPPED)]
        assert lost, name
        assert all(line.endswith(" 0.0") for line in lost), (name, lost)
    assert changes(up) == [count + 1 for count in turned], "down and up again, nothing else"


def changes(up: Running) -> list[float]:
    """How many verdicts turned down and up so far."""
    name = "gtm_coordinator_verdict_changes_total"
    return [max(0.0, metric(up.ports.http, name, verdict=verdict)) for verdict in ("down", "up")]


def served(up: Running, ends: dict[str, float]) -> bool:
    """Whether every part says that it has its new certificate."""
    doors = {
        "coordinator": (up.ports.http, "coordinator"),
        "resolver-1": (up.ports.resolver(0), "resolver"),
        **{f"agent-{name}": (up.ports.agent(n), "agent") for n, name in enumerate(REGIONS)},
    }
    for name, (door, part) in doors.items():
        left = metric(door, f"gtm_{part}_certificate_seconds", of="own", use="grpc")
        if abs(time.time() + left - ends[name]) > 0.5:
            return False
    return True


def test_a_coordinator_that_starts_again_is_found_with_the_new_certificates(up: Running) -> None:
    old = up.pid("coordinator")
    with Load(up.dns, picture(SICK), RATE) as load:
        os.kill(old, signal.SIGKILL)
        back_s = poll(lambda: up.pid("coordinator") not in (0, old) and whole(up), SOON_S, 0.1)
    faults.all_right(load, back_s, up.dns)


def test_up_speaks_in_the_clear_only_where_told(tmp_path: Path, up: Running) -> None:
    for words in (["--insecure"], []):
        done = subprocess.run(
            [sys.executable, "-m", "ctl", *words, "--server", up.server, "status"],
            cwd=tmp_path,
            env={key: text for key, text in os.environ.items() if not key.startswith("GTM_")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (2, 3), done.stdout


# ---- the walk-through ----------------------------------------------------------------------------


SECTION = PAGE.partition("## A TLS walk-through")[2].partition("\n## ")[0]
LINES = [
    line for block in re.findall(r"```sh\n(.*?)```", SECTION, re.S) for line in block.splitlines()
]


class Walk:
    """Runs the lines in an empty folder, each part on ports of its own."""

    def __init__(self, folder: Path, etcd: str) -> None:
        self.folder, self.etcd = folder, etcd
        grpc, self.http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.other = f"127.0.0.1:{free_port()}"
        clean = {key: text for key, text in os.environ.items() if not key.startswith("GTM_")}
        self.environ = clean | {
            "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}",
            "GTM_SERVER": grpc,
            "GTM_GRPC": grpc,
            "GTM_COORDINATORS": grpc,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, line: str) -> None:
        command, _, said = line.partition("#")
        command = command.strip().replace("http://127.0.0.1:2379", self.etcd)
        command = command.replace("127.0.0.1:7410", self.other)
        if command.startswith("export "):
            name, _, text = command.removeprefix("export ").partition("=")
            self.environ[name] = text
        elif command.endswith("&"):
            self.start(command.removesuffix("&").strip(), said.strip())
        else:
            self.ask(command, said.strip())

    def start(self, command: str, said: str) -> None:
        words = command.split()
        name = words[1] if words[1] == "coordinator" else f"agent-{words[3]}"
        door = self.http if name == "coordinator" else f"127.0.0.1:{free_port()}"
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command.split(), cwd=self.folder, env=self.environ | {"GTM_HTTP": door},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        said = said or ("ready" if name == "coordinator" else "stream open")
        self.until(lambda: said in self.log(name), name)

    def ask(self, command: str, said: str) -> None:
        done = subprocess.run(
            ["sh", "-c", command], cwd=self.folder, env=self.environ,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        expected = re.match(r"exit (\d)(?:: (.*))?$", said)
        status, words = (int(expected[1]), expected[2] or "") if expected else (0, "")
        assert done.returncode == status, (command, done.stdout, done.stderr)
        assert words in done.stderr, (command, done.stderr)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, holds: Callable[[], bool], name: str) -> None:
        assert poll(holds, SOON_S, 0.05) is not None, self.log(name)

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(15)


def test_the_walk_through_goes_as_the_page_says(
    tmp_path: Path, start_etcd: Callable[..., Any]
) -> None:
    folder = tmp_path / "walk"
    folder.mkdir()
    walk = Walk(folder, start_etcd().endpoint)
    renewal = next(n for n, line in enumerate(LINES) if line.startswith("gtm ca renew"))
    try:
        for line in LINES[:renewal]:
            walk.run(line)
        streams = walk.log("agent-eu").count("stream open")
        for line in LINES[renewal:]:
            walk.run(line)
        walk.until(lambda: walk.log("agent-eu").count("stream open") > streams, "agent-eu")
        refused = [
            json.loads(line)["why"]
            for line in walk.log("coordinator").splitlines()
            if '"event": "refused"' in line
        ]
        assert sorted(refused) == sorted(
            [
                "rita has the role read, this needs admin",
                "an agent may not do what is an operator's",
                "it showed a certificate of another authority",
                "it showed a certificate that has ended",
                "it showed something that is not TLS",
                "its certificate is for region eu, it may not vote for us",
            ]
        )
        page = fetched(walk.http)
        for reason in ("role", "kind", "region"):
            assert f'gtm_coordinator_refused_calls_total{{reason="{reason}"}}' in page
        for reason in ("authority", "expired", "clear"):
            assert f'gtm_coordinator_failed_handshakes_total{{reason="{reason}"}}' in page
    finally:
        walk.stop()


def test_an_agent_whose_certificate_has_ended_comes_back_with_a_new_one(
    tmp_path: Path, start_etcd: Callable[..., Any]
) -> None:
    walk = Walk(tmp_path, start_etcd().endpoint)
    try:
        for line in (
            "gtm ca init",
            "gtm ca issue coordinator",
            "gtm ca issue agent --region eu",
            next(line for line in LINES if line.startswith("gtm coordinator")),
            next(line for line in LINES if line.startswith("gtm agent --region eu")),
        ):
            walk.run(line)
        walk.run("gtm ca issue agent --region eu --for 8s --force")  # it is read, and used
        walk.until(lambda: "our certificate tls/agent-eu.pem ended on" in walk.log("agent-eu"),
                   "agent-eu")  # fmt: skip
        told = ("its certificate has ended: renew it", "it showed a certificate that has ended")
        walk.until(lambda: any(why in walk.log("coordinator") for why in told), "coordinator")
        opened = walk.log("agent-eu").count("stream open")
        walk.run("gtm ca issue agent --region eu --force")
        walk.until(lambda: walk.log("agent-eu").count("stream open") > opened, "agent-eu")
        assert walk.processes["agent-eu"].poll() is None
    finally:
        walk.stop()
