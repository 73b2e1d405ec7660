"""What other geo data would change: who moves to another country, AS number, or rule.

Compares whole address spaces, not samples. Pure; the geographies and the resources are arguments.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from gtm.model import Instance, Resources, Rule
from resolver.clients import Client
from resolver.columns import Starts, merged, numbers, starts_of
from resolver.moves import joint, sizes
from resolver.place import Geography, Partition, Place
from resolver.ranking import lines_of, ranked
from resolver.tables import Tables
from resolver.territory import ClientSpans, ClientTable

SAMPLES = 3
"""Prefixes that are shown of those who move alike, from the widest pieces."""
MAX_ROWS = 10_000
"""The most flows that are kept of one kind; the least go first."""
NO_RULE = "(none)"
"""The rule of clients that no rule matches."""


class Flow(Struct, frozen=True):
    """Clients that go from one thing to another: IPv4 addresses, IPv6 /48s, some prefixes.

    For rules also the instance, and the pools of their first tiers.
    """

    before: str
    after: str
    v4_addresses: int
    v6_48s: float
    samples: tuple[str, ...]
    instance: str = ""
    pools_before: tuple[str, ...] = ()
    pools_after: tuple[str, ...] = ()


Pair = tuple[Partition, Partition]
"""The same for IPv4 and for IPv6."""


def country_flows(old: Geography, new: Geography) -> list[Flow]:
    """Who moves from country to country, the most first; "" is an unknown one."""
    return _place_flows(old, new, lambda place: place.country)


def number_flows(old: Geography, new: Geography) -> list[Flow]:
    """The same by AS number; empty where neither knows any."""
    return _place_flows(old, new, lambda place: str(place.asn or ""))


def rule_flows(
    old: Geography, new: Geography, resources: Resources, names: Sequence[str] = ()
) -> list[Flow]:
    """Who moves from rule to rule of each enabled instance (or of `names`), the most first."""
    before, after = Tables(old, resources.lines), Tables(new, resources.lines)
    known: dict[tuple[tuple[str, ...], ...], list[tuple[int, int, Flow]]] = {}
    found = []
    for name, instance in sorted(resources.instances.items()):
        if not instance.enabled or (names and name not in names):
            continue
        shape = tuple(rule.lines for rule in instance.rules)
        if shape not in known:
            known[shape] = _shape_flows(before, after, instance)
        rules = [*(rule.name for rule in instance.rules), NO_RULE]
        pools = [*(_first_pools(rule) for rule in instance.rules), ()]
        found += [
            replace(
                flow,
                before=rules[one],
                after=rules[other],
                instance=name,
                pools_before=pools[one],
                pools_after=pools[other],
            )
            for one, other, flow in known[shape]
        ]
    return _ordered(found)


def _first_pools(rule: Rule) -> tuple[str, ...]:
    return rule.tiers[0].names() if rule.tiers else ()


def _place_flows(old: Geography, new: Geography, word: Callable[[Place], str]) -> list[Flow]:
    index: dict[str, int] = {}

    def worded(geography: Geography) -> Pair:
        codes = np.array(
            [index.setdefault(word(place), len(index)) for place in geography.places], np.int32
        )
        return (_relabelled(geography.v4, codes), _relabelled(geography.v6, codes))

    found = list(_flows(worded(old), worded(new)))
    words = list(index)
    return _ordered(
        [replace(flow, before=words[one], after=words[other]) for one, other, flow in found]
    )


def _shape_flows(before: Tables, after: Tables, instance: Instance) -> list[tuple[int, int, Flow]]:
    """Flows between the numbers of an instance's rules; one beyond the last is none of them."""
    matches = lines_of(instance.rules)
    texts = [text for rule in instance.rules for text in rule.lines]

    def first(client: Client) -> int:
        mine = ranked(matches, client)
        return mine[0].rule if mine else len(instance.rules)

    key = tuple(rule.lines for rule in instance.rules)
    pairs = [_partitions(*tables.table(key, texts, first)) for tables in (before, after)]
    return list(_flows(*pairs))


def _partitions(table: ClientTable, outcomes: Sequence[int]) -> Pair:
    codes = np.array(outcomes, np.int32)
    return (_partition(table.v4, codes), _partition(table.v6, codes))


def _partition(spans: ClientSpans, codes: NDArray[np.int32]) -> Partition:
    starts = starts_of(spans.bits, (start << spans.shift for start in spans.starts))
    return Partition(spans.bits, starts, codes[np.array(spans.classes, np.int64)])


def _relabelled(family: Partition, codes: NDArray[np.int32]) -> Partition:
    return Partition(family.bits, family.starts, codes[family.places])


def _flows(old: Pair, new: Pair) -> Iterator[tuple[int, int, Flow]]:
    """(from, to, flow) for each pair of different codes, of those who go from one to the other."""
    families = [_moved(was, will) for was, will in zip(old, new, strict=True)]
    for one, other in sorted({pair for family in families for pair in family}):
        v4, v6 = (family.get((one, other), (0.0, ())) for family in families)
        yield one, other, Flow("", "", round(v4[0]), v6[0] / 2**16, (*v4[1], *v6[1]))


def _moved(old: Partition, new: Partition) -> dict[tuple[int, int], tuple[float, tuple[str, ...]]]:
    """By (from, to) in one family: how wide it is (as `sizes`), and prefixes."""
    starts, left, right = joint(old, new)
    width = int(max(left.max(), right.max())) + 1
    starts, pairs = merged(starts, left.astype(np.int64) * width + right)
    size = sizes(starts)
    at = np.flatnonzero(pairs // width != pairs % width)
    if not len(at):
        return {}
    pairs = pairs[at]
    # The pieces of each pair side by side, the widest of them first.
    order = np.lexsort((-size[at], pairs))
    at, pairs = at[order], pairs[order]
    kinds, firsts = np.unique(pairs, return_index=True)
    wide = np.add.reduceat(size[at], firsts)
    found = {}
    for number, (kind, first) in enumerate(zip(kinds.tolist(), firsts.tolist(), strict=True)):
        end = int(firsts[number + 1]) if number + 1 < len(firsts) else len(at)
        widest = at[first : min(end, first + SAMPLES)].tolist()
        prefixes = tuple(_prefix(starts, piece, old.bits) for piece in widest)
        found[divmod(kind, width)] = (float(wide[number]), prefixes)
    return found


def _prefix(starts: Starts, piece: int, bits: int) -> str:
    """The widest network inside a piece."""
    kind = ipaddress.IPv4Address if bits == 32 else ipaddress.IPv6Address
    first, *beyond = numbers(starts[piece : piece + 2])
    last = (beyond[0] if beyond else 1 << bits) - 1
    blocks = ipaddress.summarize_address_range(kind(first), kind(last))
    return str(max(blocks, key=lambda block: block.num_addresses))


def _ordered(flows: Sequence[Flow]) -> list[Flow]:
    """The most first: of IPv4 and of IPv6 each by its part of all that moves."""
    v4 = sum(flow.v4_addresses for flow in flows) or 1
    v6 = sum(flow.v6_48s for flow in flows) or 1.0
    return sorted(flows, key=lambda flow: -(flow.v4_addresses / v4 + flow.v6_48s / v6))[:MAX_ROWS]
