"""`gtm health`: verdicts with every region's vote and evidence, once or as they change."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import re
import time
from typing import Any

from gtm.v1 import operator_pb2 as pb

from .. import client, show

_TARGET = re.compile(r"(?:\[([^\]]+)\]|([^:]+)):([0-9]{1,5})")
_WORDS = {pb.HEALTH_UP: "up", pb.HEALTH_DOWN: "down", pb.HEALTH_UNKNOWN: "unknown"}
_COLOURS = {"up": "green", "down": "red", "unknown": "yellow", "none": "dim"}


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "verdicts with every region's vote and evidence"
    parser.add_argument(
        "filter",
        metavar="ADDRESS|POOL|INSTANCE",
        nargs="?",
        default="",
        help="an address, alone or with its port, or what names it; a check's name will do too",
    )
    parser.add_argument("--watch", action="store_true", help="then every verdict as it changes")
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")
    client.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and show; 1 where nothing has that name."""
    return asyncio.run(_watch(args) if args.watch else _list(args))


def target(text: str) -> tuple[str, int | None]:
    """What to ask for, and the port where `text` is a target as it is shown: 192.0.2.1:80."""
    found = _TARGET.fullmatch(text)
    if found is None:
        return text, None
    try:
        return str(ipaddress.ip_address(found[1] or found[2])), int(found[3])
    except ValueError:
        return text, None


async def _list(args: argparse.Namespace) -> int:
    filter_, port = target(args.filter)
    there = True
    async with client.Client.of(args) as asked:
        verdicts = [
            verdict
            for verdict in (await asked.verdicts(filter_)).verdicts
            if port in (None, verdict.port)
        ]
        if args.filter and not verdicts:
            there = await _stored(asked, args.filter)
    if args.form == "json":
        print(show.as_json([entry for verdict in verdicts for entry in shapes(verdict)]))
    elif verdicts:
        print("\n".join(render(verdict) for verdict in verdicts))
    elif not args.filter:
        print("there are no targets yet")
    else:
        unknown = f"no target is named {args.filter!r}"
        print(f"nothing of {args.filter} is probed" if there else unknown)
    return 0 if there else 1


async def _stored(asked: client.Client, name: str) -> bool:
    """Whether a pool, an instance or a check is called so, whatever of it is probed."""
    try:
        stored = json.loads((await asked.get("all", name)).resources or "{}")
    except client.AnswerNo:
        return False
    return not {"pools", "instances", "checks"}.isdisjoint(stored)


async def _watch(args: argparse.Namespace) -> int:
    """Verdicts until the link breaks (which raises) or the user ends it; JSON is one a line."""
    filter_, port = target(args.filter)
    async with client.Client.of(args) as asked:
        async for message in asked.watch(filter_):
            if port not in (None, message.verdict.port):
                continue
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
            "penalty": verdict.penalty,
            "damped_since": verdict.damped_since,
            "unresolved_since": verdict.unresolved_since,
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
    if verdict.damped_since:
        flags.append("damped")
    if verdict.unresolved_since:
        flags.append(f"its name has not resolved for {show.ago(verdict.unresolved_since)}")
    if verdict.penalty >= 1:
        flags.append(f"penalty {verdict.penalty:.0f}")
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
    age = f"{show.span(vote.age_s)} ago" if vote.age_s >= 0 else ""
    reason = ": ".join(filter(None, (age, vote.reason))) or "no result yet"
    return (vote.region, vote_word(vote), f"x{vote.streak}", show.rtt(vote.rtt_us), reason)
