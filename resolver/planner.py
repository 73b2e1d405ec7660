"""From the rules of an instance and the states of pools to a plan. Pure; no per-query work.

A plan is one choice by where the client is (which rules match it), above the picks of tiers: each
class of clients gets what `tiers.decide` says of its rules. Policies make the picks, among the
pools of a tier and among the members of a pool. Nodes are interned: equal ones are one object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from msgspec import UNSET, Struct, field

from gtm.availability import Judged, addresses, answers_cname, of_family
from gtm.choices import AllDown, PoolRef
from gtm.model import Family, Region, Rule, Tier
from gtm.state import Member, PoolState

from . import fallback
from .clients import Client
from .edns import NOT_READY, extended_error
from .leaves import both, cut, leaf_of, values_of, width
from .limits import JOINED_ANSWERS, MAX_ANSWERS
from .message import SERVFAIL
from .plan import Answers, Hashed, Located, Node, Weighted
from .ranking import lines_of, ranked
from .standings import Question, Standing, Standings
from .steering.base import Option, policy_of, refuse_too_many, rotations
from .tables import Tables, located
from .territory import ClientTable
from .tiers import Decision, Pin, TierChoice, decide


class Spec(Struct, frozen=True):
    """All that a plan depends on but the states of pools; equal ones share a plan.

    `ttl_wavering` is the TTL of answers that may change soon, `pins` has what the published routes
    say of each rule.
    """

    family: Family
    ttl: int
    ttl_wavering: int
    when_all_down: AllDown
    rules: tuple[Rule, ...]
    pins: tuple[Pin | None, ...]

    def pools(self) -> set[str]:
        """The names of all pools that the plan may answer from."""
        named = {name for rule in self.rules for tier in rule.tiers for name in tier.names()}
        return named | ({self.when_all_down.pool} if self.when_all_down.pool else set())


class Shape(Struct, frozen=True, gc=False):
    """The clients that some rules tell apart: which rules decide, and the line, of each class."""

    table: ClientTable
    outcomes: tuple[tuple[int, ...], ...]
    lines: tuple[str, ...]


class Draft(Struct, frozen=True, eq=False, gc=False):
    """A plan before any state of a pool: its classes of clients, and a question for each rule."""

    spec: Spec
    shape: Shape
    questions: tuple[Question, ...]


Taken: TypeAlias = "tuple[Question, int] | None"
"""A question, and the TTL of the pick of the tier that serves it; None: no tier serves."""


class Drawn(Struct, frozen=True, eq=False, gc=False):
    """A plan and what it was made of: the branch of each class of clients, and its origin."""

    plan: Node
    branches: tuple[Node, ...]
    taken: tuple[Taken, ...]


MAX_EMPTY = 256
"""TTLs for which leaves without records are remembered, so that equal ones are one object."""
LABEL_LINES = 3
"""Lines of a rule that the label of its clients names."""


def line_label(lines: Sequence[str]) -> str:
    """What the clients of a rule are counted under: its lines, of many the first and a number."""
    more = len(lines) - LABEL_LINES
    return ",".join(lines[:LABEL_LINES]) + (f",+{more}" if more > 0 else "")


Picks = dict[tuple[Family, int], Node]
"""The picks of one pool, by family and TTL."""


class Kept(Struct, frozen=True):
    """What planners of the same geography and regions take over from each other."""

    standings: Standings = field(default_factory=Standings)
    shapes: dict[Hashable, Shape] = field(default_factory=dict)
    pools: dict[str, Picks] = field(default_factory=dict)

    def without(self, pools: Collection[str], questions: Iterable[Question]) -> Kept:
        """The same but for what depends on the states of `pools`, of which `questions` are."""
        picks = dict(self.pools)
        for name in pools:
            picks.pop(name, None)
        return Kept(self.standings.without(questions), self.shapes, picks)


class Planner:
    """Makes plans for one set of pool states; what is in `kept` is not made again."""

    def __init__(
        self,
        pools: Mapping[str, PoolState],
        tables: Tables,
        regions: Mapping[str, Region] | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.pools, self.tables = Judged.of(pools), tables
        self.regions: Mapping[str, Region] = {} if regions is None else regions
        self.kept = kept if kept is not None else Kept()
        self._tiers: dict[Hashable, Node] = {}
        self._down: dict[Hashable, Node] = {}
        self._interned: dict[object, Node] = {}

    def plan(self, spec: Spec) -> Node:
        """The plan of a spec; ValueError where a tier would have too many different answers."""
        return self.draw(self.draft(spec)).plan

    def draft(self, spec: Spec) -> Draft:
        """What of a plan no state of a pool changes."""
        key = tuple((rule.lines, rule.on_exhausted) for rule in spec.rules)
        shape = self.kept.shapes.get(key)
        if shape is None:
            shape = self.kept.shapes[key] = self._classes(key, spec.rules)
        ask = self.kept.standings.question
        questions = [
            ask(rule, spec.family, pin) for rule, pin in zip(spec.rules, spec.pins, strict=True)
        ]
        return Draft(spec, shape, tuple(questions))

    def draw(self, draft: Draft) -> Drawn:
        """The plan of a draft; ValueError where a tier would have too many different answers."""
        rules, outcomes = draft.spec.rules, draft.shape.outcomes
        standings = [self.standing(question) for question in draft.questions]
        choice_of = [standing.choice for standing in standings].__getitem__
        decisions = [decide(rules, numbers, choice_of) for numbers in outcomes]
        pairs = [self._decided(draft, standings, decision) for decision in decisions]
        taken, branches = zip(*pairs, strict=True)
        return self._drawn(draft, branches, taken)

    def swapped(self, draft: Draft, drawn: Drawn, fresh: Mapping[Taken, Node]) -> Drawn:
        """The plan of a draft of which nothing changed since but the picks that are `fresh`."""
        pairs = zip(drawn.taken, drawn.branches, strict=True)
        branches = tuple([fresh.get(taken, branch) for taken, branch in pairs])
        return self._drawn(draft, branches, drawn.taken)

    def _drawn(self, draft: Draft, branches: tuple[Node, ...], taken: tuple[Taken, ...]) -> Drawn:
        shape = draft.shape
        plan = self.intern(located(shape.table, branches, shape.lines))
        return Drawn(plan, branches, taken)

    def _classes(self, shape: Hashable, rules: Sequence[Rule]) -> Shape:
        """The classes of clients that `rules` tell apart, and which rules decide for each."""
        matches = lines_of(rules)
        stops = [rule.on_exhausted == "stop" for rule in rules]

        def deciding(client: Client) -> tuple[int, ...]:
            numbers = [match.rule for match in ranked(matches, client)]
            end = next((at for at, number in enumerate(numbers, 1) if stops[number]), None)
            return tuple(numbers[:end])  # none behind one that does not widen

        texts = [text for rule in rules for text in rule.lines]
        table, outcomes = self.tables.table(("rules", shape), texts, deciding)
        lines = tuple(line_label(rules[one[0]].lines) if one else "" for one in outcomes)
        return Shape(table, outcomes, lines)

    def intern(self, node: Node) -> Node:
        """The one object that stands for all nodes equal to `node`."""
        return self._interned.setdefault(_key(node), node)

    def standing(self, question: Question) -> Standing:
        """How a question stands."""
        return self.kept.standings.of(question, self.pools)

    def _decided(
        self, draft: Draft, standings: Sequence[Standing], decision: Decision
    ) -> tuple[Taken, Node]:
        spec, choice = draft.spec, decision.choice
        if choice is None or choice.why == "no_family":
            return None, _nodata(spec.ttl)
        if choice.why == "not_ready":
            return None, _unready(spec.ttl)
        question, standing = draft.questions[decision.rule], standings[decision.rule]
        ttl = spec.ttl_wavering if standing.wavers else spec.ttl
        if choice.tier:
            return (question, ttl), standing.picks.get(ttl) or self.pick(question, ttl)
        key = (draft.questions[decision.own], spec.when_all_down, ttl)
        node = self._down.get(key)
        if node is None:
            rule = spec.rules[decision.own]
            node = self.all_down(rule, spec.when_all_down, spec.family, ttl)
            self._down[key] = node
        return None, node

    def all_down(self, rule: Rule, policy: AllDown, family: Family, ttl: int) -> Node:
        """What clients of `rule` get when no tier is available."""
        return self.intern(fallback.answer(rule, policy, self.pools, family, ttl))

    # ---- tiers -------------------------------------------------------------------------------

    def pick(self, question: Question, ttl: int) -> Node:
        """The pick of the tier that serves a question, which there must be."""
        standing = self.standing(question)
        rule, pin, family = question.rule, question.pin, question.family
        node = standing.picks[ttl] = self.tier(rule, standing.choice, pin, family, ttl)
        return node

    def repicked(self, question: Question, ttl: int, before: Node) -> Node:
        """The same; `before`, where the pick is still equal to it."""
        node = self.pick(question, ttl)
        if node == before:
            self.standing(question).picks[ttl] = node = before
        return node

    def tier(
        self, rule: Rule, choice: TierChoice, pin: Pin | None, family: Family, ttl: int
    ) -> Node:
        """The pick among the pools of the tier of `choice`."""
        in_force = pin.pool_in_force if pin is not None and pin.tier == choice.tier else ""
        tier = rule.tiers[choice.tier - 1]
        key = (tier, choice.pools, in_force, family, ttl)
        node = self._tiers.get(key)
        if node is None:
            made = self._tier(tier, choice.pools, in_force, family, ttl)
            node = self._tiers[key] = self.intern(made)
        return node

    def _tier(
        self, tier: Tier, found: tuple[str, ...], in_force: str, family: Family, ttl: int
    ) -> Node:
        refs = [ref for ref in tier.pools if ref.pool in found and self._members(ref.pool, family)]
        if not refs:  # judged once for all families, and of this one there is nobody
            return Answers(ttl)
        if len(refs) > 1:
            refs = [ref for ref in refs if ref.weight] or refs
        limit = None if tier.max_answers is UNSET else tier.max_answers
        if joined := self._joined(tier, refs, family):
            names = [ref.pool for ref in refs]
            leaf = leaf_of([self.pools[name] for name in names], family, ttl, pools=names)
            return rotations(
                range(len(joined)),
                limit or JOINED_ANSWERS,
                lambda some: self.intern(leaf([joined[index] for index in some])),
            )

        def pick(indexes: Sequence[int]) -> Node:
            first, *rest = (self.pool(refs[index].pool, family, ttl) for index in indexes)
            for node in rest:
                refuse_too_many(width(first) * width(node))
                first = both(first, node)
            most = limit or (JOINED_ANSWERS if rest else MAX_ANSWERS)
            return self.intern(cut(first, most))

        if tier.steering.type == "round_robin":
            return pick(range(len(refs)))
        policy, settings = policy_of(tier.steering)
        options = [self._option(ref, family) for ref in refs]
        ground = _Ground(self, pick, in_force, len(refs))
        return policy.compile(settings, options, len(refs), ground)

    def _joined(self, tier: Tier, refs: Sequence[PoolRef], family: Family) -> list[str]:
        """The members of pools that are one list, each value once; none where they are not.

        So are several pools under round_robin of which all, available or not, are round_robin.
        """
        named = [self.pools[name] for name in tier.names() if name in self.pools]
        alike = [state for state in named if of_family(state, family) or answers_cname(state)]
        if len(alike) < 2 or tier.steering.type != "round_robin":
            return []
        if any(state.steering.type != "round_robin" or answers_cname(state) for state in alike):
            return []
        members = [one for ref in refs for one in self._members(ref.pool, family)]
        return list(dict.fromkeys(value for one in members for value in addresses(one, family)))

    def _option(self, ref: PoolRef, family: Family) -> Option:
        members = self._members(ref.pool, family)
        points = tuple(one.location for one in members if one.location is not None)
        seen = _round_trips(self.pools[ref.pool])
        rtt_us: dict[str, int] = {}
        for one in members:
            for region, rtt in seen.get(one.value, {}).items():
                rtt_us[region] = min(rtt, rtt_us.get(region, rtt))
        return Option(ref.pool, ref.weight, ref.lines, points, rtt_us)

    # ---- pools -------------------------------------------------------------------------------

    def pool(self, name: str, family: Family, ttl: int) -> Node:
        """The pick of one pool among its members in play, of which there is at least one."""
        ready = self.kept.pools.setdefault(name, {})
        if (family, ttl) not in ready:
            ready[family, ttl] = self._pool(name, family, ttl)
        return ready[family, ttl]

    def _pool(self, name: str, family: Family, ttl: int) -> Node:
        state = self.pools[name]
        members = in_play(state, family)
        leaf = leaf_of([state], family, ttl, pools=(name,))
        most = 1 if answers_cname(state) else state.max_answers

        def pick(indexes: Sequence[int]) -> Node:
            some = [members[index] for index in indexes]
            return self.intern(leaf(values_of(state, some, family)[:most]))

        policy, settings = policy_of(state.steering)
        seen = _round_trips(state)
        options = [
            Option(
                one.value,
                one.weight,
                one.lines,
                () if one.location is None else (one.location,),
                seen.get(one.value, {}),
            )
            for one in members
        ]
        ground = _Ground(self, pick, state.member_in_force, most)
        return policy.compile(settings, options, most, ground)

    def _members(self, name: str, family: Family) -> tuple[Member, ...]:
        state = self.pools.get(name)
        return () if state is None else in_play(state, family)


class _Ground:
    """What a policy is handed (`steering.base.Ground`)."""

    def __init__(
        self,
        planner: Planner,
        pick: Callable[[Sequence[int]], Node],
        in_force: str,
        max_answers: int,
    ) -> None:
        self.pick, self.in_force = pick, in_force
        self._planner, self._max_answers = planner, max_answers

    @property
    def regions(self) -> Mapping[str, Region]:
        return self._planner.regions

    def located(
        self, key: Hashable, lines: Collection[str], choose: Callable[[Client], tuple[int, ...]]
    ) -> Node:
        table, chosen = self._planner.tables.table(key, lines, choose)
        branches = [
            self._planner.intern(rotations(indexes, self._max_answers, self.pick))
            for indexes in chosen
        ]
        return located(table, branches)


def in_play(pool: PoolState, family: Family) -> tuple[Member, ...]:
    """The members that are answered now; those of weight 0 only when there is no other."""
    members = pool.members if answers_cname(pool) else of_family(pool, family)
    answered = tuple(member for member in members if member.answered)
    return tuple(member for member in answered if member.weight > 0) or answered


@lru_cache(MAX_EMPTY)
def _nodata(ttl: int) -> Answers:
    """What clients get whom no rule or no pool of the family serves."""
    return Answers(ttl)


@lru_cache(MAX_EMPTY)
def _unready(ttl: int) -> Answers:
    """What clients get of whose pools one was not published yet."""
    extended = extended_error(NOT_READY, "a pool was not published yet")
    return Answers(ttl, rcode=SERVFAIL, extended=extended)


def _round_trips(pool: PoolState) -> dict[str, dict[str, int]]:
    """The published round trips in microseconds: member -> region -> its group's."""
    found: dict[str, dict[str, int]] = {}
    for region, groups in pool.latency.items():
        for group in groups:
            for value in group.members:
                found.setdefault(value, {})[region] = group.rtt_us
    return found


def _key(node: Node) -> object:
    """What two equal nodes have in common; children are interned, so their identity will do."""
    if isinstance(node, Located):
        return (id(node.table), *map(id, node.branches))
    if isinstance(node, Hashed):
        return (node.prefix_v4, node.prefix_v6, node.buckets, *map(id, node.branches))
    if isinstance(node, Weighted):
        return (node.total, node.ends, *map(id, node.branches))
    return node
