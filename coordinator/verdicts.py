"""The verdict that stands over each target, and what the store has of it. Pure.

Asks `quorum` where votes changed and keeps the answers as columns; only a verdict that turned
becomes an object, the record that a restarted coordinator starts from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from gtm.state import Health, VerdictRecord, VoteRecord

from .damping import Damping
from .events import Now, PublishVerdict, TargetKey
from .evidence import Evidence, Tally
from .hysteresis import DOWN, NO_VOTE, Codes
from .quorum import decide, decide_columns
from .targets import Targets, grace_ms, probe_digest

HEALTH: tuple[Health, ...] = ("unknown", "up", "down")
"""Verdicts by their code in columns."""
assert set(HEALTH) == set(get_args(Health))

Numbers = NDArray[np.intp]

PART = 1_000
"""Records in one evaluation of verdicts that did not turn: made in 60 ms, between which all else
goes on. With 100,000 at once a new leader would lose its lease."""


class Verdicts:
    """Standing verdicts; `unsaved` marks those that the store does not have as they are."""

    def __init__(self, targets: Targets, evidence: Evidence, part: int = PART) -> None:
        capacity = targets.capacity
        self.code: NDArray[np.int8] = np.zeros(capacity, dtype=np.int8)
        self.pending: NDArray[np.bool_] = np.ones(capacity, dtype=bool)
        self.since: NDArray[np.float64] = np.zeros(capacity)
        self.unsaved: NDArray[np.bool_] = np.zeros(capacity, dtype=bool)
        self.split: NDArray[np.bool_] = np.zeros(capacity, dtype=bool)
        """Where some region's vote is not the standing verdict."""
        self.damping = Damping(capacity)
        self._stored: set[TargetKey] = set()
        self._targets = targets
        self._evidence = evidence
        self._part = part

    def health(self, key: TargetKey) -> Health:
        """The standing verdict over a target; `unknown` where there is none."""
        number = self._targets.number(key)
        return "unknown" if number is None else HEALTH[self.code[number]]

    def restore(
        self, records: Mapping[TargetKey, VerdictRecord], now: Now
    ) -> dict[int, VerdictRecord]:
        """Let the stored verdicts stand; which of them (by number) judged today's probe."""
        self._stored = set(records)
        numbers = self._targets.numbers()
        self.unsaved[numbers] = self.code[numbers] != NO_VOTE
        alike: dict[int, VerdictRecord] = {}
        there: dict[int, VerdictRecord] = {}
        for key, record in records.items():
            number = self._targets.number(key)
            if number is None:
                continue
            there[number] = record
            self.code[number] = HEALTH.index(record.verdict)
            self.since[number] = record.since
            self.unsaved[number] = record.probe != probe_digest(self._targets.check(key), key.port)
            if not self.unsaved[number]:
                alike[number] = record
        self.damping.restore(there, now)
        return alike

    def move(self, moved: Iterable[tuple[int, int]]) -> None:
        """Carry verdicts from old to new numbers: another probe, the same verdict."""
        for old, new in moved:
            self.code[new], self.since[new] = self.code[old], self.since[old]
            self.unsaved[new] = self.code[old] != NO_VOTE
            self.pending[new] = True
            self.damping.move(old, new)

    def clear(self, numbers: Numbers) -> None:
        """Forget numbers that went out of use."""
        self.code[numbers] = NO_VOTE
        self.since[numbers] = 0.0
        self.pending[numbers] = True
        self.unsaved[numbers] = self.split[numbers] = False
        self.damping.clear(numbers.tolist())

    def grow(self) -> None:
        """Make room for all targets."""
        more = self._targets.capacity - len(self.code)
        self.code, self.since, self.unsaved, self.split = (
            np.pad(self.code, (0, more)),
            np.pad(self.since, (0, more)),
            np.pad(self.unsaved, (0, more)),
            np.pad(self.split, (0, more)),
        )
        self.damping.grow(self._targets.capacity)
        self.pending = np.pad(self.pending, (0, more), constant_values=True)

    def stored(self) -> frozenset[TargetKey]:
        """The targets that the store has a record of."""
        return frozenset(self._stored)

    def forget(self, keys: Iterable[TargetKey]) -> list[PublishVerdict]:
        """Delete the records of those of `keys` that nobody names any more."""
        gone = sorted(key for key in self._stored.intersection(keys) if key not in self._targets)
        self._stored.difference_update(gone)
        return [PublishVerdict(target=key, record=None) for key in gone]

    def owed(self) -> Numbers:
        """Targets whose standing verdict the store lacks although nothing is pending."""
        numbers = self._targets.numbers()
        owed: Numbers = numbers[self.unsaved[numbers] & ~self.pending[numbers]]
        return owed

    def judge(self, numbers: Numbers, now: Now) -> tuple[list[TargetKey], list[PublishVerdict]]:
        """Judge `numbers` again: whose verdict turned, and the records to write, by target.

        Of those that did not turn, a part: the others are owed.
        """
        room = self._part
        turned: list[TargetKey] = []
        effects: list[PublishVerdict] = []
        for _, who, group in self._targets.by_check(numbers):
            tally = self._evidence.tally(who.regions, group)
            standing = self.code[group]
            verdict, pending = decide_columns(who, tally.ups, tally.downs, standing)
            self._weigh(group, tally, verdict, pending)
            turns = verdict != standing
            lacking = np.flatnonzero(self.unsaved[group] & ~pending & ~turns)[:room]
            room -= len(lacking)
            rows = np.concatenate((np.flatnonzero(turns), lacking))
            if not rows.size:
                continue
            cast = [self._evidence.cast(region, group[rows], now) for region in who.regions]
            for row, *votes in zip(rows.tolist(), *cast, strict=True):
                number = int(group[row])
                key = self._targets.key(number)
                decision = decide(
                    who, int(tally.ups[row]), int(tally.downs[row]), int(standing[row])
                )
                if turns[row]:
                    if standing[row] != NO_VOTE:
                        self.damping.changed(number, self._targets.check(key).damping, now)
                    self.code[number] = decision.verdict
                    self.since[number] = now.wall_s
                    turned.append(key)
                self.unsaved[number] = False
                self._stored.add(key)
                record = self._record(
                    key, number, decision.rule, dict(zip(who.regions, votes, strict=True)), now
                )
                effects.append(PublishVerdict(target=key, record=record))
        if turned:
            self._outvote(
                np.array([self._targets.number(key) for key in turned], dtype=np.intp), now
            )
        turned.sort()
        effects.sort(key=lambda effect: effect.target)
        return turned, effects

    def _outvote(self, turned: Numbers, now: Now) -> None:
        """Stored votes end with the verdict they were for; none turns again by losing those
        against it, but it may be pending from now on."""
        fewer = self._evidence.outvoted(turned, self.code, now.mono_ms)
        for _, who, group in self._targets.by_check(fewer):
            tally = self._evidence.tally(who.regions, group)
            self._weigh(
                group, tally, *decide_columns(who, tally.ups, tally.downs, self.code[group])
            )

    def _weigh(
        self, group: Numbers, tally: Tally, verdict: Codes, pending: NDArray[np.bool_]
    ) -> None:
        self.pending[group] = pending
        self.split[group] = np.where(verdict == DOWN, tally.ups > 0, tally.downs > 0)

    def _record(
        self,
        key: TargetKey,
        number: int,
        rule: str,
        votes: dict[str, VoteRecord],
        now: Now,
    ) -> VerdictRecord:
        check, who = self._targets.check(key), self._targets.electorate(key)
        first_failed = 0.0
        if self.code[number] == DOWN:
            since_ms = now.mono_ms - grace_ms(check)
            failed_ms = self._evidence.first_failed_ms(who.regions, number, since_ms)
            if failed_ms is not None:
                first_failed = now.wall_s - (now.mono_ms - failed_ms) / 1000
        return VerdictRecord(
            verdict=HEALTH[self.code[number]],
            since=float(self.since[number]),
            rule=rule,
            probe=probe_digest(check, key.port),
            first_failed=first_failed,
            penalty=round(self.damping.penalty(number, now), 1),
            damped_since=self.damping.since(number),
            votes=votes,
        )
