"""`gtm force` and `gtm release`: an operator's word before health's, for a time, with a reason."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

from gtm.errors import StartError
from gtm.units import Duration
from gtm.v1 import operator_pb2 as pb

from .. import client, show

DEFAULT_S = 24 * 3600.0
"""How long a force lasts when nothing else is said."""
ACTIONS = ("up", "down", "drain", "pin", "mute")


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags of the two."""
    parser.set_defaults(command=command)
    parser.add_argument(
        "target", metavar="TARGET", help="POOL/ADDRESS, POOL, INSTANCE/RULE or region:NAME"
    )
    if command == "force":
        parser.description = "override what health decides, until it ends or is released"
        parser.add_argument(
            "action",
            choices=ACTIONS,
            help="up: answered whatever health says; down: out; drain: out of answers without a "
            "failover while others are in; pin N: a rule stays in tier N; mute: a region has no "
            "votes",
        )
        parser.add_argument("tier", metavar="N", nargs="?", type=int, default=0)
        parser.add_argument("--why", required=True, metavar="TEXT", help="the reason, for others")
        ends = parser.add_mutually_exclusive_group()
        ends.add_argument("--for", dest="lasts", metavar="TIME", help="such as 2h; default: 24h")
        ends.add_argument("--keep", action="store_true", help="until it is released")
    else:
        parser.description = "end a force, a hold of the guard, or a manual failback of a rule"
        parser.add_argument("--why", default="", metavar="TEXT", help="the reason, for the log")
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")
    client.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Ask for it and tell what stands."""
    return asyncio.run(_force(args) if args.command == "force" else _release(args))


async def _force(args: argparse.Namespace) -> int:
    if args.target.startswith("region:") is not (args.action == "mute"):
        muted = args.action == "mute"
        told = "only a region can be muted: region:NAME" if muted else "a region can only be muted"
        raise StartError(told, 2)
    if args.action == "pin" and args.tier < 1:
        raise StartError("pin takes the number of a tier, counted from 1", 2)
    if args.action != "pin" and args.tier:
        raise StartError(f"{args.action} takes no number; only pin does", 2)
    request = pb.ForceRequest(
        target=args.target,
        action=args.action,
        tier=args.tier,
        who=client.user(),
        why=args.why,
        for_s=0.0 if args.keep else _lasts_s(args.lasts),
    )
    async with client.Client.of(args) as asked:
        force = (await asked.force(request)).force
    if args.form == "json":
        print(show.as_json(shape(force)))
    else:
        print(f"{force.target}: {action(force)}, {until(force)}")
    return 0


async def _release(args: argparse.Namespace) -> int:
    request = pb.ReleaseRequest(target=args.target, who=client.user(), why=args.why)
    async with client.Client.of(args) as asked:
        released = await asked.release(request)
    ended = released.force if released.HasField("force") else None
    if args.form == "json":
        told = {
            "force": shape(ended) if ended else None,
            "failback": released.failback,
            "hold": released.hold,
        }
        print(show.as_json(told))
        return 0
    if ended:
        print(f"{ended.target}: {action(ended)} is over")
    if released.hold:
        print(f"{args.target}: held no more, so it leaves the answers while it is down")
    if released.failback:
        print(f"{args.target}: the first available tier takes over")
    return 0


def _lasts_s(text: str | None) -> float:
    if text is None:
        return DEFAULT_S
    try:
        lasts = Duration.parse(text)
    except ValueError as error:
        raise StartError(f"--for {error}", 2) from None
    if not lasts.ms:
        raise StartError("--for 0s would end at once; say --keep for a force without an end", 2)
    return lasts.s


def action(force: pb.StandingForce) -> str:
    """What a force does: `drain`, `pin 2`."""
    return f"{force.action} {force.tier}" if force.tier else force.action


def until(force: pb.StandingForce) -> str:
    """When it ends."""
    if not force.until:
        return "until it is released"
    return f"for {show.span(max(0.0, force.until - time.time()))}"


def shape(force: pb.StandingForce) -> dict[str, Any]:
    """The stable shape of a force in JSON; `until` is 0 where it has no end."""
    return {
        "target": force.target,
        "action": force.action,
        "tier": force.tier,
        "who": force.who,
        "why": force.why,
        "since": force.since,
        "until": force.until,
    }
