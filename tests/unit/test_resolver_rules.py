"""Which clients get what, rule by rule: precedence, widening, families, scopes, as tables."""

from __future__ import annotations

import ipaddress

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from gtm.model import Instance
from gtm.view import Changes
from resolver.compiler import compile_table, spec_of
from resolver.place import Place, Unplaced
from resolver.plan import leaves, walk
from resolver.ranking import ranked_rules
from resolver.tiers import decide, tier_of
from tests.worlds import geography, instance, planner, pool, routes, world

POOLS = {
    **{name: pool(f"192.0.2.{number}") for number, name in enumerate("abcdefgh", 1)},
    "x": pool("198.51.100.1", down=["198.51.100.1"]),
    "y": pool("198.51.100.2", down=["198.51.100.2"]),
    "off": pool("198.51.100.3", offline=["198.51.100.3"]),
    "six": pool("2001:db8::1"),
    "six-x": pool("2001:db8::2", down=["2001:db8::2"]),
}
BEIJING = Place(continent="AS", country="CN", subdivisions=("CN-BJ",), asn=4134)
SHANGHAI = Place(continent="AS", country="CN", subdivisions=("CN-SH",), asn=9)
ENGLAND = Place(continent="EU", country="GB", subdivisions=("GB-ENG", "GB-LND"), asn=1)
TOKYO = Place(continent="AS", country="JP", asn=0)
UNKNOWN = Place(continent="AS", subdivisions=("CN-BJ",), asn=2)
CLIENT = "10.1.2.3"

EVERY = instance(
    ("default", ["default"], [["a"]]),
    ("asia", ["continent:AS"], [["b"]]),
    ("oversea", ["oversea"], [["c"]]),
    ("china", ["country:CN"], [["d"]]),
    ("beijing", ["subdivision:CN-BJ"], [["e"]]),
    ("telecom", ["isp:telecom"], [["f"]]),
    ("wide", ["network:10.0.0.0/8"], [["g"]]),
    ("narrow", ["network:10.1.0.0/16", "network:2001:db8::/32"], [["h"]]),
)
CLASSES = {rule.name: rule for rule in EVERY.rules}


def only(*names: str) -> Instance:
    """The instance with some of the rules above."""
    return replace(EVERY, rules=tuple(rule for rule in EVERY.rules if rule.name in names))


def answered(
    shop: Instance, place: Place, client: str = CLIENT, family: str = "ipv4"
) -> tuple[str, int]:
    """(addresses, scope) of a client, by the plan; and the rules must agree with it."""
    view = world(pools=POOLS, instances={"shop": shop})
    packed = ipaddress.ip_address(client).packed
    bare = replace(place, asn=0)
    around = geography({f"{client}/14": bare, f"{client}/17": place})
    plan = planner(view.pools, around).plan(spec_of(view, "shop", family))
    answers, _, scope = walk(plan, packed, 0)
    text = "+".join(answers.values()) or ("SERVFAIL" if answers.rcode else "NODATA")
    return text, scope


@pytest.mark.parametrize(
    ("rules", "place", "client", "expected"),
    [
        ("default", BEIJING, CLIENT, ("192.0.2.1", 0)),
        ("default asia", BEIJING, CLIENT, ("192.0.2.2", 14)),
        ("default asia oversea", BEIJING, CLIENT, ("192.0.2.2", 14)),
        ("default asia oversea", TOKYO, CLIENT, ("192.0.2.3", 14)),
        ("default asia oversea china", BEIJING, CLIENT, ("192.0.2.4", 14)),
        ("default china beijing", BEIJING, CLIENT, ("192.0.2.5", 14)),
        ("default china beijing", SHANGHAI, CLIENT, ("192.0.2.4", 14)),
        ("default beijing telecom", BEIJING, CLIENT, ("192.0.2.6", 17)),
        ("default telecom", SHANGHAI, CLIENT, ("192.0.2.1", 0)),
        ("default asia telecom", SHANGHAI, CLIENT, ("192.0.2.2", 14)),
        ("default telecom wide", BEIJING, CLIENT, ("192.0.2.7", 8)),
        ("default telecom wide narrow", BEIJING, CLIENT, ("192.0.2.8", 16)),
        ("default wide narrow", BEIJING, "10.2.0.1", ("192.0.2.7", 15)),
        ("default wide narrow", BEIJING, "11.0.0.1", ("192.0.2.1", 8)),
        ("default wide narrow", BEIJING, "2001:db8::9", ("192.0.2.8", 32)),
        ("default wide narrow", BEIJING, "2001:db9::9", ("192.0.2.1", 32)),
        ("default wide", BEIJING, "2001:db8::9", ("192.0.2.1", 0)),
        ("default wide china", BEIJING, "11.0.0.1", ("192.0.2.4", 14)),
        ("default asia oversea china beijing", UNKNOWN, CLIENT, ("192.0.2.1", 0)),
        ("china", TOKYO, CLIENT, ("NODATA", 0)),
    ],
)
def test_the_narrowest_line_wins_and_the_deepest_leaf_is_the_scope(
    rules: str, place: Place, client: str, expected: tuple[str, int]
) -> None:
    assert answered(only(*rules.split()), place, client) == expected


def test_the_scope_of_a_wide_network_around_a_narrow_one_is_where_they_part() -> None:
    shop = instance(
        ("own", ["network:1.2.3.0/24"], [["a"]]),
        ("wide", ["network:1.0.0.0/8"], [["b"]]),
        ("rest", ["default"], [["c"]]),
    )
    assert answered(shop, UNKNOWN, "1.9.0.0") == ("192.0.2.2", 13)
    assert answered(shop, UNKNOWN, "1.2.3.4") == ("192.0.2.1", 24)


def test_rules_of_the_same_class_go_in_their_order() -> None:
    london = ("l", ["subdivision:GB-LND"], [["a"]])
    england = ("e", ["subdivision:GB-ENG"], [["b"]])
    assert answered(instance(london, england), ENGLAND)[0] == "192.0.2.1"
    assert answered(instance(england, london), ENGLAND)[0] == "192.0.2.2"
    first, second = ("f", ["asn:4134"], [["a"]]), ("s", ["isp:telecom"], [["b"]])
    assert answered(instance(first, second), BEIJING)[0] == "192.0.2.1"
    assert answered(instance(second, first), BEIJING)[0] == "192.0.2.2"
    same = ["network:10.0.0.0/8"]
    assert answered(instance(("b", same, [["b"]]), ("a", same, [["a"]])), UNKNOWN)[0] == "192.0.2.2"


def test_a_rule_counts_by_its_narrowest_line_that_matches() -> None:
    shop = instance(
        ("both", ["continent:AS", "subdivision:CN-BJ"], [["a"]]), ("cn", ["country:CN"], [["b"]])
    )
    assert answered(shop, BEIJING)[0] == "192.0.2.1"
    assert answered(shop, SHANGHAI)[0] == "192.0.2.2"
    found = ranked_rules(shop.rules, {}, BEIJING, b"\x0a\1\2\3")
    assert [(shop.rules[match.rule].name, str(match.line)) for match in found] == [
        ("both", "subdivision:CN-BJ"),
        ("cn", "country:CN"),
    ]


@pytest.mark.parametrize(
    ("rows", "place", "expected"),
    [
        ([("cn", "country:CN", "x"), ("d", "default", "a")], BEIJING, "198.51.100.1"),
        ([("cn>", "country:CN", "x"), ("d", "default", "a")], BEIJING, "192.0.2.1"),
        (
            [("cn>", "country:CN", "x"), ("as", "continent:AS", "b"), ("d", "default", "a")],
            BEIJING,
            "192.0.2.2",
        ),
        # All are exhausted: when_all_down of the client's own rule, whoever stops the fall.
        ([("cn>", "country:CN", "x"), ("d", "default", "y")], BEIJING, "198.51.100.1"),
        ([("cn>", "country:CN", "x"), ("d>", "default", "y")], BEIJING, "198.51.100.1"),
        ([("cn>", "country:CN", "x"), ("d>", "default", "y")], TOKYO, "198.51.100.2"),
        ([("cn>", "country:CN", "x")], BEIJING, "198.51.100.1"),
        (
            [("n>", "network:10.1.0.0/16", "x"), ("w>", "network:10.0.0.0/8", "y")],
            BEIJING,
            "198.51.100.1",
        ),
        (
            [("n>", "network:10.1.0.0/16", "x"), ("w", "network:10.0.0.0/8", "a")],
            BEIJING,
            "192.0.2.1",
        ),
        ([("p>", "asn:4134", "x"), ("t", "isp:telecom", "b")], BEIJING, "192.0.2.2"),
        (
            [("l>", "subdivision:GB-LND", "x"), ("e", "subdivision:GB-ENG", "b")],
            ENGLAND,
            "192.0.2.2",
        ),
        (
            [("l>", "subdivision:GB-LND", "x"), ("e>", "subdivision:GB-ENG", "y")],
            ENGLAND,
            "198.51.100.1",
        ),
        (
            [("l>", "subdivision:GB-LND", "x"), ("e", "subdivision:GB-ENG", "y")],
            ENGLAND,
            "198.51.100.1",
        ),
        ([("o>", "oversea", "x"), ("as", "continent:AS", "b")], TOKYO, "192.0.2.2"),
        ([("cn>", "country:CN", "off"), ("d", "default", "x")], BEIJING, "NODATA"),
        # Neither a missing family nor a pool that is not published yet is exhaustion.
        ([("cn>", "country:CN", "six"), ("d", "default", "a")], BEIJING, "NODATA"),
        ([("cn>", "country:CN", "unseen"), ("d", "default", "a")], BEIJING, "SERVFAIL"),
        ([("cn>", "country:CN", "x"), ("d", "default", "unseen")], BEIJING, "SERVFAIL"),
    ],
)
def test_an_exhausted_rule_stops_or_widens(
    rows: list[tuple[str, str, str]], place: Place, expected: str
) -> None:
    shop = instance(*((name, [line], [[name_of]]) for name, line, name_of in rows))
    assert answered(shop, place)[0] == expected
    matched = [match.rule for match in ranked_rules(shop.rules, {}, place, b"\x0a\1\2\3")]
    view = world(pools=POOLS)
    decision = decide(
        shop.rules, matched, lambda number: tier_of(view, "shop", shop.rules[number], "ipv4")
    )
    assert decision.own == matched[0]
    assert decision.widened == tuple(matched[: len(decision.widened)])


@pytest.mark.parametrize(
    ("tiers", "family", "expected"),
    [
        ([["a"], ["b"]], "ipv4", "192.0.2.1"),
        ([["x"], ["b"]], "ipv4", "192.0.2.2"),
        ([["x"], ["six"], ["b"]], "ipv4", "192.0.2.2"),
        ([["x"], ["six"], ["b"]], "ipv6", "2001:db8::1"),
        ([["a"], ["six-x"]], "ipv6", "2001:db8::2"),
        ([["a"], ["b"]], "ipv6", "NODATA"),
        ([["a", "six-x"], ["six"]], "ipv6", "2001:db8::1"),
        ([["a", "six-x"], ["six"]], "ipv4", "192.0.2.1"),
        ([["x"], ["y"]], "ipv4", "198.51.100.1"),
        ([["off"], ["y"]], "ipv4", "198.51.100.2"),
        ([["x"], ["unseen"]], "ipv4", "SERVFAIL"),
        ([["unseen"], ["a"]], "ipv4", "192.0.2.1"),
        ([["a"], ["unseen"]], "ipv6", "SERVFAIL"),
    ],
)
def test_everything_under_a_rule_is_judged_per_family(
    tiers: list[list[str]], family: str, expected: str
) -> None:
    shop = instance(("all", ["default"], tiers))
    assert answered(shop, UNKNOWN, family=family)[0] == expected


@pytest.mark.parametrize(
    ("pinned", "family", "expected"),
    [
        (1, "ipv4", "192.0.2.1"),
        (2, "ipv4", "192.0.2.2"),
        (3, "ipv4", "198.51.100.1+192.0.2.1+192.0.2.2"),
        (2, "ipv6", "NODATA"),
        (4, "ipv6", "2001:db8::1"),
    ],
)
def test_a_pinned_tier_serves_or_nothing_does(pinned: int, family: str, expected: str) -> None:
    shop = instance(("all", ["default"], [["a"], ["b"], ["x"], ["six"]]), when_all_down="all")
    rule = replace(shop.rules[0], failover=replace(shop.rules[0].failover, pinned=pinned))
    text, _ = answered(replace(shop, rules=(rule,)), UNKNOWN, family=family)
    assert set(text.split("+")) == set(expected.split("+"))


def test_a_branch_that_leads_where_all_others_lead_asks_nothing_of_the_client() -> None:
    shop = instance(
        ("n", ["network:10.0.0.0/8"], [["a"]]),
        ("b", ["subdivision:CN-BJ"], [["a"]]),
        ("cn", ["country:CN"], [["a"]]),
        ("d", ["default"], [["a"]]),
    )
    assert answered(shop, BEIJING) == ("192.0.2.1", 0)


def test_a_change_of_routes_alone_changes_the_answer() -> None:
    shop = instance(("w", ["default"], [["a"], ["b"]]))
    view = world(pools=POOLS, instances={"shop": shop})
    table = compile_table(view, Unplaced())
    name = b"\x04gtm1\x03gtm\x04test\x00"

    def served(pinned: int) -> list[tuple[str, ...]]:
        after = replace(view, routes={"shop": routes("w", "ipv4", pinned, "config")})
        for changes in (Changes(routes=frozenset({"shop"})), None):
            new = compile_table(after, Unplaced(), table, changes)
            plan = new.plan(new.names[name], "ipv4")
            assert plan is not None
        return [leaf.values() for leaf in leaves(plan)]

    assert served(2) == [("192.0.2.2",)]
    assert served(1) == [("192.0.2.1",)]


@pytest.mark.parametrize(
    ("wavering", "down", "ttl"),
    [
        ((), "", 60),
        (("a",), "", 5),  # the pool that answers may not do so for long
        (("b",), "", 60),  # one that stands behind it does not matter
        (("b",), "a", 5),
        (("a",), "a", 5),  # the first pool may be back soon
        (("b",), "ab", 5),  # all are down: any of them may be back
        ((), "ab", 60),
    ],
)
def test_answers_that_may_change_soon_have_the_shorter_ttl(
    wavering: tuple[str, ...], down: str, ttl: int
) -> None:
    values = {"a": "192.0.2.1", "b": "192.0.2.2"}
    pools = {
        name: pool(
            value,
            down=[value] if name in down else [],
            wavering={"ipv4": True} if name in wavering else {},
        )
        for name, value in values.items()
    }
    shop = instance(("all", ["default"], [["a"], ["b"]]), ttl="60s", ttl_wavering="5s")
    for one, expected in ((shop, ttl), (replace(shop, ttl_wavering=UNSET), 60)):
        view = world(pools=pools, instances={"shop": one})
        plan = planner(view.pools).plan(spec_of(view, "shop", "ipv4"))
        answers, walked, _ = walk(plan, b"\x0a\x01\x02\x03", 0)
        assert (answers.ttl, walked) == (expected, expected)
