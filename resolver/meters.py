"""What a resolver counts, and how it shows it: plain integers on the query path, metrics on demand.

Decides nothing. A scrape reads the counts; a query pays one list index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

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


class Standing(Struct, frozen=True, kw_only=True):
    """What a resolver says of itself at one moment; ages in seconds (inf: never)."""

    revision: int
    age_s: float
    refused_states: int
    snapshot_errors: int
    tcp_connections: int
    tcp_refused: int
    tcp_expired: int
    unsent: int
    oversize: int
    geo_errors: int


class Meters(Collector):
    """The metrics of a resolver, made when they are asked for."""

    def __init__(self, standing: Callable[[], Standing]) -> None:
        self.udp, self.tcp = Tally(), Tally()
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
        for name, text, value in (
            ("served_revision", "Revision of the store that answers come from.", now.revision),
            ("state_age_seconds", "Since that was known to be the newest.", now.age_s),
            ("tcp_connections", "TCP connections at present.", now.tcp_connections),
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
