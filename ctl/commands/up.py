"""`gtm up`: everything on this machine."""

from __future__ import annotations

import argparse
import asyncio
import os

from gtm.settings import add_flags, load

from .. import up
from ..supervised import follow_parent


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """The flags of `up`'s settings; -c may be given more than once."""
    parser.description = "run etcd, a coordinator, agents and resolvers until SIGINT or SIGTERM"
    parser.add_argument(
        "-c", metavar="PATH", action="append", dest="more", default=[], help="the same as --config"
    )
    add_flags(parser, up.Settings)


def run(args: argparse.Namespace) -> int:
    """Run until told to stop."""
    follow_parent(os.environ)
    flags = vars(args)
    more = flags.pop("more")
    if more:
        flags["config"] = [*more, *flags.get("config", "").split(",")]
    return asyncio.run(up.run(load(up.Settings, flags, os.environ)))
