"""What the hand-over to the native responder costs, as metrics. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Loads:
    """What the hand-overs came to; of the last one sizes in bytes and times in seconds."""

    def __init__(self) -> None:
        self.count, self.refused = 0, 0
        self.names, self.nodes, self.tables = 0, 0, 0
        self.names_bytes, self.tables_bytes = 0, 0
        self.message_bytes, self.encoding_s, self.loading_s = 0, 0.0, 0.0
        self.all_encoding_s, self.all_loading_s = 0.0, 0.0


class Loaded(Protocol):
    """The responder of a resolver."""

    loads: Loads

    def express(self) -> tuple[int, int, int]:
        """Datagrams that came by AF_XDP, the malformed ones of them, those without a place."""


class NativeMeter(Collector):
    """The metrics of the hand-over; all 0 without a native responder."""

    def __init__(self, responder: Loaded | None) -> None:
        self._responder = responder

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: the figures are read at a scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        yield GaugeMetricFamily(
            "gtm_resolver_native",
            "1 while the native responder answers, 0 while the reference does.",
            value=self._responder is not None,
        )
        loads = self._responder.loads if self._responder is not None else Loads()
        for name, text, value in (
            ("names", "Names in the native table.", loads.names),
            ("nodes", "Nodes of plans in the native table.", loads.nodes),
            ("client_tables", "Tables of clients in the native table.", loads.tables),
            (
                "table_bytes",
                "Memory of names and client tables in the native table.",
                loads.names_bytes + loads.tables_bytes,
            ),
            ("message_bytes", "Size of the last hand-over.", loads.message_bytes),
            ("encode_seconds", "What making the last hand-over took.", loads.encoding_s),
            ("load_seconds", "What loading the last hand-over took.", loads.loading_s),
        ):
            yield GaugeMetricFamily(f"gtm_resolver_native_{name}", text, value=value)
        for name, text, value in (
            ("handovers", "Tables and changes handed over.", loads.count),
            ("refused_handovers", "Hand-overs that were refused.", loads.refused),
            ("encoding_seconds", "Spent making hand-overs.", loads.all_encoding_s),
            ("loading_seconds", "Spent loading hand-overs.", loads.all_loading_s),
        ):
            yield CounterMetricFamily(f"gtm_resolver_native_{name}", text, value=value)
        express = self._responder.express() if self._responder is not None else (0, 0, 0)
        for name, text, count in zip(
            ("queries", "malformed", "lost"),
            (
                "Datagrams that came by AF_XDP.",
                "Those of them that are no datagram, or have a wrong checksum.",
                "Packets for AF_XDP that the kernel had no place for.",
            ),
            express,
            strict=True,
        ):
            yield CounterMetricFamily(f"gtm_resolver_xdp_{name}", text, value=count)
