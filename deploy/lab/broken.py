"""Scripts of the walk: what happens when the network between parts is cut, lossy or slow.

Each breaks some links, lets an origin die and return meanwhile where somebody can judge it, and
checks what docs/failures.md says; the ground mends afterwards.
"""

from __future__ import annotations

from . import asking
from .gone import TAKEOVER_S
from .ground import Ground, named
from .world import GRACE_S


def region_cut_from_coordinators(on: Ground) -> None:
    """The others decide; on its return its old results change nothing."""
    on.lab.cut("r1", "coordinators")
    on.until(lambda: on.lapsed("r1"), "the votes of r1 lapse")
    on.follows("a1")
    on.follows()
    on.follows("b1")
    kept = on.metric("gtm_agent_buffered_results", "agent-r1")
    on.note(f"{kept:.0f} results kept")
    on.lab.heal()
    on.until(lambda: on.vote("r1", "b1") == "down", "r1 sees what is so")
    on.stands(GRACE_S)
    on.follows()


def region_cut_from_origins(on: Ground) -> None:
    """It sees everything fail, is alone with that, and is set aside."""
    on.lab.cut("r1", "origins")
    on.until(lambda: on.lapsed("r1"), "r1 is set aside")
    on.stands(GRACE_S)
    on.follows("a1")
    on.follows()


def region_cut_from_everything(on: Ground) -> None:
    """It has no vote; the others decide."""
    on.lab.cut("r1", "all")
    on.until(lambda: on.lapsed("r1"), "the votes of r1 lapse")
    on.follows("a1")
    on.follows()


def region_heard_but_not_answered(on: Ground) -> None:
    """Its packets arrive and none comes back: as good as cut off, whatever it is held to be."""
    on.lab.cut("coordinators", "r1", one_way=True)
    on.stands(GRACE_S)
    on.follows("a1")
    on.follows()
    on.lab.heal()
    on.until(lambda: asking.whole(on.lab), "r1 is heard again")


def leader_cut_from_etcd(on: Ground) -> None:
    """It stops leading before another one begins."""
    leader = on.leader()
    on.lab.cut(leader, "etcds")
    found = ""

    def another() -> bool:
        nonlocal found
        for one in on.lab.chosen("coordinators"):
            if one.name != leader and on.leads(one.name):
                # Asked after it: who still says so now leads beside the other.
                on.check(not on.leads(leader), f"{leader} and {one.name} lead")
                found = one.name
        return bool(found)

    took_s = on.until(another, "another one leads", 0.05)
    on.note(f"{found} led after {took_s:.1f} s")
    on.follows("a1")
    on.lab.heal()
    on.follows()


def coordinators_cut_from_etcd(on: Ground) -> None:
    """Nobody leads; all judge on, and what differs is published afterwards."""
    on.lab.cut("coordinators", "etcds")
    on.unseen("a1")
    on.stands(TAKEOVER_S)
    on.check(not any(map(on.leads, on.running("coordinators"))), "one leads without etcd")
    on.appears(on.lab.heal)
    on.follows()


def leader_cut_from_agents(on: Ground) -> None:
    """It leads on without votes: pending, and what is published stands."""
    leader = on.leader()
    on.lab.cut(leader, "agents")
    on.until(
        lambda: all(on.lapsed(f"r{n}") for n in range(1, on.shape.regions + 1)),
        "every vote lapses",
    )
    on.unseen("a1")
    on.stands(GRACE_S)
    on.appears(on.lab.heal)
    on.follows()


def coordinator_cut_from_everything(on: Ground) -> None:
    """As if it had been killed, until it is back with old knowledge."""
    leader = on.leader()
    on.lab.cut(leader, "all")
    on.follows("a1")
    on.note(f"{on.leader(but=leader)} leads")
    on.lab.heal()
    on.until(lambda: asking.whole(on.lab), "it is brought up to date")
    on.follows()


def resolver_cut_from_etcd(on: Ground) -> None:
    """It answers from its last table; its replica follows."""
    on.lab.cut("resolver-1", "etcds")
    on.follows("a1", within=["resolver-2"])
    on.stands(GRACE_S)
    on.appears(on.lab.heal)
    on.follows()


def resolver_starts_cut_from_etcd(on: Ground) -> None:
    """It answers from its snapshot."""
    on.hurts("resolver-1")
    on.lab.cut("resolver-1", "etcds")
    on.kill("resolver-1")
    on.follows("a1", within=["resolver-2"])
    on.start("resolver-1")
    began = on.load.heard(on.dns["resolver-1"])
    on.until(lambda: on.load.heard(on.dns["resolver-1"]) > began, "it answers", 0.02)
    on.stands(1.0)
    on.appears(on.lab.heal)
    on.follows()


def etcd_member_cut(on: Ground) -> None:
    """Its leader is cut off from everybody: the other two go on."""
    member = on.etcd_leader()
    on.lab.cut(member, "all")
    on.follows("a1")
    on.lab.heal()
    on.follows()


def etcd_leader_cut_from_its_peers(on: Ground) -> None:
    """Clients still reach it, and hear no answer from it: they go elsewhere."""
    member = on.etcd_leader()
    on.lab.cut(member, "etcds")
    on.follows("a1")
    on.follows()
    on.lab.heal()
    on.follows("b1")
    on.follows()


def etcd_cut_in_three(on: Ground) -> None:
    """No quorum: answers stand, what was judged is published afterwards."""
    on.lab.cut("etcds", "etcds")
    on.unseen("a1")
    on.stands(TAKEOVER_S)
    on.appears(on.lab.heal)
    on.follows()


def partition_through_the_middle(on: Ground) -> None:
    """The side with the quorum goes on; the other answers what it had."""
    left = "etcd-1,coordinator-1,agent-r1,resolver-1"
    names = [node.name for node in on.lab.nodes if node.kind not in ("origin", "client")]
    right = ",".join(name for name in names if name not in left.split(","))
    on.lab.cut(left, right)
    on.follows("a1", within=["resolver-2"])
    on.check(not on.leads("coordinator-1"), "coordinator-1 leads without a quorum")
    on.stands(GRACE_S)
    on.appears(on.lab.heal)
    on.follows()


def loss_between_parts(on: Ground) -> None:
    """A fifth of all packets between parts is lost: everything goes on, more slowly."""
    parts = "agents,coordinators,etcds,resolvers"
    on.lab.loss(parts, parts, 20)
    on.follows("a1")
    on.follows()
    on.follows("b1")
    on.lab.heal()
    on.follows()


def loss_before_a_region(on: Ground) -> None:
    """One region loses a third of its probes' packets: it wavers, and is alone with that."""
    on.lab.loss("r1", "origins", 33)
    on.stands(15.0)
    on.follows("a1")
    on.follows()


def delay_between_parts(on: Ground) -> None:
    """A round trip of 300 ms between parts: everything goes on."""
    parts = "agents,coordinators,resolvers,etcds"
    on.lab.delay(parts, parts, 150)
    on.follows("a1")
    on.follows()


def delay_before_a_region(on: Ground) -> None:
    """Origins are too far for the timeout in one region: it sees them fail, and is alone."""
    on.lab.delay("r1", "origins", 400)
    on.until(lambda: on.vote("r1", "a1") != "up", "r1 sees them fail")
    on.stands(GRACE_S)
    on.follows("a1")
    on.follows()


SCRIPTS = named(
    region_cut_from_coordinators,
    region_cut_from_origins,
    region_cut_from_everything,
    region_heard_but_not_answered,
    leader_cut_from_etcd,
    coordinators_cut_from_etcd,
    leader_cut_from_agents,
    coordinator_cut_from_everything,
    resolver_cut_from_etcd,
    resolver_starts_cut_from_etcd,
    etcd_member_cut,
    etcd_leader_cut_from_its_peers,
    etcd_cut_in_three,
    partition_through_the_middle,
    loss_between_parts,
    loss_before_a_region,
    delay_between_parts,
    delay_before_a_region,
)
