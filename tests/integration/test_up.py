"""`gtm up` with a configuration of one's own, asked by dig, hurt, and looked at by the commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctl.digs import poll
from ctl.origins import Origins
from ctl.running import Running
from gtm.errors import StartError

pytestmark = pytest.mark.integration

V4 = ("127.11.1.1", "127.11.1.2")
V6 = ("::1",)
DEADLINE_S = 30.0

CONFIG = """\
zones:
  gtm.example.net:
    nameservers: [ns1.gtm.example.net]
    records:
      - {{name: ns1, type: A, data: [127.0.0.1]}}
      - {{name: "@", type: MX, data: [10 mail.example.org.]}}
      - {{name: long, type: TXT, data: [{long}]}}
regions: {{north: {{}}, south: {{}}}}
checks:
  web: {{type: http, port: {port}, interval: 1s, timeout: 500ms}}
pools:
  four:
    type: ipv4
    checks: [web]
    addresses: [{{value: 127.11.1.1}}, {{value: 127.11.1.2}}]
  six: {{type: ipv6, checks: [web], addresses: [{{value: "::1"}}]}}
instances:
  shop:
    id: gtm00000001
    domain: shop.example.org
    ttl: 30s
    rules:
      - {{name: all, lines: [default], tiers: [{{pools: [four, six]}}]}}
"""
NAME = "gtm00000001.gtm.example.net"


class System:
    """A running system, its origins, and ways to ask it."""

    def __init__(self, running: Running, origins: Origins, config: Path) -> None:
        self.running, self.origins, self.config = running, origins, config

    def dig(self, *arguments: str, resolver: int = 0) -> str:
        """What dig prints; the test is skipped where there is none."""
        if shutil.which("dig") is None:
            pytest.skip("dig is missing (Debian: bind9-dnsutils)")
        host, _, port = self.running.dns[resolver].rpartition(":")
        done = subprocess.run(
            ["dig", f"@{host}", "-p", port, "+time=2", "+tries=3", *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout

    def short(self, *arguments: str, resolver: int = 0) -> list[str]:
        """The answer's data alone, sorted."""
        return sorted(self.dig("+short", *arguments, resolver=resolver).split("\n")[:-1])

    def gtm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a client command against it."""
        return gtm(*arguments, beside=self.running)

    def json(self, *arguments: str) -> Any:
        """What a command says as JSON."""
        done = self.gtm(*arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def gtm(*arguments: str, beside: Running) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("GTM_")}
    environ |= beside.environ
    return subprocess.run(
        [sys.executable, "-m", "ctl", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environ,
        check=False,
    )


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("up")
    with Origins((*V4, *V6)) as origins:
        config = folder / "mine.yaml"
        config.write_text(CONFIG.format(port=origins.port, long=" ".join(["x" * 250] * 4)))
        with Running(folder, config=config) as running:
            yield System(running, origins, config)


DIGS = [
    (["A", NAME], "NOERROR", ["127.11.1.1", "127.11.1.2"]),
    (["AAAA", NAME], "NOERROR", ["::1"]),
    (["A", NAME, "+tcp"], "NOERROR", ["127.11.1.1", "127.11.1.2"]),
    (["A", NAME.upper()], "NOERROR", ["127.11.1.1", "127.11.1.2"]),
    (["A", NAME, "+subnet=203.0.113.0/24"], "NOERROR", ["127.11.1.1", "127.11.1.2"]),
    (["MX", "gtm.example.net"], "NOERROR", ["10 mail.example.org."]),
    (["A", "nobody.gtm.example.net"], "NXDOMAIN", []),
    (["MX", NAME], "NOERROR", []),
    (["A", "www.elsewhere.org"], "REFUSED", []),
]


def test_the_trail_accounts_for_everything_that_up_applied(system: System) -> None:
    found = system.json("history", "--verify")
    assert (found["covered"], found["older"], found["wrong"]) == (7, 0, [])


@pytest.mark.parametrize("resolver", [0, 1])
@pytest.mark.parametrize(("question", "rcode", "data"), DIGS, ids=lambda value: str(value))
def test_dig_gets_the_answer_that_was_configured(
    system: System, question: list[str], rcode: str, data: list[str], resolver: int
) -> None:
    full = system.dig(*question, resolver=resolver)
    assert f"status: {rcode}" in full
    assert system.short(*question, resolver=resolver) == data


def test_an_answer_too_large_for_udp_comes_over_tcp(system: System) -> None:
    cut = system.dig("TXT", "long.gtm.example.net", "+bufsize=512", "+ignore")
    assert " tc" in next(line for line in cut.splitlines() if "flags:" in line)
    assert len(system.short("TXT", "long.gtm.example.net", "+bufsize=512")[0]) > 1000


def test_the_agents_are_those_of_the_declared_regions(system: System) -> None:
    status = system.json("status")
    assert sorted(agent["region"] for agent in status["agents"]) == ["north", "south"]
    assert {resolver["lag"] for resolver in status["resolvers"]} == {0}
    assert status["pools_published"] == status["pools"] == 2


def votes(system: System, address: str) -> set[str]:
    [verdict] = system.json("health", address)
    return {vote["vote"] for vote in verdict["regions"]}


def test_during_a_fault_health_explain_and_status_say_what_dig_shows(system: System) -> None:
    system.origins.stop(V4[0])
    try:
        assert poll(lambda: system.short("A", NAME) == [V4[1]], DEADLINE_S, 0.1) is not None
        # A majority decides; the last region's vote follows with its next probe.
        assert poll(lambda: votes(system, V4[0]) == {"down"}, DEADLINE_S, 0.1) is not None
        [verdict] = system.json("health", V4[0])
        assert (verdict["verdict"], verdict["pool"]) == ("down", "four")
        assert all(vote["reason"] for vote in verdict["regions"])
        told = system.json("explain", NAME)
        assert {one["address"]: one["in"] for one in told["candidates"]} == {
            V4[0]: False,
            V4[1]: True,
        }
        assert told["possible_answers"] == [[V4[1]]]
        human = system.gtm("explain", "shop.example.org").stdout
        assert f"out {V4[0]}  four: judged down" in human
        caught_up = poll(
            lambda: {one["lag"] for one in system.json("status")["resolvers"]} == {0}, DEADLINE_S
        )
        assert caught_up is not None
    finally:
        system.origins.start(V4[0])
    assert poll(lambda: len(system.short("A", NAME)) == 2, DEADLINE_S, 0.1) is not None


def test_a_killed_part_is_started_again_and_no_answer_changes(system: System) -> None:
    before = [system.short("A", NAME, resolver=number) for number in (0, 1)]
    for part in ("coordinator", "resolver-2"):
        old = system.running.pid(part)
        os.kill(old, signal.SIGKILL)
        assert poll(lambda old=old, part=part: system.running.pid(part) not in (0, old), DEADLINE_S)

    def same() -> bool:
        assert system.short("A", NAME, resolver=0) == before[0]
        return (
            system.short("A", NAME, resolver=1) == before[1]
            and system.gtm("status").returncode == 0
            and len(system.json("status")["resolvers"]) == 2
        )

    assert poll(same, DEADLINE_S, 0.2) is not None
    assert "coordinator (pid" in system.running.told()


def test_apply_and_delete_reach_dig(system: System, tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(
        "zones:\n  more.example.net:\n    nameservers: [ns.example.org]\n"
        '    records: [{name: "*", type: A, data: [192.0.2.7]}]\n'
    )
    done = system.gtm("apply", str(more), "--yes")
    assert done.returncode == 0, done.stderr
    assert "+ create zones/more.example.net" in done.stdout
    wanted = ["192.0.2.7"]
    assert poll(lambda: system.short("any.more.example.net") == wanted, DEADLINE_S, 0.1) is not None
    assert system.gtm("plan", str(more)).stdout == "nothing to change\n"
    assert "more.example.net" in system.json("get", "zones")["zones"]
    assert system.gtm("delete", "zone", "more.example.net").returncode == 0
    assert poll(lambda: "REFUSED" in system.dig("any.more.example.net"), DEADLINE_S, 0.1)
    assert system.gtm("delete", "zone", "more.example.net").returncode == 1


def test_a_set_that_does_not_fit_together_is_refused_with_file_and_line(
    system: System, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("pools:\n  new:\n    type: ipv4\n    checks: [nothere]\n")
    done = system.gtm("apply", str(wrong), "--yes")
    assert done.returncode == 1
    assert f"{wrong}:4: pools.new.checks" in done.stderr
    assert "new" not in system.json("get", "pools")["pools"]


def test_it_ends_in_order_starts_again_on_its_data_and_leaves_nobody_behind(
    tmp_path: Path,
) -> None:
    with Running(tmp_path, regions=("east", "west"), resolvers=1) as running:
        first = children(running)
        assert set(first) == {"coordinator", "agent-east", "agent-west", "resolver-1"}
        running.stop()
        assert not any(map(alive, first.values()))

        running._arguments = [one for one in running._arguments if "--regions" not in one]
        running.start()
        second = children(running)
        assert set(second) == set(first)  # the regions are remembered

        os.kill(running.up_pid, signal.SIGKILL)
        assert poll(lambda: not any(map(alive, second.values())), DEADLINE_S) is not None


def children(running: Running) -> dict[str, int]:
    return {file.stem: int(file.read_text()) for file in (running.data / "run").glob("*.pid")}


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_start_that_would_take_much_out_of_service_refuses_itself(tmp_path: Path) -> None:
    addresses = [f"127.11.2.{number}" for number in range(1, 11)]
    config = tmp_path / "c.yaml"

    def write(values: list[str], port: int) -> None:
        pool = {
            "type": "ipv4",
            "checks": ["web"],
            "addresses": [{"value": value} for value in values],
        }
        check = {"type": "tcp", "port": port, "interval": "1s", "timeout": "500ms"}
        config.write_text(json.dumps({"checks": {"web": check}, "pools": {"a": pool}}))

    with Origins(addresses) as origins:
        write(addresses, origins.port)
        running = Running(tmp_path, config=config, resolvers=1)
        with running:
            pass
        write(addresses[:3], origins.port)
        with pytest.raises(StartError) as caught:
            running.start()
        assert "ended with status 1: refused: the plan takes 7 of 10" in str(caught.value)
        assert str(caught.value).endswith("--allow-mass-change")
        allowed = Running(tmp_path, config=config, resolvers=1, more=["--allow-mass-change"])
        with allowed:
            done = gtm("get", "pool", "a", "-o", "json", beside=allowed)
    assert len(json.loads(done.stdout)["pools"]["a"]["addresses"]) == 3


def test_what_etcd_says_stands_in_a_log_of_its_own(system: System) -> None:
    assert (system.running.data / "logs" / "etcd.log").exists()
