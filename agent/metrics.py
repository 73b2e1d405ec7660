"""The agent's metrics: how many probes ended how, how late, and what waits for coordinators."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

PROBES = Counter("gtm_agent_probes", "Probes ended, by type and outcome", ["type", "outcome"])
LATE = Counter("gtm_agent_late_probes", "Probes that began late for want of a free slot")
SKIPPED = Counter("gtm_agent_skipped_slots", "Slots that passed unused: the former probe still ran")
OVERRUN = Counter("gtm_agent_overrun_probes", "Probes that ran over their hard deadline")
TARGETS = Gauge("gtm_agent_targets", "Targets assigned")
RUNNING = Gauge("gtm_agent_running_probes", "Probes under way")
STREAMS = Gauge("gtm_agent_streams", "Streams to coordinators that are open")
RECONNECTS = Counter("gtm_agent_reconnects", "Streams to coordinators that ended")
BUFFERED = Gauge("gtm_agent_buffered_results", "Results that wait to be sent or acknowledged")
DROPPED = Counter("gtm_agent_dropped_results", "Results dropped because the buffer was full")
