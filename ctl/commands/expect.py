"""`gtm test`: expectations on routing, evaluated and proved against files of resources."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gtm import codec
from gtm.config import EXPECT, Reading
from gtm.errors import RefusedError, StartError
from resolver.locate import open_locator

from .. import diff, files, show
from ..prove import Result, prove


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "evaluate and prove the expectations that stand beside resources"
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file, or a folder of them")
    parser.add_argument(
        "--geo", metavar="FILE", action="append", default=[], help="where addresses are"
    )
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")


def run(args: argparse.Namespace) -> int:
    """Show each expectation with its result; 1 where one does not hold."""
    try:
        reading = files.read(args.paths)
        resources = files.settled(reading)
    except RefusedError as error:
        diff.print_problems(error.problems)
        return 1
    if not reading.expectations:
        raise StartError(f"there is no expectation under {EXPECT!r} in these files", 2)
    results = prove(resources, reading.expectations, open_locator(tuple(args.geo)))
    if args.form == "json":
        print(show.as_json([_plain(result) for result in results]))
    else:
        print(render(results, reading))
    return int(any(result.why for result in results))


def _plain(result: Result) -> dict[str, object]:
    return {
        "expectation": codec.plain(result.expectation),
        "holds": not result.why,
        "why": result.why,
        "cases": result.looked_at,
    }


def render(results: Sequence[Result], reading: Reading) -> str:
    """A line for each expectation, the counter-example under those that do not hold."""
    lines = []
    for number, result in enumerate(results):
        mark = show.colour("fails", "red") if result.why else show.colour("holds", "green")
        lines.append(f"{mark}  {result.expectation}  ({result.looked_at} cases)")
        if result.why:
            origin = reading.origins.get((EXPECT, f"{EXPECT}[{number}]"))
            where = f"{origin.file}:{origin.line}: " if origin else ""
            lines.append(f"       {where}{result.why}")
    failed = sum(bool(result.why) for result in results)
    lines.append(f"{len(results) - failed} of {len(results)} hold")
    return "\n".join(lines)
