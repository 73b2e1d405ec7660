"""Scripts of the walk: what happens when a program ends, hangs, or comes back.

Each breaks one thing, lets an origin die and return meanwhile where somebody can judge it, and
checks what docs/failures.md says; the ground mends afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from datetime import datetime

from ctl.digs import Question, ask
from gtm.errors import StartError, StoreError
from gtm.etcd import EtcdStore, connect
from gtm.store import Delete, Put
from tests.load import Load

from . import asking, trust, world
from .ground import RATE, Ground, named
from .world import GRACE_S

LEASE_S = 5.0
"""The lease of a leader."""
TAKEOVER_S = LEASE_S + 1.0
"""From a leader's end to the next one's first publication."""
PIECES, PIECE = 40, bytes(1 << 20)
GIVING_UP = 60
"""Tries, half a second apart: an election where the member that ended had led."""


def resolver_killed(on: Ground) -> None:
    """Its replica answers."""
    on.hurts("resolver-1")
    on.kill("resolver-1")
    on.follows("a1", within=["resolver-2"])
    on.start("resolver-1")
    on.appears(lambda: None)
    on.follows()


def leader_killed(on: Ground) -> None:
    """Another coordinator leads once the lease is over, and publishes what was judged."""
    leader = on.leader()
    on.kill(leader)
    on.follows("a1")
    on.note(f"{on.leader(but=leader)} leads")
    on.follows()


def leader_hangs(on: Ground) -> None:
    """Another one leads; what wakes up again later writes nothing."""
    leader = on.leader()
    on.stop(leader)
    on.follows("a1")
    other = on.leader(but=leader)
    on.cont(leader)
    on.until(lambda: not on.leads(leader), "the old leader gives up")
    on.check(on.leads(other), f"{other} leads no more")
    on.follows()


def follower_killed(on: Ground) -> None:
    """Nobody notices; once it is back it has every vote, and can lead at once."""
    leader = on.leader()
    joiner, *others = (
        one.name for one in on.lab.chosen("coordinators") if one.name != leader
    )  # fmt: skip
    on.kill(joiner)
    on.follows("a1")
    on.kill(*others)
    on.start(joiner)
    on.kill(leader)
    on.check(on.leader() == joiner, "another one leads")
    on.note(f"{joiner} came back and leads")
    on.stands(2.0)
    on.follows()


def coordinators_killed(on: Ground) -> None:
    """Answers stand; who dies is noticed once one runs again."""
    on.kill("coordinators")
    on.unseen("a1")
    on.stands(TAKEOVER_S)
    on.appears(lambda: on.start("coordinators"))
    on.follows()


def agent_killed(on: Ground) -> None:
    """The other regions decide."""
    on.kill("agent-r1")
    on.until(lambda: on.lapsed("r1"), "the votes of r1 lapse")
    on.follows("a1")
    on.start("agent-r1")
    on.until(lambda: asking.whole(on.lab), "r1 votes again")
    on.follows()


def agent_hangs(on: Ground) -> None:
    """What it says when it wakes up is old and changes nothing."""
    on.stop("agent-r1")
    on.until(lambda: on.lapsed("r1"), "the votes of r1 lapse")
    on.follows("a1")
    on.follows()
    on.follows("b1")
    on.cont("agent-r1")
    on.until(lambda: on.vote("r1", "b1") == "down", "r1 sees what is so")
    on.stands(GRACE_S)
    on.follows()


def too_few_regions(on: Ground) -> None:
    """One of three regions is no majority: the published state stands, and is called pending."""
    on.kill("agent-r1", "agent-r2")
    on.until(lambda: on.lapsed("r1") and on.lapsed("r2"), "the votes of two regions lapse")
    on.unseen("a1")
    on.until(lambda: on.vote("r3", "a1") == "down", "the last region sees it")
    on.stands(GRACE_S)
    on.appears(lambda: on.start("agents"))
    on.follows()


def etcd_member_killed(on: Ground) -> None:
    """The other two elect a leader."""
    member = on.etcd_leader()
    on.kill(member)
    on.follows("a1")
    on.start(member)
    on.follows()


def etcd_leader_hangs(on: Ground) -> None:
    """The same, after what hung at it has been given up."""
    member = on.etcd_leader()
    on.stop(member)
    on.follows("a1")
    on.cont(member)
    on.follows()


def etcd_killed(on: Ground) -> None:
    """The same without any member."""
    on.kill("etcds")
    on.unseen("a1")
    on.stands(TAKEOVER_S)
    on.appears(lambda: on.start("etcds"))
    on.follows()


def etcd_quorum_killed(on: Ground) -> None:
    """Answers stand; what was judged meanwhile is published on its return."""
    on.kill("etcd-1", "etcd-2")
    on.unseen("a1")
    on.stands(TAKEOVER_S)
    on.appears(lambda: on.start("etcd-1", "etcd-2"))
    on.follows()


def all_but_resolvers_killed(on: Ground) -> None:
    """Answers need nobody but the resolver that gives them."""
    on.kill("coordinators", "etcds", "agents")
    on.unseen("a1")
    on.stands(TAKEOVER_S)

    def again() -> None:
        on.start("etcds")
        on.until(lambda: asking.etcd_answers(on.lab), "etcd is there again")
        on.start("coordinators", "agents")

    on.appears(again)
    on.follows()


def pool_dies(on: Ground) -> None:
    """The next tier answers; with nobody left, the addresses of the first pool."""
    on.follows("a1", "a2", "a3")
    on.follows("a1", "a2", "a3", "b1")
    on.follows("a1", "a2", "a3", "b1", "b2")
    on.follows("a1", "a2", "a3", "b1")
    on.follows("a1", "a2")
    on.follows()


def origin_hangs(on: Ground) -> None:
    """An origin that takes connections and never answers is as dead as one that is not there."""
    on.load.turning(on.picture("a1"))
    on.stop("a1")
    on.check(on.load.arrives(20.0) is not None, "it stays in the answers")
    on.load.turning(on.picture())
    on.cont("a1")
    on.check(on.load.arrives(20.0) is not None, "it does not come back")


def disk_of_a_resolver_full(on: Ground) -> None:
    """It answers from etcd, started on the full disk too."""
    on.lab.fill(on.lab.node("resolver-1"))
    on.follows("a1")
    on.until(lambda: "cannot be written" in on.lab.log("resolver-1"), "the log tells")
    on.hurts("resolver-1")
    on.kill("resolver-1")
    on.start("resolver-1")
    on.until(lambda: asking.whole(on.lab), "it serves again")
    on.lab.empty(on.lab.node("resolver-1"))
    on.follows()


def disk_of_etcd_full(on: Ground) -> None:
    """The member ends; it is started again once there is room."""
    member = on.etcd_leader()
    on.lab.fill(on.lab.node(member))
    asyncio.run(_write_until_it_ends(on, member))
    on.follows("a1")
    on.follows()
    on.lab.empty(on.lab.node(member))
    on.start(member)
    on.follows("b1")
    on.follows()


def snapshot_corrupt(on: Ground) -> None:
    """It is not needed while etcd is there."""
    on.hurts("resolver-1")
    on.kill("resolver-1")
    _spoil_snapshot(on)
    on.start("resolver-1")
    on.until(lambda: asking.whole(on.lab), "it serves again")
    on.follows("a1")
    on.follows()


def snapshot_missing_without_etcd(on: Ground) -> None:
    """SERVFAIL, never NXDOMAIN and never an empty answer."""
    on.hurts("resolver-1")
    on.kill("resolver-1")
    on.lab.cut("resolver-1", "etcds")
    _spoil_snapshot(on)
    other, name = on.dns["resolver-2"], world.NEAR.partition(" ")[0]

    def answer() -> str:
        return ask(on.dns["resolver-1"], Question(name)).rcode

    with Load([other], on.picture(), RATE) as unhurt:
        on.load.turning(dict.fromkeys(on.picture(), "SERVFAIL"), on.picture())
        on.start("resolver-1")
        on.until(lambda: answer() == "SERVFAIL", "it says that it is not ready")
        on.stands(GRACE_S)
        on.check(answer() == "SERVFAIL", "it answers something else without a table")
        on.lab.heal()
        on.until(lambda: answer() == "NOERROR", "it becomes ready")
    on.check(unhurt.counts().wrong == 0, "the other resolver answers wrongly")


def clocks_jump(on: Ground) -> None:
    """Nothing is judged by the time of day: no verdict changes."""
    parts = ("coordinators", "agents")
    for name in [node.name for part in parts for node in on.lab.chosen(part)]:
        on.kill(name)
        on.start(name, clock=True)
        on.until(lambda: asking.whole(on.lab), f"{name} is back")
    for jump_s in (3600, -3600, 0):
        for part in parts:
            for node in on.lab.chosen(part):
                on.lab.turn(node, jump_s)
                on.stands(0.5)
        on.stands(GRACE_S)
        on.follows("a1")
        on.follows()
        for name in on.running("coordinators"):
            off_s = _last_time_s(on.lab.log(name)) - time.time()
            on.check(abs(off_s - jump_s) < 60.0, f"the clock of {name} is off by {off_s:.0f} s")
    on.kill(*parts)
    on.start(*parts)


def _spoil_snapshot(on: Ground) -> None:
    path = on.lab.folder / "resolver-1/data/resolver-1.snapshot"
    on.until(path.exists, "there is a snapshot")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _last_time_s(log: str) -> float:
    """The time of day in the last line that bears one."""
    lines = [line for line in log.splitlines() if line.startswith('{"time"')]
    return datetime.fromisoformat(json.loads(lines[-1])["time"]).timestamp()


async def _write_until_it_ends(on: Ground, member: str) -> None:
    """Write more than it has reserved on its disk; the history of it is given up at once."""
    others = tuple(one for one in on.lab.chosen("etcds") if one.name != member)
    store = connect(trust.etcd_options(on.lab.folder, others))
    try:
        for number in range(PIECES):
            if not on.lab.pid(member):
                on.note(f"{member} ended with the write of {number} MB")
                break
            with contextlib.suppress(StoreError):  # the member that ends may be the leader
                await store.txn((), [Put("/lab/much", PIECE)])
        on.check(not on.lab.pid(member), f"{member} runs on without room")
        await _give_up(store)
    finally:
        await store.close()


async def _give_up(store: EtcdStore) -> None:
    """End the history of what was written, once the members that are left have a leader again."""
    for _ in range(GIVING_UP):
        with contextlib.suppress(StoreError):
            await store.compact((await store.txn((), [Delete("/lab/much")])).revision)
            return
        await asyncio.sleep(0.5)
    raise StartError("the members that are left do not take a write")


SCRIPTS = named(
    resolver_killed,
    leader_killed,
    leader_hangs,
    follower_killed,
    coordinators_killed,
    agent_killed,
    agent_hangs,
    too_few_regions,
    etcd_member_killed,
    etcd_leader_hangs,
    etcd_killed,
    etcd_quorum_killed,
    all_but_resolvers_killed,
    pool_dies,
    origin_hangs,
    disk_of_a_resolver_full,
    disk_of_etcd_full,
    snapshot_corrupt,
    snapshot_missing_without_etcd,
    clocks_jump,
)
