"""`deploy/lab/lab`: a lab up, down and broken, by commands.

Exit status 0 done, 1 it failed, 2 wrong use or missing rights; one sentence on stderr says why.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gtm.errors import StartError

from . import network, spaces, trust
from .lab import ROOT, Lab
from .nodes import CLIENT, NUMBERS, Shape


def main(argv: Sequence[str]) -> int:
    """Do what the command line says; the exit status."""
    args = _parser().parse_args(argv)
    try:
        lab = Lab(args.name)
        spaces.check_rights()
        status: int = args.run(lab, args)
        return status
    except StartError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="A lab of network namespaces.")
    parser.add_argument("--name", default="lab", help="which lab, where there are several")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(word: str, run: Callable[[Lab, argparse.Namespace], int], text: str) -> _Words:
        command = commands.add_parser(word, help=text, description=text)
        command.set_defaults(run=run)
        return command

    up = add("up", _up, "make a lab and start everything in it")
    up.add_argument("--insecure", action="store_true", help="links in the clear")
    for field in NUMBERS:
        flag = f"--{field.replace('_', '-')}"
        up.add_argument(flag, type=int, default=getattr(Shape(), field), metavar="N")
    add("down", _down, "end it, whatever state it is in")
    add("status", _status, "its nodes, and what is wrong with its network")
    inside = add("exec", _exec, "run a command in a node")
    inside.add_argument("node")
    inside.add_argument("command", nargs=argparse.REMAINDER)
    for word, text in (("cut", "let no packet pass"), ("heal", "let nothing be wrong any more")):
        pair = add(word, _cut if word == "cut" else _heal, f"{text} between nodes or groups")
        pair.add_argument("some", nargs=None if word == "cut" else "?", default="all")
        pair.add_argument("others", nargs=None if word == "cut" else "?", default="all")
        if word == "cut":
            pair.add_argument("--one-way", action="store_true", help="from the first alone")
    for word, amount in (("loss", "20%"), ("delay", "200ms")):
        pair = add(word, _loss if word == "loss" else _delay, f"{word} between nodes or groups")
        pair.add_argument("some")
        pair.add_argument("others")
        pair.add_argument("amount", help=f"such as {amount}; 0: none")
    for word, text in _TO_NODES.items():
        one = add(word, _to_nodes, text)
        one.add_argument("nodes", help="nodes or groups, joined by commas")
        one.set_defaults(word=word)
        if word == "start":
            one.add_argument("--clock", action="store_true", help="its clock can then be turned")
    clock = add("clock", _clock, "turn the clocks of programs that were started with --clock")
    clock.add_argument("nodes")
    clock.add_argument("offset_s", type=int, help="seconds from the real time")
    return parser


_Words = argparse.ArgumentParser
_TO_NODES = {
    "start": "start the programs of nodes",
    "kill": "kill -9 the programs of nodes",
    "stop": "SIGSTOP the programs of nodes",
    "cont": "SIGCONT them",
    "fill": "leave no room on the disks of nodes",
    "empty": "give their disks room again",
    "log": "what the programs of nodes have said",
}


def _up(lab: Lab, args: argparse.Namespace) -> int:
    lab.up(Shape(**{field: getattr(args, field) for field in Shape.__struct_fields__}))
    print(f"up: {len(lab.nodes)} nodes; `deploy/lab/lab status` names them")
    return 0


def _down(lab: Lab, args: argparse.Namespace) -> int:
    lab.down()
    return 0


def _status(lab: Lab, args: argparse.Namespace) -> int:
    named = {one.address: one.name for one in lab.nodes}
    for node in lab.nodes:
        groups = " ".join(sorted(node.groups))
        print(f"{node.name:16}{node.address:12}{lab.state(node):10}{groups}".rstrip())
    faults = lab.faults
    for word, given in (("loss", faults.loss), ("delay ms", faults.delay)):
        for (a, b), number in sorted(given.items()):
            print(f"{word} {number}: {named[a]} to {named[b]}")
    for a, b in sorted(faults.cut):
        print(f"cut: {named[a]} to {named[b]}")
    return 0


def _exec(lab: Lab, args: argparse.Namespace) -> int:
    command = args.command or [os.environ.get("SHELL", "/bin/sh")]
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path}
    if args.node == CLIENT:  # `gtm status` there needs no flag
        tls = trust.tls(lab.folder, trust.OPERATOR)
        shown = {"GTM_CA": tls.ca, "GTM_CERT": tls.cert, "GTM_KEY": tls.key}
        links = shown if tls else {"GTM_INSECURE": "1"}
        environ = {"GTM_SERVER": lab.coordinators[0], **links} | environ
    return subprocess.run(lab.inside(*command, node=args.node), env=environ).returncode


def _cut(lab: Lab, args: argparse.Namespace) -> int:
    lab.cut(args.some, args.others, one_way=args.one_way)
    return 0


def _heal(lab: Lab, args: argparse.Namespace) -> int:
    lab.heal(args.some, args.others)
    return 0


def _loss(lab: Lab, args: argparse.Namespace) -> int:
    lab.loss(args.some, args.others, network.percent(args.amount))
    return 0


def _delay(lab: Lab, args: argparse.Namespace) -> int:
    lab.delay(args.some, args.others, network.milliseconds(args.amount))
    return 0


def _to_nodes(lab: Lab, args: argparse.Namespace) -> int:
    for node in lab.chosen(args.nodes):
        if args.word == "start":
            lab.start(node, clock=args.clock)
        elif args.word == "log":
            print(lab.log(node.name), end="")
        else:
            getattr(lab, args.word)(node)
    return 0


def _clock(lab: Lab, args: argparse.Namespace) -> int:
    for node in lab.chosen(args.nodes):
        lab.turn(node, args.offset_s)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
