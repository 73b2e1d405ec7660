"""The certificates of a `gtm up`: an authority of its own, made at the first start, and renewal.

Decides who gets which certificate, and when it is issued again: at the start where it is missing,
due or another one is wanted, later when a third of its life is left. The parts read the files
again by themselves. Everything lies in `tls` of the data directory, which is its user's alone.
"""

from __future__ import annotations

import asyncio
import getpass
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from gtm.embedded import EtcdTls
from gtm.errors import StartError, StoreError
from gtm.etcd import EtcdOptions
from gtm.etcd_users import ROOT, set_up
from gtm.links import Tls
from gtm.tls_identity import Identity
from gtm.tls_issue import common_name, signed, told

from . import show
from .authority import FOR_S, Authority, due
from .beside import FOLDER, OPERATOR, PLACE

LOOK_S = 600.0
"""How often the certificates are looked at."""
HOSTS = ("localhost", "127.0.0.1", "::1")


class Trust:
    """Every certificate of one `gtm up`, whose data lie in `directory`."""

    def __init__(self, directory: Path, for_s: float = FOR_S) -> None:
        self.folder = directory / FOLDER
        self._authority = Authority(self.folder, durable=False)
        self._for_s = for_s
        self._files: set[Path] = set()

    def prepare(self, server: str, regions: Iterable[str], resolvers: int) -> None:
        """Have every file there. Raises StartError.

        `server` is where its coordinators will answer, with blanks between several.
        """
        authority = self._authority
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if not authority.sound:
            authority.init("Meridian GTM on this machine", force=True)
        self._have("etcd", Identity(kind="etcd", name="etcd"), HOSTS)
        self._have("etcd-root", Identity(kind="etcd", name=ROOT), common_name=ROOT)
        self._have("coordinator", Identity(kind="coordinator", name="coordinator"), HOSTS)
        for number in range(resolvers):
            name = f"resolver-{number + 1}"
            self._have(name, Identity(kind="resolver", name=name))
        self.agents(regions)
        self._have(OPERATOR, Identity(kind="operator", name=_user(), role="admin"))
        (self.folder / PLACE).write_text(f"{server}\n")

    def agents(self, regions: Iterable[str]) -> None:
        """Have a certificate for the agent of each region."""
        for region in regions:
            name = f"agent-{region}"
            self._have(name, Identity(kind="agent", region=region, name=name))

    def flags(self, name: str, prefix: str = "") -> list[str]:
        """The flags by which a part shows the certificate `name`."""
        tls = self.tls(name)
        return [f"--{prefix}{kind}={getattr(tls, kind)}" for kind in ("ca", "cert", "key")]

    def tls(self, name: str) -> Tls:
        """The files of a link that shows the certificate `name`."""
        return self._authority.tls(name)

    @property
    def etcd(self) -> EtcdTls:
        """What the embedded etcd shows, and who asks it for its health."""
        return EtcdTls(server=self.tls("etcd"), client=self.tls("etcd-root"))

    async def users(self, endpoint: str) -> None:
        """Have the embedded etcd know its users. Raises StartError."""
        root = self.tls("etcd-root")
        try:
            await set_up(
                EtcdOptions(endpoints=(endpoint,), ca=root.ca, cert=root.cert, key=root.key)
            )
        except StoreError as error:
            raise StartError(f"cannot make the users of etcd ({error})") from None

    async def keep(self) -> None:
        """Renew what is due, until cancelled; a failure is told and tried again."""
        while True:
            await asyncio.sleep(LOOK_S)
            for path in await asyncio.to_thread(self.renew):
                show.warn(f"{path.name} is renewed")

    def renew(self) -> Sequence[Path]:
        """Issue again what is due; which files that were."""
        renewed = []
        for path in sorted(self._files):
            try:
                if self._authority.renew(path):
                    renewed.append(path)
            except StartError as error:
                show.warn(f"{path.name} cannot be renewed: {error}")
        return renewed

    def _have(
        self, name: str, identity: Identity, names: Sequence[str] = (), common_name: str = ""
    ) -> None:
        path = self.folder / f"{name}.pem"
        if not self._good(path, identity, names, common_name):
            self._authority.issue(
                identity,
                names=names,
                common_name=common_name,
                for_s=self._for_s,
                to=path.with_suffix(""),
                force=True,
            )
        self._files.add(path)

    def _good(self, path: Path, identity: Identity, names: Sequence[str], wanted_name: str) -> bool:
        """Whether what is there can stay."""
        try:
            pem = path.read_bytes()
            found = told(pem)
            return (
                path.with_suffix(".key").exists()
                and signed(pem, (self.folder / "ca.pem").read_bytes())
                and (found.identity, found.names) == (identity, tuple(names))
                and (not wanted_name or common_name(pem) == wanted_name)
                and not due(found, time.time())
            )
        except (OSError, ValueError):
            return False


def known_users(directory: Path) -> bool:
    """Whether the embedded etcd whose data lie in `directory` has ever had its users made."""
    return (directory / "etcd").exists() and (directory / FOLDER / "etcd-root.pem").exists()


def _user() -> str:
    """Whoever runs this, as an operator's name."""
    try:
        name = re.sub(r"[^A-Za-z0-9._@-]", "-", getpass.getuser())[:100].lstrip("._@-")
    except (KeyError, OSError):
        name = ""
    return name or "operator"
