"""From the regions' votes to a verdict; exact, and saying which rule decided. Pure.

`decide` is the plain form for one target and gives the reason in words; `decide_columns` is the
same on columns. Shares are whole numbers of regions, worked out once for each check, never floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import UNSET, Struct
from numpy.typing import NDArray

from gtm.model import Check
from gtm.units import Share

from .hysteresis import DOWN, NAMES, NO_VOTE, UP, Codes

Counts = NDArray[Any]


class Electorate(Struct, frozen=True, kw_only=True):
    """Who votes on a check's targets (E, sorted), and how many it takes.

    `voters`: fewer leave a verdict pending. `downs`: from this many regions on it is down, which is
    the failing share of |E| rounded up, and at least one region. `ups`: with fewer that are up a
    verdict stays, where it is not down (0: no such rule). `share` and `rise` are the shares as
    users wrote them.
    """

    regions: tuple[str, ...]
    voters: int
    downs: int
    share: str
    ups: int = 0
    rise: str = ""


def electorate(check: Check, everybody: Sequence[str]) -> Electorate:
    """The electorate of a check; `everybody` are the regions of `regions: all`."""
    regions = tuple(sorted(set(check.regions or everybody)))
    healthy, rise = check.healthy_share, check.rise_share
    return Electorate(
        regions=regions,
        voters=check.min_voters.needed(len(regions)),
        downs=max(1, _upwards(check.fails_from, len(regions))),
        share=str(check.fails_from) if healthy is UNSET else f"up above {healthy}",
        ups=0 if rise is UNSET else _upwards(rise, len(regions)),
        rise="" if rise is UNSET else str(rise),
    )


def _upwards(share: Share, of: int) -> int:
    part = share.of_one * of
    return -(-part.numerator // part.denominator)


class Decision(Struct, frozen=True):
    """A verdict (a code), whether it only stands because too few regions speak, and the rule."""

    verdict: int
    pending: bool
    rule: str


def decide(who: Electorate, ups: int, downs: int, standing: int) -> Decision:
    """The verdict over `ups` and `downs` regions of E, on top of the standing one.

    A region without a vote counts as the standing verdict says (none yet: as up), unless all that
    have one agree. Between the shares of failing and of rising the standing verdict stays.
    """
    total, voters = len(who.regions), ups + downs
    if total == 0:
        return Decision(standing, True, "pending: the check has no regions")
    if voters < who.voters:
        last = "no verdict yet" if standing == NO_VOTE else "the last verdict stands"
        text = f"pending: {voters} of {total} regions voting, {who.voters} needed; {last}"
        return Decision(standing, True, text)
    if ups == 0 or downs == 0:
        word, verdict = ("down", DOWN) if downs else ("up", UP)
        if voters == total:
            text = f"all regions agree: {total} of {total} {word}"
        else:
            text = f"all regions that vote agree: {voters} {word}, {total - voters} without a vote"
        return Decision(verdict, False, text)
    silent = total - voters
    counted = downs + (silent if standing == DOWN else 0)
    text = f"{counted} of {total} regions down"
    if silent:
        text += f" ({silent} without a vote counted as {'down' if standing == DOWN else 'up'})"
    if counted >= who.downs:
        return Decision(DOWN, False, f"{text}: down from {who.downs} on ({who.share})")
    if total - counted < who.ups:
        stays = "no verdict yet" if standing == NO_VOTE else f"{NAMES[standing]} stays"
        return Decision(
            standing, False, f"{text}: {stays}, as up takes {who.ups} up (rise_share {who.rise})"
        )
    return Decision(UP, False, f"{text}: up below {who.downs} ({who.share})")


def decide_columns(
    who: Electorate, ups: Counts, downs: Counts, standing: Codes
) -> tuple[Codes, NDArray[np.bool_]]:
    """`decide` on columns: the verdicts, and which of them are pending."""
    total, voters = len(who.regions), ups + downs
    pending = voters < who.voters if total else np.ones(len(standing), dtype=bool)
    counted = downs + np.where(standing == DOWN, total - voters, 0)
    agree = (ups == 0) | (downs == 0)
    is_down = np.where(agree, downs > 0, counted >= who.downs)
    stays = pending | (~is_down & ~agree & (total - counted < who.ups))
    verdict: Codes = np.where(stays, standing, np.where(is_down, DOWN, UP)).astype(np.int8)
    return verdict, pending
