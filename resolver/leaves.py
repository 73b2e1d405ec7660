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


def leaf_of(states: Iterable[PoolState], family: Family, ttl: int, extended: bytes = b"") -> Leaf:
    """What makes the leaves of `states`: addresses of `family`, or names where they answer CNAMEs.

    The TTL in seconds is at most what is left of what flattened names resolved to.
    """
    states = tuple(states)
    sets = (member.set for state in states for member in state.members)
    ttl = min([ttl, *(found.left_s for found in sets if found is not None)])
    made = cname if any(map(answers_cname, states)) else _DATA[family]
    ready: dict[str, bytes] = {}

    def leaf(values: Sequence[str]) -> Answers:
        for value in values:
            if value not in ready:
                ready[value] = record(OWNER, made.TYPE, ttl, made.rdata(value))
        wire = b"".join([ready[value] for value in values])
        return Answers(ttl, wire, len(values), extended=extended)

    return leaf


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
            data = dict.fromkeys((*first.rdata(), *second.rdata()))
            return _leaf(tuple(data), min(first.ttl, second.ttl))
        return _mapped(second, lambda branch: both(first, branch))
    return _mapped(first, lambda branch: both(branch, second))


def cut(node: Node, most: int) -> Node:
    """The plan with at most the first `most` records in each answer."""
    if isinstance(node, Answers):
        return node if node.count <= most else _leaf(node.rdata()[:most], node.ttl)
    return _mapped(node, lambda branch: cut(branch, most))


def _leaf(data: Sequence[tuple[int, bytes]], ttl: int) -> Answers:
    wire = b"".join(record(OWNER, rtype, ttl, rdata) for rtype, rdata in data)
    return Answers(ttl, wire, len(data))


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
            return Located(node.table, branches)
        case Hashed():
            return Hashed(node.prefix_v4, node.prefix_v6, node.buckets, branches)
