"""What a differential run met: policies, forms of failover, questions and kinds of replies.

Two responders that agree on everything that was asked prove nothing of what was not. `WANTED` is
all that has to come up in a run; policies and words come from the code, so that a new one that no
random world draws is missing here at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from gtm.availability import Judged
from gtm.choices import AllDown
from gtm.model import Family
from gtm.variants import variants
from gtm.view import View
from resolver.message import read_query
from resolver.plan import Answers, Hashed, Located, Met, Weighted, nodes_of
from resolver.steering.base import PACKAGE
from resolver.table import AnswerTable
from resolver.tiers import choose_tier, pin_of, route_of

FAMILIES: tuple[Family, ...] = ("ipv4", "ipv6")
NODES = {Answers: "leaf", Weighted: "draw", Hashed: "hash", Located: "place"}
POLICIES = tuple(sorted(variants(PACKAGE)))
ALL_DOWN = (*AllDown.WORDS, "pool", "addresses")
TYPES = (
    "A", "AAAA", "CNAME", "SOA", "NS", "MX", "TXT", "SRV", "DS", "DNAME", "NAPTR", "TLSA", "CAA",
    "HTTPS", "TYPE65280", "ANY",
)  # fmt: skip
"""Types that are asked; of those below, records are answered."""
ANSWERED = (*(one for one in TYPES if one not in ("SOA", "NS", "ANY")), "HINFO")
WANTED = frozenset(
    (
        *(f"pool steered by {one}" for one in POLICIES),
        *(f"tier steered by {one}" for one in POLICIES),
        *(f"all down: {one}" for one in ALL_DOWN),
        *(f"answered from a pool steered by {one}" for one in POLICIES),
        *(f"answered, all down: {one}" for one in ALL_DOWN if one not in ("servfail", "drop")),
        *(f"tier {one}" for one in ("first", "later", "pinned", "kept", "exhausted", "no_family")),
        "tier not_ready", "rule widens", "instance off", "pool of names",
        *(f"node {one}" for one in NODES.values()),
        *(f"asked {one}" for one in TYPES),
        *(f"answered {one}" for one in ANSWERED),
        "EDNS none", "EDNS", "EDNS DO", "EDNS NSID", "EDNS keepalive", "EDNS malformed",
        "EDNS of another version", "subnet none", "subnet empty", "subnet IPv4", "subnet IPv6",
        *(f"rcode {one}" for one in ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP",
                                     "REFUSED", "YXDOMAIN", "BADVERS")),
        "silence", "truncated", "referral", "glue", "nodata", "alias", "scope of 0", "scope",
        "NSID", "keepalive", "extended error", "stale",
    )
)  # fmt: skip


class Coverage:
    """Counts of what was met, by what it is called in `WANTED`."""

    def __init__(self) -> None:
        self.met: Counter[str] = Counter()

    def missing(self) -> list[str]:
        """What never came up."""
        return sorted(WANTED - self.met.keys())

    def rarest(self, many: int = 3) -> str:
        """What came up least, with how often."""
        rows = sorted((count, what) for what, count in self.met.items() if what in WANTED)
        return ", ".join(f"{what} {count:,}" for count, what in rows[:many])

    def put(self, table: AnswerTable) -> None:
        """A table was handed over."""
        view = table.made.view if table.made is not None else None
        if view is not None:
            self.met.update(_configured(view))
        self.met.update({f"node {NODES[type(one)]}" for one in nodes_of(table.plans)})

    def asked(self, table: AnswerTable, data: bytes, reply: bytes | None, met: Met) -> None:
        """A query was answered; `met` is what the reference met on the way."""
        self.met.update(_question(data))
        self.met.update(_steered(table, met))
        self.met.update(("silence",) if reply is None else _reply(reply))


def _configured(view: View) -> Iterator[str]:
    for state in view.pools.values():
        yield f"pool steered by {state.steering.type}"
        if state.type == "domain":
            yield "pool of names"
    pools = Judged.of(view.pools)
    for name, instance in view.instances.items():
        if not instance.enabled:
            yield "instance off"
            continue
        for rule in instance.rules:
            for family in FAMILIES:
                pin = pin_of(route_of(view, name, rule.name, family))
                choice = choose_tier(rule, family, pools, pin)
                first = "first" if choice.tier == 1 else "later"
                yield f"tier {first if choice.why == 'available' else choice.why}"
                if choice.why == "exhausted":
                    widens = rule.on_exhausted == "widen"
                    word = instance.when_all_down.word
                    yield "rule widens" if widens else f"all down: {word}"
                elif choice.tier and len(choice.pools) > 1:
                    yield f"tier steered by {rule.tiers[choice.tier - 1].steering.type}"


def _steered(table: AnswerTable, met: Met) -> Iterator[str]:
    pools = table.made.view.pools if table.made is not None else {}
    for leaf in met:
        if not isinstance(leaf, Answers):
            continue
        _, _, word = leaf.extended.partition(b"answered by ")
        if word:
            yield f"answered, all down: {word.decode()}"
        elif leaf.count:
            for name in {*leaf.pools} & pools.keys():
                yield f"answered from a pool steered by {pools[name].steering.type}"


def _question(data: bytes) -> Iterator[str]:
    query = read_query(data)
    if query is None or not query.question:
        return
    yield f"asked {dns.rdatatype.to_text(query.qtype)}"
    edns = query.edns
    if edns is None:
        yield "EDNS none"
        return
    yield "EDNS"
    for what, there in (
        ("EDNS DO", edns.do),
        ("EDNS NSID", edns.nsid),
        ("EDNS keepalive", edns.keepalive),
        ("EDNS malformed", edns.malformed),
        ("EDNS of another version", edns.version > 0),
    ):
        if there:
            yield what
    if edns.subnet is None:
        yield "subnet none"
    elif not edns.subnet.source:
        yield "subnet empty"
    else:
        yield "subnet IPv4" if edns.subnet.family == 1 else "subnet IPv6"


def _reply(reply: bytes) -> Iterator[str]:
    message = dns.message.from_wire(reply)
    yield f"rcode {dns.rcode.to_text(message.rcode(), tsig=False)}"
    if message.flags & dns.flags.TC:
        yield "truncated"
    kinds = [dns.rdatatype.to_text(rrset.rdtype) for rrset in message.answer]
    yield from (f"answered {one}" for one in kinds)
    if len(kinds) > 1 and kinds[0] == "CNAME":
        yield "alias"
    beside = {rrset.rdtype for rrset in message.authority}
    if message.rcode() == dns.rcode.NOERROR and dns.rdatatype.SOA in beside:
        yield "nodata"
    if dns.rdatatype.NS in beside:
        yield "referral"
    if message.additional:
        yield "glue"
    yield from _options(message.options)


def _options(options: Sequence[dns.edns.Option]) -> Iterator[str]:
    for one in options:
        if isinstance(one, dns.edns.ECSOption):
            yield "scope" if one.scopelen else "scope of 0"
        elif isinstance(one, dns.edns.EDEOption):
            yield "extended error"
            if one.code in (dns.edns.EDECode.STALE_ANSWER, dns.edns.EDECode.STALE_NXDOMAIN_ANSWER):
                yield "stale"
        elif one.otype == dns.edns.OptionType.NSID:
            yield "NSID"
        elif one.otype == 11:
            yield "keepalive"
