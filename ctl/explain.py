"""Why a client gets the answer that it gets: the path from its question to the addresses.

Decides nothing: the rule, the tier and the plan are asked of the resolver's own pure modules, so
what is explained is what is served. Reads one view, touches nothing.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from gtm.availability import (
    answers_cname,
    judged_once,
    serves,
    tally,
    tier_available,
)
from gtm.choices import AllDown
from gtm.model import Family, Instance, Rule, Tier
from gtm.ports import Question
from gtm.state import NEVER, Member, PoolState, Why
from gtm.view import View
from resolver import fallback
from resolver.compiler import compile_table
from resolver.edns import extended_text
from resolver.leaves import values_of
from resolver.message import name_text, wire_name
from resolver.place import NOWHERE, Locator, Place
from resolver.plan import DROP, Answers, chances, walk
from resolver.ranking import Match, ranked_rules
from resolver.table import AnswerTable
from resolver.tiers import (
    Decision,
    Pin,
    TierChoice,
    decide,
    pin_in_force,
    pin_of,
    route_of,
    tier_of,
)

from .explain_names import Ending, follow, number_of, tell

MAX_SHOWN = 64
"""Possible answers that one explanation lists."""

_FAMILY: dict[str, Family] = {"A": "ipv4", "AAAA": "ipv6"}
_RCODES = {DROP: "the query is dropped", 0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
_ADDRESSLESS = {word: f"{word} answers no address" for word in ("nodata", "servfail", "drop")}
_WHY: dict[Why, str] = {
    "up": "up",
    "down": "judged down",
    "unknown": "no verdict yet",
    "unknown_as_up": "no verdict yet, and nobody of its pool is up",
    "unmonitored": "no check: counts as up",
    "online": "mode online: always in",
    "offline": "mode offline: always out",
    "manual_up": "mode manual_up: in whatever health says",
    "manual_down": "mode manual_down: out whatever health says",
    "forced_up": "forced up",
    "forced_down": "forced down",
    "drained": "drained",
    "unresolved": "its name never resolved",
    "held": "judged down, but held: too many would leave service at once",
    "floored": "judged down, but kept in by the floor of its pool",
    "damped": "up just now, but its verdict kept changing: damped",
}


def explain(view: View, question: Question, locator: Locator, most: int = MAX_SHOWN) -> str:
    """The JSON text of `gtm explain -o json`, with at most `most` of the possible answers.

    `question.name` is an access name, a domain or alias of an instance, the instance's own name,
    or a static name of ours. Raises LookupError where nothing has that name, ValueError for a
    client that is no address.
    """
    client, packed = _client(question.client)
    place = locator.find(packed) if question.client else NOWHERE
    qtype = number_of(question.qtype)
    asked = question.name.rstrip(".").lower()
    name = _named(view, asked)
    table: AnswerTable | None = None
    end = Ending(b"")
    if name is None:
        table, end, name = _led(view, asked, qtype, locator)
    instance = view.instances[name] if name is not None else None
    told: dict[str, Any] = {
        "qname": _qname(asked, end, instance),
        "qtype": question.qtype,
        "client": client,
        "line": None,
        "instance": name,
        "rule": None,
        "tier": None,
        "pools": [],
        "candidates": [],
        "possible_answers": [],
        "ttl": None,
        "ttl_from": "",
        "scope": 0,
        "revision": view.revision,
        "place": _place(place),
        "through": [name_text(passed) for passed, _ in end.aliases],
        "path": [],
    }
    family = _FAMILY.get(question.qtype)
    if instance is not None and any(answers_cname(view.pools.get(n)) for n in instance.pools()):
        family = family or "ipv4"  # a CNAME answers every type
    if instance is not None and not instance.enabled:
        told["path"].append("the instance is switched off (enabled: false): NXDOMAIN")
    elif name is None or instance is None or family is None:
        if table is None:
            table = compile_table(view, locator)
            end = follow(table, told["qname"], qtype)
        tell(told, table, end, qtype)
    else:
        small = replace(view, instances={name: instance}, records={}, config_pools={}, checks={})
        table = compile_table(small, locator)
        _steered(told, small, name, instance, family, place, packed, table, most)
        if told["ttl"] is not None and 0 <= end.ttl < told["ttl"]:
            told["ttl"], told["ttl_from"] = end.ttl, "the record that leads there"
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


def _qname(asked: str, end: Ending, instance: Instance | None) -> str:
    """The name that is answered: the access name where there is one."""
    if instance is None:
        return asked
    names = instance.names()
    told = name_text(end.name) if end.aliases else asked
    return told if told in names else names[0]


def _named(view: View, asked: str) -> str | None:
    """The instance that has `asked` as access name, domain or alias, or is called so."""
    if (found := _access(view, asked)) is not None:
        return found
    for name, instance in view.instances.items():
        if asked == instance.domain or asked in instance.aliases:
            return name
    return asked if asked in view.instances else None


def _led(
    view: View, asked: str, qtype: int, locator: Locator
) -> tuple[AnswerTable, Ending, str | None]:
    """The table, where a static name of ours leads, and the instance that it leads to, if any.

    LookupError where the name is in no zone of ours.
    """
    table = compile_table(view, locator)
    try:
        end = follow(table, asked, qtype)
    except ValueError as error:
        raise LookupError(f"{asked!r} is no domain name: {error}") from None
    if end.zone < 0 and not end.aliases:
        raise LookupError(
            f"nothing is called {asked}: it is no access name, domain or alias of an instance, "
            "and in no zone of ours"
        )
    if not end.aliases or end.found is None or end.found.slot < 0:
        return table, end, None
    return table, end, _access(view, name_text(end.name))


def _access(view: View, name: str) -> str | None:
    """The instance that has the access name `name`."""
    return next((key for key, one in view.instances.items() if name in one.names()), None)


def _steered(
    told: dict[str, Any],
    view: View,
    name: str,
    instance: Instance,
    family: Family,
    place: Place,
    packed: bytes,
    table: AnswerTable,
    most: int,
) -> None:
    """Fill in rule, tier, candidates and answers of an access name."""
    rules = instance.rules
    matches = ranked_rules(rules, view.lines, place, packed)
    decision = decide(
        rules,
        (match.rule for match in matches),
        lambda number: tier_of(view, name, rules[number], family),
    )
    found, _ = table.find(wire_name(instance.names()[0]))
    plan = table.plan(found, family) if found is not None else None
    if found is None or plan is None:
        raise LookupError(f"{instance.names()[0]} lies in no zone of ours")
    possible = chances(plan, packed)
    leaf, told["ttl"], told["scope"] = walk(plan, packed, 0)
    if leaf.rcode:
        told["ttl"] = None
    else:
        told["ttl_from"] = _ttl_from(instance, leaf)
        negative = table.zones[found.zone].ttl
        if not leaf.count and negative < leaf.ttl:
            told["ttl"], told["ttl_from"] = negative, "the zone's SOA minimum"
    told["possible_answers"] = [list(one.values()) for one, _ in possible[:most]]
    told["chances"] = [str(chance) for _, chance in possible[:most]]
    told["path"] = list(_path(view, name, rules, matches, decision, family))
    choice = decision.choice
    if choice is None:
        return
    down = choice.why == "exhausted"
    number = decision.own if down else decision.rule  # when_all_down is the client's own rule's
    rule = rules[number]
    told["line"] = str(next(match.line for match in matches if match.rule == number))
    told["rule"] = rule.name
    if choice.tier:
        told["tier"], told["pools"] = choice.tier, list(choice.pools)
    else:
        told["path"].append(_ending(instance, rule, choice, leaf))
    answered = {address for one, _ in possible for address in one.values()}
    policy = instance.when_all_down if down else None
    told["candidates"] = list(_candidates(view, rule, choice, policy, family, answered))


def _ttl_from(instance: Instance, leaf: Answers) -> str:
    """Which of the TTLs on the way was the least."""
    if leaf.ttl == instance.ttl.ms // 1000:
        return "the instance's ttl"
    if instance.ttl_wavering is not UNSET and leaf.ttl == instance.ttl_wavering.ms // 1000:
        return "ttl_wavering: regions disagree about a pool that answers, or that may"
    return "what the name of a flattened pool resolved to"


def _path(
    view: View,
    name: str,
    rules: tuple[Rule, ...],
    matches: tuple[Match, ...],
    decision: Decision,
    family: Family,
) -> Iterator[str]:
    """The decisions on the way, one sentence each."""
    if decision.choice is None:
        yield "no rule matches this client (unmatched: nodata)"
        return
    lines = {match.rule: match.line for match in matches}
    for number in (*decision.widened, decision.rule):
        rule = rules[number]
        yield f"rule {rule.name} matches by line {lines[number]}"
        pin = pin_in_force(rule, pin_of(route_of(view, name, rule.name, family)))
        of: Family | None = None if judged_once(rule, view.pools) else family
        for order, tier in enumerate(rule.tiers, 1):
            if number == decision.rule and order == decision.choice.tier:
                yield f"tier {order} serves ({decision.choice.why})"
                break
            if pin is not None and pin.pinned and order != pin.tier:
                yield f"tier {order} is passed over: tier {pin.tier} is pinned"
                continue
            yield f"tier {order} {_unserving(tier, view, of, pin)}"
        if number in decision.widened:
            yield f"rule {rule.name} is exhausted and widens"


def _unserving(tier: Tier, view: View, family: Family | None, pin: Pin | None) -> str:
    """Why a tier before the one that serves does not, in words."""
    if pin is not None and tier_available(tier, view.pools, family):
        return f"is available, but tier {pin.tier} is kept until the failback of its rule"
    states = "; ".join(_state(name, view.pools.get(name), family) for name in tier.names())
    if tier.min_available is None:
        return f"does not serve: {states}"
    return f"does not serve: it needs {tier.min_available} over all its pools; {states}"


def _state(name: str, pool: PoolState | None, family: Family | None) -> str:
    """Why a pool does not serve, in words."""
    if pool is None:
        return f"pool {name} was never published"
    if not serves(pool, family):
        return f"pool {name} is {pool.type}"
    counted, total = tally(pool, family)
    return f"pool {name} has {counted} of {total} up, {pool.min_available} needed"


def _ending(instance: Instance, rule: Rule, choice: TierChoice, leaf: Answers) -> str:
    """What is answered when no tier serves."""
    if choice.why == "no_family":
        return "no tier has a pool of this family: an empty answer"
    if choice.why == "not_ready":
        return "a pool was never published: SERVFAIL until it is"
    told = extended_text(leaf.extended) if leaf.extended else None
    code = _RCODES.get(leaf.rcode, str(leaf.rcode))
    extra = f", extended error {told[0]} {told[1]}".rstrip() if told else ""
    return (
        f"no tier is available: rule {rule.name}'s when_all_down {instance.when_all_down} "
        f"answers ({code}{extra})"
    )


def _candidates(
    view: View,
    rule: Rule,
    choice: TierChoice,
    policy: AllDown | None,
    family: Family,
    answered: set[str],
) -> Iterator[dict[str, Any]]:
    """Every member of the pools that matter to the rule: is it answered, and why or why not?

    `policy` is what answers where all is down.
    """
    fallen = fallback.answering(rule, policy, view.pools, family) if policy is not None else ()
    places = [(order, name) for order, tier in enumerate(rule.tiers, 1) for name in tier.names()]
    places += [(0, name) for name in fallen if name not in {name for _, name in places}]
    for order, name in dict.fromkeys(places):
        pool = view.pools.get(name)
        if pool is None or not (serves(pool, family) or answers_cname(pool)):
            continue
        for member in pool.members:
            if policy is None:
                out = _passed(order, name, choice)
                able = member.answered and not out
            else:
                out = _elsewhere(policy, name, fallen)
                able = member.why not in NEVER and not out
            is_in = able and not answered.isdisjoint(values_of(pool, [member], family))
            yield {
                "address": member.value,
                "in": is_in,
                "why": _reason(member, able, is_in, out),
                "pool": name,
                "tier": order,
                "weight": member.weight,
                "since": member.since,
            }


def _elsewhere(policy: AllDown, name: str, fallen: tuple[str, ...]) -> str:
    """Why a pool is not what when_all_down answers; "" where it is."""
    if policy.word in _ADDRESSLESS:
        return _ADDRESSLESS[policy.word]
    return "" if name in fallen else f"{policy} answers another pool"


def _passed(order: int, name: str, choice: TierChoice) -> str:
    """Why the tier or pool is not the one that serves; "" where it does."""
    if order == choice.tier:
        return "" if name in choice.pools else "its pool is not available"
    return f"tier {choice.tier} serves" if choice.tier else "no tier serves"


def _reason(member: Member, able: bool, is_in: bool, out: str) -> str:
    health = _WHY[member.why]
    if member.judged:
        health = f"{health} by an operator; else {_WHY[member.judged]}"
    if is_in and not member.answered:
        return f"{health}, answered because all is down"
    if able and not is_in:
        beside = " beside members with more weight" if not member.weight else " for this client"
        return f"{health}, but not drawn{beside}"
    return f"{health}; {out}" if out and member.why not in NEVER else health
