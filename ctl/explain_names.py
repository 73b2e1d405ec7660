"""Where a name of our zones leads, step by step as the responder goes: aliases, delegations.

Reads a compiled table, decides nothing of its own. `ctl.explain` tells what is found.
"""

from __future__ import annotations

from typing import Any

from dns.rdata import from_wire
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType
from dns.rdatatype import from_text as type_from_text
from msgspec import Struct
from msgspec.structs import replace

from resolver.limits import MAX_CHAIN, MAX_NAME
from resolver.message import ANY, CNAME, DNAME, DS, name_text, wire_name
from resolver.plan import Answers
from resolver.table import AnswerTable, Cut, Name


class Ending(Struct, frozen=True):
    """The name that a search ends at, and the aliases (name, target) passed on the way.

    `zone` is the index of its zone, -1 where that is none of ours or the aliases have no end;
    `found` is None where no such name is, `cut` the delegation that it lies in. `ttl` is the least
    of the aliases', -1 without any.
    """

    name: bytes
    aliases: tuple[tuple[bytes, bytes], ...] = ()
    ttl: int = -1
    zone: int = -1
    found: Name | None = None
    cut: Cut | None = None


def follow(table: AnswerTable, asked: str, qtype: int) -> Ending:
    """The end of the search for `asked`."""
    here = Ending(wire_name(asked))
    seen = {here.name}
    while True:
        found, encloser = table.find(here.name)
        if found is None and not encloser:
            return here
        if found is not None and (found.cut is None or qtype == DS):
            alias = found.rrsets.get(CNAME)
            if alias is None or qtype in (CNAME, ANY):
                return replace(here, zone=found.zone, found=found)
            here = _next(here, alias.rdata()[0][1], alias)
        else:
            above = table.names[encloser] if found is None else found
            if above.cut is not None:
                return replace(here, zone=above.zone, cut=above.cut)
            alias = above.rrsets.get(DNAME)
            if alias is None:
                return replace(here, zone=above.zone)
            target = here.name[: -len(encloser)] + alias.rdata()[0][1]
            if len(target) > MAX_NAME:
                return replace(here, zone=above.zone)
            here = _next(here, target, alias)
            if qtype in (CNAME, ANY):
                return here
        if here.name in seen or len(seen) > MAX_CHAIN:
            return here
        seen.add(here.name)


def _next(here: Ending, target: bytes, alias: Answers) -> Ending:
    return Ending(target.lower(), (*here.aliases, (here.name, target)), _least(here.ttl, alias.ttl))


def number_of(text: str) -> int:
    """The number of a type that may be asked for; ValueError where there is no such type."""
    try:
        return int(type_from_text(text))
    except Exception:  # the library has an error of its own for each way to be wrong
        raise ValueError(f"{text!r} is no record type such as MX or TYPE65280") from None


def tell(told: dict[str, Any], table: AnswerTable, end: Ending, qtype: int) -> None:
    """Fill in what is served of a name without steering."""
    aliases = [f"CNAME {data(CNAME, target)}" for _, target in end.aliases]
    told["qname"], told["through"] = (
        name_text(end.name),
        [name_text(name) for name, _ in end.aliases],
    )
    told["possible_answers"] = [aliases] if aliases else []
    told["ttl"] = end.ttl if aliases else None
    told["path"].append(_told(told, table, end, qtype, aliases))
    if told["ttl"] is not None:
        told["ttl_from"] = "the record" if told["possible_answers"] else "the zone's SOA minimum"


def _told(
    told: dict[str, Any], table: AnswerTable, end: Ending, qtype: int, aliases: list[str]
) -> str:
    """Fill in the answer; what there is to say about it."""
    if end.cut is not None:
        servers = " ".join(map(name_text, end.cut.servers))
        behind = "the alias, and " if aliases else ""
        return f"delegated at {name_text(end.cut.name)}: {behind}a referral to {servers}"
    if end.zone < 0:
        return "the alias leads out of our zones, in a circle, or was asked for: it is all"
    found = end.found
    if found is None or found.absent:
        told["ttl"] = _negative_ttl(table, end)
        return "no such name in our zones: NXDOMAIN"
    answers = found.rrsets.get(CNAME if qtype == ANY else qtype)
    if answers is not None:
        told["ttl"] = _least(end.ttl, answers.ttl)
        told["possible_answers"] = [[*aliases, *(data(*one) for one in answers.rdata())]]
        return "static data"
    if qtype == ANY and (found.rrsets or found.slot >= 0):
        return "a minimal answer to ANY (RFC 8482)"
    told["ttl"] = _negative_ttl(table, end)
    return f"the name is there, but without {told['qtype']}: an empty answer"


def _negative_ttl(table: AnswerTable, end: Ending) -> int:
    """The TTL of an empty answer: the SOA's, at most that of the instance."""
    ttl = _least(end.ttl, table.zones[end.zone].ttl)
    slot = end.found.slot if end.found is not None else -1
    return ttl if slot < 0 else min(ttl, table.slots[slot].ttl)


def _least(ttl: int, other: int) -> int:
    """The lesser TTL, where -1 is none."""
    return other if ttl < 0 else min(ttl, other)


def data(number: int, wire: bytes) -> str:
    """Record data in zone-file form."""
    return from_wire(RdataClass.IN, RdataType.make(number), wire, 0, len(wire)).to_text()
