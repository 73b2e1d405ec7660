"""Holds packets back for a while: what the router sends into its device comes out late, in order.

Runs in the router's namespace. Reads a file of rows `SOURCE DESTINATION MILLISECONDS`, again on
SIGHUP. Loses nothing but what is beyond `MAX_HELD`; a packet that no row names goes on at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path

MAX_HELD = 100_000
"""Packets held at once; further ones are lost, as in any queue."""
PACKET_BYTES = 65_536
READY = "relays"
"""Printed once packets are taken."""
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def opened(device: str) -> int:
    """A descriptor of the tunnel device, one IPv4 packet a read; made where it is not there."""
    tunnel = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tunnel, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI))
    return tunnel


def delays(path: Path) -> dict[bytes, float]:
    """Source and destination as in a packet's head -> seconds."""
    found = {}
    for line in path.read_text().splitlines():
        source, destination, delay_ms = line.split()
        found[socket.inet_aton(source) + socket.inet_aton(destination)] = int(delay_ms) / 1000
    return found


class Held:
    """The packets that wait; `due(now)` gives those whose time has come, oldest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._last: dict[bytes, float] = {}

    def hold(self, packet: bytes, pair: bytes, until: float) -> None:
        """Keep it until then, and never before what came earlier between the same two."""
        if len(self._heap) >= MAX_HELD:
            return
        until = self._last[pair] = max(until, self._last.get(pair, 0.0))
        self._count += 1
        heapq.heappush(self._heap, (until, self._count, packet))

    def due(self, now: float) -> list[bytes]:
        """What may go on now."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            found.append(heapq.heappop(self._heap)[2])
        return found

    def wait_s(self, now: float) -> float | None:
        """Until the next is due; None while nothing waits."""
        return max(0.0, self._heap[0][0] - now) if self._heap else None


def run(tunnel: int, path: Path) -> None:
    """Relay until the process is ended."""
    held, known = Held(), delays(path)
    changed, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.set_wakeup_fd(wake)
    print(READY, flush=True)
    while True:
        ready, _, _ = select.select([tunnel, changed], [], [], held.wait_s(time.monotonic()))
        if changed in ready:
            os.read(changed, 4096)
            known = delays(path)
        now = time.monotonic()
        if tunnel in ready:
            with contextlib.suppress(BlockingIOError):
                while packet := os.read(tunnel, PACKET_BYTES):
                    pair = packet[12:20]
                    held.hold(packet, pair, now + known.get(pair, 0.0))
        for packet in held.due(now):
            with contextlib.suppress(OSError):  # the kernel has no room: lost
                os.write(tunnel, packet)


if __name__ == "__main__":
    device, rows = sys.argv[1:]
    run(opened(device), Path(rows))
