"""Hand-overs that nobody should send: refused with a sentence, or a table that answers soundly.

Whatever is refused leaves the table in force as it is, and the next good message is taken.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Sequence
from zlib import crc32

import pytest
from msgspec.structs import replace

from resolver.compiler import compile_table
from resolver.handover import MAGIC, VERSION
from resolver.responder import Transport
from resolver.table import AnswerTable, heard
from tests.differential.questions import client
from tests.differential.worlds import REFUSALS, some_locator, some_world
from tests.fuzz.datagrams import datagram, query, table
from tests.fuzz.octets import EDGES
from tests.responders import KINDS, Twin
from tests.worlds import LOCAL, pool

pytestmark = pytest.mark.skipif("native" not in KINDS, reason="no native responder here")

HEAD = struct.Struct("<8sIIQ")
FRONT = struct.Struct("<BQQQB")
CUTS, FLIPS, SMALL_FLIPS = 400, 1_500, 1_000
TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")
UNKNOWN = 1 << 40
DEEPEST = 32
"""Nodes above each other that are taken."""
STEERED = b"\x04shop\x03gtm\x04test\0"
NAME = b"\x04evil\x04deep\x03gtm\x04test\0"
LEAF = struct.pack("<BIBHHB", 0, 60, 0, 0, 0, 0) + struct.pack("<H", 0)


def sealed(body: bytes, version: int = VERSION) -> bytes:
    """`body` behind a head that fits."""
    return HEAD.pack(MAGIC, version, crc32(body), len(body)) + body


def body_of(message: bytes) -> bytes:
    return message[HEAD.size :]


def counted(parts: Sequence[bytes]) -> bytes:
    return struct.pack("<I", len(parts)) + b"".join(parts)


def change(
    *,
    base: int = 1,
    generation: int = 2,
    serving: bytes = b"\0",
    zones: bytes = b"\0",
    nodes: Sequence[bytes] = (),
    slots: Sequence[bytes] = (),
    plans: Sequence[bytes] = (),
    put: Sequence[bytes] = (),
    behind: bytes = b"",
) -> bytes:
    """A change of the table in force, as `native/src/load.rs` describes it."""
    lists = [counted(some) for some in ((), nodes, slots, plans, (), put, (), ())]
    front = FRONT.pack(0, base, generation, 9, 1)
    return sealed(front + serving + zones + b"".join(lists) + behind)


def node(number: int, data: bytes) -> bytes:
    return struct.pack("<Q", number) + data


def above(*branches: int) -> bytes:
    """A draw among `branches`."""
    ids = b"".join(struct.pack("<Q", one) for one in branches)
    return struct.pack("<BQ", 1, len(branches)) + counted_ids(ids) + struct.pack("<I", 0)


def counted_ids(ids: bytes) -> bytes:
    return struct.pack("<I", len(ids) // 8) + ids


def named(*parts: bytes, name: bytes = NAME, flags: int = 0, zone: int = 0) -> bytes:
    return bytes((len(name),)) + name + bytes((flags,)) + struct.pack("<I", zone) + b"".join(parts)


class InForce:
    """A twin with a table, and what it answers to some questions."""

    def __init__(self, first: AnswerTable) -> None:
        dice = random.Random("in force")
        self.table, self.twin = first, Twin()
        self.whole = self.twin.put(first)
        self.asked = [(query(dice), client(dice), dice.getrandbits(64)) for _ in range(60)]
        self.asked += [(ask_of(STEERED), b"\x01\x02\x03\x04", draw << 61) for draw in range(8)]
        self.answers = self.ask()

    def ask(self) -> list[bytes | None]:
        """The answers now."""
        ask = self.twin.ask
        return [ask(data, who, "udp", 0.0, draw) for data, who, draw in self.asked]

    def refuses(self, message: bytes) -> str:
        """Check that a message is refused and nothing changes; gives the reason."""
        with pytest.raises(ValueError, match=r"\w+ \w+") as refusal:
            self.twin.load(message)
        assert self.ask() == self.answers
        return str(refusal.value)

    def withstands(self, message: bytes) -> bool:
        """Check that a message is refused or makes a sound table; gives whether it was taken."""
        reason = ""
        try:
            self.twin.load(message)
        except ValueError as error:
            reason = str(error)
        if reason:
            assert self.ask() == self.answers
            return False
        for (data, _, _), reply in zip(self.asked, self.ask(), strict=True):
            sound(data, reply)
        self.twin.load(self.whole)
        assert self.ask() == self.answers
        return True


def ask_of(name: bytes) -> bytes:
    """A query for the addresses of a name on the wire."""
    return struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1)


def sound(data: bytes, reply: bytes | None) -> None:
    """A reply whose records can be told apart, whatever is in them."""
    if reply is None:
        assert len(data) < 12 or data[2] & 0x80
        return
    assert reply[:2] == data[:2]
    questions, *records = struct.unpack("!4H", reply[4:12])
    at = 12
    if questions:
        at = behind_name(reply, at) + 4
    for _ in range(sum(records)):
        at = behind_name(reply, at) + 10
        at += int.from_bytes(reply[at - 2 : at], "big")
    assert at == len(reply), f"records end at {at} of {len(reply)}"


def behind_name(reply: bytes, at: int) -> int:
    while (length := reply[at]) < 0x40:
        at += length + 1
        if not length:
            return at
    assert length >= 0xC0
    target = int.from_bytes(reply[at : at + 2], "big") & 0x3FFF
    assert 12 <= target < at, "a pointer that does not lead back"
    behind_name(reply, target)
    return at + 2


def flipped(dice: random.Random, body: bytes) -> bytes:
    """One to three bits or octets of `body` are others."""
    octets = bytearray(body)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        # half of them in front and at the end, where little else than numbers stands
        many = len(octets) if dice.random() < 0.5 else min(len(octets), 400)
        at = dice.randrange(many) * dice.choice((1, 1, -1))
        if dice.random() < 0.7:
            octets[at] ^= 1 << dice.randrange(8)
        else:
            octets[at] = dice.choice(EDGES)
    return bytes(octets)


def other(first: AnswerTable, address: str) -> AnswerTable:
    """`first` with another address in a pool."""
    assert first.made is not None
    view = first.made.view
    view = replace(view, pools={**view.pools, "a": pool(address)}, revision=view.revision + 1)
    return heard(compile_table(view, first.locator, first), 0.0)


@pytest.fixture(scope="module")
def rich() -> AnswerTable:
    return table()


@pytest.fixture
def force(rich: AnswerTable) -> InForce:
    return InForce(rich)


def small(dice: random.Random) -> AnswerTable:
    """A random table."""
    while True:
        try:
            return heard(compile_table(some_world(dice), some_locator(dice)), 0.0)
        except REFUSALS:
            continue


def test_a_message_that_ends_anywhere_is_refused(force: InForce) -> None:
    dice = random.Random("cut")
    following = force.twin.handover.message(other(force.table, "192.0.2.99"))
    for message in (force.whole, following):
        lengths = {*range(60), len(message) - 1}
        lengths |= {dice.randrange(len(message)) for _ in range(CUTS)}
        for length in sorted(lengths):
            force.refuses(message[:length])
            if HEAD.size <= length < len(message):
                force.refuses(sealed(message[HEAD.size : length]))
    force.refuses(force.whole + b"\0")
    force.refuses(sealed(body_of(force.whole) + b"\0"))
    force.twin.load(following)
    assert force.ask() != force.answers


def test_flipped_bits_under_an_old_checksum_are_refused(force: InForce) -> None:
    dice = random.Random("flip")
    for _ in range(200):
        message = bytearray(force.whole)
        message[dice.randrange(len(message))] ^= 1 << dice.randrange(8)
        force.refuses(bytes(message))


def test_flipped_bits_under_a_new_checksum_are_refused_or_make_a_sound_table(
    force: InForce,
) -> None:
    dice = random.Random("sealed")
    following = force.twin.handover.message(other(force.table, "192.0.2.99"))
    taken = 0
    for number in range(FLIPS):
        body = body_of(following if number % 2 else force.whole)
        taken += force.withstands(sealed(flipped(dice, body)))
    assert 0 < taken < FLIPS


def test_flipped_bits_of_random_tables_are_refused_or_make_sound_tables() -> None:
    dice = random.Random("small")
    taken = 0
    for number in range(SMALL_FLIPS):
        if number % 250 == 0:
            force = InForce(small(dice))
            force.asked = [(datagram(dice), LOCAL, dice.getrandbits(64)) for _ in range(10)]
            force.asked += [(ask_of(name), LOCAL, 7) for name in list(force.table.names)[:20]]
            force.answers = force.ask()
        taken += force.withstands(sealed(flipped(dice, body_of(force.whole))))
    assert 0 < taken < SMALL_FLIPS


def test_what_a_newer_version_wrote_is_refused(force: InForce) -> None:
    for version in (0, VERSION + 1, 1 << 31):
        assert f"version {version}" in force.refuses(sealed(body_of(force.whole), version))
    assert "no table" in force.refuses(b"GTMTABLF" + force.whole[8:])


def test_a_change_of_another_generation_is_refused(force: InForce) -> None:
    for base in (0, 2, 3, 1 << 63, (1 << 64) - 1):
        assert str(base) in force.refuses(change(base=base, generation=(1 << 64) - 1))
    for generation in (0, 1):
        assert "generation" in force.refuses(change(generation=generation))
    front = FRONT.pack(1, 7, 7, 9, 1)
    assert "generation" in force.refuses(sealed(front + body_of(force.whole)[FRONT.size :]))


def test_a_message_that_comes_twice_is_refused(force: InForce) -> None:
    second = other(force.table, "192.0.2.99")
    message = force.twin.put(second)
    force.answers = force.ask()
    force.refuses(message)
    force.twin.put(other(second, "192.0.2.98"))
    force.answers = force.ask()
    force.refuses(message)


def test_a_change_from_before_everything_was_sent_again_is_refused(force: InForce) -> None:
    second = other(force.table, "192.0.2.99")
    message = force.twin.handover.message(second)
    force.twin.handover.forget()
    force.twin.put(second)
    force.answers = force.ask()
    assert "generation" in force.refuses(message)


def test_numbers_of_what_is_not_there_are_refused(force: InForce) -> None:
    plan = struct.pack("<IBQ", 0, 0, UNKNOWN)
    located = struct.pack("<BQ", 3, UNKNOWN) + counted_ids(bytes(8)) + struct.pack("<H", 0)
    hashed = struct.pack("<BBBB", 2, 24, 56, 0) + bytes(1 << 14)
    sets = struct.pack("<H", 0)
    messages = {
        "node": change(plans=[plan]),
        "branch": change(nodes=[node(UNKNOWN, above(UNKNOWN + 1))]),
        "branch of its own": change(nodes=[node(UNKNOWN, above(UNKNOWN))]),
        "no branch": change(nodes=[node(UNKNOWN, above())]),
        "hash": change(nodes=[node(UNKNOWN, hashed + counted_ids(struct.pack("<Q", UNKNOWN)))]),
        "clients": change(nodes=[node(UNKNOWN, located)]),
        "node twice": change(nodes=[node(UNKNOWN, LEAF)] * 2),
        "kind": change(nodes=[node(UNKNOWN, b"\x09")]),
        "plan": change(slots=[struct.pack("<4I", 0, 1 << 30, 0, 60)]),
        "gap of slots": change(slots=[struct.pack("<4I", 1 << 30, 0, 0, 60)]),
        "gap of plans": change(
            nodes=[node(UNKNOWN, LEAF)], plans=[struct.pack("<IBQ", 1 << 30, 0, UNKNOWN)]
        ),
        "zone": change(put=[named(sets, zone=1 << 30)]),
        "zone above": change(put=[named(struct.pack("<I", 1 << 30), sets, flags=8)]),
        "slot": change(put=[named(struct.pack("<II", 1 << 30, 0), sets, flags=1)]),
        "flags": change(put=[named(sets, flags=64)]),
        "name twice": change(put=[named(sets)] * 2),
        "no name": change(put=[named(sets, name=b"\x05evil")]),
        "great letters": change(put=[named(sets, name=NAME.upper())]),
        "more behind": change(behind=b"\0"),
        "no zones": change(zones=b"\1" + counted(())),
        "small buffer": change(serving=b"\1\0\0\0" + struct.pack("<HHd", 100, 0, 60.0)),
    }
    for what, message in messages.items():
        assert force.refuses(message), what
    force.twin.load(change(put=[named(sets)]))


def test_records_that_would_not_fit_together_are_refused(force: InForce) -> None:
    zones = [zone.name for zone in force.table.zones]
    sets = struct.pack("<H", 0)
    strange = next(at for at, name in enumerate(zones) if not NAME.endswith(name))
    cut = struct.pack("<IB", 60, len(NAME)) + NAME + struct.pack("<HH", 1, 1) + b"\1\0"
    glue = b"\0\1\0\1\0\0\0\x3c\0\x04" + bytes(3)
    long_leaf = struct.pack("<BIBHHB", 0, 60, 0, 0, 0, 5) + b"\0\x0f\0\x09x" + struct.pack("<H", 0)
    messages = {
        "zone of others": change(put=[named(sets, zone=strange)]),
        "zone above of others": change(put=[named(struct.pack("<I", strange), sets, flags=8)]),
        "glue": change(put=[named(sets, cut, struct.pack("<HH", 0, 13), glue, flags=4)]),
        "extended error": change(nodes=[node(UNKNOWN, long_leaf)]),
    }
    renamed = [b"\x05other\0"] * len(zones)
    rows = [bytes((len(name),)) + name + struct.pack("<HI", 0, 60) for name in renamed]
    messages["zones of other names"] = change(zones=b"\1" + counted(rows))
    for what, message in messages.items():
        assert force.refuses(message), what


def test_a_delegation_to_more_servers_than_any_message_holds_costs_little(force: InForce) -> None:
    count = 60_000
    servers = b"\1\0" * count
    glue = struct.pack("<HHHHIH", count - 1, 10, 0x0100, 0x0100, 0, 0) * count
    cut = struct.pack("<IB", 60, len(NAME)) + NAME + struct.pack("<HH", count, count)
    force.twin.load(change(put=[named(struct.pack("<H", 0), cut, servers, glue, flags=4)]))
    for transport in TRANSPORTS:
        began = time.thread_time()
        reply = force.twin.ask(ask_of(NAME), LOCAL, transport, 0.0, 0)
        assert time.thread_time() - began < 0.5
        assert reply is not None
        assert reply[2] & 2, "it is not cut off"
        sound(ask_of(NAME), reply)


def test_plans_that_are_too_deep_are_refused(force: InForce) -> None:
    def deep(levels: int) -> bytes:
        nodes = [node(UNKNOWN, LEAF)]
        nodes += [node(UNKNOWN + at, above(UNKNOWN + at - 1)) for at in range(1, levels)]
        return change(nodes=nodes, plans=[struct.pack("<IBQ", 0, 0, UNKNOWN + levels - 1)])

    for levels in (DEEPEST + 2, 200, 5_000):
        assert "above each other" in force.refuses(deep(levels))
    force.twin.load(deep(DEEPEST))


def test_a_change_directly_after_a_refused_one_is_taken(force: InForce) -> None:
    dice = random.Random("after")
    current = force.table
    for step in range(30):
        current = other(current, f"192.0.2.{100 + step}")
        message = force.twin.handover.message(current)
        force.refuses(message[: dice.randrange(len(message))])
        force.refuses(change(base=1 << 40, generation=1 << 41))
        force.twin.load(message)
        force.twin.handover.taken()
        force.answers = force.ask()
    whole = InForce(current)
    assert whole.answers == force.answers
