"""Plans hold what their rules say, for every client; scopes are true; shared work is done once."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gtm.model import FAMILIES, Family, Instance, Rule
from gtm.view import Changes, View
from resolver.compiler import compile_table, difference, spec_of
from resolver.edns import NOT_READY, extended_error
from resolver.message import SERVFAIL
from resolver.place import Geography, Place, Unplaced
from resolver.plan import Answers, chances, leaves, walk
from resolver.ranking import ranked_rules
from resolver.table import AnswerTable
from resolver.tiers import decide, tier_of
from tests.worlds import geography, instance, planner, pool, records, routes, world, zone

# Networks and addresses of a small space, so that they meet: five bits behind a fixed octet.
HEADS = {4: (b"\x0a", 4), 6: (b"\x20", 16)}
LINES = [
    "default",
    "oversea",
    "continent:AS",
    "continent:EU",
    "country:CN",
    "country:DE",
    "subdivision:CN-BJ",
    "subdivision:DE-BE",
    "subdivision:DE-BY",
    "asn:1",
    "asn:4134",
    "isp:telecom",
]
POOLS = {
    "a": pool("192.0.2.1", "192.0.2.2"),
    "b": pool("192.0.2.3", "3*192.0.2.4", steering="weighted"),
    "dead": pool("192.0.2.5", down=["192.0.2.5"]),
    "six": pool("2001:db8::1"),
    "six-dead": pool("2001:db8::2", down=["2001:db8::2"]),
    "off": pool("192.0.2.6", offline=["192.0.2.6"]),
}


def address(version: int, bits: int, last: int = 0) -> bytes:
    """The address whose five bits behind the head are `bits`."""
    head, size = HEADS[version]
    return head + bytes([bits << 3 | last]) + bytes(size - 2)


@st.composite
def networks(draw: st.DrawFn) -> str:
    version, length = draw(st.sampled_from([4, 6])), draw(st.integers(0, 5))
    bits = draw(st.integers(0, 31)) >> (5 - length) << (5 - length)
    return f"network:{ipaddress.ip_address(address(version, bits))}/{8 + length}"


@st.composite
def rules(draw: st.DrawFn) -> Instance:
    """An instance whose rules share and shadow lines as they like."""
    rows = []
    for number in range(draw(st.integers(1, 6))):
        lines = draw(st.lists(st.sampled_from(LINES) | networks(), min_size=1, max_size=3))
        known = [*POOLS, "unseen"]
        tiers = draw(
            st.lists(
                st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True),
                min_size=1,
                max_size=2,
            )
        )
        rows.append((f"r{number}" + draw(st.sampled_from(["", ">"])), lines, tiers))
    policy = draw(st.sampled_from(["lowest_ordinal", "all", "nodata", "servfail"]))
    return instance(*rows, when_all_down=policy)


places = st.builds(
    Place,
    continent=st.sampled_from(["", "AS", "EU", "NA"]),
    country=st.sampled_from(["", "CN", "DE", "US"]),
    subdivisions=st.sampled_from([(), ("CN-BJ",), ("DE-BE",), ("DE-BY", "DE-BE"), ("DE-BE", "X")]),
    asn=st.sampled_from([0, 1, 4134, 4809, 9]),
)
families = st.sampled_from(FAMILIES)


def expected(view: View, name: str, family: Family, place: Place, packed: bytes) -> list[Answers]:
    """What a client may be answered, found rule by rule without any plan."""
    shop = view.instances[name]
    matched = [match.rule for match in ranked_rules(shop.rules, {}, place, packed)]

    def choice_of(number: int) -> Any:
        return tier_of(view, name, shop.rules[number], family)

    decision = decide(shop.rules, matched, choice_of)
    choice, makes, ttl = decision.choice, planner(view.pools), shop.ttl.ms // 1000
    if choice is None or choice.why == "no_family":
        return [Answers(ttl)]
    if choice.why == "not_ready":
        extended = extended_error(NOT_READY, "a pool was not published yet")
        return [Answers(ttl, rcode=SERVFAIL, extended=extended)]
    if choice.why == "exhausted":
        own = shop.rules[decision.own]
        node = makes.all_down(own, shop.when_all_down, family, ttl)
    else:
        node = makes.tier(shop.rules[decision.rule], choice, None, family, ttl)
    return list(leaves(node))


@settings(max_examples=150, deadline=None)
@given(rules(), places, st.integers(0, 31), st.sampled_from([4, 6]), families, st.data())
def test_the_plan_says_what_the_rules_say(
    shop: Instance, place: Place, bits: int, version: int, family: Family, data: st.DataObject
) -> None:
    view = world(pools=POOLS, instances={"shop": shop})
    packed = address(version, bits)
    everywhere = geography({f"{ipaddress.ip_address(packed)}/0": place})
    plan = planner(view.pools, everywhere).plan(spec_of(view, "shop", family))
    wanted = expected(view, "shop", family, place, packed)
    answers, ttl, _ = walk(plan, packed, data.draw(st.integers(0, 2**64 - 1)))
    assert answers in wanted
    assert ttl == 60
    possible = chances(plan, packed)
    assert sum(share for _, share in possible) == 1
    assert {leaf for leaf, _ in possible} == set(wanted)


def own_matches(rule: Rule, place: Place, packed: bytes) -> list[tuple[int, int]]:
    """(class, -length) of every line of a rule that matches a client, straight from the model."""
    known, inside = bool(place.country), ipaddress.ip_address(packed)
    true = {
        *(f"asn:{place.asn}", "default"),
        *(["isp:telecom"] if place.asn in (4134, 4809) else []),
        *([f"subdivision:{code}" for code in place.subdivisions] if known else []),
        *([f"country:{place.country}", f"continent:{place.continent}"] if known else []),
        *(["oversea"] if known and place.country != "CN" else []),
    }
    order = ["network", "isp", "asn", "subdivision", "country", "oversea", "continent", "default"]
    found = []
    for text in rule.lines:
        kind, _, value = text.partition(":")
        if kind == "network" and inside in ipaddress.ip_network(value):
            found.append((0, -ipaddress.ip_network(value).prefixlen))
        elif text in true:
            found.append((order.index("isp" if kind == "asn" else kind), 0))
    return found


@settings(max_examples=100, deadline=None)
@given(rules(), places, st.integers(0, 31), st.sampled_from([4, 6]))
def test_rules_rank_as_their_lines_do(
    shop: Instance, place: Place, bits: int, version: int
) -> None:
    packed = address(version, bits)
    rows = [
        (min(matches), number)
        for number, rule in enumerate(shop.rules)
        if (matches := own_matches(rule, place, packed))
    ]
    assert [match.rule for match in ranked_rules(shop.rules, {}, place, packed)] == [
        number for _, number in sorted(rows)
    ]


class Leaves:
    """A locator over two partitions of the five bits: where they are cut, another place begins."""

    def __init__(self, cuts: Sequence[int], found: Sequence[Place]) -> None:
        self.cuts, self.found = cuts, found

    @property
    def geography(self) -> Geography:
        """The same for all addresses that `address` makes; elsewhere nobody is."""
        return geography(
            {
                f"{ipaddress.ip_address(packed)}/13": self.find(packed)
                for version in HEADS
                for bits in range(32)
                for packed in [address(version, bits)]
            }
        )

    def find(self, packed: bytes) -> Place:
        bits = packed[1] >> 3
        country, asn = (self.found[self._leaf(cuts, bits)] for cuts in self.cuts)
        return replace(country, asn=asn.asn)

    @staticmethod
    def _leaf(cuts: int, bits: int) -> int:
        """The first of the leaf: nodes whose bit (by heap number) is set are divided."""
        node, length = 1, 0
        while length < 5 and cuts >> node & 1:
            length += 1
            node = node << 1 | bits >> (5 - length) & 1
        return bits >> (5 - length) << (5 - length)


@settings(max_examples=150, deadline=None)
@given(
    rules(),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.lists(places, min_size=32, max_size=32),
    st.integers(0, 31),
    st.sampled_from([4, 6]),
    st.integers(0, 2**64 - 1),
    families,
)
def test_every_address_inside_the_scope_gets_the_same(
    shop: Instance,
    cuts: tuple[int, int],
    found: list[Place],
    bits: int,
    version: int,
    draw: int,
    family: Family,
) -> None:
    view = world(pools=POOLS, instances={"shop": shop})
    locator = Leaves(cuts, found)
    plan = planner(view.pools, locator.geography).plan(spec_of(view, "shop", family))

    def answer(packed: bytes) -> tuple[Answers, int, int]:
        return walk(plan, packed, draw)

    packed = address(version, bits)
    here = answer(packed)
    _, _, scope = here
    assert scope <= 13
    for other in range(32):
        near = address(version, other, 7)
        if scope == 0 or (scope >= 8 and other >> (13 - scope) == bits >> (13 - scope)):
            assert answer(near) == here
    if 0 < scope < 8:  # decided by the head alone
        assert all(answer(address(version, other)) == here for other in range(32))


# ---- incremental compilation ---------------------------------------------------------------


def seen(table: AnswerTable) -> dict[bytes, object]:
    """All that a table says, name by name, without the numbers that it uses inside."""
    found: dict[bytes, object] = {}
    for owner, name in table.names.items():
        slot = table.slots[name.slot] if name.slot >= 0 else None
        above = table.zones[name.above] if name.above >= 0 else None
        steered = slot and (table.plans[slot.a], table.plans[slot.aaaa], slot.ttl)
        rest = (name.rrsets, name.absent, name.cut, name.ds)
        found[owner] = (table.zones[name.zone], above, steered, rest)
    return found


NAMED = [("x.gtm.test",), ("y.gtm.test", "*.y.gtm.test"), ("z.sub.gtm.test", "under.x.gtm.test")]
PINS = [routes("r0", "ipv4", tier, by) for tier, by in ((1, "config"), (2, "op"), (2, ""))]
BUCKETS = {
    "0": records(("www", "CNAME", ["x"]))["-"],
    "1": records(("a.b", "TXT", ["t"]))["-"],
    "2": records(("b", "TXT", ["t"]))["-"],
}


@st.composite
def worlds(draw: st.DrawFn, before: View | None = None) -> View:
    """A world in which a few things differ from `before`."""
    view = before or world(pools=dict(POOLS))
    for _ in range(draw(st.integers(1, 3))):
        what = draw(st.sampled_from(["pools", "instances", "records", "zones", "routes"]))
        table = dict(getattr(view, what))
        if what == "pools":
            name = draw(st.sampled_from([*POOLS, "unseen"]))
            state = draw(st.sampled_from([None, *POOLS.values()]))
        elif what == "instances":
            name = draw(st.sampled_from("ijk"))
            shop = draw(rules())
            named, on = NAMED["ijk".index(name)], draw(st.booleans())
            state = replace(shop, access_names=named, enabled=on) if draw(st.booleans()) else None
        elif what == "records":
            name = "gtm.test"
            state = {key: BUCKETS[key] for key in draw(st.sets(st.sampled_from("012")))}
        elif what == "zones":
            name, state = "gtm.test", zone(serial=draw(st.integers(1, 9)), ttl="60s")
            if draw(st.booleans()):
                name, state = "sub.gtm.test", draw(st.sampled_from([None, zone()]))
        else:
            name = draw(st.sampled_from("ijk"))
            state = draw(st.sampled_from([None, *PINS]))
        if state is None:
            table.pop(name, None)
        else:
            table[name] = state
        view = replace(view, **{what: table})
    return replace(view, revision=view.revision + 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_compiled_step_by_step_is_what_is_compiled_at_once(data: st.DataObject) -> None:
    view = data.draw(worlds())
    table = compile_table(view, Unplaced())
    for _ in range(4):
        after = data.draw(worlds(view))
        told = data.draw(st.booleans())
        changes: Changes | None = difference(view, after) if told else None
        table, view = compile_table(after, Unplaced(), table, changes), after
        whole = compile_table(view, Unplaced())
        assert table.revision == whole.revision
        assert seen(table) == seen(whole)


def test_names_that_share_a_plan_cost_one_rebuild() -> None:
    shops = {
        f"s{number}": instance(
            ("w", ["default"], [["a"]]), access_names=[f"s{number}.gtm.test"], id=f"gtm{number}"
        )
        for number in range(2000)
    }
    other = instance(("w", ["default"], [["b"]]), access_names=["o.gtm.test"])
    view = world(pools=POOLS, instances={**shops, "other": other})
    table = compile_table(view, Unplaced())
    assert len(table.plans) == 4
    changed = replace(view, pools={**POOLS, "a": pool("192.0.2.2")}, revision=2)
    after = compile_table(changed, Unplaced(), table, Changes(pools=frozenset({"a"})))
    assert after.names is table.names
    assert after.slots is table.slots
    rebuilt = [new is not old for new, old in zip(after.plans, table.plans, strict=True)]
    assert sum(rebuilt) == 1  # that of A; there is nothing of the pool in that of AAAA
    name = after.names[b"\x01o\x03gtm\x04test\x00"]
    assert after.plan(name, "ipv4") is table.plan(name, "ipv4")
    sixth = after.plan(after.names[b"\x02s6\x03gtm\x04test\x00"], "ipv4")
    assert [leaf.values() for leaf in leaves(sixth)] == [("192.0.2.2",)]


def test_records_that_did_not_change_are_not_read_again() -> None:
    view = world(records={"gtm.test": {"0": BUCKETS["0"], "1": BUCKETS["1"]}})
    table = compile_table(view, Unplaced())
    after = replace(view, records={"gtm.test": {"0": BUCKETS["0"], "1": BUCKETS["2"]}})
    again = compile_table(after, Unplaced(), table)
    assert table.made is not None
    assert again.made is not None
    old, new = table.made.zones["gtm.test"].buckets, again.made.zones["gtm.test"].buckets
    assert new["0"] is old["0"]
    assert new["1"] is not old["1"]


def test_plans_that_nobody_uses_any_more_are_dropped_in_the_end(monkeypatch: Any) -> None:
    monkeypatch.setattr("resolver.compiler.SPARE_PLANS", 6)
    view = world(pools=POOLS, instances={"i": instance(("w", ["default"], [["a"]]))})
    table = compile_table(view, Unplaced())
    for ttl in range(1, 30):
        shop = instance(("w", ["default"], [["a"]]), ttl=f"{ttl}s")
        view = replace(view, instances={"i": shop})
        table = compile_table(view, Unplaced(), table)
        assert len(table.plans) <= 2 + 6 + 2
        assert [slot.ttl for slot in table.slots] == [ttl]
