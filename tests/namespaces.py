"""Two network namespaces with a pair of Ethernet devices between them, for as long as a block.

Needs root. A thread goes into a namespace, and what it opens there stays there; the process does
not move.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SERVER, CLIENT = ("10.77.0.1", "fd77::1"), ("10.77.0.2", "fd77::2")
"""The addresses of both ends, in IPv4 and IPv6."""
_PLACE = Path("/run/netns")
_NET = 0x40000000  # CLONE_NEWNET (sched.h)
_ETHTOOL = 0x8946  # SIOCETHTOOL (linux/sockios.h)
_TX_CHECKSUMS, _TSO, _GRO = 0x17, 0x1F, 0x2C  # ETHTOOL_STXCSUM and so on (linux/ethtool.h)
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class End:
    """One end: its namespace, its device, its addresses."""

    space: str
    device: str
    v4: str
    v6: str

    def command(self, *words: str) -> list[str]:
        """A command, to be run there."""
        return ["ip", "netns", "exec", self.space, *words]

    def run(self, *words: str) -> str:
        """Run a command there; what it prints. CalledProcessError where it fails."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def within(self, do: Callable[[], T]) -> T:
        """What `do` gives in a thread that is there."""
        given: list[T] = []
        broken: list[BaseException] = []

        def work() -> None:
            try:
                with (_PLACE / self.space).open() as space:
                    if _libc.setns(space.fileno(), _NET):
                        raise OSError(ctypes.get_errno(), f"cannot enter {self.space}")
                given.append(do())
            except BaseException as error:
                broken.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if broken:
            raise broken[0]
        return given[0]

    def has_program(self) -> bool:
        """Whether an XDP program is on the device."""
        return " xdp" in self.run("ip", "link", "show", self.device)

    def mac(self) -> bytes:
        """The device's address."""
        return bytes.fromhex(
            self.run("cat", f"/sys/class/net/{self.device}/address").strip().replace(":", "")
        )

    def poll(self) -> None:
        """Have packets received as from a card (NAPI), without an XDP program too; at both ends."""
        self._tell(_GRO, 1)
        self._tell(_TSO, 0)  # the other end's kernel would not take this way else

    def sum(self) -> None:
        """Have the kernel write checksums itself: it leaves them to the device, which has none."""
        self._tell(_TX_CHECKSUMS, 0)

    def _tell(self, command: int, value: int) -> None:
        request = ctypes.create_string_buffer(struct.pack("=II", command, value))
        wanted = struct.pack("16sP16x", self.device.encode(), ctypes.addressof(request))

        def ask() -> None:
            with socket.socket() as sock:
                fcntl.ioctl(sock, _ETHTOOL, wanted)

        self.within(ask)


def missing() -> str:
    """Why there can be no namespaces here; "" where there can."""
    if os.geteuid():
        return "not root"
    if shutil.which("ip") is None:
        return "no command ip (Debian: iproute2)"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return f"no network namespaces: {made.stderr.strip()}" if made.returncode else ""


@contextlib.contextmanager
def pair(
    queues: int = 1, names: tuple[str, str] = ("server0", "client0")
) -> Iterator[tuple[End, End]]:
    """The server's and the client's end, devices of these names, each with so many queues."""
    spaces = [f"gtm-{os.getpid()}-{next(_numbers)}" for _ in range(2)]
    ends = End(spaces[0], names[0], *SERVER), End(spaces[1], names[1], *CLIENT)
    numbers = ["numtxqueues", str(queues), "numrxqueues", str(queues)]
    made: list[str] = []
    try:
        for space in spaces:
            _ip("netns", "add", space)
            made.append(space)
        _ip(
            "link", "add", ends[0].device, "netns", spaces[0], *numbers,
            "type", "veth", "peer", "name", ends[1].device, "netns", spaces[1], *numbers,
        )  # fmt: skip
        for end in ends:
            _ip("-n", end.space, "addr", "add", f"{end.v4}/24", "dev", end.device)
            _ip("-n", end.space, "addr", "add", f"{end.v6}/64", "dev", end.device, "nodad")
            for device in ("lo", end.device):
                _ip("-n", end.space, "link", "set", device, "up")
        yield ends
    finally:
        for space in made:
            _ip("netns", "del", space)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=30)
