"""TLS contexts of probes, kept while their files stand unchanged, and what handshakes mean.

Files that this agent cannot read are this agent's trouble (no opinion), never the target's.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime
from functools import lru_cache

from .base import Fault, Reason, failed, unable

MAX_CONTEXTS = 64
"""Contexts kept; the least recently used goes first."""
PEM = "-----BEGIN "
"""A `ca` that begins so is the certificate itself, not a path."""

_VERSION, _UTC_TIME = 0xA0, 0x17
_VERIFY = {
    9: Reason.NOT_YET_VALID,  # X509_V_ERR_CERT_NOT_YET_VALID
    10: Reason.EXPIRED,  # X509_V_ERR_CERT_HAS_EXPIRED
    62: Reason.HOSTNAME,  # X509_V_ERR_HOSTNAME_MISMATCH
    64: Reason.HOSTNAME,  # X509_V_ERR_IP_ADDRESS_MISMATCH
}


def context(
    *, verify: bool, ca: str = "", cert: str = "", key: str = "", alpn: str = ""
) -> ssl.SSLContext:
    """The context for these settings; a changed file gives a new one. Fault where one is unfit."""
    try:
        paths = (cert, key, "" if ca.startswith(PEM) else ca)
        versions = tuple(os.stat(path).st_mtime_ns for path in paths if path)
        return _build(verify, ca, cert, key, alpn, versions)
    except FileNotFoundError as error:
        raise unable(Reason.SETTINGS, f"this agent has no file {error.filename}") from error
    except ssl.SSLError as error:
        text = f"{', '.join(path for path in paths if path) or 'ca'}: {error.reason or error}"
        raise unable(Reason.SETTINGS, text) from error
    except OSError as error:
        raise unable(Reason.SETTINGS, f"{error.filename}: {error.strerror}") from error


@lru_cache(maxsize=MAX_CONTEXTS)
def _build(
    verify: bool, ca: str, cert: str, key: str, alpn: str, _versions: tuple[int, ...]
) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif ca.startswith(PEM):
        made.load_verify_locations(cadata=ca)
    elif ca:
        made.load_verify_locations(cafile=ca)
    else:
        made.load_default_certs()
    if cert:
        made.load_cert_chain(cert, key or None)
    if alpn:
        made.set_alpn_protocols([alpn])
    return made


def tls_fault(error: ssl.SSLError) -> Fault:
    """What a failed handshake or a broken record says of the target."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = _VERIFY.get(error.verify_code, Reason.UNTRUSTED)
        return failed(reason, "" if reason is Reason.EXPIRED else error.verify_message)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return failed(Reason.TLS, "closed during the handshake")
    return failed(Reason.TLS, (error.reason or str(error)).replace("_", " ").lower())


def expiry(certificate: bytes) -> datetime:
    """The end of a certificate in DER (RFC 5280, section 4.1.2.5); ValueError if it is none."""
    try:
        at = _content(certificate, _content(certificate, 0)[1])[1]  # in tbsCertificate
        if certificate[at] == _VERSION:
            at = _content(certificate, at)[2]
        for _ in ("serialNumber", "signature", "issuer"):
            at = _content(certificate, at)[2]
        not_before = _content(certificate, at)[1]
        kind, start, end = _content(certificate, _content(certificate, not_before)[2])
        text = certificate[start:end].decode("ascii")
    except IndexError:
        raise ValueError("it is cut short") from None
    if kind == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _content(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag of the value at `at`, and where its content begins and ends (X.690, 8.1)."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        octets = length & 0x7F
        length = int.from_bytes(der[start : start + octets])
        start += octets
    return tag, start, start + length
