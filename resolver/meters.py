"""What a resolver counts, and how it shows it: plain integers on the query path, metrics on demand.

Decides nothing. A scrape reads the counts; a query pays a few look-ups. Names are counted for
access names alone, up to `MAX_NAMES` of them: what strangers ask makes no label.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from .cells import MAX_INSTANCES, MAX_NAMES
from .message import name_text
from .table import AnswerTable, Name, Slot, instances_of

RCODES = (
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "6", "7", "8", "9", "10",
    "11", "12", "13", "14", "15",
)  # fmt: skip
"""Text of the rcode in a DNS header; BADVERS (16) shows as its low bits, NOERROR."""
SILENT = len(RCODES)
"""Where queries are counted that got no answer."""


class Tally:
    """Queries of one transport by outcome; `failed` are those in which the responder broke."""

    def __init__(self) -> None:
        self.outcomes = [0] * (len(RCODES) + 1)
        self.failed = 0

    def total(self) -> int:
        """All queries so far."""
        return sum(self.outcomes)


OTHER, NONE = "(other)", "(none)"
"""Label of what is beyond a bound, and of what is none of those that are counted."""


class NameTally:
    """Queries by the name asked, each a list as in `Tally.outcomes`.

    An access name that went away is forgotten at the next scrape.
    """

    def __init__(self) -> None:
        self.known: dict[bytes, list[int]] = {}
        """Counts of the names met so far; the query path looks here itself, a call costs more."""
        self._shared: dict[str, list[int]] = {}
        self._slots: Sequence[Slot] = ()
        self._instances: dict[int, str] = {}
        self._other = [0] * (len(RCODES) + 1)
        self._none = [0] * (len(RCODES) + 1)

    def first(self, table: AnswerTable, qname: bytes) -> list[int]:
        """The counts of a name (lower case, on the wire) that is not known; made where it may."""
        name = table.names.get(qname)
        if name is None or name.slot < 0:
            return self._none
        if len(self.known) >= MAX_NAMES:
            return self._beyond(table, name.slot)
        self.known[qname] = found = [0] * (len(RCODES) + 1)
        return found

    def _beyond(self, table: AnswerTable, slot: int) -> list[int]:
        """The counts that the names of an instance share which have none of their own."""
        if table.slots is not self._slots:
            self._slots, self._instances = table.slots, instances_of(table)
        instance = self._instances.get(slot, "")
        found = self._shared.get(instance)
        if found is None:
            if not instance or len(self._shared) >= MAX_INSTANCES:
                return self._other
            self._shared[instance] = found = [0] * (len(RCODES) + 1)
        return found

    def rows(self, table: AnswerTable | None) -> Iterator[tuple[str, str, list[int]]]:
        """(label, instance, counts) of all, after what is no access name now was forgotten."""
        names = table.names if table is not None else {}
        for qname in [known for known in self.known if not _steered(names.get(known))]:
            del self.known[qname]
        instances = instances_of(table) if table is not None else {}
        for qname, counts in self.known.items():
            yield name_text(qname), instances.get(names[qname].slot, OTHER), counts
        for instance, counts in self._shared.items():
            yield OTHER, instance, counts
        yield OTHER, OTHER, self._other
        yield NONE, NONE, self._none


def _steered(name: Name | None) -> bool:
    return name is not None and name.slot >= 0


class Standing(Struct, frozen=True, kw_only=True):
    """What a resolver says of itself at one moment; ages in seconds (inf: never)."""

    ready: bool
    table: AnswerTable | None
    revision: int
    age_s: float
    stale: bool
    compiled: int
    compiling_s: float
    snapshot_revision: int
    reported: int
    refused_states: int
    snapshot_errors: int
    tcp_connections: int
    tcp_refused: int
    tcp_expired: int
    unsent: int
    oversize: int
    geo_errors: int
    geo_reloads: Mapping[str, int]
    geo_refused: bool
    geo_age_s: float


class Counted(Protocol):
    """Queries of one transport, as `Tally` has them."""

    @property
    def failed(self) -> int:
        """Queries in which the responder broke."""

    @property
    def outcomes(self) -> Sequence[int]:
        """Queries by rcode, and those without an answer."""

    def total(self) -> int:
        """All queries so far."""


class Named(Protocol):
    """Queries by the access name asked, as `NameTally` has them."""

    def rows(self, table: AnswerTable | None) -> Iterator[tuple[str, str, list[int]]]:
        """(label, instance, counts), a label more than once where several instances share it."""


class Steered(Protocol):
    """What is counted of answers that plans gave."""

    def metrics(self) -> Iterator[Metric]:
        """The counters by line, pool and address."""


class Meters(Collector):
    """The metrics of a resolver, made when they are asked for."""

    def __init__(
        self,
        standing: Callable[[], Standing],
        udp: Counted,
        tcp: Counted,
        names: Named,
        steered: Steered | None = None,
    ) -> None:
        self.udp, self.tcp, self.names, self.steered = udp, tcp, names, steered
        self._standing = standing

    def queries(self) -> int:
        """All queries over both transports."""
        return self.udp.total() + self.tcp.total()

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: the counts are read at a scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        queries = CounterMetricFamily(
            "gtm_resolver_queries", "Queries by transport and rcode.", labels=("transport", "rcode")
        )
        failed = CounterMetricFamily(
            "gtm_resolver_failures", "Queries that broke the responder.", labels=("transport",)
        )
        for transport, tally in (("udp", self.udp), ("tcp", self.tcp)):
            failed.add_metric((transport,), tally.failed)
            for rcode, count in zip((*RCODES, "none"), tally.outcomes, strict=True):
                if count:
                    queries.add_metric((transport, rcode), count)
        yield queries
        yield failed
        now = self._standing()
        yield from self._by_name(now.table)
        if self.steered is not None:
            yield from self.steered.metrics()
        reloads = CounterMetricFamily(
            "gtm_resolver_geo_reloads", "Changed geo files by outcome.", labels=("outcome",)
        )
        for outcome, count in now.geo_reloads.items():
            reloads.add_metric((outcome,), count)
        yield reloads
        yield SummaryMetricFamily(
            "gtm_resolver_compile_seconds",
            "From news of the store to the table made of it.",
            count_value=now.compiled,
            sum_value=now.compiling_s,
        )
        for name, text, value in (
            ("ready", "1 while /readyz says yes.", now.ready),
            ("stale", "1 while answers are marked stale.", now.stale),
            ("zones", "Zones that are served.", len(now.table.zones) if now.table else 0),
            ("names", "Names that exist in them.", len(now.table.names) if now.table else 0),
            ("reported_coordinators", "Coordinators that our last report reached.", now.reported),
            ("snapshot_revision", "Revision of the last snapshot written.", now.snapshot_revision),
            ("served_revision", "Revision of the store that answers come from.", now.revision),
            ("state_age_seconds", "Since that was known to be the newest.", now.age_s),
            ("tcp_connections", "TCP connections at present.", now.tcp_connections),
            (
                "geo_refused",
                "1 while newer geo files than those in force lie there.",
                now.geo_refused,
            ),
            ("geo_age_seconds", "Since the oldest geo file in force was built.", now.geo_age_s),
        ):
            yield GaugeMetricFamily(f"gtm_resolver_{name}", text, value=value)
        for name, text, value in (
            ("refused_states", "States that were unreadable or inconsistent.", now.refused_states),
            ("snapshot_errors", "Snapshots that could not be written.", now.snapshot_errors),
            ("tcp_refused_connections", "TCP connections over the limits.", now.tcp_refused),
            ("tcp_expired_connections", "TCP connections ended by us.", now.tcp_expired),
            ("unsent_answers", "Answers that the kernel did not take.", now.unsent),
            ("oversize_queries", "Queries larger than any that is read.", now.oversize),
            ("geo_errors", "Records of geo data that could not be read.", now.geo_errors),
        ):
            yield CounterMetricFamily(f"gtm_resolver_{name}", text, value=value)

    def _by_name(self, table: AnswerTable | None) -> Iterator[Metric]:
        # Not a label "instance": Prometheus keeps that one for whom it scraped.
        for what, text, column in (
            ("name", "Queries by access name and rcode.", 0),
            ("instance", "Queries by instance asked for and rcode.", 1),
        ):
            sums: dict[str, list[int]] = {}
            for row in self.names.rows(table):
                label, counts = row[:2][column], row[2]
                before = sums.get(label)
                sums[label] = counts if before is None else [*map(operator.add, before, counts)]
            queries = CounterMetricFamily(
                f"gtm_resolver_{what}_queries", text, labels=("name", "rcode")
            )
            for label, counts in sums.items():
                for rcode, count in zip((*RCODES, "none"), counts, strict=True):
                    if count:
                        queries.add_metric((label, rcode), count)
            yield queries
