"""What a lab is made of, and what its router is told: texts and rows, no namespace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from deploy.lab import network, world
from deploy.lab.__main__ import main
from deploy.lab.network import Faults, milliseconds, pairs, percent, ruleset
from deploy.lab.nodes import MAX_OF_A_KIND, Shape, chosen, lab_name, nodes
from deploy.lab.relay import MAX_HELD, Held, delays
from gtm.errors import StartError

ALL = nodes(Shape(), Path("/lab"))
AB = frozenset({("10.77.1.1", "10.77.2.1")})


def names(text: str) -> str:
    return " ".join(one.name for one in chosen(ALL, text))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("coordinator-2", "coordinator-2"),
        ("etcds", "etcd-1 etcd-2 etcd-3"),
        ("a", "a1 a2 a3"),
        ("r2,origins", "agent-r2 a1 a2 a3 b1 b2"),
        ("a1,a,a1", "a1 a2 a3"),
        ("all", " ".join(one.name for one in ALL)),
    ],
)
def test_nodes_are_named_alone_by_groups_and_together(text: str, found: str) -> None:
    assert names(text) == found


@pytest.mark.parametrize("text", ["", "nobody", "a1,", "r4"])
def test_an_unknown_node_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(StartError, match=r"there are client, a1, .* and the groups a, agents"):
        chosen(ALL, text)


def test_every_node_has_an_address_and_an_interface_name_of_its_own() -> None:
    many = nodes(Shape(regions=5, agents=10, coordinators=MAX_OF_A_KIND), Path("/lab"))
    assert len({one.address for one in many}) == len({one.name for one in many}) == len(many)
    assert max(len(one.name) for one in many) <= 15  # IFNAMSIZ with its final zero is 16


@pytest.mark.parametrize("wrong", [Shape(regions=0), Shape(resolvers=MAX_OF_A_KIND + 1)])
def test_a_lab_has_at_least_one_and_not_too_many_of_a_kind(wrong: Shape) -> None:
    with pytest.raises(StartError, match="from 1 to 50"):
        nodes(wrong, Path("/lab"))


@pytest.mark.parametrize("text", ["", "../up", "two-three", "UPPER", "x" * 13])
def test_a_name_that_could_be_somebody_elses_namespace_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="can't name a lab"):
        lab_name(text)


def test_pairs_go_both_ways_unless_told_otherwise_and_nobody_is_cut_off_himself() -> None:
    assert pairs("ab", "bc") == {
        ("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")
    }  # fmt: skip
    assert pairs("a", "ab", one_way=True) == {("a", "b")}


def test_without_faults_the_router_drops_nothing() -> None:
    text = ruleset(Faults())
    assert text.startswith("flush ruleset\n")
    assert "drop" not in text
    assert "mark" not in text


def test_faults_are_told_to_the_router_pair_by_pair() -> None:
    back = frozenset({("10.77.2.1", "10.77.1.1")})
    faults = network.with_cut(Faults(), AB)
    faults = network.with_loss(faults, back, 20)
    faults = network.with_delay(faults, AB, 150)
    text = ruleset(faults)
    assert "ip saddr . ip daddr { 10.77.1.1 . 10.77.2.1 } counter drop" in text
    assert "{ 10.77.2.1 . 10.77.1.1 } numgen random mod 100 < 20 counter drop" in text
    assert 'iifname != "late" ip saddr . ip daddr { 10.77.1.1 . 10.77.2.1 } meta mark' in text
    assert network.without(faults, AB | back) == Faults()


def test_a_loss_of_everything_is_no_chance() -> None:
    assert "numgen" not in ruleset(network.with_loss(Faults(), AB, 100))


def test_a_loss_or_delay_of_nothing_ends_it() -> None:
    faults = network.with_delay(network.with_loss(Faults(), AB, 20), AB, 150)
    assert network.with_delay(network.with_loss(faults, AB, 0), AB, 0) == Faults()


@pytest.mark.parametrize(("text", "value"), [("0%", 0), ("20%", 20), ("100%", 100)])
def test_a_share_of_packets_is_read(text: str, value: int) -> None:
    assert percent(text) == value


@pytest.mark.parametrize("text", ["20", "101%", "-1%", "x%", ""])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="no share of packets"):
        percent(text)


@pytest.mark.parametrize(("text", "value"), [("200ms", 200), ("1s", 1000), ("60s", 60_000)])
def test_a_delay_is_read(text: str, value: int) -> None:
    assert milliseconds(text) == value


@pytest.mark.parametrize("text", ["200", "61s", "-1ms", "s", ""])
def test_what_is_no_delay_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="no delay"):
        milliseconds(text)


def test_packets_leave_the_relay_when_due_and_in_order_between_the_same_two() -> None:
    held = Held()
    assert held.wait_s(0.0) is None
    held.hold(b"slow", b"ab", 2.0)
    held.hold(b"other", b"cd", 1.5)
    held.hold(b"quick, but second", b"ab", 1.0)  # the delay was shortened meanwhile
    assert held.due(1.0) == []
    assert held.wait_s(1.0) == 0.5
    assert held.due(1.6) == [b"other"]
    assert held.due(2.0) == [b"slow", b"quick, but second"]
    assert held.due(9.0) == []


def test_a_relay_holds_so_many_packets_and_no_more() -> None:
    held = Held()
    for number in range(MAX_HELD + 5):
        held.hold(b"x", b"ab", number)
    assert len(held.due(1e9)) == MAX_HELD


def test_the_rows_of_delays_are_read_as_they_stand_in_packets(tmp_path: Path) -> None:
    path = tmp_path / "delays"
    path.write_text("10.77.1.1 10.77.2.1 150\n")
    assert delays(path) == {b"\x0a\x4d\x01\x01\x0a\x4d\x02\x01": 0.15}


def test_the_picture_of_the_world_knows_backups_and_the_last_resort() -> None:
    a, b = world.pools(Shape())
    right = world.picture(Shape(), *a)
    assert right[world.NEAR] == right[world.BACKED] == "NOERROR 10.77.6.1 10.77.6.2"
    nothing = world.picture(Shape(), *a, *b)
    assert nothing[world.NEAR] == "NOERROR 10.77.5.1 10.77.5.2 10.77.5.3"
    assert nothing[world.FAR] == "NOERROR 10.77.6.1 10.77.6.2"
    assert nothing[world.BACKED] == "NOERROR 10.77.7.1"


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_without_root_the_lab_says_so_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}")
    assert main([command]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lab: the lab needs root")
    assert said.count("\n") == 1


def test_without_its_programs_the_lab_names_their_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "nft" else name)
    assert main(["up"]) == 2
    assert capsys.readouterr().err == "lab: the lab needs `nft`: apt-get install nftables\n"
