"""Two coordinators as processes of their own: who leads, who may write, what clients see of it.

Every fault stands under a steady load of queries whose every answer must be right.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ctl.digs import poll
from ctl.origins import Origins
from gtm.embedded import find_etcd
from gtm.errors import StartError
from tests import faults
from tests.coordinators import IDS, RESOLVERS, World, heard, other_of
from tests.faults import NEAR, REGIONS, SOON_S, A, B, now, picture
from tests.load import Load

pytestmark = pytest.mark.integration

RATE = 150.0
LEASE_S = 5.0
USUAL = picture()
FENCED = 'gtm_coordinator_publish_failures_total{cause="fenced"}'


@pytest.fixture(scope="module")
def origins() -> Iterator[Origins]:
    with Origins((*A, *B)) as origins:
        yield origins


@pytest.fixture(scope="module")
def made(origins: Origins, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    try:
        find_etcd()
    except StartError as error:
        pytest.skip(str(error))
    with World(tmp_path_factory.mktemp("world"), origins) as world:
        yield world


@pytest.fixture
def world(made: World, origins: Origins) -> Iterator[World]:
    """The world, whole before a test, and mended after it."""
    origins.start(*A, *B)
    made.mend()
    shown = picture()
    with Load(made.dns, shown, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
    assert load.counts().wrong == 0, load.told
    yield made
    made.relay.flow()


def follows(world: World, load: Load, one: str) -> float:
    """Stop an origin and start it again; the longer of the times until the answers follow."""
    took = []
    for down, change in (((one,), world.origins.stop), ((), world.origins.start)):
        load.turning(picture(*down))
        change(one)
        seconds = load.arrives(SOON_S)
        assert seconds is not None, load.told
        took.append(seconds)
    return max(took)


def told(server: str, *words: str) -> Any:
    return json.loads(faults.gtm("--server", server, *words, "-o", "json"))


def _flat(value: Any, path: str = "") -> list[str]:
    """Every leaf of `value` with its path."""
    if isinstance(value, dict):
        return [text for name, one in value.items() for text in _flat(one, f"{path}.{name}")]
    if isinstance(value, list):
        return [text for at, one in enumerate(value) for text in _flat(one, f"{path}[{at}]")]
    return [f"{path}: {value}"]


def without(value: Any, *names: str) -> Any:
    """`value` without what differs from moment to moment."""
    if isinstance(value, dict):
        return {name: without(one, *names) for name, one in value.items() if name not in names}
    return [without(one, *names) for one in value] if isinstance(value, list) else value


# ---- while all is well ---------------------------------------------------------------------------


def test_a_follower_answers_operators_as_the_leader_does_and_says_who_leads(world: World) -> None:
    leader = world.leader()
    doors = [world.doors[id_] for id_ in (leader, other_of(leader))]

    def same(names: tuple[str, ...], *words: str) -> None:
        answers: list[Any] = []

        def agree() -> bool:
            answers[:] = [without(told(door, *words), *names) for door in doors]
            return bool(answers[0] == answers[1])

        assert poll(agree, SOON_S) is not None, [
            (one, other) for one, other in zip(*map(_flat, answers), strict=False) if one != other
        ]

    live = ("age_s", "heard_s", "rtt_us", "streak", "queries", "phases")
    same((*live, "since"), "health")
    same(("since", *live), "explain", NEAR.partition(" ")[0], "--client", "192.0.2.1")
    same((*live, "since", "coordinator", "results", "store", "snapshot_age_s"), "status")
    for door in doors:
        status = told(door, "status")
        assert status["leader"] == leader
        assert {one["id"]: one["leader"] for one in status["coordinators"]} == {
            id_: id_ == leader for id_ in IDS
        }


def test_an_operator_is_obeyed_at_a_follower(world: World) -> None:
    follower = world.doors[other_of(world.leader())]
    with Load(world.dns, USUAL, RATE) as load:
        load.turning(picture(A[0]))
        faults.gtm("--server", follower, "force", f"a/{A[0]}", "down", "--why", "a try", "--keep")
        assert load.arrives(SOON_S) is not None, load.told
        load.turning(USUAL)
        faults.gtm("--server", follower, "release", f"a/{A[0]}")
        assert load.arrives(SOON_S) is not None, load.told
    assert load.counts().wrong == 0, load.told
    faults.gtm("--server", follower, "apply", "--yes", str(world.folder / "world.yaml"))


# ---- the leader goes -----------------------------------------------------------------------------


def test_a_leader_that_is_told_to_stop_hands_over_at_once(world: World) -> None:
    leader = world.leader()
    other = other_of(leader)
    with Load(world.dns, USUAL, RATE) as load:
        said = len(world.parts.log(other))
        began = now()
        world.parts.kill(leader, signal.SIGTERM)
        took = poll(lambda: bool(world.said(other, "took over", said)), SOON_S, 0.01)
        assert took is not None
        assert now() - began < 2.5  # of which the old one takes up to a second to end
        follows(world, load, A[0])
    assert load.counts().wrong == 0, load.told
    assert world.said(other, "took over", said)[0]["differing"] == 0


@pytest.mark.parametrize("leader", IDS)
def test_a_killed_leader_is_followed_within_its_lease_and_no_answer_is_wrong(
    world: World, leader: str
) -> None:
    world.lead(leader)
    with Load(world.dns, USUAL, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
        load.turning(picture(A[1]))
        began = now()
        world.parts.kill(leader)
        server = world.doors[other_of(leader)]
        faults.gtm("--server", server, "force", f"a/{A[1]}", "down", "--why", "a try", "--keep")
        assert load.arrives(SOON_S) is not None, load.told
        assert now() - began < LEASE_S + 1.0
        load.turning(USUAL)
        faults.gtm("--server", server, "release", f"a/{A[1]}")
        assert load.arrives(SOON_S) is not None, load.told
        follows(world, load, A[0])
    assert load.counts().wrong == 0, load.told


def test_a_leader_that_stood_still_finds_another_one_and_writes_nothing(
    world: World,
) -> None:
    leader = world.leader()
    other = other_of(leader)
    with Load(world.dns, USUAL, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
        # Stopped while it is about to judge: two of three origins' probes fail meanwhile.
        load.turning(picture(A[0]))
        world.parts.pause(leader)
        began = now()
        world.origins.stop(A[0])
        assert load.arrives(SOON_S) is not None, load.told
        assert now() - began < LEASE_S + 1.0
        load.turning(USUAL)
        world.origins.start(A[0])
        assert load.arrives(SOON_S) is not None, load.told
        wrote = world.said(other, "leading")
        world.parts.resume(leader)
        assert poll(lambda: world.leader(leader) == other, SOON_S) is not None
        assert poll(lambda: heard(faults.status(world.doors[leader])), SOON_S) is not None
        assert world.said(other, "leading") == wrote  # nobody took it from the new one
        assert world.metric(leader, "gtm_coordinator_leader") == 0
        follows(world, load, A[0])
    assert load.counts().wrong == 0, load.told


def test_a_leader_cut_off_from_etcd_stops_before_another_leads_and_its_late_write_is_refused(
    world: World,
) -> None:
    world.lead("c1")
    said = {id_: len(world.parts.log(id_)) for id_ in IDS}
    with Load(world.dns, USUAL, RATE) as load:
        assert poll(lambda: load.counts().answered > 50, SOON_S) is not None
        fenced = world.metric("c1", FENCED)
        load.turning(picture(A[0]))
        world.relay.hold()
        world.origins.stop(A[0])
        # c1 hears every agent, judges the origin down and writes that: the relay keeps it back.
        assert poll(lambda: down(world, "c1", A[0]), SOON_S) is not None
        assert load.arrives(SOON_S) is not None, load.told
        world.relay.flow()  # what c1 wrote as leader arrives at etcd now
        assert poll(lambda: world.metric("c1", FENCED) == fenced + 1, SOON_S) is not None
        assert world.leader("c2") == "c2"
        ended = world.said("c1", "leading no more", said["c1"])
        began = world.said("c2", "leading", said["c2"])
        assert ended
        assert began
        assert str(ended[0]["time"]) < str(began[0]["time"])
        load.turning(USUAL)
        world.origins.start(A[0])
        assert load.arrives(SOON_S) is not None, load.told
        assert poll(lambda: world.leader("c1") == "c2", SOON_S) is not None
        assert poll(world.whole, SOON_S, 0.1) is not None
        follows(world, load, A[1])
    assert load.counts().wrong == 0, load.told


def down(world: World, asked: str, address: str) -> bool:
    return all(
        faults.votes(world.doors[asked], region).get(address) == "down" for region in REGIONS
    )


# ---- one joins -----------------------------------------------------------------------------------


def test_one_that_joins_is_found_by_all_and_one_that_leaves_is_forgotten(world: World) -> None:
    """Agents and resolvers that know of c1 alone hear of c2 while their streams stand."""
    world.lead("c1")
    world.parts.kill("c2", signal.SIGTERM)
    restart(world, "agent-r1", lambda: one_door(world))
    assert poll(lambda: streams(world) == (1, 1), SOON_S) is not None
    world.start("c2")
    assert poll(lambda: streams(world) == (2, 2), SOON_S) is not None
    assert poll(world.whole, SOON_S) is not None
    world.parts.kill("c2", signal.SIGTERM)
    assert poll(lambda: streams(world) == (1, 1), SOON_S) is not None
    world.start("c2")
    world.parts.kill("agent-r1", signal.SIGTERM)


def one_door(world: World) -> None:
    world.parts.start(
        "agent-r1", "agent", "--id=agent-r1", "--region=r1",
        f"--http={world.ports.agent(0)}", f"--coordinators={world.doors['c1']}", wait=False,
    )  # fmt: skip


def restart(world: World, name: str, start: Callable[[], None]) -> None:
    world.parts.kill(name, signal.SIGTERM)
    start()


def streams(world: World) -> tuple[float, float]:
    """How many coordinators the first agent knows and streams to."""
    names = ("gtm_agent_coordinators", "gtm_agent_streams")
    known, open_ = (faults.metric(world.ports.agent(0), name) for name in names)
    return known, open_


def test_one_that_joins_leads_when_every_agent_has_told_it_where_it_stands(world: World) -> None:
    world.lead("c2")
    with Load(world.dns, USUAL, RATE) as load:
        world.parts.kill("c1")
        said = len(world.parts.log("c1"))
        world.start("c1", wait=False)
        assert poll(lambda: bool(world.said("c1", "caught up", said)), SOON_S) is not None
        caught = world.said("c1", "caught up", said)[0]
        assert (caught["agents"], caught["without"]) == (len(REGIONS), "none")
        world.parts.kill("c2", signal.SIGTERM)
        assert poll(lambda: bool(world.said("c1", "took over", said)), SOON_S) is not None
        assert world.said("c1", "took over", said)[0]["differing"] == 0
        follows(world, load, A[2])
    assert load.counts().wrong == 0, load.told


def test_one_that_joins_waits_for_a_silent_agent_no_longer_than_it_is_told(world: World) -> None:
    world.lead("c2")
    world.parts.kill("c1")
    said = len(world.parts.log("c1"))
    with Load(world.dns, USUAL, RATE) as load:
        world.parts.pause("agent-r3")
        world.start("c1", "--catch-up=4s")  # the others are back after 3 s at most
        world.parts.kill("c2", signal.SIGTERM)
        assert poll(lambda: bool(world.said("c1", "took over", said)), SOON_S) is not None
        caught = world.said("c1", "caught up", said)[0]
        assert caught["without"] == "r3/agent-r3"
        assert 4.0 <= float(str(caught["took_s"])) < 5.5
        follows(world, load, B[0])  # by the other two
    assert load.counts().wrong == 0, load.told


def test_the_resolvers_report_to_both(world: World) -> None:
    for door in world.doors.values():
        status = faults.status(door)
        assert status is not None
        assert {one.id for one in status.replicas} == set(RESOLVERS)
