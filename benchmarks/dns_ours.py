"""Our own resolver as `bench_dns` measures it: the whole of it, its store in memory.

Run `python benchmarks/dns_ours.py WORLD PORT HTTP_PORT GEO_FILE [ADDRESS [INTERFACE]]`; with an
interface its queries are answered by AF_XDP. What it serves lies in the store
as an apply and a leader would have written it; the resolver lists it, compiles it and opens its
doors, native or not as GTM_NATIVE says. No coordinator, no etcd: they take no part in an answer.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import dns_world as world
from benchmarks.gdnsd_world import LINES, PLACES
from coordinator.buckets import depth, split
from gtm import codec, keys
from gtm.choices import PoolRef
from gtm.memory import MemoryStore
from gtm.model import Instance, Record, Rule, Steering, Tier
from gtm.state import Bucket, Member, PoolState, StoredZone
from gtm.store import Put
from gtm.units import Duration
from resolver.part import serve
from resolver.settings import Settings

TTL = Duration(world.TTL_S * 1000)
OPS = 64
"""Keys of one transaction: full buckets in so many stay below the greatest request."""


def zone(name: str, rows: list[tuple[str, str]]) -> Iterator[Put]:
    """A zone with static A records: (owner within the zone, address)."""
    records = [Record(name=owner, type="A", ttl=TTL, data=(data,)) for owner, data in rows]
    bits = depth(records, 0)
    stored = StoredZone(nameservers=(f"ns1.{name}",), bits=bits)
    yield Put(keys.config("zones", name), codec.encode(stored))
    for bucket, held in split(records, bits).items():
        yield Put(keys.records(name, bucket), codec.encode(Bucket(records=held)))


def pool(name: str, addresses: tuple[str, ...], weights: tuple[int, ...], down: int = 0) -> Put:
    """A published pool that answers one address by weight; member number `down` is not in play."""
    members = tuple(
        Member(
            value=value,
            weight=weight,
            answered=number != down,
            counted=number != down,
            why="down" if number == down else "up",
        )
        for number, (value, weight) in enumerate(zip(addresses, weights, strict=True), 1)
    )
    state = PoolState(
        type="ipv4", steering=Steering(type="weighted"), max_answers=1, members=members
    )
    return Put(keys.pool(name), codec.encode(state))


def rules(pools: dict[str, str]) -> tuple[Rule, ...]:
    """A rule for each line, which leads to one pool."""
    return tuple(
        Rule(name=f"r{number}", lines=(line,), tiers=(Tier(pools=(PoolRef(pool=name),)),))
        for number, (line, name) in enumerate(pools.items())
    )


def instance(number: int, name: str, zone: str, made: tuple[Rule, ...]) -> Put:
    """An instance of one access name."""
    told = Instance(id=f"gtm{number:08d}", zone=zone, access_names=(name,), ttl=TTL, rules=made)
    return Put(keys.config("instances", f"i{number}"), codec.encode(told))


def small() -> Iterator[Put]:
    """The small world: static names, one name by weight, one by place, weight and health."""
    rows = [("www", world.static_address(0))]
    rows += [(f"n{n:05d}", world.static_address(n)) for n in range(world.NAMES)]
    yield from zone(world.PLAIN, rows)
    for name in (world.WEIGHTED, world.GEO):
        yield from zone(name, [])
    addresses, weights = world.three()
    yield pool("three", addresses, weights)
    for place in PLACES:
        yield pool(place, world.place_addresses(place), world.PLACE_WEIGHTS, world.DOWN)
    yield instance(1, f"www.{world.WEIGHTED}", world.WEIGHTED, rules({"default": "three"}))
    yield instance(2, f"www.{world.GEO}", world.GEO, rules(LINES))


def large() -> Iterator[Put]:
    """The large world: 990,000 static names, 10,000 instances over 1,000 sets of rules."""
    steered = [n for n in range(world.ALL_NAMES) if world.rule_set(n) is not None]
    others = (n for n in range(world.ALL_NAMES) if world.rule_set(n) is None)
    yield from zone(world.MILLION, [(f"n{n:06d}", world.static_address(n)) for n in others])
    made = []
    for number in range(world.RULE_SETS):
        pools = {}
        for country in (*world.triple(number), world.ELSEWHERE):
            name = f"s{number}-{country.lower()}"
            yield pool(name, world.set_addresses(number, country), world.SET_WEIGHTS)
            pools["default" if country == world.ELSEWHERE else f"country:{country}"] = name
        made.append(rules(pools))
    for number in steered:
        name = world.million_name(number)
        yield instance(number, name, world.MILLION, made[world.rule_set(number) or 0])


def batched(ops: Iterator[Put]) -> Iterator[list[Put]]:
    """So many at once as a transaction of etcd surely holds."""
    while some := list(itertools.islice(ops, OPS)):
        yield some


def rss_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def main(
    kind: str, port: int, http_port: int, geo: str, address: str = "127.0.0.1", interface: str = ""
) -> None:
    """Serve a world until killed; prints the CPU seconds and the memory that the store took."""
    store = MemoryStore()
    for ops in batched(large() if kind == "large" else small()):
        await store.txn((), ops)
    gc.collect()
    print(f"store {time.process_time():.3f} {rss_bytes()}", flush=True)
    settings = Settings(
        id="bench",
        listen=(f"{address}:{port}",),
        xdp=interface,
        http=f"127.0.0.1:{http_port}",
        data_dir="",
        coordinators=(),
        geo=(geo,),
        not_ready=Duration(600_000),
    )
    await serve(settings, store, asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
