"""The guard on a running system: two of three pools die at once, and the backup serves in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ctl.digs import Question, ask, poll
from ctl.origins import Origins
from ctl.running import Running

pytestmark = pytest.mark.integration

POOLS = {letter: [f"127.41.{n}.{k}" for k in range(1, 11)] for n, letter in enumerate("abc", 1)}
NAME = "www.guard.example.net"
DEADLINE_S = 30.0


def config(port: int) -> str:
    """Pools a and b serve together; c stands behind them."""
    pools = {
        name: {"type": "ipv4", "checks": ["web"], "addresses": [{"value": one} for one in values]}
        for name, values in POOLS.items()
    }
    tiers = [{"pools": ["a", "b"]}, {"pools": ["c"]}]
    rule = {"name": "all", "lines": ["default"], "tiers": tiers}
    web = {"type": "http", "port": port, "interval": "1s", "timeout": "500ms"}
    return json.dumps(
        {
            "zones": {"guard.example.net": {"nameservers": ["ns.example.org"]}},
            "checks": {"web": web},
            "pools": pools,
            "instances": {
                "www": {"zone": "guard.example.net", "access_names": [NAME], "rules": [rule]}
            },
        }
    )


class System:
    def __init__(self, running: Running, origins: Origins) -> None:
        self.running, self.origins = running, origins

    def answers(self) -> list[str]:
        """What all resolvers answer together."""
        return sorted(
            {one for dns in self.running.dns for one in ask(dns, Question(NAME)).addresses}
        )

    def gtm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ctl", *arguments],
            env={**os.environ, **self.running.environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.gtm(*arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def held(self) -> list[str]:
        return [one["address"] for one in self.json("health") if one["held"]]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("guard")
    with Origins([one for values in POOLS.values() for one in values]) as origins:
        path = folder / "guard.yaml"
        path.write_text(config(origins.port))
        with Running(folder, config=path) as running:
            yield System(running, origins)


def test_two_pools_die_within_a_second_and_the_backup_serves_in_the_ordinary_time(
    system: System,
) -> None:
    ours = set(POOLS["a"] + POOLS["b"])
    assert poll(lambda: set(system.answers()) <= ours, DEADLINE_S) is not None
    began = time.monotonic()
    system.origins.stop(*POOLS["a"])
    system.origins.stop(*POOLS["b"])
    assert time.monotonic() - began < 1
    backup = set(POOLS["c"])
    took_s = poll(lambda: set(system.answers()) <= backup, DEADLINE_S)
    assert took_s is not None
    print(f"the backup served after {took_s:.2f} s")
    held = system.held()
    assert len(held) == 11
    assert set(held) < ours
    alarms = {one["id"]: one["text"] for one in system.json("status")["alarms"]}
    assert "are held in answers" in alarms["addresses-held"]
    shown = system.gtm("health", held[0]).stdout
    assert "held" in shown
    explained = system.json("explain", NAME)
    whys = {one["address"]: one["why"] for one in explained["candidates"]}
    assert "held" in whys[held[0]]


def test_one_that_is_released_leaves_and_those_that_come_back_are_up(system: System) -> None:
    pool = next(name for name, values in POOLS.items() if system.held()[0] in values)
    first = system.held()[0]
    done = system.gtm("release", f"{pool}/{first}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "held no more" in done.stdout
    assert poll(lambda: first not in system.held(), DEADLINE_S) is not None
    again = system.gtm("release", f"{pool}/{first}")
    assert again.returncode == 1
    assert "nothing to release" in again.stderr
    system.origins.start(*POOLS["a"])
    assert poll(lambda: set(system.answers()) <= set(POOLS["a"]), DEADLINE_S) is not None
    system.origins.start(*POOLS["b"])
    assert poll(lambda: not system.held(), DEADLINE_S) is not None

    def alarmed() -> list[str]:
        return [one["id"] for one in system.json("status")["alarms"]]

    assert poll(lambda: "addresses-held" not in alarmed(), DEADLINE_S) is not None


def test_a_region_is_muted_and_shown_so(system: System) -> None:
    done = system.gtm("force", "region:r2", "mute", "--why", "its uplink is under repair")
    assert (done.returncode, done.stderr) == (0, "")

    def votes() -> dict[str, str]:
        return {one["name"]: one["silenced"] for one in system.json("status")["regions"]}

    assert poll(lambda: "repair" in votes()["r2"], DEADLINE_S) is not None
    one = system.json("health", POOLS["c"][0])[0]
    assert {vote["region"]: vote["vote"] for vote in one["regions"]} == {
        "r1": "up",
        "r2": "none",
        "r3": "up",
    }
    assert system.gtm("force", "region:r9", "mute", "--why", "x").returncode == 1
    assert system.gtm("release", "region:r2").returncode == 0
    assert poll(lambda: not votes()["r2"], DEADLINE_S) is not None
