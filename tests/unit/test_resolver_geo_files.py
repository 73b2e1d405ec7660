"""Geo files that change under a process: what is taken, what is refused, and how it is told."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtm.errors import StartError
from resolver import geo_files, locate
from resolver.geo_files import GeoFiles
from resolver.geo_reload import GeoReloader
from resolver.locate import Atlas, geo_hash
from resolver.moves import Moves, moves, percent
from resolver.place import NOBODY, Geography, Locator, Place, partition
from tests.geo_files import geo_file, packed

CN, DE, US = ({"country": {"iso_code": code}} for code in ("CN", "DE", "US"))
SMALL = {f"10.{number}.0.0/24": CN for number in range(16)}
WORLD = {"1.0.0.0/8": CN, "2.0.0.0/8": DE, "3.0.0.0/8": US, "4.0.0.0/6": US, **SMALL}
NEAR = {**WORLD, "3.0.0.0/9": DE}  # half a /8 of seven, one piece of twenty
FAR = {**WORLD, "4.0.0.0/6": CN}
ASN = {"1.0.0.0/8": {"autonomous_system_number": 4134}}


# ---- how much moves ------------------------------------------------------------------------

places = (Place(), Place(country="CN"), Place(country="CN", asn=1), Place(country="DE", asn=1))
units = st.lists(st.integers(0, 3), min_size=16, max_size=16)


def geography(v4: Sequence[int], v6: Sequence[int]) -> Geography:
    """Sixteen addresses in a row of each family, and nobody around them."""
    families = []
    for bits, first, found in ((32, 0x0A000000, v4), (128, (0x2001 << 112) + 2**64 - 8, v6)):
        starts = [0, *range(first, first + 17)]
        families.append(partition(bits, starts, [0, *found, 0]))
    return Geography(places, *families)


@given(units, units, units, units)
def test_moves_are_what_differs_of_what_is_known(
    v4: list[int], v6: list[int], new_v4: list[int], new_v6: list[int]
) -> None:
    found = moves(geography(v4, v6), geography(new_v4, new_v6))
    wanted = []
    for old, new in ((v4, new_v4), (v6, new_v6)):
        known = [pair for pair in zip(old, new, strict=True) if any(pair)]
        moved = sum(here != there for here, there in known)
        wanted += 2 * [moved / len(known) if known else 0.0]
    # Pieces are single addresses here, so that both measures agree.
    assert found == Moves(*map(pytest.approx, wanted))


def test_wide_blocks_weigh_by_space_and_narrow_ones_by_number() -> None:
    def found(*rows: tuple[int, int]) -> Geography:
        starts, indices = zip(*rows, strict=True)
        return Geography(places, partition(32, starts, indices), NOBODY.v6)

    many = [(2**24 * number, 1) for number in range(64, 128, 2)]
    old = found((0, 1), (2**30, 0), *(row for at, _ in many for row in ((at, 1), (at + 1, 0))))
    new = found((0, 3), (2**30, 0), *(row for at, _ in many for row in ((at, 1), (at + 1, 0))))
    assert moves(old, new).v4_space > 0.99
    assert moves(old, new).v4_networks == pytest.approx(1 / 33)
    assert moves(old, old) == Moves()


def test_the_excess_says_what_moves_and_the_limit() -> None:
    found = Moves(v4_space=0.25, v6_networks=0.3125)
    assert found.excess(Fraction(1, 2)) == ""
    assert found.excess(Fraction(5, 16)) == ""
    assert found.excess(Fraction(1, 5)) == (
        "it would move 31.2% of the known IPv6 networks to another country or AS number, "
        "more than 20%"
    )
    assert [percent(part) for part in (0, 0.2, 0.125, 1)] == ["0%", "20%", "12.5%", "100%"]


# ---- files that change ---------------------------------------------------------------------


def replaced(path: Path, networks: dict[str, Any], version: int = 4) -> None:
    """Put a new file in place of `path`, as an updater should."""
    fresh = path.with_suffix(".new")
    geo_file(fresh, networks, version)
    os.replace(fresh, path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    geo_file(tmp_path / "geo.mmdb", WORLD)
    return tmp_path / "geo.mmdb"


def country(locator: Locator, text: str) -> str:
    return locator.find(packed(text)).country


def test_a_file_that_moves_little_is_taken_once_it_is_put(path: Path) -> None:
    files = GeoFiles((str(path),))
    assert files.look() is None
    replaced(path, NEAR)
    change = files.look()
    assert change is not None
    assert change.outcome == "loaded"
    assert change.moves.v4_space == pytest.approx(0.5 / 7, rel=0.001)
    assert country(files.locator, "3.0.0.1") == "US"
    assert change.locator is not None
    files.put(change.locator)
    assert country(files.locator, "3.0.0.1") == "DE"
    assert files.look() is None


def test_a_file_that_moves_much_is_refused_once_and_what_follows_is_compared_with_the_last_good(
    path: Path,
) -> None:
    files = GeoFiles((str(path),))
    replaced(path, FAR)
    change = files.look()
    assert change is not None
    assert (change.outcome, change.locator) == ("refused", None)
    assert change.why == (
        f"{path}: it would move 57.1% of the known IPv4 address space to another country or "
        "AS number, more than 20%"
    )
    assert files.look() is None
    replaced(path, {**FAR, "9.0.0.0/8": US})
    change = files.look()
    assert change is not None
    assert change.outcome == "refused"
    replaced(path, WORLD)
    change = files.look()
    assert change is not None
    assert change.outcome in ("unchanged", "loaded")  # the file notes when it was built
    assert country(files.locator, "4.0.0.1") == "US"


def test_the_limit_is_the_users(path: Path) -> None:
    files = GeoFiles((str(path),), Fraction(3, 5))
    replaced(path, FAR)
    change = files.look()
    assert change is not None
    assert change.outcome == "loaded"


def test_bytes_that_an_operator_accepted_are_taken_whatever_they_move(path: Path) -> None:
    files = GeoFiles((str(path),))
    replaced(path, FAR)
    digest = locate.Database(str(path)).digest
    Path(f"{path}{geo_files.ACCEPTED}").write_text(f"{digest}\n")
    change = files.look()
    assert change is not None
    assert change.outcome == "loaded"
    assert change.locator is not None
    files.put(change.locator)
    replaced(path, WORLD)
    change = files.look()
    assert change is not None
    assert change.outcome == "refused"


@pytest.mark.parametrize("bad", ["missing", "cut", "other", "empty"])
def test_a_broken_file_leaves_the_last_good_and_a_good_one_is_taken_again(
    path: Path, bad: str
) -> None:
    files = GeoFiles((str(path),))
    good = path.read_bytes()
    if bad == "missing":
        path.unlink()
    else:
        content = {"cut": good[:-40], "other": b"not a database", "empty": b""}[bad]
        path.write_bytes(content)
    change = files.look()
    assert change is not None
    assert change.outcome == "broken"
    assert str(path) in change.why
    assert "--geo" not in change.why
    assert files.look() is None
    assert country(files.locator, "1.0.0.1") == "CN"
    path.write_bytes(good)
    change = files.look()
    assert change is not None
    assert change.outcome == "unchanged"


def test_one_file_of_several_changes_and_the_others_are_not_read_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = geo_file(tmp_path / "asn.mmdb", ASN)
    files = GeoFiles((str(path), numbers))
    read: list[str] = []

    class Noted(locate.Database):
        def __init__(self, path: str) -> None:
            read.append(path)
            super().__init__(path)

    monkeypatch.setattr(geo_files, "Database", Noted)
    replaced(path, NEAR)
    change = files.look()
    assert change is not None
    assert change.locator is not None
    assert read == [str(path)]
    assert change.locator.find(packed("1.0.0.1")).asn == 4134
    assert country(change.locator, "3.0.0.1") == "DE"


def test_a_file_that_changes_while_it_is_read_waits_for_the_next_look(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = GeoFiles((str(path),))

    class Slow(locate.Database):
        def __init__(self, where: str) -> None:
            super().__init__(where)
            if country(Atlas((self,)), "3.0.0.1") == "DE":
                replaced(path, {**NEAR, "1.0.0.0/9": DE})

    monkeypatch.setattr(geo_files, "Database", Slow)
    replaced(path, {**NEAR, "1.0.0.0/8": CN})
    assert files.look() is None
    monkeypatch.undo()
    change = files.look()
    assert change is not None
    assert change.locator is not None
    assert country(change.locator, "1.0.0.1") == "DE"


def test_files_that_are_broken_at_the_start_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot read the geo file"):
        GeoFiles((str(tmp_path / "none.mmdb"),))


def test_without_any_file_there_is_nothing_to_look_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "embedded", lambda: "")
    files = GeoFiles(())
    assert files.look() is None
    assert files.locator.geography is NOBODY


# ---- the shell -----------------------------------------------------------------------------


class Taken:
    """Takes locators into use, or fails to."""

    def __init__(self) -> None:
        self.locators: list[Locator] = []
        self.fails = False

    async def __call__(self, locator: Locator) -> None:
        if self.fails:
            raise ValueError("no such plan")
        self.locators.append(locator)


async def test_each_change_is_told_once_and_counted(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "resolver")
    taken, files = Taken(), GeoFiles((str(path),))
    reloader = GeoReloader(files, 1.0, taken)
    steps = [(FAR, "refused"), (NEAR, "loaded")]
    for networks, outcome in steps:
        replaced(path, networks)
        for _ in range(3):
            await reloader.look()
        assert reloader.reloads[outcome] == 1
        assert bool(reloader.refusal) is (outcome == "refused")
    taken.fails = True
    hash_before = geo_hash(files.locator)
    replaced(path, {**NEAR, "9.0.0.0/24": CN})
    await reloader.look()
    assert reloader.refusal == "no table can be made with it: no such plan"
    assert geo_hash(files.locator) == hash_before
    assert reloader.reloads == {"loaded": 1, "unchanged": 0, "refused": 2, "broken": 0}
    assert [geo_hash(one) for one in taken.locators] == [hash_before]
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [
        ("ERROR", "geo data refused, the last good stay"),
        ("INFO", "geo data reloaded"),
        ("ERROR", "geo data refused, the last good stay"),
    ]
    assert "57.1% of the known IPv4 address space" in caplog.records[0].fields["cause"]


async def test_the_files_are_looked_after_again_and_again(path: Path) -> None:
    taken, files = Taken(), GeoFiles((str(path),))
    reloader = GeoReloader(files, 0.001, taken)
    task = asyncio.ensure_future(reloader.run())
    for number in range(2):
        replaced(path, {**NEAR, f"9.0.{number}.0/24": CN})
        async with asyncio.timeout(10):
            while len(taken.locators) <= number:
                await asyncio.sleep(0.001)
    task.cancel()
    assert 0 <= reloader.age_s() < 60


def test_without_files_there_is_no_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "embedded", lambda: "")
    age_s = GeoReloader(GeoFiles(()), 1.0, Taken()).age_s()
    assert age_s != age_s
