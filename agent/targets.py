"""Targets as assigned: from the wire into values, and joined over several coordinators.

Each stream has its own indexes; a target that several coordinators assign is one target, by its
identity, and probed once. Decides nothing about when or how.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from gtm.v1 import agent_pb2
from gtm.variants import settings_types

from .probes.base import Identity, Target, read_settings

MAX_MS = 3_600_000
"""The longest interval and the longest timeout; what is longer is no opinion, not a long wait."""
MAX_STREAK = 100
"""The largest `fall` and `rise`."""
MAX_TARGETS = 200_000
"""Targets of one stream; further ones are refused and counted."""

_versions = itertools.count(1)


def types() -> tuple[str, ...]:
    """The probe types that this agent has."""
    return tuple(sorted(settings_types("agent.probes")))


def read_target(message: agent_pb2.Target) -> Target:
    """A target as assigned; one that this agent can't read says so in `unfit`."""
    settings, unfit = None, ""
    known: Any = settings_types("agent.probes").get(message.type)
    if known is None:
        unfit = f"this agent has no probe type {message.type!r}"
    else:
        try:
            settings = read_settings(known, message.options or "{}", message.port)
            if message.ip_version not in (0, 4, 6):
                raise ValueError(f"this agent does not know ip_version {message.ip_version}")
            if max(message.interval_ms, message.timeout_ms) > MAX_MS:
                raise ValueError(f"an interval or a timeout of more than {MAX_MS} ms")
            if max(message.fall, message.rise) > MAX_STREAK:
                raise ValueError(f"fall or rise of more than {MAX_STREAK}")
        except (ValueError, TypeError) as error:
            unfit = str(error)
    return Target(
        check=message.check,
        address=message.address,
        port=message.port,
        type=message.type,
        options=message.options,
        interval_ms=min(MAX_MS, max(100, message.interval_ms)),
        timeout_ms=min(MAX_MS, max(1, message.timeout_ms)),
        fall=min(MAX_STREAK, max(1, message.fall)),
        rise=min(MAX_STREAK, max(1, message.rise)),
        settings=settings,
        unfit=unfit,
        ip_version=message.ip_version,
        all_addresses=message.all_addresses,
        gap_ms=min(MAX_MS, message.gap_ms),
        slot=message.slot if message.slot < message.slots else 0,
        slots=message.slots,
    )


class Assigned:
    """What one stream has assigned, by its own indexes."""

    def __init__(self) -> None:
        self.revision = 0
        self.version = 0
        """Another one, in the whole process, after each change."""
        self.refused = 0
        """Targets refused because of MAX_TARGETS, in all."""
        self._targets: dict[int, Target] = {}
        self._indexes: dict[Identity, int] = {}

    def apply(self, message: agent_pb2.Assignment) -> list[Identity]:
        """Take a snapshot or a delta; which targets came. ValueError where a delta does not fit."""
        if message.base:
            if message.base != self.revision:
                raise ValueError(
                    f"a delta to revision {message.base} came while revision {self.revision} stands"
                )
        else:
            self._targets.clear()
            self._indexes.clear()
        self.revision = message.revision
        self.version = next(_versions)
        for index in message.remove:
            self._forget(index)
        came = []
        for one in message.set:
            if one.index not in self._targets and len(self._targets) >= MAX_TARGETS:
                self.refused += 1
                continue
            target = read_target(one)
            before = self._targets.get(one.index)
            if before is None or before.identity != target.identity:
                self._forget(one.index)
                came.append(target.identity)
            self._targets[one.index] = target
            self._indexes[target.identity] = one.index
        return came

    def _forget(self, index: int) -> None:
        gone = self._targets.pop(index, None)
        if gone is not None and self._indexes.get(gone.identity) == index:
            del self._indexes[gone.identity]

    def known(self, indexes: Iterable[int]) -> list[Identity]:
        """The targets that these indexes are; those that are none are left out."""
        found = (self._targets.get(index) for index in indexes)
        return [target.identity for target in found if target is not None]

    def index(self, identity: Identity) -> int | None:
        """The stream's index of a target; None where it has none."""
        return self._indexes.get(identity)

    def indexes(self) -> Iterable[tuple[Identity, int]]:
        """Every target with its index."""
        return self._indexes.items()

    def targets(self) -> Iterable[Target]:
        """Every target."""
        return self._targets.values()

    def __len__(self) -> int:
        return len(self._targets)


def union(assigned: Iterable[Assigned]) -> dict[Identity, Target]:
    """The targets of all streams, each once; where timings differ the last stream's hold."""
    return {target.identity: target for one in assigned for target in one.targets()}
