"""What two resolvers of one id say while one takes over from the other, and the newer one's part.

Decides what is said over the Unix socket in the data folder, who may say it (the same user, or
root), and what a newer process makes of the answer. Opens no doors and answers nothing.

    newer                                    former
    Ask(protocol, version)           ->
                                     <-      Sockets(...) with descriptors, until `last`; or Refused
    ... has a table as new as the former's, and reads from the sockets ...
    Serving()                        ->
                                     ...     stops to read and to accept
                                     <-      Leaving()

Whoever goes away before `Serving` changes nothing for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

import gtm
from gtm.errors import GtmError, StartError
from gtm.telemetry import transition

from .settings import shown

PROTOCOL = 1
"""Raised when what is said changes its meaning; others are refused."""
SUFFIX = ".takeover"
"""Of the Unix socket in the data folder, after the resolver's id."""
MAX_MESSAGE = 1 << 16
"""Bytes of one message."""
FDS_AT_ONCE = 64
"""Descriptors with one message; Linux takes 253."""
MAX_SOCKETS = 16_384
"""Sockets that are taken over."""
SPEAK_S = 5.0
"""For a word that the other owes at once."""
LEAVE_S = 30.0
"""For the former one to stop reading; later the newer one goes on beside it."""
MAX_PATH = 100
"""Bytes of a Unix socket's path that need no detour (108 in the kernel)."""

_log = logging.getLogger("resolver")
_CREDENTIALS = struct.Struct("3i")


class Ask(Struct, frozen=True, tag="ask"):
    """Give me your sockets."""

    protocol: int
    version: str


class Sockets(Struct, frozen=True, tag="sockets"):
    """Here are some of them, one of `kinds` for each descriptor; `revision` is what I serve."""

    protocol: int
    version: str
    revision: int
    kinds: tuple[str, ...]
    last: bool


class Refused(Struct, frozen=True, tag="refused"):
    """No, for this reason."""

    why: str


class Serving(Struct, frozen=True, tag="serving"):
    """I read from all of them; you may go."""


class Leaving(Struct, frozen=True, tag="leaving"):
    """I read from none of them any more."""


Message = Ask | Sockets | Refused | Serving | Leaving
UDP, TCP, HTTP = "udp", "tcp", "http"
Handed = Sequence[tuple[str, int]]
"""Kinds and descriptors, as they are handed over."""


class Garbled(GtmError):
    """What came is no message of this protocol."""


class Inherited:
    """The sockets that were handed over and are not yet taken, by kind and address."""

    def __init__(self) -> None:
        self._all: list[tuple[str, socket.socket]] = []

    def __len__(self) -> int:
        return len(self._all)

    def add(self, kind: str, sock: socket.socket) -> None:
        """Keep a socket."""
        self._all.append((kind, sock))

    def has(self, kind: str, host: str, port: int) -> bool:
        """Whether there is a socket of this kind for this address."""
        return any(True for _ in self._found(kind, host, port))

    def take(self, kind: str, host: str, port: int) -> list[socket.socket]:
        """All sockets of this kind for this address; they are the caller's now."""
        found = list(self._found(kind, host, port))
        self._all = [one for one in self._all if one[1] not in found]
        return found

    def close(self) -> tuple[str, ...]:
        """Close what nobody took; its addresses."""
        left, self._all = self._all, []
        addresses = tuple(dict.fromkeys(shown(*_address(sock)) for _, sock in left))
        for _, sock in left:
            sock.close()
        return addresses

    def _found(self, kind: str, host: str, port: int) -> Iterator[socket.socket]:
        for its, sock in self._all:
            if its == kind and _address(sock) == (host, port):
                yield sock


class Former:
    """The resolver that runs already, seen from the one that takes over."""

    def __init__(self, link: Link, revision: int, version: str, sockets: Inherited) -> None:
        self.revision = revision
        """What it served when it handed its sockets over."""
        self.version, self.pid = version, link.peer[0]
        self.sockets = sockets
        self.gone = asyncio.Event()
        """Set when it has stopped to read, or ended."""
        self._link = link
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def relieve(self) -> None:
        """Say that we serve, and wait until it reads no more."""
        await self._link.send(Serving())
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.gone.wait()
        except TimeoutError:
            transition(
                _log, "the former resolver does not leave: both answer", logging.WARNING,
                pid=self.pid,
            )  # fmt: skip

    async def close(self) -> None:
        """Let it know nothing more; before `relieve` it goes on as if we had never been."""
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening
        self.sockets.close()
        self._link.close()

    async def _listen(self) -> None:
        with contextlib.suppress(Garbled, OSError):
            await self._link.receive()
        self.gone.set()


class Link:
    """One connection over the Unix socket: whole messages, with descriptors."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        pid, uid, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        self.peer: tuple[int, int] = (pid, uid)
        """The other's process id and user id, as the kernel knows them."""

    async def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message; what nobody hears any more is dropped."""
        data = msgspec.json.encode(message)
        with contextlib.suppress(OSError):
            while True:
                try:
                    if fds:
                        socket.send_fds(self._sock, [data], fds)
                    else:
                        self._sock.send(data)
                    return
                except BlockingIOError:
                    await _turn(self._sock, writing=True)

    async def receive(self, fds: list[int] | None = None) -> Message | None:
        """The next message, its descriptors added to `fds`; None: the other is gone.

        Raises Garbled.
        """
        while True:
            try:
                data, came, _, _ = socket.recv_fds(self._sock, MAX_MESSAGE, FDS_AT_ONCE)
                break
            except BlockingIOError:
                await _turn(self._sock)
            except OSError:
                return None
        for fd in came:
            os.set_inheritable(fd, False)
        if fds is None:
            _close_fds(came)
        else:
            fds += came
        if not data:
            return None
        try:
            message: Message = msgspec.json.decode(data, type=Message)
            return message
        except msgspec.MsgspecError as error:
            raise Garbled(str(error)) from error

    def close(self) -> None:
        """End it."""
        self._sock.close()


def endpoint_of(snapshot: Path) -> Path:
    """Where the resolver of a snapshot listens for who takes over."""
    return snapshot.with_suffix(SUFFIX)


def trusted(uid: int) -> bool:
    """Whether a process of this user may hand us sockets, or have ours."""
    return uid in (0, os.geteuid())


@contextlib.contextmanager
def short(path: Path) -> Iterator[str]:
    """`path` as an address of a Unix socket, by a detour where it is too long for one."""
    if len(os.fsencode(path)) <= MAX_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


async def claim(path: Path) -> Former | None:
    """Ask the resolver that listens at `path` for its sockets; None where none runs.

    Raises StartError where one runs and they can't be had.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(SPEAK_S)
        with short(path) as address:
            sock.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        transition(_log, "no resolver to take over from: an ordinary start", path=path)
        return None
    except OSError as error:
        sock.close()
        why = error.strerror or str(error)
        raise StartError(f"cannot take over at {path}: {why}") from error
    link = Link(sock)
    fds: list[int] = []
    try:
        async with asyncio.timeout(SPEAK_S):
            last = await _ask(link, fds)
        former = Former(link, last.revision, last.version, Inherited())
    except (Garbled, TimeoutError, StartError) as error:
        _close_fds(fds)
        link.close()
        why = "it does not answer" if isinstance(error, TimeoutError) else str(error)
        raise StartError(
            f"cannot take over from process {link.peer[0]}: {why}; it goes on. Stop it first to "
            "start without taking over"
        ) from error
    except BaseException:
        _close_fds(fds)
        link.close()
        raise
    for kind, fd in zip(last.kinds, fds, strict=True):
        former.sockets.add(kind, socket.socket(fileno=fd))
    transition(
        _log, "taking over", pid=former.pid, version=former.version, sockets=len(fds),
        revision=former.revision,
    )  # fmt: skip
    return former


async def _ask(link: Link, fds: list[int]) -> Sockets:
    """Ask, and collect what comes: the last message, with the kinds of all. Raises StartError."""
    if not (trusted(link.peer[1]) or os.geteuid() == 0):
        raise StartError(f"it belongs to another user ({link.peer[1]})")
    await link.send(Ask(PROTOCOL, gtm.__version__))
    kinds: tuple[str, ...] = ()
    while True:
        match await link.receive(fds):
            case Refused(why):
                raise StartError(why)
            case Sockets() as some if some.protocol == PROTOCOL:
                kinds += some.kinds
                if len(fds) != len(kinds) or len(kinds) > MAX_SOCKETS:
                    raise Garbled("its descriptors do not fit its words")
                if some.last:
                    return msgspec.structs.replace(some, kinds=kinds)
            case None:
                raise Garbled("it ended")
            case other:
                raise Garbled(f"it said {type(other).__name__.lower()!r}, which nobody asked for")


def parts(handed: Handed, revision: int) -> Iterator[tuple[Sockets, Sequence[int]]]:
    """The messages by which `handed` are handed over, and the descriptors with each."""
    for at in range(0, max(len(handed), 1), FDS_AT_ONCE):
        some = handed[at : at + FDS_AT_ONCE]
        last = at + FDS_AT_ONCE >= len(handed)
        kinds = tuple(kind for kind, _ in some)
        yield (
            Sockets(PROTOCOL, gtm.__version__, revision, kinds, last),
            [fd for _, fd in some],
        )


def _address(sock: socket.socket) -> tuple[str, int]:
    host, port = sock.getsockname()[:2]
    return str(host), int(port)


async def _turn(sock: socket.socket, *, writing: bool = False) -> None:
    """Wait until `sock` can be read from, or written to."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    (loop.add_writer if writing else loop.add_reader)(sock.fileno(), wake)
    try:
        await ready
    finally:
        (loop.remove_writer if writing else loop.remove_reader)(sock.fileno())


def _close_fds(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
