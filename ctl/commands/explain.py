"""`gtm explain`: the path from a client to its answer, with who was left out and why."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from gtm.v1 import operator_pb2 as pb

from .. import client, show

MAX_ANSWERS_SHOWN = 8
"""Possible answers that the human form lists; `-o json` has them all."""


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "why a client gets the answer that it gets"
    parser.add_argument("name", metavar="NAME", help="an access name, a domain, or an instance")
    parser.add_argument("--client", metavar="IP", default="", help="address or network")
    parser.add_argument("--type", metavar="TYPE", default="A", help="default: A")
    parser.add_argument(
        "--at", metavar="REVISION", type=int, default=0, help="as of a revision of the store"
    )
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")
    client.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and show; 1 where nothing has that name."""
    told = json.loads(asyncio.run(_ask(args)))
    print(show.as_json(told) if args.form == "json" else render(told))
    return 0


async def _ask(args: argparse.Namespace) -> str:
    request = pb.ExplainRequest(
        name=args.name, client=args.client, type=args.type.upper(), revision=args.at
    )
    async with client.Client.of(args) as asked:
        return await asked.explain(request)


def render(told: dict[str, Any]) -> str:
    """An explanation as people read it, from the question down to the answer."""
    who = told["client"] or "a client whose place is unknown"
    place = f" ({told['place']})" if told.get("place") and told["client"] else ""
    lines = [f"{told['qname']} {told['qtype']} for {who}{place}"]
    if told.get("through"):
        lines.append(_row("through", " -> ".join((*told["through"], told["qname"]))))
    for key in ("instance", "line", "rule", "tier", "pools"):
        value = told.get(key)
        if value not in (None, "", [], 0):
            lines.append(_row(key, ", ".join(value) if isinstance(value, list) else str(value)))
    lines += [_row("because" if not at else "", text) for at, text in enumerate(told["path"])]
    lines += [
        _row("members" if not at else "", text)
        for at, text in enumerate(map(_candidate, told["candidates"]))
    ]
    answers = _answers(told["possible_answers"], told.get("chances") or [])
    lines += [_row("answer" if not at else "", text) for at, text in enumerate(answers)]
    origin = f" ({told['ttl_from']})" if told.get("ttl_from") else ""
    ttl = "" if told["ttl"] is None else f"TTL {told['ttl']} s{origin}, "
    lines.append(_row("", f"{ttl}ECS scope /{told['scope']}, revision {told['revision']}"))
    return "\n".join(lines)


def _row(label: str, text: str) -> str:
    return f"  {label:9} {text}".rstrip()


def _candidate(candidate: dict[str, Any]) -> str:
    mark = show.colour("in ", "green") if candidate["in"] else show.colour("out", "red")
    where = f"{candidate['pool']}: " if candidate.get("pool") else ""
    votes = "; ".join(map(_votes, candidate.get("checks", ())))
    behind = f" ({votes})" if votes else ""
    return f"{mark} {candidate['address']}  {where}{candidate['why']}{behind}"


def _votes(check: dict[str, Any]) -> str:
    """What the regions say of one check of a candidate."""
    regions = [
        f"{one['region']} {one['vote']}" + (f" {one['reason']}" if one["reason"] else "")
        for one in check["regions"]
    ]
    return f"{check['check']}: {', '.join(regions)}"


def _answers(possible: list[list[str]], chances: list[str]) -> list[str]:
    """The possible answers in words; those that differ in their order alone are one."""
    if not any(possible):
        return ["no address"]
    if len({frozenset(one) for one in possible}) == 1:
        turns = ", in turning order" if len(possible) > 1 else ""
        if turns and len(set(chances)) == 1:
            turns += f", each order with chance {chances[0]}"
        return [f"{' '.join(possible[0])}{turns}"]
    rows = [
        f"{' '.join(one) or 'no address'}" + (f"  (chance {chances[at]})" if chances else "")
        for at, one in enumerate(possible[:MAX_ANSWERS_SHOWN])
    ]
    more = len(possible) - MAX_ANSWERS_SHOWN
    return [*rows, f"and {more} more"] if more > 0 else rows
