"""`gtm demo`: the seed story on real parts."""

from __future__ import annotations

import argparse

from .. import demo


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "show fail-over and recovery on this machine, step by step"
    parser.add_argument("--keep", action="store_true", help="leave it running afterwards")
    parser.add_argument(
        "--geo", metavar="FILE", default="", help="geo data; default: the embedded one"
    )


def run(args: argparse.Namespace) -> int:
    """Tell the story; 0 only if every step held."""
    return demo.run(keep=args.keep, geo=tuple(filter(None, args.geo.split(","))))
