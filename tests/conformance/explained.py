"""Where we answer otherwise than Knot or BIND, and may: each reason stands in docs/conformance.md.

A reason explains certain fields of one reply and nothing else; what no reason explains is a defect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import dns.name
import dns.rcode
import dns.rdatatype

from tests.conformance.judge import Row, Seen
from tests.conformance.questions import Question
from tests.conformance.zones import NAMES

A, NS, CNAME, SOA, HINFO, AAAA, SVCB, HTTPS, ANY = 1, 2, 5, 6, 13, 28, 64, 65, 255
SIG, KEY, NXT = 24, 25, 30
SECTIONS = frozenset({"answer", "authority", "additional"})
NONE: frozenset[str] = frozenset()
LONGEST_CHAIN = {"ours": 9, "knot": 5, "bind": 12}
"""Aliases in an answer after which each of them stops."""


@dataclass(frozen=True)
class Both:
    """One question and two replies; the whole ones came over TCP where any was truncated."""

    question: Question
    peer: str
    mine: Seen
    theirs: Seen
    my_whole: Seen
    their_whole: Seen


@dataclass(frozen=True)
class Reason:
    """Why a difference is right: the words, the RFC, and which fields it explains."""

    name: str
    rfc: str
    fields: Callable[[Both], frozenset[str]]


def aliases(rows: tuple[Row, ...]) -> list[tuple[str, str]]:
    """(owner, target) of the CNAME records."""
    return [(row[0], dns.name.from_wire(row[4], 0)[0].to_text()) for row in rows if row[1] == CNAME]


def zone_of(name: str) -> str:
    """The deepest of the zones that a name lies in; "" where it lies in none."""
    wanted = dns.name.from_text(name)
    found = [zone for zone in NAMES if wanted.is_subdomain(dns.name.from_text(zone))]
    return max(found, key=len, default="")


def _cd_cleared(both: Both) -> frozenset[str]:
    return frozenset({"flag cd"}) if "cd" in both.theirs.flags else NONE


def _ad_in_truncated(both: Both) -> frozenset[str]:
    return frozenset({"flag ad"}) if {"ad", "tc"} <= both.theirs.flags else NONE


def _minimal_any(both: Both) -> frozenset[str]:
    answer = both.mine.answer
    if both.question.qtype != ANY or not answer:
        return NONE
    minimal = answer[-1][1] == HINFO and answer[-1][4].startswith(b"\x07RFC8482")
    if not minimal and answer[-1][1] != CNAME:
        return NONE
    return SECTIONS | {"rcode", "flag tc"}


def _minimal_additional(both: Both) -> frozenset[str]:
    positive = both.mine.answer and not both.mine.authority and not both.mine.additional
    useful = all(row[1] in (A, AAAA, SVCB, HTTPS) for row in both.theirs.additional)
    return frozenset({"additional"}) if positive and useful else NONE


def _in_zone_addresses(both: Both) -> frozenset[str]:
    mine, theirs = set(both.mine.additional), set(both.theirs.additional)
    cuts = {row[0] for row in both.mine.authority if row[1] == NS}
    if len(cuts) != 1 or not theirs < mine:
        return NONE
    (cut,) = (dns.name.from_text(name) for name in cuts)
    apart = all(not dns.name.from_text(row[0]).is_subdomain(cut) for row in mine - theirs)
    return frozenset({"additional"}) if apart else NONE


def _across_zones(both: Both) -> frozenset[str]:
    links = aliases(both.theirs.answer)
    if not links or not set(both.theirs.answer) <= set(both.mine.answer):
        return NONE
    owner, target = links[-1]
    crosses = zone_of(target) and zone_of(owner) != zone_of(target)
    return SECTIONS | {"rcode"} if crosses else NONE


def _long_chain(both: Both) -> frozenset[str]:
    mine, theirs = both.my_whole.answer, both.their_whole.answer
    full = (
        len(aliases(mine)) >= LONGEST_CHAIN["ours"]
        or len(aliases(theirs)) >= LONGEST_CHAIN[both.peer]
    )
    less, more = sorted((set(mine), set(theirs)), key=len)
    return SECTIONS | {"rcode"} if full and less <= more else NONE


def _loop(both: Both) -> frozenset[str]:
    links = aliases(both.my_whole.answer)
    owners = {owner for owner, _ in links}
    in_circle = bool(links) and links[-1][1].lower() in owners
    refused = both.theirs.rcode == dns.rcode.SERVFAIL and both.mine.rcode == dns.rcode.NOERROR
    return frozenset({"rcode"}) if in_circle and refused else NONE


def _unassigned_types(both: Both) -> frozenset[str]:
    refused = both.theirs.rcode == dns.rcode.FORMERR and 128 <= both.question.qtype <= 248
    return SECTIONS | {"rcode", "flag aa", "flag tc"} if refused else NONE


def _meta_types(both: Both) -> frozenset[str]:
    refused = both.mine.rcode in (dns.rcode.NOTIMP, dns.rcode.REFUSED, dns.rcode.FORMERR)
    meta = 249 <= both.question.qtype <= 254 or both.question.qtype == dns.rdatatype.OPT
    return SECTIONS | {"rcode", "flag aa", "flag tc"} if refused and meta else NONE


def _ttl_of_no_soa(both: Both) -> frozenset[str]:
    def rest(seen: Seen) -> set[tuple[str, int, bytes]]:
        return {(row[0], row[1], row[4]) for row in seen.authority}

    zero = {row[3] for row in both.theirs.authority if row[1] == SOA} == {0}
    same = both.question.qtype == SOA and rest(both.mine) == rest(both.theirs)
    return frozenset({"authority"}) if zero and same else NONE


def limit(question: Question) -> int:
    """The octets that a reply over UDP may have."""
    return 512 if question.payload is None else max(512, min(question.payload, 1232))


def _whole_or_truncated(both: Both) -> frozenset[str]:
    sooner = "tc" in both.mine.flags and "tc" not in both.theirs.flags
    too_long = both.my_whole.size > limit(both.question)
    left_out = any(
        set(getattr(both.theirs, section)) < set(getattr(both.their_whole, section))
        for section in ("authority", "additional")
    )
    return frozenset({"flag tc"}) if sooner and too_long and left_out else NONE


def _too_long(both: Both) -> frozenset[str]:
    mine, theirs = both.mine.rcode, both.theirs.rcode
    same = set(both.mine.answer) == set(both.theirs.answer)
    longer = mine == dns.rcode.YXDOMAIN and theirs == dns.rcode.NXDOMAIN
    return frozenset({"rcode", "authority"}) if longer and same else NONE


def _old_key_types(both: Both) -> frozenset[str]:
    alias = aliases(both.my_whole.answer) and not both.their_whole.answer
    return SECTIONS | {"rcode"} if alias and both.question.qtype in (SIG, KEY, NXT) else NONE


def _less_compression(both: Both) -> frozenset[str]:
    mine, theirs = both.my_whole.size, both.their_whole.size
    if "tc" in both.mine.flags:
        larger = mine > limit(both.question) >= theirs
    else:
        larger = theirs > limit(both.question) >= mine
    return frozenset({"flag tc"}) if larger else NONE


REASONS = (
    Reason("cd-cleared", "RFC 4035, section 3.1.6", _cd_cleared),
    Reason("ad-in-truncated", "RFC 4035, section 3.1.6", _ad_in_truncated),
    Reason("minimal-any", "RFC 8482, section 4", _minimal_any),
    Reason("minimal-additional", "RFC 1034, section 4.3.2", _minimal_additional),
    Reason("in-zone-addresses", "RFC 1034, section 4.3.2", _in_zone_addresses),
    Reason("across-zones", "RFC 1034, section 4.3.2", _across_zones),
    Reason("long-chain", "RFC 1034, section 5.2.2", _long_chain),
    Reason("loop", "RFC 1034, section 3.6.2", _loop),
    Reason("unassigned-types", "RFC 3597, section 3", _unassigned_types),
    Reason("meta-types", "RFC 1035, section 4.1.1", _meta_types),
    Reason("ttl-of-no-soa", "RFC 2308, section 3", _ttl_of_no_soa),
    Reason("whole-or-truncated", "RFC 2181, section 9", _whole_or_truncated),
    Reason("too-long", "RFC 6672, section 2.2", _too_long),
    Reason("old-key-types", "RFC 4035, section 2.5", _old_key_types),
    Reason("less-compression", "RFC 1035, section 4.1.4", _less_compression),
)


def explain(both: Both, fields: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """The reasons that explain some of `fields`, and the fields that none explains."""
    names, left = [], fields
    for reason in REASONS:
        explained = reason.fields(both) & left
        if explained:
            names.append(reason.name)
            left -= explained
    return names, left
