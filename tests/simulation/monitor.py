"""What must hold at every moment, whatever the nemesis does; and what must hold in the end.

Sees each probe's result where it was made, each verdict of each coordinator's engine, each write in
the order of the store, each table of each resolver. Nothing here trusts what the parts keep about
themselves: support is counted from the results.

    verdict      turned only where a quorum of regions saw it so, within the life of a vote, and
                 where as many as must vote were heard in that time
    write        of a leader's keys only while the store's leader key is the writer's
    publication  a member's place agrees with the verdict in the same revision; no pool that was
                 published goes away; generations never go back
    resolver     revisions never go back; its pools are those of the revision
    end          one leader, all resolvers at the newest revision, pools as a fresh judge decides
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from agent.probes.base import Kind
from agent.results import ProbeResult
from coordinator.engine import Engine
from coordinator.events import (
    SUCCESS,
    AgentFound,
    Configured,
    Effect,
    Frame,
    Incoming,
    Now,
    PublishVerdict,
    Restored,
    TargetKey,
)
from coordinator.publisher import LED
from gtm import codec, keys
from gtm.state import BRAKED, Leader, PoolState, VerdictRecord

from .loop import VirtualLoop
from .machines import AgentMachine, CoordinatorMachine, ResolverMachine
from .store import Client, Cluster
from .world import World

SLACK_S = 15.0
"""For messages under way and for the engine's tick."""
MOST_VIOLATIONS = 5


class Saw:
    """What one region saw of one target lately: when each vote was last supported."""

    def __init__(self) -> None:
        self.at = {"none": -1e9, "up": -1e9, "down": -1e9}
        self.heard = -1e9


class Opinion:
    """One agent's, by the plain rule: each of its `votes` may be the one of some coordinator.

    Who began anew, or whose opinion lapsed, goes on from none; who missed results and was brought
    up to date by a digest goes on from the vote before them. Such votes differ until a streak is
    long enough, however long that takes.
    """

    def __init__(self) -> None:
        self.votes, self.streak = {"none"}, 0
        self.last: Kind | None = None

    def take(self, kind: Kind, fall: int, rise: int, *, shaken: bool) -> set[str]:
        """The votes after a result; `shaken`: some coordinator may miss it, or begin with it."""
        self.streak = self.streak + 1 if self.last == kind else 1
        self.last = kind
        missed = self.votes if shaken else set()
        self.votes = missed | {self._after(vote, fall, rise) for vote in self.votes}
        return self.anew(fall, rise) if shaken else self.votes

    def anew(self, fall: int, rise: int) -> set[str]:
        """The votes once some coordinator may have begun with the last result."""
        if self.streak:
            self.votes.add(self._after("none", fall, rise))
        return self.votes

    def _after(self, vote: str, fall: int, rise: int) -> str:
        if self.last is Kind.NO_OPINION:
            return "none"
        if self.last is Kind.SUCCESS:
            return "up" if vote == "none" or self.streak >= rise else vote
        return "down" if self.streak >= fall else vote


class Monitor:
    """Collects violations, and a hash of all that happened."""

    def __init__(self, world: World, loop: VirtualLoop, cluster: Cluster) -> None:
        self._world, self._loop, self._cluster = world, loop, cluster
        self.violations: list[str] = []
        self.lines: list[str] = []
        self.keep_lines = False
        self._hash = hashlib.blake2b(digest_size=8)
        self._saw: dict[tuple[str, TargetKey], Saw] = {}
        self._opinions: dict[tuple[str, TargetKey], list[Opinion]] = {}
        """Of an agent that began anew two: a coordinator may go on from what it said before."""
        self._region_of: dict[str, str] = {}
        self._disturbed: dict[str, float] = {}
        self.verdicts: dict[TargetKey, str] = {}
        """As the store has them."""
        self.pools: dict[str, PoolState] = {}
        self._pool_log: list[tuple[int, dict[str, PoolState]]] = [(0, {})]
        self._leader = ""
        self._held: dict[tuple[str, TargetKey, str], float] = {}
        self._engines: dict[str, Engine] = {}
        self._restored: dict[str, float] = {}
        """When each coordinator of now began from the store: its stored votes count for a grace."""
        self._tables: dict[str, int] = {}
        self.changes: list[tuple[float, TargetKey, str]] = []
        """Verdicts that changed in the store, and when."""
        self.moves = 0
        """Members that left or returned, in published pools."""
        self.leaderships = 0

    # ---- telling ---------------------------------------------------------------------------------

    def note(self, *words: object) -> None:
        """A line of the trace."""
        line = f"{self._loop.time():.6f} " + " ".join(map(str, words))
        self._hash.update(line.encode())
        if self.keep_lines:
            self.lines.append(line)

    def violated(self, *words: object) -> None:
        """Something that must never happen did."""
        self.note("VIOLATION", *words)
        if len(self.violations) < MOST_VIOLATIONS:
            text = " ".join(map(str, words))
            self.violations.append(f"at {self._loop.time():.3f} s: {text}")

    def broke(self, name: str, error: BaseException) -> None:
        """A part ended by itself."""
        self.violated(name, "broke:", f"{type(error).__name__}: {error}")

    @property
    def trace(self) -> str:
        return self._hash.hexdigest()

    # ---- results ---------------------------------------------------------------------------------

    def disturbed(self, regions: Iterable[str]) -> None:
        """Some coordinator may have missed results of these regions, or begun anew."""
        rules, shaken = self._world.check, set(regions)
        for region in shaken:
            self._disturbed[region] = self._loop.time()
        for (name, key), opinions in self._opinions.items():
            if (region := self._region_of[name]) in shaken:
                saw = self._saw[region, key]
                for opinion in opinions:
                    for vote in opinion.anew(rules.fall, rules.rise):
                        saw.at[vote] = max(saw.at[vote], saw.heard)

    def heard(self, agent: AgentMachine, result: ProbeResult) -> None:
        """A probe ended."""
        check, address, port, *_ = result.identity
        key = TargetKey(check, address, port)
        now = self._loop.time()
        opinions = self._opinions.setdefault((agent.name, key), [Opinion()])
        self._region_of[agent.name] = agent.region
        saw = self._saw.setdefault((agent.region, key), Saw())
        rules = self._world.check
        saw.heard = now
        since = now - 2 * self._world.grace_s - SLACK_S
        shaken = self._disturbed.get(agent.region, -1e9) >= since
        for opinion in opinions:
            for vote in opinion.take(result.outcome.kind, rules.fall, rules.rise, shaken=shaken):
                saw.at[vote] = now

    def forget(self, agent: AgentMachine) -> None:
        """An agent begins anew."""
        for (name, _), opinions in self._opinions.items():
            if name == agent.name:
                opinions[1:] = [Opinion()]

    def supporters(self, key: TargetKey, verdict: str, since: float) -> list[str]:
        """The regions that saw a target so at some moment since."""
        found = []
        for region in self._world.regions:
            saw = self._saw.get((region, key))
            if saw is not None and saw.at[verdict] >= since:
                found.append(region)
        return found

    # ---- verdicts --------------------------------------------------------------------------------

    def began(self, machine: CoordinatorMachine) -> None:
        """A coordinator starts: look at all that its engine decides."""
        assert machine.part is not None
        self.disturbed(self._world.regions)
        engine = machine.part.engine
        handle = engine.handle
        name = machine.name
        self._engines[name] = engine
        standing: dict[TargetKey, str] = {}
        self._restored.pop(name, None)

        def watched(event: Incoming, now: Now) -> list[Effect]:
            effects = handle(event, now)
            if isinstance(event, Restored):
                self._restored.setdefault(name, self._loop.time())
                standing.update({key: one.verdict for key, one in event.verdicts.items()})
            for effect in effects:
                if isinstance(effect, PublishVerdict) and effect.record is not None:
                    before = standing.get(effect.target, "unknown")
                    verdict = effect.record.verdict
                    if verdict != before:
                        standing[effect.target] = verdict
                        self._held[name, effect.target, before] = self._loop.time()
                        self._judged(name, effect.target, before, effect.record)
                    self._held[name, effect.target, verdict] = float("inf")
            return effects

        engine.handle = watched  # type: ignore[method-assign]

    def _judged(self, who: str, key: TargetKey, before: str, record: VerdictRecord) -> None:
        verdict = record.verdict
        votes = (f"{region}={one.vote}/{one.streak}" for region, one in record.votes.items())
        self.note("judged", who, key.address, before, verdict, *votes)
        since = self._loop.time() - self._world.grace_s - SLACK_S
        if before == "unknown":
            ups = self.supporters(key, "up", since)
            support = sorted({*ups, *self.supporters(key, "down", since)})
            needed = self._world.voters
        else:
            support = self.supporters(key, verdict, since)
            needed = self._world.quorums[verdict]
        heard = [one for one in self._world.regions if self._heard_since(one, key, since)]
        if len(heard) < self._world.voters and self._restored[who] < since:
            self.violated(
                f"{who} judged {key.address} {before} -> {verdict} although only {heard} were "
                f"heard and {self._world.voters} must vote: {record.rule}"
            )
        if len(support) < needed:
            self.violated(
                f"{who} judged {key.address} {before} -> {verdict} although only {support} saw it "
                f"so and {needed} regions must: {record.rule}"
            )

    def _heard_since(self, region: str, key: TargetKey, since: float) -> bool:
        saw = self._saw.get((region, key))
        return saw is not None and saw.heard >= since

    # ---- writes ----------------------------------------------------------------------------------

    def wrote(self, client: Client | None, revision: int) -> None:
        """A revision of the store."""
        history = self._cluster.memory.history
        change = history._changes[revision - history.revision - 1]
        assert change.revision == revision
        writer = client.name if client is not None else "nobody"
        fresh: dict[str, PoolState] = {}
        for key, item in change.items.items():
            size = 0 if item is None else len(item.value)
            self.note("wrote", writer, revision, key, size)
            if key == keys.leader():
                self._leads(None if item is None else item.value)
            if key.startswith(LED) and writer not in ("operator", self._leader):
                leader = self._leader or "nobody"
                self.violated(f"{writer} wrote {key} while the leader is {leader}")
            if key.startswith(keys.VERDICTS):
                self._recorded(writer, key, item)
            elif key.startswith(keys.POOLS):
                name = key.removeprefix(keys.POOLS)
                if item is None:
                    self.violated(f"{writer} took pool {name} away")
                else:
                    fresh[name] = codec.decode(item.value, PoolState)
        for name, state in fresh.items():
            self._published(writer, name, state)
        if fresh:
            self._pool_log.append((revision, dict(self.pools)))

    def _leads(self, value: bytes | None) -> None:
        id_ = "" if value is None else codec.decode(value, Leader).id
        if id_ and self._leader and id_ != self._leader:  # a leader may write its own key anew
            self.violated(f"{id_} took the leadership of {self._leader} away")
        self._leader = id_
        self.leaderships += bool(id_)

    def _recorded(self, writer: str, key: str, item: Any) -> None:
        target = TargetKey(*keys.verdict_target(key))
        if item is None:
            self.violated(f"{writer} took the verdict over {target.address} away")
            return
        verdict = codec.decode(item.value, VerdictRecord).verdict
        before = self.verdicts.get(target, "unknown")
        if verdict == before:
            return
        self.verdicts[target] = verdict
        now = self._loop.time()
        self.changes.append((now, target, verdict))
        held = self._held.get((writer, target, verdict), -1e9)
        if held < now - SLACK_S:
            self.violated(
                f"{writer} wrote that {target.address} is {verdict}, which it does not hold"
            )

    def _published(self, writer: str, name: str, state: PoolState) -> None:
        before = self.pools.get(name)
        self.pools[name] = state
        check = self._world.resources.pools[name].checks[0]
        port = self._world.resources.checks[check].port
        if before is not None and state.generation < before.generation:
            self.violated(f"pool {name} went back to generation {state.generation}")
        if tuple(member.value for member in state.members) != self._world.members[name]:
            self.violated(f"pool {name} lost members")
        former = {member.value: member for member in before.members} if before else {}
        for member in state.members:
            verdict = self.verdicts.get(TargetKey(check, member.value, port), "unknown")
            told = "down" if member.why in BRAKED else member.why.replace("_as_up", "")
            if told in ("up", "down", "unknown") and told != verdict:
                self.violated(
                    f"{writer} published {member.value} as {member.why} while its verdict is "
                    f"{verdict}"
                )
            old = former.get(member.value)
            if old is not None and old.answered != member.answered:
                self.moves += 1

    # ---- resolvers -------------------------------------------------------------------------------

    def swapped(self, machine: ResolverMachine) -> None:
        """A resolver has another table."""
        follower = machine.follower
        assert follower is not None
        revision = follower.revision
        if revision < self._tables.get(machine.name, 0):
            self.violated(f"{machine.name} went back to revision {revision}")
        self._tables[machine.name] = revision
        view = follower._view
        if follower.refusal:
            self.violated(f"{machine.name} refused: {follower.refusal}")
        stored = next(pools for at, pools in reversed(self._pool_log) if at <= revision)
        if view is not None and view.pools != stored:
            self.violated(f"{machine.name} serves at {revision} what was not published then")

    # ---- the end ---------------------------------------------------------------------------------

    def settled(
        self, coordinators: list[CoordinatorMachine], resolvers: list[ResolverMachine]
    ) -> None:
        """All is healed, and has been for long enough."""
        leading = [
            one.name
            for one in coordinators
            if one.part is not None and one.part.leadership.fence > 0
        ]
        if len(leading) != 1 or leading[0] != self._leader:
            self.violated(f"in the end {leading} lead, and the store says {self._leader!r}")
        fresh = self.fresh()
        for name, wanted in fresh.items():
            state = self.pools.get(name)
            there = {one.value: one.counted for one in state.members} if state else {}
            right = {one.value: one.counted for one in wanted.members}
            if there != right:
                wrong = sorted(key for key in right if there.get(key) != right[key])
                self.violated(f"in the end pool {name} is not as a fresh judge decides: {wrong}")
        for one in coordinators:
            engine = self._engines[one.name]
            for name, state in engine.pools().items():
                published = self.pools.get(name)
                if published is None or _places(published) != _places(state):
                    self.violated(f"in the end {one.name} judges pool {name} otherwise")
        newest = max(
            item.mod_revision
            for key, item in self._cluster.memory.history.at().items()
            if key.startswith(keys.SERVE)
        )
        for resolver in resolvers:
            if resolver.follower is None or resolver.follower.revision < newest:
                self.violated(f"in the end {resolver.name} is not at the newest revision")

    def fresh(self) -> dict[str, PoolState]:
        """What an engine decides that knows nothing but what every region sees now."""
        engine, world = Engine(), self._world
        now = Now(0, 0.0)
        engine.handle(Restored(verdicts={}, pools={}, routes={}), now)
        engine.handle(Configured(resources=world.resources, generation=1, head_revision=1), now)
        targets = list(engine.targets())
        numbers = np.array([engine.number(key) for key in targets], dtype=np.int64)
        nothing = np.zeros(len(targets), dtype=np.int64)
        for at in range(1, world.check.fall + world.check.rise + 1):
            for region in world.regions:
                engine.handle(AgentFound(region=region, agent="a"), now)
                seen = [1 + world.fails(region, key.address) for key in targets]
                assert SUCCESS == 1
                frame = Frame(
                    region=region,
                    agent="a",
                    target=numbers,
                    outcome=np.array(seen, dtype=np.int64),
                    age_ms=nothing,
                    rtt_us=nothing,
                    reason=nothing,
                )
                engine.handle(frame, Now(1_000 * at, float(at)))
        return dict(engine.pools())


def _places(state: PoolState) -> list[tuple[str, bool, bool]]:
    return [(one.value, one.answered, one.counted) for one in state.members]
