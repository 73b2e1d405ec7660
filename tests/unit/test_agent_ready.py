"""Waiting for sockets that connect: told once, in time, of many at once, on whichever loop runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from agent.probes import _ready
from agent.probes._ready import MAX_EVENTS, ready_to_write


@contextlib.contextmanager
def full(count: int = 1) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Pairs of sockets whose first ones can't be written to until the second ones are read."""
    pairs = [socket.socketpair() for _ in range(count)]
    try:
        for one, other in pairs:
            one.setblocking(False)
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    one.send(bytes(65_536))
        yield pairs
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def empty(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while sock.recv(1 << 20):
            pass


async def test_a_socket_that_is_ready_is_told_and_one_that_is_not_is_given_up_in_time() -> None:
    with full() as [(one, other)]:
        assert not await ready_to_write(one.fileno(), 0.02)
        waiting = asyncio.create_task(ready_to_write(one.fileno(), 5))
        await asyncio.sleep(0)
        empty(other)
        assert await waiting


async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    with full() as [(one, other)]:
        waiting = asyncio.create_task(ready_to_write(one.fileno(), None))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert _ready._connecting is not None
        assert not _ready._connecting._waiting
        empty(other)
        assert await ready_to_write(one.fileno(), 5)  # the kernel was told to forget it too


async def test_more_sockets_than_one_turn_takes_are_all_told() -> None:
    with full(MAX_EVENTS + 50) as pairs:
        waiting = [asyncio.create_task(ready_to_write(one.fileno(), 10)) for one, _ in pairs]
        await asyncio.sleep(0)
        for _, other in pairs:
            empty(other)
        assert all(await asyncio.gather(*waiting))


def test_each_loop_has_an_epoll_of_its_own() -> None:
    async def scene() -> bool:
        one, other = socket.socketpair()
        with one, other:
            return await ready_to_write(one.fileno(), 5)

    assert asyncio.run(scene())
    assert asyncio.run(scene())
