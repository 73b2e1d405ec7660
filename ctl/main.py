"""The command `gtm`: finds the command's module, runs it, and turns what happens into a status.

0 done, 1 the answer is no, 2 wrong use, 3 could not reach a part. What goes wrong is one sentence
on stderr, never a trace unless GTM_DEBUG is set. A command's module is imported when it is asked
for, so that a part starts with what it needs alone.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from gtm.errors import GtmError, RefusedError, StartError, StoreError, UnreachableError

COMMANDS = {
    "up": ("up", "run everything on this machine: etcd, coordinator, agents, resolvers"),
    "demo": ("demo", "show fail-over and recovery on this machine, step by step"),
    "coordinator": ("parts", "run a coordinator"),
    "agent": ("parts", "run an agent of one region"),
    "resolver": ("parts", "run a resolver (an authoritative DNS server)"),
    "validate": ("change", "check files of resources without touching anything"),
    "plan": ("change", "show what apply would change"),
    "apply": ("change", "make the stored resources those of files"),
    "get": ("resource", "show or export resources"),
    "delete": ("resource", "delete a resource"),
    "force": ("force", "override what health decides about an address, a pool or a rule"),
    "release": ("force", "end a force, or a manual failback"),
    "backtest": ("backtest", "recent results judged again with other thresholds"),
    "status": ("status", "members, leader, revisions, alarms, each resolver's lag"),
    "health": ("health", "verdicts with every region's vote and evidence"),
    "history": ("history", "what changed, with its clock; what operators did, verified"),
    "explain": ("explain", "why a client gets the answer that it gets"),
    "simulate": ("simulate", "answers and load shares under a what-if, nothing touched"),
    "test": ("expect", "evaluate and prove expectations on routing"),
    "ca": ("ca", "make an authority, issue and renew certificates, draw tokens"),
    "geo": ("geo", "compare geo files, and put one in place by the resolvers' own check"),
    "version": ("version", "print the version"),
}
"""Command -> (module under ctl.commands, what it does)."""
PARTS = {"coordinator", "agent", "resolver"}
"""Commands that run a part."""


class Parser(argparse.ArgumentParser):
    """argparse, saying what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit 2 with one sentence."""
        self.exit(2, f"gtm: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # children exec; it only writes notes
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # of a child waited for twice it warns
    if PARTS & set(arguments):  # they make lines of their own of what gRPC's core says
        os.environ.pop("GRPC_VERBOSITY", None)
    else:
        os.environ["GRPC_VERBOSITY"] = "NONE"
    try:
        return _run(arguments)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("GTM_DEBUG"):
            raise
        sentence, status = verdict(error)
        print(f"gtm: {sentence}", file=sys.stderr)
        return status


def verdict(error: Exception) -> tuple[str, int]:
    """What an exception that ended a command is to the user: the text and the exit status."""
    match error:
        case StartError():
            return str(error), error.status
        case RefusedError():
            return "\n".join(str(problem) for problem in error.problems), 1
        case UnreachableError() | StoreError():
            return str(error), 3
        case GtmError():
            return str(error), 1
    return (
        f"unexpected {type(error).__name__}: {str(error) or 'no text'}; "
        "run it again with GTM_DEBUG=1 for the trace"
    ), 1


def _run(arguments: list[str]) -> int:
    command, rest = _split(arguments)
    module = importlib.import_module(f".commands.{COMMANDS[command][0]}", __package__)
    parser = Parser(prog=f"gtm {command}", allow_abbrev=False)
    module.add(command, parser)
    return int(module.run(parser.parse_args(rest)))


def _split(arguments: list[str]) -> tuple[str, list[str]]:
    """The command, and all other arguments; options may stand before the command."""
    top = Parser(prog="gtm", add_help=False, allow_abbrev=False)
    for flag in ("--server", "--ca", "--cert", "--key", "--token", "-o"):
        top.add_argument(flag, default=None)
    top.add_argument("--insecure", action="store_true", default=None)
    top.add_argument("-h", "--help", action="store_true")
    top.add_argument("--version", action="store_true")
    top.add_argument("rest", nargs=argparse.REMAINDER)
    given = vars(top.parse_args(arguments))
    rest = given.pop("rest")
    if given.pop("version"):
        return "version", []
    if given.pop("help") or not rest or rest == ["help"]:
        print(usage(), file=sys.stderr if not arguments else sys.stdout)
        raise SystemExit(0 if arguments else 2)
    command, *rest = rest
    if command not in COMMANDS:
        top.error(f"there is no command {command!r}{_nearest(command)}")
    for name, value in given.items():
        if value is not None:
            flag = "-o" if name == "o" else f"--{name}"
            rest = [flag, *([] if value is True else [value]), *rest]
    return command, rest


def _nearest(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, 1, 0.5)
    return f"; did you mean {near[0]!r}" if near else ""


def usage() -> str:
    """The text of `gtm --help`."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: gtm [--server ADDR] [--ca FILE --cert FILE --key FILE | --insecure] "
        "[-o FORM] COMMAND ...\n\n"
        f"{rows}\n\n"
        "gtm COMMAND --help tells more. Exit status: 0 done, 1 the answer is no, 2 wrong use,\n"
        "3 could not reach a part."
    )
