"""An etcd with TLS and users: a resolver's reads what resolvers serve from, and nothing else."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gtm import keys
from gtm.embedded import EmbeddedEtcd, EtcdTls
from gtm.errors import StoreDenied, StoreError
from gtm.etcd import EtcdOptions, EtcdStore, connect
from gtm.etcd_users import ROOT, set_up
from gtm.links import Tls
from gtm.store import Compare, Delete, Listing, Put, Txn
from tests.certificates import Authority
from tests.etcds import ctl_environment, etcd_binary, free_port

pytestmark = pytest.mark.integration

POOL = keys.pool("a")
SECRETS = (
    keys.verdict("web", "192.0.2.1", 80),
    keys.force("a"),
    keys.alarm("x"),
    keys.coordinator("c1"),
    "/elsewhere",
)


@asynccontextmanager
async def store_of(endpoint: str, tls: Tls, **more: Any) -> AsyncIterator[EtcdStore]:
    store = connect(
        EtcdOptions(
            endpoints=(endpoint,), ca=tls.ca, cert=tls.cert, key=tls.key, timeout_s=5.0, **more
        )
    )
    try:
        yield store
    finally:
        await store.close()


PAGE = (Path(__file__).parents[2] / "docs/deploy.md").read_text()
COMMANDS = re.findall(r"^etcdctl .*$", PAGE.partition("\n## etcd\n")[2], re.M)


class Secured:
    """An etcd of ours with TLS, and a certificate for each of its users."""

    def __init__(self, etcd: EmbeddedEtcd, authority: Authority, root: Tls) -> None:
        self.endpoint, self.authority, self.root = etcd.endpoint, authority, root
        self.coordinator = authority.issue("gtm://coordinator/c1", "127.0.0.1")
        self.resolver = authority.issue("gtm://resolver/ns1")

    async def set_up(self) -> None:
        """Make the users as `gtm up` does; a second time does no harm."""
        root = self.root
        options = EtcdOptions(endpoints=(self.endpoint,), ca=root.ca, cert=root.cert, key=root.key)
        await set_up(options)
        await set_up(options)

    async def by_the_page(self, binary: Path) -> None:
        """Make the users by the commands of docs/deploy.md."""
        beside = binary.with_name("etcdctl")
        program = str(beside) if beside.exists() else "etcdctl"
        flags = [f"--endpoints={self.endpoint}", f"--cacert={self.root.ca}"]
        flags += [f"--cert={self.root.cert}", f"--key={self.root.key}"]
        for command in COMMANDS:
            done = await asyncio.create_subprocess_exec(
                program,
                *flags,
                *shlex.split(command)[1:],
                env=ctl_environment(),
            )
            assert await done.wait() == 0, command


@pytest.fixture(params=["path", "wheel", "path, by the page", "wheel, by the page"])
async def secured(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Secured]:
    kind, _, by_the_page = request.param.partition(", ")
    authority = Authority(tmp_path / "tls")
    root = authority.issue("gtm://etcd/root", common_name=ROOT)
    tls = EtcdTls(server=authority.issue("gtm://etcd/m0", "127.0.0.1"), client=root)
    binary = etcd_binary(kind)
    async with EmbeddedEtcd(
        tmp_path / "etcd", free_port(), free_port(), binary=binary, tls=tls
    ) as etcd:
        made = Secured(etcd, authority, root)
        if by_the_page:
            assert len(COMMANDS) > 8
            await made.by_the_page(binary)
        else:
            await made.set_up()
        yield made


async def test_a_coordinator_has_all_of_ours_and_nothing_else(secured: Secured) -> None:
    async with store_of(secured.endpoint, secured.coordinator) as store:
        lease = await store.lease(5.0)
        done = await store.txn(
            [Compare(POOL, "mod", "=", 0)],
            [
                Put(POOL, b"1"),
                *(Put(key, b"1") for key in SECRETS[:-1]),
                Txn((), (Put(keys.HEAD, b"1", lease=lease.id),)),
            ],
        )
        assert done.succeeded
        assert len((await store.list(keys.ROOT)).items) == len(SECRETS) + 1
        await lease.revoke()
        assert await store.get(keys.HEAD) is None
        assert (await store.status()).version
        with pytest.raises(StoreDenied):
            await store.txn([], [Put(SECRETS[-1], b"1")])


async def test_a_resolver_reads_what_it_serves_from_and_can_not_write(secured: Secured) -> None:
    async with store_of(secured.endpoint, secured.coordinator) as store:
        await store.txn([], [Put(POOL, b"1"), *(Put(key, b"1") for key in SECRETS[:-1])])
        async with store_of(secured.endpoint, secured.resolver) as reader:
            assert [one.key for one in (await reader.list(keys.SERVE)).items] == [POOL]
            await follows(store, reader)
            for key in SECRETS:
                with pytest.raises(StoreDenied):
                    await reader.get(key)
            for prefix in (keys.ROOT, keys.VERDICTS, keys.FORCES):
                with pytest.raises(StoreDenied):
                    await reader.list(prefix)
            for op in (Put(POOL, b"9"), Put(keys.force("a"), b"9"), Delete(POOL)):
                with pytest.raises(StoreDenied):
                    await reader.txn([], [op])
        found = await store.get(POOL)
        assert found is not None
        assert found.value == b"2"


async def follows(store: EtcdStore, reader: EtcdStore) -> None:
    """What is written reaches a watch of the reader's."""
    watch = reader.watch(keys.SERVE)
    seen: list[bytes] = []

    async def read() -> None:
        async for news in watch:
            found = news.items if isinstance(news, Listing) else news.events
            seen.extend(one.value or b"" for one in found)
            if b"2" in seen:
                return

    reading = asyncio.create_task(read())
    await store.txn([], [Put(POOL, b"2")])
    await asyncio.wait_for(reading, 10)
    await watch.close()


async def test_who_shows_another_authoritys_certificate_or_none_is_not_heard(
    secured: Secured, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger").issue("gtm://coordinator/c1")
    for tls in (
        Tls(ca=secured.coordinator.ca, cert=stranger.cert, key=stranger.key),
        Tls(ca=secured.coordinator.ca),
    ):
        async with store_of(secured.endpoint, tls) as store:
            with pytest.raises(StoreError):
                await store.get(POOL)
    agent = secured.authority.issue("gtm://agent/eu")  # of our authority, and no user of etcd's
    async with store_of(secured.endpoint, agent) as store:
        with pytest.raises(StoreError):
            await store.get(POOL)


MENDED = {4: 44, 5: 30, 6: 11}
"""The first release of etcd 3.x without GHSA-rfx7-8w68-q57q and CVE-2026-44283."""


async def test_a_transaction_within_another_is_checked_by_etcds_as_new_as_the_page_says(
    secured: Secured,
) -> None:
    async with (
        store_of(secured.endpoint, secured.coordinator) as store,
        store_of(secured.endpoint, secured.resolver) as reader,
    ):
        _, minor, patch = map(int, (await store.status()).version.split("."))
        try:
            await reader.txn([], [Txn((), (Put(keys.force("a"), b"9"),))])
        except StoreDenied:
            assert await store.get(keys.force("a")) is None
        else:
            assert patch < MENDED.get(minor, 0), "only an old etcd lets this through"
    for minor, patch in MENDED.items():
        assert f"3.{minor}.{patch}" in PAGE
