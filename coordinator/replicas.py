"""What resolvers report: for the eyes of operators only, in memory only (`Replicas.Report`)."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from gtm.v1 import operator_pb2 as pb
from gtm.v1.operator_pb2_grpc import ReplicasServicer

from . import metrics

MAX_REPLICAS = 2_000
"""Resolvers that are remembered."""
SILENCE_S = 60.0
"""After so long without a report a resolver is forgotten."""
MAX_REVISIONS = 1_024
"""Revisions of which it is remembered when we saw them."""
MAX_LISTEN = 16
MAX_CHARS = 128
"""Addresses of one resolver, and characters of each text in its report."""


class Replicas(ReplicasServicer):
    """Takes reports; `coordinators()` lists the addresses of all that are members."""

    def __init__(
        self,
        coordinators: Callable[[], Iterable[str]],
        monotonic: Callable[[], float] = time.monotonic,
        served: Callable[[str, int], None] = lambda resolver, revision: None,
    ) -> None:
        self._served = served
        self._coordinators, self._monotonic = coordinators, monotonic
        self._reports: dict[str, tuple[float, pb.ReportRequest]] = {}
        self._revisions: list[int] = []
        self._seen: list[float] = []

    def published(self, revision: int) -> None:
        """We see this revision of what resolvers serve."""
        if self._revisions and revision <= self._revisions[-1]:
            if revision == self._revisions[-1]:
                return
            self._revisions, self._seen = [], []  # another history of the store
        self._revisions.append(revision)
        self._seen.append(self._monotonic())
        if len(self._revisions) > MAX_REVISIONS:
            del self._revisions[: MAX_REVISIONS // 2], self._seen[: MAX_REVISIONS // 2]

    def behind_s(self) -> float:
        """How long the resolver that is farthest behind has lacked a revision; 0: none does."""
        self._forget()
        now, longest = self._monotonic(), 0.0
        for _, report in self._reports.values():
            first = bisect_right(self._revisions, report.served_revision)
            if first < len(self._seen):
                longest = max(longest, now - self._seen[first])
        return longest

    def stale(self) -> int:
        """How many resolvers mark their answers stale."""
        self._forget()
        return sum(report.stale for _, report in self._reports.values())

    def _measure(self, before: int, served: int) -> None:
        """Note how long the oldest revision that a resolver newly serves has taken."""
        first = bisect_right(self._revisions, before)
        if first < bisect_right(self._revisions, served):
            metrics.SERVE_LAG.observe(self._monotonic() - self._seen[first])

    async def Report(self, request: pb.ReportRequest, context: Any) -> pb.ReportResponse:
        """Remember a resolver's report and name all coordinators."""
        texts = (request.id, request.version, request.geo_hash, *request.listen)
        if not request.id or max(map(len, texts)) > MAX_CHARS or len(request.listen) > MAX_LISTEN:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"a report has an id, texts of at most {MAX_CHARS} characters and at most "
                f"{MAX_LISTEN} addresses",
            )
        self._forget()
        if request.id not in self._reports and len(self._reports) >= MAX_REPLICAS:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{MAX_REPLICAS} resolvers report to this coordinator already",
            )
        if request.id in self._reports:
            self._measure(self._reports[request.id][1].served_revision, request.served_revision)
        self._reports[request.id] = (self._monotonic(), request)
        self._served(request.id, request.served_revision)
        metrics.REPLICAS.set(len(self._reports))
        return pb.ReportResponse(coordinators=sorted(self._coordinators()))

    def ids(self) -> list[str]:
        """The resolvers that reported lately."""
        self._forget()
        return sorted(self._reports)

    def _forget(self) -> None:
        before = self._monotonic() - SILENCE_S
        for id_ in [id_ for id_, (heard, _) in self._reports.items() if heard < before]:
            del self._reports[id_]
        metrics.REPLICAS.set(len(self._reports))

    def statuses(self, serve_revision: int) -> list[pb.ReplicaStatus]:
        """Every resolver that reported lately, by id."""
        self._forget()
        now = self._monotonic()
        return [
            pb.ReplicaStatus(
                id=one.id,
                version=one.version,
                listen=one.listen,
                served_revision=one.served_revision,
                lag=max(0, serve_revision - one.served_revision),
                stale=one.stale,
                snapshot_age_s=one.snapshot_age_s + (now - heard),
                geo_hash=one.geo_hash,
                heard_s=now - heard,
                queries=one.queries,
                refused_states=one.refused_states,
            )
            for _, (heard, one) in sorted(self._reports.items())
        ]
