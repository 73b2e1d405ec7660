"""From the rules of an instance and the states of pools to a plan. Pure; no per-query work.

A plan is a chain of `Located` nodes, one for each class of lines from the narrowest to the widest,
above the picks of tiers. A client that a class does not know falls to the next class; so does one
whose rule is exhausted and says widen, with its own rule carried along, because that rule's
when_all_down is what it gets in the end. Nodes are interned: equal ones are one object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from gtm.availability import eligible
from gtm.choices import AllDown
from gtm.model import Family, Rule
from gtm.state import PoolState
from gtm.variants import variants

from .edns import NOT_READY, OTHER_ERROR, extended_error
from .limits import JOINED_ANSWERS, MAX_ANSWERS
from .message import SERVFAIL, record
from .plan import OWNER, Answers, By, Located, Node, Spans, Weighted
from .ranking import Match, Network, ranks_of
from .records import a, aaaa
from .steering import round_robin
from .steering.base import PACKAGE, Leaf, compile_pool, in_play, refuse_too_many
from .tiers import Pin, TierChoice, choose_tier, widens

_DATA = {"ipv4": a, "ipv6": aaaa}
_TEXT = "all down: answered by {}"


class Spec(Struct, frozen=True):
    """All that a plan depends on but the states of pools; equal ones share a plan.

    `pins` has what the published routes say of each rule.
    """

    family: Family
    ttl: int
    when_all_down: AllDown
    rules: tuple[Rule, ...]
    pins: tuple[Pin | None, ...]

    def pools(self) -> set[str]:
        """The names of all pools that the rules mention."""
        return {name for rule in self.rules for tier in rule.tiers for name in tier.names()}


class Planner:
    """Makes plans for one set of pool states; `kept` are ready plans of pools (pool -> TTL)."""

    def __init__(
        self, pools: Mapping[str, PoolState], kept: dict[str, dict[int, Node]] | None = None
    ) -> None:
        self.pools = pools
        self.kept = kept if kept is not None else {}
        self._tiers: dict[tuple[tuple[str, ...], tuple[str, ...], Family, int], Node] = {}
        self._interned: dict[object, Node] = {}

    def plan(self, spec: Spec) -> Node:
        """The plan of a spec; ValueError where a tier would have too many different answers."""
        return _Branches(self, spec).first()

    def intern(self, node: Node) -> Node:
        """The one object that stands for all nodes equal to `node`."""
        return self._interned.setdefault(_key(node), node)

    def tier(self, named: Sequence[str], found: tuple[str, ...], family: Family, ttl: int) -> Node:
        """The pick of a tier that names the pools `named`, of which `found` are available."""
        key = (tuple(named), found, family, ttl)
        node = self._tiers.get(key)
        if node is None:
            node = self._tiers[key] = self.intern(self._tier(named, found, family, ttl))
        return node

    def _tier(self, named: Sequence[str], found: tuple[str, ...], family: Family, ttl: int) -> Node:
        states = [self.pools[name] for name in found]
        siblings = [self.pools[name] for name in named if name in self.pools]
        policies = {state.steering.type for state in siblings if state.type == family}
        if sum(state.type == family for state in siblings) > 1 and len(policies) == 1:
            join = getattr(variants(PACKAGE)[policies.pop()], "join", None)
            if join is not None:
                members = [in_play(state) for state in states]
                joined: Node = join(members, JOINED_ANSWERS, leaf_of(family, ttl))
                return joined
        picks = [self._pool(name, family, ttl) for name in found]
        node = picks[0]
        for pick in picks[1:]:
            refuse_too_many(_width(node) * _width(pick))
            node = _both(node, pick)
        return node

    def _pool(self, name: str, family: Family, ttl: int) -> Node:
        ready = self.kept.setdefault(name, {})
        if ttl not in ready:
            ready[ttl] = compile_pool(self.pools[name], leaf_of(family, ttl))
        return ready[ttl]

    def all_down(self, rule: Rule, policy: AllDown, family: Family, ttl: int) -> Node:
        """What clients of `rule` get when no tier is available."""
        extended = extended_error(OTHER_ERROR, _TEXT.format(policy))
        if policy.word == "servfail":
            return self.intern(Answers(ttl, rcode=SERVFAIL, extended=extended))
        values: list[str] = []
        for name in (name for tier in rule.tiers for name in tier.names()):
            state = self.pools.get(name)
            if state is None or state.type != family or policy.word == "nodata":
                continue
            values += [member.value for member in eligible(state, family)]
            if values and policy.word == "lowest_ordinal":
                break
        if not values:
            return self.intern(Answers(ttl, extended=extended))
        leaf = leaf_of(family, ttl, extended)
        return self.intern(round_robin.rotations(list(dict.fromkeys(values)), MAX_ANSWERS, leaf))


def leaf_of(family: Family, ttl: int, extended: bytes = b"") -> Leaf:
    """What makes the leaves of addresses of `family`."""
    ready: dict[str, bytes] = {}
    made = _DATA[family]

    def leaf(values: Sequence[str]) -> Answers:
        for value in values:
            if value not in ready:
                ready[value] = record(OWNER, made.TYPE, ttl, made.rdata(value))
        wire = b"".join([ready[value] for value in values])
        return Answers(ttl, wire, len(values), extended=extended)

    return leaf


def _width(node: Node) -> int:
    """How many answers a pick has."""
    return sum(map(_width, node.branches)) if isinstance(node, Weighted) else 1


def _both(first: Node, second: Node) -> Node:
    """The plan whose answers are those of `first` with those of `second` behind them.

    An address that stands in both is answered once.
    """
    if isinstance(first, Weighted):
        return Weighted(
            first.total, tuple(_both(branch, second) for branch in first.branches), first.ends
        )
    if isinstance(second, Weighted):
        return Weighted(
            second.total, tuple(_both(first, branch) for branch in second.branches), second.ends
        )
    assert isinstance(first, Answers)
    assert isinstance(second, Answers)
    data = dict.fromkeys((*first.rdata(), *second.rdata()))
    wire = b"".join(record(OWNER, rtype, first.ttl, rdata) for rtype, rdata in data)
    return Answers(first.ttl, wire, len(data))


class _Branches:
    """The chain of one plan, made from its narrowest class on, each part once."""

    def __init__(self, planner: Planner, spec: Spec) -> None:
        self.planner, self.spec = planner, spec
        self.ranks = ranks_of(spec.rules)
        self.choices = tuple(
            choose_tier(rule, spec.family, planner.pools, pin)
            for rule, pin in zip(spec.rules, spec.pins, strict=True)
        )
        self.wide = frozenset(
            number
            for number, (rule, choice) in enumerate(zip(spec.rules, self.choices, strict=True))
            if widens(rule, choice)
        )
        self.made: dict[tuple[str, int], Node] = {}

    def first(self) -> Node:
        return self.level("network", -1)

    def level(self, by: str, own: int) -> Node:
        """What clients get from class `by` on; `own` is their own rule, exhausted, or -1."""
        key = (by, own)
        if key not in self.made:
            self.made[key] = self._level(by, own)
        return self.made[key]

    def _level(self, by: str, own: int) -> Node:
        ranks = self.ranks
        match by:
            case "network":
                return self._networks()
            case "asn":
                return self._table("asn", ranks.asn, own, "subdivision")
            case "subdivision":
                return self._subdivisions(own)
            case "country":
                return self._table("country", ranks.country, own, "oversea")
            case "oversea":
                table = {True: ranks.oversea} if ranks.oversea else {}
                return self._table("oversea", table, own, "continent")
            case "continent":
                return self._table("continent", ranks.continent, own, "default")
            case "default":
                return self.settle(ranks.default, own, "")
        return self._nothing() if own < 0 else self._all_down(own)

    def settle(self, matches: Iterable[Match], own: int, following: str) -> Node:
        """The node of the first of `matches` that is not exhausted and wide, else the next class.

        Where the own rule is known already, it was exhausted, and wide ones no longer matter.
        """
        for match in matches:
            own = match.rule if own < 0 else own
            if match.rule not in self.wide:
                return self._rule(match.rule, own)
        return self.level(following, own)

    def _rule(self, number: int, own: int) -> Node:
        choice: TierChoice = self.choices[number]
        rule, family, ttl = self.spec.rules[number], self.spec.family, self.spec.ttl
        if choice.tier:
            return self.planner.tier(rule.tiers[choice.tier - 1].names(), choice.pools, family, ttl)
        if choice.why == "exhausted":
            return self._all_down(own)
        if choice.why == "not_ready":
            extended = extended_error(NOT_READY, "a pool was not published yet")
            return self.planner.intern(Answers(ttl, rcode=SERVFAIL, extended=extended))
        return self._nothing()

    def _nothing(self) -> Node:
        return self.planner.intern(Answers(self.spec.ttl))

    def _all_down(self, own: int) -> Node:
        spec, rule = self.spec, self.spec.rules[own]
        return self.planner.all_down(rule, spec.when_all_down, spec.family, spec.ttl)

    def _live(self, matches: tuple[Match, ...], own: int) -> tuple[Match, ...]:
        if own < 0:
            return matches
        return tuple(match for match in matches if match.rule not in self.wide)

    def _table(
        self, by: By, table: Mapping[Any, tuple[Match, ...]], own: int, following: str
    ) -> Node:
        """The node of a class of which a client has one value at most."""
        otherwise = self.level(following, own)
        branches: dict[int | str, Node] = {}
        for key, matches in table.items():
            live = self._live(matches, own)
            if live and (node := self.settle(live, own, following)) is not otherwise:
                branches[key] = node
        if not branches:
            return otherwise
        return self.planner.intern(Located(by, otherwise, branches))

    def _subdivisions(self, own: int) -> Node:
        """The node of subdivisions, of which a client may have several.

        A client takes its code with the first rule; where that rule is exhausted and wide it asks
        again among the others, with its own rule known.
        """
        otherwise = self.level("country", own)
        branches: dict[int | str, Node] = {}
        order: dict[str, int] = {}
        for code, matches in self.ranks.subdivision.items():
            live = self._live(matches, own)
            if live:
                first = live[0].rule
                wide = first in self.wide
                order[code] = first
                branches[code] = (
                    self.level("subdivision", first)
                    if wide
                    else self._rule(first, first if own < 0 else own)
                )
        if all(node is otherwise for node in branches.values()):
            return otherwise
        return self.planner.intern(Located("subdivision", otherwise, branches, order))

    def _networks(self) -> Node:
        """The node of own networks: disjoint spans, each with the outcome of those around it."""
        by_version: dict[int, dict[Network, list[Match]]] = {4: {}, 6: {}}
        for network, match in self.ranks.networks:
            by_version[network.version].setdefault(network, []).append(match)
        otherwise = self.level("asn", -1)
        spans = {
            version: self._spans(networks, 32 if version == 4 else 128)
            for version, networks in by_version.items()
        }
        if all(found.branches == (otherwise,) for found in spans.values()):
            return otherwise
        located = Located("network", otherwise, v4=spans[4], v6=spans[6])
        return self.planner.intern(located)

    def _spans(self, networks: Mapping[Network, Sequence[Match]], bits: int) -> Spans:
        opening = sorted(networks, key=lambda network: (int(network[0]), network.prefixlen))
        edges = {0} | {int(net[0]) for net in opening} | {int(net[-1]) + 1 for net in opening}
        around: list[Network] = []  # the networks around the edge, the widest first
        starts: list[int] = []
        branches: list[Node] = []
        position = 0
        for edge in sorted(edges - {1 << bits}):
            while around and int(around[-1][-1]) < edge:
                around.pop()
            while position < len(opening) and int(opening[position][0]) == edge:
                around.append(opening[position])
                position += 1
            matches = (match for network in reversed(around) for match in networks[network])
            node = self.settle(matches, -1, "asn")
            if not branches or branches[-1] is not node:
                starts.append(edge)
                branches.append(node)
        return Spans(bits, tuple(starts), tuple(branches))


def _key(node: Node) -> object:
    """What two equal nodes have in common; children are interned, so their identity will do."""
    if not isinstance(node, Located):
        return node
    return (
        node.by,
        id(node.otherwise),
        tuple((key, id(branch)) for key, branch in node.branches.items()),
        tuple(node.order.items()),
        *(
            (spans.starts, tuple(map(id, spans.branches)))
            for spans in (node.v4, node.v6)
            if spans is not None
        ),
    )
