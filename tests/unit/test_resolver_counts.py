"""What is counted of steered answers: the same by both responders, bounded whatever is asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import dns.edns
import dns.message
import pytest

from resolver import cells
from resolver.cells import Labels
from resolver.compiler import compile_table
from resolver.leaves import both, cut, leaf_of
from resolver.loader import native
from resolver.message import wire_name
from resolver.meters import NONE, OTHER, NameTally
from resolver.native import NativeNames, NativeResponder
from resolver.place import Unplaced
from resolver.plan import Answers, Met
from resolver.planner import LABEL_LINES, line_label
from resolver.responder import respond
from resolver.steered import SteeredTally
from resolver.table import AnswerTable, Serving, heard
from tests.worlds import LOCAL, instance, pool, world, zone

NEAR, FAR = "10.1.2.0/24", "172.16.5.0/24"
VIEW = world(
    zones={"gtm.test": zone()},
    pools={
        "near": pool("192.0.2.1", "192.0.2.2", steering="weighted"),
        "far": pool("192.0.2.2", "192.0.2.3", steering="weighted"),
        "more": pool("192.0.2.4", "192.0.2.5"),
        "most": pool("192.0.2.5", "192.0.2.6"),
        "dead": pool("192.0.2.9", down=["192.0.2.9"]),
        "six": pool("2001:db8::1"),
        "named": pool("cdn.example.net", type="domain"),
    },
    instances={
        "geo": instance(
            ("ours", ["network:10.0.0.0/8"], [["near"]]),
            ("theirs", ["network:172.16.0.0/12", "network:192.168.0.0/16"], [["far"], ["six"]]),
            access_names=["geo.gtm.test", "geo2.gtm.test"],
        ),
        "list": instance(("w", ["default"], [["more", "most"]]), access_names=["list.gtm.test"]),
        "down": instance(("w", ["default"], [["dead"]]), access_names=["down.gtm.test"]),
        "alias": instance(("w", ["default"], [["named"]]), access_names=["alias.gtm.test"]),
    },
)
TABLE = heard(compile_table(VIEW, Unplaced()), 100.0)

Ask = Callable[[bytes, int], object]
Rows = set[tuple[str, str, int]]


class Reference:
    """The reference responder, counted as a resolver does."""

    def __init__(self, table: AnswerTable) -> None:
        self.table, self.labels, self.names = table, Labels(), NameTally()
        self.tally = SteeredTally(self.labels)

    def ask(self, query: bytes, draw: int) -> None:
        met: Met = []
        reply = respond(self.table, query, LOCAL, "udp", 100.0, draw, met)
        assert reply is not None
        qname = query[12 : query.find(b"\0", 12) + 1].lower()
        (self.names.known.get(qname) or self.names.first(self.table, qname))[reply[3] & 15] += 1
        self.tally.add(met)

    def by_instance(self) -> dict[str, int]:
        return summed(self.names.rows(self.table))


class Native(Reference):
    """The native responder."""

    def __init__(self, table: AnswerTable) -> None:
        super().__init__(table)
        module = native()
        assert module is not None
        self.responder = NativeResponder(module, Serving())
        self.responder.put(table)
        self.responder.heard(table, 100.0)
        self.tally = SteeredTally(self.responder.labels, lambda end: self.responder.counted(0, end))

    def ask(self, query: bytes, draw: int) -> None:
        assert self.responder.native.respond(query, LOCAL, "udp", 100.0, draw) is not None

    def by_instance(self) -> dict[str, int]:
        return summed(NativeNames(self.responder).rows(self.table))


RESPONDERS: list[type[Reference]] = [Reference, Native] if native() is not None else [Reference]


def summed(rows: Iterator[tuple[str, str, list[int]]]) -> dict[str, int]:
    """Queries by instance."""
    found: dict[str, int] = {}
    for _, label, counts in rows:
        found[label] = found.get(label, 0) + sum(counts)
    return {label: count for label, count in found.items() if count and label != NONE}


def query(name: str, kind: str = "A", client: str = "") -> bytes:
    """A query, with a client subnet where one is given."""
    address, _, bits = client.partition("/")
    options = [dns.edns.ECSOption(address, int(bits))] if client else []
    return dns.message.make_query(name, kind, use_edns=0, options=options).to_wire()


@pytest.fixture(params=RESPONDERS, ids=lambda one: one.__name__.lower())
def responder(request: pytest.FixtureRequest) -> Reference:
    return request.param(TABLE)


LAST = 2**64 - 1


@pytest.mark.parametrize(
    ("queries", "rows"),
    [
        (  # the line of the client, the pool it gets, the address by the draw
            [(query("geo.gtm.test", client=NEAR), 0)],
            {("line", "network:10.0.0.0/8", 1), ("pool", "near", 1), ("address", "192.0.2.1", 1)},
        ),
        (  # pools that share an address are told apart
            [(query("geo.gtm.test", client=NEAR), LAST), (query("geo2.gtm.test", client=FAR), 0)],
            {
                ("line", "network:10.0.0.0/8", 1),
                ("line", "network:172.16.0.0/12,network:192.168.0.0/16", 1),
                ("pool", "near", 1),
                ("pool", "far", 1),
                ("address", "192.0.2.2", 2),
            },
        ),
        (  # on no line
            [(query("geo.gtm.test", client="203.0.113.0/24"), 0)],
            {("line", NONE, 1)},
        ),
        (  # one list of two pools, each address once
            [(query("list.gtm.test"), 0)],
            {
                ("pool", "more", 1),
                ("pool", "most", 1),
                *(("address", f"192.0.2.{last}", 1) for last in (4, 5, 6)),
            },
        ),
        (  # what is answered when all is down came from a pool too
            [(query("down.gtm.test"), 0)],
            {("pool", "dead", 1), ("address", "192.0.2.9", 1)},
        ),
        (  # the other family
            [(query("geo.gtm.test", "AAAA", FAR), 0)],
            {
                ("line", "network:172.16.0.0/12,network:192.168.0.0/16", 1),
                ("pool", "six", 1),
                ("address", "2001:db8::1", 1),
            },
        ),
        (  # targets of aliases, asked for any type
            [(query("alias.gtm.test"), 0), (query("alias.gtm.test", "MX"), 0)],
            {("pool", "named", 2), ("address", "cdn.example.net", 2)},
        ),
        ([(query("geo.gtm.test", "MX", NEAR), 0), (query("no.gtm.test"), 0)], set()),
    ],
)
def test_answers_are_counted_by_line_pool_and_address(
    responder: Reference, queries: Sequence[tuple[bytes, int]], rows: Rows
) -> None:
    for one, draw in queries:
        responder.ask(one, draw)
    assert set(responder.tally.rows()) == rows


def test_queries_are_counted_by_instance_whichever_of_its_names_was_asked(
    responder: Reference,
) -> None:
    for name in ("geo", "geo2", "GEO2", "list", "no"):
        responder.ask(query(f"{name}.gtm.test"), 0)
    assert responder.by_instance() == {"geo": 3, "list": 1}


def test_names_beyond_the_bound_still_count_for_their_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cells, "MAX_NAMES", 1)
    monkeypatch.setattr("resolver.meters.MAX_NAMES", 1)
    for kind in RESPONDERS:
        responder = kind(TABLE)
        for name in ("geo", "geo2", "list", "down"):
            responder.ask(query(f"{name}.gtm.test"), 0)
        assert responder.by_instance() == {"geo": 2, "list": 1, "down": 1}


def test_both_responders_count_the_same_for_the_same_queries_and_draws() -> None:
    dice = random.Random(6)
    made = [kind(TABLE) for kind in RESPONDERS]
    names = ["geo", "geo2", "list", "down", "alias", "no"]
    nets = ["", NEAR, FAR, "192.168.7.0/24", "203.0.113.0/24"]
    for _ in range(2_000):
        one = query(
            f"{dice.choice(names)}.gtm.test",
            dice.choice(["A", "AAAA", "MX", "ANY", "CNAME"]),
            dice.choice(nets),
        )
        draw = dice.getrandbits(64)
        for responder in made:
            responder.ask(one, draw)
    shown = [(set(one.tally.rows()), one.by_instance()) for one in made]
    assert all(one == shown[0] for one in shown)
    assert len(shown[0][0]) > 15


def test_labels_beyond_their_bounds_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "MAX_POOLS", 2)
    monkeypatch.setattr(cells, "MAX_ADDRESSES", 3)
    tally = SteeredTally(Labels())
    for number in range(10):
        leaf = leaf_of([pool(f"192.0.2.{number}")], "ipv4", 60, pools=(f"p{number}",))
        tally.add([leaf([f"192.0.2.{number}"])])
    assert set(tally.rows()) == {
        *(("pool", f"p{number}", 1) for number in range(2)),
        ("pool", OTHER, 8),
        *(("address", f"192.0.2.{number}", 1) for number in range(3)),
        ("address", OTHER, 7),
    }


def test_all_cells_that_may_be_given_out_fit_those_of_a_worker() -> None:
    labels = Labels()
    for number in range(cells.MAX_ADDRESSES + 10):
        labels.name(wire_name(f"n{number}"), f"i{number}")
        labels.pools.cell(f"p{number}")
        labels.lines.cell(f"l{number}")
        labels.addresses.cell((1, number.to_bytes(4)))
    assert (
        cells.CELLS
        >= labels.end
        == cells.FIRST
        + (
            (cells.MAX_NAMES + cells.MAX_INSTANCES + 2) * cells.OUTCOMES
            + (cells.MAX_LINES + cells.MAX_POOLS + cells.MAX_ADDRESSES + 3)
        )
    )


def test_the_label_of_a_rule_with_many_lines_stays_short() -> None:
    lines = [f"country:{one}" for one in ("AT", "BE", "CZ", "DE", "EE")]
    assert line_label(lines[:LABEL_LINES]) == "country:AT,country:BE,country:CZ"
    assert line_label(lines) == "country:AT,country:BE,country:CZ,+2"


def test_records_keep_their_pools_when_leaves_are_joined_and_cut() -> None:
    first = leaf_of([pool("192.0.2.1", "192.0.2.2")], "ipv4", 60, pools=("a",))
    second = leaf_of([pool("192.0.2.2", "192.0.2.3")], "ipv4", 60, pools=("b",))
    joined = both(first(["192.0.2.1", "192.0.2.2"]), second(["192.0.2.2", "192.0.2.3"]))
    assert isinstance(joined, Answers)
    assert joined.pools == ("a", "a", "b")
    shorter = cut(joined, 2)
    assert isinstance(shorter, Answers)
    assert shorter.pools == ("a",)
