"""Packets for random worlds: names of their small space, good, odd and broken."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from resolver.table import AnswerTable
from tests.differential.worlds import HOSTS, ZONES
from tests.fuzz.datagrams import _cased, _opt, _type, _wire, datagram
from tests.fuzz.octets import mutated

NEAR = (
    b"\x0a\1\2\3", b"\x0a\x80\0\1", b"\1\2\3\4", b"\x7f\0\0\1", b"\xac\x10\1\1",
    b"\x20\1\x0d\xb8" + bytes(11) + b"\1", b"\x20\1\x0d\xb8\0\7" + bytes(10),
    bytes(10) + b"\xff\xff\x0a\1\2\3",
)  # fmt: skip
PREFIXES = ("", "", "", "q.", "x.w.", "a.b.c.")


def aims(table: AnswerTable) -> tuple[Sequence[bytes], ...]:
    """Questions that a table has answers to: of its access names, and of its static records."""
    steered = [
        qname + struct.pack("!HH", rtype, 1)
        for qname, name in table.names.items()
        if name.slot >= 0
        for rtype in (1, 1, 28)
    ]
    static = [
        qname + struct.pack("!HH", rtype, 1)
        for qname, name in table.names.items()
        for rtype in (*name.rrsets, *(() if name.ds is None and name.cut is None else (43,)))
    ]
    return tuple(some for some in (steered, static) if some)


def packet(dice: random.Random, aims: Sequence[Sequence[bytes]] = ()) -> bytes:
    """A query to a name of a random world, mutated at times, or what the fuzzer sends.

    Every other of them asks one of `aims`, where there are any.
    """
    kind = dice.random()
    if kind < 0.15:
        return datagram(dice)
    if aims and dice.random() < 0.5:
        question = dice.choice(dice.choice(aims))
    else:
        name = f"{dice.choice(PREFIXES)}{dice.choice(HOSTS)}.{dice.choice(ZONES)}".replace("@.", "")
        question = _wire(_cased(dice, name)) + struct.pack("!HH", _type(dice), 1)
    records = [_opt(dice)] if dice.random() < 0.6 else []
    head = struct.pack("!6H", dice.getrandbits(16), 0x0100, 1, 0, 0, len(records))
    data = head + question + b"".join(records)
    return data if kind < 0.9 else mutated(dice, data)


def client(dice: random.Random) -> bytes:
    """An address of a client."""
    return dice.choice(NEAR) if dice.random() < 0.8 else dice.randbytes(dice.choice((4, 16)))
