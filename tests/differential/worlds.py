"""Random worlds for both responders: zones, records, delegations, aliases and instances by dice.

Names come from a small space, so that they meet: instances on aliases, under delegations and
wildcards, at the apex of a child zone. A view that can't be compiled is made anew.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from msgspec import ValidationError
from msgspec.structs import replace

from gtm.choices import PoolRef
from gtm.model import ClientLine, Failover, Region, Rule, Steering
from gtm.state import Routes
from gtm.view import View
from resolver.place import Locator, Place, Unplaced
from tests.worlds import Map, instance, pool, records, routes, world, zone

ZONES = ("gtm.test", "sub.gtm.test", "deep.sub.gtm.test", "other.test")
LABELS = ("a", "b", "w", "x", "ns", "sub", "deep", "moved", "big", "*.w", "*", "a.b", "x.moved")
HOSTS = ("@", *LABELS)
LINES = (
    "default", "country:CN", "country:DE", "continent:EU", "oversea", "asn:1", "near",
    "network:10.0.0.0/9", "network:10.128.0.0/25", "network:2001:db8::/33",
    "network:2001:db8::1/128",
)  # fmt: skip
PLACES = (
    Place(continent="AS", country="CN", asn=1, location=(31.0, 121.0)),
    Place(continent="EU", country="DE", location=(50.0, 8.5)),
    Place(continent="NA", country="US", asn=4134),
)
DATA: dict[str, tuple[str, ...]] = {
    "A": ("192.0.2.1", "192.0.2.2", "198.51.100.77"),
    "AAAA": ("2001:db8::1", "2001:db8::2"),
    "MX": ("10 a", "20 b.other.test."),
    "TXT": ('"one"', '"two" "three"'),
    "SRV": ("1 2 80 a",),
    "CAA": ('0 issue "ca.example"',),
    "HTTPS": ("1 . alpn=h2",),
    "NAPTR": ('100 10 "u" "E2U" "!^.*$!x!" .',),
    "TLSA": ("3 1 1 " + "ab" * 32,),
    "TYPE65280": (r"\# 3 abcdef",),
}
TARGETS = (
    "a", "b", "x.w", "no", "moved", "q.moved", "a.sub", "a.gtm.test.", "x.other.test.",
    "far.example.org.", "gtm.test.",
)  # fmt: skip
ADDRESSES = tuple(f"198.51.{n >> 6}.{n & 63}" for n in range(80))
SIXES = tuple(f"2001:db8:1::{n:x}" for n in range(30))
POOLS = "abcdef"
REGIONS = {
    "r1": Region(location=(48.0, 2.0), lines=("country:DE", "network:10.0.0.0/9")),
    "r2": Region(location=(40.0, 116.0), lines=("country:CN",)),
}
HOW = (
    "round_robin", "round_robin", "weighted", "weighted", "sticky", "nearest", "latency",
    "sequence",
    {"type": "sequence", "preemptive": False},
)  # fmt: skip
"""Steering of pools; that of tiers with several pools is drawn from the same."""
NOT_PREEMPTIVE = Steering(type="sequence", options='{"preemptive":false}')
ALL_DOWN = (
    "lowest_ordinal", "all", "last_good", "nodata", "servfail", "drop", {"pool": "f"},
    {"addresses": ["203.0.113.7", "2001:db8:9::7"]},
)  # fmt: skip


def some_pool(dice: random.Random, *, dark: bool = False) -> Any:
    """A pool of any kind and state; all of it is down where it is dark."""
    kind = dice.random()
    if kind < 0.15:
        return pool(dice.choice(("cdn.example.net", "a.gtm.test", "x.other.test")), type="domain")
    space = SIXES if kind < 0.35 else ADDRESSES
    values = dice.sample(space, dice.choice((1, 1, 2, 3, 4, 9, 25)))
    down = values if dark else dice.choice(([], [], values[:1], values))
    offline = dice.choice(([], [], [], values[-1:]))
    more: dict[str, Any] = {}
    how = dice.choice(HOW)
    if dice.random() < 0.5:
        more["max_answers"] = dice.randint(1, 4)
    if dice.random() < 0.2:
        more["wavering"] = {"ipv6" if ":" in values[0] else "ipv4": True}
    if down and dice.random() < 0.5:
        more["last_good"] = {"members": values[-1:], "until": dice.choice((1.0, 2.0))}
    if how == "latency":
        more["latency"] = {
            name: [{"rtt_us": dice.choice((9_000, 25_000)), "members": values[at::2]}]
            for at, name in enumerate(REGIONS)
        }
    if how not in ("weighted", "sticky"):
        if isinstance(how, dict):
            more["member_in_force"] = dice.choice(values)
        made = pool(*values, down=down, offline=offline, steering=how, **more)
        return _somewhere(dice, made) if how in ("nearest", "latency") else made
    if how == "weighted":
        values = values[:6]
        weights = [dice.choice((1, 1, 2, 5, 40)) for _ in values]
        made = [f"{weight}*{value}" for weight, value in zip(weights, values, strict=True)]
        down = [value for value in down if value in values]
        return pool(*made, down=down, offline=offline, steering="weighted", **more)
    return pool(*values, down=down, offline=offline, steering="sticky", **more)


def _somewhere(dice: random.Random, state: Any) -> Any:
    """A pool whose members are at places, on lines, or neither."""
    members = tuple(
        replace(
            member,
            location=dice.choice((None, (52.0, 13.0), (31.0, 121.0), (-33.0, 151.0))),
            lines=dice.choice(((), (), (dice.choice(LINES[1:]),))),
        )
        for member in state.members
    )
    return replace(state, members=members)


def some_instance(dice: random.Random, number: int, free: list[str] | None = None) -> Any:
    """An instance with rules, tiers and names as they come; of `free`, they are taken out of it."""
    rules = [
        (
            f"r{at}" + dice.choice(("", ">")),
            dice.sample(LINES, dice.randint(1, 3)) if at or dice.random() < 0.3 else ["default"],
            [dice.sample([*POOLS, "unseen"][:6], dice.randint(1, 2)) for _ in range(2)],
        )
        for at in range(dice.randint(1, 4))
    ]
    when = dice.choice(ALL_DOWN)
    free = names_in(dice, ZONES) if free is None else free
    names = [free.pop() for _ in range(min(len(free), dice.randint(1, 3)))]
    made = instance(
        *rules,
        id=f"gtm{number}",
        access_names=sorted(set(names)),
        ttl=dice.choice(("1s", "60s", "300s")),
        ttl_wavering=dice.choice(("1s", "60s")),
        when_all_down=when,
        enabled=dice.random() < 0.85,
    )
    return replace(made, rules=tuple(_some_rule(dice, rule) for rule in made.rules))


def _some_rule(dice: random.Random, rule: Rule) -> Rule:
    """`rule` with steering of its tiers, weights of their pools, and at times a tier that stays."""
    tiers = []
    for tier in rule.tiers:
        how = dice.choice(HOW)
        steering = Steering(type=how) if isinstance(how, str) else NOT_PREEMPTIVE
        refs = tuple(
            PoolRef(
                pool=ref.pool, weight=dice.choice((1, 1, 3)), lines=dice.choice(((), (LINES[1],)))
            )
            for ref in tier.pools
        )
        tiers.append(replace(tier, steering=steering, pools=refs) if len(refs) > 1 else tier)
    pinned = dice.choice((0, 0, 0, 0, 1, 2))
    return replace(rule, tiers=tuple(tiers), failover=Failover(pinned=pinned))


def names_in(dice: random.Random, zones: Sequence[str]) -> list[str]:
    """The names of `zones`, each once, in any order."""
    made = {f"{host}.{zone}".removeprefix("@.") for host in HOSTS for zone in zones}
    return dice.sample(sorted(made), len(made))


def some_records(dice: random.Random) -> Any:
    """The records of one zone: no alias beside other data, as validation demands."""
    rows: list[tuple[str, str, list[str]]] = []
    for host in HOSTS:
        kind = dice.random()
        if kind < 0.25:
            continue
        if kind < 0.4 and host != "@":
            rows.append((host, "CNAME", [dice.choice(TARGETS)]))
        elif kind < 0.5 and host != "@" and "*" not in host:
            rows.append((host, "NS", ["ns." + host, "ns.elsewhere.example."]))
            if dice.random() < 0.5:
                rows.append((host, "DS", ["1 8 2 " + "ab" * 32]))
            if dice.random() < 0.8:
                rows.append(("ns." + host, "A", ["192.0.2.53", "192.0.2.54"]))
                rows.append(("ns." + host, "AAAA", ["2001:db8::53"]))
        elif kind < 0.55 and "*" not in host:
            rows.append((host, "DNAME", [dice.choice(("w", "other.test.", "x." + "l" * 60))]))
        elif kind < 0.65:
            size = dice.choice((40, 100, 180, 230))
            many = [f'"{n:0{size}}"' for n in range(dice.choice((2, 4, 5, 6, 18, 250)))][
                : 45_000 // size
            ]
            rows.append((host, "TXT", many))
        else:
            kinds = dice.sample(sorted(DATA), dice.randint(1, 4))
            rows += [(host, rtype, list(DATA[rtype])) for rtype in kinds]
    return records(*rows)


def some_locator(dice: random.Random) -> Locator:
    """Where clients are."""
    if dice.random() < 0.2:
        return Unplaced()
    prefixes = dice.sample(("1", "10", "10.1", "32", "32.1", "127", "10.128.0"), dice.randint(1, 5))
    return Map({prefix: dice.choice(PLACES) for prefix in prefixes})


def some_world(dice: random.Random) -> View:
    """A whole world."""
    zones = {name: some_zone(dice) for name in ZONES if name == ZONES[0] or dice.random() < 0.6}
    near = ClientLine(networks=("172.16.0.0/12", "2001:db8:7::/48"))
    free = names_in(dice, tuple(zones))
    dark = dice.random() < 0.3
    return world(
        zones=zones,
        records={name: some_records(dice) for name in zones},
        pools={name: some_pool(dice, dark=dark) for name in POOLS if dice.random() < 0.95},
        instances={f"i{n}": some_instance(dice, n, free) for n in range(dice.randint(1, 6))},
        routes={f"i{n}": some_routes(dice) for n in range(6) if dice.random() < 0.2},
        lines={"near": near},
        regions=REGIONS if dice.random() < 0.8 else {},
    )


def some_routes(dice: random.Random) -> Routes:
    """A tier that is in force or pinned for one rule and family."""
    rule, family = dice.choice(("r0", "r1")), dice.choice(("ipv4", "ipv4", "ipv6"))
    return routes(rule, family, dice.randint(1, 2), dice.choice(("", "op")))


def some_zone(dice: random.Random) -> Any:
    """A zone's settings."""
    more = dice.choice(({}, {"ttl": "60s"}, {"soa": {"minimum": "20s"}}))
    return zone(serial=dice.randint(1, 2**31), **more)


def changed(dice: random.Random, view: View) -> View:
    """`view` after one to three changes of any kind."""
    for _ in range(dice.randint(1, 3)):
        what = dice.choice(("pools", "pools", "pools", "instances", "records", "zones", "lines",
                            "routes"))  # fmt: skip
        table = dict(getattr(view, what))
        gone = dice.random() < 0.2
        if what == "pools":
            name, state = dice.choice(POOLS), some_pool(dice)
        elif what == "instances":
            number = dice.randrange(8)
            name, state = f"i{number}", some_instance(dice, number)
        elif what == "records":
            name, state = dice.choice(ZONES), some_records(dice)
        elif what == "zones":
            name, state = dice.choice(ZONES), some_zone(dice)
        elif what == "lines":
            name, gone = "near", False
            state = ClientLine(networks=(f"172.{dice.randrange(256)}.0.0/16",))
        else:
            name = f"i{dice.randrange(8)}"
            state = some_routes(dice)
        if gone and len(table) > 1:
            table.pop(name, None)
        else:
            table[name] = state
        view = replace(view, **{what: table})
    return replace(view, revision=view.revision + 1)


REFUSALS = (ValueError, ValidationError, KeyError)
"""What a view that the validation would have refused may end a compilation with."""
