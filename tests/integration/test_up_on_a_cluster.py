"""`gtm up --etcd` on three members that are killed, without quorum, full, or sent back in time.

Every answer of every resolver is checked all the while: what was judged down before a fault stays
out, what was up stays in; afterwards what changed meanwhile is published.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctl.digs import Question, ask, poll
from ctl.origins import Origins
from ctl.running import Running
from tests.etcds import EtcdCluster, etcd_binary

pytestmark = pytest.mark.integration

ADDRESSES = ("127.11.7.1", "127.11.7.2", "127.11.7.3")
A, B, C = ADDRESSES
NAME = "gtm00000007.gtm.example.net"
SOON_S = 40.0
CONFIG = """\
zones: {{gtm.example.net: {{nameservers: [ns1.example.org]}}}}
regions: {{north: {{}}, south: {{}}, west: {{}}}}
checks:
  web: {{type: http, port: {port}, interval: 1s, timeout: 500ms}}
pools:
  three:
    type: ipv4
    checks: [web]
    addresses: [{{value: 127.11.7.1}}, {{value: 127.11.7.2}}, {{value: 127.11.7.3}}]
instances:
  shop:
    id: gtm00000007
    rules: [{{name: all, lines: [default], tiers: [{{pools: [three]}}]}}]
"""


class Asking(threading.Thread):
    """Asks every resolver all the time and notes each answer that is none of those allowed."""

    def __init__(self, resolvers: tuple[str, ...]) -> None:
        super().__init__(daemon=True)
        self.asked = 0
        self.wrong: list[str] = []
        self.allowed: tuple[frozenset[str], ...] = ()
        self._resolvers, self._over = resolvers, threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
            for resolver in self._resolvers:
                before = self.allowed
                got = ask(resolver, Question(NAME))
                self.asked += 1
                if got.error or got.addresses not in (*before, *self.allowed):
                    self.wrong.append(f"{resolver}: {got}, not one of {self.allowed}")

    def stop(self) -> None:
        self._over.set()
        self.join()


class System:
    """A running system on a cluster, asked all the time."""

    def __init__(
        self, cluster: EtcdCluster, running: Running, origins: Origins, asking: Asking
    ) -> None:
        self.cluster, self.running, self.origins, self.asking = cluster, running, origins, asking

    def answers(self, *addresses: str) -> bool:
        """Whether both resolvers answer just these."""
        wanted = frozenset(addresses)
        return all(ask(one, Question(NAME)).addresses == wanted for one in self.running.dns)

    def changes_to(self, *addresses: str) -> None:
        """From what is answered now to these, by nothing between; back when all resolvers do."""
        self.asking.allowed = (*self.asking.allowed[-1:], frozenset(addresses))
        assert poll(lambda: self.answers(*addresses), SOON_S, 0.05) is not None, self.told()
        self.asking.allowed = (frozenset(addresses),)

    def stays(self, seconds: float) -> None:
        """Nothing may change for a while."""
        until = self.asking.asked + 20
        time.sleep(seconds)
        assert poll(lambda: self.asking.asked >= until, SOON_S) is not None
        self.right()

    def right(self) -> None:
        assert not self.asking.wrong, self.asking.wrong[:3]

    def apply(self, config: Path) -> subprocess.CompletedProcess[str]:
        """Apply a file by the command."""
        return subprocess.run(
            [
                *(sys.executable, "-m", "ctl", "apply", str(config), "--yes"),
            ],
            env={**os.environ, **self.running.environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def told(self) -> str:
        """What the coordinator's log says last."""
        log = self.running.data / "logs" / "coordinator.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Callable[..., System]]:
    """Starts the whole on a cluster with these flags; all ends after the test."""
    ends: list[Callable[[], None]] = []

    def start(*flags: str) -> System:
        cluster = EtcdCluster(etcd_binary("path"), tmp_path / "cluster", flags)
        ends.append(lambda: [one.stop(signal.SIGKILL) for one in cluster.members] and None)
        cluster.start()
        origins = Origins(ADDRESSES)
        origins.__enter__()
        ends.append(origins.__exit__)
        config = tmp_path / "mine.yaml"
        config.write_text(CONFIG.format(port=origins.port))
        etcd = f"--etcd={','.join(cluster.endpoints)}"
        running = Running(tmp_path / "up", config=config, more=[etcd])
        ends.append(running.stop)
        running.start()
        asking = Asking(running.dns)
        made = System(cluster, running, origins, asking)
        assert poll(lambda: made.answers(*ADDRESSES), SOON_S) is not None
        asking.allowed = (frozenset(ADDRESSES),)
        asking.start()
        ends.append(asking.stop)
        return made

    yield start
    for end in reversed(ends):
        end()


def test_a_killed_member_a_stopped_leader_and_a_lost_quorum_cost_no_answer(
    system: Callable[..., System],
) -> None:
    on = system()
    cluster = on.cluster

    killed = cluster.followers()[0]
    killed.stop(signal.SIGKILL)
    on.origins.stop(A)
    on.changes_to(B, C)
    cluster.start(killed)

    killed = cluster.leader()
    killed.stop(signal.SIGKILL)
    on.origins.start(A)
    on.changes_to(A, B, C)
    cluster.start(killed)

    stopped = cluster.leader()
    stopped.pause()
    on.origins.stop(B)
    on.changes_to(A, C)
    stopped.resume()
    on.stays(1.0)

    lost = [cluster.leader(), cluster.followers()[0]]
    for one in lost:
        one.stop(signal.SIGKILL)
    on.origins.start(B)
    on.origins.stop(C)
    on.stays(6.0)  # longer than a coordinator's lease lives
    on.asking.allowed = (*on.asking.allowed, *map(frozenset, ({A, B, C}, {A}, {A, B})))
    cluster.start(*lost)
    assert poll(lambda: on.answers(A, B), SOON_S, 0.05) is not None, on.told()
    on.asking.allowed = (frozenset({A, B}),)
    on.stays(1.0)


def test_a_full_store_and_a_restored_one_cost_no_answer_and_are_gone_on_from(
    system: Callable[..., System], tmp_path: Path
) -> None:
    on = system(f"--quota-backend-bytes={6 << 20}")
    leader = on.cluster.leader()

    on.origins.stop(A)
    on.changes_to(B, C)
    filled = 0
    while filled < 100:
        full = subprocess.run(
            leader.ctl_command("put", f"/elsewhere/{filled % 3}", "x" * 100_000),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        filled += 1
        if "space exceeded" in full.stderr:
            break
    assert "space exceeded" in full.stderr
    on.origins.start(A)
    on.stays(4.0)
    refused = on.apply(tmp_path / "mine.yaml")
    assert refused.returncode in (0, 3), refused  # nothing differs, so nothing need be written
    more = tmp_path / "more.yaml"
    more.write_text("regions: {east: {}}\n")
    refused = on.apply(more)
    assert refused.returncode != 0
    assert "has used up its quota: compact, defragment" in refused.stderr
    revision = (
        leader.ctl("get", "/elsewhere/0", "-w", "fields").split('"Revision" : ')[1].split()[0]
    )
    leader.ctl("compact", "--physical", revision)
    for one in on.cluster.members:
        one.ctl("defrag")
    leader.ctl("alarm", "disarm")
    on.changes_to(A, B, C)

    snapshot = tmp_path / "snapshot.db"
    leader.ctl("snapshot", "save", str(snapshot))
    on.origins.stop(B)
    on.changes_to(A, C)
    assert on.apply(more).returncode == 0
    for one in on.cluster.members:
        one.stop(signal.SIGKILL)
    on.stays(1.0)
    on.cluster.restore(snapshot)
    # What is restored says that B is up: it may be answered until the regions' word turns it. That
    # A is down too is known from the new history alone: who answers so has left the old one.
    restored = [frozenset(some) for some in ({A, B, C}, {A, C}, {B, C}, {C})]
    on.asking.allowed = tuple(restored)
    on.cluster.start()
    on.origins.stop(A)
    assert poll(lambda: on.answers(C), SOON_S, 0.05) is not None, on.told()
    on.asking.allowed = (frozenset({C}),)
    on.stays(1.0)
    on.origins.start(A)
    on.changes_to(A, C)
    on.origins.start(B)
    on.changes_to(A, B, C)
    assert on.apply(more).returncode == 0
    on.right()
