"""What the coordinator counts, `gtm_coordinator_*`; labels are from small fixed sets only.

What stands at a moment (verdicts, pools, regions, lags) is read at a scrape: see `standing`.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

LEADER = Gauge("gtm_coordinator_leader", "1 while this coordinator leads")
LEADERSHIPS = Counter("gtm_coordinator_leaderships_total", "Leaderships that began")
AGENTS = Gauge("gtm_coordinator_agents", "Agents that stream to this coordinator")
TARGETS = Gauge("gtm_coordinator_targets", "Targets that are probed")
REPLICAS = Gauge("gtm_coordinator_replicas", "Resolvers that report")
WATCHERS = Gauge("gtm_coordinator_verdict_watchers", "Open WatchVerdicts calls")
RESULTS = Counter("gtm_coordinator_results_total", "Rows of results and digests taken from agents")
REFUSED_ROWS = Counter(
    "gtm_coordinator_refused_rows_total", "Rows that spoke of indexes that are not assigned"
)
STREAMS_ENDED = Counter(
    "gtm_coordinator_streams_ended_total", "Agent streams that we ended", ["reason"]
)
EVENTS = Counter("gtm_coordinator_events_total", "Events that were judged", ["event"])
DECISIONS = Counter("gtm_coordinator_decisions_total", "What was decided", ["decision"])
VERDICTS = Counter("gtm_coordinator_verdict_changes_total", "Verdicts that changed", ["verdict"])
RESOLUTIONS = Counter(
    "gtm_coordinator_resolutions_total", "Names of flattened pools that were resolved", ["outcome"]
)
OLD_SETS = Gauge(
    "gtm_coordinator_old_address_sets", "Flattened names that could not be resolved last time"
)
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
PUBLISH_LAG = Histogram(
    "gtm_coordinator_publish_lag_seconds",
    "From the first decision that waited, while leading, until all of them were in the store",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
SERVE_LAG = Histogram(
    "gtm_coordinator_serve_lag_seconds",
    "From our seeing a revision until a resolver told us that it serves it",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
PUBLISHED_KEYS = Counter("gtm_coordinator_published_keys_total", "Keys written by the publisher")
PUBLISH_FAILURES = Counter(
    "gtm_coordinator_publish_failures_total", "Transactions of the publisher", ["cause"]
)
PUBLISH_WAITING = Gauge("gtm_coordinator_publish_waiting_keys", "Keys that wait to be written")
APPLIES = Counter("gtm_coordinator_applies_total", "Applies and deletes", ["outcome"])
WEBHOOK_ATTEMPTS = Counter(
    "gtm_coordinator_webhook_attempts_total", "Deliveries of alarms tried", ["outcome"]
)
WEBHOOK_DROPPED = Counter(
    "gtm_coordinator_webhook_dropped_total",
    "Deliveries of alarms given up: for want of room (full), or never taken (old)",
    ["why"],
)
WEBHOOK_WAITING = Gauge("gtm_coordinator_webhook_waiting", "Deliveries of alarms that wait")
UNREADABLE = Counter("gtm_coordinator_unreadable_total", "Values in the store that can't be read")
HISTORY = Counter("gtm_coordinator_history_entries_total", "Entries written to the history")
HISTORY_DROPPED = Counter(
    "gtm_coordinator_history_dropped_total", "Changes that waited in vain for their commit"
)
REFUSED_CALLS = Counter(
    "gtm_coordinator_refused_calls_total",
    "Calls that were refused because of who made them",
    ["reason"],
)
HANDSHAKES = Counter(
    "gtm_coordinator_failed_handshakes_total",
    "TLS handshakes that failed, of links to us and of ours to etcd",
    ["reason"],
)
AUDIT_DROPPED = Counter(
    "gtm_coordinator_audit_dropped_total", "Refusals that found no room to wait for the audit trail"
)
