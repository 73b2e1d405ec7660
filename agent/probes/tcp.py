"""Probe type `tcp`: a connection is accepted, and optionally answers, in time.

With `tls` a handshake comes first; it takes any certificate (whether it is a good one is for `tls`
checks to say), and asks for the name of a target that has one (SNI). With `send` that text goes
out; with `expect` the first 64 KiB of what comes back must have it. Without `expect` nothing is
waited for.
"""

from __future__ import annotations

import asyncio
import time
from socket import SOCK_STREAM
from typing import Annotated

from msgspec import Meta

from ._forms import Text, TooSlow
from ._tls import context
from ._wire import Stages, Wire, opened
from .base import Fault, Kind, Outcome, Phases, ProbeSettings, Reason, Target, failed, unable

MAX_ANSWER = 65_536
"""Bytes in which `expect` is looked for."""
EAGER_SEARCHES = 64
"""Pieces of an answer that are looked at as they come; later ones at most every PAUSE_S."""
PAUSE_S = 0.01


class Settings(ProbeSettings, frozen=True, kw_only=True):
    """Settings of a tcp check."""

    port: Annotated[int, Meta(ge=1, le=65535, description="port to connect to")]
    send: Annotated[str, Meta(max_length=4096, description="text sent once connected")] = ""
    expect: Annotated[
        Text | None, Meta(description="text, or {regex: EXPRESSION}, that the answer must have")
    ] = None
    tls: Annotated[bool, Meta(description="shake hands first; any certificate is taken")] = False

    @property
    def plain(self) -> bool:
        """Whether the connection alone is asked for."""
        return not self.tls and not self.send and self.expect is None


async def probe(target: Target) -> Outcome:
    """Probe once; `rtt_us` is the whole probe."""
    settings = target.settings
    assert isinstance(settings, Settings)
    if settings.plain:
        return await _accepted(target)
    stages = Stages()
    wire: Wire | None = None
    try:
        async with asyncio.timeout(target.timeout_ms / 1000):
            wire = await Wire.connect(target.address, target.port)
            stages.end("connect", "in the TLS handshake")
            if settings.tls:
                await wire.start_tls(context(verify=False), target.name)
                stages.end("tls", "sending")
            if settings.send:
                await wire.send(settings.send.encode())
            if settings.expect is not None:
                await _expect(wire, settings.expect, stages)
    except TimeoutError:
        return failed(Reason.TIMEOUT, stages.now).outcome(0, stages.phases())
    except Fault as fault:
        return fault.outcome(0, stages.phases())
    finally:
        if wire is not None:
            wire.close()
    return Outcome(Kind.SUCCESS, rtt_us=stages.elapsed_us(), phases=stages.phases())


async def _accepted(target: Target) -> Outcome:
    """Connect and no more: what most checks of this type ask, for half of what a Wire costs."""
    began_ns = time.monotonic_ns()
    try:
        sock = await opened(target.address, target.port, SOCK_STREAM, target.timeout_ms / 1000)
    except Fault as fault:
        return fault.outcome(0, Phases())
    took_us = max(1, (time.monotonic_ns() - began_ns) // 1000)
    sock.close()
    return Outcome(Kind.SUCCESS, rtt_us=took_us, phases=Phases(connect_us=took_us))


async def _expect(wire: Wire, expect: Text, stages: Stages) -> None:
    stages.now = "waiting for the answer"
    data, pieces = b"", 0
    try:
        while len(data) < MAX_ANSWER:
            if pieces >= EAGER_SEARCHES:
                await asyncio.sleep(PAUSE_S)
            piece = await wire.receive()
            if not data and piece:
                stages.end("first_byte", "reading the answer")
            data = (data + piece)[:MAX_ANSWER]
            pieces += 1
            if expect.found(data):
                stages.end("body", "done")
                return
            if not piece:
                text = data[:60].decode(errors="replace")
                raise failed(Reason.ANSWER, f"{text!r}" if data else "closed without one")
    except TooSlow:
        raise unable(Reason.SETTINGS, "the expression of expect takes too long") from None
    raise failed(Reason.ANSWER, f"not in the first {MAX_ANSWER} bytes")
