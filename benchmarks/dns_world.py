"""What the DNS servers are compared on: names, their answers, and the queries of each workload.

One small world for four workloads, a large one for the fifth. Says what is meant, in plain data;
`dns_ours` and `dns_peers` write it down in each server's own words. Starts nothing.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gdnsd_world import LINES, NOBODY, PLACES, line_of

TTL_S = 60
PLAIN, WEIGHTED, GEO, MILLION = "plain.test", "weighted.test", "geo.test", "million.test"
NAMES = 10_000
"""Static names of the small world, beside the one of the first workload."""
THREE = (("10.1.0.1", 5), ("10.1.0.2", 3), ("10.1.0.3", 2))
"""The weighted pool: addresses and weights."""
PLACE_WEIGHTS = (5, 3, 2, 1)
"""Weights of the addresses of a place; the last one is down."""
DOWN = len(PLACE_WEIGHTS)
ALL_NAMES, EVERY = 1_000_000, 100
"""Names of the large world, of which every hundredth is an instance."""
RULE_SETS = 1_000
COUNTRIES = ("AU", "BR", "CA", "CN", "DE", "FR", "GB", "IN", "JP", "KR", "RU", "US")
TRIPLES = tuple(itertools.combinations(COUNTRIES, 3))
"""What rule sets tell apart: 220 choices of three countries, and everybody else."""
SET_WEIGHTS = (3, 1)
ELSEWHERE = "world"
CLIENTS = 200_000
"""Client prefixes in the queries that carry one."""
SEED = 6


@dataclass(frozen=True)
class Workload:
    """One row of the targets: `efficiency` is the floor's CPU over ours, `ahead` gdnsd's."""

    key: str
    title: str
    zone: str
    efficiency: float
    ahead: float = 1.0

    @property
    def world(self) -> str:
        """Which configuration of the servers it runs on: small or large."""
        return "large" if self.zone == MILLION else "small"


WORKLOADS = (
    Workload("static", "one static name", PLAIN, 0.95),
    Workload("names", f"{NAMES:,} names", PLAIN, 0.95),
    Workload("weighted", "weighted, 3 addresses", WEIGHTED, 0.92),
    Workload("geo", "country + weighted + health, ECS in the query", GEO, 0.92),
    Workload("million", f"{ALL_NAMES:,} names, uniform", MILLION, 0.80),
)


def three() -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Addresses and weights of the weighted pool, apart."""
    return tuple(value for value, _ in THREE), tuple(weight for _, weight in THREE)


def static_address(number: int) -> str:
    """The one address of a static name."""
    return f"10.{64 | number >> 16}.{number >> 8 & 255}.{number & 255}"


def plain_name(number: int) -> str:
    """A static name of the small world; all are equally long."""
    return f"n{number:05d}.{PLAIN}"


def million_name(number: int) -> str:
    """A name of the large world; all are equally long."""
    return f"n{number:06d}.{MILLION}"


def rule_set(number: int) -> int | None:
    """The rule set of a name of the large world; None: a static name."""
    return number // EVERY % RULE_SETS if number % EVERY == EVERY - 1 else None


def triple(at: int) -> tuple[str, ...]:
    """The countries that a rule set tells apart."""
    return TRIPLES[at % len(TRIPLES)]


def place_addresses(place: str) -> tuple[str, ...]:
    """The addresses of a place in the geo workload, in the order of `PLACE_WEIGHTS`."""
    return tuple(f"10.2.{PLACES[place]}.{n}" for n in range(1, len(PLACE_WEIGHTS) + 1))


def set_addresses(number: int, country: str) -> tuple[str, ...]:
    """The addresses of a rule set for a country, or `ELSEWHERE`, by `SET_WEIGHTS`."""
    third = COUNTRIES.index(country) if country in COUNTRIES else len(COUNTRIES)
    return tuple(f"10.{32 | number >> 8}.{number & 255}.{third * 16 + n}" for n in (1, 2))


@dataclass(frozen=True)
class Question:
    """An A query; `client` is an IPv4 address whose /24 goes along (RFC 7871).

    `number` is that of the name in its world.
    """

    name: str
    number: int = 0
    client: int | None = None

    def wire(self) -> bytes:
        """It as a datagram, with id 0."""
        labels = b"".join(bytes([len(one)]) + one.encode() for one in self.name.split("."))
        head = struct.pack("!6H", 0, 0, 1, 0, 0, self.client is not None)
        opt = b""
        if self.client is not None:
            option = struct.pack("!HHHBB", 8, 7, 1, 24, 0) + self.client.to_bytes(4)[:3]
            opt = struct.pack("!BHHIH", 0, 41, 1232, 0, len(option)) + option
        return head + labels + b"\0" + struct.pack("!HH", 1, 1) + opt


def _clients(dice: random.Random) -> Iterator[int]:
    """Unicast addresses without end, uniform over the address space."""
    while True:
        address = dice.getrandbits(32) & ~255
        if 0 < address >> 24 < 224 and address >> 24 != 127:
            yield address


def questions(workload: Workload) -> Iterator[Question]:
    """What is asked in a workload, in this order; the same in each run."""
    dice = random.Random(SEED)
    clients = _clients(dice)
    if workload.key == "static":
        yield Question(f"www.{PLAIN}")
    elif workload.key == "names":
        for number in dice.sample(range(NAMES), NAMES):
            yield Question(plain_name(number), number)
    elif workload.key == "weighted":
        yield Question(f"www.{WEIGHTED}")
    elif workload.key == "geo":
        for _ in range(CLIENTS):
            yield Question(f"www.{GEO}", client=next(clients))
    else:
        order = list(range(ALL_NAMES))
        dice.shuffle(order)
        for number in order:
            client = next(clients) if rule_set(number) is not None else None
            yield Question(million_name(number), number, client)


def write_queries(workload: Workload, file: Path) -> None:
    """Write the queries as dnsperf -B reads them: each behind its length (RFC 1035, 4.2.2)."""
    with file.open("wb") as out:
        for question in questions(workload):
            wire = question.wire()
            out.write(len(wire).to_bytes(2) + wire)


def meant(workload: Workload, question: Question, record: Any) -> frozenset[str]:
    """The addresses of which one must be answered; the geo file says `record` of the client."""
    if workload.key == "weighted":
        return frozenset(value for value, _ in THREE)
    if workload.key == "geo":
        place = LINES[line_of(record)] if record else NOBODY
        return frozenset(place_addresses(place)[: DOWN - 1])
    at = rule_set(question.number) if workload.key == "million" else None
    if at is None:
        return frozenset({static_address(question.number)})
    country = record["country"]["iso_code"] if record else ""
    return frozenset(set_addresses(at, country if country in triple(at) else ELSEWHERE))
