"""What a lab consists of: nodes with one address each, what each runs, and names for several.

Pure. Every node is a network namespace with one interface and at most one program, started by the
command that a user would give. All addresses lie in 10.77.0.0/16, which exists in the lab alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from gtm.embedded import arguments
from gtm.errors import StartError

ROUTER = "10.77.0.1"
NOBODY = "10.77.7.1"
"""An address that no node has."""
CLIENT = "client"
MAX_OF_A_KIND = 50
"""Nodes of one kind: more than a machine will carry."""

ETCD, PEER, ETCD_HTTP, GRPC, DNS, WEB = 2379, 2380, 2381, 7400, 53, 8080
COORDINATOR_HTTP, AGENT_HTTP, RESOLVER_HTTP = 7401, 7402, 7440
DISKS_MB = {"resolver": 1, "etcd": 512}
"""Kinds whose data lie on a small disk of their own; etcd reserves 64 MB for each piece of log."""


class Shape(Struct, frozen=True):
    """How many nodes of each kind a lab has."""

    regions: int = 3
    agents: int = 1
    """In each region."""
    coordinators: int = 3
    etcds: int = 3
    resolvers: int = 2
    origins_a: int = 3
    origins_b: int = 2
    insecure: bool = False
    """Links in the clear, without certificates."""


class Node(Struct, frozen=True):
    """One namespace: its address, the groups that it belongs to, and what it runs, if anything."""

    name: str
    kind: str
    address: str
    groups: frozenset[str] = frozenset()
    command: tuple[str, ...] = ()
    disk_mb: int = 0
    """Size of the disk under its folder; 0: no disk of its own."""


NUMBERS = tuple(name for name in Shape.__struct_fields__ if name != "insecure")


def nodes(shape: Shape, folder: Path) -> tuple[Node, ...]:
    """All nodes of a lab whose data lie in `folder`, in the order in which they are started.

    Raises StartError where a number is beyond `MAX_OF_A_KIND` or none.
    """
    counts = (getattr(shape, name) for name in NUMBERS)
    if not all(1 <= count <= MAX_OF_A_KIND for count in counts):
        raise StartError(f"a lab has from 1 to {MAX_OF_A_KIND} nodes of a kind", 2)
    return (
        Node(CLIENT, "client", "10.77.9.1"),
        *(_origin("a", number) for number in range(1, shape.origins_a + 1)),
        *(_origin("b", number) for number in range(1, shape.origins_b + 1)),
        *(_etcd(number, shape, folder) for number in range(1, shape.etcds + 1)),
        *(_coordinator(number, shape, folder) for number in range(1, shape.coordinators + 1)),
        *(
            _agent(region, number, shape, folder)
            for region in range(1, shape.regions + 1)
            for number in range(1, shape.agents + 1)
        ),
        *(_resolver(number, shape, folder) for number in range(1, shape.resolvers + 1)),
    )


def chosen(all_nodes: Iterable[Node], text: str) -> tuple[Node, ...]:
    """The nodes that `text` names: nodes or groups, joined by commas; StartError for others."""
    known = tuple(all_nodes)
    found: dict[str, Node] = {}
    for word in text.split(","):
        some = [one for one in known if word in (one.name, "all", *one.groups)]
        if not some:
            groups = sorted({"all"}.union(*(one.groups for one in known)))
            raise StartError(
                f"no node or group {word!r}: there are {', '.join(one.name for one in known)} "
                f"and the groups {', '.join(groups)}",
                2,
            )
        found |= {one.name: one for one in some}
    return tuple(found.values())


def lab_name(text: str) -> str:
    """`text` if it can name a lab; StartError otherwise."""
    if not re.fullmatch(r"[a-z0-9]{1,12}", text):
        raise StartError(f"{text!r} can't name a lab: 1 to 12 of a-z and 0-9 can", 2)
    return text


# ---- the kinds -----------------------------------------------------------------------------------


def etcd_address(number: int) -> str:
    """That of a member of etcd, from 1 on."""
    return f"10.77.1.{number}"


def coordinator_address(number: int) -> str:
    """That of a coordinator, from 1 on."""
    return f"10.77.2.{number}"


def resolver_address(number: int) -> str:
    """That of a resolver, from 1 on."""
    return f"10.77.4.{number}"


def origin_address(pool: str, number: int) -> str:
    """That of an origin of pool `a` or `b`, from 1 on."""
    return f"10.77.{5 if pool == 'a' else 6}.{number}"


def _origin(pool: str, number: int) -> Node:
    address = origin_address(pool, number)
    command = (sys.executable, "-m", "http.server", str(WEB), "--bind", address)
    return Node(f"{pool}{number}", "origin", address, frozenset({"origins", pool}), command)


def _etcd(number: int, shape: Shape, folder: Path) -> Node:
    name, address = f"etcd-{number}", etcd_address(number)
    scheme = "http" if shape.insecure else "https"
    members = (f"etcd-{n}={scheme}://{etcd_address(n)}:{PEER}" for n in range(1, shape.etcds + 1))
    flags = {
        "name": name,
        "listen-client-urls": f"{scheme}://{address}:{ETCD}",
        "advertise-client-urls": f"{scheme}://{address}:{ETCD}",
        "listen-peer-urls": f"{scheme}://{address}:{PEER}",
        "initial-advertise-peer-urls": f"{scheme}://{address}:{PEER}",
        "initial-cluster": ",".join(members),
        "listen-metrics-urls": f"http://{address}:{ETCD_HTTP}",
        "election-timeout": "1000",  # etcd's own default
    }
    if not shape.insecure:
        for prefix in ("", "peer-"):
            flags |= {
                f"{prefix}trusted-ca-file": str(folder / "tls/ca.pem"),
                f"{prefix}cert-file": str(folder / f"tls/{name}.pem"),
                f"{prefix}key-file": str(folder / f"tls/{name}.key"),
                f"{prefix}client-cert-auth": "true",
            }
    command = (
        "etcd",
        *arguments(folder / name / "data", ETCD, PEER),  # later flags win
        *(f"--{flag}={text}" for flag, text in flags.items()),
    )
    return Node(name, "etcd", address, frozenset({"etcds"}), command, DISKS_MB["etcd"])


def _coordinator(number: int, shape: Shape, folder: Path) -> Node:
    name, address = f"coordinator-{number}", coordinator_address(number)
    command = _gtm(
        "coordinator", f"--id={name}", f"--grpc={address}:{GRPC}",
        f"--http={address}:{COORDINATOR_HTTP}", f"--etcd={_etcds(shape)}",
        *_links(shape, folder, name), *_links(shape, folder, name, "etcd-"),
    )  # fmt: skip
    return Node(name, "coordinator", address, frozenset({"coordinators"}), command)


def _agent(region: int, number: int, shape: Shape, folder: Path) -> Node:
    name = f"agent-r{region}" if shape.agents == 1 else f"agent-r{region}-{number}"
    address = f"10.77.3.{(region - 1) * shape.agents + number}"
    command = _gtm(
        "agent", f"--id={name}", f"--region=r{region}", f"--http={address}:{AGENT_HTTP}",
        f"--coordinators={_coordinators(shape)}", *_links(shape, folder, name),
    )  # fmt: skip
    return Node(name, "agent", address, frozenset({"agents", f"r{region}"}), command)


def _resolver(number: int, shape: Shape, folder: Path) -> Node:
    name, address = f"resolver-{number}", resolver_address(number)
    command = _gtm(
        "resolver", f"--id={name}", f"--listen={address}:{DNS}",
        f"--http={address}:{RESOLVER_HTTP}", f"--etcd={_etcds(shape)}",
        f"--coordinators={_coordinators(shape)}", f"--data-dir={folder / name / 'data'}",
        *_links(shape, folder, name), *_links(shape, folder, name, "etcd-"),
    )  # fmt: skip
    return Node(name, "resolver", address, frozenset({"resolvers"}), command, DISKS_MB["resolver"])


def _links(shape: Shape, folder: Path, name: str, prefix: str = "") -> tuple[str, ...]:
    """The flags of a part's links, or of those to etcd."""
    if shape.insecure:
        return () if prefix else ("--insecure",)
    files = {"ca": "ca.pem", "cert": f"{name}.pem", "key": f"{name}.key"}
    return tuple(f"--{prefix}{flag}={folder / 'tls' / file}" for flag, file in files.items())


def _gtm(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "ctl", *words)


def _joined(addresses: Sequence[str], port: int) -> str:
    return ",".join(f"{one}:{port}" for one in addresses)


def _etcds(shape: Shape) -> str:
    return _joined([etcd_address(n) for n in range(1, shape.etcds + 1)], ETCD)


def _coordinators(shape: Shape) -> str:
    return _joined([coordinator_address(n) for n in range(1, shape.coordinators + 1)], GRPC)
