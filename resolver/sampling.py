"""Which queries are looked at more closely than to be counted: a sample, by the dice of the answer.

The native responder samples by itself (`native/src/observe.rs`); `Sampler` is the same for the
reference one. The lower half of a draw decides, on whose upper half answers depend first. Nothing
here waits or grows without bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from . import top
from .cells import LOG_DROPPED
from .message import read_query
from .query_log import QueryLog, Seen
from .responder import Transport

if TYPE_CHECKING:
    from .native import NativeResponder

PLACES = 1024
"""Queries that wait to be logged (`LOG_PLACES` in `native/src/observe.rs`)."""
REPLY_BYTES = 1400
"""What is kept of a reply (`LOG_REPLY` there)."""
HALF = 1 << 32
"""The numbers that the lower half of a draw may be."""


class Sample(Protocol):
    """What is seen of the queries in the sample."""

    def take(self, most: int) -> Sequence[Seen]:
        """At most `most` of those to be logged, the oldest first; each is given once."""

    def dropped(self) -> int:
        """How many to be logged had no place."""

    def ranked(self) -> tuple[list[top.Ranked], list[top.Ranked]]:
        """The sketches of names, and those of clients."""


class Sampler:
    """The sample of the reference responder: one query of so many; 0: none."""

    def __init__(self, top_every: int, log_every: int) -> None:
        self._top_below = HALF // top_every if top_every else 0
        self._log_below = HALF // log_every if log_every else 0
        self.below = max(self._top_below, self._log_below)
        """Queries whose draw has a lower half below this are to be handed to `saw`."""
        self._names, self._clients = top.Sketch(), top.Sketch()
        self._waiting: deque[Seen] = deque()
        self._dropped = 0

    def saw(
        self,
        at_s: float,
        draw: int,
        query: bytes,
        client: bytes,
        transport: Transport,
        reply: bytes | None,
    ) -> None:
        """Take note of a query at `at_s` (Unix) and its reply, None for silence."""
        low, read = draw % HALF, read_query(query)
        if read is None:
            return
        if low < self._top_below:
            if not read.rcode:
                self._names.add(read.qname)
            self._clients.add(top.network(client))
        if low >= self._log_below:
            return
        if len(self._waiting) >= PLACES:
            self._dropped += 1
            return
        subnet = read.edns.subnet if read.edns is not None else None
        self._waiting.append(
            Seen(
                at_s=at_s,
                transport=transport,
                client=client,
                qname=read.question[:-4],
                qtype=read.qtype,
                subnet=(subnet.source, subnet.packed) if subnet and subnet.source else None,
                reply=(reply or b"")[:REPLY_BYTES],
                size=len(reply or b""),
            )
        )

    def take(self, most: int) -> Sequence[Seen]:
        """At most `most` of those to be logged."""
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def dropped(self) -> int:
        """How many to be logged had no place."""
        return self._dropped

    def ranked(self) -> tuple[list[top.Ranked], list[top.Ranked]]:
        """The one sketch of names, and the one of clients."""
        return [self._names.read()], [self._clients.read()]


class NativeSample:
    """The sample of the native responder, whose workers begin after this was made."""

    def __init__(self, responder: NativeResponder, top_every: int, log_every: int) -> None:
        self._responder = responder
        responder.native.observe(top_every, log_every)

    def take(self, most: int) -> Sequence[Seen]:
        """At most `most` of those to be logged."""
        return [Seen(*fields) for fields in self._responder.native.logged(most)]

    def dropped(self) -> int:
        """How many to be logged had no place."""
        return self._responder.counted(LOG_DROPPED, 1)[0]

    def ranked(self) -> tuple[list[top.Ranked], list[top.Ranked]]:
        """The sketches of the workers."""
        tops = self._responder.native.tops()
        return [top.Ranked(*names) for names, _ in tops], [top.Ranked(*rest) for _, rest in tops]


def top_page(sample: Sample, every: int) -> dict[str, Any]:
    """What `/debug/top` shows, of a sample of one query of `every`."""
    names, clients = sample.ranked()
    return top.page(top.merged(names), top.merged(clients), every)


class LogMeter(Collector):
    """What became of the queries to be logged; nothing did where there is no log."""

    def __init__(self, log: QueryLog | None, dropped: Callable[[], int]) -> None:
        self._log, self._dropped = log, dropped

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Lines written, and queries that were to be and are not."""
        written, lost = (self._log.written, self._log.lost) if self._log is not None else (0, 0)
        yield CounterMetricFamily(
            "gtm_resolver_query_log_lines", "Queries written to the log.", value=written
        )
        yield CounterMetricFamily(
            "gtm_resolver_query_log_dropped",
            "Queries to be logged that had no place or could not be written.",
            value=self._dropped() + lost,
        )
