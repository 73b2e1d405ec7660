"""The certificates of a lab: an authority of its own, one certificate for each part and the client.

Everything lies in `tls` of the lab's folder; a lab in the clear has none of it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ctl.authority import FOR_S, Authority
from gtm.errors import StartError, StoreError
from gtm.etcd import EtcdOptions
from gtm.etcd_users import ROOT, set_up
from gtm.links import Tls
from gtm.tls_identity import Identity

from .nodes import ETCD, Node

FOLDER = "tls"
OPERATOR = "operator"
"""The client's certificate: an operator with the role admin."""
ETCD_ROOT = "etcd-root"
"""For the user of etcd that may do everything."""


def prepare(folder: Path, nodes: tuple[Node, ...]) -> None:
    """Make the authority and every certificate of a lab whose data lie in `folder`."""
    authority = Authority(folder / FOLDER, durable=False)
    authority.folder.mkdir(mode=0o700)
    authority.init("Meridian GTM lab")
    for node in nodes:
        if node.kind in ("etcd", "coordinator", "agent", "resolver"):
            issue(folder, node)
    for name, identity, common_name in (
        (OPERATOR, Identity(kind="operator", name="lab", role="admin"), ""),
        (ETCD_ROOT, Identity(kind="etcd", name=ROOT), ROOT),
    ):
        authority.issue(identity, common_name=common_name, to=authority.folder / name)


def issue(folder: Path, node: Node, *, for_s: float = FOR_S) -> None:
    """Issue the certificate of a node, in the place of the one that it has."""
    authority = Authority(folder / FOLDER, durable=False)
    [region] = [one for one in node.groups if one != "agents"] if node.kind == "agent" else [""]
    authority.issue(
        Identity(kind=node.kind, region=region, name=node.name),  # type: ignore[arg-type]
        names=[node.address] if node.kind in ("etcd", "coordinator") else [],
        for_s=for_s,
        to=authority.folder / node.name,
        force=True,
    )


def tls(folder: Path, name: str) -> Tls:
    """What `name` (a node, `OPERATOR`, `ETCD_ROOT`) shows; nothing in a lab in the clear."""
    if not (folder / FOLDER).is_dir():
        return Tls()
    return Authority(folder / FOLDER).tls(name)


def etcd_options(folder: Path, members: tuple[Node, ...]) -> EtcdOptions:
    """How somebody who may do everything reaches these members of etcd."""
    root = tls(folder, ETCD_ROOT)
    endpoints = tuple(f"{one.address}:{ETCD}" for one in members)
    return EtcdOptions(endpoints=endpoints, ca=root.ca, cert=root.cert, key=root.key)


def main(name: str) -> None:
    """Have the etcd of the lab of this name know its users; runs in the client's namespace."""
    from .lab import Lab

    lab = Lab(name)
    try:
        asyncio.run(set_up(etcd_options(lab.folder, lab.chosen("etcds"))))
    except StoreError as error:
        raise StartError(f"cannot make the users of etcd ({error})") from None


if __name__ == "__main__":
    main(*sys.argv[1:])
