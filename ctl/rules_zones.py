"""Rules over zones: name servers, timers, and the data of static records.

Record data is read by dnspython, the library that the resolver's compiler makes packets with, so
that what passes here can be served.
"""

from __future__ import annotations

from collections.abc import Container
from functools import lru_cache

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer
from msgspec.structs import replace

from gtm import forms
from gtm.model import Record, Zone
from gtm.places import nearest
from resolver.limits import MAX_CHAIN, MAX_RRSET

from .findings import Findings

MAX_PARSED = 65_536
"""Texts of data whose reading is kept: most of a set is the same at its next judgement."""

_SINGLE = (dns.rdatatype.CNAME, dns.rdatatype.DNAME)


def zone_of(name: str, zones: Container[str]) -> str | None:
    """The deepest zone that `name` lies in; None where it lies in none."""
    while name:
        if name in zones:
            return name
        name = name.partition(".")[2]
    return None


class Static:
    """The static records of all zones by absolute owner: type -> where it was written."""

    def __init__(self) -> None:
        self.types: dict[str, dict[str, str]] = {}
        self.aliases: dict[str, str] = {}

    def clash(self, name: str, zone: str) -> str:
        """What keeps `name` in `zone` from being an access name; "" where nothing does."""
        here = self.types.get(name, {})
        for type_ in ("CNAME", "A", "AAAA"):
            if type_ in here:
                return f"{name} has static data of type {type_} ({here[type_]})"
        above = name
        while above != zone:
            if place := self.types.get(above, {}).get("NS"):
                return f"{name} is delegated away by the NS records of {above} ({place})"
            above = above.partition(".")[2]
        return ""


def settled(name: str, zone: Zone, findings: Findings) -> Zone:
    """The zone with owners relative and types in their one spelling; notes those without."""
    records = []
    for index, record in enumerate(zone.records):
        path = f"zones.{name}.records[{index}]"
        owner, type_ = record.name, record.type
        try:
            owner = forms.owner(record.name, name)
        except ValueError as error:
            findings.error(f"{path}.name", str(error))
        if spelled := _type(findings, f"{path}.type", record.type):
            type_ = spelled
        records.append(replace(record, name=owner, type=type_))
    return replace(zone, records=tuple(records))


def _type(findings: Findings, path: str, text: str) -> str:
    try:
        type_ = dns.rdatatype.from_text(text)
    except (dns.rdatatype.UnknownRdatatype, ValueError):
        known = [word.name for word in dns.rdatatype.RdataType]
        findings.error(path, f"unknown record type {text!r}{nearest(text.upper(), known)}")
        return ""
    if type_ == dns.rdatatype.SOA:
        findings.error(path, "the SOA record is made from the zone's key soa")
    elif not _is_data(type_):
        findings.error(path, f"{text} is no type of data")
    return dns.rdatatype.to_text(type_)


def _is_data(type_: dns.rdatatype.RdataType) -> bool:
    """Whether static records may have the type: neither SOA nor one of queries and transport."""
    return not (type_ in (0, dns.rdatatype.SOA) or dns.rdatatype.is_metatype(type_))


def judge(findings: Findings) -> Static:
    """Note what is wrong with zones (after `settled`); gives their records by owner."""
    static = Static()
    zones = findings.resources.zones
    for name, zone in zones.items():
        path = f"zones.{name}"
        if not zone.nameservers:
            findings.error(f"{path}.nameservers", "a zone has at least one name server")
        findings.twice(f"{path}.nameservers", zone.nameservers)
        findings.whole_seconds(f"{path}.ttl", zone.ttl)
        for timer in ("refresh", "retry", "expire", "minimum"):
            findings.whole_seconds(f"{path}.soa.{timer}", getattr(zone.soa, timer))
        own = Static()
        for index, record in enumerate(zone.records):
            _record(findings, f"{path}.records[{index}]", name, record, own)
        _neighbours(findings, own)
        for owner, types in own.types.items():
            if zone_of(owner, zones) == name:  # else glue, or hidden by the zone that it lies in
                static.types[owner] = types
                if owner in own.aliases:
                    static.aliases[owner] = own.aliases[owner]
    _loops(findings, static)
    _unreachable(findings, static)
    return static


def _record(findings: Findings, path: str, zone: str, record: Record, static: Static) -> None:
    findings.whole_seconds(f"{path}.ttl", record.ttl)
    owner = forms.absolute(record.name, zone)
    here = static.types.setdefault(owner, {})
    if record.type in here:
        findings.error(
            path, f"{record.type} of {record.name!r} stands twice, first as {here[record.type]}"
        )
    here.setdefault(record.type, path)
    if record.name == "@" and record.type == "NS":
        findings.error(path, "the NS records of the apex are made from the zone's key nameservers")
    if record.type == "NS" and owner.startswith("*."):
        findings.error(path, "a wildcard can't be delegated (RFC 4592, section 4.2)")
    if not record.data:
        findings.error(f"{path}.data", "a record has at least one text of data")
    try:
        type_ = dns.rdatatype.from_text(record.type)
    except (dns.rdatatype.UnknownRdatatype, ValueError):
        return  # noted by `settled`
    if not _is_data(type_):
        return
    if type_ in _SINGLE and len(record.data) > 1:
        findings.error(f"{path}.data", f"a name has one {record.type}, not {len(record.data)}")
    origin = dns.name.from_text(zone)
    first: dict[dns.rdata.Rdata, int] = {}
    size = 0
    for index, text in enumerate(record.data):
        try:
            data = parse(type_, text, origin)
        except ValueError as error:
            findings.error(f"{path}.data[{index}]", str(error))
            continue
        if data in first:
            findings.error(
                f"{path}.data[{index}]", f"{text!r} stands twice, first as [{first[data]}]"
            )
        first.setdefault(data, index)
        size += len(data.to_wire() or b"") + 12
        if type_ == dns.rdatatype.CNAME:
            target = data.target.to_text(omit_final_dot=True).lower()  # type: ignore[attr-defined]
            static.aliases.setdefault(owner, target)
    if size > MAX_RRSET:
        findings.error(f"{path}.data", f"{size:,} octets don't fit into an answer")


@lru_cache(MAX_PARSED)
def parse(type_: dns.rdatatype.RdataType, text: str, origin: dns.name.Name) -> dns.rdata.Rdata:
    """`text` in zone-file form as data of `type_`; ValueError with a sentence where it is not."""
    word = dns.rdatatype.to_text(type_)
    try:
        tokens = dns.tokenizer.Tokenizer(text)
        data = dns.rdata.from_text(
            dns.rdataclass.IN, type_, tokens, origin=origin, relativize=False
        )
        while (token := tokens.get()).is_eol():
            pass
        if not token.is_eof():
            raise ValueError(f"{token.value!r} stands behind it on a line of its own")
        data.to_wire()
    except dns.exception.DNSException as error:
        reason = str(error).removeprefix("<string>:1: ").rstrip(".") or type(error).__name__
        raise ValueError(f"{text!r} is no data of type {word}: {reason}") from None
    except Exception as error:  # the library raises what its parsers raise
        raise ValueError(f"{text!r} is no data of type {word}: {error}") from None
    return data


def _neighbours(findings: Findings, static: Static) -> None:
    """CNAME beside other data (RFC 1034, section 3.6.2; RFC 2181, section 10.1)."""
    for owner, types in static.types.items():
        if "CNAME" not in types:
            continue
        others = sorted(types.keys() - {"CNAME"})
        if owner in findings.names["zones"]:
            others = ["SOA", "NS", *others]
        if others:
            findings.error(
                types["CNAME"], f"a CNAME stands beside other data of {owner}: {', '.join(others)}"
            )


def _loops(findings: Findings, static: Static) -> None:
    done: set[str] = set()
    for start in static.aliases:
        chain: dict[str, int] = {}
        name = start
        while name in static.aliases and name not in done and name not in chain:
            chain[name] = len(chain)
            name = static.aliases[name]
        if name in chain:
            loop = list(chain)[chain[name] :]
            findings.error(
                static.types[loop[0]]["CNAME"], f"CNAME loop: {' -> '.join((*loop, loop[0]))}"
            )
        done.update(chain)
        steps = _steps(static, start)
        if MAX_CHAIN < steps <= 2 * MAX_CHAIN:
            findings.warn(
                static.types[start]["CNAME"],
                f"a chain of more than {MAX_CHAIN} CNAMEs is not followed to its end",
            )


def _steps(static: Static, name: str) -> int:
    """How many CNAMEs follow each other from `name`, counted up to twice the bound and one."""
    steps = 0
    while name in static.aliases and steps <= 2 * MAX_CHAIN:
        name = static.aliases[name]
        steps += 1
    return steps


def _unreachable(findings: Findings, static: Static) -> None:
    """Warn of name servers without an address and of records that another zone hides."""
    zones = findings.resources.zones
    served = {name for each in findings.resources.instances.values() for name in each.names()}
    for zone, value in zones.items():
        for index, server in enumerate(value.nameservers):
            types = static.types.get(server, {})
            if zone_of(server, zones) and server not in served and not types.keys() & {"A", "AAAA"}:
                findings.warn(
                    f"zones.{zone}.nameservers[{index}]",
                    f"{server} lies in our zones and has no address",
                )
        for index, record in enumerate(value.records):
            owner = forms.absolute(record.name, zone)
            hidden = zone_of(owner, zones)
            if hidden not in (zone, None) and not (owner == hidden and record.type in ("NS", "DS")):
                findings.warn(
                    f"zones.{zone}.records[{index}]",
                    f"{owner} lies in the zone {hidden}, which answers instead",
                )
