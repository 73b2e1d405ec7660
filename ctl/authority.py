"""An authority in a folder: `ca.pem`, `ca.key`, and beside them what it has issued.

Decides what is written where, with which rights, and when a certificate is due to be renewed.
Keys are readable by their owner alone; nothing is overwritten unless told; a file comes in place
whole, the key before its certificate, and a reader who sees one without the other keeps what it
had (`gtm.tls_files`).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from gtm.errors import StartError
from gtm.tls_files import Pems, Tls, flaw
from gtm.tls_identity import Identity
from gtm.tls_issue import BACKDATED_S, Pair, Told, authority, common_name, issue, signed, told

CA = "ca"
YEARS_S = 365 * 86_400.0
CA_FOR_S = 10 * YEARS_S
"""How long an authority lasts unless told."""
FOR_S = 30 * 86_400.0
"""How long a certificate lasts unless told."""
RENEW_SHARE = 1 / 3
"""A certificate is due when no more than this part of its life is left."""
MAX_FILES = 10_000
"""Certificates in a folder that are looked through."""


class Authority:
    """The authority in `folder`. Its methods raise StartError with what to do.

    `durable`: what is written is on the disk when a method returns.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder, self._durable = folder, durable

    @property
    def sound(self) -> bool:
        """Whether both its files are there, belong together, and are good for long."""
        try:
            pair = self._pair()
            wrong = flaw(Pems(cert=pair.cert, key=pair.key))
            return not wrong and not due(told(pair.cert), time.time())
        except (StartError, ValueError):
            return False

    def init(self, name: str, *, for_s: float = CA_FOR_S, force: bool = False) -> Told:
        """Make it."""
        pair = authority(name, now_s=time.time(), for_s=for_s)
        _write(self.folder / CA, pair, force=force, durable=self._durable)
        return told(pair.cert)

    def issue(
        self,
        identity: Identity,
        *,
        names: Iterable[str] = (),
        common_name: str = "",
        for_s: float = FOR_S,
        to: Path | None = None,
        force: bool = False,
    ) -> Path:
        """Issue a certificate; the path of the file, whose key lies beside it."""
        try:
            pair = issue(
                self._pair(), identity,
                names=names, common_name=common_name, now_s=time.time(), for_s=for_s,
            )  # fmt: skip
        except ValueError as error:
            raise StartError(f"{error}", 2) from None
        stem = to or self.folder / file_name(identity)
        _write(stem, pair, force=force, durable=self._durable)
        return stem.with_name(stem.name + ".pem")

    def tls(self, name: str) -> Tls:
        """The files of a link that shows the certificate of this name."""
        return Tls(
            ca=str(self._path(CA, "pem")),
            cert=str(self._path(name, "pem")),
            key=str(self._path(name, "key")),
        )

    def issued(self) -> list[Path]:
        """Every certificate of the folder that this authority has signed and whose key is there."""
        by = self._read(self._path(CA, "pem"))
        return [
            path
            for path in sorted(self.folder.glob("*.pem"))[:MAX_FILES]
            if path.stem != CA and path.with_suffix(".key").exists() and signed(_read(path), by)
        ]

    def renew(self, path: Path, *, share: float = RENEW_SHARE) -> bool:
        """Issue the certificate again, for as long as before, if it is due; whether it was.

        Due is one with no more than `share` of its life left.
        """
        pem = _read(path)
        try:
            old = told(pem)
        except ValueError as error:
            raise StartError(f"{path} holds no certificate ({error})", 2) from None
        if not due(old, time.time(), share):
            return False
        if old.identity is None or old.authority:
            raise StartError(f"{path} is no certificate of a part or an operator", 2)
        self.issue(
            old.identity,
            names=old.names,
            common_name=common_name(pem),
            for_s=life_s(old),
            to=path.with_suffix(""),
            force=True,
        )
        return True

    def _pair(self) -> Pair:
        return Pair(cert=self._read(self._path(CA, "pem")), key=self._read(self._path(CA, "key")))

    def _path(self, name: str, kind: str) -> Path:
        return self.folder / f"{name}.{kind}"

    def _read(self, path: Path) -> bytes:
        if not path.exists():
            raise StartError(
                f"there is no authority in {self.folder} ({path.name} is missing): "
                "make one with gtm ca init, or name its folder with --dir",
                2,
            )
        return _read(path)


def file_name(identity: Identity) -> str:
    """Where a certificate lies in the folder of its authority, without the ending."""
    parts = (identity.kind, identity.region, identity.name)
    return "-".join(dict.fromkeys(part for part in parts if part)).replace(":", "_")


def life_s(of: Told) -> float:
    """How long a certificate is good for, from its making on."""
    return max(1.0, of.ends - of.begins - BACKDATED_S)


def due(of: Told, now_s: float, share: float = RENEW_SHARE) -> bool:
    """Whether a certificate should be renewed now."""
    return of.ends - now_s <= share * life_s(of)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}") from None


def _write(stem: Path, pair: Pair, *, force: bool, durable: bool) -> None:
    files = [
        (stem.with_name(stem.name + ".key"), pair.key, 0o600),
        (stem.with_name(stem.name + ".pem"), pair.cert, 0o644),
    ]
    there = [str(path) for path, _, _ in files if path.exists()]
    if there and not force:
        raise StartError(
            f"{there[0]} is there already: name another file, or overwrite it with --force", 2
        )
    try:
        stem.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, data, mode in files:
            _put(path, data, mode, durable=durable)
    except OSError as error:
        raise StartError(f"cannot write to {stem.parent}: {error.strerror}") from None


def _put(path: Path, data: bytes, mode: int, *, durable: bool) -> None:
    """Put a whole file in place, with these rights from its first moment on, or its former ones."""
    former = path.stat() if path.exists() else None
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            if former is not None:  # root renews what a part reads by its group
                mode = former.st_mode & 0o777
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), former.st_uid, former.st_gid)
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
