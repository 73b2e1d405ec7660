"""Runs a program of ours in the client of a lab, and makes the lab where it is not there."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import spaces
from .lab import ROOT, Lab
from .nodes import CLIENT, Shape


def enter(
    lab: Lab, module: str, argv: Sequence[str], make: Callable[[], None] | None = None
) -> int | None:
    """Run `module` in the namespace of the lab's client; its status, None where we are inside.

    A lab that is not there is made (by `make`, else an ordinary one), and taken down again.
    """
    if _inside(lab):
        return None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    ours = not lab.spaces.there()
    if ours:
        make() if make is not None else lab.up(Shape())
    try:
        command = lab.inside(sys.executable, "-m", module, *argv)
        return subprocess.run(command, cwd=ROOT).returncode
    finally:
        if ours:
            lab.down()


def _inside(lab: Lab) -> bool:
    try:
        there = (spaces.NETNS / lab.spaces.name(CLIENT)).stat()
    except OSError:
        return False
    return Path("/proc/self/ns/net").stat().st_ino == there.st_ino
