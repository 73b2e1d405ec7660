"""The resolver as a process: what is opened when, and in which order everything ends.

Decides only what a start means: the doors open when there is a table, from the store if its list is
complete in time, else from the snapshot, marked stale; with neither they open to say "not ready".
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector

import gtm
from gtm import etcd_meters
from gtm.errors import StartError
from gtm.etcd import EtcdOptions, connect
from gtm.links import Tls, chosen
from gtm.notify import notify
from gtm.store import Store
from gtm.telemetry import HttpDoor, transition
from gtm.tls_files import Files
from gtm.tls_meter import CertificateMeter
from gtm.v1 import operator_pb2
from gtm.view import Changes, View

from .cells import TIDY_S, Labels
from .compiler import compile_table
from .follower import Follower
from .geo_files import GeoFiles
from .geo_reload import GeoReloader
from .limits import STALE_AFTER_S
from .listener import Door, Listener
from .loader import native
from .locate import Atlas, geo_hash
from .meters import SILENT, Meters, NameTally, Standing, Tally
from .native import NativeNames, NativeResponder, NativeTally
from .native_meter import NativeMeter
from .place import Locator
from .plan import Met
from .query_log import QueryLog
from .report import Reporter
from .responder import Transport, respond
from .sampling import HALF, LogMeter, NativeSample, Sample, Sampler, top_page
from .settings import Settings, endpoint, shown
from .snapshot import SnapshotRefused, SnapshotWriter, load, prepared
from .steered import SteeredTally
from .succession import Replacement, Succession
from .table import AnswerTable, Serving, heard, not_ready
from .takeover import HTTP, Former, Handed, Inherited, claim, endpoint_of
from .tcp import TcpLimits
from .udp import Answer
from .xdp import Express

SWITCH_S = 0.0005
"""How long a thread that writes a snapshot may keep the interpreter from the queries."""
AGAIN_S = 1.0
"""Wait before a background task that broke is begun again."""

REPLACE = signal.SIGUSR2
"""Has a resolver start its own command again, to take over from it."""
BESIDE_S = 60.0
"""Wait for etcd before the snapshot is looked at, while the former resolver answers."""
LOOK_S = 0.1
"""How often it is looked whether a table has become new enough."""

_log = logging.getLogger("resolver")


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. Raises StartError for what a user must mend."""
    if settings.coordinators:
        chosen(
            _tls(settings),
            insecure=settings.insecure,
            what=f"the link to {', '.join(settings.coordinators)}",
        )
    store = connect(
        EtcdOptions(
            endpoints=settings.etcd,
            user=settings.etcd_user,
            password=settings.etcd_password,
            ca=settings.etcd_ca,
            cert=settings.etcd_cert,
            key=settings.etcd_key,
        )
    )
    replacement, loop = Replacement(), asyncio.get_running_loop()
    loop.add_signal_handler(REPLACE, replacement.start)
    try:
        await serve(settings, store, stop)
    finally:
        loop.remove_signal_handler(REPLACE)
        replacement.close()
        await store.close()


async def serve(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    """`run` over a given store, which is left open."""
    sys.setswitchinterval(SWITCH_S)
    resolver = Resolver(settings, store)
    async with AsyncExitStack() as stack:
        await resolver.start(stack)
        if await resolver.wait_for_table(stop):
            await resolver.open(stack)
            await _any(None, stop, resolver.relieved)
            if resolver.relieved.is_set():
                await resolver.drain(stop)
            else:
                transition(_log, "stopping", id=resolver.id)


def _tls(settings: Settings) -> Tls:
    return Tls(ca=settings.ca, cert=settings.cert, key=settings.key)


def _etcd_tls(settings: Settings) -> Tls:
    return Tls(ca=settings.etcd_ca, cert=settings.etcd_cert, key=settings.etcd_key)


class Resolver:
    """One resolver: follower, doors, meters, reports, and the order in which they begin."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.id = settings.id or _default_id(settings)
        self.geo = GeoFiles(settings.geo, settings.geo_move_limit.of_one)
        self.reloader = GeoReloader(self.geo, settings.geo_reload.s, self._put_locator)
        try:
            self.serving = Serving(
                nsid=settings.nsid or self.id[:64],
                version=f"Meridian GTM {gtm.__version__}" if settings.version_bind else "",
                server=self.id if settings.version_bind else "",
                udp_payload=settings.edns_buffer,
                idle_s=settings.tcp_idle.s,
            )
        except ValueError as error:
            raise StartError(f"{error}; shorten --nsid or --id", 2) from error
        module = native()
        self.native = NativeResponder(module, self.serving) if module is not None else None
        self._names, over_udp, over_tcp = NameTally(), Tally(), Tally()
        self.steered = (
            SteeredTally(Labels())
            if self.native is None
            else SteeredTally(self.native.labels, partial(self.native.counted, 0))
        )
        self.meters = Meters(
            self.standing,
            over_udp if self.native is None else NativeTally(self.native, "udp"),
            over_tcp if self.native is None else NativeTally(self.native, "tcp"),
            self._names if self.native is None else NativeNames(self.native),
            self.steered,
        )
        log_every = settings.query_log_sample if settings.query_log else 0
        self._sampler = Sampler(settings.top_sample, log_every)
        self.sample: Sample = (
            self._sampler
            if self.native is None
            else NativeSample(self.native, settings.top_sample, log_every)
        )
        limits = TcpLimits(
            connections=settings.tcp_connections,
            per_client=settings.tcp_per_client,
            idle_s=settings.tcp_idle.s,
            total_s=settings.tcp_total.s,
        )
        self.listener = Listener(
            settings.listen,
            limits,
            self._answering("udp", over_udp),
            self._answering("tcp", over_tcp),
            self.native.door if self.native is not None else None,
            (settings.workers or len(os.sched_getaffinity(0))) if self.native is not None else 1,
            self.native.streams(limits) if self.native is not None else None,
            Express(self.native, settings.xdp) if settings.xdp else None,
        )
        self.follower: Follower[AnswerTable] = Follower(
            store,
            partial(self._compile, self.geo.locator),
            heard if self.native is None else self.native.heard,
            self._swapped,
        )
        self.snapshot: Path | None = None
        self.writer: SnapshotWriter | None = None
        self.succession: Succession | None = None
        self.former: Former | None = None
        """The resolver that we take over from, until we have."""
        self.relieved = asyncio.Event()
        """Set when another has taken over from us."""
        if settings.data_dir:
            self.snapshot = prepared(settings.data_dir, self.id)
            self.writer = SnapshotWriter(self.snapshot, self.follower.good)
            path = endpoint_of(self.snapshot)
            self.succession = Succession(path, self._handed, self._leave)
        elif settings.takeover:
            raise StartError("--takeover needs --data-dir, the folder in which both meet", 2)
        self.reporter = Reporter(
            settings.coordinators,
            _tls(settings),
            self.report,
            insecure=settings.insecure,
        )
        self.files = {
            use: Files(tls, _log)
            for use, tls in (("grpc", _tls(settings)), ("etcd", _etcd_tls(settings)))
            if tls
        }
        self.addresses: tuple[str, ...] = settings.listen
        self._not_ready = not_ready(self.serving)

    async def start(self, stack: AsyncExitStack) -> None:
        """Begin everything but the DNS doors; `stack` ends it. Raises StartError."""
        if self.settings.takeover and self.succession is not None:
            self.former = await claim(self.succession.path)
        given = Inherited()
        if self.former is not None:
            stack.push_async_callback(self.former.close)
            given = self.former.sockets
        self.listener.check(given)
        registry = CollectorRegistry()
        registry.register(self.meters)
        registry.register(NativeMeter(self.native))
        registry.register(etcd_meters.REGISTRY)
        registry.register(CertificateMeter("resolver", lambda: self.files))
        ProcessCollector(registry=registry)
        log: QueryLog | None = None
        if self.settings.query_log:
            log = QueryLog(self.settings.query_log, self.sample.take, lambda: self.follower.table)
            log.start()
            stack.push_async_callback(asyncio.to_thread, log.close)
        registry.register(LogMeter(log, self.sample.dropped))
        every = self.settings.top_sample
        pages = {"/debug/top": partial(top_page, self.sample, every)} if every else {}
        self._door = HttpDoor(self.unready, registry, pages)
        stack.push_async_callback(self._door.close)
        if not given.has(HTTP, *endpoint(self.settings.http, "http")):
            await self._open_http(Inherited())
        stack.push_async_callback(self.reporter.close)
        if self.former is None:
            self.reporter.start()
        if self.writer is not None:
            writing = _kept("snapshot writer", self.writer.run)
            stack.push_async_callback(_ended, writing)
            stack.callback(self.writer.close)
        following = _kept("follower", self.follower.run)
        stack.push_async_callback(_cancelled, following)
        tidying = _kept("tidying of labels", self._keep_labels)
        stack.push_async_callback(_cancelled, tidying)
        if self.settings.geo_reload.ms:
            reloading = _kept("reloading of geo data", self.reloader.run)
            stack.push_async_callback(_cancelled, reloading)

    async def wait_for_table(self, stop: asyncio.Event) -> bool:
        """Wait for what there is to open the doors with; False when told to stop instead.

        Raises StartError where the store refuses us and there is no snapshot either.
        """
        follower, settings = self.follower, self.settings
        if self.former is not None and await self._wait_beside(self.former, stop):
            return not stop.is_set()
        await _any(settings.first_list.s, stop, follower.listed, follower.denied)
        if follower.table is None and not stop.is_set():
            await self._begin_with_snapshot()
        if follower.table is None:
            left_s = settings.not_ready.s - settings.first_list.s
            await _any(left_s, stop, follower.listed, follower.denied)
        if follower.table is None and follower.denial:
            raise StartError(
                f"etcd refuses us: {follower.denial}; check --etcd-user and GTM_ETCD_PASSWORD"
            )
        return not stop.is_set()

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the DNS doors and say so. Raises StartError."""
        # What is there now lives long: collections need not walk it again and again. This one takes
        # a second for a million names: nobody waits for us yet.
        gc.collect()
        gc.freeze()
        given = Inherited()
        if self.former is not None:
            given = self.former.sockets
            self.reporter.start()  # what it refuses must not come when nobody else serves
        if self.native is not None:
            stack.callback(self.native.close)
        self.addresses = await self.listener.open(given)
        stack.push_async_callback(self.listener.close)
        if self.former is not None:
            await self._relieve(self.former, given)
        else:
            notify("READY=1")
        if self.succession is not None:
            self.succession.open()
            stack.push_async_callback(self.succession.close)
        if self.follower.table is None:
            transition(_log, "neither store nor snapshot: answering SERVFAIL", logging.WARNING)
        transition(
            _log,
            "ready",
            id=self.id,
            dns=" ".join(self.addresses),
            http=self.http,
            revision=self.follower.revision,
            geo=geo_hash(self.geo.locator) or "none",
        )
        self.reporter.changed()

    async def drain(self, stop: asyncio.Event) -> None:
        """Wait while clients have TCP connections with us; the doors are another's."""
        while len(self.listener.streams) and not stop.is_set():
            await _any(LOOK_S, stop)
        transition(_log, "left", id=self.id, queries=self.meters.queries())

    async def _open_http(self, given: Inherited) -> None:
        host, port = endpoint(self.settings.http, "http")
        sockets = given.take(HTTP, host, port)
        self.http = shown(host, await self._door.start(host, port, *sockets))

    async def _wait_beside(self, former: Former, stop: asyncio.Event) -> bool:
        """Wait for a table no older than the former resolver's: it answers meanwhile.

        False where it is gone before: then it is a start like any other.
        """
        follower, told = self.follower, False
        await _any(BESIDE_S, stop, follower.listed, follower.denied, former.gone)
        if follower.table is None and not stop.is_set():
            await self._begin_with_snapshot()
        if follower.table is None and follower.denial:
            raise StartError(f"etcd refuses us: {follower.denial}; the former resolver goes on")
        while not (stop.is_set() or former.gone.is_set()):
            if follower.listed.is_set():  # the newest, even where a restored store counts anew
                return True
            if follower.table is not None and follower.revision >= former.revision:
                return True
            if not told:
                told = True
                transition(
                    _log, "no table as new as the former resolver's: it goes on", logging.WARNING,
                    revision=follower.revision, wanted=former.revision,
                )  # fmt: skip
            await _any(LOOK_S, stop, former.gone)
        return stop.is_set()

    async def _relieve(self, former: Former, given: Inherited) -> None:
        """Have the former resolver leave; every socket of its is read by us already."""
        if given.has(HTTP, *endpoint(self.settings.http, "http")):
            await self._open_http(given)
        given_up = given.close()
        await former.relieve()
        await former.close()
        self.former = None
        self.listener.widen()
        transition(_log, "taken over", pid=former.pid, given_up=" ".join(given_up) or "none")

    def _handed(self) -> tuple[Handed, int]:
        """What a newer process gets: every socket of ours, and the revision served."""
        http = [(HTTP, fd) for fd in self._door.descriptors]
        return [*self.listener.handed(), *http], self.follower.revision

    async def _leave(self, pid: int) -> None:
        """Process `pid` serves: close every door, and leave it what there is one of."""
        await self.listener.retire(self.settings.drain.s)
        await self._door.close()
        await self.reporter.close()
        if self.writer is not None:
            self.writer.leave()
        notify(f"MAINPID={pid}")
        transition(_log, "relieved", pid=pid, connections=len(self.listener.streams))
        self.relieved.set()

    def unready(self) -> str:
        """Why `/readyz` says no; "" when there is a table, whatever its age."""
        return "" if self.follower.table is not None else "neither store nor snapshot yet"

    def standing(self) -> Standing:
        """What the metrics show."""
        streams = self.listener.streams
        counters: list[Door | NativeResponder] = [*self.listener.doors]
        if self.native is not None:
            counters.append(self.native)
        locator = self.geo.locator
        databases = locator.databases if isinstance(locator, Atlas) else ()
        return Standing(
            ready=not self.unready(),
            table=self.follower.table,
            revision=self.follower.revision,
            age_s=self.follower.age_s(),
            stale=self.stale(),
            compiled=self.follower.compiled,
            compiling_s=self.follower.compiling_s,
            snapshot_revision=self.writer.written_revision if self.writer else 0,
            reported=self.reporter.reached,
            refused_states=self.follower.refused,
            snapshot_errors=self.writer.errors if self.writer else 0,
            tcp_connections=len(streams),
            tcp_refused=streams.refused,
            tcp_expired=streams.expired,
            unsent=sum(counter.unsent() for counter in counters),
            oversize=sum(counter.oversize() for counter in counters),
            geo_errors=sum(database.errors for database in databases),
            geo_reloads=self.reloader.reloads,
            geo_refused=bool(self.reloader.refusal),
            geo_age_s=self.reloader.age_s(),
        )

    def stale(self) -> bool:
        """Whether answers are marked stale, or come from the snapshot."""
        return self.follower.age_s() > STALE_AFTER_S or not self.follower.listed.is_set()

    def report(self) -> operator_pb2.ReportRequest:
        """What the coordinators are told."""
        age_s = self.follower.age_s()
        return operator_pb2.ReportRequest(
            id=self.id,
            version=gtm.__version__,
            listen=self.addresses,
            served_revision=self.follower.revision,
            geo_hash=geo_hash(self.geo.locator),
            snapshot_age_s=age_s,
            stale=self.stale(),
            queries=self.meters.queries(),
            refused_states=self.follower.refused,
        )

    async def _put_locator(self, locator: Locator) -> None:
        """Answer by new geo data; raises where no table can be made with them."""
        await self.follower.recompile(partial(self._compile, locator))
        self.reporter.changed()

    def _compile(
        self,
        locator: Locator,
        view: View,
        previous: AnswerTable | None,
        changes: Changes | None,
    ) -> AnswerTable:
        """The table of a view, in force in the native responder already; any thread."""
        table = compile_table(view, locator, previous, changes, serving=self.serving)
        if self.native is not None:
            self.native.put(table)
        return table

    def _swapped(self) -> None:
        self.reporter.changed()
        if self.writer is not None:
            self.writer.changed()

    def _answering(self, transport: Transport, tally: Tally) -> Answer:
        """The responder over the table of the moment, counted; it never raises."""
        outcomes, dice, now = tally.outcomes, random.getrandbits, time.monotonic
        known, first = self._names.known, self._names.first
        steered, sampler = self.steered.add, self._sampler

        def answer(query: bytes, client: bytes) -> bytes | None:
            table = self.follower.table or self._not_ready
            met: Met = []
            draw = dice(64)
            try:
                reply = respond(table, query, client, transport, now(), draw, met)
            except Exception:
                tally.failed += 1
                if tally.failed == 1:
                    _log.exception("a query broke the responder: %s", query[:512].hex())
                reply = None
            outcome = SILENT if reply is None else reply[3] & 15
            outcomes[outcome] += 1
            qname = query[12 : query.find(b"\0", 12) + 1].lower()
            (known.get(qname) or first(table, qname))[outcome] += 1
            if met:
                steered(met)
            if draw % HALF < sampler.below:
                sampler.saw(time.time(), draw, query, client, transport, reply)
            return reply

        return answer

    async def _keep_labels(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            table, now_s = self.follower.table, time.monotonic()
            if self.native is not None:
                await self.native.tidy(now_s)
            elif table is not None:
                await self.steered.tidy(table, now_s)

    async def _begin_with_snapshot(self) -> None:
        if self.snapshot is None:
            return
        try:
            snapshot = await asyncio.to_thread(load, self.snapshot)
        except SnapshotRefused as error:
            transition(
                _log, "snapshot refused", logging.ERROR, path=self.snapshot, cause=error
            )  # fmt: skip
            return
        if snapshot is None or self.follower.table is not None:
            return
        if self.follower.begin(snapshot):
            transition(
                _log,
                "store not heard yet: serving the snapshot, marked stale",
                logging.WARNING,
                revision=snapshot.listing.revision,
                age_s=round(self.follower.age_s(), 1),
            )


def _default_id(settings: Settings) -> str:
    return f"{socket.gethostname()}-{endpoint(settings.listen[0], 'listen')[1] or os.getpid()}"


async def _any(timeout_s: float | None, *events: asyncio.Event) -> None:
    """Wait until one of `events` is set or the time, if any, is over."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        left_s = None if timeout_s is None else max(0.0, timeout_s)
        await asyncio.wait(tasks, timeout=left_s, return_when="FIRST_COMPLETED")
    finally:
        for task in tasks:
            task.cancel()


def _kept(name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """A background task that is begun again when a defect ends it: answers must go on."""

    async def keep() -> None:
        while True:
            try:
                return await work()
            except Exception:
                _log.exception("%s broke; it is begun again", name)
            await asyncio.sleep(AGAIN_S)

    return asyncio.get_running_loop().create_task(keep())


async def _ended(task: asyncio.Task[None]) -> None:
    await task


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
