"""What an agent counts of its probes, and that no coordinator can make its labels grow."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from agent import metrics
from agent.probes.base import Kind, Outcome, Phases, Reason
from gtm.variants import variants


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


COUNTED = [
    # (outcome, series that grows, labels)
    (Outcome(Kind.SUCCESS, rtt_us=3_000), "probes_total", {"type": "tcp", "outcome": "success"}),
    (Outcome(Kind.SUCCESS, rtt_us=3_000), "probe_seconds_count", {"type": "tcp"}),
    (
        Outcome(Kind.FAILURE, Reason.REFUSED),
        "reasons_total",
        {"outcome": "failure", "reason": "refused"},
    ),
    (
        Outcome(Kind.NO_OPINION, Reason.PERMISSION, "no socket"),
        "reasons_total",
        {"outcome": "no_opinion", "reason": "agent lacks permission"},
    ),
    (
        Outcome(Kind.FAILURE, Reason.STATUS, "503", phases=Phases(connect_us=7_000)),
        "phase_seconds_count",
        {"phase": "connect"},
    ),
]


@pytest.mark.parametrize(("outcome", "series", "labels"), COUNTED)
def test_an_ended_probe_is_counted(outcome: Outcome, series: str, labels: dict[str, str]) -> None:
    before = value(f"gtm_agent_{series}", **labels)
    metrics.ended("tcp", outcome)
    assert value(f"gtm_agent_{series}", **labels) == before + 1


def test_a_phase_that_was_not_reached_is_not_counted() -> None:
    before = value("gtm_agent_phase_seconds_count", phase="tls")
    metrics.ended("https", Outcome(Kind.FAILURE, Reason.TIMEOUT, phases=Phases(connect_us=7_000)))
    assert value("gtm_agent_phase_seconds_count", phase="tls") == before


def test_types_that_the_agent_has_not_share_one_label() -> None:
    before = value("gtm_agent_probes_total", type="other", outcome="no_opinion")
    for number in range(50):
        metrics.ended(f"new-{number}", Outcome(Kind.NO_OPINION, Reason.SETTINGS))
    assert value("gtm_agent_probes_total", type="other", outcome="no_opinion") == before + 50
    types = {
        sample.labels["type"]
        for metric in REGISTRY.collect()
        if metric.name == "gtm_agent_probes"
        for sample in metric.samples
    }
    assert types <= {"other", *variants("agent.probes")}
