"""`gtm get` and `gtm delete`: resources one by one, or all of them as an export."""

from __future__ import annotations

import argparse
import asyncio
import json
import uuid
from typing import Any

from gtm.errors import StartError
from gtm.model import KINDS, TYPES
from gtm.v1 import operator_pb2 as pb

from .. import client, diff, show

_SINGULAR = {kind.removesuffix("s"): kind for kind in KINDS}


def kind_of(word: str) -> str:
    """`pool` or `pools` as `pools`; StartError (2) for no kind there is."""
    kind = _SINGULAR.get(word, word)
    if kind not in TYPES:
        import difflib

        near = difflib.get_close_matches(word, [*TYPES, *_SINGULAR], 1, 0.5)
        hint = f"did you mean {near[0]!r}" if near else f"known are {', '.join(TYPES)}"
        raise StartError(f"there is no kind {word!r}; {hint}", 2)
    return kind


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags of `get` and `delete`."""
    parser.set_defaults(command=command)
    parser.add_argument("kind", metavar="KIND" if command == "delete" else "KIND|all")
    if command == "get":
        parser.description = "show resources; `gtm get all -o yaml` exports them"
        parser.add_argument("name", metavar="NAME", nargs="?", default="")
        parser.add_argument("-o", dest="form", choices=("table", "yaml", "json"), default="table")
    else:
        parser.description = "delete a resource that nothing else names"
        parser.add_argument("name", metavar="NAME")
        parser.add_argument("--allow-mass-change", action="store_true")
        parser.add_argument("--why", default="", metavar="TEXT", help="the reason, for the audit")
        parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")
    client.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, and show the answer."""
    return asyncio.run(_get(args) if args.command == "get" else _delete(args))


async def _get(args: argparse.Namespace) -> int:
    kind = "all" if args.kind == "all" else kind_of(args.kind)
    if kind == "all" and args.name:
        raise StartError("`gtm get all` takes no name; say the kind", 2)
    async with client.Client.of(args) as asked:
        response = await asked.get(kind, args.name)
    resources: dict[str, dict[str, Any]] = json.loads(response.resources or "{}")
    resources = {kind: resources[kind] for kind in KINDS if resources.get(kind)}
    if args.name and not resources:
        raise client.AnswerNo(f"there is no {args.name!r} among the {kind}; see gtm get {kind}")
    if args.form == "json":
        print(show.as_json(resources))
    elif args.form == "yaml":
        print(show.as_yaml(resources) if resources else "{}")
    else:
        rows = [
            (kind, name, _summary(kind, data))
            for kind, named in resources.items()
            for name, data in named.items()
        ]
        print(show.table(("KIND", "NAME", "WHAT"), rows) or "nothing is stored yet")
    return 0


def _summary(kind: str, data: dict[str, Any]) -> str:
    """A resource in a few words."""
    match kind:
        case "zones":
            return f"{len(data.get('records', ()))} static records"
        case "regions":
            return " ".join(data.get("lines", ()))
        case "checks":
            port = f" port {data['port']}" if "port" in data else ""
            return f"{data['type']}{port} every {data.get('interval', '15s')}"
        case "pools":
            values = [address["value"] for address in data.get("addresses", ())]
            more = f" and {len(values) - 4} more" if len(values) > 4 else ""
            return f"{data['type']}: {', '.join(values[:4])}{more}"
        case "instances":
            names = data.get("access_names") or [f"{data.get('id')}.{data.get('zone')}"]
            off = "" if data.get("enabled", True) else " (disabled)"
            return f"{', '.join(names)}: {len(data.get('rules', ()))} rules{off}"
    return ""


async def _delete(args: argparse.Namespace) -> int:
    kind = kind_of(args.kind)
    request = pb.DeleteRequest(
        kind=kind,
        name=args.name,
        allow_mass_change=args.allow_mass_change,
        request_id=uuid.uuid4().hex,
        who=client.user(),
        why=args.why,
    )
    async with client.Client.of(args) as asked:
        response = await asked.delete(request)
    return diff.outcome(response, args.form)
