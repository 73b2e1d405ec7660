"""Whether this agent sees anything at all: canaries, hosts that should always answer.

While no canary answers, the agent is in no position to judge others, and says so: each of its
results becomes *no opinion*, and its heartbeats tell why. One that answers ends that. Canaries are
those of its region, as coordinators tell them, and those of its own settings; without any it is
taken to see.

An address is pinged (two packets); where this agent may not ping, port 443 is connected to.
ADDRESS:PORT is connected to. A connection that is refused answers too: what is asked is whether the
network is there, not whether a service is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from gtm.forms import is_domain
from gtm.telemetry import transition
from gtm.units import Duration, Share

from . import metrics
from .guard import Guard
from .probes import icmp, tcp
from .probes.base import Kind, Outcome, Reason, Target
from .runner import log

EVERY_S = 3.0
"""From one look at the canaries to the next."""
TIMEOUT_MS = 1000
"""For an answer to each packet, and for a connection."""
PORT = 443
"""What is connected to where pinging is not allowed."""
MAX_CANARIES = 64
"""Looked at in all; further ones are left out."""

_PING = icmp.Settings(packets=2, spacing=Duration(300), loss_limit=Share.parse("100%"))
_ANSWERS = frozenset({Reason.REFUSED, Reason.RESET})


class Canaries:
    """Looks at the canaries as long as `run` runs; `changed` is called when `trouble` changed."""

    def __init__(self, own: Iterable[str], guard: Guard, changed: Callable[[], None]) -> None:
        self.trouble = ""
        """Why the agent has no opinion; "" while it has."""
        self._own = tuple(own)
        self._told: tuple[str, ...] = ()
        self._guard = guard
        self._changed = changed
        self._news = asyncio.Event()

    def told(self, canaries: Iterable[str]) -> None:
        """What coordinators say that the region's canaries are."""
        told = tuple(dict.fromkeys(canaries))
        if told != self._told:
            self._told = told
            self._news.set()

    @property
    def all(self) -> tuple[str, ...]:
        """The canaries that are looked at: those that this agent may probe."""
        every = dict.fromkeys((*self._own, *self._told))
        return tuple(one for one in every if self._may(one))[:MAX_CANARIES]

    def _may(self, canary: str) -> bool:
        place = parse(canary)
        return place is not None and not is_domain(place[0]) and not self._guard.denies(place[0])

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self._news.clear()
            began = time.monotonic()
            await self.look()
            try:
                async with asyncio.timeout(EVERY_S - (time.monotonic() - began)):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def look(self) -> None:
        """Probe every canary once, and decide."""
        canaries = self.all
        ends = await asyncio.gather(*(_answers(one) for one in canaries))
        failing = [(one, text) for one, text in zip(canaries, ends, strict=True) if text]
        metrics.CANARIES.set(len(canaries))
        metrics.CANARIES_FAILING.set(len(failing))
        trouble = ""
        if canaries and len(failing) == len(canaries):
            first = f"{failing[0][0]} {failing[0][1]}"
            more = f", and {len(failing) - 1} more" if len(failing) > 1 else ""
            trouble = f"{first}{more}"
        if bool(trouble) != bool(self.trouble):
            word = "without opinion" if trouble else "has opinions again"
            transition(log, word, canaries=len(canaries), reason=trouble)
            self.trouble = trouble
            self._changed()


def parse(canary: str) -> tuple[str, int] | None:
    """Address and port (0: ping) of a canary's canonical text; None where it is none."""
    address, colon, port = canary.rpartition(":")
    if colon and port.isdecimal() and (address[:1] == "[" or ":" not in address):
        return (address.strip("[]"), int(port)) if 0 < int(port) < 65536 else None
    return (canary, 0) if canary else None


async def _answers(canary: str) -> str:
    """Why a canary does not answer; "" where it does."""
    place = parse(canary)
    assert place is not None
    address, port = place
    if not port:
        target = Target("", address, 0, "ping", "", 0, TIMEOUT_MS, settings=_PING)
        outcome = await _probed(icmp.probe(target))
        if outcome.kind is not Kind.NO_OPINION:
            return outcome.text
    settings = tcp.Settings(port=port or PORT)
    target = Target("", address, port or PORT, "tcp", "", 0, TIMEOUT_MS, settings=settings)
    outcome = await _probed(tcp.probe(target))
    return "" if outcome.reason in _ANSWERS else outcome.text


async def _probed(probe: Awaitable[Outcome]) -> Outcome:
    """The outcome of a probe, whatever it raises."""
    try:
        return await probe
    except Exception as error:  # a shell: the look goes on
        return Outcome(Kind.NO_OPINION, Reason.FAULT, type(error).__name__)
