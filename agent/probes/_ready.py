"""Waiting for sockets that connect: one epoll for all of a loop's, which the loop watches as one.

`loop.add_writer` and `remove_writer` cost a probe more than the connection itself: a key, a handle,
two calls to the kernel and two exceptions. Here a wait is one call, in which the kernel is told to
speak once, and a socket that is closed is forgotten by the kernel itself. Linux only, as is all
that probes.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Awaitable

from ..deadlines import Deadlines

MAX_EVENTS = 256
"""Sockets that are told of in one turn of the loop; more of them come in the next one."""
_ONCE = select.EPOLLOUT | select.EPOLLONESHOT


class _Connecting:
    """The sockets of `loop` that are being connected, by file number."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._deadlines: Deadlines[int] = Deadlines(loop, self._late)
        self._poll = select.epoll()
        loop.add_reader(self._poll.fileno(), self._wake)

    async def wait(self, number: int, timeout_s: float | None) -> bool:
        ready: asyncio.Future[bool] = self.loop.create_future()
        self._poll.register(number, _ONCE)
        self._waiting[number] = ready
        if timeout_s is not None:
            self._deadlines.set(number, self.loop.time() + timeout_s)
        try:
            return await ready
        finally:
            if self._waiting.pop(number, None) is not None:  # too late, or cancelled
                self._poll.unregister(number)
                self._deadlines.forget(number)

    def _wake(self) -> None:
        for number, _ in self._poll.poll(0, MAX_EVENTS):
            ready = self._waiting.pop(number, None)
            if ready is not None:
                self._deadlines.forget(number)
                _settle(ready, True)

    def _late(self, number: int) -> None:
        _settle(self._waiting[number], False)


def _settle(ready: asyncio.Future[bool], result: bool) -> None:
    if not ready.done():  # it may have been cancelled in this turn
        ready.set_result(result)


_connecting: _Connecting | None = None


def ready_to_write(number: int, timeout_s: float | None) -> Awaitable[bool]:
    """Whether the file `number` can be written to within `timeout_s`; OSError without a free file.

    For a socket that connects: once, and it is closed afterwards.
    """
    global _connecting
    loop = asyncio.get_running_loop()
    if _connecting is None or _connecting.loop is not loop:
        _connecting = _Connecting(loop)
    return _connecting.wait(number, timeout_s)
