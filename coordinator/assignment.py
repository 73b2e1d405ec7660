"""What one agent's stream is told to probe: indexes, revisions, deltas. Pure.

An index belongs to one probe (type, options, address, port, IP version) for as long as the stream
lives and is never reused. Rows that come back are taken when they speak of the newest revision or
the one before it; a set sent in several messages counts as one revision here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from gtm.forms import is_domain
from gtm.v1 import agent_pb2 as pb

from .events import TargetKey
from .views import Assigned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column = NDArray[np.int64]

MAX_PER_MESSAGE = 4_000
"""Targets set or removed by one message: made in some 40 ms, between which all else goes on."""
MAX_INDEXES = 4_000_000
"""Indexes of one stream; when they are used up it ends, and the agent opens another one."""

ALL = "names:all"
"""The capability to ask success of all addresses of a name; agents without it are not assigned
names that want it, for they would take any."""

_Probe = tuple[TargetKey, str, str, int | str, str]


class UsedUp(Exception):
    """The stream has no index left."""


class Assignment:
    """The assignment of one stream to an agent of `region` with `capabilities`."""

    def __init__(self, capabilities: Iterable[str], region: str = "") -> None:
        self.revision = 0
        self._region = region
        self._able = frozenset(capabilities)
        self._accepted = 0
        self._wanted: dict[_Probe, Assigned] = {}
        self._index: dict[_Probe, int] = {}
        self._sent: dict[_Probe, Assigned] = {}
        self._numbers: Column = np.full(64, -1, dtype=np.int64)
        self._used = 0

    def __len__(self) -> int:
        return len(self._wanted)

    def able(self, target: Assigned) -> bool:
        """Whether the agent has the target's probe type and reaches its family, names being one."""
        address = target.key.address
        family = "domain" if is_domain(address) else "ipv6" if ":" in address else "ipv4"
        if family == "domain" and target.answering == "all" and ALL not in self._able:
            return False
        return target.type in self._able and f"family:{family}" in self._able

    def refresh(self, targets: Iterable[Assigned]) -> bool:
        """Take `targets` for what should be probed from now on; whether that must be sent."""
        self._wanted = {_probe(target): target for target in targets if self.able(target)}
        self._numbers[: self._used] = -1
        for probe, index in self._index.items():
            if probe in self._wanted:
                self._numbers[index] = self._wanted[probe].number
        return next(self._differing(), None) is not None

    def index(self, target: Assigned) -> int | None:
        """The index that the agent knows a target by; None where it was not sent."""
        probe = _probe(target)
        return self._index.get(probe) if probe in self._sent else None

    def messages(self) -> Iterator[pb.Assignment]:
        """What to send so that the agent has it; with the first, a snapshot even if it is empty."""
        series = self.revision
        differing = list(self._differing())
        removed = [probe for probe in self._sent if probe not in self._wanted]
        if series and not differing:
            return
        todo = [probe for probe in differing if probe in self._wanted]
        while todo or removed or not self.revision:
            part, todo = todo[:MAX_PER_MESSAGE], todo[MAX_PER_MESSAGE:]
            part = [probe for probe in part if probe in self._wanted]  # may have gone meanwhile
            gone, removed = removed[:MAX_PER_MESSAGE], removed[MAX_PER_MESSAGE:]
            message = pb.Assignment(
                revision=self.revision + 1,
                base=self.revision,
                set=[self._target(probe) for probe in part],
                remove=[self._index.pop(probe) for probe in gone],
            )
            for probe in part:
                self._sent[probe] = self._wanted[probe]
            for probe in gone:
                del self._sent[probe]
            self.revision += 1
            yield message
        self._accepted = series

    def take(self, revision: int, targets: Column) -> tuple[NDArray[np.bool_], Column]:
        """Which rows are known, and the engine's numbers of those."""
        if not max(1, self._accepted) <= revision <= self.revision:
            return np.zeros(len(targets), dtype=np.bool_), targets[:0]
        known = targets < self._used
        numbers = self._numbers[np.where(known, targets, 0)]
        known &= numbers >= 0
        return known, numbers[known]

    def _differing(self) -> Iterator[_Probe]:
        for probe, target in self._wanted.items():
            sent = self._sent.get(probe)
            if sent is None or _timing(sent) != _timing(target):
                yield probe
        for probe in self._sent:
            if probe not in self._wanted:
                yield probe

    def _target(self, probe: _Probe) -> pb.Target:
        target = self._wanted[probe]
        return pb.Target(
            index=self._indexed(probe, target.number),
            check=target.key.check,
            address=target.key.address,
            port=target.key.port,
            type=target.type,
            options=target.options,
            interval_ms=target.interval_ms,
            timeout_ms=target.timeout_ms,
            fall=target.fall,
            rise=target.rise,
            ip_version=0 if target.ip_version == "auto" else target.ip_version,
            all_addresses=target.answering == "all",
            gap_ms=target.gap_ms,
            slot=target.regions.index(self._region) if self._region in target.regions else 0,
            slots=len(target.regions),
        )

    def _indexed(self, probe: _Probe, number: int) -> int:
        index = self._index.get(probe)
        if index is None:
            if self._used >= MAX_INDEXES:
                raise UsedUp
            index = self._index[probe] = self._used
            self._used += 1
            if index >= len(self._numbers):
                grown = np.full(2 * len(self._numbers), -1, dtype=np.int64)
                grown[: len(self._numbers)] = self._numbers
                self._numbers = grown
            self._numbers[index] = number
        return index


def _probe(target: Assigned) -> _Probe:
    return (target.key, target.type, target.options, target.ip_version, target.answering)


def _timing(target: Assigned) -> tuple[int, int, int, int, int, tuple[str, ...]]:
    return (
        target.interval_ms,
        target.timeout_ms,
        target.fall,
        target.rise,
        target.gap_ms,
        target.regions,
    )
