"""Random worlds and packets meet everything that both responders shall agree on."""

from __future__ import annotations

import random

from resolver.compiler import compile_table
from resolver.plan import Met
from resolver.responder import Transport, respond
from tests.differential.coverage import WANTED, Coverage
from tests.differential.questions import aims, client, packet
from tests.differential.test_twins import compiled
from tests.differential.worlds import REFUSALS, changed

SEED, TABLES, CHANGES, EACH = 7, 50, 3, 60
TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")


def test_everything_that_is_wanted_comes_up_with_fixed_dice() -> None:
    dice, coverage = random.Random(SEED), Coverage()
    for _ in range(TABLES):
        table = compiled(dice)
        for _ in range(CHANGES):
            coverage.put(table)
            known = aims(table)
            for number in range(EACH):
                met: Met = []
                data, who, draw = packet(dice, known), client(dice), dice.getrandbits(64)
                transport = TRANSPORTS[number % 2]
                reply = respond(table, data, who, transport, 0.0, draw, met)
                coverage.asked(table, data, reply, met)
            assert table.made is not None
            try:
                table = compile_table(changed(dice, table.made.view), table.locator, table)
            except REFUSALS:
                continue
    assert coverage.missing() == [], coverage.rarest()


def test_what_was_not_met_is_told() -> None:
    coverage = Coverage()
    assert coverage.missing() == sorted(WANTED)
    coverage.met.update(WANTED)
    assert coverage.missing() == []
