"""The etcd client on three members whose links are cut one way, both ways, lossy and slow.

Writers write and a watch rebuilds what they write all the while. Whatever the network did: each
revision was told once, whole and in order, as etcdctl knows it; what was acknowledged was told, and
what was refused was not; a lease that its client holds for alive is alive. `make lab-torture`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gtm.errors import StartError
from gtm.etcd import EtcdOptions, EtcdStore, connect
from gtm.etcd_lease import EtcdLease
from gtm.etcd_watch import EtcdWatch
from gtm.store import Put
from tests.etcds import EtcdServer, ctl_environment
from tests.watched import Rebuilt, Writers, goes_on, soon, until

from . import asking, spaces
from .lab import Lab
from .nodes import CLIENT, ETCD, Node, Shape
from .within import enter

ROUNDS = 2
LEASE_S = 20.0
"""Longer than a cut lasts, an election and the silence until it is noticed included."""
QUICK: dict[str, Any] = {"timeout_s": 10.0, "progress_s": 0.3, "idle_s": 1.0, "audit_s": 0.0}
FEW = Shape(
    regions=1, agents=1, coordinators=1, resolvers=1, origins_a=1, origins_b=1, insecure=True
)
"""The nodes beside etcd, in which nothing runs."""


class Member(EtcdServer):
    """A member in the lab, for etcdctl to be asked."""

    def __init__(self, lab: Lab, node: Node) -> None:
        binary = Path((lab.folder / "etcd.path").read_text())
        super().__init__(binary, lab.folder / "ctl", port=ETCD)
        self.node = node
        self.endpoint = f"http://{node.address}:{ETCD}"


class Tortured:
    """A store's client with a watch, writers and a lease, in a lab that is about to be broken."""

    def __init__(self, lab: Lab, dice: random.Random) -> None:
        self.lab, self.dice = lab, dice
        self.members = [Member(lab, node) for node in lab.chosen("etcds")]
        self.stores: list[EtcdStore] = []
        self.told: Rebuilt
        self.writers: Writers
        self.watch: EtcdWatch
        self.lease: EtcdLease

    def opened(self, **options: Any) -> EtcdStore:
        """A store on all members; closed with everything else."""
        endpoints = tuple(one.endpoint for one in self.members)
        self.stores.append(connect(EtcdOptions(endpoints=endpoints, **QUICK | options)))
        return self.stores[-1]

    @property
    def followed(self) -> str:
        """The member that the watch hangs on."""
        at = self.watch._to
        [one] = [one for one in self.members if at is not None and one.endpoint == at.url]
        return one.node.name

    async def leader(self) -> str:
        """The member that leads."""
        found: list[str] = []

        def leads() -> bool:
            found[:] = [m.node.name for m in self.members if asking.leads_etcd(m.node.address)]
            return len(found) == 1

        async with asyncio.timeout(20.0):
            while not await asyncio.to_thread(leads):
                await asyncio.sleep(0.05)
        return found[0]

    async def goes_on(self) -> None:
        """Back when writes are acknowledged and told; the lease must be what its client holds."""
        await goes_on(self.told, self.writers)
        assert self.lease.remaining_s() > 0, "the lease is over"

    async def mended(self) -> None:
        """Mend, and wait until writes go on and every member is well."""
        self.lab.heal()
        await self.goes_on()
        async with asyncio.timeout(30.0):
            while not await asyncio.to_thread(asking.etcd_answers, self.lab):
                await asyncio.sleep(0.05)


async def watched_member_cut(on: Tortured) -> None:
    """The watch's member is cut off from the client, silently."""
    on.lab.cut(on.followed, CLIENT)
    await on.goes_on()


async def watched_member_is_not_heard(on: Tortured) -> None:
    """What the client sends arrives, and no answer comes back: outcomes are unknown."""
    on.lab.cut(on.followed, CLIENT, one_way=True)
    await on.goes_on()


async def watched_member_does_not_hear(on: Tortured) -> None:
    """Its events arrive, and nothing that the client sends."""
    on.lab.cut(CLIENT, on.followed, one_way=True)
    await on.goes_on()


async def leader_cut_from_its_peers(on: Tortured) -> None:
    """The client reaches a leader that leads no more."""
    on.lab.cut(await on.leader(), "etcds")
    await on.goes_on()


async def leader_cut_from_everybody(on: Tortured) -> None:
    """The other two elect another one."""
    on.lab.cut(await on.leader(), "all")
    await on.goes_on()


async def leader_heard_but_not_hearing(on: Tortured) -> None:
    """Its heartbeats arrive, and nothing comes back: it must not lead on."""
    on.lab.cut("etcds", await on.leader(), one_way=True)
    await on.goes_on()


async def ring_without_one_side(on: Tortured) -> None:
    """Two members do not hear each other, the third hears both."""
    first, second = on.dice.sample([one.node.name for one in on.members], 2)
    on.lab.cut(first, second)
    await on.goes_on()


async def no_quorum_for_a_while(on: Tortured) -> None:
    """Nobody hears anybody; writes are refused, or their outcome is unknown."""
    before = len(on.writers.refused) + on.writers.unknown
    on.lab.cut("etcds", "etcds")
    await until(lambda: len(on.writers.refused) + on.writers.unknown > before + 3)


async def client_cut_from_all(on: Tortured) -> None:
    """It hears nobody for longer than a watch is patient."""
    on.lab.cut(CLIENT, "etcds")
    began = time.monotonic()
    await until(lambda: on.watch.heard_s() > 1.5 and time.monotonic() - began > 1.5)


async def loss(on: Tortured) -> None:
    """A tenth of all packets is lost, between members too."""
    on.lab.loss("all", "all", 10)
    await on.goes_on()


async def delay(on: Tortured) -> None:
    """Each packet takes 100 ms."""
    on.lab.delay("all", "all", 100)
    await on.goes_on()


FAULTS: tuple[Callable[[Tortured], Any], ...] = (
    watched_member_cut,
    watched_member_is_not_heard,
    watched_member_does_not_hear,
    leader_cut_from_its_peers,
    leader_cut_from_everybody,
    leader_heard_but_not_hearing,
    ring_without_one_side,
    no_quorum_for_a_while,
    client_cut_from_all,
    loss,
    delay,
)


async def tortured(lab: Lab, seed: int, rounds: int, faults: int) -> None:
    """So many faults, drawn and in a drawn order, `rounds` times.

    Raises AssertionError or TimeoutError where anything is not as it should be.
    """
    on = Tortured(lab, random.Random(seed))
    try:
        reader = on.opened()
        on.lease = await reader.lease(LEASE_S)
        await reader.txn((), [Put("/leased", b"", on.lease.id)])
        watch = reader.watch("/w/")
        assert isinstance(watch, EtcdWatch)
        on.watch = watch
        async with Rebuilt(on.watch, "/w/") as on.told:
            async with Writers(on.opened(timeout_s=3.0)) as on.writers:
                for _ in range(rounds):
                    for fault in on.dice.sample(FAULTS, faults):
                        await on.goes_on()
                        began = time.monotonic()
                        await fault(on)
                        await on.mended()
                        print(f"{fault.__name__}: {time.monotonic() - began:.1f} s", flush=True)
            await on.told.equals(reader)
            on.writers.checked(on.told)
            on.told.told_all(on.members[0])
        assert on.lease.remaining_s() > 0, "the lease is over"
        assert await reader.get("/leased") is not None, "what hangs on the lease is gone"
        await compacted(on)
        writers = on.writers
        print(
            f"{len(on.told.batches)} revisions told, {len(writers.acknowledged)} acknowledged, "
            f"{len(writers.refused)} refused, {writers.unknown} of unknown outcome"
        )
    finally:
        lab.heal()
        for store in on.stores:
            await store.close()


async def compacted(on: Tortured) -> None:
    """While the watch has no stream others delete and compact: it is told the difference."""
    store = on.opened()
    for n in range(60):
        await store.txn((), [Put(f"/c/{n}", b"1")])
    watch = on.opened().watch("/c/")
    async with Rebuilt(watch, "/c/") as told:
        on.lab.cut(CLIENT, "etcds")
        # A stream that stood would be told everything after the mending: it must be given up.
        await until(lambda: watch.heard_s() > 3.0 * QUICK["idle_s"])
        for words in (("del", "/c/1", "/c/3"), ("put", "/c/0", "again")):
            revision = _ctl(on, *words)
        _ctl(on, "compact", revision)
        on.lab.heal()
        await told.until(lambda: told.relisted)
        gone = {event.key for event in told.relisted[-1].events if event.value is None}
        assert gone == {f"/c/{n}" for n in range(60) if "/c/1" <= f"/c/{n}" < "/c/3"}, gone
        await soon(told.equals(store))
    print("deletions compacted while cut off arrive as one batch")


def _ctl(on: Tortured, *words: str) -> str:
    """Run etcdctl in the namespace of a member; the revision after it."""
    member = on.members[0]
    for command in (words, ("get", "/none", "-w", "fields")):
        done = subprocess.run(
            on.lab.inside(*member.ctl_command(*command), node=member.node.name),
            env=ctl_environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return done.stdout.split('"Revision" : ')[1].split()[0]


def main(argv: Sequence[str]) -> int:
    """Torture; 0 where all held."""
    parser = argparse.ArgumentParser(prog="torture", description="Torture the etcd client.")
    parser.add_argument("--name", default="torture", help="which lab; made if it is not there")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--faults", type=int, default=len(FAULTS), help="in each round")
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args(argv)
    lab = Lab(args.name)
    try:
        spaces.check_rights()
        make = lambda: lab.up(FEW, parts=False)  # noqa: E731
        if (status := enter(lab, "deploy.lab.torture", argv, make)) is not None:
            return status
    except StartError as error:
        print(f"torture: {error}", file=sys.stderr)
        return error.status
    seed = secrets.randbelow(1 << 24) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    asyncio.run(tortured(lab, seed, args.rounds, args.faults))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
