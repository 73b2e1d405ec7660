"""The stream between agent and coordinator, in memory: the same octets, on a link that misbehaves.

A stream keeps its order, as gRPC's does; a link may be slow, hold everything back and let it go
later, or break. What a hostile peer would do to a stream (lose, repeat, swap messages) is done on
request, so that the coordinator must notice.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc

from gtm.v1 import agent_pb2 as pb

from .loop import MACHINE, Machine, VirtualLoop

FAST_S = (0.002, 0.08)
KEEPALIVE_S = 30.0
"""A stream on a silent link breaks after so long (gRPC's keepalive)."""


class Link:
    """The way between one agent and one coordinator."""

    def __init__(self) -> None:
        self.silent = False
        self.slow_s = 0.0
        self.calls: dict[Call, None] = {}


class Pipe:
    """One direction: octets in order, each after its delay."""

    def __init__(self, call: Call, made: Callable[[bytes], Any]) -> None:
        self._call, self._made = call, made
        self._ways: deque[bytes] = deque()  # under way
        self._here: deque[Any] = deque()
        self._wake = asyncio.Event()
        self._clear_at = 0.0
        self.ended = False
        self.prank = ""

    def send(self, octets: bytes) -> None:
        copies = [octets]
        if self.prank == "lose":
            copies = []
        elif self.prank == "repeat":
            copies = [octets, octets]
        elif self.prank == "swap":
            self.prank = "swapped"
            self._kept = octets
            return
        elif self.prank == "swapped":
            copies = [octets, self._kept]
        self.prank = ""
        for one in copies:
            self._ways.append(one)
            net = self._call.net
            at = net.loop.time() + net.dice.uniform(*FAST_S) + self._call.link.slow_s
            self._clear_at = max(self._clear_at + 1e-6, at)
            net.loop.call_at(self._clear_at, self._arrive, context=net.outside)

    def _arrive(self) -> None:
        if self._call.link.silent:
            return  # the link lets everything go when it speaks again
        while self._ways:
            self._here.append(self._made(self._ways.popleft()))
            if self._call.net.loop.time() < self._clear_at:
                break
        self._wake.set()

    def flush(self) -> None:
        """The link speaks again."""
        self._here.extend(map(self._made, self._ways))
        self._ways.clear()
        self._wake.set()

    def end(self) -> None:
        self.ended = True
        self._wake.set()

    async def read(self) -> Any:
        while not self._here:
            if self.ended:
                return grpc.aio.EOF
            self._wake.clear()
            await self._wake.wait()
        return self._here.popleft()


class Call:
    """One stream: the agent's end; `Context` is the coordinator's."""

    def __init__(self, net: Net, address: str) -> None:
        self.net, self.address = net, address
        machine = MACHINE.get()
        assert machine is not None
        self.agent: Machine = machine
        self.link = net.link(self.agent.name, address)
        self.link.calls[self] = None
        self.up = Pipe(self, pb.FromAgent.FromString)
        self.down = Pipe(self, pb.ToAgent.FromString)
        self.status: tuple[grpc.StatusCode, str] | None = None
        self._server: asyncio.Task[Any] | None = None
        self.host: Machine | None = None
        door = net.doors.get(address)
        if door is None or door[0].dead:
            self.broken("nobody listens")
        else:
            self.host = door[0]
            context = contextvars.copy_context()
            context.run(MACHINE.set, self.host)
            work = door[1](None, Context(self))
            self._server = net.loop.create_task(self._serve(work), context=context)

    async def _serve(self, work: Any) -> None:
        try:
            await work
        except Aborted:
            return
        finally:
            self._over(grpc.StatusCode.OK, "")

    def broken(self, why: str) -> None:
        """Both ends notice that the stream is gone."""
        self._over(grpc.StatusCode.UNAVAILABLE, why)
        if self._server is not None:
            self.net.loop.call_soon(self._server.cancel, context=self.net.outside)

    def _over(self, code: grpc.StatusCode, why: str) -> None:
        if self.status is None:
            self.status = (code, why)
        self.link.calls.pop(self, None)
        self.up.end()
        self.down.end()

    async def write(self, message: Any) -> None:
        if self.status is not None:
            raise asyncio.InvalidStateError
        self.up.send(message.SerializeToString())

    async def read(self) -> Any:
        return await self.down.read()

    async def code(self) -> grpc.StatusCode:
        return (self.status or (grpc.StatusCode.CANCELLED, ""))[0]

    async def details(self) -> str:
        return (self.status or (None, ""))[1]

    def cancel(self) -> None:
        if self.status is None:
            self.broken("the agent went away")


class Aborted(Exception):
    """The coordinator ended the call."""


class Context:
    """The coordinator's end."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def read(self) -> Any:
        return await self._call.up.read()

    async def write(self, message: Any) -> None:
        if self._call.status is not None:
            raise asyncio.CancelledError
        self._call.down.send(message.SerializeToString())

    async def abort(self, code: grpc.StatusCode, sentence: str) -> None:
        self._call._over(code, sentence)
        raise Aborted

    def __getattr__(self, name: str) -> Callable[[], Any]:
        return lambda: ()  # metadata, peers, identities: nothing is known


class Net:
    """All links; `doors` maps an address to the machine that listens there, and its service."""

    def __init__(self, loop: VirtualLoop, dice: random.Random) -> None:
        self.loop, self.dice = loop, dice
        self.outside = contextvars.Context()
        self.doors: dict[str, tuple[Machine, Callable[[Any, Any], Any]]] = {}
        self._links: dict[tuple[str, str], Link] = {}

    def link(self, agent: str, address: str) -> Link:
        return self._links.setdefault((agent, address), Link())

    def links(self) -> list[tuple[tuple[str, str], Link]]:
        return list(self._links.items())

    def channel(self, address: str, *_: Any, **__: Any) -> Channel:
        """Stands for `gtm.links.channel`."""
        return Channel(self, address)

    def stub(self, channel: Channel) -> Channel:
        """Stands for `AgentsStub`."""
        return channel

    def hush(self, link: Link) -> None:
        """Everything on the link waits; streams break when that lasts."""
        link.silent = True
        for call in list(link.calls):
            self.loop.call_later(KEEPALIVE_S, self._patience, link, call, context=self.outside)

    def _patience(self, link: Link, call: Call) -> None:
        if link.silent and call.status is None:
            call.broken("keepalive")

    def speak(self, link: Link) -> None:
        """It goes on, with all that waited."""
        link.silent = False
        for call in list(link.calls):
            call.up.flush()
            call.down.flush()

    def reset(self, links: list[Link]) -> None:
        """Break every stream on these links."""
        for link in links:
            for call in list(link.calls):
                call.broken("reset")

    def gone(self, machine: Machine) -> None:
        """A machine died: the other ends notice."""
        for _, link in self.links():
            for call in list(link.calls):
                if machine in (call.agent, call.host):
                    call.broken("the other end died")


class Channel:
    """A channel that opens calls."""

    def __init__(self, net: Net, address: str) -> None:
        self._net, self._address = net, address

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def close(self) -> None:
        return

    def Connect(self, **_: Any) -> Call:
        return Call(self._net, self._address)
