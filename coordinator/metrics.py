"""The coordinator's metrics, `gtm_coordinator_*`; labels are from small fixed sets only."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

LEADER = Gauge("gtm_coordinator_leader", "1 while this coordinator leads")
AGENTS = Gauge("gtm_coordinator_agents", "Agents that stream to this coordinator")
TARGETS = Gauge("gtm_coordinator_targets", "Targets that are probed")
REPLICAS = Gauge("gtm_coordinator_replicas", "Resolvers that report")
WATCHERS = Gauge("gtm_coordinator_verdict_watchers", "Open WatchVerdicts calls")
ALARMS = Gauge("gtm_coordinator_alarms", "Alarms that stand")
RESULTS = Counter("gtm_coordinator_results_total", "Rows of results and digests taken from agents")
REFUSED_ROWS = Counter(
    "gtm_coordinator_refused_rows_total", "Rows that spoke of indexes that are not assigned"
)
STREAMS_ENDED = Counter(
    "gtm_coordinator_streams_ended_total", "Agent streams that we ended", ["reason"]
)
VERDICTS = Counter("gtm_coordinator_verdict_changes_total", "Verdicts that changed", ["verdict"])
JUDGING = Histogram(
    "gtm_coordinator_judging_seconds",
    "From an event to its effects",
    buckets=(0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
)
PUBLISHING = Histogram(
    "gtm_coordinator_publishing_seconds",
    "One transaction of the publisher",
    buckets=(0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
)
PUBLISHED_KEYS = Counter("gtm_coordinator_published_keys_total", "Keys written by the publisher")
PUBLISH_FAILURES = Counter(
    "gtm_coordinator_publish_failures_total", "Transactions of the publisher", ["cause"]
)
PUBLISH_WAITING = Gauge("gtm_coordinator_publish_waiting_keys", "Keys that wait to be written")
APPLIES = Counter("gtm_coordinator_applies_total", "Applies and deletes", ["outcome"])
UNREADABLE = Counter("gtm_coordinator_unreadable_total", "Values in the store that can't be read")
