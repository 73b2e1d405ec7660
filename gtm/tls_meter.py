"""When certificates end, as a metric made at a scrape: `gtm_<part>_certificate_seconds`.

Decides nothing. Looks at the files anew at each scrape, so that it tells of the one in use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .tls_files import Files


class CertificateMeter(Collector):
    """Seconds until certificates end, by `use` (grpc, etcd) and `of` (own, authority)."""

    def __init__(self, part: str, files: Callable[[], Mapping[str, Files]]) -> None:
        self._part, self._files = part, files

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: all is read at a scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The gauge; without series where no link has TLS."""
        found = GaugeMetricFamily(
            f"gtm_{self._part}_certificate_seconds",
            "Seconds until a certificate ends; negative: it has ended",
            labels=["use", "of"],
        )
        for use, files in self._files().items():
            files.refresh()
            for of, (_, ends) in files.lives().items():
                found.add_metric([use, of], ends - time.time())
        yield found
