"""From the rules of an instance and the states of pools to a plan. Pure; no per-query work.

A plan is one choice by where the client is (which rules match it), above the picks of tiers: each
class of clients gets what `tiers.decide` says of its rules. Policies make the picks, among the
pools of a tier and among the members of a pool. Nodes are interned: equal ones are one object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

from msgspec import UNSET, Struct

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
from .steering.base import Option, policy_of, refuse_too_many, rotations
from .tables import Tables, located
from .territory import ClientTable
from .tiers import Decision, Pin, TierChoice, choose_tier, decide


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


class _Shape(Struct, frozen=True):
    """The clients that some rules tell apart: which rules decide, and the line, of each class."""

    table: ClientTable
    outcomes: tuple[tuple[int, ...], ...]
    lines: tuple[str, ...]


LABEL_LINES = 3
"""Lines of a rule that the label of its clients names."""


def line_label(lines: Sequence[str]) -> str:
    """What the clients of a rule are counted under: its lines, of many the first and a number."""
    more = len(lines) - LABEL_LINES
    return ",".join(lines[:LABEL_LINES]) + (f",+{more}" if more > 0 else "")


Picks = dict[tuple[Family, int], Node]
"""The picks of one pool, by family and TTL."""


class Planner:
    """Makes plans for one set of pool states; `kept` are ready picks of pools, by name."""

    def __init__(
        self,
        pools: Mapping[str, PoolState],
        tables: Tables,
        regions: Mapping[str, Region] | None = None,
        kept: dict[str, Picks] | None = None,
    ) -> None:
        self.pools, self.tables = Judged.of(pools), tables
        self.regions: Mapping[str, Region] = {} if regions is None else regions
        self.kept = kept if kept is not None else {}
        self._shapes: dict[Hashable, _Shape] = {}
        self._tiers: dict[Hashable, Node] = {}
        self._interned: dict[object, Node] = {}

    def plan(self, spec: Spec) -> Node:
        """The plan of a spec; ValueError where a tier would have too many different answers."""
        shape = tuple((rule.lines, rule.on_exhausted) for rule in spec.rules)
        found = self._shapes.get(shape)
        if found is None:
            found = self._shapes[shape] = self._classes(shape, spec.rules)
        choices = [
            choose_tier(rule, spec.family, self.pools, pin)
            for rule, pin in zip(spec.rules, spec.pins, strict=True)
        ]
        branches = [
            self._decided(spec, decide(spec.rules, numbers, choices.__getitem__))
            for numbers in found.outcomes
        ]
        return self.intern(located(found.table, branches, found.lines))

    def _classes(self, shape: Hashable, rules: Sequence[Rule]) -> _Shape:
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
        return _Shape(table, outcomes, lines)

    def intern(self, node: Node) -> Node:
        """The one object that stands for all nodes equal to `node`."""
        return self._interned.setdefault(_key(node), node)

    def _decided(self, spec: Spec, decision: Decision) -> Node:
        choice = decision.choice
        if choice is None or choice.why == "no_family":
            return self.intern(Answers(spec.ttl))
        ttl = self._ttl(spec, spec.rules[decision.rule], choice.tier)
        if choice.tier:
            pin = spec.pins[decision.rule]
            return self.tier(spec.rules[decision.rule], choice, pin, spec.family, ttl)
        if choice.why == "not_ready":
            extended = extended_error(NOT_READY, "a pool was not published yet")
            return self.intern(Answers(spec.ttl, rcode=SERVFAIL, extended=extended))
        return self.all_down(spec.rules[decision.own], spec.when_all_down, spec.family, ttl)

    def _ttl(self, spec: Spec, rule: Rule, tier: int) -> int:
        """The TTL of what tier `tier` of a rule answers (0: of what all that are down do).

        The shorter one where regions disagree about a pool that could take the answer over.
        """
        if spec.ttl_wavering == spec.ttl:
            return spec.ttl
        near = rule.tiers[:tier] if tier else rule.tiers
        states = (self.pools.get(name) for one in near for name in one.names())
        wavers = any(state is not None and state.wavering.get(spec.family) for state in states)
        return spec.ttl_wavering if wavers else spec.ttl

    def all_down(self, rule: Rule, policy: AllDown, family: Family, ttl: int) -> Node:
        """What clients of `rule` get when no tier is available."""
        return self.intern(fallback.answer(rule, policy, self.pools, family, ttl))

    # ---- tiers -------------------------------------------------------------------------------

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
        ready = self.kept.setdefault(name, {})
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
