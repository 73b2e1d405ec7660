"""The older one's part of a takeover: hands its sockets to who may have them, then leaves.

Decides who is refused and why, and that nothing at all happens to the doors before the newer
process has said that it serves. What leaving means is the resolver's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from gtm.telemetry import transition

from .takeover import (
    PROTOCOL,
    SPEAK_S,
    Ask,
    Garbled,
    Handed,
    Leaving,
    Link,
    Refused,
    Serving,
    parts,
    short,
    trusted,
)

BACKLOG = 8
"""Conversations at once; further ones are not heard."""
FLAG = "--takeover"

_log = logging.getLogger("resolver")


class Succession:
    """Listens at `path` for a newer process, until it is closed.

    `handed()` are the sockets and the revision served; `leave(pid)` is awaited when process `pid`
    serves in our place, and returns when no door of ours is open.
    """

    def __init__(
        self,
        path: Path,
        handed: Callable[[], tuple[Handed, int]],
        leave: Callable[[int], Awaitable[None]],
    ) -> None:
        self.path = path
        self._handed, self._leave = handed, leave
        self._sock: socket.socket | None = None
        self._inode = 0
        self._successor = 0
        self._talks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin to listen; where that can't be, it is told, and no takeover is possible."""
        own = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            with contextlib.suppress(FileNotFoundError):
                own.unlink()
            with short(own) as address:
                sock.bind(address)
            own.chmod(0o600)
            sock.listen(BACKLOG)
            self._inode = own.stat().st_ino
            own.replace(self.path)  # at no time there is nobody
        except OSError as error:
            sock.close()
            transition(
                _log, "no takeover will be possible", logging.WARNING, path=self.path,
                cause=error.strerror or error,
            )  # fmt: skip
            return
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept)

    async def close(self) -> None:
        """Stop listening, and talking; twice is as good as once."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
            with contextlib.suppress(OSError):
                if self.path.stat().st_ino == self._inode:
                    self.path.unlink()
        talks = tuple(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    def _accept(self) -> None:
        assert self._sock is not None
        with contextlib.suppress(OSError):
            sock, _ = self._sock.accept()
            if len(self._talks) >= BACKLOG:
                sock.close()
                return
            talk = asyncio.get_running_loop().create_task(self._talk(Link(sock)))
            self._talks.add(talk)
            talk.add_done_callback(self._talks.discard)

    async def _talk(self, link: Link) -> None:
        try:
            async with asyncio.timeout(SPEAK_S):
                why = self._refusal(link, await link.receive())
            if why:
                transition(
                    _log, "takeover refused", logging.WARNING, pid=link.peer[0], cause=why
                )  # fmt: skip
                await link.send(Refused(why))
                return
            self._successor = link.peer[0]
            try:
                await self._hand_over(link)
            finally:
                self._successor = 0
        except (Garbled, TimeoutError) as error:
            transition(
                _log, "takeover broken off", logging.WARNING, pid=link.peer[0],
                cause=error or "silence",
            )  # fmt: skip
        finally:
            link.close()

    def _refusal(self, link: Link, asked: object) -> str:
        """Why the process behind `link` gets nothing; "" where it gets all."""
        if not trusted(link.peer[1]):
            return f"user {link.peer[1]} is neither ours ({os.geteuid()}) nor root"
        if not isinstance(asked, Ask):
            raise Garbled("it did not ask")
        if asked.protocol != PROTOCOL:
            return f"we hand over by protocol {PROTOCOL}, and it asks by {asked.protocol}"
        if self._successor:
            return f"process {self._successor} is taking over already"
        return ""

    async def _hand_over(self, link: Link) -> None:
        handed, revision = self._handed()
        transition(_log, "sockets handed over", pid=link.peer[0], sockets=len(handed))
        for message, fds in parts(handed, revision):
            await link.send(message, fds)
        if isinstance(await link.receive(), Serving):
            self._inode = 0  # what lies at the path from now on is the successor's
            await self._leave(link.peer[0])
            await link.send(Leaving())
        else:
            transition(
                _log, "the newer process ended before it served: going on", logging.WARNING,
                pid=link.peer[0],
            )  # fmt: skip


class Replacement:
    """Starts the same command again, with `--takeover`, as our child."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._pidfd = -1

    def start(self) -> None:
        """Start it, unless one is on its way."""
        if self._child is not None and self._child.poll() is None:
            transition(_log, "a replacement is on its way already", pid=self._child.pid)
            return
        command = [sys.executable, *sys.orig_argv[1:]]
        if FLAG not in command:
            command.append(FLAG)
        try:
            # Not descriptor 2: it may be a pipe that ends with us.
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=sys.stderr)
        except OSError as error:
            transition(_log, "no replacement", logging.ERROR, cause=error.strerror)
            return
        transition(_log, "replacement started", pid=self._child.pid)
        self._pidfd = os.pidfd_open(self._child.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended, self._child)

    def close(self) -> None:
        """Watch it no more."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _ended(self, child: subprocess.Popen[bytes]) -> None:
        self.close()
        child.wait()
        transition(
            _log, "the replacement ended: going on", logging.ERROR, pid=child.pid,
            status=child.returncode,
        )  # fmt: skip
