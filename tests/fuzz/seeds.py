"""`python -m tests.fuzz.seeds DIR`: what the fuzz targets of the native responder begin with.

Writes DIR/table, the hand-over that they ask, and for each target a directory of inputs, in the
forms that `native/fuzz/fuzz_targets` describe, from our own generators and always the same.
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from resolver.compiler import compile_table
from resolver.handover import Handover
from resolver.table import AnswerTable
from tests.differential.worlds import REFUSALS, changed, some_locator, some_world
from tests.fuzz.datagrams import _option, _subnet, datagram, table
from tests.worlds import pool

HEAD = 24
"""Octets in front of the body of a hand-over: the targets make them."""
CLIENTS = (b"\x01\x02\x03\x04" + bytes(12), b"\x0a\x01\x02\x03" + bytes(12),
           b"\x20\x01\x0d\xb8" + bytes(12))  # fmt: skip
LARGE = bytes(5) + b"\1" + bytes(6) + b"\3big\3gtm\4test\0\0\x10\0\1"
"""A query for 50 KB of TXT."""
MOST = 24_000
"""Octets of a hand-over that is a seed: mutations of larger ones find little and cost much."""


def front(dice: random.Random, flags: int) -> bytes:
    """Flags, a client and a draw."""
    return bytes((dice.getrandbits(2) | flags,)) + dice.choice(CLIENTS) + dice.randbytes(8)


def datagrams(dice: random.Random) -> Iterator[bytes]:
    """Good, odd and broken queries."""
    for _ in range(2_000):
        yield front(dice, 0) + datagram(dice)


def streams(dice: random.Random) -> Iterator[bytes]:
    """Queries in a row, in pieces of all sizes; some for more than a turn may write."""
    for _ in range(500):
        parts = [datagram(dice) for _ in range(dice.choice((1, 2, 3, 10)))]
        data = b"".join(struct.pack("!H", len(part)) + part for part in parts)
        yield dice.randbytes(1) + dice.choice((b"\0\1", b"\xff\xff", dice.randbytes(2))) + data
    for count in range(1, 9):
        yield b"\xff" * 3 + (struct.pack("!H", len(LARGE)) + LARGE) * count


def options(dice: random.Random) -> Iterator[bytes]:
    """Client subnets and other options, good and bad."""
    for _ in range(500):
        yield front(dice, 4) + _subnet(dice, bad=dice.random() < 0.3)
        many = dice.choice((0, 1, 2, 5, 33))
        yield front(dice, 0) + b"".join(_option(dice) for _ in range(many))


def handovers(dice: random.Random) -> Iterator[bytes]:
    """Bodies of whole tables, and of changes of the table that the targets ask."""
    yield bare(b"\0")
    yield bare(b"\1" + bytes(4))
    made = 0
    while made < 40:
        try:
            message = Handover().message(compile_table(some_world(dice), some_locator(dice)))
        except REFUSALS:
            continue
        if len(message) <= MOST:
            yield message[HEAD:]
            made += 1
    first = table()
    assert first.made is not None
    for number in range(100):
        handover = handed(first)[0]
        try:
            view = changed(dice, first.made.view)
            if number < 20:
                pools = {**view.pools, "a": pool(f"192.0.2.{number}")}
                view = replace(first.made.view, pools=pools, revision=view.revision)
            message = handover.message(compile_table(view, first.locator, first))
        except REFUSALS:
            continue
        if len(message) <= MOST:
            yield message[HEAD:]


def bare(zones: bytes) -> bytes:
    """The body of a change of nothing, or of all `zones` alone."""
    return struct.pack("<BQQQBB", 0, 1, 2, 1, 1, 0) + zones + bytes(8 * 4)


def handed(first: AnswerTable) -> tuple[Handover, bytes]:
    """A hand-over of which the first table was taken, and its message."""
    handover = Handover()
    message = handover.message(first)
    handover.taken()
    return handover, message


KINDS: dict[str, Callable[[random.Random], Iterator[bytes]]] = {
    "datagram": datagrams, "tcp_stream": streams, "ecs": options, "load": handovers,
}  # fmt: skip


def main(folder: Path) -> None:
    """Write the table and all seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table").write_bytes(handed(table())[1])
    for name, seeds in KINDS.items():
        place = folder / name
        place.mkdir(exist_ok=True)
        count = 0
        for count, seed in enumerate(seeds(random.Random(name)), 1):
            (place / f"{count:04}").write_bytes(seed)
        print(f"{name}: {count:,} seeds")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
