"""Recent results judged again with other thresholds: what would have turned, and when. Pure.

Drives a whole `Engine` with the results of a check's targets in their order, on a clock made of
their times: hysteresis, quorum, graces and regions set aside are those that judge live. A run of
equal outcomes is spread evenly from its first to its last result. What an agent would have seen at
another interval nobody knows, so intervals cannot be tried out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from msgspec import UNSET, Struct, UnsetType, structs
from numpy.typing import NDArray

from gtm.model import Address, Check, Pool, Region, Resources
from gtm.units import Share, Voters

from .engine import Engine
from .events import AgentFound, Configured, Frame, Now, PublishVerdict, Restored, TargetKey, Tick

CHECK = "backtest"
"""What the replayed check is called, so that any name may be replayed."""
MAX_RESULTS = 20_000_000
"""Results that are replayed at once."""
SLOTS = 20
"""Into so many parts an interval is cut; results of one part are judged together."""


class Run(Struct, frozen=True, kw_only=True):
    """Equal outcomes of one agent ("REGION/AGENT") in a row; instants in Unix milliseconds."""

    agent: str
    outcome: int
    count: int
    began_ms: int
    ended_ms: int


class Thresholds(Struct, frozen=True, kw_only=True):
    """What to try instead of what a check says; UNSET: as it is."""

    fall: int | UnsetType = UNSET
    rise: int | UnsetType = UNSET
    failing_share: Share | UnsetType = UNSET
    rise_share: Share | UnsetType = UNSET
    min_voters: Voters | UnsetType = UNSET

    def on(self, check: Check) -> Check:
        """The check with these thresholds."""
        given = {name: value for name, value in structs.asdict(self).items() if value is not UNSET}
        if "failing_share" in given:
            given["healthy_share"] = UNSET
        return structs.replace(check, **given)


class Turn(Struct, frozen=True):
    """A verdict that turned, in Unix milliseconds."""

    at_ms: int
    verdict: str


class Compared(Struct, frozen=True, kw_only=True):
    """What became of each turn of a target's verdict.

    `delayed` and `earlier` are pairs of a turn and by how many milliseconds it would have come
    later or sooner; `avoided` would not have come at all, `added` came only with the other
    thresholds.
    """

    same: tuple[Turn, ...] = ()
    delayed: tuple[tuple[Turn, int], ...] = ()
    earlier: tuple[tuple[Turn, int], ...] = ()
    avoided: tuple[Turn, ...] = ()
    added: tuple[Turn, ...] = ()


def replay(
    check: Check, voters: Iterable[str], runs: Mapping[TargetKey, Iterable[Run]]
) -> dict[TargetKey, list[Turn]]:
    """The verdicts of each target in their order, the first one included.

    Raises ValueError for more than `MAX_RESULTS` results.
    """
    runs = {key: list(some) for key, some in runs.items()}
    total = sum(run.count for some in runs.values() for run in some)
    if total > MAX_RESULTS:
        raise ValueError(f"{total} results are more than {MAX_RESULTS}: replay a shorter time")
    engine = Engine()
    resources = _resources(check, voters, runs)
    begin = min((run.began_ms for some in runs.values() for run in some), default=0)
    _told(engine, Configured(resources=resources, generation=1, head_revision=1), begin)
    _told(engine, Restored(verdicts={}, pools={}, routes={}), begin)
    agents = sorted({run.agent for some in runs.values() for run in some})
    for agent in agents:
        region, _, name = agent.partition("/")
        _told(engine, AgentFound(region=region, agent=name), begin)
    numbers: dict[int, TargetKey] = {}
    columns: list[NDArray[np.int64]] = []
    for key, some in runs.items():
        number = engine.number(structs.replace(key, check=CHECK))
        if number is None:
            continue
        numbers[number] = key
        columns += [_spread(run, number, agents.index(run.agent)) for run in some]
    turns: dict[TargetKey, list[Turn]] = {key: [] for key in runs}
    if not columns:
        return turns
    table = np.concatenate(columns, axis=1)
    table = table[:, np.argsort(table[0], kind="stable")]
    slot_ms = max(1, check.interval.ms // SLOTS)
    slots = table[0] // slot_ms
    edges = np.flatnonzero(np.diff(slots, prepend=slots[0] - 1))
    ticked = begin
    for part in np.split(table, edges[1:], axis=1):
        now_ms = int(part[0, -1])
        while now_ms - ticked > check.interval.ms:  # silences lapse on the way
            ticked += check.interval.ms
            _note(turns, numbers, engine, _told(engine, Tick(), ticked), ticked)
        for agent in np.unique(part[2]).tolist():
            rows = part[:, part[2] == agent]
            frame = _frame(agents[agent], rows, now_ms)
            _note(turns, numbers, engine, _told(engine, frame, now_ms), now_ms)
    return turns


def _told(engine: Engine, event: Any, at_ms: int) -> list[Any]:
    return engine.handle(event, Now(at_ms, at_ms / 1000))


def _note(
    turns: dict[TargetKey, list[Turn]],
    numbers: Mapping[int, TargetKey],
    engine: Engine,
    effects: Iterable[Any],
    at_ms: int,
) -> None:
    for effect in effects:
        if isinstance(effect, PublishVerdict) and effect.record is not None:
            key = numbers[engine.number(effect.target) or 0]
            if not turns[key] or turns[key][-1].verdict != effect.record.verdict:
                turns[key].append(Turn(at_ms, effect.record.verdict))


def _spread(run: Run, number: int, agent: int) -> NDArray[np.int64]:
    """Rows (instant, target, agent, outcome) of a run's results."""
    table = np.empty((4, run.count), dtype=np.int64)
    table[0] = np.linspace(run.began_ms, run.ended_ms, run.count).astype(np.int64)
    table[1], table[2], table[3] = number, agent, run.outcome
    return table


def _frame(agent: str, rows: NDArray[np.int64], now_ms: int) -> Frame:
    region, _, name = agent.partition("/")
    nothing = np.zeros(rows.shape[1], dtype=np.int64)
    return Frame(
        region=region,
        agent=name,
        target=rows[1],
        outcome=rows[3],
        age_ms=now_ms - rows[0],
        rtt_us=nothing,
        reason=nothing,
    )


def _resources(check: Check, voters: Iterable[str], keys: Iterable[TargetKey]) -> Resources:
    """A configuration with the check's targets alone, each in a pool of its own."""
    regions = tuple(sorted(set(voters)))
    pools = {}
    for number, key in enumerate(sorted(keys)):
        address = Address(value=key.address, port=key.port or UNSET)
        pools[f"t{number}"] = Pool(type=_type(key.address), checks=(CHECK,), addresses=(address,))
    return Resources(
        regions={name: Region() for name in regions},
        checks={CHECK: structs.replace(check, regions=regions)},
        pools=pools,
    )


def _type(address: str) -> Any:
    if ":" in address:
        return "ipv6"
    return "ipv4" if address.replace(".", "").isdecimal() else "domain"


# ---- comparing -----------------------------------------------------------------------------


def compared(before: list[Turn], after: list[Turn], slack_ms: int) -> Compared:
    """What became of `before`; turns within `slack_ms` of each other are the same.

    A turn answers to the nearest one to the same verdict between the turns beside it. The first
    verdict of a target is no turn.
    """
    before, after = before[1:], after[1:]
    used: set[int] = set()
    same, delayed, earlier, avoided = [], [], [], []
    for at, turn in enumerate(before):
        low = before[at - 1].at_ms if at else -1
        high = before[at + 1].at_ms if at + 1 < len(before) else 1 << 62
        answers = [
            number
            for number, other in enumerate(after)
            if number not in used and other.verdict == turn.verdict and low <= other.at_ms < high
        ]
        found = min(answers, key=lambda number: abs(after[number].at_ms - turn.at_ms), default=None)
        if found is None:
            avoided.append(turn)
            continue
        used.add(found)
        by = after[found].at_ms - turn.at_ms
        if abs(by) <= slack_ms:
            same.append(turn)
        elif by > 0:
            delayed.append((turn, by))
        else:
            earlier.append((turn, -by))
    return Compared(
        same=tuple(same),
        delayed=tuple(delayed),
        earlier=tuple(earlier),
        avoided=tuple(avoided),
        added=tuple(other for number, other in enumerate(after) if number not in used),
    )
