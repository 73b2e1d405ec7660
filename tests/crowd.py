"""A crowd of slow TCP clients, in a process of its own: `python -m tests.crowd HOST PORT ...`.

It connects, behaves as told, and says on standard output how many of its connections are open
whenever a line comes on standard input; at the end of that it goes. Standard library alone.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import socket
import sys
import time

MAX_PENDING = 200
"""Connections that are being made at once."""
BIND_ADDRESS_NO_PORT = 24
"""The kernel chooses the port when it knows the destination (ip(7))."""
DRIP_S = 1.0


class Crowd:
    """`count` connections from `sources` addresses 127.1.x.y; each begins by sending `words`.

    With `drip` it goes on with one octet of it a second, without end. Nobody ever reads an answer.
    """

    def __init__(self, address: tuple[str, int], count: int, sources: int, words: bytes) -> None:
        self._address, self._words = address, words
        self._wanted = [
            f"127.1.{at % sources // 250}.{at % sources % 250 + 1}" for at in range(count)
        ]
        self._poll = select.epoll()
        self._pending: dict[int, socket.socket] = {}
        self.open: dict[int, socket.socket] = {}
        self.gone = 0

    def settled(self) -> bool:
        """Whether every connection was made, or failed."""
        return not self._wanted and not self._pending

    def step(self, timeout_s: float) -> None:
        """Make connections, and notice those that were ended."""
        while self._wanted and len(self._pending) < MAX_PENDING:
            self._begin(self._wanted.pop())
        for number, events in self._poll.poll(timeout_s):
            if (one := self._pending.pop(number, None)) is not None:
                self._made(one, events)
            elif events & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
                self._end(self.open.pop(number))

    def drip(self) -> None:
        """Send one octet on every connection."""
        for one in self.open.values():
            with contextlib.suppress(OSError):
                one.send(self._words[:1])

    def _begin(self, source: str) -> None:
        one = socket.socket()
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        one.bind((source, 0))
        one.connect_ex(self._address)
        self._pending[one.fileno()] = one
        self._poll.register(one, select.EPOLLOUT)

    def _made(self, one: socket.socket, events: int) -> None:
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or events & select.EPOLLHUP:
            self._end(one)
            return
        self.open[one.fileno()] = one
        self._poll.modify(one, select.EPOLLRDHUP)
        with contextlib.suppress(OSError):
            one.send(self._words)

    def _end(self, one: socket.socket) -> None:
        self.gone += 1
        one.close()


def main() -> None:
    """Run until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--sources", type=int, default=1)
    parser.add_argument("--words", type=bytes.fromhex, default=b"")
    parser.add_argument("--drip", action="store_true")
    told = parser.parse_args()
    crowd = Crowd((told.host, told.port), told.count, told.sources, told.words)
    dripped = time.monotonic()
    while True:
        crowd.step(0.02)
        if told.drip and time.monotonic() - dripped >= DRIP_S:
            dripped = time.monotonic()
            crowd.drip()
        if crowd.settled() and select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                return
            print(len(crowd.open), crowd.gone, flush=True)


if __name__ == "__main__":
    main()
