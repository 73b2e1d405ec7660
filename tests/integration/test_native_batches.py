"""Queries that wait together are answered together, each rightly and from the right address."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from types import ModuleType

import dns.message
import pytest

from resolver.cells import BATCHES, OVERSIZE, UNSENT
from resolver.handover import Handover
from resolver.loader import native
from resolver.responder import respond
from resolver.udp import bound
from tests.fuzz.datagrams import table

TABLE = table()
STEADY = ["out", "many", "nope", "sub.x", "big", "c0", "x.sub", "nope2"]
"""Names under gtm.test whose answers do not depend on the draw, of several sizes."""
PLACES = [
    (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    (socket.AF_INET, "0.0.0.0", "127.0.0.7"),
    (socket.AF_INET6, "::1", "::1"),
    (socket.AF_INET6, "::", "::1"),
    (socket.AF_INET6, "::", "::ffff:127.0.0.9"),
]


@pytest.fixture
def module() -> ModuleType:
    found = native()
    if found is None:
        pytest.skip("the native responder is not built")
    return found


@contextlib.contextmanager
def asked(
    module: ModuleType, place: tuple[socket.AddressFamily, str, str], queries: list[bytes]
) -> Iterator[tuple[list[bytes], list[int]]]:
    """The replies to `queries`, which all lie in the socket before it is served; and the counts."""
    family, host, target = place
    responder = module.Native()
    responder.load(Handover().message(TABLE))
    responder.heard(float("inf"))
    with (
        bound(family, host, 0, v6_only=False) as ours,
        socket.socket(family, socket.SOCK_DGRAM) as theirs,
    ):
        theirs.settimeout(5)
        theirs.connect((target, ours.getsockname()[1]))  # takes replies from there alone
        for query in queries:
            theirs.send(query)
        responder.serve_udp(ours.fileno(), host in ("0.0.0.0", "::"), 1)
        replies = [theirs.recv(65535) for query in queries if len(query) <= 4096]
        responder.close()
    yield replies, responder.counted(64)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[1]} {place[2]}")
def test_a_burst_is_answered_in_one_batch_from_where_it_was_asked(
    module: ModuleType, place: tuple[socket.AddressFamily, str, str]
) -> None:
    queries = []
    for number in range(60):
        query = dns.message.make_query(f"{STEADY[number // 3 % 8]}.gtm.test", "A", use_edns=0)
        query.id = number
        queries.append(query.to_wire())
    with asked(module, place, queries) as (replies, counts):
        assert counts[BATCHES] == 1
        assert counts[UNSENT] == 0
    client = b"\x7f\0\0\1" if family_of(place[2]) == 4 else bytes(15) + b"\1"
    expected = [respond(TABLE, query, client, "udp", 0.0, 0) for query in queries]
    assert replies == expected


def family_of(target: str) -> int:
    return 6 if target == "::1" else 4


def test_replies_of_one_size_arrive_as_datagrams_of_their_own(module: ModuleType) -> None:
    query = dns.message.make_query("shop.gtm.test", "A", use_edns=False)
    queries = []
    for number in range(64):
        query.id = number
        queries.append(query.to_wire())
    with asked(module, PLACES[0], queries) as (replies, counts):
        assert counts[BATCHES] == 1
    assert [int.from_bytes(reply[:2]) for reply in replies] == list(range(64))
    for reply in replies:
        assert dns.message.from_wire(reply).answer[0][0].address.startswith("192.0.2.")


def test_what_is_no_query_or_too_long_is_counted_and_harms_nobody_in_the_batch(
    module: ModuleType,
) -> None:
    query = dns.message.make_query("out.gtm.test", "A", use_edns=0).to_wire()
    with asked(module, PLACES[0], [query, bytes(5000), query]) as (replies, counts):
        assert counts[OVERSIZE] == 1
    assert replies == [respond(TABLE, query, b"\x7f\0\0\1", "udp", 0.0, 0)] * 2
