"""What a part sees of its etcd, counted: calls and watches. Decides nothing.

One registry for the whole process, which each part that has a store shows beside its own metrics.
Labels are from small fixed sets: methods and outcomes of calls.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()
"""Everything below."""

CALLS = Counter(
    "gtm_etcd_calls", "Calls to etcd by method and outcome", ["method", "outcome"],
    registry=REGISTRY,
)  # fmt: skip
CALL_SECONDS = Histogram(
    "gtm_etcd_call_seconds",
    "One call to etcd, all its tries together",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    registry=REGISTRY,
)
LISTS = Counter("gtm_etcd_watch_lists", "Lists made for watches, the first included",
    registry=REGISTRY)  # fmt: skip
STREAMS = Counter("gtm_etcd_watch_streams", "Streams opened for watches", registry=REGISTRY)
GAPS = Counter(
    "gtm_etcd_watch_gaps", "Watches that were found to have missed something", registry=REGISTRY
)
HEARD = Gauge(
    "gtm_etcd_heard_seconds",
    "Since the watch that is silent for longest was last heard; +Inf: never",
    registry=REGISTRY,
)


class Heard(Protocol):
    """A watch, as far as it is counted."""

    def heard_s(self) -> float:
        """Seconds since it was last heard."""


WATCHES: WeakSet[Heard] = WeakSet()
"""The watches that are open."""

HEARD.set_function(lambda: max((watch.heard_s() for watch in WATCHES), default=math.nan))


@contextmanager
def call(method: str) -> Iterator[None]:
    """Count and time one call; the outcome is "ok", "cancelled" or the error's name."""
    begun, outcome = time.monotonic(), "ok"
    try:
        yield
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    except Exception as error:
        outcome = type(error).__name__
        raise
    finally:
        CALLS.labels(method, outcome).inc()
        CALL_SECONDS.labels(method).observe(time.monotonic() - begun)
