"""The query log: what a line says of any packet, what is lost, and files that are moved away."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dns.edns
import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtm.errors import StartError
from resolver.compiler import compile_table
from resolver.place import Unplaced
from resolver.query_log import QueryLog, Seen, line
from resolver.responder import respond
from resolver.sampling import PLACES, LogMeter, Sampler
from resolver.table import heard, instances_of
from tests.worlds import instance, pool, world, zone

CLIENT = b"\xc6\x33\x64\x07"
VIEW = world(
    zones={"gtm.test": zone()},
    pools={"one": pool("192.0.2.1", "192.0.2.2"), "six": pool("2001:db8::1")},
    instances={
        "shop": instance(
            ("near", ["network:10.0.0.0/8"], [["one"]]),
            ("rest", ["default"], [["six"]]),
            access_names=["shop.gtm.test"],
        )
    },
)
TABLE = heard(compile_table(VIEW, Unplaced()), 0.0)


def seen(query: bytes, client: bytes = CLIENT) -> list[Seen]:
    """What is logged of a query that is answered from the table."""
    sampler = Sampler(0, 1)
    sampler.saw(0.5, 7, query, client, "udp", respond(TABLE, query, client, "udp", 0.0, 0))
    return list(sampler.take(9))


def logged(query: bytes, client: bytes = CLIENT) -> dict[str, Any]:
    (one,) = seen(query, client)
    text = line(one, TABLE, instances_of(TABLE))
    assert text.isascii()
    assert text.isprintable()
    return json.loads(text)


def test_a_line_says_who_asked_what_and_what_was_answered() -> None:
    subnet = dns.edns.ECSOption("10.1.2.0", 24)
    query = dns.message.make_query("Shop.GTM.test", "A", use_edns=0, options=[subnet]).to_wire()
    found = logged(query)
    assert found.pop("size") > len(query)
    assert found == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "client": "198.51.100.7",
        "transport": "udp",
        "qname": "Shop.GTM.test",
        "qtype": "A",
        "rcode": "NOERROR",
        "instance": "shop",
        "answers": ["192.0.2.1", "192.0.2.2"],
        "ecs": "10.1.2.0/24",
        "scope": 8,
    }


@pytest.mark.parametrize(
    ("query", "client", "wanted"),
    [
        (
            dns.message.make_query("shop.gtm.test", "AAAA").to_wire(),
            b"\0" * 10 + b"\xff\xff" + CLIENT,
            {"client": "198.51.100.7", "answers": ["2001:db8::1"], "rcode": "NOERROR"},
        ),
        (
            dns.message.make_query("no.gtm.test", "TYPE4242").to_wire(),
            CLIENT,
            {"qtype": "TYPE4242", "rcode": "NXDOMAIN", "instance": "", "answers": []},
        ),
        (bytes(12), CLIENT, {"qname": "", "qtype": "TYPE0", "rcode": "FORMERR"}),
        (  # characters that mean something in JSON and on terminals
            bytes(5) + b"\1" + bytes(6) + b'\x06"\\\n\x1b\xe9\x00\4test\0\0\1\0\1',
            CLIENT,
            {"qname": "\\034\\092\\010\\027\\233\\000.test", "rcode": "REFUSED"},
        ),
    ],
    ids=["an IPv6 address", "a name that is not there", "no question", "odd characters"],
)
def test_whatever_is_asked_makes_a_line(
    query: bytes, client: bytes, wanted: dict[str, Any]
) -> None:
    found = logged(query, client)
    assert {key: found[key] for key in wanted} == wanted


def test_what_gets_no_answer_for_being_no_query_is_not_logged() -> None:
    assert seen(b"") == seen(b"\xff" * 40) == []


@given(
    qname=st.binary(max_size=255),
    reply=st.binary(max_size=200),
    qtype=st.integers(0, 65535),
)
def test_no_reply_however_broken_or_cut_breaks_a_line(
    qname: bytes, reply: bytes, qtype: int
) -> None:
    labels = [qname[at : at + 63] for at in range(0, min(len(qname), 240), 63)]
    wire = b"".join(bytes((len(one),)) + one for one in labels) + b"\0"
    one = Seen(1.0, "tcp", CLIENT, wire, qtype, (24, CLIENT), reply, len(reply))
    text = line(one, TABLE, {})
    assert json.loads(text)["transport"] == "tcp"
    assert text.isprintable()


def test_a_log_that_nobody_takes_is_dropped_and_counted() -> None:
    sampler = Sampler(0, 1)
    query = dns.message.make_query("shop.gtm.test", "A").to_wire()
    for _ in range(PLACES + 3):
        sampler.saw(0.0, 0, query, CLIENT, "udp", b"")
    assert sampler.dropped() == 3
    assert len(sampler.take(PLACES + 3)) == PLACES


def test_one_query_of_so_many_is_logged() -> None:
    sampler = Sampler(0, 4)
    query = dns.message.make_query("shop.gtm.test", "A").to_wire()
    for draw in range(64):
        sampler.saw(0.0, draw << 58 | draw << 26, query, CLIENT, "udp", b"")
    assert len(sampler.take(64)) == 16


# ---- the file ----------------------------------------------------------------------------------


class Source:
    """Queries to be written, handed over as a test wants."""

    def __init__(self) -> None:
        self.ready: list[Seen] = []

    def put(self, *names: str) -> None:
        for name in names:
            self.ready += seen(dns.message.make_query(name, "A").to_wire())

    def take(self, most: int) -> Sequence[Seen]:
        taken, self.ready = self.ready[:most], self.ready[most:]
        return taken


def names(path: Path) -> list[str]:
    return [json.loads(text)["qname"] for text in path.read_text().splitlines()]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.005)


def test_a_file_that_was_moved_away_is_opened_again(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    source = Source()
    log = QueryLog(str(path), source.take, lambda: TABLE)
    log.start()
    source.put("a.test")
    until(lambda: log.written == 1)
    path.rename(moved)
    source.put("b.test", "c.test")
    until(lambda: log.written == 3)
    path.unlink()
    source.put("d.test")
    log.close()
    assert (names(moved), names(path)) == (["a.test"], ["d.test"])
    assert path.stat().st_mode & 0o007 == 0


def test_lines_that_cannot_be_written_are_counted_and_later_ones_are_written(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    source = Source()
    log = QueryLog(str(folder / "log"), source.take, lambda: None)
    log.start()
    folder.rename(tmp_path / "gone")
    source.put("a.test", "b.test")
    until(lambda: log.lost == 2)
    folder.mkdir()
    source.put("c.test")
    log.close()
    assert names(folder / "log") == ["c.test"]
    counters = {one.name: one.samples[0].value for one in LogMeter(log, lambda: 5).collect()}
    assert counters == {"gtm_resolver_query_log_lines": 1, "gtm_resolver_query_log_dropped": 7}


def test_a_file_that_cannot_be_opened_is_a_fault_of_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file or directory"):
        QueryLog(str(tmp_path / "no" / "log"), lambda most: [], lambda: None)


def test_standard_output_is_written_to(capfd: pytest.CaptureFixture[str]) -> None:
    source = Source()
    source.put("a.test")
    with capfd.disabled():
        reading, writing = os.pipe()
        before = os.dup(1)
        os.dup2(writing, 1)
        try:
            log = QueryLog("-", source.take, lambda: TABLE)
        finally:
            os.dup2(before, 1)
            os.close(before)
            os.close(writing)
    log.start()
    log.close()
    with os.fdopen(reading) as shown:
        assert json.loads(shown.readline())["qname"] == "a.test"
