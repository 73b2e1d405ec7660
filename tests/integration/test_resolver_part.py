"""A whole resolver: start with and without a store, answers over real sockets, reports, the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc.aio
import pytest
from dnslib import DNSRecord, EDNSOption
from msgspec.structs import replace

from gtm import codec, keys
from gtm.choices import PoolRef
from gtm.errors import StartError, StoreDenied
from gtm.memory import MemoryStore
from gtm.model import Instance, Record, Rule, Tier
from gtm.state import Bucket, Member, PoolState, StoredZone
from gtm.store import Delete, Item, Op, Put, Store
from gtm.units import Duration
from gtm.v1 import operator_pb2, operator_pb2_grpc
from resolver import part, report
from resolver.part import Resolver, serve
from resolver.settings import Settings
from resolver.snapshot import chunks, load, write
from tests.geo_files import geo_file

pytestmark = pytest.mark.integration

NAME = "gtm12345678.gtm-000.test"
STALE, NOT_READY = 3, 14


def pool(*addresses: str) -> Put:
    members = tuple(Member(value=one, answered=True, counted=True) for one in addresses)
    return Put(keys.pool("a"), codec.encode(PoolState(type="ipv4", members=members)))


def configuration() -> list[Op]:
    zone = StoredZone(nameservers=("ns1.gtm-000.test",))
    static = Bucket(records=(Record(name="@", type="MX", data=("10 mx.example.",)),))
    rule = Rule(name="world", lines=("default",), tiers=(Tier(pools=(PoolRef(pool="a"),)),))
    shop = Instance(id="gtm12345678", zone="gtm-000.test", rules=(rule,))
    return [
        Put(keys.config("zones", "gtm-000.test"), codec.encode(zone)),
        Put(keys.records("gtm-000.test", "-"), codec.encode(static)),
        Put(keys.config("instances", "shop"), codec.encode(shop)),
    ]


def fill_snapshot(settings: Settings) -> Path:
    """A snapshot as a resolver with these settings would have left it."""
    puts = [op for op in (*configuration(), pool("192.0.2.1")) if isinstance(op, Put)]
    items = tuple(Item(op.key, op.value, 5, 5) for op in puts)
    path = Path(settings.data_dir) / f"{settings.id}.snapshot"
    write(path, chunks(5, items, time.time()))
    return path


async def until(condition: Callable[[], object], deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.005)


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    await store.txn((), [*configuration(), pool("192.0.2.1")])
    yield store
    await store.close()


def dns_port() -> int:
    """A port free for both transports and families, out of reach of the kernel's own choices."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    stack.enter_context(socket.socket(family, kind)).bind((host, port))
            return port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    port = dns_port()
    return Settings(
        id="r1",
        listen=(f"127.0.0.1:{port}", f"[::1]:{port}"),
        http="127.0.0.1:0",
        coordinators=(),
        data_dir=str(tmp_path),
        first_list=Duration(200),
        not_ready=Duration(600),
    )


@contextlib.asynccontextmanager
async def running(settings: Settings, store: Store) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.ensure_future(serve(settings, store, stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


class Asker:
    """Asks over UDP and reads replies with dnslib."""

    def __init__(self, settings: Settings) -> None:
        self.port = int(settings.listen[0].rpartition(":")[2])

    async def raw(self, query: bytes, timeout_s: float = 2.0) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self.port))
            sock.send(query)
            return await asyncio.wait_for(loop.sock_recv(sock, 65535), timeout_s)

    async def ask(self, name: str = NAME, qtype: str = "A", *, edns: bool = False) -> DNSRecord:
        question = DNSRecord.question(name, qtype)
        query = question.pack()
        if edns:
            query = query[:11] + b"\1" + query[12:] + b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
        return DNSRecord.parse(await self.raw(query))

    async def addresses(self) -> set[str]:
        return {str(record.rdata) for record in (await self.ask()).rr}

    async def answers_with(self, *addresses: str, deadline_s: float = 5.0) -> bool:
        """Whether just these are answered, soon."""
        end = time.monotonic() + deadline_s
        while await self.addresses() != set(addresses):
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.005)
        return True

    async def answers(self) -> bool:
        """Whether anybody answers at all."""
        try:
            await self.ask()
        except (OSError, TimeoutError):
            return False
        return True

    async def open(self, deadline_s: float = 10.0) -> None:
        end = time.monotonic() + deadline_s
        while not await self.answers():
            assert time.monotonic() < end, "the doors did not open"
            await asyncio.sleep(0.01)

    async def extended(self) -> list[int]:
        """The extended error codes of an answer."""
        reply = await self.ask(edns=True)
        options: list[EDNSOption] = [
            option for record in reply.ar if record.rtype == 41 for option in record.rdata
        ]
        return [int.from_bytes(one.data[:2], "big") for one in options if one.code == 15]


async def run_dig(settings: Settings, *words: str) -> str:
    port = settings.listen[0].rpartition(":")[2]
    process = await asyncio.create_subprocess_exec(
        "dig", "-p", port, "+tries=1", "+timeout=3", *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode()


@pytest.mark.parametrize("server", ["@127.0.0.1", "@::1"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
async def test_dig_is_answered(
    settings: Settings, store: MemoryStore, server: str, transport: str
) -> None:
    async with running(settings, store):
        await Asker(settings).open()
        out = await run_dig(settings, server, transport, "+nsid", NAME, "A")
        assert "status: NOERROR" in out
        assert "flags: qr aa rd;" in out
        assert 'NSID: 72 31 ("r1")' in out
        assert "192.0.2.1" in out
        out = await run_dig(settings, server, transport, "+short", "gtm-000.test", "MX")
        assert out.strip() == "10 mx.example."
        assert "NXDOMAIN" in await run_dig(settings, server, transport, "no.gtm-000.test", "A")
        assert "REFUSED" in await run_dig(settings, server, transport, "example.com", "A")


async def test_dig_pipelines_on_one_connection(settings: Settings, store: MemoryStore) -> None:
    async with running(settings, store):
        await Asker(settings).open()
        out = await run_dig(
            settings, "@127.0.0.1", "+tcp", "+keepopen", "+short", NAME, "A", NAME, "A"
        )
        assert out.split() == ["192.0.2.1", "192.0.2.1"]


async def test_what_the_store_says_is_answered(settings: Settings, store: MemoryStore) -> None:
    asker = Asker(settings)
    async with running(settings, store):
        await asker.open()
        await store.txn((), [pool("192.0.2.7", "192.0.2.8")])
        assert await asker.answers_with("192.0.2.7", "192.0.2.8")
        await store.txn((), [Put(keys.pool("a"), b"{broken")])
        assert await asker.addresses() == {"192.0.2.7", "192.0.2.8"}
        await store.txn((), [pool("192.0.2.9")])
        assert await asker.answers_with("192.0.2.9")
        assert await asker.extended() == []


async def test_without_a_store_the_snapshot_is_served_as_stale_until_it_is_back(
    settings: Settings, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    fill_snapshot(settings)
    asker = Asker(settings)
    store.cut()
    with caplog.at_level(logging.INFO, "resolver"):
        async with running(settings, store):
            await asker.open()
            assert await asker.addresses() == {"192.0.2.1"}
            assert await asker.extended() == [STALE]
            await store.client().txn((), [pool("192.0.2.2")])
            store.mend()
            end = time.monotonic() + 5
            while await asker.extended():
                assert time.monotonic() < end
            assert await asker.addresses() == {"192.0.2.2"}
    assert "store not heard yet: serving the snapshot, marked stale" in caplog.text


async def test_with_a_store_the_snapshot_is_not_used(
    settings: Settings, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    fill_snapshot(settings)
    await store.txn((), [pool("192.0.2.5")])
    with caplog.at_level(logging.INFO, "resolver"):
        async with running(settings, store):
            await Asker(settings).open()
            assert await Asker(settings).addresses() == {"192.0.2.5"}
    assert "snapshot" not in caplog.text


async def test_with_neither_the_doors_open_late_and_say_not_ready(
    settings: Settings, store: MemoryStore
) -> None:
    asker = Asker(settings)
    store.cut()
    begun = time.monotonic()
    async with running(settings, store):
        assert not await asker.answers()
        await asker.open()
        assert time.monotonic() - begun >= settings.not_ready.s
        reply = await asker.ask()
        assert reply.header.get_rcode() == 2
        assert not reply.rr
        assert await asker.extended() == [NOT_READY]
        assert (await asker.ask("no.gtm-000.test")).header.get_rcode() == 2
        store.mend()
        end = time.monotonic() + 5
        while await asker.extended():
            assert time.monotonic() < end
        assert await asker.addresses() == {"192.0.2.1"}


async def test_a_corrupt_snapshot_is_refused_and_said(
    settings: Settings, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    path = fill_snapshot(settings)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    asker = Asker(settings)
    store.cut()
    with caplog.at_level(logging.INFO, "resolver"):
        async with running(settings, store):
            await asker.open()
            assert await asker.extended() == [NOT_READY]
    (refusal,) = [one for one in caplog.records if one.getMessage() == "snapshot refused"]
    assert str(refusal.fields["cause"]) == "its checksum is wrong"  # type: ignore[attr-defined]


async def test_the_snapshot_left_behind_is_what_was_served(
    settings: Settings, store: MemoryStore
) -> None:
    async with running(settings, store):
        await Asker(settings).open()
        revision = (await store.txn((), [pool("192.0.2.3")])).revision
        end = time.monotonic() + 5
        while await Asker(settings).addresses() != {"192.0.2.3"}:
            assert time.monotonic() < end
    got = load(Path(settings.data_dir) / "r1.snapshot")
    assert got is not None
    assert got.listing.revision == revision
    listed = await store.list(keys.SERVE)
    assert {item.key for item in got.listing.items} == {item.key for item in listed.items}
    store.cut()
    async with running(settings, store):
        await Asker(settings).open()
        assert await Asker(settings).addresses() == {"192.0.2.3"}


class Refusing(MemoryStore):
    """A store that knows no user."""

    def watch(self, prefix: str) -> Any:
        watch = super().watch(prefix)

        async def items() -> AsyncIterator[Any]:
            raise StoreDenied("authentication failed")
            yield

        watch._items = items  # type: ignore[method-assign]
        return watch


async def test_a_store_that_refuses_us_is_one_sentence(settings: Settings) -> None:
    with pytest.raises(StartError, match="etcd refuses us: authentication failed; check --etcd-u"):
        await asyncio.wait_for(serve(settings, Refusing(), asyncio.Event()), 5)


async def test_a_store_that_refuses_us_does_not_keep_the_snapshot_from_being_served(
    settings: Settings,
) -> None:
    fill_snapshot(settings)
    async with running(settings, Refusing()):
        await Asker(settings).open()
        assert await Asker(settings).addresses() == {"192.0.2.1"}


async def test_the_real_store_refuses_a_wrong_password_in_one_sentence(
    settings: Settings, start_etcd: Callable[..., Any]
) -> None:
    etcd = start_etcd()
    etcd.ctl("user", "add", "root:right")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("auth", "enable")
    wrong = replace(
        settings,
        etcd=(etcd.endpoint,),
        etcd_user="root",
        etcd_password="wrong",
        first_list=Duration(10_000),
    )
    with pytest.raises(StartError, match="etcd refuses us: "):
        await asyncio.wait_for(part.run(wrong, asyncio.Event()), 10)


async def test_changes_in_the_real_store_reach_the_answers(
    settings: Settings, start_etcd: Callable[..., Any]
) -> None:
    etcd = start_etcd()
    settings = replace(settings, etcd=(etcd.endpoint,), first_list=Duration(5_000))
    for op in (*configuration(), pool("192.0.2.1")):
        assert isinstance(op, Put)
        etcd.ctl("put", op.key, op.value.decode())
    asker, stop = Asker(settings), asyncio.Event()
    task = asyncio.ensure_future(part.run(settings, stop))
    await asker.open()
    assert await asker.addresses() == {"192.0.2.1"}
    etcd.ctl("put", keys.pool("a"), pool("192.0.2.2").value.decode())
    end = time.monotonic() + 5
    while await asker.addresses() != {"192.0.2.2"}:
        assert time.monotonic() < end
    stop.set()
    await asyncio.wait_for(task, 10)


async def test_a_port_in_use_ends_the_start_before_anything_is_waited_for(
    settings: Settings, store: MemoryStore
) -> None:
    store.cut()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", Asker(settings).port))
        with pytest.raises(StartError, match="for DNS over UDP: it is taken"):
            await asyncio.wait_for(serve(settings, store, asyncio.Event()), 5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"geo": ("/nowhere/geo.mmdb",)}, "cannot read the geo file /nowhere/geo.mmdb"),
        ({"http": "nowhere"}, "--http nowhere: not an IP address and a port"),
        ({"nsid": "n" * 65}, "at most 64 octets; shorten --nsid"),
        ({"coordinators": ("192.0.2.1:7400",)}, "the link to 192.0.2.1:7400 would be in the clear"),
        ({"data_dir": "/dev/null/deep"}, "cannot write in /dev/null/deep"),
    ],
)
async def test_what_a_user_must_mend_is_one_sentence(
    settings: Settings, store: MemoryStore, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(StartError, match=sentence):
        await asyncio.wait_for(serve(replace(settings, **change), store, asyncio.Event()), 5)


async def test_garbage_gets_no_more_than_an_error_and_the_next_query_its_answer(
    settings: Settings, store: MemoryStore
) -> None:
    seed = random.getrandbits(32)
    dice = random.Random(seed)
    asker = Asker(settings)
    query = DNSRecord.question(NAME).pack()
    async with running(settings, store):
        await asker.open()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", asker.port))
            for _ in range(300):
                mangled = bytearray(query)
                for _ in range(dice.randrange(1, 6)):
                    mangled[dice.randrange(len(mangled))] = dice.randrange(256)
                sock.send(mangled[: dice.randrange(len(mangled) + 1)])
                sock.send(dice.randbytes(dice.randrange(600)))
        assert await asker.addresses() == {"192.0.2.1"}, f"seed {seed}"
        reader, writer = await asyncio.open_connection("127.0.0.1", asker.port)
        writer.write(dice.randbytes(5_000))
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(reader.read(), 1)
        writer.close()
        assert await asker.addresses() == {"192.0.2.1"}, f"seed {seed}"


async def test_a_query_that_breaks_the_responder_is_counted_told_once_and_ends_nothing(
    settings: Settings,
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sound = part.respond

    def broken(table: Any, datagram: bytes, *rest: Any) -> bytes | None:
        if datagram == b"poison":
            raise ZeroDivisionError("a defect")
        return sound(table, datagram, *rest)

    monkeypatch.setenv("GTM_NATIVE", "off")
    monkeypatch.setattr(part, "respond", broken)
    asker = Asker(settings)
    async with running(settings, store):
        await asker.open()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", asker.port))
            for _ in range(3):
                sock.send(b"poison")
        assert await asker.addresses() == {"192.0.2.1"}
    assert caplog.text.count("a query broke the responder") == 1


async def http_get(address: str, path: str) -> str:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    data = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return data.decode()


async def test_readiness_and_metrics_say_what_is_served(
    settings: Settings, store: MemoryStore
) -> None:
    store.cut()
    async with contextlib.AsyncExitStack() as stack:
        resolver = Resolver(settings, store)
        await resolver.start(stack)
        assert " 503 " in await http_get(resolver.http, "/readyz")
        assert " 200 " in await http_get(resolver.http, "/livez")
        store.mend()
        assert await resolver.wait_for_table(asyncio.Event())
        await resolver.open(stack)
        store.cut()
        assert " 200 " in await http_get(resolver.http, "/readyz")
        await Asker(settings).addresses()
        await run_dig(settings, "@127.0.0.1", "+tcp", "no.gtm-000.test", "A")
        shown = await http_get(resolver.http, "/metrics")
        for line in (
            'gtm_resolver_queries_total{rcode="NOERROR",transport="udp"} 1.0',
            'gtm_resolver_queries_total{rcode="NXDOMAIN",transport="tcp"} 1.0',
            "gtm_resolver_served_revision 2.0",
            "gtm_resolver_refused_states_total 0.0",
        ):
            assert line in shown


async def test_what_is_asked_over_tcp_is_counted_by_transport_and_by_name(
    settings: Settings, store: MemoryStore
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        resolver = Resolver(settings, store)
        await resolver.start(stack)
        assert await resolver.wait_for_table(asyncio.Event())
        await resolver.open(stack)
        query = DNSRecord.question(NAME, "A").pack()
        address = settings.listen[0].rpartition(":")[::2]
        reader, writer = await asyncio.open_connection(address[0], int(address[1]))
        silence = b"\0\0\x80" + query[3:]
        writer.write(b"".join(len(one).to_bytes(2) + one for one in (query, silence, query)))
        for _ in range(2):
            size = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), 5))
            reply = DNSRecord.parse(await asyncio.wait_for(reader.readexactly(size), 5))
            assert [str(record.rdata) for record in reply.rr] == ["192.0.2.1"]
        shown = await http_get(resolver.http, "/metrics")
        for line in (
            'gtm_resolver_queries_total{rcode="NOERROR",transport="tcp"} 2.0',
            'gtm_resolver_queries_total{rcode="none",transport="tcp"} 1.0',
            f'gtm_resolver_name_queries_total{{name="{NAME}",rcode="NOERROR"}} 2.0',
            'gtm_resolver_failures_total{transport="tcp"} 0.0',
            "gtm_resolver_tcp_connections 1.0",
            "gtm_resolver_tcp_refused_connections_total 0.0",
        ):
            assert line in shown
        writer.close()


# Reports.


class Coordinator(operator_pb2_grpc.ReplicasServicer):
    """Collects reports and names coordinators."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.heard: list[operator_pb2.ReportRequest] = []
        self.hang = False

    async def Report(
        self, request: operator_pb2.ReportRequest, context: Any
    ) -> operator_pb2.ReportResponse:
        if self.hang:
            await asyncio.Event().wait()
        self.heard.append(request)
        return operator_pb2.ReportResponse(coordinators=self.names)

    def revision(self) -> int:
        return self.heard[-1].served_revision if self.heard else 0


@contextlib.asynccontextmanager
async def coordinator() -> AsyncIterator[tuple[Coordinator, str]]:
    servicer, server = Coordinator(), grpc.aio.server()
    operator_pb2_grpc.add_ReplicasServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_every_coordinator_is_told_at_once_what_is_served(
    settings: Settings, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "PERIOD_S", 60.0)
    async with coordinator() as (first, one), coordinator() as (second, two):
        first.names = second.names = (one, two)
        async with running(replace(settings, coordinators=(one,)), store):
            await until(lambda: first.revision() == second.revision() == 2)
            revision = (await store.txn((), [pool("192.0.2.2")])).revision
            await until(lambda: first.revision() == second.revision() == revision)
            told = first.heard[-1]
            assert told.id == "r1"
            assert tuple(told.listen) == settings.listen
            assert not told.stale
            assert told.snapshot_age_s < 5
            assert told.refused_states == 0


async def test_a_coordinator_that_hangs_delays_nobody(
    settings: Settings, store: MemoryStore
) -> None:
    async with coordinator() as (hung, one), coordinator() as (sound, two):
        hung.hang = True
        async with running(replace(settings, coordinators=(one, two)), store):
            await until(lambda: sound.revision() == 2)
            revision = (await store.txn((), [pool("192.0.2.2")])).revision
            begun = time.monotonic()
            await until(lambda: sound.revision() == revision)
            assert time.monotonic() - begun < report.TIMEOUT_S
            assert await Asker(settings).addresses() == {"192.0.2.2"}


async def test_a_coordinator_that_nobody_names_any_more_is_left(
    settings: Settings, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "PERIOD_S", 0.02)
    async with coordinator() as (first, one), coordinator() as (second, two):
        first.names = (one, two)
        async with running(replace(settings, coordinators=(one,)), store):
            await until(lambda: second.heard)
            first.names = (one,)
            count = len(first.heard)
            await until(lambda: len(first.heard) > count + 2)
            before = len(second.heard)
            count = len(first.heard)
            await until(lambda: len(first.heard) > count + 5)
            assert len(second.heard) <= before + 1


async def test_a_report_that_breaks_is_logged_and_the_next_ones_follow(
    settings: Settings,
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(report, "PERIOD_S", 0.02)
    async with coordinator() as (first, one), contextlib.AsyncExitStack() as stack:
        resolver = Resolver(replace(settings, coordinators=(one,)), store)
        good, broken = resolver.report, [KeyError("defect")]

        def reported() -> operator_pb2.ReportRequest:
            if broken:
                raise broken.pop()
            return good()

        resolver.reporter._report = reported
        await resolver.start(stack)
        await until(lambda: first.heard)
    assert "they are begun again" in caplog.text


async def test_named_coordinators_are_bounded_and_unfit_ones_told_once(
    settings: Settings,
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(report, "PERIOD_S", 0.02)
    names = ("192.0.2.1:7400", *(f"127.0.0.1:{number}" for number in range(1, 100)))
    async with coordinator() as (first, one), contextlib.AsyncExitStack() as stack:
        first.names = names
        resolver = Resolver(replace(settings, coordinators=(one,)), store)
        await resolver.start(stack)
        await until(lambda: len(first.heard) > 5)
        assert len(resolver.reporter.links) == report.MAX_COORDINATORS - 1
    assert caplog.text.count("coordinator can't be told") == 1


async def test_a_deleted_zone_is_refused_from_then_on(
    settings: Settings, store: MemoryStore
) -> None:
    asker = Asker(settings)
    async with running(settings, store):
        await asker.open()
        gone = [Delete(op.key) for op in configuration() if isinstance(op, Put)]
        await store.txn((), gone)
        end = time.monotonic() + 5
        while (await asker.ask()).header.get_rcode() != 5:
            assert time.monotonic() < end, "the zone is still answered"


async def test_a_new_geo_file_is_answered_by_and_reported_and_a_wild_one_is_not(
    settings: Settings, store: MemoryStore, tmp_path: Path
) -> None:
    path = tmp_path / "geo.mmdb"

    def placed(loopback: str, rest: str = "DE") -> None:
        blocks = {f"{number}.0.0.0/8": {"country_code": rest} for number in range(1, 20, 2)}
        fresh = tmp_path / "fresh.mmdb"
        geo_file(fresh, {**blocks, "127.0.0.0/8": {"country_code": loopback}})
        fresh.replace(path)

    placed("DE")
    rules = tuple(
        Rule(name=line[-2:].lower(), lines=(line,), tiers=(Tier(pools=(pool,)),))
        for line, pool in (("country:FR", "b"), ("default", "a"))
    )
    shop = Instance(id="gtm12345678", zone="gtm-000.test", rules=rules)
    members = (Member(value="192.0.2.9", answered=True, counted=True),)
    other = PoolState(type="ipv4", members=members)
    await store.txn(
        (),
        [
            Put(keys.config("instances", "shop"), codec.encode(shop)),
            Put(keys.pool("b"), codec.encode(other)),
        ],
    )
    settings = replace(settings, geo=(str(path),), geo_reload=Duration(5))
    stop = asyncio.Event()
    resolver = Resolver(settings, store)
    asker = Asker(settings)
    async with contextlib.AsyncExitStack() as stack:
        await resolver.start(stack)
        assert await resolver.wait_for_table(stop)
        await resolver.open(stack)
        assert await asker.addresses() == {"192.0.2.1"}
        hashes = [resolver.report().geo_hash]
        placed("FR")
        await until(lambda: resolver.reloader.reloads["loaded"] == 1)
        assert await asker.addresses() == {"192.0.2.9"}
        hashes.append(resolver.report().geo_hash)
        placed("DE", rest="CN")
        await until(lambda: resolver.reloader.reloads["refused"] == 1)
        assert await asker.addresses() == {"192.0.2.9"}
        assert resolver.standing().geo_refused
        path.unlink()
        await until(lambda: resolver.reloader.reloads["broken"] == 1)
        assert await asker.addresses() == {"192.0.2.9"}
        hashes.append(resolver.report().geo_hash)
        placed("DE")
        await until(lambda: resolver.reloader.reloads["loaded"] == 2)
        assert await asker.addresses() == {"192.0.2.1"}
        assert not resolver.standing().geo_refused
        assert hashes[0] != hashes[1] == hashes[2]


async def test_a_sample_of_queries_is_ranked_and_logged(
    settings: Settings, store: MemoryStore, tmp_path: Path
) -> None:
    log = tmp_path / "queries"
    http = free_tcp_port()
    asker = Asker(settings)
    watched = replace(
        settings, http=f"127.0.0.1:{http}", query_log=str(log), query_log_sample=1, top_sample=1
    )
    async with running(watched, store):
        await until(lambda: answering(asker.port))
        for _ in range(5):
            assert await asker.addresses() == {"192.0.2.1"}
        await until(lambda: log.read_text().count(NAME) >= 5)
        top = json.loads(await asyncio.to_thread(fetched, http, "/debug/top"))
        shown = (await asyncio.to_thread(fetched, http, "/metrics")).decode()
    rows = [json.loads(text) for text in log.read_text().splitlines()]
    asked = [row for row in rows if row["qname"] == NAME]
    assert {(row["instance"], row["rcode"], *row["answers"]) for row in asked} == {
        ("shop", "NOERROR", "192.0.2.1")
    }
    (name,) = [row for row in top["names"]["top"] if row["name"] == NAME]
    assert name["queries"] >= 5
    assert [row["network"] for row in top["clients"]["top"]] == ["127.0.0.0/24"]
    for counter in (
        'pool_queries_total{pool="a"}',
        'address_queries_total{address="192.0.2.1"}',
        'instance_queries_total{name="shop",rcode="NOERROR"}',
        "query_log_lines_total",
    ):
        (value,) = re.findall(rf"^gtm_resolver_{re.escape(counter)} (\S+)$", shown, re.MULTILINE)
        assert float(value) >= 5, counter


def answering(port: int) -> bool:
    """Whether somebody listens for DNS over TCP on a port of ours."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def free_tcp_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def fetched(port: int, path: str) -> bytes:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        found: bytes = answer.read()
        return found
