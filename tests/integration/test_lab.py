"""The lab itself; some rows of docs/failures.md in it, and some torture of the etcd client.

`make lab-walk`, `make lab-kills` and `make lab-torture` do all of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ctl.digs import poll
from deploy.lab import spaces
from deploy.lab.ground import Seen
from deploy.lab.lab import Lab
from deploy.lab.nodes import Shape
from gtm.embedded import find_etcd
from gtm.errors import StartError

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
ROWS = (
    "leader-killed",
    "leader-cut-from-etcd",
    "region-cut-from-origins",
    "etcd-cut-in-three",
    "partition-through-the-middle",
)
"""Those that no other test shows; the others take ten minutes."""
SOON_S = 20.0


def ran(module: str, *words: str, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def done(module: str, *words: str) -> str:
    finished = ran(module, *words)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def ground() -> None:
    """Skips by name where no lab can be: without root, iproute2, nftables or etcd."""
    try:
        spaces.check_rights()
        find_etcd()
    except StartError as error:
        pytest.skip(str(error))


def left(lab: Lab) -> list[str]:
    """What there is of a lab: namespaces, disks, its folder."""
    found = [f"namespace {node}" for node in lab.spaces.there()]
    mounts = Path("/proc/mounts").read_text().splitlines()
    found += [line for line in mounts if f"{lab.folder}/" in line]
    return found + ([str(lab.folder)] if lab.folder.exists() else [])


@pytest.fixture(scope="module")
def lab(ground: None) -> Iterator[Lab]:
    lab = Lab(f"t{os.getpid()}")
    lab.up(Shape())
    try:
        yield lab
    finally:
        lab.down()
    assert left(lab) == []


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_page_is_as_it_says_in_the_lab(lab: Lab, row: str, tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    walk = ran("deploy.lab.walk", f"--name={lab.name}", f"--json={path}", row)
    assert walk.returncode == 0, walk.stdout + walk.stderr
    [seen] = msgspec.json.decode(path.read_bytes(), type=list[Seen])
    print(walk.stdout)
    assert seen.problems == ()
    assert seen.counts.answered > 100
    assert (seen.counts.wrong, seen.counts.unanswered) == (0, 0)


def test_links_are_cut_lossy_and_slow_and_mended(lab: Lab) -> None:
    timed = """
import sys, time
from ctl.digs import Question, ask
for _ in range(int(sys.argv[1])):
    began = time.monotonic()
    answer = ask("10.77.4.1:53", Question("ns1.lab.gtm.test"), tries=1)
    print(answer, time.monotonic() - began, sep=";")
"""

    def asked(times: int = 1) -> tuple[str, float]:
        """The last answer, and the least time that one took: the machine may be busy besides."""
        said = subprocess.run(
            lab.inside(sys.executable, "-c", timed, str(times)),
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        rows = [line.split(";") for line in said.stdout.splitlines()]
        return rows[-1][0], min(float(took_s) for _, took_s in rows)

    answer, quick_s = asked(3)
    assert answer == "192.0.2.53"
    lab.delay("client", "resolver-1", 200)
    answer, slow_s = asked(3)
    assert answer == "192.0.2.53"
    assert slow_s > quick_s + 0.3
    lab.heal()
    lab.loss("client", "resolvers", 100)
    assert asked()[0] == "no answer"
    lab.heal()
    lab.cut("resolver-1", "client", one_way=True)
    assert asked()[0] == "no answer"
    lab.heal("client", "resolver-1")
    assert asked()[0] == "192.0.2.53"


def test_programs_are_stopped_continued_killed_and_started(lab: Lab) -> None:
    agent = lab.node("agent-r3")
    lab.stop(agent)
    assert lab.state(agent) == "stopped"
    lab.cont(agent)
    assert poll(lambda: lab.state(agent) == "runs", SOON_S) is not None
    old = lab.pid(agent.name)
    lab.kill(agent)
    assert lab.state(agent) == "ended"
    lab.start(agent)
    assert lab.pid(agent.name) not in (0, old)
    lab.wait("whole")


def test_a_second_lab_of_the_same_name_is_refused_and_harms_nothing(lab: Lab) -> None:
    before = lab.spaces.there()
    again = ran("deploy.lab", f"--name={lab.name}", "up")
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert lab.spaces.there() == before
    lab.wait("whole")


def test_down_after_a_killed_up_leaves_nothing_and_touches_nobody_else(ground: None) -> None:
    lab = Lab(f"k{os.getpid()}")
    foreign = f"gtmlab-k{os.getpid()}x-client"  # as alike as another lab's can be
    spaces.run("ip", "netns", "add", foreign)
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "deploy.lab", f"--name={lab.name}", "up"],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        ) as up:
            began = poll(lambda: "etcd-1" in lab.spaces.there() and lab.pid("etcd-1"), SOON_S)
            up.send_signal(signal.SIGKILL)
        assert began is not None
        pid = lab.pid("etcd-1")
        assert left(lab)
        done("deploy.lab", f"--name={lab.name}", "down")
        assert left(lab) == []
        assert not spaces.lives(pid)
        assert (spaces.NETNS / foreign).exists()
    finally:
        spaces.run("ip", "netns", "del", foreign)


def test_the_etcd_client_survives_cut_lossy_and_slow_links(ground: None) -> None:
    print(done("deploy.lab.torture", f"--name=e{os.getpid()}", "--rounds=1", "--faults=3"))
