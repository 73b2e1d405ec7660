"""Transcripts of the engine: events in, effects out, compared to the letter.

`GTM_REWRITE=1 pytest tests/scenarios` writes what the engine does now into the files; review the
difference by reading it. A line is an event, `SECONDS WHAT ...`; indented lines below it belong to
it (YAML), and `-> ` lines are what came out:

    0.0 start                     a new engine; `restart`: beside what the store has by now
    0.0 configured                the resources, as YAML; once more for a change
    0.0 lead                      what the store has, once more; `follow`: nothing is written now
    0.0 turned 192.0.2.1 up       another one that leads wrote this verdict
    0.1 found eu/a us/a           agents' streams, also `lost`
    0.1 met eu us                 the regions that the store says were met
    1.0 frame eu/a us/a | 192.0.2.1 fail @0.4 no route; 192.0.2.2 ok      @: age in seconds
    1.0 digest eu/a | 192.0.2.1 fail x3                                   x: streak, ~: ms
    1.0 force a/192.0.2.1 drain 0 60   TARGET ACTION [TIER [SECONDS]]; `off` deletes it
    1.0 release shop/world        one shot: a manual failback ends
    9.0 tick
    9.0 show 192.0.2.1            the verdict with its evidence
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from msgspec.structs import replace

from coordinator.engine import Engine
from coordinator.events import (
    AgentFound,
    AgentLost,
    ClearAlarm,
    Configured,
    Confirm,
    Digest,
    Effect,
    EndForce,
    Forced,
    Frame,
    Met,
    Now,
    PublishAside,
    PublishPool,
    PublishRoutes,
    PublishVerdict,
    RaiseAlarm,
    Restored,
    TargetKey,
    Tick,
)
from gtm import codec
from gtm.model import Resources
from gtm.state import Aside, Force, PoolState, Route, Routes, VerdictRecord, VoteRecord

FILES = sorted(Path(__file__).parent.glob("*.txt"))
OUTCOMES = {"none": 0, "ok": 1, "fail": 2, "unable": 3}
ROW = re.compile(r"(\S+) (none|ok|fail|unable)(?: x(\d+))?(?: @([\d.]+))?(?: ~(\d+))?(?: (.+))?")


class Stage:
    """An engine, the store that its effects go to, and the clock of the transcript."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.resources = Resources()
        self.generation = 0
        self.leads = True
        self.now = Now(0, 0.0)
        self.verdicts: dict[TargetKey, VerdictRecord] = {}
        self.pools: dict[str, PoolState] = {}
        self.routes: dict[str, Routes] = {}
        self.met: frozenset[str] = frozenset()
        self.alarms: dict[str, tuple[str, float]] = {}
        self.forces: dict[str, Force] = {}
        self.aside: dict[str, Aside] = {}

    def play(self, line: str, block: str) -> list[str]:
        """One event; the lines that tell what came out."""
        seconds, _, rest = line.partition(" ")
        what, _, rest = rest.partition(" ")
        self.now = Now(round(float(seconds) * 1000), float(seconds))
        names, _, rows = rest.partition(" | ")
        match what:
            case "start" | "restart":
                self.engine = Engine()
                return self.restore() + (self.configure() if self.generation else [])
            case "follow":
                self.leads = False
                return []
            case "lead":
                self.leads = True
                return self.restore()
            case "turned":
                self.turned(self.key(names.split()[0]), *names.split()[1:])
                return []
            case "configured":
                data = yaml.safe_load(block)
                self.generation += 1
                self.resources = Resources(
                    **{
                        kind: {name: codec.resource(kind, one) for name, one in named.items()}
                        for kind, named in data.items()
                    }
                )
                return self.configure()
            case "met":
                self.met = frozenset(names.split())
                return self.feed(Met(regions=self.met))
            case "force" | "release":
                target, *action = names.split()
                return self.force(target, *(action or ["release"]))
            case "tick":
                return self.feed(Tick())
            case "show":
                return [text for name in names.split() for text in self.show(name)]
        told: list[str] = []
        for name in names.split():
            region, agent = name.split("/")
            told += self.feed(self.agent_event(what, region, agent, rows))
        return told

    def agent_event(self, what: str, region: str, agent: str, rows: str) -> Any:
        match what:
            case "found":
                return AgentFound(region=region, agent=agent)
            case "lost":
                return AgentLost(region=region, agent=agent)
            case "frame":
                columns = self.columns(rows)
                del columns["streak"]
                return Frame(region=region, agent=agent, **columns)
            case "digest":
                return Digest(region=region, agent=agent, **self.columns(rows))
        raise AssertionError(f"{what} is no event")

    def columns(self, rows: str) -> dict[str, Any]:
        table: list[tuple[int, ...]] = []
        reasons = [""]
        for row in rows.split("; "):
            match = ROW.fullmatch(row.strip())
            assert match, row
            target, outcome, streak, age, rtt_ms, reason = match.groups()
            reasons.append(reason or "")
            number = self.engine.targets()[self.key(target)].number
            age_ms = round(float(age or 0) * 1000)
            place = len(reasons) - 1 if reason else 0
            rtt_us = round(1000 * float(rtt_ms or 1.5))
            table.append((number, OUTCOMES[outcome], int(streak or 1), age_ms, rtt_us, place))
        names = ("target", "outcome", "streak", "age_ms", "rtt_us", "reason")
        found: dict[str, Any] = dict(zip(names, np.array(table, dtype=np.int64).T, strict=True))
        return {**found, "reasons": tuple(reasons)}

    def key(self, text: str) -> TargetKey:
        """A target by its key or, where that tells it, by its address."""
        named = [key for key in self.engine.targets() if text in (key.address, spelled(key))]
        assert len(named) == 1, f"{text} names {named}"
        return named[0]

    def restore(self) -> list[str]:
        return self.feed(
            Restored(
                verdicts=dict(self.verdicts),
                pools=dict(self.pools),
                routes=dict(self.routes),
                met=self.met,
                alarms=dict(self.alarms),
                forces=dict(self.forces),
                aside=dict(self.aside),
            )
        )

    def configure(self) -> list[str]:
        self.pools = {name: self.pools[name] for name in self.pools if name in self.resources.pools}
        return self.feed(
            Configured(resources=self.resources, generation=self.generation, head_revision=1)
        )

    def feed(self, event: Any) -> list[str]:
        effects = self.engine.handle(event, self.now)
        for effect in effects if self.leads else ():
            self.store(effect)
        return [text for effect in effects for text in tell(effect)]

    def store(self, effect: Effect) -> None:
        match effect:
            case PublishPool(name=name, state=state):
                put(self.pools, name, state)
            case PublishRoutes(instance=name, routes=routes):
                put(self.routes, name, routes)
            case PublishVerdict(target=target, record=record):
                put(self.verdicts, target, record)
            case RaiseAlarm(id=id_, text=text):
                self.alarms[id_] = (text, self.now.wall_s)
            case PublishAside(region=region, record=aside):
                put(self.aside, region, aside)
            case EndForce(target=target):
                self.forces.pop(target, None)
            case ClearAlarm(id=id_):
                del self.alarms[id_]

    def turned(self, key: TargetKey, verdict: Any) -> None:
        record = self.verdicts[key]
        votes = dict.fromkeys(record.votes, VoteRecord(vote=verdict, streak=1))
        self.verdicts[key] = replace(
            record, verdict=verdict, since=self.now.wall_s, first_failed=0.0, votes=votes
        )

    def force(self, target: str, action: str, tier: str = "0", lasts_s: str = "0") -> list[str]:
        """An operator's word, which goes to the store; `off` deletes it."""
        if action == "off":
            del self.forces[target]
        else:
            since = self.now.wall_s
            until = since + float(lasts_s) if float(lasts_s) else 0.0
            self.forces[target] = Force(
                target=target, action=action, tier=int(tier), since=since, until=until
            )
        return self.feed(Forced(forces=dict(self.forces)))

    def show(self, name: str) -> list[str]:
        view = self.engine.verdict(self.key(name), self.now)
        assert view is not None
        words = ("pending", "wavering", "forced", "held")
        flags = "".join(f" {word}" for word in words if getattr(view, word))
        pools = ", ".join(f"{pool} {why}" for pool, why in zip(view.pools, view.why, strict=True))
        told = [f"{spelled(view.target)} {view.verdict}{flags} ({pools}): {view.rule}"]
        for vote in view.regions:
            text = f"  {vote.region} {vote.vote} x{vote.streak}"
            if vote.age_s >= 0:
                text += f", {vote.age_s:g} s ago by one of {vote.agents}"
            told.append(text + (f", {vote.reason}" if vote.reason else ""))
        return told


def put(mapping: dict[Any, Any], key: Any, value: Any) -> None:
    """What a store does with a value; None deletes."""
    if value is None:
        del mapping[key]
    else:
        mapping[key] = value


def spelled(key: TargetKey) -> str:
    return f"{key.check}/{key.address}/{key.port}"


def details(route: Route) -> str:
    by = f" by {route.pinned_by}" if route.pinned_by else ""
    pool = f", pool {route.pool_in_force}" if route.pool_in_force else ""
    return by + pool + (f", returns at {route.return_:g}" if route.return_ else "")


def tell(effect: Effect) -> list[str]:
    """An effect in words."""
    match effect:
        case PublishPool(name=name, state=state):
            assert state is not None, "the engine never deletes a pool"
            told = [f"pool {name} of generation {state.generation}:"]
            for one in state.members:
                place = "in " if one.answered else "out"
                counted = "" if one.answered == one.counted else ", counted"
                counted = ", not counted" if one.answered and not one.counted else counted
                judged = f" (else {one.judged})" if one.judged else ""
                brake = f", penalty {one.penalty}" if one.penalty else ""
                brake += f", held since {one.held_since:g}" if one.held_since else ""
                told.append(
                    f"  {place} {one.value} {one.why}{judged} since {one.since:g}{counted}{brake}"
                )
            if state.wavering:
                told.append(f"  wavering: {' '.join(state.wavering)}")
            if state.member_in_force:
                told.append(f"  in force: {state.member_in_force}")
            told += [
                f"  from {region}: "
                + ", then ".join(
                    f"{' '.join(group.members)} ({group.rtt_us / 1000:g} ms)" for group in groups
                )
                for region, groups in state.latency.items()
            ]
            if state.last_good is not None:
                told.append(
                    f"  good until {state.last_good.until:g}: {' '.join(state.last_good.members)}"
                )
            return told
        case PublishRoutes(instance=name, routes=None):
            return [f"routes {name}: none"]
        case PublishRoutes(instance=name, routes=routes):
            assert routes is not None
            return [f"routes {name} of generation {routes.generation}:"] + [
                f"  {rule} {family}: tier {one.tier} since {one.since:g}{details(one)}"
                for rule, families in routes.rules.items()
                for family, one in families.items()
            ]
        case PublishVerdict(target=target, record=None):
            return [f"verdict {spelled(target)}: none"]
        case PublishVerdict(target=target, record=record):
            assert record is not None
            head = f"verdict {spelled(target)} {record.verdict} since {record.since:g}"
            if record.first_failed:
                head += f", first failed {record.first_failed:g}"
            votes = ", ".join(
                f"{region} {vote.vote} x{vote.streak}" + (f" ({vote.reason})" * bool(vote.reason))
                for region, vote in record.votes.items()
            )
            if record.damped_since:
                head += f", damped since {record.damped_since:g}, penalty {record.penalty:g}"
            return [head, f"  {record.rule}", f"  {votes}"]
        case PublishAside(region=region, record=None):
            return [f"region {region} counts again"]
        case PublishAside(region=region, record=aside):
            assert aside is not None
            return [f"region {region} set aside since {aside.since:g}: {aside.text}"]
        case Confirm(target=target):
            return [f"confirm {spelled(target)}"]
        case EndForce(target=target):
            return [f"force {target} is over"]
        case RaiseAlarm(id=id_, text=text):
            return [f"alarm {id_}: {text}"]
        case ClearAlarm(id=id_):
            return [f"alarm {id_} is over"]
    raise AssertionError(effect)


def replayed(text: str) -> str:
    """The transcript with what the engine says now."""
    stage, written = Stage(), []
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("-> ")]
    while lines:
        line = lines.pop(0)
        written.append(line)
        if not line[:1].isdigit():
            continue
        block: list[str] = []
        while lines and lines[0].startswith("  "):
            block.append(lines.pop(0))
        written += block
        written += [f"    -> {told}" for told in stage.play(line, "\n".join(block))]
    return "\n".join(written) + "\n"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_engine_does_what_the_transcript_says(file: Path) -> None:
    text = file.read_text()
    now = replayed(text)
    if os.environ.get("GTM_REWRITE"):
        file.write_text(now)
    assert now == text


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 14
