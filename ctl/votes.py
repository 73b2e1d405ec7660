"""Verdicts under a what-if over regions: one is down, one is added. Pure; decides nothing itself.

The votes are those that a coordinator tells now, or all up; the verdict over what is left of them
is the coordinator's own judgement (docs/decisions/0009). A region that is down has no vote and
stays in the electorate; one that is added joins that of every check with `regions: all`, without
a vote.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from coordinator.events import TargetKey
from coordinator.hysteresis import NAMES
from coordinator.quorum import Decision, decide, electorate
from coordinator.verdicts import HEALTH
from gtm.model import Check, Resources, target_port
from gtm.state import Health, Vote
from gtm.v1 import operator_pb2 as pb

_WORDS: Mapping[int, Health] = {pb.HEALTH_UP: "up", pb.HEALTH_DOWN: "down"}


class Heard(Struct, frozen=True):
    """A target's verdict that stands, and the vote of each region that has one."""

    standing: Health
    votes: Mapping[str, Vote]


class Turn(Struct, frozen=True, kw_only=True):
    """A verdict that would be another one, or pending where it is not; `rule` says why."""

    target: TargetKey
    before: Health
    after: Health
    pending: bool
    rule: str


class Judged(Struct, frozen=True):
    """The health of every target under the what-if, and what turned."""

    healths: Mapping[TargetKey, Health]
    turns: tuple[Turn, ...]


def heard(verdicts: Iterable[pb.Verdict]) -> dict[TargetKey, Heard]:
    """What a coordinator lists, by target."""
    found: dict[TargetKey, Heard] = {}
    for one in verdicts:
        votes: dict[str, Vote] = {}
        for vote in one.regions:
            word = _WORDS.get(vote.vote)
            votes[vote.region] = "none" if word is None or word == "unknown" else word
        key = TargetKey(one.check, one.address, one.port)
        found[key] = Heard(_WORDS.get(one.verdict, "unknown"), votes)
    return found


def judge(
    resources: Resources,
    known: Mapping[TargetKey, Heard] | None,
    *,
    down: Collection[str] = (),
    added: Collection[str] = (),
) -> Judged:
    """The verdicts with the regions `down` silent and those `added` there.

    Without `known` votes, and for targets that nobody judged yet, every region votes up. ValueError
    where a region is unknown, or there already.
    """
    regions = _regions(resources, known or {}, down, added)
    healths: dict[TargetKey, Health] = {}
    turns: list[Turn] = []
    for key, check in _targets(resources).items():
        before = _decided(check, regions, (known or {}).get(key), ())
        after = _decided(check, (*regions, *added), (known or {}).get(key), {*down, *added})
        healths[key] = HEALTH[after.verdict]
        if (before.verdict, before.pending) != (after.verdict, after.pending):
            turns.append(
                Turn(
                    target=key,
                    before=HEALTH[before.verdict],
                    after=HEALTH[after.verdict],
                    pending=after.pending,
                    rule=after.rule,
                )
            )
    return Judged(healths, tuple(turns))


def _decided(
    check: Check, everybody: tuple[str, ...], one: Heard | None, silent: Collection[str]
) -> Decision:
    """The verdict over the votes of all regions but the silent ones."""
    who = electorate(check, everybody)
    votes = [_vote(one, region) for region in who.regions if region not in silent]
    standing = "up" if one is None else one.standing
    code = 0 if standing == "unknown" else NAMES.index(standing)
    return decide(who, votes.count("up"), votes.count("down"), code)


def _vote(one: Heard | None, region: str) -> Vote:
    return "up" if one is None else one.votes.get(region, "none")


def _targets(resources: Resources) -> dict[TargetKey, Check]:
    """Everything that is probed, with its check."""
    found = {}
    for pool in resources.pools.values():
        for address in pool.addresses:
            for name in address.checked_by(pool):
                check = resources.checks[name]
                found[TargetKey(name, address.value, target_port(check, address))] = check
    return dict(sorted(found.items()))


def _regions(
    resources: Resources,
    known: Mapping[TargetKey, Heard],
    down: Iterable[str],
    added: Iterable[str],
) -> tuple[str, ...]:
    """The regions of `regions: all`: the declared ones, else those that vote now."""
    voting = dict.fromkeys(region for one in known.values() for region in one.votes)
    everybody = tuple(resources.regions) or tuple(voting)
    there = {*everybody, *(name for check in resources.checks.values() for name in check.regions)}
    for name in down:
        if name not in there:
            told = f"there are {', '.join(sorted(there))}" if there else "there are none"
            raise ValueError(f"{name!r} is no region that votes; {told}")
    for name in added:
        if name in there:
            raise ValueError(f"the region {name!r} votes already")
    return everybody
