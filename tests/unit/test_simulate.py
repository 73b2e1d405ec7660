"""Answers and load shares under a what-if."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from coordinator.events import TargetKey
from ctl.main import main
from ctl.simulate import Share, simulate
from ctl.validate import registered, review
from ctl.votes import Heard
from gtm.config import read_text
from gtm.model import Resources
from resolver.place import Unplaced

SET = """
zones: {gtm.test: {nameservers: [ns.example.org]}}
pools:
  eu:
    type: ipv4
    steering: weighted
    addresses: [{value: 192.0.2.1, weight: 3, capacity: 70}, {value: 192.0.2.2, capacity: 70}]
  us: {type: ipv4, addresses: [{value: 192.0.2.3}, {value: 192.0.2.4}]}
instances:
  shop:
    id: gtm00000001
    rules:
      - {name: eu, lines: [continent:EU], tiers: [{pools: [eu]}, {pools: [us]}]}
      - {name: world, lines: [default], tiers: [{pools: [us]}, {pools: [eu]}]}
"""


@pytest.fixture(scope="module")
def resources() -> Resources:
    judged = review(read_text(SET, registered()), registered())
    assert judged.resources is not None
    return judged.resources


def test_the_load_of_each_address_is_its_exact_share(resources: Resources) -> None:
    clients = [Share("country:DE", Fraction(3)), Share("default", Fraction(1))]
    outcome = simulate(resources, Unplaced(), clients=clients)
    assert outcome.load["shop"] == {
        "192.0.2.1": Fraction(9, 16),
        "192.0.2.2": Fraction(3, 16),
        "192.0.2.3": Fraction(1, 8),
        "192.0.2.4": Fraction(1, 8),
    }
    assert [row.answered.pools for row in outcome.rows] == [("eu",), ("us",)]


def test_what_is_down_moves_its_load_and_overloads_are_told(resources: Resources) -> None:
    fine = simulate(resources, Unplaced(), load=Fraction(100))
    assert fine.warnings == ()
    moved = simulate(resources, Unplaced(), down=["us"], load=Fraction(100))
    assert moved.load["shop"] == {"192.0.2.1": Fraction(3, 4), "192.0.2.2": Fraction(1, 4)}
    assert moved.warnings == ("eu/192.0.2.1 would carry 75, more than its capacity of 70",)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"down": ["mars"]}, "'mars' is no pool"),
        ({"down": ["eu/192.0.2.9"]}, "pool eu has no address '192.0.2.9'"),
        ({"instances": ["cart"]}, "there is no instance 'cart'"),
        ({"clients": [Share("default", Fraction(0))]}, "weigh nothing"),
        ({"clients": [Share("country:de")]}, "no ISO 3166-1 code"),
    ],
)
def test_what_is_unknown_is_refused(
    resources: Resources, asked: dict[str, list[object]], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        simulate(resources, Unplaced(), **asked)


def test_the_commands_simulate_and_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(SET + "expect:\n- {instance: shop, client: country:FR, gets: [us]}\n")
    assert main(["simulate", str(path), "--down", "us", "--load", "100"]) == 0
    out, err = capsys.readouterr()
    assert "192.0.2.1  75.00%" in out
    assert "would carry 75" in err
    assert main(["simulate", str(path), "--client", "country:FR=40%", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answers"][0]["pools"] == ["eu"]
    assert main(["simulate", str(path), "--client", "country:FR=x"]) == 2
    assert "no number" in capsys.readouterr().err
    assert main(["test", str(path)]) == 1
    out = capsys.readouterr().out
    assert "fails  shop A: country:FR gets us" in out
    line = 1 + path.read_text().partition("- {instance")[0].count("\n")
    assert f"{path}:{line}: it gets eu" in out
    assert main(["test", str(path), "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["holds"] is False
    path.write_text(SET)
    assert main(["test", str(path)]) == 2


CHECKED = (
    SET.replace("  eu:\n    type: ipv4", "  eu:\n    type: ipv4\n    checks: [web]")
    + """
checks: {web: {type: http, failing_share: 80%}}
"""
)
WEB = ("r1", "r2", "r3", "r4")


def votes(words: str) -> Heard:
    """Votes of r1, r2, ... as `udn-`: up, down, none; the verdict that they make stands."""
    named = {"u": "up", "d": "down", "n": "none"}
    cast = {region: named[word] for region, word in zip(WEB, words, strict=False)}
    return Heard("down" if words.count("d") * 10 >= len(words) * 8 else "up", cast)


def under(first: str, second: str, down: tuple[str, ...] = (), added: tuple[str, ...] = ()) -> Any:
    """(addresses answered in Europe, verdicts that turn) given the votes over both addresses."""
    judged = review(read_text(CHECKED, registered()), registered())
    assert judged.resources is not None, judged.problems
    known = {
        TargetKey("web", address, 80): votes(words)
        for address, words in (("192.0.2.1", first), ("192.0.2.2", second))
    }
    outcome = simulate(
        judged.resources,
        Unplaced(),
        down=[f"region:{name}" for name in down],
        added=[f"region:{name}" for name in added],
        known=known,
        clients=[Share("continent:EU")],
    )
    turns = [
        (turn.target.address[-1], turn.before, turn.after, turn.pending) for turn in outcome.turns
    ]
    return outcome.rows[0].answered.addresses, turns


def test_without_a_region_verdicts_are_judged_of_the_votes_that_are_left() -> None:
    both = ("192.0.2.1", "192.0.2.2")
    assert under("uuu", "ddd") == (("192.0.2.1",), [])
    assert under("uuu", "ddu") == (both, [])
    # who alone said up is silent: all that vote agree
    alone = under("uuu", "ddu", down=("r3",))
    assert alone == (("192.0.2.1",), [("2", "up", "down", False)])
    # one of three is no majority
    few = [("1", "up", "up", True), ("2", "up", "up", True)]
    assert under("uuu", "duu", down=("r2", "r3")) == (both, few)
    # and what was pending before is no news
    assert under("uuun", "dunn", down=("r2",))[1] == few[:1]


def test_a_region_more_counts_without_a_vote() -> None:
    assert under("uuu", "ddd", added=("r4",)) == (("192.0.2.1",), [])
    # two of three vote: a majority, but not of four
    assert under("uun", "uun", added=("r4",))[1] == [
        ("1", "up", "up", True),
        ("2", "up", "up", True),
    ]


def test_regions_that_are_unknown_or_there_are_refused() -> None:
    with pytest.raises(ValueError, match="'mars' is no region that votes; there are r1, r2, r3"):
        under("uuu", "uuu", down=("mars",))
    with pytest.raises(ValueError, match="'r2' votes already"):
        under("uuu", "uuu", added=("r2",))


def test_the_command_takes_regions_of_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(CHECKED + "regions: {r1: {}, r2: {}, r3: {}}\n")
    down = ["--down", "region:r1", "--down", "region:r2"]
    assert main(["simulate", str(path), *down]) == 0
    out = capsys.readouterr().out
    assert "web    192.0.2.1  80    up   up (pending)" in out
    assert main(["simulate", str(path), "--add", "region:r4", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdicts"] == []
    assert main(["simulate", str(path), "--add", "eu"]) == 2
    assert "only region:NAME" in capsys.readouterr().err
