"""All coordinators of an agent: a stream to each, one set of targets, one log of results.

Decides which coordinators to speak to (those of the settings, and those that a welcome names) and
what is probed: the union of what the open streams assign, or the last such union while none is
open. Every coordinator hears every result of the targets that it assigned.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gtm.links import Tls
from gtm.telemetry import transition

from . import metrics
from .link import Hello, Link
from .probes.base import Identity, Target
from .results import ProbeResult, ResultLog
from .runner import Runner
from .targets import union

MAX_LINKS = 16
"""Coordinators spoken to at once; further ones that a welcome names are left out."""
SETTLE_S = 2.0
"""A target that nobody assigns any more is probed for so long after the last change: a large set
comes in parts, and one that a coordinator forgets for a moment should keep where it stands."""
OWNED_MS = 10_000
"""What a coordinator said holds for so long after its stream ended: who it is, whom it names."""

log = logging.getLogger("agent")


class Uplink:
    """The streams of one agent; `offer` it every result."""

    def __init__(
        self,
        coordinators: tuple[str, ...],
        hello: Hello,
        results: ResultLog,
        runner: Runner,
        tls: Tls,
        insecure: bool,
        canaries: Callable[[tuple[str, ...]], None] = lambda told: None,
    ) -> None:
        self.without_opinion = ""
        """Why the agent has no opinion on anything, as heartbeats tell it."""
        self._canaries = canaries
        self._configured = tuple(dict.fromkeys(coordinators))[:MAX_LINKS]
        self._hello = hello
        self._results = results
        self._runner = runner
        self._tls = tls
        self._insecure = insecure
        self._links: dict[str, tuple[Link, asyncio.Task[None]]] = {}
        self._same: dict[str, str] = {}  # address to the coordinator that another link has
        self._assigned_ever = False
        self._due = False
        self._acked = asyncio.Event()
        self._targets: dict[Identity, Target] = {}  # what the runner was told
        self._seen: list[int] = []
        self._settling: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Open the streams of the settings."""
        metrics.BUFFERED.set_function(lambda: len(self._results))
        for address in self._configured:
            self._add(address)

    def offer(self, result: ProbeResult) -> None:
        """Keep a result until every coordinator acknowledged it, within the log's bound."""
        repeats, turns = self._results.dropped_repeats, self._results.dropped_turns
        self._results.append(result)
        if self._results.dropped > repeats + turns:
            metrics.DROPPED.labels("repeat").inc(self._results.dropped_repeats - repeats)
            metrics.DROPPED.labels("turn").inc(self._results.dropped_turns - turns)
        for link, _ in self._links.values():
            link.offered(result.patience_ms)

    def trouble(self) -> str:
        """Why the agent is not ready, neither streaming nor buffering; "" where it is."""
        if self._assigned_ever or any(link.open for link, _ in self._links.values()):
            return ""
        return f"no coordinator reached yet: {', '.join(self._configured)}"

    @property
    def streams(self) -> int:
        """Streams that are open."""
        return sum(link.open for link, _ in self._links.values())

    async def drain(self, seconds: float) -> None:
        """Wait until the open streams have had everything acknowledged, at most so long."""
        for link, _ in self._links.values():
            link.offered(0)
        try:
            async with asyncio.timeout(seconds):
                while any(link.open and not link.flushed for link, _ in self._links.values()):
                    self._acked.clear()
                    await self._acked.wait()
        except TimeoutError:
            pass

    def beat(self) -> None:
        """Tell every coordinator at once whether the agent has opinions."""
        for link, _ in self._links.values():
            link.beat()

    async def leave(self, seconds: float) -> None:
        """Say goodbye on every open stream, and wait so long for their ends."""
        self._due = True  # changes mean nothing from now on
        ends = [asyncio.ensure_future(link.leave()) for link, _ in self._links.values()]
        if ends:
            _, late = await asyncio.wait(ends, timeout=seconds)
            for end in late:
                end.cancel()

    async def close(self) -> None:
        """End all streams."""
        self._due = True  # changes mean nothing from now on
        if self._settling is not None:
            self._settling.cancel()
        tasks = [task for _, task in self._links.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- what changes mean ---------------------------------------------------------------------

    def _add(self, address: str) -> None:
        link = Link(
            address,
            self._hello,
            self._results,
            self._runner,
            self._changed,
            self._release,
            self._tls,
            self._insecure,
            lambda: self.without_opinion,
        )
        self._links[address] = (link, asyncio.create_task(link.run()))

    def _remove(self, address: str) -> None:
        _, task = self._links.pop(address)
        task.cancel()

    def _changed(self) -> None:
        """Several changes of one turn are looked at once, and outside of the links' own tasks."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._due = False
        self._members()
        self._align()
        metrics.STREAMS.set(self.streams)
        metrics.COORDINATORS.set(len(self._links))
        live = [link.assigned for link, _ in self._links.values() if link.has_assignment]
        seen = [assigned.version for assigned in live]
        if live and seen != self._seen:  # a large set is not joined again for nothing
            self._seen, self._assigned_ever = seen, True
            wanted = union(live)
            self._assign({**self._targets, **wanted})
            if len(self._targets) > len(wanted):
                if self._settling is not None:
                    self._settling.cancel()
                self._settling = asyncio.get_running_loop().call_later(SETTLE_S, self._settle)
        self._release()

    def _align(self) -> None:
        """Probe by the clock of one coordinator: all agents know the same ones, the first by id."""
        timed = [
            (link.coordinator_id, link.base_ms, link.place)
            for link, _ in self._links.values()
            if link.open and link.base_ms is not None
        ]
        if timed:
            _, base_ms, place = min(timed)
            self._runner.align(base_ms, *place)
            told = (one for link, _ in self._links.values() if link.open for one in link.canaries)
            self._canaries(tuple(told))

    def _settle(self) -> None:
        """Forget what no open stream assigns; nothing while none is open."""
        live = [link.assigned for link, _ in self._links.values() if link.has_assignment]
        if live:
            self._assign(union(live))

    def _assign(self, targets: dict[Identity, Target]) -> None:
        self._targets = targets
        self._runner.assign(targets)

    def _members(self) -> None:
        """Add links to coordinators that were named; drop those nobody names, and doubles."""
        owners: dict[str, str] = {}
        for address, (link, _) in list(self._links.items()):
            if self._stands(link) and owners.setdefault(link.last_id, address) != address:
                self._same[address] = link.last_id
                self._remove(address)  # one coordinator under two names
        self._same = {address: id_ for address, id_ in self._same.items() if id_ in owners}
        standing = [link for link, _ in self._links.values() if self._stands(link)]
        named = [member for link in standing for member in link.members]
        wanted = dict.fromkeys((*self._configured, *named))
        for address in wanted:
            if address in self._links or address in self._same:
                continue
            if len(self._links) >= MAX_LINKS:
                transition(log, "too many coordinators", logging.WARNING, left_out=address)
                break
            self._add(address)
        for address, (link, _) in list(self._links.items()):
            if address not in wanted and not link.open:
                self._remove(address)

    def _stands(self, link: Link) -> bool:
        """Whether the link is open, or was until lately."""
        lost = self._runner.now_ms() - link.lost_ms > OWNED_MS
        return link.open or (bool(link.last_id) and not lost)

    def _release(self) -> None:
        """Let go of what every coordinator has."""
        self._acked.set()
        acked = [link.acked for link, _ in self._links.values()]
        if acked:
            self._results.release(min(acked))
