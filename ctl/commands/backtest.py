"""`gtm backtest`: recent results of a check judged again with other thresholds."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from gtm import codec
from gtm.errors import StartError
from gtm.model import Check
from gtm.units import Duration, Share, Voters
from gtm.v1 import operator_pb2 as pb

from .. import client, show

if TYPE_CHECKING:
    from coordinator.backtest import Compared, Run, Thresholds, Turn
    from coordinator.events import TargetKey

FORMAT = "gtm-backtest-1"
"""The first line of an exported file says this."""
SHOWN = 20
"""Turns told of one by one for each target."""
_NUMBERS = ("fall", "rise")
_PARSED: dict[str, Callable[[object], Any]] = {
    "failing_share": Share.parse,
    "rise_share": Share.parse,
    "min_voters": Voters.parse,
}


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = (
        "replay the recent results of a check through the engine with other thresholds, and say "
        "which verdicts would not have turned, or later"
    )
    parser.add_argument("--check", required=True, metavar="NAME", help="whose results")
    parser.add_argument("--since", default="24h", metavar="TIME", help="how far back; default: 24h")
    parser.add_argument("--fall", type=int, metavar="N", help="failures in a row, 1 to 100")
    parser.add_argument("--rise", type=int, metavar="N", help="successes in a row, 1 to 100")
    parser.add_argument("--failing-share", metavar="SHARE", help="such as 50%%")
    parser.add_argument("--rise-share", metavar="SHARE", help="such as 80%%")
    parser.add_argument("--min-voters", metavar="VOTERS", help="majority, a count or a share")
    parser.add_argument("--interval", metavar="TIME", help=argparse.SUPPRESS)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--export", metavar="FILE", help="write the results into FILE instead")
    where.add_argument("--from", dest="source", metavar="FILE", help="read an exported file")
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")
    client.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Fetch or read, then write or replay."""
    if args.interval:
        raise StartError(
            "--interval cannot be replayed: nobody knows what probes at other times would have"
            " seen; change the check and watch gtm history",
            2,
        )
    changed = _thresholds(args)
    try:
        since_s = Duration.parse(args.since).s
    except ValueError as error:
        raise StartError(f"--since {error}", 2) from None
    if args.source:
        found = read(Path(args.source), args.check, since_s)
    else:
        found = asyncio.run(_fetch(args, since_s))
    if args.export:
        write(Path(args.export), found)
        print(f"{len(found)} targets of check {args.check} are in {args.export}")
        return 0
    if not found:
        raise client.AnswerNo(
            f"there are no recent results of check {args.check}: a coordinator keeps them in memory"
            " since its start"
        )
    return _replay(args, found, changed)


def _thresholds(args: argparse.Namespace) -> Thresholds:
    from coordinator.backtest import Thresholds

    given: dict[str, Any] = {}
    for name in _NUMBERS:
        number = getattr(args, name)
        if number is not None and not 1 <= number <= 100:
            raise StartError(f"--{name} is 1 to 100", 2)
        if number is not None:
            given[name] = number
    for name, parse in _PARSED.items():
        text = getattr(args, name)
        if text is not None:
            try:
                given[name] = parse(_plain(text))
            except ValueError as error:
                raise StartError(f"--{name.replace('_', '-')} {error}", 2) from None
    if not given and not args.export:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in (*_NUMBERS, *_PARSED))
        raise StartError(f"say what to try: {names}; or --export", 2)
    return Thresholds(**given)


def _plain(text: str) -> object:
    """A flag's text as YAML would read it: a number where it is one."""
    for type_ in (int, float):
        try:
            return type_(text)
        except ValueError:
            continue
    return text


# ---- results, fetched, written and read ----------------------------------------------------


async def _fetch(args: argparse.Namespace, since_s: float) -> list[pb.RecentTarget]:
    async with client.Client.of(args) as asked:
        request = pb.RecentRequest(check=args.check, since_s=since_s)
        return [one async for one in asked.recent(request)]


def write(path: Path, found: Iterable[pb.RecentTarget]) -> None:
    """Write one line of JSON for each target, under a line that names the format."""
    lines = [json.dumps({"format": FORMAT, "exported": round(time.time(), 3)})]
    lines += [
        json.dumps(json_format.MessageToDict(one, preserving_proto_field_name=True))
        for one in found
    ]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}", 2) from error


def read(path: Path, check: str, since_s: float) -> list[pb.RecentTarget]:
    """The targets of a check in an exported file, without runs that ended before `since_s`."""
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        if json.loads(head).get("format") != FORMAT:
            raise ValueError("its first line does not say so")
        all_ = [json_format.ParseDict(json.loads(one), pb.RecentTarget()) for one in lines]
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}", 2) from error
    except (ValueError, AttributeError, json_format.ParseError) as error:
        raise StartError(f"{path} is no exported file of results: {error}", 2) from None
    for one in all_:
        kept = [at for at, age in enumerate(one.ended_ms) if age <= since_s * 1000]
        for name in ("agent", "outcome", "count", "began_ms", "ended_ms"):
            column = getattr(one, name)
            column[:] = [column[at] for at in kept]
    return [one for one in all_ if one.check == check and one.count]


# ---- replayed ------------------------------------------------------------------------------


def _replay(args: argparse.Namespace, found: list[pb.RecentTarget], changed: Thresholds) -> int:
    from coordinator import backtest
    from coordinator.events import TargetKey

    check = codec.decode(found[0].check_json.encode(), Check)
    runs: dict[TargetKey, list[Run]] = {
        TargetKey(one.check, one.address, one.port): _runs(one) for one in found
    }
    voters = list(found[0].voters)
    try:
        before = backtest.replay(check, voters, runs)
        after = backtest.replay(changed.on(check), voters, runs)
    except ValueError as error:
        raise client.AnswerNo(str(error)) from None
    slack_ms = check.interval.ms // backtest.SLOTS
    results = {key: backtest.compared(before[key], after[key], slack_ms) for key in sorted(runs)}
    dropped = max((one.dropped for one in found), default=0)
    if args.form == "json":
        print(show.as_json(shape(results, dropped)))
    else:
        print(render(results, dropped))
    return 0


def _runs(one: pb.RecentTarget) -> list[Run]:
    from coordinator.backtest import Run

    now_ms = int(one.now * 1000)
    return [
        Run(
            agent=one.agents[agent],
            outcome=outcome,
            count=count,
            began_ms=now_ms - began,
            ended_ms=now_ms - ended,
        )
        for agent, outcome, count, began, ended in zip(
            one.agent, one.outcome, one.count, one.began_ms, one.ended_ms, strict=True
        )
    ]


def _turn(turn: Turn, by_ms: int | None = None) -> dict[str, Any]:
    told: dict[str, Any] = {"at": turn.at_ms / 1000, "to": turn.verdict}
    return told if by_ms is None else {**told, "by_s": by_ms / 1000}


def shape(results: dict[TargetKey, Compared], dropped: int) -> dict[str, Any]:
    """The stable shape of a backtest in JSON."""
    return {
        "targets": [
            {
                "check": key.check,
                "address": key.address,
                "port": key.port,
                "same": [_turn(turn) for turn in one.same],
                "delayed": [_turn(*pair) for pair in one.delayed],
                "earlier": [_turn(*pair) for pair in one.earlier],
                "avoided": [_turn(turn) for turn in one.avoided],
                "added": [_turn(turn) for turn in one.added],
            }
            for key, one in results.items()
        ],
        "totals": _totals(results),
        "dropped": dropped,
    }


def _totals(results: dict[TargetKey, Compared]) -> dict[str, int]:
    names = ("same", "delayed", "earlier", "avoided", "added")
    return {name: sum(len(getattr(one, name)) for one in results.values()) for name in names}


def render(results: dict[TargetKey, Compared], dropped: int) -> str:
    """What would have been, as people read it."""
    blocks = []
    quiet = 0
    for key, one in results.items():
        lines = [
            *((turn, "avoided") for turn in one.avoided),
            *((turn, f"delayed by {show.span(by / 1000)}") for turn, by in one.delayed),
            *((turn, f"{show.span(by / 1000)} earlier") for turn, by in one.earlier),
            *((turn, "added") for turn in one.added),
            *((turn, "the same") for turn in one.same),
        ]
        if not lines:
            quiet += 1
            continue
        rows = [
            (show.clock(turn.at_ms / 1000), turn.verdict, said)
            for turn, said in sorted(lines, key=lambda line: line[0].at_ms)[:SHOWN]
        ]
        more = len(lines) - len(rows)
        name = f"{key.address}:{key.port}" if key.port else key.address
        table = show.table(("WHEN", "TO", "WOULD HAVE BEEN"), rows)
        blocks.append(f"{name}\n{table}" + (f"\nand {more} more" if more else ""))
    if quiet:
        blocks.append(f"{quiet} target{'s' if quiet > 1 else ''} without any turn")
    totals = ", ".join(f"{count} {name}" for name, count in _totals(results).items())
    blocks.append(f"turns: {totals}")
    if dropped:
        blocks.append(f"{dropped} runs of results found no room: the past is not whole")
    return "\n\n".join(blocks)
