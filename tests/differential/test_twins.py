"""The native responder beside the reference: the same octets, whatever the table and the packet."""

from __future__ import annotations

import ipaddress
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gtm.model import ClientLine
from resolver.cells import CELLS, FIRST
from resolver.compiler import compile_table
from resolver.handover import SPARE_NODES
from resolver.locate import embedded, open_locator
from resolver.place import Unplaced
from resolver.plan import Located
from resolver.table import AnswerTable, Serving, heard
from tests.differential.questions import aims, client, packet
from tests.differential.worlds import REFUSALS, changed, some_locator, some_world
from tests.fuzz.datagrams import Datagrams
from tests.responders import KINDS, Twin, same
from tests.worlds import LOCAL, instance, pool, records, world

pytestmark = pytest.mark.skipif("native" not in KINDS, reason="no native responder here")

PACKETS = 60
CHANGES = 10_000
"""One after another: many times what a responder may hold of what is not used any more."""
MANY_SPANS = 1 << 14
"""From so many on the native responder holds IPv4 spans in another form (`native/src/dense.rs`)."""
SERVINGS = (
    Serving(),
    Serving(nsid="r1.example", version="v1", server="s1", udp_payload=512),
    Serving(nsid="n" * 64, idle_s=1e9, udp_payload=4096),
)
dice_of = st.integers(0, 2**64 - 1).map(random.Random)


def compiled(dice: random.Random) -> AnswerTable:
    """A random table that compiles."""
    while True:
        try:
            serving = dice.choice(SERVINGS)
            table = compile_table(some_world(dice), some_locator(dice), serving=serving)
        except REFUSALS:
            continue
        return heard(table, dice.choice((0.0, 0.0, -1e4)))


def compare(dice: random.Random, table: AnswerTable, *twins: Twin, count: int = PACKETS) -> None:
    """Ask all of them `count` packets."""
    known = aims(table)
    for _ in range(count):
        data, who, draw = packet(dice, known), client(dice), dice.getrandbits(64)
        for twin in twins:
            same(table, twin, data, who, 0.0, draw)


@settings(max_examples=60, deadline=None)
@given(dice_of)
def test_random_tables_are_answered_from_alike(dice: random.Random) -> None:
    table, twin = compiled(dice), Twin()
    twin.put(table)
    compare(dice, table, twin)


@settings(max_examples=25, deadline=None)
@given(dice_of)
def test_changes_handed_over_step_by_step_answer_like_the_whole(dice: random.Random) -> None:
    table, twin = compiled(dice), Twin()
    twin.put(table)
    for _ in range(8):
        assert table.made is not None
        locator = some_locator(dice) if dice.random() < 0.15 else table.locator
        try:
            table = compile_table(changed(dice, table.made.view), locator, table)
        except REFUSALS:
            continue
        if dice.random() < 0.2:  # a broken message comes before
            message = twin.handover.message(table)
            with pytest.raises(ValueError):
                twin.load(message[: dice.randrange(len(message))])
            twin.handover.forget()
        twin.put(table)
        whole = Twin()
        whole.put(table)
        compare(dice, table, twin, whole, count=20)


@pytest.mark.parametrize("size", [3, 5, 230])
def test_answers_around_every_limit_are_cut_alike(size: int) -> None:
    rows = [(f"t{n}", "TXT", [f'"{m:0{size}}"' for m in range(n)]) for n in range(1, 22)]
    rows += [(f"m{n}", "MX", [f"{m} host{m}.long-name" for m in range(n)]) for n in (20, 250, 900)]
    rows += [("far", "CNAME", ["t20"]), ("moved", "DNAME", ["gtm.test."])]
    rows += [(f"o{n}", "TXT", ['"' + "x" * n + '"']) for n in range(1, 255)]
    for serving in SERVINGS:
        view = world(records={"gtm.test": records(*rows)})
        table, twin = heard(compile_table(view, Unplaced(), serving=serving), 0.0), Twin()
        twin.put(table)
        for name, rtype, _ in rows:
            for payload in (None, 512, 513, 1232, 4096, 65535):
                for prefix in ("", "t5.moved." if name == "far" else ""):
                    data = question(f"{prefix}{name}.gtm.test", rtype, payload)
                    same(table, twin, data, LOCAL, 0.0, 7)


def question(name: str, rtype: str, payload: int | None) -> bytes:
    """A query with EDNS where there is a payload."""
    import dns.message

    return dns.message.make_query(
        name, rtype, id=1, use_edns=None if payload is None else 0, payload=payload or 0
    ).to_wire()


@pytest.mark.parametrize("count", [900])
def test_names_behind_the_reach_of_pointers_are_written_alike(count: int) -> None:
    rows = [
        ("mail", "MX", [f"{n} mx{n}.some.where" for n in range(count)]),
        ("other", "SRV", [f"1 {n} 80 mx{n}.some.where" for n in range(count)]),
        *((f"c{n}", "CNAME", [f"c{n + 1}" if n < 7 else "mail"]) for n in range(8)),
        ("sub", "NS", [f"ns{n}.sub" for n in range(count // 4)]),
        *((f"ns{n}.sub", "A", [f"192.0.2.{n % 250}"]) for n in range(count // 4)),
    ]
    view = world(records={"gtm.test": records(*rows)})
    try:
        table = heard(compile_table(view, Unplaced()), 0.0)
    except ValueError:
        pytest.fail("the table is too large for its own bounds")
    twin = Twin()
    twin.put(table)
    for name in ("mail", "other", "c0", "c3", "x.sub", "sub"):
        for rtype in ("MX", "SRV", "A", "NS"):
            same(table, twin, question(f"{name}.gtm.test", rtype, 4096), LOCAL, 0.0, 3)


@pytest.mark.skipif(not embedded(), reason="no country data here")
def test_clients_of_all_countries_are_told_apart_alike() -> None:
    dice = random.Random("countries")
    rules = (
        ("cn", ["country:CN"], [["a"]]),
        ("de", ["country:DE"], [["b"]]),
        ("net", ["network:10.9.8.128/25", "network:10.9.8.7/32", "network:77.0.0.0/9"], [["c"]]),
        ("else", ["default"], [["d"]]),
    )
    pools = {name: pool(f"192.0.2.{number}") for number, name in enumerate("abcd", 1)}
    view = world(pools=pools, instances={"i": instance(*rules, access_names=["i.gtm.test"])})
    table = heard(compile_table(view, open_locator(())), 0.0)
    plans = [plan for plan in table.plans if isinstance(plan, Located)]
    assert max(len(plan.table.v4.starts) for plan in plans) > MANY_SPANS
    twin = Twin()
    twin.put(table)
    for _ in range(10_000):
        address = ipaddress.IPv4Address(dice.getrandbits(32))
        if dice.random() < 0.1:
            address = ipaddress.IPv4Address("10.9.8.0") + dice.randrange(256)
        asked = subnet_question("i.gtm.test", address, dice.choice((0, 7, 16, 24, 24, 25, 32)))
        same(table, twin, asked, dice.choice((LOCAL, address.packed)), 0.0, dice.getrandbits(64))


def subnet_question(name: str, address: ipaddress.IPv4Address, length: int) -> bytes:
    """An A query with a client subnet."""
    import dns.edns
    import dns.message

    options = [dns.edns.ECSOption(str(address), length)]
    return dns.message.make_query(name, "A", id=1, use_edns=0, options=options).to_wire()


def test_the_packets_of_the_fuzzer_are_answered_alike() -> None:
    target, twins = Datagrams(), [Twin() for _ in range(6)]
    for twin, table in zip(twins, target._tables, strict=True):
        twin.put(table)
    for number in range(3_000):
        data, who, draw, which = target.make(random.Random(f"twins:{number}"))
        same(target._tables[which], twins[which], data, who, 0.0, draw)


def test_what_is_not_used_any_more_is_forgotten() -> None:
    lines = {"near": ClientLine(networks=("172.16.0.0/12",))}
    rules = ("n", ["near"], [["a"]]), ("o", ["default"], [["b"]])
    view = world(
        pools={"a": pool("192.0.2.1"), "b": pool("192.0.2.2", "192.0.2.3")},
        lines=lines,
        instances={"i": instance(*rules, access_names=["i.gtm.test"])},
    )
    table, twin = heard(compile_table(view, Unplaced()), 0.0), Twin()
    asked, near = question("i.gtm.test", "A", None), b"\xac\x10\1\1"
    greatest, tables = 0, set[int]()
    for step in range(CHANGES):
        address = f"198.51.{step >> 8 & 255}.{step & 255}"
        view = replace(view, pools={**view.pools, "a": pool(address)}, revision=step + 2)
        if step % 10 == 0:
            networks = ("172.16.0.0/12", f"10.{step // 10 % 256}.0.0/16")
            view = replace(view, lines={"near": ClientLine(networks=networks)})
        table = compile_table(view, Unplaced(), table)
        twin.put(table)
        names, nodes, places = twin.sizes
        assert names == len(table.names)
        greatest = max(greatest, nodes)
        tables.add(places)
        if step % 100 == 0:
            for who in (near, LOCAL):
                same(table, twin, asked, who, 0.0, step << 50)
    assert SPARE_NODES < greatest <= SPARE_NODES + 32
    assert 1 <= min(tables) <= 2
    assert max(tables) <= SPARE_NODES // 10
    assert twin.native.sweep() == 0


def test_a_walk_for_a_cname_that_may_come_is_counted_although_no_plan_moves() -> None:
    rules = ("near", ["network:10.0.0.0/9"], [["a"], ["b"]]), ("all", ["default"], [["c"]])
    shop = instance(*rules, access_names=["www.gtm.test"])
    pools = {"a": pool("192.0.2.1"), "b": pool("192.0.2.2"), "c": pool("192.0.2.3")}
    view, twin = world(pools=pools, instances={"shop": shop}), Twin()
    table = compile_table(view, Unplaced())
    twin.put(table)
    for spare, walks in ((pool("cdn.example.net", type="domain"), True), (pools["b"], False)):
        view = replace(view, pools={**pools, "b": spare}, revision=view.revision + 1)
        table = compile_table(view, Unplaced(), table)
        twin.put(table)
        before = sum(twin.native.counted(CELLS)[FIRST:])
        same(table, twin, question("www.gtm.test", "MX", None), LOCAL, 0.0, 0)
        name_and_line = 1 + walks
        assert sum(twin.native.counted(CELLS)[FIRST:]) - before == 2 * name_and_line  # UDP, TCP


def test_a_plan_that_only_becomes_an_alias_is_sent_again() -> None:
    rules = ("w", ["default"], [["a"]])
    view = world(
        pools={"a": pool("cdn.example.net", type="domain")},
        instances={"i": instance(rules, access_names=["i.gtm.test"])},
    )
    table, twin = heard(compile_table(view, Unplaced()), 0.0), Twin()
    assert table.aliased
    for some in (replace(table, aliased=frozenset()), table):
        twin.put(some)
        for rtype in ("A", "AAAA", "MX"):
            same(some, twin, question("i.gtm.test", rtype, None), LOCAL, 0.0, 7)
