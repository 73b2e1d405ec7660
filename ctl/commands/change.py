"""`gtm validate`, `gtm plan`, `gtm apply`: files of resources, checked, compared, made so."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from collections.abc import Sequence

from gtm import heap
from gtm.config import Reading
from gtm.errors import RefusedError, StartError, UnreachableError
from gtm.ports import Problem
from gtm.v1 import operator_pb2 as pb

from .. import client, diff, files, show

_ABOUT = {
    "validate": "check files of resources without touching anything",
    "plan": "show what apply would change",
    "apply": "make the stored resources those of files; what they don't name stays",
}


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags of the three."""
    parser.description = _ABOUT[command]
    parser.set_defaults(command=command)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file, or a folder of them")
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")
    if command == "validate":
        return
    parser.add_argument("--prune", action="store_true", help="delete what the files don't name")
    parser.add_argument("--atomic", action="store_true", help="one transaction or nothing")
    parser.add_argument(
        "--allow-mass-change",
        action="store_true",
        help="even where more than 20 %% and more than 5 of what serves goes away",
    )
    if command == "apply":
        parser.add_argument("--yes", action="store_true", help="don't ask")
        parser.add_argument("--why", default="", metavar="TEXT", help="the reason, for the audit")
    client.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Run one of the three."""
    with heap.uncollected():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    if args.command == "validate":
        return _validate(args)
    if args.command == "apply" and not args.yes and not sys.stdin.isatty():
        raise StartError("apply asks before it changes anything: give --yes off a terminal", 2)
    work = _plan if args.command == "plan" else _apply
    try:
        reading = files.outlined(args.paths)
        try:
            return asyncio.run(work(args, reading))
        except UnreachableError:
            files.read(args.paths)  # what is wrong by itself can be told all the same
            raise
    except RefusedError as error:
        return _wrong(error.problems, args.form)


def _wrong(problems: Sequence[Problem], form: str) -> int:
    """Show what is wrong with a set; 1, or 0 with warnings alone."""
    errors = sum(problem.severity == "error" for problem in problems)
    if form == "json":
        print(show.as_json([diff.problem_json(problem) for problem in problems]))
    else:
        diff.print_problems(problems)
        if errors:
            print(f"gtm: {errors} error{'s' if errors > 1 else ''}", file=sys.stderr)
    return 1 if errors else 0


def _validate(args: argparse.Namespace) -> int:
    from ..validate import review_files

    review = review_files(args.paths)
    status = _wrong(review.problems, args.form)
    if status == 0 and args.form != "json" and review.resources is not None:
        counts = [f"{len(named)} {kind}" for kind, named in files.plain(review.resources).items()]
        print(f"valid: {', '.join(counts) or 'nothing in it'}")
    return status


def _request(args: argparse.Namespace, reading: Reading) -> pb.ApplyRequest:
    return pb.ApplyRequest(
        resources=json.dumps({**files.given(reading), **files.expected(reading)}),
        prune=args.prune,
        atomic=args.atomic,
        allow_mass_change=args.allow_mass_change,
        request_id=uuid.uuid4().hex,
        who=client.user(),
        why=getattr(args, "why", ""),
    )


async def _plan(args: argparse.Namespace, reading: Reading) -> int:
    async with client.Client.of(args) as asked:
        response = await asked.plan(_request(args, reading))
    problems = files.located(response.problems, reading)
    errors = any(problem.severity == "error" for problem in problems)
    if args.form == "json":
        shape = {
            "problems": [diff.problem_json(problem) for problem in problems],
            "changes": [diff.change_json(change) for change in response.changes],
            "refusal": response.refusal,
            "transactions": response.transactions,
            "generation": response.generation,
            "effects": diff.effects_json(diff.effects(response)),
        }
        print(show.as_json(shape))
        return 1 if errors or response.refusal else 0
    return 0 if _show_plan(response, problems) else 1


def _show_plan(response: pb.PlanResponse, problems: Sequence[Problem]) -> bool:
    """Show a plan as people read it; whether apply would do it."""
    if _wrong(problems, "table"):
        return False
    if response.changes:
        print(diff.render(response.changes))
        print(diff.render_effects(diff.effects(response)), end="")
    print(diff.counted(response.changes), flush=True)
    if response.refusal:
        print(f"gtm: refused: {response.refusal}", file=sys.stderr)
    return not response.refusal


async def _apply(args: argparse.Namespace, reading: Reading) -> int:
    request = _request(args, reading)
    async with client.Client.of(args) as asked:
        if args.form != "json":
            plan = await asked.plan(request)
            if not _show_plan(plan, files.located(plan.problems, reading)):
                return 1
            if not plan.changes:
                return 0
            if not args.yes and not _agreed():
                print("nothing was changed")
                return 1
            request.generation = plan.generation
        response = await asked.apply(request)
    return diff.outcome(response, args.form, files.located(response.problems, reading))


def _agreed() -> bool:
    """Ask on the terminal."""
    try:
        return input("Apply this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
