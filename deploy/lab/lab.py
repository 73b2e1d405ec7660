"""A lab: brings its nodes up and down, stops and kills their programs, and breaks its network.

What it knows lies in its folder, so every command finds the lab as the one before left it, and
`down` finds what is left of one that was killed amid its work.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ctl import show
from gtm.embedded import environment, find_etcd
from gtm.errors import StartError
from gtm.settings import unset

from . import network, relay, spaces, trust, world
from .network import Faults, Pair
from .nodes import CLIENT, GRPC, Node, Shape, chosen, coordinator_address, lab_name, nodes

FOLDER = Path("/var/lib/gtm-lab")
"""A folder below for every lab; root's alone."""
READY_S = 60.0
ROOT = Path(__file__).parents[2]
CLOCK = ("libfaketime.so.1", "apt-get install libfaketime")


def clock_library() -> Path:
    """What turns the clock of a program. Raises StartError where it is not installed."""
    library = next(Path("/usr/lib").glob(f"*/faketime/{CLOCK[0]}"), None)
    if library is None:
        raise StartError(f"the clock of a program is turned by libfaketime: {CLOCK[1]}", 2)
    return library


class Lab:
    """The lab of this name, up or not."""

    def __init__(self, name: str = "lab") -> None:
        self.folder = FOLDER / lab_name(name)
        self.spaces = spaces.Spaces(f"gtmlab-{name}")
        self.name = name

    # ---- up and down -----------------------------------------------------------------------------

    def up(self, shape: Shape, *, parts: bool = True) -> None:
        """Make every node, start it, apply the configuration, wait until all serve it.

        Without `parts` etcd alone runs. Whatever goes wrong, nothing is left of it. Raises
        StartError where the lab is up already, or where the ground is missing.
        """
        spaces.check_rights()
        etcd = find_etcd()
        every = nodes(shape, self.folder)
        if self.spaces.there():
            raise StartError(f"a lab {self.name!r} is there already: take it down first")
        self.down()
        self.folder.mkdir(parents=True, mode=0o700)
        try:
            (self.folder / "shape.json").write_bytes(msgspec.json.encode(shape))
            (self.folder / "etcd.path").write_text(str(etcd))
            text = show.as_yaml(world.configuration(shape)) + "\n"
            (self.folder / "world.yaml").write_text(text)
            if not shape.insecure:
                trust.prepare(self.folder, every)
            self.spaces.make({one.name: one.address for one in every})
            for node in every:
                if node.disk_mb:
                    spaces.mount(self.folder / node.name / "data", node.disk_mb)
            self._start("etcds")
            self.wait("etcd")
            if not shape.insecure:
                spaces.run(*self.inside(sys.executable, "-m", "deploy.lab.trust", self.name))
            if parts:
                self._start("all")
                self.wait("coordinators")
                apply = ("apply", str(self.folder / "world.yaml"), "--yes", *self.operator)
                spaces.run(*self.inside(sys.executable, "-m", "ctl", *apply))
                self.wait("whole")
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End every process of the lab by its id, delete its namespaces, disks and folder."""
        spaces.check_rights()
        self.spaces.remove()
        spaces.unmount_below(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait(self, what: str) -> None:
        """Wait until `etcd`, its `coordinators` or the `whole` lab answers; StartError if not."""
        spaces.run(*self.inside(sys.executable, "-m", "deploy.lab.asking", self.name, what))

    def _start(self, text: str) -> None:
        for node in self.chosen(text):
            self.start(node)

    # ---- what it has -----------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """How many nodes it has; StartError where it is not up."""
        try:
            return msgspec.json.decode((self.folder / "shape.json").read_bytes(), type=Shape)
        except OSError:
            raise StartError(f"there is no lab {self.name!r}: bring it up first", 2) from None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All of them."""
        return nodes(self.shape, self.folder)

    def chosen(self, text: str) -> tuple[Node, ...]:
        """The nodes that a text names."""
        return chosen(self.nodes, text)

    def node(self, name: str) -> Node:
        """The one node of this name."""
        found = self.chosen(name)
        if len(found) != 1:
            raise StartError(f"{name!r} is {len(found)} nodes", 2)
        return found[0]

    @property
    def coordinators(self) -> tuple[str, ...]:
        """Where they are asked."""
        numbers = range(1, self.shape.coordinators + 1)
        return tuple(f"{coordinator_address(number)}:{GRPC}" for number in numbers)

    @property
    def operator(self) -> tuple[str, ...]:
        """The flags by which the client asks the first coordinator."""
        tls = trust.tls(self.folder, trust.OPERATOR)
        files = (f"--ca={tls.ca}", f"--cert={tls.cert}", f"--key={tls.key}")
        return (f"--server={self.coordinators[0]}", *(files if tls else ("--insecure",)))

    def state(self, node: Node) -> str:
        """`runs`, `stopped`, `ended`, or `-` for a node without a program."""
        if not node.command:
            return "-"
        pid = self.pid(node.name)
        if not pid:
            return "ended"
        return "stopped" if spaces.stopped(pid) else "runs"

    def pid(self, name: str) -> int:
        """The process of a node's program; 0 where it has ended."""
        try:
            pid = int((self.folder / name / "pid").read_text())
        except (OSError, ValueError):
            return 0
        return pid if pid in self.spaces.pids(name) else 0

    def log(self, name: str) -> str:
        """What a node's program has said in all its lives."""
        try:
            return (self.folder / name / "log").read_text(errors="replace")
        except OSError:
            return ""

    # ---- programs --------------------------------------------------------------------------------

    def start(self, node: Node, *, clock: bool = False) -> None:
        """Start a node's program; with `clock` its clock can be turned. Nothing where it runs."""
        if not node.command or self.pid(node.name):
            return
        environ = self._environ() | (self._turned(node) if clock else {})
        command = list(node.command)
        if command[0] == "etcd":
            command[0] = (self.folder / "etcd.path").read_text()
        folder = self.folder / node.name
        pid = self.spaces.spawn(node.name, command, folder, environ)
        (folder / "pid").write_text(str(pid))

    def kill(self, node: Node) -> None:
        """kill -9, and wait for its end."""
        self.spaces.end(node.name)

    def stop(self, node: Node) -> None:
        """SIGSTOP: its connections stand, nothing is answered. Back when it stands still."""
        self.spaces.signal(node.name, signal.SIGSTOP)
        pid = self.pid(node.name)
        self._until(lambda: not pid or spaces.stopped(pid), f"{node.name} does not stop")

    def cont(self, node: Node) -> None:
        """SIGCONT."""
        self.spaces.signal(node.name, signal.SIGCONT)

    def turn(self, node: Node, offset_s: int) -> None:
        """Turn the clock of a program that was started with `clock` so far from the real one."""
        path = self.folder / node.name / "clock"
        if not path.exists():
            raise StartError(f"the clock of {node.name} can't be turned: start it with --clock", 2)
        path.write_text(f"{offset_s:+d}s\n")

    def fill(self, node: Node) -> None:
        """Leave no room on the disk of a node."""
        spaces.fill(self._disk(node))

    def empty(self, node: Node) -> None:
        """Give it room again."""
        spaces.empty(self._disk(node))

    def _disk(self, node: Node) -> Path:
        if not node.disk_mb:
            raise StartError(f"{node.name} has no disk of its own", 2)
        return self.folder / node.name / "data"

    def _turned(self, node: Node) -> dict[str, str]:
        library = clock_library()
        path = self.folder / node.name / "clock"
        path.write_text("+0s\n")
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    # ---- the network -----------------------------------------------------------------------------

    @property
    def faults(self) -> Faults:
        """What is wrong with it now."""
        try:
            told = json.loads((self.folder / "faults.json").read_text())
        except OSError:
            return Faults()
        return Faults(
            frozenset((a, b) for a, b in told["cut"]),
            {(a, b): share for a, b, share in told["loss"]},
            {(a, b): delay_ms for a, b, delay_ms in told["delay"]},
        )

    def between(self, some: str, others: str, *, one_way: bool = False) -> frozenset[Pair]:
        """The pairs of addresses between two texts that name nodes."""
        return network.pairs(
            [one.address for one in self.chosen(some)],
            [one.address for one in self.chosen(others)],
            one_way=one_way,
        )

    def cut(self, some: str, others: str, *, one_way: bool = False) -> None:
        """No packet goes between them any more."""
        self.have(network.with_cut(self.faults, self.between(some, others, one_way=one_way)))

    def loss(self, some: str, others: str, percent: int) -> None:
        """So many of a hundred packets between them are lost; 0: none."""
        self.have(network.with_loss(self.faults, self.between(some, others), percent))

    def delay(self, some: str, others: str, delay_ms: int) -> None:
        """Each packet between them takes so much longer, either way; 0: no longer."""
        self.have(network.with_delay(self.faults, self.between(some, others), delay_ms))

    def heal(self, some: str = "all", others: str = "all") -> None:
        """Nothing is wrong between them any more."""
        self.have(network.without(self.faults, self.between(some, others)))

    def have(self, faults: Faults) -> None:
        """Make the network as wrong as that."""
        self._relay(faults)
        self.spaces.rules(network.ruleset(faults))
        kept = {
            "cut": sorted(faults.cut),
            "loss": [(*pair, share) for pair, share in faults.loss.items()],
            "delay": [(*pair, delay_ms) for pair, delay_ms in faults.delay.items()],
        }
        (self.folder / "faults.json").write_text(json.dumps(kept))

    def _relay(self, faults: Faults) -> None:
        """The relay runs from the first delay on, and knows how long each is."""
        rows = self.folder / "delays"
        running = self.spaces.pids(spaces.ROUTER_NODE)
        if not faults.delay and not running:
            return
        text = "".join(f"{a} {b} {delay_ms}\n" for (a, b), delay_ms in faults.delay.items())
        fresh = rows.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(rows)
        if running:
            for pid in running:
                os.kill(pid, signal.SIGHUP)
            return
        first = not (self.folder / spaces.ROUTER_NODE).exists()
        if first:
            self.spaces.late(network.RELAY_DEVICE, network.DELAYED_MARK)
        said = len(self.log(spaces.ROUTER_NODE))
        self.spaces.spawn(
            spaces.ROUTER_NODE,
            (sys.executable, "-m", "deploy.lab.relay", network.RELAY_DEVICE, str(rows)),
            self.folder / spaces.ROUTER_NODE,
            self._environ(),
        )
        self._until(
            lambda: relay.READY in self.log(spaces.ROUTER_NODE)[said:], "the relay does not start"
        )

    @staticmethod
    def _environ() -> dict[str, str]:
        return unset(environment()) | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    @staticmethod
    def _until(holds: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + spaces.END_S
        while not holds():
            if time.monotonic() > deadline:
                raise StartError(otherwise)
            time.sleep(0.005)

    def inside(self, *command: str, node: str = CLIENT) -> list[str]:
        """The command line that runs `command` in a node."""
        return ["ip", "netns", "exec", self.spaces.name(self.node(node).name), *command]
