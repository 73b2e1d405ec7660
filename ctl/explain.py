"""Why a client gets the answer that it gets: the path from its question to the addresses.

Decides nothing: the rule, the tier and the plan are asked of the resolver's own pure modules, so
what is explained is what is served. Reads one view, touches nothing.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Any

from dns.rdata import from_wire
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType
from msgspec.structs import replace

from gtm.availability import eligible
from gtm.model import Family, Instance, Rule
from gtm.ports import Question
from gtm.state import Member, PoolState, Why
from gtm.view import View
from resolver.compiler import compile_table
from resolver.edns import extended_text
from resolver.message import wire_name
from resolver.place import NOWHERE, Locator, Place
from resolver.plan import Answers, chances, walk
from resolver.ranking import Match, ranked, ranks_of
from resolver.records.text import rtype
from resolver.table import AnswerTable
from resolver.tiers import Decision, decide, tier_of

MAX_SHOWN = 64
"""Possible answers that one explanation lists."""
MAX_CHAIN = 8
"""CNAMEs that are followed from a static name to an access name."""

_FAMILY: dict[str, Family] = {"A": "ipv4", "AAAA": "ipv6"}
_RCODES = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
_WHY: dict[Why, str] = {
    "up": "up",
    "down": "judged down",
    "unknown": "no verdict yet",
    "unknown_as_up": "no verdict yet, and nobody of its pool is up",
    "unmonitored": "no check: counts as up",
    "online": "mode online: always in",
    "offline": "mode offline: always out",
}


def explain(view: View, question: Question, locator: Locator) -> str:
    """The JSON text of `gtm explain -o json`.

    `question.name` is an access name, a domain or alias of an instance, the instance's own name,
    or a static name of ours. Raises LookupError where nothing has that name, ValueError for a
    client that is no address.
    """
    client, packed = _client(question.client)
    place = locator.find(packed) if question.client else NOWHERE
    asked = question.name.rstrip(".").lower()
    name, instance, through = _named(view, asked)
    told: dict[str, Any] = {
        "qname": instance.names()[0] if instance is not None else asked,
        "qtype": question.qtype,
        "client": client,
        "line": None,
        "instance": name or None,
        "rule": None,
        "tier": None,
        "pools": [],
        "candidates": [],
        "possible_answers": [],
        "ttl": None,
        "scope": 0,
        "revision": view.revision,
        "place": _place(place),
        "through": through,
        "path": [],
    }
    family = _FAMILY.get(question.qtype)
    if instance is None or family is None:
        _static(told, compile_table(view, locator))
    elif not instance.enabled:
        told["path"].append("the instance is switched off (enabled: false): NXDOMAIN")
    else:
        small = replace(view, instances={name: instance}, records={}, config_pools={}, checks={})
        _steered(told, small, name, instance, family, place, packed, compile_table(small, locator))
    return json.dumps(told)


def _client(text: str) -> tuple[str, bytes]:
    """(canonical text, packed address) of a client's address, or the first one of its network."""
    if not text:
        return "", bytes(4)
    try:
        network = ipaddress.ip_network(text, strict=False)
        address = ipaddress.ip_address(text) if "/" not in text else network.network_address
    except ValueError:
        raise ValueError(f"{text!r} is no IP address or network") from None
    return (str(network) if "/" in text else str(address)), address.packed


def _place(place: Place) -> str:
    parts = [place.continent, place.country, *place.subdivisions]
    parts += [f"AS{place.asn}"] if place.asn else []
    return " ".join(part for part in parts if part) or "unknown"


def _named(view: View, asked: str) -> tuple[str, Instance | None, list[str]]:
    """(instance's name, instance, names passed on the way); ("", None, _) for a static name."""
    through: list[str] = []
    name = asked
    for _ in range(MAX_CHAIN):
        for key, instance in view.instances.items():
            if name in instance.names() or name == instance.domain or name in instance.aliases:
                return key, instance, through
        target = _static_cname(view, name)
        if target is None:
            break
        through.append(name)
        name = target
    if asked in view.instances:
        return asked, view.instances[asked], []
    if any(asked == zone or asked.endswith(f".{zone}") for zone in view.zones):
        return "", None, through
    raise LookupError(
        f"nothing is called {asked}: it is no access name, domain or alias of an instance, "
        "and in no zone of ours"
    )


def _static_cname(view: View, name: str) -> str | None:
    """The target of a static CNAME at `name`, if there is one."""
    for zone, buckets in view.records.items():
        if name != zone and not name.endswith(f".{zone}"):
            continue
        for record in (record for bucket in buckets.values() for record in bucket):
            owner = zone if record.name == "@" else f"{record.name.lower()}.{zone}"
            if record.type.upper() == "CNAME" and owner == name and record.data:
                target = record.data[0].lower()
                return target.rstrip(".") if target.endswith(".") else f"{target}.{zone}"
    return None


def _steered(
    told: dict[str, Any],
    view: View,
    name: str,
    instance: Instance,
    family: Family,
    place: Place,
    packed: bytes,
    table: AnswerTable,
) -> None:
    """Fill in rule, tier, candidates and answers of an access name."""
    rules = instance.rules
    matches = ranked(ranks_of(rules), place, packed)
    decision = decide(
        rules,
        (match.rule for match in matches),
        lambda number: tier_of(view, name, rules[number], family),
    )
    found, _ = table.find(wire_name(instance.names()[0]))
    plan = table.plan(found, family) if found is not None else None
    if plan is None:
        raise LookupError(f"{instance.names()[0]} lies in no zone of ours")
    possible = chances(plan, place, packed)
    leaf, told["ttl"], told["scope"] = walk(plan, place, packed, 0)
    told["possible_answers"] = [list(one.addresses()) for one, _ in possible[:MAX_SHOWN]]
    told["chances"] = [str(chance) for _, chance in possible[:MAX_SHOWN]]
    told["path"] = list(_path(view, rules, matches, decision, family))
    if decision.own < 0:
        return
    rule = rules[decision.rule]
    told["line"] = str(next(match.line for match in matches if match.rule == decision.rule))
    told["rule"] = rule.name
    if decision.choice is not None and decision.choice.tier:
        told["tier"] = decision.choice.tier
        told["pools"] = list(decision.choice.pools)
    else:
        told["path"].append(_ending(instance, decision, leaf))
    answered = {address for one, _ in possible for address in one.addresses()}
    told["candidates"] = list(_candidates(view, rule, decision, family, answered))


def _path(
    view: View,
    rules: tuple[Rule, ...],
    matches: tuple[Match, ...],
    decision: Decision,
    family: Family,
) -> Iterator[str]:
    """The decisions on the way, one sentence each."""
    if decision.own < 0:
        yield "no rule matches this client (unmatched: nodata)"
        return
    lines = {match.rule: match.line for match in matches}
    for number in (*decision.widened, decision.rule):
        rule = rules[number]
        yield f"rule {rule.name} matches by line {lines[number]}"
        for order, tier in enumerate(rule.tiers, 1):
            if decision.choice and number == decision.rule and order == decision.choice.tier:
                yield f"tier {order} serves ({decision.choice.why})"
                break
            states = "; ".join(_state(pool, view.pools.get(pool), family) for pool in tier.pools)
            yield f"tier {order} does not serve: {states}"
        if number in decision.widened and number != decision.rule:
            yield f"rule {rule.name} is exhausted and widens"


def _state(name: str, pool: PoolState | None, family: Family) -> str:
    """Why a pool does not serve, in words."""
    if pool is None:
        return f"pool {name} was never published"
    if pool.type != family:
        return f"pool {name} is {pool.type}"
    members = eligible(pool)
    counted = sum(member.counted for member in members)
    return f"pool {name} has {counted} of {len(members)} up, {pool.min_available} needed"


def _ending(instance: Instance, decision: Decision, leaf: Answers) -> str:
    """What is answered when no tier serves."""
    why = decision.choice.why if decision.choice is not None else ""
    if why == "no_family":
        return "no tier has a pool of this family: an empty answer"
    if why == "not_ready":
        return "a pool was never published: SERVFAIL until it is"
    told = extended_text(leaf.extended) if leaf.extended else None
    code = _RCODES.get(leaf.rcode, str(leaf.rcode))
    extra = f", extended error {told[0]} {told[1]}".rstrip() if told else ""
    return f"no tier is available: when_all_down {instance.when_all_down} answers ({code}{extra})"


def _candidates(
    view: View, rule: Rule, decision: Decision, family: Family, answered: set[str]
) -> Iterator[dict[str, Any]]:
    """Every address of the rule's pools of the family: is it answered, and why or why not?"""
    serving = decision.choice.tier if decision.choice is not None else 0
    seen: set[tuple[int, str]] = set()
    for order, tier in enumerate(rule.tiers, 1):
        for name in tier.pools:
            pool = view.pools.get(name)
            if pool is None or pool.type != family or (order, name) in seen:
                continue
            seen.add((order, name))
            in_use = serving == 0 or (
                order == serving and decision.choice is not None and name in decision.choice.pools
            )
            for member in pool.members:
                yield {
                    "address": member.value,
                    "in": in_use and member.value in answered,
                    "why": _reason(member, in_use, member.value in answered, serving),
                    "pool": name,
                    "tier": order,
                    "weight": member.weight,
                    "since": member.since,
                }


def _reason(member: Member, in_use: bool, is_answered: bool, serving: int) -> str:
    health = _WHY[member.why]
    if not in_use:
        return f"{health}; tier {serving} serves"
    if is_answered and not member.answered:
        return f"{health}, answered because all is down"
    if not is_answered and member.answered:
        return f"{health}, but not drawn beside members with more weight"
    return health


def _static(told: dict[str, Any], table: AnswerTable) -> None:
    """Fill in what is served of a name without steering."""
    found, _ = table.find(wire_name(told["qname"]))
    if found is None:
        told["path"].append("no such name in our zones: NXDOMAIN")
        return
    answers = found.rrsets.get(rtype(told["qtype"]))
    if answers is None:
        told["path"].append(f"the name is there, but without {told['qtype']}: an empty answer")
        return
    told["ttl"] = answers.ttl
    told["path"].append("static data")
    told["possible_answers"] = [[_text(number, data) for number, data in answers.rdata()]]


def _text(number: int, data: bytes) -> str:
    """Record data in zone-file form."""
    return from_wire(RdataClass.IN, RdataType.make(number), data, 0, len(data)).to_text()
