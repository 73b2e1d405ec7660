"""What the regions and their agents said, as columns by target number. Pure.

Takes results and digests in, lets lapse what is older than its grace, and keeps each region's vote
up to date; every method says for which targets a vote changed. What an outcome does to an opinion
is `hysteresis`' business, what votes mean is `quorum`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from gtm.state import VerdictRecord, Vote, VoteRecord

from .agents import Agent
from .events import FAILURE, NO_OPINION, NONE, SUCCESS, Digest, Frame, Now
from .hysteresis import DOWN, NAMES, NO_VOTE, UP, Codes, opinions, rounds, streaks, votes
from .targets import Targets
from .views import RegionVoteView

MAX_REGIONS = 256
"""Regions with columns; agents of further ones are not admitted."""
MAX_AGENTS = 64
"""Agents of one region, lost ones whose opinions still count included."""
COVERED_MS = 250
"""A result that ended less than this after the one that a digest told of is taken for the same.

Both instants are reckoned from ages, so they differ by how long the frames travelled.
"""
_VOTES: tuple[Vote, ...] = ("none", "up", "down")
_NO_NUMBERS: NDArray[np.intp] = np.zeros(0, dtype=np.intp)

Numbers = NDArray[np.intp]


class Region:
    """The votes of a region; `stored` are those that the last verdicts left, while they count."""

    def __init__(self, capacity: int) -> None:
        self.vote: Codes = np.zeros(capacity, dtype=np.int8)
        self.stored: Codes = np.zeros(capacity, dtype=np.int8)
        self.voted_ms: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)
        self.agents: dict[str, Agent] = {}

    def columns(self) -> tuple[NDArray[Any], ...]:
        """Every column, for growing and clearing."""
        return (self.vote, self.stored, self.voted_ms)

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` targets."""
        more = capacity - len(self.vote)
        self.vote, self.stored, self.voted_ms = (np.pad(c, (0, more)) for c in self.columns())

    def witness(self, number: int) -> Agent | None:
        """The agent heard last about a target, of those whose last word has not lapsed."""
        heard = [agent for agent in self.agents.values() if agent.last.item(number) != NONE]
        if len(heard) < 2:
            return heard[0] if heard else None
        return max(heard, key=lambda agent: agent.heard.item(number))

    def silence(self, number: int) -> str:
        """Why there is no such agent."""
        if self.stored[number] != NO_VOTE:
            return "stored vote, nothing heard since the start"
        if any(agent.was_heard(number) for agent in self.agents.values()):
            return "nothing heard for longer than the grace"
        return "no result yet" if self.agents else "no agent"


class Tally(Struct, frozen=True):
    """How the regions of an electorate vote, target by target."""

    ups: NDArray[Any]
    downs: NDArray[Any]


class Evidence:
    """All regions with their agents."""

    def __init__(self, targets: Targets) -> None:
        self.regions: dict[str, Region] = {}
        self.silenced: Mapping[str, str] = {}
        """Regions whose votes do not count for now (muted, set aside), and why."""
        self._targets = targets
        self._restored_ms = 0

    # ---- agents ------------------------------------------------------------------------------

    def admits(self, region: str, agent: str) -> bool:
        """Whether there is room for one more agent."""
        known = self.regions.get(region)
        if known is None:
            return len(self.regions) < MAX_REGIONS
        if agent in known.agents or len(known.agents) < MAX_AGENTS:
            return True
        return any(not other.streams for other in known.agents.values())

    def found(self, region: str, agent: str, now_ms: int) -> Numbers:
        """An agent opened a stream; it takes up its opinions where they have not lapsed."""
        if not self.admits(region, agent):
            return _NO_NUMBERS
        place = self._region(region)
        changed = _NO_NUMBERS
        if agent not in place.agents and len(place.agents) >= MAX_AGENTS:
            lost = [name for name, other in place.agents.items() if not other.streams]
            gone = place.agents.pop(min(lost, key=lambda name: place.agents[name].heard_ms))
            changed = self._vote(place, np.flatnonzero(gone.opinion), now_ms)
        known = place.agents.setdefault(agent, Agent(self._targets.capacity))
        known.streams += 1
        known.results = known.old = 0
        return changed

    def lost(self, region: str, agent: str) -> None:
        """One of an agent's streams ended; its opinions go on until they lapse."""
        place = self.regions.get(region)
        if place is not None and (known := place.agents.get(agent)) is not None:
            known.streams = max(0, known.streams - 1)

    # ---- results -----------------------------------------------------------------------------

    def frame(self, event: Frame, now_ms: int) -> Numbers:
        """Take results in; for which targets the region's vote changed."""
        place = self.regions.get(event.region)
        agent = place.agents.get(event.agent) if place else None
        if place is None or agent is None:
            return _NO_NUMBERS
        target, outcome = event.target, event.outcome.astype(np.int8)
        age = event.age_ms.astype(np.int64, copy=False)
        ended = now_ms - age
        agent.heard_ms = now_ms
        sound = self._sound(target, event.outcome)
        if sound is not None:
            agent.old += len(target) - len(sound)
            target, outcome, age, ended = target[sound], outcome[sound], age[sound], ended[sound]
        fresh = (age <= self._targets.columns.max_age[target]) & (ended > agent.covered[target])
        rows: Numbers | slice = slice(None)
        if not fresh.all():
            chosen = np.flatnonzero(fresh)
            agent.old += len(target) - len(chosen)
            target, outcome, ended = target[chosen], outcome[chosen], ended[chosen]
            rows = chosen if sound is None else sound[chosen]
        elif sound is not None:
            rows = sound
        agent.results += len(target)
        agent.note(target, outcome, event.reason[rows], event.reasons)
        agent.rtt[target] = event.rtt_us[rows]
        phases = event.phases
        agent.time(target, None if phases is None else tuple(phase[rows] for phase in phases))
        return self._apply(place, agent, target, outcome, ended, None, now_ms)

    def digest(self, event: Digest, now_ms: int) -> Numbers:
        """Take over where an agent stands; for which targets the region's vote changed.

        Entries without outcome, older than their grace, or older than what was heard since change
        nothing.
        """
        place = self.regions.get(event.region)
        agent = place.agents.get(event.agent) if place else None
        if place is None or agent is None:
            return _NO_NUMBERS
        columns = self._targets.columns
        agent.heard_ms = now_ms
        target, outcome = event.target, event.outcome.astype(np.int8)
        rows = self._sound(target, event.outcome)
        if rows is None:
            rows = np.arange(len(target))
        age = event.age_ms[rows].astype(np.int64)
        ended = now_ms - age
        chosen = target[rows]
        usable = (columns.max_age[chosen] >= 0) & (age < columns.grace[chosen])
        usable &= ended + COVERED_MS >= agent.heard[chosen]
        rows, ended = rows[usable], ended[usable]
        target, outcome = target[rows], outcome[rows]
        streak = np.clip(event.streak[rows].astype(np.int64), 1, 1 << 30)
        agent.note(target, outcome, event.reason[rows], event.reasons)
        timed = event.rtt_us[rows] > 0
        agent.rtt[target[timed]] = event.rtt_us[rows][timed]
        agent.smoothed[target[timed]] = event.rtt_us[rows][timed]
        agent.covered[target] = ended + COVERED_MS
        return self._apply(place, agent, target, outcome, ended, streak, now_ms)

    def _sound(self, target: NDArray[Any], outcome: NDArray[Any]) -> Numbers | None:
        """The rows that speak of a known number and outcome; None where all do."""
        if len(target) == 0:
            return None
        known = len(self._targets.columns.max_age)
        if (
            target.min() >= 0
            and target.max() < known
            and outcome.min() >= SUCCESS
            and outcome.max() <= NO_OPINION
        ):
            return None
        good = (target >= 0) & (target < known) & (outcome >= SUCCESS) & (outcome <= NO_OPINION)
        return np.flatnonzero(good)

    def _apply(
        self,
        place: Region,
        agent: Agent,
        target: NDArray[Any],
        outcome: Codes,
        ended: NDArray[np.int64],
        streak: NDArray[np.int64] | None,
        now_ms: int,
    ) -> Numbers:
        """Rows in order: each adds to the streak (results), or says how long it is (a digest)."""
        columns = self._targets.columns
        changed: list[Numbers] = []
        for rows in rounds(target, columns.scratch):
            where, what, when = target[rows], outcome[rows], ended[rows]
            before = agent.opinion[where]
            base = before
            if not before.all():
                base = np.where(before == NO_VOTE, place.stored[where], before)
            if streak is None:
                length = streaks(agent.last[where], agent.streak[where], what)
                starts = length == 1
                agent.began[where[starts]] = when[starts]
            else:
                length = streak[rows]
                goes_on = (agent.last[where] == what) & (length >= agent.streak[where])
                began = when - (length - 1) * columns.interval[where]
                agent.began[where] = np.where(goes_on, agent.began[where], began)
            after = base.copy()
            rest = np.flatnonzero((what != SUCCESS) | (base != UP))  # a success keeps up up
            if rest.size:
                some = where[rest]
                after[rest] = opinions(
                    base[rest], what[rest], length[rest], columns.fall[some], columns.rise[some]
                )
            agent.last[where] = what
            agent.streak[where] = length
            agent.heard[where] = np.maximum(agent.heard[where], when)
            differs = np.flatnonzero(after != before)
            if differs.size:
                agent.opinion[where[differs]] = after[differs]
                changed.append(self._vote(place, where[differs], now_ms))
        return _union(changed)

    # ---- time and configuration --------------------------------------------------------------

    def lapse(self, now_ms: int) -> Numbers:
        """End what is older than its grace; forget agents and regions that have nothing left."""
        grace = self._targets.columns.grace
        changed: list[Numbers] = []
        for name, place in list(self.regions.items()):
            touched: list[NDArray[Any]] = []
            for agent_name, agent in list(place.agents.items()):
                touched.append(agent.lapse(grace, now_ms))
                if not agent.streams and not agent.last.any():
                    del place.agents[agent_name]
            if place.stored.any():
                over = np.flatnonzero(
                    (place.stored != NO_VOTE) & (now_ms - self._restored_ms >= grace)
                )
                place.stored[over] = NO_VOTE
                touched.append(over)
            elif not place.agents and not place.vote.any():
                del self.regions[name]
            changed.append(self._vote(place, _union(touched), now_ms))
        return _union(changed)

    def judge_again(self, numbers: Numbers, now_ms: int) -> Numbers:
        """Hold the streaks of `numbers` against new thresholds."""
        columns = self._targets.columns
        for place in self.regions.values():
            for agent in place.agents.values():
                agent.opinion[numbers] = opinions(
                    agent.opinion[numbers],
                    agent.last[numbers],
                    agent.streak[numbers],
                    columns.fall[numbers],
                    columns.rise[numbers],
                )
        return _union([self._vote(place, numbers, now_ms) for place in self.regions.values()])

    def restore(self, records: dict[int, VerdictRecord], now_ms: int) -> None:
        """Let the votes of stored verdicts (by target number) count for one grace from now.

        Only those that agree with their verdict: a record is as old as the verdict, and an old
        vote against it could help a new one to flip what no quorum ever saw.
        """
        self._restored_ms = now_ms
        for number, record in records.items():
            for name, vote in record.votes.items():
                if vote.vote == record.verdict and (name in self.regions or self.admits(name, "")):
                    self._region(name).stored[number] = NAMES.index(vote.vote)
        numbers = np.array(list(records), dtype=np.intp)
        for place in self.regions.values():
            self._vote(place, numbers, now_ms)

    def outvoted(self, numbers: Numbers, standing: Codes, now_ms: int) -> Numbers:
        """End the stored votes against what stands now over `numbers`; whose votes changed.

        They were cast for the verdict before, nobody has confirmed them since, and they could help
        a single new vote to turn the verdict back. `standing` is by target number.
        """
        changed: list[Numbers] = []
        for place in self.regions.values():
            stored = place.stored[numbers]
            over = numbers[(stored != NO_VOTE) & (stored != standing[numbers])]
            place.stored[over] = NO_VOTE
            changed.append(self._vote(place, over, now_ms))
        return _union(changed)

    def clear(self, numbers: Numbers) -> None:
        """Forget everything about numbers that went out of use."""
        for place in self.regions.values():
            for column in place.columns():
                column[numbers] = 0
            for agent in place.agents.values():
                agent.clear(numbers)

    def grow(self) -> None:
        """Make room for all targets."""
        for place in self.regions.values():
            place.grow(self._targets.capacity)
            for agent in place.agents.values():
                agent.grow(self._targets.capacity)

    # ---- votes -------------------------------------------------------------------------------

    def tally(self, regions: tuple[str, ...], numbers: Numbers) -> Tally:
        """How many of `regions` say up and down on each of `numbers`."""
        ups = np.zeros(len(numbers), dtype=np.int32)
        downs = np.zeros(len(numbers), dtype=np.int32)
        for place in self._heard(regions):
            vote = place.vote[numbers]
            ups += vote == UP
            downs += vote == DOWN
        return Tally(ups, downs)

    def _heard(self, regions: Iterable[str]) -> Iterator[Region]:
        """Those of `regions` that are known and whose votes count."""
        for name in regions:
            if name not in self.silenced and (place := self.regions.get(name)) is not None:
                yield place

    def first_failed_ms(self, regions: tuple[str, ...], number: int, since_ms: int) -> int | None:
        """When the first failure ended of the streaks whose votes turned down since `since_ms`."""
        found: list[int] = []
        for place in self._heard(regions):
            if place.vote[number] != DOWN or place.voted_ms[number] < since_ms:
                continue
            found += [
                int(agent.began[number])
                for agent in place.agents.values()
                if agent.opinion[number] == DOWN and agent.last[number] == FAILURE
            ]
        return min(found, default=None)

    def rtt_us(self, region: str, numbers: Iterable[int]) -> int:
        """The least smoothed round trip from a region to any of these targets; 0: none known."""
        place = self.regions.get(region)
        agents = () if place is None else place.agents.values()
        known = [int(agent.smoothed[number]) for number in numbers for agent in agents]
        return min((rtt for rtt in known if rtt), default=0)

    def wavers(self, regions: tuple[str, ...], number: int) -> bool:
        """Whether a streak against some region's vote has begun."""
        for place in self._heard(regions):
            against = {UP: FAILURE, DOWN: SUCCESS}.get(int(place.vote[number]))
            if any(agent.last[number] == against for agent in place.agents.values()):
                return True
        return False

    def record(self, region: str, number: int) -> VoteRecord:
        """A region's vote on a target, with the evidence of the agent heard last about it."""
        place = self.regions.get(region)
        if place is None:
            return VoteRecord(vote="none", reason="no agent")
        silenced = self.silenced.get(region, "")
        vote: Vote = "none" if silenced else _VOTES[place.vote.item(number)]
        agent = place.witness(number)
        if agent is None:
            return VoteRecord(vote=vote, reason=silenced or place.silence(number))
        last = agent.last.item(number)
        reason = "" if last == SUCCESS and vote != "down" else agent.reason_text(number)
        return VoteRecord(
            vote=vote,
            streak=agent.streak.item(number),
            reason="; ".join(filter(None, (silenced, reason))),
            rtt_us=agent.rtt.item(number),
        )

    def cast(self, region: str, numbers: Numbers, now: Now) -> list[VoteRecord]:
        """A region's votes on `numbers` as they are stored, with when each turned."""
        place = self.regions.get(region)
        if place is None:
            return [self.record(region, number) for number in numbers.tolist()]
        turned = place.voted_ms[numbers].tolist()
        codes = place.vote[numbers]
        since = [round(now.wall_s - (now.mono_ms - ms) / 1000, 3) if ms else 0.0 for ms in turned]
        if len(place.agents) != 1 or region in self.silenced:
            return [
                replace(record, since=at if record.vote != "none" else 0.0)
                for at, number in zip(since, numbers.tolist(), strict=True)
                for record in (self.record(region, number),)
            ]
        (agent,) = place.agents.values()  # the usual case, a column at a time
        last = agent.last[numbers]
        reasoned = (last != SUCCESS) | (codes == DOWN)
        return [
            VoteRecord(
                vote=_VOTES[vote],
                streak=streak,
                reason=agent.reason_text(number) if tells else "",
                rtt_us=rtt,
                since=at if vote else 0.0,
            )
            if heard
            else VoteRecord(
                vote=_VOTES[vote], reason=place.silence(number), since=at if vote else 0.0
            )
            for vote, heard, streak, tells, rtt, at, number in zip(
                codes.tolist(),
                (last != NONE).tolist(),
                agent.streak[numbers].tolist(),
                reasoned.tolist(),
                agent.rtt[numbers].tolist(),
                since,
                numbers.tolist(),
                strict=True,
            )
        ]

    def show(self, region: str, number: int, now_ms: int) -> RegionVoteView:
        """The same with age, phases, and how many agents have an opinion."""
        record, place = self.record(region, number), self.regions.get(region)
        agent = None if place is None else place.witness(number)
        if place is None or agent is None:
            return RegionVoteView(region=region, vote=record.vote, reason=record.reason)
        return RegionVoteView(
            region=region,
            vote=record.vote,
            streak=record.streak,
            reason=record.reason,
            rtt_us=record.rtt_us,
            age_s=max(0, now_ms - agent.heard.item(number)) / 1000,
            phases=agent.phases_of(number),
            agents=sum(bool(one.opinion[number]) for one in place.agents.values()),
        )

    def _vote(self, place: Region, numbers: NDArray[Any], now_ms: int) -> Numbers:
        if numbers.size == 0:
            return _NO_NUMBERS
        current, stored = place.vote[numbers], place.stored[numbers]
        said = [agent.opinion[numbers] for agent in place.agents.values()]
        after = votes(said, stored, current) if said else stored
        changed: Numbers = numbers[after != current].astype(np.intp, copy=False)
        place.vote[numbers] = after
        place.voted_ms[changed] = now_ms
        return changed

    def _region(self, name: str) -> Region:
        if name not in self.regions:
            self.regions[name] = Region(self._targets.capacity)
        return self.regions[name]


def _union(parts: list[NDArray[Any]]) -> Numbers:
    parts = [part for part in parts if part.size]
    if not parts:
        return _NO_NUMBERS
    if len(parts) == 1:
        return parts[0].astype(np.intp, copy=False)
    return np.unique(np.concatenate(parts)).astype(np.intp, copy=False)
