"""A deliberately naive twin of hysteresis and quorum: one result at a time, dicts, fractions.

Written from docs and rules alone, without looking at columns: what the engine must agree with.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction

SUCCESS, FAILURE, NO_OPINION = 1, 2, 3
WORD = {SUCCESS: "success", FAILURE: "failure", NO_OPINION: "no opinion"}
COVERED_MS = 250


@dataclass
class Rules:
    """A check, as far as judging goes; `voters` is None for the majority.

    `share` is the failing share, `healthy` the other form instead of it, `rising` the share that
    it takes to come back up; None where users don't say.
    """

    interval_ms: int
    timeout_ms: int
    fall: int
    rise: int
    regions: tuple[str, ...]
    share: Fraction | None
    voters: int | None
    healthy: Fraction | None = None
    rising: Fraction | None = None
    confirm: bool = False

    @property
    def grace_ms(self) -> int:
        return 3 * self.interval_ms + self.timeout_ms


@dataclass
class Saying:
    """What one agent says of one target."""

    opinion: str = "none"
    last: int = 0
    streak: int = 0
    heard_ms: int | None = None
    covered_ms: int | None = None


@dataclass
class Record:
    verdict: str
    probe: str
    votes: dict[str, str]


@dataclass
class Naive:
    """Targets are any hashable things; one set of rules for all."""

    rules: Rules
    probe: str
    targets: list[object]
    agents: dict[tuple[str, str], dict[object, Saying]] = field(default_factory=dict)
    stored: dict[tuple[str, object], tuple[str, int]] = field(default_factory=dict)
    votes: dict[tuple[str, object], str] = field(default_factory=dict)
    verdicts: dict[object, str] = field(default_factory=dict)
    records: dict[object, Record] = field(default_factory=dict)
    asked: dict[object, int] = field(default_factory=dict)

    # ---- events --------------------------------------------------------------------------------

    def restored(self, records: dict[object, Record], now: int) -> None:
        self.records = dict(records)
        for target, record in records.items():
            self.verdicts[target] = record.verdict
            if record.probe == self.probe:
                for region, vote in record.votes.items():
                    if vote == record.verdict:
                        self.stored[region, target] = (vote, now)
                        self.votes[region, target] = vote
        self.judge()

    def outvoted(self, target: object) -> None:
        for (region, where), (vote, _) in list(self.stored.items()):
            if where == target and vote != self.verdicts[target]:
                del self.stored[region, target]
                self.vote(region, target)

    def found(self, region: str, agent: str) -> None:
        if (region, agent) not in self.agents:
            self.agents[region, agent] = {target: Saying() for target in self.targets}

    def result(
        self, region: str, agent: str, target: object, outcome: int, age: int, now: int
    ) -> None:
        saying = self.agents[region, agent][target]
        if age > 2 * self.rules.interval_ms:
            return
        if saying.covered_ms is not None and now - age <= saying.covered_ms:
            return
        length = saying.streak + 1 if saying.last == outcome else 1
        self.said(region, target, saying, outcome, length, now - age)

    def entry(
        self, region: str, agent: str, target: object, outcome: int, streak: int, age: int, now: int
    ) -> None:
        saying = self.agents[region, agent][target]
        if outcome == 0 or age >= self.rules.grace_ms:
            return
        if saying.heard_ms is not None and now - age + COVERED_MS < saying.heard_ms:
            return
        saying.covered_ms = now - age + COVERED_MS
        self.said(region, target, saying, outcome, max(streak, 1), now - age)

    def said(
        self, region: str, target: object, saying: Saying, outcome: int, length: int, ended: int
    ) -> None:
        base = saying.opinion
        if base == "none" and (region, target) in self.stored:
            base = self.stored[region, target][0]
        saying.opinion = self.opinion(base, outcome, length)
        saying.last, saying.streak = outcome, length
        saying.heard_ms = ended if saying.heard_ms is None else max(ended, saying.heard_ms)
        self.vote(region, target)

    def opinion(self, base: str, outcome: int, length: int) -> str:
        if outcome == NO_OPINION:
            return "none"
        if outcome == SUCCESS:
            if base == "none":
                return "up"
            return "up" if length >= self.rules.rise else base
        return "down" if length >= self.rules.fall else base

    def asks(
        self, region: str, agent: str, rows: list[tuple[object, int]], now: int
    ) -> set[object]:
        """The targets that all regions are asked about after these rows were judged."""
        found = set()
        for target, outcome in rows:
            saying = self.agents[region, agent][target]
            half_ms = self.rules.interval_ms / 2
            if (
                self.rules.confirm
                and region in self.rules.regions
                and outcome == FAILURE == saying.last
                and saying.streak <= self.rules.fall
                and self.verdicts.get(target) == "up"
                and (target not in self.asked or now - self.asked[target] >= half_ms)
            ):
                self.asked[target] = now
                found.add(target)
        return found

    def tick(self, now: int) -> None:
        for sayings in self.agents.values():
            for saying in sayings.values():
                if saying.last and now - saying.heard_ms >= self.rules.grace_ms:
                    saying.opinion, saying.last, saying.streak = "none", 0, 0
        for (region, target), (_, since) in list(self.stored.items()):
            if now - since >= self.rules.grace_ms:
                del self.stored[region, target]
        self.vote_all()
        self.judge()

    def reruled(self, rules: Rules, probe: str) -> None:
        self.rules = rules
        if probe != self.probe:
            self.probe = probe
            self.asked.clear()
            self.agents = {name: {t: Saying() for t in self.targets} for name in self.agents}
            self.stored.clear()
            self.votes.clear()
        for sayings in self.agents.values():
            for saying in sayings.values():
                if saying.last:
                    saying.opinion = self.opinion(saying.opinion, saying.last, saying.streak)
        self.vote_all()
        self.judge()

    # ---- judgement -----------------------------------------------------------------------------

    def vote_all(self) -> None:
        for region in {region for region, _ in self.agents} | {region for region, _ in self.votes}:
            for target in self.targets:
                self.vote(region, target)

    def vote(self, region: str, target: object) -> None:
        said = Counter(
            sayings[target].opinion
            for (where, _), sayings in self.agents.items()
            if where == region
        )
        if not said["up"] and not said["down"]:
            vote = self.stored.get((region, target), ("none", 0))[0]
        elif said["up"] == said["down"]:
            vote = self.votes.get((region, target), "none")
        else:
            vote = "up" if said["up"] > said["down"] else "down"
        self.votes[region, target] = vote

    def voting(self, target: object) -> dict[str, str]:
        return {region: self.votes.get((region, target), "none") for region in self.rules.regions}

    def pending(self, target: object) -> bool:
        everybody = len(self.rules.regions)
        voters = [vote for vote in self.voting(target).values() if vote != "none"]
        if self.rules.voters is None:
            return not len(voters) > Fraction(everybody, 2)
        return len(voters) < min(self.rules.voters, everybody)

    def judge(self) -> None:
        for target in self.targets:
            if self.pending(target):
                continue
            votes = self.voting(target)
            standing = self.verdicts.get(target, "none")
            voters = {vote for vote in votes.values() if vote != "none"}
            if len(voters) == 1:
                verdict = voters.pop()
            else:
                filled = [standing if vote == "none" else vote for vote in votes.values()]
                verdict = self.quorum(Fraction(filled.count("down"), len(filled)), standing)
            if verdict == "none":
                continue
            record = self.records.get(target)
            if verdict != standing or record is None or record.probe != self.probe:
                self.records[target] = Record(verdict, self.probe, votes)
            self.verdicts[target] = verdict
            self.outvoted(target)

    def quorum(self, down_share: Fraction, standing: str) -> str:
        up_share = 1 - down_share
        if self.rules.healthy is not None:
            return "up" if up_share > self.rules.healthy else "down"
        if down_share >= (Fraction(1, 2) if self.rules.share is None else self.rules.share):
            return "down"
        if self.rules.rising is None or up_share >= self.rules.rising:
            return "up"
        return standing

    def wavering(self, target: object) -> bool:
        against = {"up": FAILURE, "down": SUCCESS, "none": None}
        return any(
            sayings[target].last == against[self.votes.get((region, target), "none")]
            for (region, _), sayings in self.agents.items()
            if region in self.rules.regions
        )
