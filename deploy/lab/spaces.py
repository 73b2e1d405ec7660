"""The kernel's side of a lab: namespaces of one prefix, cables to a router, processes in them.

Touches nothing but namespaces whose names begin with the prefix: no device, route or rule outside
of them is made. Needs root, iproute2 and nftables.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from gtm.errors import StartError

from .nodes import ROUTER

NETNS = Path("/run/netns")
ROUTER_NODE = "router"
LATE_TABLE = "77"
END_S = 15.0
"""From SIGKILL to the end of a process."""


def check_rights() -> None:
    """Raise StartError (exit status 2) unless namespaces can be made here."""
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(program) is None:
            raise StartError(f"the lab needs `{program}`: apt-get install {package}", 2)
    if os.geteuid() != 0:
        raise StartError(
            "the lab needs root, for network namespaces and nftables: run it by sudo", 2
        )
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        raise StartError("the lab needs network namespaces, and root may make none here", 2)


def run(*command: str, given: str = "") -> str:
    """Run a command of the system; what it prints. Raises StartError with what it complains of."""
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        why = (done.stderr.strip() or done.stdout.strip() or "no reason").splitlines()
        said = why[0] if why[-1][0].isspace() else why[-1]  # nft points at the place below
        raise StartError(f"`{' '.join(command[:6])}` failed: {said}")
    return done.stdout


class Spaces:
    """The namespaces `PREFIX-NODE` of one lab."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def name(self, node: str) -> str:
        """The namespace of a node."""
        return f"{self._prefix}-{node}"

    def there(self) -> tuple[str, ...]:
        """The nodes that have one."""
        start = f"{self._prefix}-"
        found = sorted(NETNS.glob(f"{start}*")) if NETNS.is_dir() else []
        return tuple(path.name.removeprefix(start) for path in found)

    def make(self, addresses: Mapping[str, str]) -> None:
        """A router, and one namespace for each node, cabled to it."""
        router = self.name(ROUTER_NODE)
        run("ip", "netns", "add", router)
        self._batch(ROUTER_NODE, ["link set lo up", f"addr add {ROUTER}/32 dev lo"])
        run("ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for node, address in addresses.items():
            space = self.name(node)
            run("ip", "netns", "add", space)
            run(
                "ip", "link", "add", "name", node, "netns", router,
                "type", "veth", "peer", "name", "eth0", "netns", space,
            )  # fmt: skip
            self._batch(ROUTER_NODE, [f"link set {node} up", f"route add {address}/32 dev {node}"])
            self._batch(
                node,
                [
                    "link set lo up",
                    f"addr add {address}/32 dev eth0",
                    "link set eth0 up",
                    f"route add {ROUTER}/32 dev eth0",
                    f"route add default via {ROUTER} dev eth0 src {address}",
                ],
            )

    def late(self, device: str, mark: int) -> None:
        """In the router: what bears `mark` goes into the tunnel `device`."""
        self._batch(
            ROUTER_NODE,
            [
                f"tuntap add dev {device} mode tun",
                f"link set {device} up",
                f"route add default dev {device} table {LATE_TABLE}",
                f"rule add fwmark {mark} table {LATE_TABLE}",
            ],
        )

    def rules(self, text: str) -> None:
        """Give the router this ruleset."""
        run("ip", "netns", "exec", self.name(ROUTER_NODE), "nft", "-f", "-", given=text)

    def spawn(
        self, node: str, command: Iterable[str], folder: Path, environ: Mapping[str, str]
    ) -> int:
        """Start a program in a node that outlives us; its process id. It logs to `folder/log`."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name(node), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(environ),
                start_new_session=True,
            ).pid

    def pids(self, node: str) -> tuple[int, ...]:
        """The processes in a node that live, whoever started them, but for our own family."""
        told = run("ip", "netns", "pids", self.name(node)).split()
        family = _family()
        return tuple(pid for pid in map(int, told) if pid not in family and lives(pid))

    def signal(self, node: str, number: signal.Signals) -> int:
        """Send a signal to every process of a node; to how many."""
        sent = 0
        for pid in self.pids(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                sent += 1
        return sent

    def end(self, *some: str) -> None:
        """Kill every process of these nodes and wait for their ends; StartError where one stays."""
        deadline = time.monotonic() + END_S
        while left := [node for node in some if self.signal(node, signal.SIGKILL)]:
            if time.monotonic() > deadline:
                raise StartError(f"processes do not end in {', '.join(left)}")
            time.sleep(0.02)

    def remove(self) -> None:
        """End what runs in them and delete them all, the cables with them."""
        some = self.there()
        self.end(*some)
        for node in some:
            run("ip", "netns", "del", self.name(node))

    def _batch(self, node: str, lines: Iterable[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        run("ip", "-n", self.name(node), "-batch", "-", given=text)


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def stopped(pid: int) -> bool:
    """Whether every thread of a process stands still."""
    with contextlib.suppress(OSError):
        return all(
            thread.read_text().rpartition(")")[2].split()[0] == "T"
            for thread in Path(f"/proc/{pid}/task").glob("*/stat")
        )
    return False


def _family() -> frozenset[int]:
    """We and those who started us."""
    found, pid = {0}, os.getpid()
    while pid not in found:
        found.add(pid)
        with contextlib.suppress(OSError, ValueError):
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return frozenset(found)


# ---- disks ---------------------------------------------------------------------------------------


def mount(folder: Path, size_mb: int) -> None:
    """Give `folder` a disk of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder))


def unmount_below(folder: Path) -> None:
    """Take away every disk under `folder`."""
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        place = Path(line.split()[1])
        if folder in place.parents:
            run("umount", "--lazy", str(place))


def fill(folder: Path) -> None:
    """Leave no room on the disk of `folder`, until `empty`."""
    with contextlib.suppress(OSError), (folder / "filler").open("ab", 0) as file:
        for piece in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(piece)):
                    pass


def empty(folder: Path) -> None:
    """Undo `fill`."""
    (folder / "filler").unlink(missing_ok=True)
