"""Frames as columns: what is cut to size and what is refused."""

from __future__ import annotations

import pytest

from coordinator import columns
from gtm.v1 import agent_pb2 as pb


def test_ages_and_reasons_are_cut_to_size() -> None:
    frame = pb.Results(
        target=[7],
        outcome=[2],
        age_ms=[2**32 - 1],
        rtt_us=[5],
        reason=[1],
        reasons=["", "x" * 10_000],
        dns_us=[1],
        connect_us=[2],
        tls_us=[3],
        first_byte_us=[4],
        body_us=[5],
    )
    read = columns.read(frame, columns.RESULTS)
    assert list(read.targets) == [7]
    assert list(read.values["age_ms"]) == [columns.MAX_AGE_MS]
    assert len(read.reasons[1]) == columns.MAX_REASON_CHARS
    assert read.phases is not None
    assert [int(column[0]) for column in read.phases] == [1, 2, 3, 4, 5]


def test_a_frame_without_rows_is_no_error() -> None:
    read = columns.read(pb.Digest(), columns.DIGEST)
    assert len(read.targets) == 0
    assert read.reasons == ("",)


def test_a_digest_lacks_no_column() -> None:
    digest = pb.Digest(target=[1], outcome=[1], age_ms=[1], rtt_us=[1], reason=[0], reasons=[""])
    with pytest.raises(columns.Malformed, match="column streak has 0 rows where target has 1"):
        columns.read(digest, columns.DIGEST)
