"""A coordinator from start to end: opens its doors, wires its parts, keeps them running.

Decides nothing. The engine starts from what the store says, so a restart changes no answer; the
doors open when it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

import gtm
from gtm import codec, grpc_log, keys, links
from gtm.errors import GtmError, StartError
from gtm.etcd import connect
from gtm.etcd_options import EtcdOptions
from gtm.names import Names, is_server
from gtm.ports import Policy
from gtm.state import CoordinatorMember
from gtm.store import Event, Store
from gtm.telemetry import HttpDoor, transition
from gtm.tls_files import Files
from gtm.tls_meter import CertificateMeter
from gtm.v1 import agent_pb2, agent_pb2_grpc, operator_pb2, operator_pb2_grpc
from gtm.view import Changes, View

from . import patience, troubles
from .apply import Applier
from .callers import Callers, Refusals
from .catch_up import CatchUp
from .chronicle import Chronicle
from .election import Election, Leadership, Membership
from .engine import Engine
from .events import Resolved
from .expiry import Certificate
from .flatten import Flattener
from .gateway import Gateway
from .judge import Judge
from .mirror import Mirror, Table
from .operator import Operator
from .overrides import Overrides
from .planner import Planner
from .publisher import Publisher
from .replicas import Replicas
from .sets import names_of
from .settings import Settings
from .standing import Standing, StoreHealth
from .status import Members, Status
from .tokens import Tokens
from .trail import Notes, Trail, refused
from .verdicts import PART
from .webhook import chosen

MIN_LEASE_MS = 2_000
"""Of etcd, with its usual time for an election."""
GRACE_S = 0.5
"""For calls under way when the coordinator stops."""

CERTIFICATES_S = 10.0
"""How often it is looked which certificates are in use."""

log = logging.getLogger("coordinator")


async def run(settings: Settings, policy: Policy, stop: asyncio.Event) -> None:
    """Run a coordinator until `stop` is set. Raises StartError for what a user must mend."""
    links.chosen(_tls(settings), insecure=settings.insecure, what=f"gRPC on {settings.grpc}")
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
    coordinator = Coordinator(settings, store, policy)
    starting = asyncio.create_task(coordinator.start())
    stopping = asyncio.create_task(coordinator.until(stop))
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            stopping.result()  # also where a part broke before all had started
        else:
            starting.result()
            await stopping
    finally:
        starting.cancel()
        stopping.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await coordinator.close()
        await store.close()


def _tls(settings: Settings) -> links.Tls:
    return links.Tls(ca=settings.ca, cert=settings.cert, key=settings.key)


class Coordinator:
    """Every part of one coordinator, wired; `close` ends what `start` began."""

    def __init__(
        self, settings: Settings, store: Store, policy: Policy, records: int = PART
    ) -> None:
        """`records`: of standing verdicts that the store lacks, made in one evaluation."""
        self._settings, self._store = settings, store
        self.port = 0
        self.http_port = 0
        self.files: dict[str, Files] = {}
        """The certificates of the gRPC doors and of the links to etcd, those that have TLS."""
        self.leadership = Leadership(lambda: self.publisher.wake())
        self.publisher = Publisher(
            store,
            self.leadership,
            take_over=self._restore,
            named=lambda key: self.judge.named(key),
            together=lambda: self.judge.together(),
            written=lambda written, revision: self.chronicle.committed(written, revision),
        )
        self.engine = Engine(settings.brake(), records)
        self.judge = Judge(self.engine, self.publisher)
        self.replicas: Replicas | None = None
        self.chronicle = Chronicle(
            store,
            self.leadership,
            lambda: self.id,
            lambda: self.replicas.ids() if self.replicas else (),
        )
        self.judge.decided = self.chronicle.decided
        self.mirror = Mirror(store, self._changed, self.publisher.gap)
        self._restored = False
        self._regions = Table(store, keys.REGIONS, self._met)
        self._forces = Table(store, keys.FORCES, self._forced)
        self._membership = Membership(store, lambda key: key.startswith(keys.agent(self.id, "")))
        self._members = Members(store, self._member_news)
        self._tokens = Tokens(settings.tokens)
        self.refusals = Refusals()
        """Calls refused for who made them."""
        self._notes = Notes(Trail(store))
        self.refusals.audit = lambda refusal: self._notes.note(refused(refusal))
        self._server = links.server(Callers(self._tokens, self.refusals, clear=not _tls(settings)))
        self._health = HealthServicer()
        self._store_health = StoreHealth(store)
        standing = Standing(
            self.engine,
            self.publisher,
            self._store_health,
            lambda: self.replicas,
            self.not_ready,
            lambda: self.judge.recent,
        )
        registry = standing.registry()
        registry.register(CertificateMeter("coordinator", lambda: self.files))
        self._door = HttpDoor(self.not_ready, registry)
        self._policy = policy
        self._stack = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken = asyncio.Event()
        self.election: Election
        self.gateway: Gateway
        self.applier: Applier

    # ---- start and end -------------------------------------------------------------------------

    async def close(self) -> None:
        """End every part; the leadership is given up."""
        # No new call from now on: an agent whose stream ends comes back within milliseconds.
        closing = asyncio.ensure_future(self._server.stop(GRACE_S))
        await self._stack.aclose()
        await closing

    async def start(self) -> None:
        """Open the doors and begin to judge from what the store says. Raises StartError."""
        settings = self._settings
        if settings.resolver and not is_server(settings.resolver):
            raise StartError(f"--resolver {settings.resolver!r} is not ADDRESS:PORT", 2)
        if settings.lease.ms < MIN_LEASE_MS or settings.lease.ms % 1000:
            raise StartError("--lease: etcd counts whole seconds, of which it wants 2 at least", 2)
        webhook = chosen(settings, self.leadership, self.engine.alarms, source=lambda: self.id)
        if webhook is not None:
            self.judge.alarmed = webhook.alarmed
        self._listen()
        if settings.http:
            host, _, port = settings.http.rpartition(":")
            if not port.isdecimal():
                raise StartError(f"--http {settings.http!r} is not HOST:PORT", 2)
            self.http_port = await self._door.start(host.strip("[]"), int(port))
            self._stack.push_async_callback(self._door.close)
        await patience.reached(self._store, settings.etcd)
        await self._stack.enter_async_context(self._running())
        self._begin(self.mirror.run())
        for table in (self._regions, self._forces, *self._members.tables):
            self._begin(table.run())
        for followed in (self.mirror, self._regions, self._forces, *self._members.tables):
            await followed.ready.wait()
        await self._restore()
        self._restored = True
        self.judge.met(self._regions.values, ())  # what came while the store was read
        self.judge.forced(self._forces.values, ())
        self._serve()
        self._begin(self.judge.run())
        self._begin(self.publisher.run())
        self._begin(self.chronicle.run())
        self._begin(self._notes.run())
        self._begin(self.election.run())
        self._begin(self._store_health.run())
        self._begin(self._look_at_certificates())
        self._begin(self._flattener().run())
        if webhook is not None:
            self._begin(webhook.run())
        self._begin(troubles.watched(self._troubles, self.judge.handle))
        await self._server.start()
        transition(
            log,
            "ready",
            id=self.id,
            grpc=self.address,
            http=self.http_port,
            version=gtm.__version__,
        )

    def _listen(self) -> None:
        """Bind the door for everybody with a certificate, and the one for tokens."""
        loop = asyncio.get_running_loop()

        def told(failure: grpc_log.Failure) -> None:
            loop.call_soon_threadsafe(self.refusals.handshake, failure)

        grpc_log.on_failure = told
        settings, server = self._settings, self._server
        etcd = links.Tls(ca=settings.etcd_ca, cert=settings.etcd_cert, key=settings.etcd_key)
        for use, tls in (("grpc", _tls(settings)), ("etcd", etcd)):
            if tls:
                self.files[use] = Files(tls, log)
        shown = self.files.get("grpc", links.Tls())
        self.port = links.listen(server, settings.grpc, shown, insecure=settings.insecure)
        if settings.operators:
            if "grpc" not in self.files or not settings.tokens:
                raise StartError("--operators wants --tokens, --ca, --cert and --key", 2)
            self._tokens.load()
            links.listen(server, settings.operators, shown, certified=False)

    async def _look_at_certificates(self) -> None:
        """Tell the engine which certificates are in use: ours, and those of agents that stream."""
        while True:
            found = []
            for use, files in self.files.items():
                files.refresh()
                for of, (begins, ends) in files.lives().items():
                    whose = f"{of} of coordinator {self.id} for {use}"
                    found.append(Certificate(group=self.id, whose=whose, begins=begins, ends=ends))
            for stream in self.gateway.streams:
                one = stream.caller
                if one.until:
                    found.append(
                        Certificate(
                            group="agents", whose=str(one), begins=one.since, ends=one.until
                        )
                    )
            self.engine.certificates = tuple(found)
            await asyncio.sleep(CERTIFICATES_S)

    def _troubles(self) -> dict[str, str]:
        replicas, health = self.replicas, self._store_health
        if replicas is None:
            return {}
        found = replicas.statuses(self.mirror.serve_revision)
        return troubles.troubles(health.asked, health.last, found, replicas.behind_s())

    def _flattener(self) -> Flattener:
        return Flattener(
            Names(self._settings.resolver),
            wanted=lambda: names_of(self.judge.view.config_pools),
            known=self.engine.sets,
            leads=lambda: self.leadership.fence > 0,
            tell=lambda sets: self.judge.handle(Resolved(sets=sets)),
            clock=lambda: self.judge.now,
        )

    def _serve(self) -> None:
        address = self.address
        member = CoordinatorMember(
            id=self.id, address=address, version=gtm.__version__, since=time.time()
        )
        self._membership.put(keys.coordinator(self.id), codec.encode(member))
        self.election = Election(
            self._store,
            self.id,
            self.leadership,
            self._membership,
            ttl_s=self._settings.lease.s,
            caught_up=CatchUp(
                lambda: ((one.region, one.id) for one in self._members.agents()),
                lambda: (one.name for one in self.gateway.streams if one.digested),
                self._settings.catch_up.s,
            ).wait,
        )

        def coordinators() -> set[str]:
            return {address, *(one.address for one in self._members.coordinators())}

        self.gateway = Gateway(
            self.id,
            self.judge,
            self._membership,
            coordinators=coordinators,
            met=self.publisher.met,
        )
        self._stack.callback(self.gateway.close)
        self.replicas = replicas = Replicas(coordinators, served=self.chronicle.served)
        replicas.published(self.mirror.serve_revision)
        status = Status(
            self.id,
            self._store,
            self.mirror,
            self._members,
            self.leadership,
            self.engine,
            replicas,
            lambda: self.gateway.streams,
            self.election,
        )
        self.applier = Applier(self._store, self.mirror, Planner(self._store, self._policy))
        operator = Operator(
            self._store,
            self.mirror,
            self.applier,
            Overrides(
                self._store,
                self.mirror,
                regions=lambda: [one.name for one in self.engine.regions()],
            ),
            self.judge,
            self._policy,
            status,
        )
        agent_pb2_grpc.add_AgentsServicer_to_server(  # type: ignore[no-untyped-call]
            self.gateway, self._server
        )
        operator_pb2_grpc.add_OperatorServicer_to_server(  # type: ignore[no-untyped-call]
            operator, self._server
        )
        operator_pb2_grpc.add_ReplicasServicer_to_server(  # type: ignore[no-untyped-call]
            replicas, self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (
            *(service.full_name for service in agent_pb2.DESCRIPTOR.services_by_name.values()),
            *(service.full_name for service in operator_pb2.DESCRIPTOR.services_by_name.values()),
            *(service.full_name for service in health_pb2.DESCRIPTOR.services_by_name.values()),
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, self._server)
        self._begin(self._tell_health(names))

    # ---- running -------------------------------------------------------------------------------

    async def until(self, stop: asyncio.Event) -> None:
        """Wait until `stop` is set; what ends a part ends all, and is raised."""
        waits = [asyncio.create_task(event.wait()) for event in (stop, self._broken)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        for task in self._tasks:
            if task.done():
                if not task.cancelled():
                    task.result()
                if not stop.is_set():
                    raise GtmError(f"{task.get_name()} ended although nobody stopped it")

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=getattr(work, "__qualname__", "a task"))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._broken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s broke, and with it the coordinator", task.get_name(), exc_info=error)

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- who we are ----------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where agents and resolvers reach us."""
        host = self._settings.grpc.rpartition(":")[0]
        return self._settings.advertise or f"{host}:{self.port}"

    @property
    def id(self) -> str:
        """Our id among coordinators."""
        return self._settings.id or f"{socket.gethostname()}-{self.port}"

    def not_ready(self) -> str:
        """ "" with an etcd session and configuration, leader or not; else what is missing."""
        if not self._restored:
            return "the configuration is not read yet"
        if not self.election.session.is_set():
            return "no session with etcd"
        return ""

    async def _tell_health(self, names: tuple[str, ...]) -> None:
        """Say through grpc.health.v1 what /readyz says."""
        said: int | None = None
        while True:
            serving = (
                health_pb2.HealthCheckResponse.NOT_SERVING
                if self.not_ready()
                else health_pb2.HealthCheckResponse.SERVING
            )
            if serving != said:
                said = serving
                for name in ("", *names):
                    await self._health.set(name, serving)
            await asyncio.sleep(1.0)

    # ---- news of the store ---------------------------------------------------------------------

    async def _restore(self) -> None:
        await patience.outlasting(lambda: self.judge.restore(self._store, lambda: self.mirror.view))

    def _changed(self, view: View, changes: Changes, events: tuple[Event, ...]) -> None:
        if self.replicas is not None:
            self.replicas.published(self.mirror.serve_revision)
        if self._restored:
            self.judge.changed(view, changes, events)
        else:
            self.publisher.seen(events)

    def _member_news(self, events: tuple[Event, ...]) -> None:
        self._membership.seen(events)
        if self._restored:
            self.gateway.announce()

    def _met(self, events: tuple[Event, ...]) -> None:
        if self._restored:
            self.judge.met(self._regions.values, events)
        else:
            self.publisher.seen(events)

    def _forced(self, events: tuple[Event, ...]) -> None:
        if self._restored:
            self.judge.forced(self._forces.values, events)
        else:
            self.publisher.seen(events)
