"""A word to the service manager (sd_notify(3)), where one listens. Decides nothing."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*states: str) -> None:
    """Tell the manager `states` such as `READY=1`; silent where there is none, or it is deaf."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        sock.send("\n".join(states).encode())
