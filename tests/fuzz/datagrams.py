"""Datagrams through the responder: what is answered is a message that a stranger can read."""

# ruff: noqa: SIM905

from __future__ import annotations

import random
import struct
import time
from collections import Counter

import dns.exception
import dns.message

from gtm.state import StoredZone
from resolver.compiler import compile_table
from resolver.limits import MAX_TCP
from resolver.message import read_name
from resolver.place import Place
from resolver.responder import respond
from resolver.table import AnswerTable, Serving, heard
from tests.fuzz.octets import mutated
from tests.worlds import Map, instance, pool, records, world, zone

MANY = [f"198.51.{n >> 8}.{n & 255}" for n in range(64)]
CHAIN = [(f"c{n}", "CNAME", [f"c{n + 1}"]) for n in range(12)]
SERVING = Serving(nsid="r1.example", version="v1", server="s1", udp_payload=1232)


def table() -> AnswerTable:
    """Every kind of name that an answer can come from."""
    view = world(
        zones={"gtm.test": zone(), "deep.gtm.test": zone(), "other.test": zone()},
        records={
            "gtm.test": records(
                ("www", "CNAME", ["shop"]),
                ("out", "CNAME", ["away.example.org."]),
                ("ring", "CNAME", ["gnir"]),
                ("gnir", "CNAME", ["ring"]),
                *CHAIN,
                ("c12", "CNAME", ["shop"]),
                ("big", "TXT", [f'"{n:0200}"' for n in range(250)]),
                ("many", "A", MANY),
                ("sub", "NS", ["ns.sub", "ns.elsewhere.example."]),
                ("ns.sub", "A", ["192.0.2.53"]),
                ("ns.sub", "AAAA", ["2001:db8::53"]),
                ("sub", "DS", ["1 8 2 " + "ab" * 32]),
                ("*.wild", "MX", ["10 www"]),
                ("*.alias", "CNAME", ["shop"]),
                ("moved", "DNAME", ["wild"]),
                ("self", "DNAME", ["x.self"]),
                ("long", "DNAME", [".".join(["l" * 60] * 3)]),
                ("a.b.c.d", "TYPE65280", ["\\# 3 abcdef"]),
            ),
            "other.test": records(("@", "DNAME", ["gtm.test."])),
        },
        pools={
            "a": pool("192.0.2.1", "192.0.2.2", "192.0.2.3"),
            "b": pool("2001:db8::1", "2001:db8::2"),
            "w": pool("3*192.0.2.7", "2*192.0.2.8", "0*192.0.2.9", steering="weighted"),
            "all": pool(*MANY, max_answers=64),
            "down": pool("192.0.2.66", down=["192.0.2.66"]),
        },
        instances={
            "shop": instance(
                ("n", ["network:10.0.0.0/9", "network:2001:db8::/33"], [["b"]]),
                ("c", ["country:CN"], [["down"], ["a"]]),
                ("w", ["default"], [["w"]]),
                access_names=["shop.gtm.test", "shop.deep.gtm.test"],
            ),
            "big": instance(
                ("w", ["default"], [["all"]]), id="gtm2", access_names=["all.gtm.test"]
            ),
            "dark": instance(
                ("w", ["default"], [["down"]]),
                id="gtm3",
                access_names=["dark.gtm.test"],
                when_all_down="servfail",
            ),
        },
    )
    assert all(isinstance(one, StoredZone) for one in view.zones.values())
    places = Map({"1": Place(country="CN")})
    return heard(compile_table(view, places, serving=SERVING), 0.0)


LABELS = (
    "shop www out ring c0 c1 c11 c12 big many sub ns x.sub y.wild wild z.alias moved q.moved self "
    "q.self long q.long all dark gtm1 gtm2 no d c.d b.c.d a.b.c.d x.a.b.c.d shop.deep deep"
).split()
ZONES = (*["gtm.test"] * 10, "other.test", "test", "example.org", "")
FIXED = (
    "version.bind",
    "id.server",
    "",
    ".".join("a" * 127),
    ".".join(["l" * 63] * 3 + ["l" * 61]),
)
TYPES = (1, 1, 1, 28, 28, 2, 5, 6, 15, 16, 33, 39, 43, 46, 47, 64, 65, 255, 65280)
ODD_TYPES = (0, 41, 249, 250, 251, 252, 253, 254, 256, 65535)
NETWORKS = (b"\x0a\x01\x02\x03", b"\x01\x02\x03\x04", b"\x20\x01\x0d\xb8")
SIZES = {3: (0,), 10: (8, 16, 24, 40), 11: (0, 2), 12: (0, 1, 100)}
OPTIONS = (3, 8, 8, 8, 9, 10, 11, 12, 15, 0, 65001, 65535)


class Datagrams:
    """The responder under UDP and TCP, over a full table, a stale one and an empty one."""

    name = "datagrams"

    def __init__(self) -> None:
        full = table()
        self._tables = (
            full,
            full,
            full,
            full,
            heard(full, -1000.0),
            compile_table(world(zones={}), Map({})),
        )

    def make(self, dice: random.Random) -> tuple[bytes, bytes, int, int]:
        """(datagram, client, draw, which table)."""
        client = dice.choice((b"\x01\x02\x03\x04", b"\x0a\x01\x02\x03", dice.randbytes(16)))
        return datagram(dice), client, dice.getrandbits(64), dice.randrange(len(self._tables))

    async def feed(self, given: tuple[bytes, bytes, int, int], counts: Counter[str]) -> float:
        """Ask over both transports, and read the replies."""
        data, client, draw, which = given
        used, spent_s = self._tables[which], 0.0
        read = draw % READ == 0
        for transport, limit in (("udp", SERVING.udp_payload), ("tcp", MAX_TCP)):
            began = time.thread_time()
            reply = respond(used, data, client, transport, 0.0, draw)  # type: ignore[arg-type]
            spent_s += time.thread_time() - began
            check(data, reply, limit, read=read)
        if reply is None:
            counts["silence"] += 1
        else:
            counts[RCODES.get(reply[3] & 15, "other rcodes")] += 1
        return spent_s

    def limit_s(self, given: tuple[bytes, bytes, int, int]) -> float:
        """Work is bounded by the limits, copying by the size."""
        return 0.02 + len(given[0]) * 1e-6


READ = 4
"""Of so many replies one is read by dnspython, which takes longer than everything else."""
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def check(data: bytes, reply: bytes | None, limit: int, *, read: bool = True) -> None:
    """What holds for every datagram and its reply."""
    if reply is None:
        assert len(data) < 12 or data[2] & 0x80, "silence where an answer was due"
        return
    assert 12 <= len(reply) <= max(512, limit), f"a reply of {len(reply)} octets"
    assert reply[:2] == data[:2], "another id"
    assert reply[2] & 0x80, "no reply"
    assert reply[2] & 0x79 == data[2] & 0x79, "another opcode, or RD not copied"
    if reply[4:6] == b"\0\1":
        end = read_name(reply, 12)[1] + 4
        assert reply[12:end] == data[12:end], "another question"
    try:
        if read:
            dns.message.from_wire(reply)
    except dns.exception.DNSException as error:
        raise AssertionError(f"dnspython can't read {reply.hex()}: {error!r}") from error


def datagram(dice: random.Random) -> bytes:
    """Random octets, a query, or a query mutated."""
    kind = dice.random()
    if kind < 0.05:
        return dice.randbytes(int(600 ** dice.random()))
    data = query(dice)
    if kind < 0.55:
        return data
    if kind < 0.60:
        other = query(dice)
        return data[: dice.randint(0, len(data))] + other[dice.randint(0, len(other)) :]
    return mutated(dice, data)


def query(dice: random.Random) -> bytes:
    """A message with a header like a query's, whose parts are good or bad by the dice."""
    flags = dice.choice((0x0100, 0x0000, 0x0120, 0x0110))
    if dice.random() < 0.1:
        flags = dice.getrandbits(dice.choice((15, 16)))
    questions = [1] * 40 + [0, 2, 65535]
    question = _name(dice) + struct.pack("!HH", _type(dice), dice.choice((1, 1, 1, 1, 3, 255, 254)))
    records = [_opt(dice)] if dice.random() < 0.7 else []
    if dice.random() < 0.08:
        records += [_opt(dice), _record(dice)][: dice.randint(1, 2)]
    if dice.random() < 0.03:
        records += [_record(dice) for _ in range(dice.choice((3, 16, 17, 60)))]
    counts = [0, 0, len(records)]
    if dice.random() < 0.05:
        counts[dice.randrange(3)] = dice.choice((0, 1, 2, 17, 65535))
    if dice.random() < 0.05:
        counts = dice.sample(counts, 3)
    head = struct.pack("!6H", dice.getrandbits(16), flags, dice.choice(questions), *counts)
    return head + question + b"".join(records)


def _name(dice: random.Random) -> bytes:
    kind = dice.random()
    if kind < 0.75:
        text = f"{dice.choice(LABELS)}.{dice.choice(ZONES)}".strip(".")
        return _wire(_cased(dice, text))
    if kind < 0.85:
        return _wire(_cased(dice, dice.choice(FIXED)))
    if kind < 0.92:  # compressed, mostly wrongly
        pointer = struct.pack("!H", 0xC000 | dice.choice((0, 4, 11, 12, 13, 14, 20, 0x3FFF)))
        return _wire(dice.choice(LABELS))[:-1] + pointer
    labels = (dice.randbytes(int(64 ** dice.random())) for _ in range(dice.randint(0, 6)))
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def _cased(dice: random.Random, text: str) -> str:
    return "".join(dice.choice((char, char.upper())) for char in text)


def _wire(text: str) -> bytes:
    labels = text.encode().split(b".") if text else []
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def _type(dice: random.Random) -> int:
    kind = dice.random()
    if kind < 0.9:
        return dice.choice(TYPES)
    return dice.choice(ODD_TYPES) if kind < 0.97 else dice.getrandbits(16)


def _opt(dice: random.Random) -> bytes:
    payload = dice.choice((0, 512, 1232, 4096, 65535, dice.getrandbits(16)))
    version = 0 if dice.random() < 0.95 else dice.getrandbits(8)
    many = dice.choice((0, 1, 1, 2, 3)) if dice.random() < 0.98 else dice.choice((31, 32, 33, 900))
    options = b"".join(_option(dice) for _ in range(many))
    owner = b"\0" if dice.random() < 0.98 else _name(dice)
    size = len(options) if dice.random() < 0.97 else dice.getrandbits(16)
    flags = dice.choice((0, 0x8000, dice.getrandbits(16)))
    ttl = struct.pack("!BBH", 0, version, flags)
    return (
        owner + struct.pack("!HH", 41, payload) + ttl + struct.pack("!H", size & 0xFFFF) + options
    )


def _option(dice: random.Random) -> bytes:
    code = dice.choice(OPTIONS)
    bad = dice.random() < 0.12
    if code == 8:
        data = _subnet(dice, bad=bad)
    elif bad or code not in SIZES:
        data = dice.randbytes(dice.choice((0, 0, 1, 2, 4, 8, 16, 40, 41)))
    else:
        data = dice.randbytes(dice.choice(SIZES[code]))
    size = dice.getrandbits(16) if bad and dice.random() < 0.2 else len(data)
    return struct.pack("!HH", code, size) + data


def _subnet(dice: random.Random, *, bad: bool) -> bytes:
    """A client subnet (RFC 7871), with a wrong length, family, scope or tail where `bad`."""
    family = dice.choice((0, 1, 2, 3)) if bad else dice.choice((1, 1, 1, 2))
    most = 32 if family == 1 else 128
    source = dice.getrandbits(8) if bad else dice.choice((0, 1, 8, 24, most, dice.randint(0, most)))
    network = dice.choice(NETWORKS) + dice.randbytes(28)
    octets = bytearray(network[: (source + 7) // 8])
    if source % 8 and octets and not (bad and dice.random() < 0.5):
        octets[-1] &= 0xFF << (8 - source % 8) & 0xFF
    scope = dice.getrandbits(8) if bad else 0
    return struct.pack("!HBB", family, source, scope) + octets


def _record(dice: random.Random) -> bytes:
    data = dice.randbytes(dice.choice((0, 4, 16, 60)))
    fixed = struct.pack(
        "!HHIH", _type(dice), dice.choice((1, 255)), dice.getrandbits(32), len(data)
    )
    return _name(dice) + fixed + data
