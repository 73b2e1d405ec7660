"""Certificates for tests: an authority in a folder, and what it issues."""

from __future__ import annotations

import time
from pathlib import Path

from gtm.links import Tls
from gtm.tls_identity import Identity, parse
from gtm.tls_issue import Pair, authority, issue

DAY_S = 86_400.0


class Authority:
    """An authority whose certificates lie in `folder`, as `Tls` of paths."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.pair = authority(name, now_s=time.time(), for_s=100 * DAY_S)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.pair.cert)

    def issue(
        self,
        uri: str,
        *names: str,
        file: str = "",
        for_s: float = DAY_S,
        ago_s: float = 0.0,
        common_name: str = "",
    ) -> Tls:
        """A certificate of the identity `uri`, made `ago_s` ago for so long, under `file`."""
        made = self.pair_of(parse(uri), *names, for_s=for_s, ago_s=ago_s, common_name=common_name)
        name = file or uri.removeprefix("gtm://").replace("/", "-").replace("?", "-")
        for kind, pem in (("key", made.key), ("pem", made.cert)):
            new = self.folder / f"{name}.{kind}.new"
            new.write_bytes(pem)
            new.rename(self.folder / f"{name}.{kind}")
        return Tls(
            ca=str(self.ca),
            cert=str(self.folder / f"{name}.pem"),
            key=str(self.folder / f"{name}.key"),
        )

    def pair_of(
        self,
        identity: Identity,
        *names: str,
        for_s: float = DAY_S,
        ago_s: float = 0.0,
        common_name: str = "",
    ) -> Pair:
        """The same as PEM."""
        return issue(
            self.pair,
            identity,
            names=names,
            common_name=common_name,
            now_s=time.time() - ago_s,
            for_s=for_s,
        )

    def coordinator(self, **more: float) -> Tls:
        """A coordinator's on loopback."""
        return self.issue("gtm://coordinator/c1", "localhost", "127.0.0.1", **more)
