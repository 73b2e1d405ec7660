"""Operators' tokens: a file of names, roles and hashes, read again when it changes.

    # name  role     SHA-256 of the token, in hexadecimal
    alice   operate  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

A token has 256 bits of chance in it (`gtm ca token` draws it), so a plain hash tells no more of it
than a slow one. Decides whom a token names; never keeps or logs a token.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from pathlib import Path

from gtm.errors import StartError
from gtm.telemetry import transition
from gtm.tls_identity import ROLES, Identity

MAX_BYTES = 1 << 20
"""The largest file of tokens."""
MAX_TOKEN_CHARS = 512
"""The longest token that is hashed."""

_HASH = re.compile(r"[0-9a-f]{64}")
log = logging.getLogger("coordinator")


class Tokens:
    """The tokens of the file at `path`; "" has none. `load` it before it is asked."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp = (0, 0, 0)
        self._known: dict[str, Identity] = {}

    def load(self) -> None:
        """Read the file. Raises StartError where that can't be done."""
        if self._path:
            self._stamp, self._known = self._stamped(), read(self._path)

    def holder(self, token: str) -> Identity | None:
        """Whom `token` names; None for nobody."""
        self._refresh()
        if not token or len(token) > MAX_TOKEN_CHARS:
            return None
        shown = hashlib.sha256(token.encode()).hexdigest()
        found = None
        for known, identity in self._known.items():  # all of them, in equal time
            if hmac.compare_digest(known, shown):
                found = identity
        return found

    def _refresh(self) -> None:
        """Read the file again if it has changed; what can't be read leaves the last good one."""
        if not self._path or (stamp := self._stamped()) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._known = read(self._path)
        except StartError as error:
            transition(log, "tokens stay as they were", logging.WARNING, why=error)
        else:
            transition(log, "tokens read again", tokens=len(self._known))

    def _stamped(self) -> tuple[int, int, int]:
        try:
            found = Path(self._path).stat()
        except OSError:
            return (0, 0, 0)
        return found.st_mtime_ns, found.st_ino, found.st_size


def read(path: str) -> dict[str, Identity]:
    """Hash -> whom it names; StartError (2) with the line that is wrong."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"cannot read the tokens in {path}: {error.strerror}", 2) from error
    if len(data) > MAX_BYTES:
        raise StartError(f"{path} has more than {MAX_BYTES} bytes of tokens", 2)
    found: dict[str, Identity] = {}
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        role = next((one for one in ROLES if len(words) == 3 and words[1] == one), None)
        if role is None or not _HASH.fullmatch(words[2]):
            raise StartError(
                f"{path}:{number}: not NAME {'|'.join(ROLES)} SHA256, as gtm ca token prints it", 2
            )
        try:
            found[words[2]] = Identity(kind="operator", name=words[0], role=role)
        except ValueError as error:
            raise StartError(f"{path}:{number}: {error}", 2) from None
    return found
