"""`gtm simulate`: who is answered what, and how the load spreads, under a what-if."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from coordinator.events import TargetKey
from gtm.errors import RefusedError, StartError
from gtm.model import Resources
from resolver.locate import open_locator

from .. import client, diff, files, show
from ..simulate import REGION, Outcome, Share, simulate
from ..votes import Heard, heard

MAX_CLIENTS = 10_000
"""The most clients of a file."""


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "answers and load shares under a what-if; nothing is touched"
    parser.add_argument(
        "paths", metavar="PATH", nargs="*", help="files of resources; none: what is stored"
    )
    parser.add_argument(
        "--down", metavar="X", action="append", default=[],
        help="POOL, POOL/ADDRESS, ADDRESS or region:NAME",
    )  # fmt: skip
    parser.add_argument(
        "--add", metavar="region:NAME", action="append", default=[],
        help="a region more: it counts among those that vote, and has no vote",
    )  # fmt: skip
    parser.add_argument(
        "--live", action="store_true",
        help="judge by the votes of now, not with everything healthy (of itself for what is "
        "stored, when a region is down or added)",
    )  # fmt: skip
    parser.add_argument(
        "--client", metavar="WHO[=SHARE]", action="append", default=[],
        help="a line, an address or a network, and its share of the load",
    )  # fmt: skip
    parser.add_argument("--clients", metavar="FILE", help="a client, or WHO=SHARE, on each line")
    parser.add_argument("--instance", metavar="NAME", action="append", default=[])
    parser.add_argument(
        "--load", metavar="N", help="the load of each instance in the unit of capacities"
    )
    parser.add_argument(
        "--geo", metavar="FILE", action="append", default=[], help="where addresses are"
    )
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")
    client.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Simulate and show; what is unknown is wrong use."""
    clients = [_share(text) for text in (*args.client, *_listed(args.clients))]
    load = _number(args.load, "--load") if args.load is not None else None
    regions = any(target.startswith(REGION) for target in (*args.down, *args.add))
    live = args.live or (regions and not args.paths)
    try:
        resources, known = asyncio.run(_asked(args, live))
    except RefusedError as error:
        diff.print_problems(error.problems)
        return 1
    try:
        outcome = simulate(
            resources,
            open_locator(tuple(args.geo)),
            down=args.down,
            clients=clients,
            instances=args.instance,
            load=load,
            added=args.add,
            known=known,
        )
    except (ValueError, LookupError) as error:
        raise StartError(str(error.args[0]), 2) from None
    print(show.as_json(plain(outcome)) if args.form == "json" else render(outcome))
    for warning in outcome.warnings:
        show.warn(f"warning: {warning}")
    return 0


async def _asked(
    args: argparse.Namespace, live: bool
) -> tuple[Resources, Mapping[TargetKey, Heard] | None]:
    """The resources of files, or what is stored; and the votes of now where they count."""
    resources = files.settled(files.read(args.paths)) if args.paths else None
    if resources is not None and not live:
        return resources, None
    async with client.Client.of(args) as asked:
        if resources is None:
            resources = await files.stored(asked)
        return resources, heard((await asked.verdicts()).verdicts) if live else None


def _share(text: str) -> Share:
    who, mark, weight = text.rpartition("=")
    return Share(who, _number(weight, f"the share of {who}")) if mark else Share(text)


def _number(text: str, what: str) -> Fraction:
    try:
        number = Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        number = Fraction(-1)
    if number < 0:
        raise StartError(f"{what}: {text!r} is no number from 0 on", 2)
    return number


def _listed(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"cannot read the clients in {path}: {error}", 2) from None
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if len(found) > MAX_CLIENTS:
        raise StartError(f"{path} lists more than {MAX_CLIENTS:,} clients", 2)
    return found


def plain(outcome: Outcome) -> dict[str, Any]:
    """The stable shape of `-o json`."""
    return {
        "answers": [
            {
                "instance": row.instance,
                "client": row.client,
                "type": row.type,
                "share": float(row.weight),
                "rule": row.answered.rule,
                "tier": row.answered.tier,
                "pools": list(row.answered.pools),
                "possible_answers": [list(values) for values, _ in row.answered.answers],
                "ttl": row.answered.ttl,
                "path": list(row.answered.path),
            }
            for row in outcome.rows
        ],
        "load": {
            name: {address: float(share) for address, share in sorted(shares.items())}
            for name, shares in outcome.load.items()
        },
        "warnings": list(outcome.warnings),
        "verdicts": [
            {
                "check": turn.target.check,
                "address": turn.target.address,
                "port": turn.target.port,
                "before": turn.before,
                "after": turn.after,
                "pending": turn.pending,
                "rule": turn.rule,
            }
            for turn in outcome.turns
        ],
    }


def render(outcome: Outcome) -> str:
    """Answers by client, the load by address, the verdicts that turn, as people read them."""
    rows = []
    for row in outcome.rows:
        found = row.answered
        rows.append(
            (
                row.instance,
                row.client,
                row.type,
                found.rule or "-",
                str(found.tier or "-"),
                ",".join(found.pools) or "-",
                " ".join(found.addresses) or "none",
            )
        )
    load = [
        (name, address, f"{float(share):.2%}")
        for name, shares in outcome.load.items()
        for address, share in sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    answers = ("INSTANCE", "CLIENT", "TYPE", "RULE", "TIER", "POOLS", "ADDRESSES")
    tables = [show.table(answers, rows), show.table(("INSTANCE", "ADDRESS", "LOAD"), load)]
    if outcome.turns:
        turned = [
            (
                turn.target.check,
                turn.target.address,
                str(turn.target.port),
                turn.before,
                f"{turn.after} (pending)" if turn.pending else turn.after,
                turn.rule,
            )
            for turn in outcome.turns
        ]
        heads = ("CHECK", "ADDRESS", "PORT", "NOW", "THEN", "RULE")
        tables.append(show.table(heads, turned))
    return "\n\n".join(tables)
