"""What a process counts of its etcd."""

from __future__ import annotations

import asyncio
import contextlib
import math

import pytest

from gtm import etcd_meters
from gtm.errors import StoreUnavailable


def value(name: str, **labels: str) -> float:
    return etcd_meters.REGISTRY.get_sample_value(name, labels) or 0.0


ENDS: list[tuple[BaseException | None, str]] = [
    (None, "ok"),
    (StoreUnavailable("away"), "StoreUnavailable"),
    (asyncio.CancelledError(), "cancelled"),
]


@pytest.mark.parametrize(("error", "outcome"), ENDS)
def test_a_call_is_counted_and_timed_however_it_ends(
    error: BaseException | None, outcome: str
) -> None:
    before = value("gtm_etcd_calls_total", method="Range", outcome=outcome)
    timed = value("gtm_etcd_call_seconds_count", method="Range")
    passes = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with passes, etcd_meters.call("Range"):
        if error is not None:
            raise error
    assert value("gtm_etcd_calls_total", method="Range", outcome=outcome) == before + 1
    assert value("gtm_etcd_call_seconds_count", method="Range") == timed + 1


class Watch:
    def __init__(self, heard_s: float) -> None:
        self._heard_s = heard_s

    def heard_s(self) -> float:
        return self._heard_s


def test_the_watch_that_is_silent_for_longest_counts_and_none_is_not_a_number() -> None:
    others = list(etcd_meters.WATCHES)
    for one in others:
        etcd_meters.WATCHES.discard(one)
    try:
        assert math.isnan(value("gtm_etcd_heard_seconds"))
        watches = [Watch(1.0), Watch(7.0), Watch(2.0)]
        for one in watches:
            etcd_meters.WATCHES.add(one)
        assert value("gtm_etcd_heard_seconds") == 7.0
        del watches, one
        assert math.isnan(value("gtm_etcd_heard_seconds"))
    finally:
        for other in others:
            etcd_meters.WATCHES.add(other)
