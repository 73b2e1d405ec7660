"""`gtm explain`: the path from a client to its answer, with who was left out and why."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from gtm.v1 import operator_pb2 as pb

from .. import client, show

_SHOWN = frozenset(
    {"qname", "qtype", "client", "line", "instance", "rule", "tier", "pools", "candidates"}
    | {"possible_answers", "ttl", "scope", "revision"}
)


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
    who = told.get("client") or "a client of unknown place"
    lines = [f"{told['qname']} {told['qtype']} for {who}"]
    for label, key in (
        ("instance", "instance"),
        ("line", "line"),
        ("rule", "rule"),
        ("tier", "tier"),
        ("pools", "pools"),
    ):
        value = told.get(key)
        if value not in (None, "", [], 0):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"  {label:9} {text}")
    for candidate in told.get("candidates") or ():
        mark = show.colour("in ", "green") if candidate["in"] else show.colour("out", "red")
        lines.append(f"    {mark} {candidate['address']:<16} {candidate['why']}".rstrip())
    answers = [
        ", ".join(map(str, one)) if isinstance(one, list) else str(one)
        for one in told.get("possible_answers") or ()
    ]
    lines.append(f"  {'answer':9} " + (" | ".join(answers) if answers else "no address"))
    lines += [
        f"  {key:9} {value}"
        for key, value in told.items()
        if key not in _SHOWN and value not in (None, "", [], {}) and not isinstance(value, dict)
    ]
    lines.append(
        f"  ttl {told.get('ttl')} s, ECS scope {told.get('scope')}, revision {told.get('revision')}"
    )
    return "\n".join(lines)
