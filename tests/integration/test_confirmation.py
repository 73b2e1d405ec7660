"""Quick confirmation and canaries with real processes: a coordinator, agents of three regions."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctl.digs import poll
from ctl.origins import Origins
from ctl.running import Running

pytestmark = pytest.mark.integration

ADDRESS, OTHER, FAST = "127.31.1.1", "127.31.1.2", "127.31.1.3"
INTERVAL_S, FALL = 20, 3
CONFIG = """\
zones: {{gtm.test: {{nameservers: [ns1.example.net]}}}}
regions: {{r1: {{}}, r2: {{}}, r3: {{}}}}
checks:
  web: {{type: http, port: {port}, interval: 20s, timeout: 1s, fall: 3, confirm: true}}
  fast: {{type: http, port: {port}, interval: 1s, timeout: 500ms}}
pools:
  a: {{type: ipv4, checks: [web], addresses: [{{value: 127.31.1.1}}, {{value: 127.31.1.2}}]}}
  b: {{type: ipv4, checks: [fast], addresses: [{{value: 127.31.1.3}}]}}
instances:
  shop: {{rules: [{{name: all, lines: [default], tiers: [{{pools: [a, b]}}]}}]}}
"""
BLIND = """\
regions: {r1: {canaries: ["%s"]}, r2: {}, r3: {}}
"""


class System:
    """A running system, its origins, and ways to ask it."""

    def __init__(self, running: Running, origins: Origins, folder: Path) -> None:
        self.running, self.origins, self.folder = running, origins, folder

    def gtm(self, *arguments: str) -> str:
        """What a command prints."""
        done = subprocess.run(
            [sys.executable, "-m", "ctl", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=self.running.environ,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def health(self, address: str) -> Any:
        """The verdict over one address."""
        return json.loads(self.gtm("health", address, "-o", "json"))[0]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("confirm")
    with Origins((ADDRESS, OTHER, FAST)) as origins:
        config = folder / "mine.yaml"
        config.write_text(CONFIG.format(port=origins.port))
        with Running(folder, config=config, resolvers=1) as running:
            yield System(running, origins, folder)


def test_a_fault_is_a_verdict_long_before_fall_intervals_have_passed(system: System) -> None:
    """Without confirmation the third failure of any region comes two intervals after its first."""

    def votes() -> list[str]:
        return [one["vote"] for one in system.health(ADDRESS)["regions"]]

    assert poll(lambda: system.health(ADDRESS)["verdict"] == "up", 30) is not None
    assert poll(lambda: votes() == ["up"] * 3, 30) is not None
    system.origins.stop(ADDRESS)
    began = time.monotonic()
    limit_s = (FALL - 1) * INTERVAL_S
    assert poll(lambda: system.health(ADDRESS)["verdict"] == "down", limit_s) is not None
    assert time.monotonic() - began < limit_s
    seen = system.health(ADDRESS)
    down = [one for one in seen["regions"] if one["vote"] == "down"]
    assert len(down) >= 2
    assert all(one["streak"] >= FALL for one in down)
    assert system.health(OTHER)["verdict"] == "up"


@pytest.fixture
def deaf() -> Iterator[str]:
    """ADDRESS:PORT at which connections neither succeed nor fail: its queue is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.31.1.9", 0))
        server.listen(0)
        host, port = server.getsockname()
        for _ in range(8):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex((host, port))
        yield f"{host}:{port}"


def test_a_region_whose_canaries_fail_has_no_opinion_and_says_why(
    system: System, deaf: str
) -> None:
    def state() -> str:
        agents = json.loads(system.gtm("status", "-o", "json"))["agents"]
        return next(str(one["without_opinion"]) for one in agents if one["region"] == "r1")

    def vote() -> Any:
        return next(one for one in system.health(FAST)["regions"] if one["region"] == "r1")

    assert state() == ""
    config = system.folder / "canaries.yaml"
    config.write_text(BLIND % deaf)
    system.gtm("apply", str(config), "--yes")
    assert poll(lambda: deaf in state(), 30) is not None
    assert f"canaries fail: {deaf}" in system.gtm("status")
    assert poll(lambda: vote()["vote"] == "none", 20) is not None
    assert vote()["reason"].startswith(f"canaries fail: {deaf}")
    assert system.health(FAST)["verdict"] == "up"
    config.write_text(BLIND % f"{FAST}:{system.origins.port}")
    system.gtm("apply", str(config), "--yes")
    assert poll(lambda: state() == "", 30) is not None
    assert poll(lambda: vote()["vote"] == "up", 20) is not None
