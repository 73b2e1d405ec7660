"""UDP queries answered past the kernel's network stack (AF_XDP), beside the ordinary sockets.

Decides which addresses go that way and says in one sentence why it can't be had. What is answered,
and what the kernel is asked, is `native/src/xdp.rs`.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gtm.errors import StartError
from gtm.telemetry import transition

if TYPE_CHECKING:
    from .native import NativeResponder

_log = logging.getLogger("resolver")
_DENIED = "no permission; give CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF, or leave --xdp out"
_REFUSED = "this kernel or driver has no AF_XDP; leave --xdp out"
_WHY = {
    errno.ENODEV: "this machine has no such interface; choose another",
    errno.EPERM: _DENIED,
    errno.EACCES: _DENIED,
    errno.EBUSY: "another program has it already; end that, or leave --xdp out",
    errno.ENOBUFS: "too little memory may be locked; raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity)",
    errno.EPROTONOSUPPORT: "it is no Ethernet; choose another interface",
    errno.EMSGSIZE: "it is too small for DNS; choose another interface",
    errno.ENOSYS: _REFUSED,
    errno.EAFNOSUPPORT: _REFUSED,
    errno.EOPNOTSUPP: _REFUSED,
}
"""By what the kernel says; the part that failed stands in front."""
WILDCARDS = ("0.0.0.0", "::")


class Express:
    """What is asked over UDP at our addresses and comes by one interface."""

    def __init__(self, responder: NativeResponder | None, interface: str) -> None:
        """StartError (2) without the native responder."""
        if responder is None:
            raise StartError(
                f"--xdp {interface} needs the native responder, which is not here; "
                "build it (make native), or leave --xdp out",
                2,
            )
        self._native, self._interface = responder.native, interface

    def open(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Begin to answer what is asked at `addresses`, until the responder ends UDP.

        Wildcards are left to their sockets: who else is meant by what passes here is not known.
        Raises StartError.
        """
        named = [one for one in addresses if one[0] not in WILDCARDS]
        if not named:
            raise StartError(
                f"--xdp {self._interface} answers at addresses, not at all of them; "
                "name them with --listen",
                2,
            )
        try:
            mode = self._native.serve_xdp(self._interface, named, int.from_bytes(os.urandom(8)))
        except OSError as error:
            why = _WHY.get(error.errno or 0, f"{os.strerror(error.errno or 0)}; leave --xdp out")
            raise StartError(f"--xdp {self._interface}: {error.strerror}: {why}") from error
        transition(
            _log, "answering past the network stack", interface=self._interface, mode=mode
        )  # fmt: skip
