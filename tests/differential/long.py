"""`make differential`: a million packets through both responders, which give the same octets.

Half of the packets are the fuzzer's, over its fixed tables; the other half ask tables that the dice
draw and change step by step, each change handed over as one. Prints counts and differences, and
ends with 1 where there is one, or where something that should be met (`coverage`) was not.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import time
from collections import Counter

from resolver.compiler import compile_table
from resolver.plan import Met
from resolver.responder import Transport, respond
from resolver.table import AnswerTable
from tests.differential.coverage import WANTED, Coverage
from tests.differential.questions import aims, client, packet
from tests.differential.test_twins import compiled
from tests.differential.worlds import REFUSALS, changed, some_locator
from tests.fuzz.datagrams import Datagrams
from tests.responders import Twin

EACH = 100
"""Packets asked of a drawn table before it is changed."""
STEPS = 10
"""Changes of a drawn table before another one is drawn."""
LOOK_AT = 8
"""Of so many packets one is looked at for what it meets: reading a reply costs more than it."""
COVERING = 1_000_000
"""From so many packets on, the default, what was not met is a failure: it is no chance then."""
SHOWN = 10
"""Differences that are printed in full."""
TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")


class Comparison:
    """The counts of one run."""

    def __init__(self) -> None:
        self.packets = self.differences = self.handovers = 0
        self.outcomes: Counter[str] = Counter()
        self.coverage = Coverage()

    def ask(self, table: AnswerTable, twin: Twin, data: bytes, who: bytes, draw: int) -> None:
        """Ask both over both transports."""
        self.packets += 1
        looks = self.packets % LOOK_AT == 0
        for transport in TRANSPORTS:
            met: Met = []
            expected = respond(table, data, who, transport, 0.0, draw, met)
            if looks:
                self.coverage.asked(table, data, expected, met)
            found = twin.ask(data, who, transport, 0.0, draw)
            self.outcomes["silence" if expected is None else f"rcode {expected[3] & 15}"] += 1
            if expected == found:
                continue
            self.differences += 1
            if self.differences <= SHOWN:
                print(f"{transport} {who.hex()} draw {draw}: {data.hex()}")
                print(f"  reference {expected.hex() if expected else None}")
                print(f"  native    {found.hex() if found else None}", flush=True)

    def put(self, table: AnswerTable, twin: Twin) -> None:
        """Hand a table over."""
        self.handovers += 1
        self.coverage.put(table)
        twin.put(table)

    def fixed(self, dice: random.Random, count: int) -> None:
        """The fuzzer's packets over its tables."""
        target = Datagrams()
        twins = [Twin() for _ in target._tables]
        for table, twin in zip(target._tables, twins, strict=True):
            self.put(table, twin)
        for _ in range(count):
            data, who, draw, which = target.make(dice)
            self.ask(target._tables[which], twins[which], data, who, draw)

    def drawn(self, dice: random.Random, count: int) -> None:
        """Packets over drawn tables that change."""
        end = self.packets + count
        while self.packets < end:
            table, twin = compiled(dice), Twin()
            for _ in range(STEPS):
                self.put(table, twin)
                known = aims(table)
                for _ in range(min(EACH, end - self.packets)):
                    self.ask(table, twin, packet(dice, known), client(dice), dice.getrandbits(64))
                assert table.made is not None
                locator = some_locator(dice) if dice.random() < 0.15 else table.locator
                try:
                    table = compile_table(changed(dice, table.made.view), locator, table)
                except REFUSALS:
                    continue


def main() -> int:
    """The status to exit with."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential.long", description=__doc__)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    args = parser.parse_args()
    run, begun, dice = Comparison(), time.monotonic(), random.Random(args.seed)
    run.fixed(dice, args.packets // 2)
    run.drawn(dice, args.packets - run.packets)
    outcomes = ", ".join(f"{name} {count:,}" for name, count in run.outcomes.most_common())
    print(
        f"seed {args.seed}: {run.packets:,} packets over UDP and TCP, {run.handovers:,} tables and"
        f" changes handed over, {run.differences} differences, {time.monotonic() - begun:.0f} s"
        f" ({outcomes})"
    )
    missing = run.coverage.missing()
    print(f"met {len(WANTED) - len(missing)} of {len(WANTED)}, the rarest: {run.coverage.rarest()}")
    if missing:
        print(f"never met: {', '.join(missing)}")
    return 1 if run.differences or (missing and run.packets >= COVERING) else 0


if __name__ == "__main__":
    sys.exit(main())
