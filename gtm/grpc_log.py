"""What gRPC's core writes to stderr by itself: failed TLS handshakes, handed to who wants them.

gRPC tells Python nothing of a handshake that fails, but it writes a line, past `logging` and as
often as a stranger knocks. Here stderr becomes a pipe: those lines go to `on_failure`, all others
where stderr went before. Decides which lines those are, and what they mean.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable

from msgspec import Struct

_LINE = re.compile(rb"ssl_transport_security\S* Handshake failed with (.*)$")
_MEANINGS = (
    ("certificate has expired", "expired", "a certificate that has ended"),
    ("certificate is not yet valid", "early", "a certificate that does not hold yet"),
    ("unable to get local issuer", "authority", "a certificate of another authority"),
    ("self signed", "authority", "a certificate that nobody signed"),
    ("self-signed", "authority", "a certificate that nobody signed"),
    ("CERTIFICATE_VERIFY_FAILED", "certificate", "a certificate that does not hold"),
    ("DID_NOT_RETURN_A_CERTIFICATE", "none", "no certificate"),
    ("WRONG_VERSION_NUMBER", "clear", "something that is not TLS"),
    ("HTTP_REQUEST", "clear", "something that is not TLS"),
)
"""(a part of BoringSSL's words, a word for metrics, what was shown in a handshake)."""


class Failure(Struct, frozen=True):
    """A handshake that failed: a word from a small set, and what was shown."""

    reason: str
    shown: str


on_failure: Callable[[Failure], None] = lambda failure: None  # noqa: E731
"""Called for each failed handshake, by a thread of its own; a part may set it."""


def meaning(line: bytes) -> Failure | None:
    """The failed handshake that a line tells of; None for any other line."""
    found = _LINE.search(line.rstrip())
    if found is None:
        return None
    text = found[1].decode(errors="replace")
    for words, reason, shown in _MEANINGS:
        if words in text:
            return Failure(reason, shown)
    return Failure("other", text[:200])


def divert() -> None:
    """Take the lines out of stderr from now on, for the life of the process."""
    reading, writing = os.pipe()
    kept = os.dup(2)
    os.dup2(writing, 2)
    os.close(writing)
    sys.stderr = os.fdopen(kept, "w", buffering=1, errors="backslashreplace")
    threading.Thread(target=_sort, args=(reading, os.dup(kept)), daemon=True).start()


def _sort(reading: int, rest: int) -> None:
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            failure = meaning(line)
            try:
                if failure is None:
                    os.write(rest, line)
                else:
                    on_failure(failure)
            except Exception:  # who reads stderr must go on, or who writes it stops
                continue
