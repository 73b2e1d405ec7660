"""What `gtm up` tells its parts: each coordinator the same of what all must be told alike."""

from __future__ import annotations

from contextlib import AsyncExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from coordinator.settings import Alike
from coordinator.settings import Settings as Told
from ctl.ground import Ports
from ctl.up import Settings, Up
from gtm.errors import StartError
from gtm.settings import load, settings

PORTS = Ports(
    base=7400, regions=1, resolvers=1, dns_host="127.0.0.1", dns_port=5300, coordinators=2
)
GIVEN = {
    "guard_share": "12.5%",
    "guard_least": "4",
    "guard_window": "90s",
    "guard_hold": "1500ms",
    "lease": "7s",
    "catch_up": "2s",
    "webhook": "https://example.net/alarms?to=ops,all",
    "webhook_secret": "a folder/secret",
    "webhook_ca": "ca.pem",
}


def coordinators(tmp_path: Path, **given: str) -> list[Told]:
    """What the coordinators of such a `gtm up` are told, read as they read it."""
    up: Any = Up(load(Settings, {"data_dir": str(tmp_path), **given}, {}), AsyncExitStack())
    found = []
    for part in up._parts(PORTS, ["http://127.0.0.1:2379"]):
        role, *words = part.arguments
        flags = dict(word.removeprefix("--").partition("=")[::2] for word in words)
        named = {name.replace("-", "_"): text for name, text in flags.items()}
        if role == "coordinator":
            found.append(load(Told, named, {}))
        else:
            assert not {one.name for one in settings(Alike)} & named.keys()
    return found


def test_every_coordinator_is_told_what_all_must_be_told_alike(tmp_path: Path) -> None:
    assert set(GIVEN) == {one.name for one in settings(Alike)}
    wanted = load(Alike, GIVEN, {})
    told = coordinators(tmp_path, **GIVEN)
    assert len(told) == PORTS.coordinators
    for one in told:
        assert {name: getattr(one, name) for name in GIVEN} == {
            name: getattr(wanted, name) for name in GIVEN
        }


def test_coordinators_that_are_told_nothing_have_the_defaults(tmp_path: Path) -> None:
    for one in coordinators(tmp_path):
        assert one.brake() == Told().brake()
        assert one.guard_share.of_one == Fraction(3, 10)
        assert (one.webhook, one.lease) == ("", Told().lease)


def test_what_is_no_share_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="--guard-share"):
        coordinators(tmp_path, guard_share="plenty")
