"""The child's side of supervision: ends with its parent, begins when the parent lets it.

A supervised child imports what it needs while its parent still prepares the ground, and waits at
the gate until a line arrives on its standard input.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping

PARENT = "GTM_SUPERVISED_BY"
"""Variable with the process id of the supervisor."""
GATE = "GTM_SUPERVISED_GATE"
"""Variable that is set where the child waits for a line on standard input before it runs."""
_PR_SET_PDEATHSIG = 1


def follow_parent(environ: Mapping[str, str]) -> None:
    """Ask the kernel (Linux) for SIGTERM when the supervisor dies; exits if it already has."""
    parent = environ.get(PARENT, "")
    if not parent.isdecimal():
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        raise SystemExit(1)


def wait_gate() -> None:
    """Wait for the supervisor's line; exits where it ended instead."""
    if not sys.stdin.readline():
        raise SystemExit(1)
