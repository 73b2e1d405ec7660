"""`gtm geo`: what other geo data would change, and putting them in place."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from typing import Any

import msgspec

from gtm.errors import RefusedError, StartError
from gtm.model import Resources
from gtm.units import Share
from resolver.locate import BrokenFile, open_locator
from resolver.moves import MOVE_LIMIT, Moves, moves, percent
from resolver.place import Geography

from .. import client, diff, files, show
from ..geo_diff import Flow, country_flows, number_flows, rule_flows
from ..geo_install import install

ROWS = 20
"""Rows of each table that are shown unless told otherwise."""


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags of both."""
    parser.usage = "gtm geo diff OLD NEW [...] | gtm geo install NEW PATH [...]"
    parser.description = (
        "diff: what NEW in place of OLD would change; each is a geo file, or several with commas. "
        "install: put NEW in place of PATH, as resolvers name it, unless it moves too much"
    )
    parser.add_argument("action", choices=("diff", "install"))
    parser.add_argument("first", metavar="OLD|NEW")
    parser.add_argument("second", metavar="NEW|PATH")
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")
    told = parser.add_argument_group("diff")
    told.add_argument(
        "-c", "--against", metavar="PATH", nargs="+", action="extend", default=[],
        help="files of resources: which clients go from which rule to which",
    )  # fmt: skip
    told.add_argument(
        "--stored", action="store_true", help="the same by the stored resources, as with --server"
    )
    told.add_argument(
        "--instance", metavar="NAME", action="append", default=[], help="its rules alone"
    )
    told.add_argument(
        "--rows", metavar="N", type=int, default=ROWS, help=f"of each table (default: {ROWS})"
    )
    put = parser.add_argument_group("install")
    put.add_argument(
        "--limit", metavar="SHARE", default=str(Share(MOVE_LIMIT)),
        help="part of known clients that may move (default: 20%%)",
    )  # fmt: skip
    put.add_argument(
        "--force", action="store_true", help="whatever it moves, and have resolvers take it"
    )
    client.add_flags(parser)
    parser.set_defaults(server=None)


def run(args: argparse.Namespace) -> int:
    """Compare, or install."""
    return _diff(args) if args.action == "diff" else _install(args)


def _install(args: argparse.Namespace) -> int:
    text = args.limit.strip()
    try:
        limit = Share.parse(text if text.endswith("%") else float(text)).of_one
    except ValueError:
        raise StartError(f"--limit: {text!r} is not a share such as 20% or 0.2", 2) from None
    moved = install(args.first, args.second, limit, force=args.force)
    if args.form == "json":
        print(show.as_json({"installed": args.second, "moves": moved and _moves(moved)}))
    else:
        told = "nothing sound was there before" if moved is None else _told(moved)
        print(f"{args.first} is installed as {args.second}: {told}")
    return 0


def _diff(args: argparse.Namespace) -> int:
    if args.rows < 1:
        raise StartError(f"--rows {args.rows}: show one row at least", 2)
    old, new = _geography(args.first), _geography(args.second)
    try:
        resources = _resources(args)
    except RefusedError as error:
        diff.print_problems(error.problems)
        return 1
    if resources is not None and (absent := set(args.instance) - resources.instances.keys()):
        raise StartError(f"there is no instance {min(absent)!r}", 2)
    tables = {"countries": country_flows(old, new), "numbers": number_flows(old, new)}
    if resources is not None:
        tables["rules"] = rule_flows(old, new, resources, args.instance)
    moved = moves(old, new)
    if args.form == "json":
        print(show.as_json(plain(moved, tables, args.rows)))
    else:
        print(render(moved, tables, args.rows))
    return 0


def _geography(text: str) -> Geography:
    paths = tuple(filter(None, text.split(",")))
    if not paths:
        raise StartError("name geo files to compare", 2)
    try:
        return open_locator(paths).geography
    except BrokenFile as error:
        raise StartError(f"{error.reason}; name a sound one", 2) from None


def _resources(args: argparse.Namespace) -> Resources | None:
    """The resources to compare by, if any."""
    if args.against:
        return files.settled(files.read(args.against))
    if args.stored or args.server:
        return asyncio.run(_stored(args))
    return None


async def _stored(args: argparse.Namespace) -> Resources:
    args.server = args.server or os.environ.get("GTM_SERVER") or client.DEFAULT_SERVER
    async with client.Client.of(args) as asked:
        return await files.stored(asked)


def plain(moved: Moves, tables: dict[str, list[Flow]], rows: int) -> dict[str, Any]:
    """The stable shape of `-o json`."""
    return {
        "moves": _moves(moved),
        **{
            name: {
                "flows": [_plain(flow, name) for flow in flows[:rows]],
                "left_out": max(0, len(flows) - rows),
            }
            for name, flows in tables.items()
        },
    }


def _moves(moved: Moves) -> dict[str, float]:
    return msgspec.structs.asdict(moved)


def _plain(flow: Flow, table: str) -> dict[str, Any]:
    by_rule = {
        "instance": flow.instance,
        "from_pools": list(flow.pools_before),
        "to_pools": list(flow.pools_after),
    }
    return {
        "from": flow.before,
        "to": flow.after,
        **(by_rule if table == "rules" else {}),
        "v4_addresses": flow.v4_addresses,
        "v6_48s": flow.v6_48s,
        "samples": list(flow.samples),
    }


_HEADS = {
    "countries": ("COUNTRY",),
    "numbers": ("AS NUMBER",),
    "rules": ("INSTANCE", "RULE", "POOLS"),
}
_SIZES = ("IPV4 ADDRESSES", "IPV6 /48S", "SUCH AS")


def render(moved: Moves, tables: dict[str, list[Flow]], rows: int) -> str:
    """What moves as people read it: parts of the whole, then a table of each kind."""
    blocks = [_told(moved)]
    for name, flows in tables.items():
        if flows:
            head = (*_HEADS[name], *_SIZES)
            table = show.table(head, [_row(flow, name) for flow in flows[:rows]])
            more = len(flows) - rows
            blocks.append(table + (f"\nand {more} more" if more > 0 else ""))
        elif name == "rules":
            blocks.append("no client goes to another rule")
    return "\n\n".join(blocks)


def _row(flow: Flow, table: str) -> Sequence[str]:
    first = [f"{flow.before or 'unknown'} -> {flow.after or 'unknown'}"]
    if table == "rules":
        pools = (",".join(pools) or "none" for pools in (flow.pools_before, flow.pools_after))
        first = [flow.instance, *first, " -> ".join(pools)]
    return (
        *first,
        f"{flow.v4_addresses:,}",
        f"{flow.v6_48s:,.0f}" if flow.v6_48s >= 1 or not flow.v6_48s else "< 1",
        " ".join(flow.samples),
    )


def _told(moved: Moves) -> str:
    """Moves in a sentence."""
    if moved == Moves():
        return "nobody moves to another country or AS number"
    return (
        f"to another country or AS number moves, of what is known, {percent(moved.v4_space)} of "
        f"the IPv4 address space ({percent(moved.v4_networks)} of the networks) and "
        f"{percent(moved.v6_space)} of IPv6 ({percent(moved.v6_networks)})"
    )
