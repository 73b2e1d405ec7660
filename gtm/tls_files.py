"""PEM files of a link: read, held against each other, and read again when they change.

Decides which certificate a link shows now: the newest whose key fits it, so that files that are
being replaced one after the other are never used half. Opens no connection (see `links`), makes no
certificate (see `tls_issue`), and asks nothing of a certificate but when it ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

from msgspec import Struct

from gtm.errors import StartError
from gtm.telemetry import transition

LOOK_S = 2.0
"""How often somebody who waits for new files looks at them."""

Stamp = tuple[tuple[int, int, int], ...]
"""What tells one state of the files from another."""


class Tls(Struct, frozen=True, kw_only=True):
    """Paths of PEM files, "" where there is none; without any of them the link is in the clear."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def __bool__(self) -> bool:
        return bool(self.ca or self.cert or self.key)


class Pems(Struct, frozen=True, kw_only=True):
    """What the files hold."""

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None


def read(tls: Tls) -> Pems:
    """The files' content; StartError with one sentence where one is missing or unreadable."""
    return Pems(ca=_read(tls.ca), cert=_read(tls.cert), key=_read(tls.key))


def _read(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}") from error


def stamp(tls: Tls) -> Stamp:
    """The present state of the files, without reading them."""
    found = []
    for path in (tls.ca, tls.cert, tls.key):
        try:
            one = Path(path).stat() if path else None
        except OSError:
            one = None
        found.append((one.st_mtime_ns, one.st_ino, one.st_size) if one else (0, 0, 0))
    return tuple(found)


def flaw(pems: Pems) -> str:
    """What is wrong with the files beside each other, in words; "" where nothing is."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        if pems.ca is not None and not x509.load_pem_x509_certificates(pems.ca):
            return "the authority's file has no certificate"
        if (pems.cert is None) is not (pems.key is None):
            return "a certificate and its key go together"
        if pems.cert is None or pems.key is None:
            return ""
        shown = x509.load_pem_x509_certificates(pems.cert)[0].public_key()
        key = load_pem_private_key(pems.key, None)
    except (ValueError, TypeError) as error:
        return f"not what PEM files hold ({error})"
    return "" if key.public_key() == shown else "the key is not that of the certificate"


def life(pem: bytes) -> tuple[float, float]:
    """When the first certificate in `pem` begins and ends, as Unix time; ValueError without one."""
    from cryptography import x509

    found = x509.load_pem_x509_certificates(pem)[0]
    return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()


def until(pem: bytes) -> float:
    """When the first certificate in `pem` ends, as Unix time; ValueError where there is none."""
    return life(pem)[1]


class Files:
    """The newest sound state of the files of `tls`. Raises StartError where there never was one.

    Safe to use by several threads: a server's handshakes ask from gRPC's own.
    """

    def __init__(self, tls: Tls, log: logging.Logger) -> None:
        self.tls = tls
        self._log = log
        self._lock = threading.Lock()
        self._stamp = stamp(tls)
        self._tried = self._stamp
        self._pems = read(tls)
        if wrong := flaw(self._pems):
            raise StartError(f"{_named(tls)}: {wrong}", 2)

    @property
    def pems(self) -> Pems:
        """What to show now; read again if the files have changed and fit together."""
        self.refresh()
        return self._pems

    def refresh(self) -> bool:
        """Look whether there is something new, and take it; whether it was taken."""
        with self._lock:
            now = stamp(self.tls)
            if now == self._stamp:
                return False
            try:
                found = read(self.tls)
                wrong = flaw(found)
            except StartError as error:
                found, wrong = self._pems, str(error)
            if wrong:
                if now != self._tried:
                    transition(
                        self._log, "certificates stay as they were", logging.WARNING, why=wrong
                    )
                self._tried = now
                return False
            self._stamp = self._tried = now
            if found == self._pems:
                return False
            self._pems = found
        ends = _date(until(found.cert)) if found.cert else ""
        transition(self._log, "certificates read again", until=ends)
        return True

    def lives(self) -> dict[str, tuple[float, float]]:
        """When the certificate (`own`) and the first `authority` begin and end, as Unix time."""
        pems = self._pems
        named = (("own", pems.cert), ("authority", pems.ca))
        return {of: life(pem) for of, pem in named if pem is not None}


async def changed(tls: Tls, since: Stamp) -> None:
    """Wait until the files are others than at `since` and fit together; for ever without any."""
    while True:
        await asyncio.sleep(LOOK_S)
        if stamp(tls) != since:
            try:
                if not flaw(read(tls)):
                    return
            except StartError:
                pass  # being replaced


def hint(tls: Tls) -> str:
    """What in our own files may be why nobody listens to us, in words; "" where nothing shows."""
    try:
        pems = read(tls)
        if pems.cert is not None and (ended := until(pems.cert)) < time.time():
            return f"our certificate {tls.cert} ended on {_date(ended)}: renew it"
        if pems.ca is not None and (ended := until(pems.ca)) < time.time():
            return f"the authority {tls.ca} ended on {_date(ended)}: replace it"
    except (StartError, ValueError) as error:
        return str(error)
    return ""


def _date(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))


def _named(tls: Tls) -> str:
    return ", ".join(path for path in (tls.ca, tls.cert, tls.key) if path)
