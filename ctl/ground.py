"""What must hold on this machine before `gtm up` starts anything: ports, directory, geo data, etcd.

Each check raises a StartError of one sentence; nothing here changes anything but the directory.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from msgspec import Struct

from gtm import forms
from gtm.errors import StartError, StoreDenied, StoreError
from gtm.etcd import EtcdOptions, connect

HOST = "127.0.0.1"
MAX_REGIONS = 38
"""The agents' HTTP ports lie between the coordinator's and the resolvers'."""
MAX_RESOLVERS = 64
MAX_COORDINATORS = 9
"""More than anybody needs; the ports of all but the first lie beyond the resolvers'."""


class Ports(Struct, frozen=True, kw_only=True):
    """Where everything listens: `base` moves all but DNS, which begins at `dns_host:dns_port`."""

    base: int
    regions: int
    resolvers: int
    dns_host: str
    dns_port: int
    coordinators: int = 1

    @property
    def grpc(self) -> str:
        """The first coordinator's gRPC door."""
        return self.coordinator(0)[0]

    @property
    def http(self) -> str:
        """Its HTTP door."""
        return self.coordinator(0)[1]

    def coordinator(self, number: int) -> tuple[str, str]:
        """The gRPC and the HTTP door of a coordinator, from 0."""
        grpc, http = self._coordinator(number)
        return f"{HOST}:{grpc}", f"{HOST}:{http}"

    def _coordinator(self, number: int) -> tuple[int, int]:
        first = self.base if number == 0 else self.base + 40 + MAX_RESOLVERS + 2 * (number - 1)
        return first, first + 1

    @property
    def all_grpc(self) -> tuple[str, ...]:
        """The gRPC doors of every coordinator."""
        return tuple(self.coordinator(number)[0] for number in range(self.coordinators))

    def agent(self, number: int) -> str:
        """The HTTP door of an agent, from 0."""
        return f"{HOST}:{self.base + 2 + number}"

    def resolver(self, number: int) -> str:
        """The HTTP door of a resolver, from 0."""
        return f"{HOST}:{self.base + 40 + number}"

    def dns(self, number: int) -> str:
        """Where a resolver answers, from 0."""
        host = f"[{self.dns_host}]" if ":" in self.dns_host else self.dns_host
        return f"{host}:{self.dns_port + number}"

    @property
    def etcd(self) -> tuple[int, int]:
        """The embedded etcd's ports for clients and peers."""
        return self.base - 21, self.base - 20

    def check(self, *, embedded: bool) -> None:
        """Raise StartError where a number is out of range or a port is taken."""
        most = 65535 - 40 - MAX_RESOLVERS - 2 * (self.coordinators - 1)
        if not 22 <= self.base <= most:
            raise StartError(f"--base-port {self.base}: choose one from 22 to {most}", 2)
        if self.dns_port + self.resolvers - 1 > 65535:
            raise StartError(f"--dns: no room for {self.resolvers} ports from {self.dns_port}", 2)
        move = "choose other ports with --base-port"
        wanted = []
        for number in range(self.coordinators):
            who = "the coordinator's" if self.coordinators == 1 else "a coordinator's"
            grpc, http = self._coordinator(number)
            wanted += [(grpc, f"{who} gRPC"), (http, f"{who} HTTP")]
        wanted += [(self.base + 2 + n, "an agent's HTTP") for n in range(self.regions)]
        wanted += [(self.base + 40 + n, "a resolver's HTTP") for n in range(self.resolvers)]
        if embedded:
            wanted += [(port, "etcd") for port in self.etcd]
        for port, what in wanted:
            _free(HOST, port, socket.SOCK_STREAM, what, move)
        for port in range(self.dns_port, self.dns_port + self.resolvers):
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                _free(self.dns_host, port, kind, "DNS", "choose another address with --dns")


def _free(host: str, port: int, kind: socket.SocketKind, what: str, advice: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    protocol = "TCP" if kind is socket.SOCK_STREAM else "UDP"
    with socket.socket(family, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            if kind is socket.SOCK_STREAM:
                probe.listen()
        except OSError as error:
            reasons = {
                errno.EADDRINUSE: "is in use: stop what uses it or",
                errno.EACCES: "needs privileges: start as root or",
                errno.EADDRNOTAVAIL: "can't be had, the address is not this machine's:",
            }
            why = reasons.get(error.errno or 0, f"can't be had ({error.strerror}):")
            raise StartError(
                f"{protocol} port {port} on {host}, for {what}, {why} {advice}"
            ) from None


def dns_address(text: str) -> tuple[str, int]:
    """`--dns` as host and port; StartError (2) for anything else."""
    import ipaddress

    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        if not 1 <= int(port) <= 65535:
            raise ValueError
    except ValueError:
        raise StartError(
            f"--dns {text!r} is not ADDRESS:PORT such as 127.0.0.1:5300 or [::1]:5300", 2
        ) from None
    return str(address), int(port)


def regions(names: Iterable[str]) -> tuple[str, ...]:
    """`names` checked; StartError (2) for one that is there twice, or is no name, or too many."""
    named = tuple(names)
    for name, count in Counter(named).items():
        if count > 1:
            raise StartError(f"--regions names {name!r} twice: an agent runs once a region", 2)
        try:
            forms.label(name)
        except ValueError as error:
            raise StartError(f"--regions: {error}", 2) from None
    if not named:
        raise StartError("--regions names no region: give one at least", 2)
    if len(named) > MAX_REGIONS:
        raise StartError(f"--regions names {len(named)}: {MAX_REGIONS} is the most here", 2)
    return named


def claim(directory: Path) -> IO[str]:
    """Make the data directory, prove that it takes files, and lock it while the result is open."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise StartError(
            f"cannot write the data directory {directory} ({error.strerror}): "
            "mend it or choose another with --data-dir"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StartError(
            f"another gtm up uses the data directory {directory}: stop it or choose another "
            "with --data-dir"
        ) from None
    return lock


def geo_file(path: str) -> None:
    """Open a geo database and close it; StartError (2) where it is missing or none."""
    import maxminddb

    try:
        maxminddb.open_database(path).close()
    except OSError as error:
        raise StartError(
            f"--geo: cannot read {path} ({error.strerror or error}): name a MaxMind-format file",
            2,
        ) from None
    except (maxminddb.InvalidDatabaseError, ValueError) as error:
        raise StartError(f"--geo: {path} is no MaxMind-format file ({error})", 2) from None


async def reach(options: EtcdOptions) -> None:
    """Ask a given etcd; StartError 2 for a misspelt one, 3 for silence, 1 where it refuses us."""
    try:
        store = connect(options)
    except StartError as error:
        raise StartError(f"--etcd: {error}", 2) from None
    try:
        await store.get("/gtm/v1/serve/head")
    except StoreDenied as error:
        raise StartError(
            f"etcd at {', '.join(options.endpoints)} refuses us ({error}): "
            "give the right GTM_ETCD_USER and GTM_ETCD_PASSWORD"
        ) from None
    except StoreError as error:
        raise StartError(
            f"cannot reach etcd at {', '.join(options.endpoints)} ({error}): "
            "start it, or name another with --etcd",
            3,
        ) from None
    finally:
        await store.close()
