"""`gtm health`: verdicts with every region's vote and evidence, once or as they change."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

from gtm.v1 import operator_pb2 as pb

from .. import client, show

_WORDS = {pb.HEALTH_UP: "up", pb.HEALTH_DOWN: "down", pb.HEALTH_UNKNOWN: "unknown"}
_COLOURS = {"up": "green", "down": "red", "unknown": "yellow", "none": "dim"}


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "verdicts with every region's vote and evidence"
    parser.add_argument("filter", metavar="ADDRESS|POOL|INSTANCE", nargs="?", default="")
    parser.add_argument("--watch", action="store_true", help="then every verdict as it changes")
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")
    client.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and show; 1 where nothing has that name."""
    return asyncio.run(_watch(args) if args.watch else _list(args))


async def _list(args: argparse.Namespace) -> int:
    async with client.Client.of(args) as asked:
        verdicts = list((await asked.verdicts(args.filter)).verdicts)
    if args.form == "json":
        print(show.as_json([entry for verdict in verdicts for entry in shapes(verdict)]))
    elif verdicts:
        print("\n".join(render(verdict) for verdict in verdicts))
    else:
        print(f"no target is named {args.filter!r}" if args.filter else "there are no targets yet")
    return 1 if args.filter and not verdicts else 0


async def _watch(args: argparse.Namespace) -> int:
    """Verdicts until the link breaks (which raises) or the user ends it; JSON is one a line."""
    async with client.Client.of(args) as asked:
        async for message in asked.watch(args.filter):
            if args.form == "json":
                extra = {"initial": message.initial, "gone": message.gone}
                for entry in shapes(message.verdict):
                    print(json.dumps({**entry, **extra}), flush=True)
            else:
                clock = time.strftime("%H:%M:%S")
                text = render(message.verdict, votes=not message.initial)
                gone = " gone" if message.gone else ""
                print(f"{clock}{gone} {text}", flush=True)
    return 0


def shapes(verdict: pb.Verdict) -> list[dict[str, Any]]:
    """The stable shape of `gtm health -o json`: one entry for each pool that names the target."""
    why = dict(zip(verdict.pools, verdict.why, strict=False))
    return [
        {
            "pool": pool,
            "address": verdict.address,
            "port": verdict.port,
            "check": verdict.check,
            "verdict": _WORDS[verdict.verdict],
            "pending": verdict.pending,
            "wavering": verdict.wavering,
            "since": verdict.since,
            "forced": verdict.forced,
            "held": verdict.held,
            "regions": [
                {
                    "region": vote.region,
                    "vote": vote_word(vote),
                    "streak": vote.streak,
                    "reason": vote.reason,
                    "rtt_us": vote.rtt_us,
                    "age_s": round(vote.age_s, 3) if vote.age_s >= 0 else None,
                }
                for vote in verdict.regions
            ],
            "why": why.get(pool, ""),
            "rule": verdict.rule,
        }
        for pool in verdict.pools or ("",)
    ]


def vote_word(vote: pb.RegionVote) -> str:
    """`up`, `down` or `none`."""
    word = _WORDS[vote.vote]
    return "none" if word == "unknown" else word


def render(verdict: pb.Verdict, *, votes: bool = True) -> str:
    """One target as people read it: the verdict, then a line for each region."""
    word = _WORDS[verdict.verdict]
    port = f":{verdict.port}" if verdict.port else ""
    address = f"[{verdict.address}]" if port and ":" in verdict.address else verdict.address
    flags = [name for name in ("pending", "wavering", "forced", "held") if getattr(verdict, name)]
    marks = show.colour(f" ({', '.join(flags)})", "yellow") if flags else ""
    since = f" for {show.ago(verdict.since)}" if verdict.since else ""
    rule = f"; {verdict.rule}" if verdict.rule else ""
    inside = ", ".join(
        f"{pool} ({why})" if why and why != word else pool
        for pool, why in zip(
            verdict.pools, [*verdict.why, *[""] * len(verdict.pools)], strict=False
        )
    )
    head = (
        f"{show.colour(word.ljust(7), _COLOURS[word])} {address}{port}  check {verdict.check}, "
        f"in {inside}{since}{marks}{rule}"
    )
    if not votes:
        return head
    rows = [_row(vote) for vote in verdict.regions]
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(4)]
    lines = [
        "    "
        + "  ".join(
            (
                row[0].ljust(widths[0]),
                show.colour(row[1].ljust(4), _COLOURS[row[1]]),
                row[2].rjust(widths[2]),
                row[3].rjust(widths[3]),
                row[4],
            )
        ).rstrip()
        for row in rows
    ]
    return "\n".join((head, *lines))


def _row(vote: pb.RegionVote) -> tuple[str, str, str, str, str]:
    """Region, vote, streak, round trip, and what else there is to say."""
    age = f"{show.span(vote.age_s)} ago" if vote.age_s >= 0 else "no result yet"
    reason = f"{age}: {vote.reason}" if vote.reason else age
    return (vote.region, vote_word(vote), f"x{vote.streak}", show.rtt(vote.rtt_us), reason)
