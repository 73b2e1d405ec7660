"""The agent's metrics: how many probes ended how, how late, and what waits for coordinators.

Labels are from small fixed sets: types of probes, outcomes, reasons, phases.
"""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from gtm.variants import variants

from .probes.base import Kind, Outcome, Phases

OTHER = "other"
"""The label of every type of probe that this agent has not: coordinators may name any."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

PROBES = Counter("gtm_agent_probes", "Probes ended, by type and outcome", ["type", "outcome"])
REASONS = Counter(
    "gtm_agent_reasons", "Probes that failed or gave no opinion, by reason", ["outcome", "reason"]
)
PROBE_SECONDS = Histogram(
    "gtm_agent_probe_seconds", "Whole probes that succeeded", ["type"], buckets=_SECONDS
)
PHASE_SECONDS = Histogram(
    "gtm_agent_phase_seconds", "Phases that probes came through", ["phase"], buckets=_SECONDS
)
TRANSITIONS = Counter(
    "gtm_agent_transitions", "Targets of which the agent's own opinion turned", ["opinion"]
)
LATE = Counter("gtm_agent_late_probes", "Probes that began late for want of a free slot")
SKIPPED = Counter("gtm_agent_skipped_slots", "Slots that passed unused: the former probe still ran")
DEFERRED = Counter(
    "gtm_agent_deferred_probes", "Probes put off because of the bound on their target's rate"
)
CONFIRMATIONS = Counter(
    "gtm_agent_confirmations", "Targets probed at once because some region saw a failure"
)
UNKNOWN = Counter(
    "gtm_agent_unknown_indexes", "Targets to confirm that spoke of indexes that are not assigned"
)
CANARIES = Gauge("gtm_agent_canaries", "Canaries that are looked at")
CANARIES_FAILING = Gauge("gtm_agent_canaries_failing", "Canaries that did not answer last time")
WITHOUT_OPINION = Gauge("gtm_agent_without_opinion", "1 while no canary answers")
OVERRUN = Counter("gtm_agent_overrun_probes", "Probes that ran over their hard deadline")
TARGETS = Gauge("gtm_agent_targets", "Targets assigned")
RUNNING = Gauge("gtm_agent_running_probes", "Probes under way")
COORDINATORS = Gauge("gtm_agent_coordinators", "Coordinators that the agent knows")
STREAMS = Gauge("gtm_agent_streams", "Streams to coordinators that are open")
RECONNECTS = Counter("gtm_agent_reconnects", "Streams to coordinators that ended")
ACKNOWLEDGED = Histogram(
    "gtm_agent_acknowledgement_seconds",
    "From a frame's sending to its acknowledgement, one frame at a time on each stream",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
BUFFERED = Gauge("gtm_agent_buffered_results", "Results that wait to be sent or acknowledged")
DROPPED = Counter(
    "gtm_agent_dropped_results",
    "Results dropped because the buffer was full: repeats first, then those that may turn a vote",
    ["what"],
)
for _what in ("repeat", "turn"):
    DROPPED.labels(_what)

_PHASES = tuple(
    (name, PHASE_SECONDS.labels(name.removesuffix("_us"))) for name in Phases.__struct_fields__
)


@lru_cache(maxsize=256)
def _probes(type_: str, kind: Kind) -> Counter:
    """The counter of a type and an outcome: looking labels up costs more than counting."""
    known = type_ if type_ in variants("agent.probes") else OTHER
    return PROBES.labels(known, kind.name.lower())


@lru_cache(maxsize=256)
def _seconds(type_: str) -> Histogram:
    return PROBE_SECONDS.labels(type_ if type_ in variants("agent.probes") else OTHER)


def ended(type_: str, outcome: Outcome) -> None:
    """Count one probe that has ended."""
    _probes(type_, outcome.kind).inc()
    if outcome.kind is Kind.SUCCESS:
        _seconds(type_).observe(outcome.rtt_us / 1e6)
    else:
        REASONS.labels(outcome.kind.name.lower(), outcome.reason.value).inc()
    if outcome.phases is not None:
        for name, seconds in _PHASES:
            if took_us := getattr(outcome.phases, name):
                seconds.observe(took_us / 1e6)
