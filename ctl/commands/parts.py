"""`gtm coordinator`, `gtm agent`, `gtm resolver`: one part, until SIGINT or SIGTERM.

The composition root of a part: fills its settings, hands the coordinator its policy, and ends it
when told to. A part that `gtm up` started ends with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
from types import ModuleType
from typing import Any

from gtm import grpc_log, telemetry
from gtm.settings import add_flags, load

from ..supervised import GATE, follow_parent, wait_gate


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """The flags of the part's settings."""
    settings = importlib.import_module(f"{command}.settings")
    parser.description = (settings.__doc__ or "").strip().splitlines()[0]
    parser.set_defaults(part=command)
    add_flags(parser, settings.Settings)
    parser.add_argument(
        "--log-level",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        default=os.environ.get("GTM_LOG_LEVEL", "INFO"),
        help="what is logged (default: INFO)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the part; 0 when it ended because it was told to."""
    follow_parent(os.environ)
    flags = vars(args)
    part = flags.pop("part")
    grpc_log.divert()
    telemetry.setup(flags.pop("log_level"))
    settings = importlib.import_module(f"{part}.settings")
    filled = load(settings.Settings, flags, os.environ)
    module = importlib.import_module(f"{part}.part")
    if filled.cert:
        importlib.import_module("cryptography.x509")  # it takes a moment, so before the gate
    if os.environ.get(GATE):
        wait_gate()
    _runner()(_until_told(part, module, filled))
    return 0


def _runner() -> Any:
    """uvloop's `run` where it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


async def _until_told(part: str, module: ModuleType, settings: Any) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    if part != "coordinator":
        await module.run(settings, stop)
        return
    from ..policy import ChildPolicy

    policy = ChildPolicy(settings.geo)
    warming = loop.create_task(policy.warm())
    warming.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        await module.run(settings, policy, stop)
    finally:
        warming.cancel()
        await policy.close()
