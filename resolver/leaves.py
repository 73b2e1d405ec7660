"""Leaves of plans, ready for the wire, and what joins the picks of several pools into one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gtm.availability import addresses, answers_cname
from gtm.model import Family
from gtm.state import Member, PoolState

from .message import record
from .plan import OWNER, Answers, Hashed, Located, Node, Weighted
from .records import a, aaaa, cname

Leaf = Callable[[Sequence[str]], Answers]
"""Makes the leaf of some addresses, or of one name, in the order given."""

_DATA = {"ipv4": a, "ipv6": aaaa}


def leaf_of(
    states: Iterable[PoolState],
    family: Family,
    ttl: int,
    extended: bytes = b"",
    pools: Sequence[str] = (),
) -> Leaf:
    """What makes the leaves of `states`: addresses of `family`, or names where they answer CNAMEs.

    The TTL in seconds is at most what is left of what flattened names resolved to. `pools` are the
    names of `states`, in their order.
    """
    states = tuple(states)
    tags = tuple(pools[:1])
    owners = _owners(states, family, pools) if len(pools) > 1 else {}
    sets = (member.set for state in states for member in state.members)
    ttl = min([ttl, *(found.left_s for found in sets if found is not None)])
    made = cname if any(map(answers_cname, states)) else _DATA[family]
    ready: dict[str, bytes] = {}

    def leaf(values: Sequence[str]) -> Answers:
        for value in values:
            if value not in ready:
                ready[value] = record(OWNER, made.TYPE, ttl, made.rdata(value))
        wire = b"".join([ready[value] for value in values])
        named = _tags([owners[value] for value in values]) if owners else tags
        return Answers(ttl, wire, len(values), extended=extended, pools=named)

    return leaf


def _owners(states: Sequence[PoolState], family: Family, pools: Sequence[str]) -> dict[str, str]:
    """The pool of each value that `states` may answer; of several the first."""
    owners: dict[str, str] = {}
    for name, state in zip(pools, states, strict=True):
        for value in values_of(state, state.members, family):
            owners.setdefault(value, name)
    return owners


def _tags(pools: Sequence[str]) -> tuple[str, ...]:
    """The pools of the records of one leaf, as `Answers.pools` has them."""
    return tuple(pools[:1] if len(set(pools)) == 1 else pools)


def _origins(leaf: Answers) -> Sequence[str]:
    """The pool of each record of a leaf; "" where it is not known."""
    return leaf.pools if len(leaf.pools) == leaf.count else (leaf.pools or ("",)) * leaf.count


def values_of(pool: PoolState, members: Sequence[Member], family: Family) -> list[str]:
    """What is answered of `members`: their addresses of `family`, each once, or their names."""
    if answers_cname(pool):
        return [member.value for member in members]
    return list(dict.fromkeys(value for one in members for value in addresses(one, family)))


def width(node: Node) -> int:
    """How many different answers a pick has at most, for any one client."""
    if isinstance(node, Weighted):
        return sum(map(width, node.branches))
    if isinstance(node, Located | Hashed):
        return max(map(width, node.branches))
    return 1


def both(first: Node, second: Node) -> Node:
    """The plan whose answers are those of `first` with those of `second` behind them.

    An address that stands in both is answered once.
    """
    if isinstance(first, Answers):
        if isinstance(second, Answers):
            data: dict[tuple[int, bytes], str] = {}
            for leaf in (first, second):
                for one, pool in zip(leaf.rdata(), _origins(leaf), strict=True):
                    data.setdefault(one, pool)
            return _leaf(tuple(data), min(first.ttl, second.ttl), tuple(data.values()))
        return _mapped(second, lambda branch: both(first, branch))
    return _mapped(first, lambda branch: both(branch, second))


def cut(node: Node, most: int) -> Node:
    """The plan with at most the first `most` records in each answer."""
    if isinstance(node, Answers):
        if node.count <= most:
            return node
        return _leaf(node.rdata()[:most], node.ttl, _origins(node)[:most])
    return _mapped(node, lambda branch: cut(branch, most))


def _leaf(data: Sequence[tuple[int, bytes]], ttl: int, pools: Sequence[str]) -> Answers:
    wire = b"".join(record(OWNER, rtype, ttl, rdata) for rtype, rdata in data)
    return Answers(ttl, wire, len(data), pools=_tags(pools))


def _mapped(node: Weighted | Located | Hashed, change: Callable[[Node], Node]) -> Node:
    """The node with every branch changed, each object once."""
    done: dict[int, Node] = {}
    for branch in node.branches:
        if id(branch) not in done:
            done[id(branch)] = change(branch)
    branches = tuple(done[id(branch)] for branch in node.branches)
    if all(new is old for new, old in zip(branches, node.branches, strict=True)):
        return node
    match node:
        case Weighted():
            return Weighted(node.total, branches, node.ends)
        case Located():
            return Located(node.table, branches, node.lines)
        case Hashed():
            return Hashed(node.prefix_v4, node.prefix_v6, node.buckets, branches)
