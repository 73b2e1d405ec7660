"""`gtm up`: everything on one machine, supervised until it is told to stop.

Checks the ground, starts every part at once behind its gate, and opens the gates as what each
needs is there: etcd, then the coordinator and the resolvers, then (with the regions and resources
applied) the agents. `ready` comes when every pool is published and every resolver serves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from coordinator.settings import Alike
from gtm.config import Reading
from gtm.embedded import EmbeddedEtcd
from gtm.errors import RefusedError, StartError
from gtm.etcd import EtcdOptions
from gtm.links import Tls
from gtm.settings import differing
from gtm.v1 import operator_pb2 as pb

from . import diff, files, ground, ready, show
from .beside import OPERATOR
from .client import Client, user
from .ground import Ports
from .supervisor import BACKOFF_FIRST_S, BACKOFF_MOST_S, LIVED_S, LogFile, Part, Supervisor
from .up_tls import Trust, known_users

T = TypeVar("T")

DEFAULT_REGIONS = ("r1", "r2", "r3")


ETCD_S = 3.0
"""For a given etcd to answer at the start."""


class Settings(Alike, frozen=True, kw_only=True):
    """What `gtm up` may be told; what its coordinators are told alike is handed on to each."""

    config: Annotated[
        tuple[str, ...], Meta(description="files or folders of resources, applied at the start")
    ] = ()
    data_dir: Annotated[str, Meta(description="folder of etcd's data, snapshots and logs")] = ".gtm"
    regions: Annotated[
        tuple[str, ...],
        Meta(description="one agent each; default: those that are declared, else r1,r2,r3"),
    ] = ()
    resolvers: Annotated[
        int, Meta(ge=1, le=ground.MAX_RESOLVERS, description="how many resolvers")
    ] = 2
    coordinators: Annotated[
        int,
        Meta(
            ge=1,
            le=ground.MAX_COORDINATORS,
            description="how many coordinators; all judge, one of them leads",
        ),
    ] = 1
    dns: Annotated[
        str, Meta(description="where the first resolver answers, others on the next ports")
    ] = "127.0.0.1:5300"
    base_port: Annotated[int, Meta(description="moves all other ports")] = 7400
    etcd: Annotated[
        tuple[str, ...], Meta(description="endpoints to use; default: an etcd of its own")
    ] = ()
    etcd_user: Annotated[str, Meta(description="user at that etcd")] = ""
    etcd_password: Annotated[str, Meta(description="its password; better as GTM_ETCD_PASSWORD")] = (
        ""
    )
    etcd_ca: Annotated[str, Meta(description="PEM file of who signed etcd's certificate")] = ""
    etcd_cert: Annotated[str, Meta(description="PEM file of the certificate shown to etcd")] = ""
    etcd_key: Annotated[str, Meta(description="PEM file of its key")] = ""
    insecure: Annotated[
        bool, Meta(description="no certificates: gRPC and an etcd of its own in the clear")
    ] = False
    geo: Annotated[
        tuple[str, ...], Meta(description="MaxMind-format files; default: the embedded one")
    ] = ()
    resolver: Annotated[
        str,
        Meta(description="DNS server for members that are names; default: those of this machine"),
    ] = ""
    allow_mass_change: Annotated[
        bool, Meta(description="apply even what takes much out of service")
    ] = False


async def run(settings: Settings) -> int:
    """Run everything until SIGINT or SIGTERM; the exit status."""
    stop = _Stop()
    async with AsyncExitStack() as stack:
        up = Up(settings, stack)
        stop.catch(up)
        try:
            await stop.or_done(up.start())
            if not stop.told.is_set():
                print("ready", flush=True)
                await stop.or_done(up.watch())
        finally:
            await up.stop()
    return 0


class _Stop:
    """SIGINT and SIGTERM: the first ends in order, the second at once."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    def catch(self, up: Up) -> None:
        def on_signal() -> None:
            if self.told.is_set():
                show.warn("killing everything")
                up.kill()
            self.told.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)

    async def or_done(self, work: Awaitable[None]) -> None:
        """Do `work` until it is done, fails (raises) or we are told to stop."""
        task = asyncio.ensure_future(work)
        told = asyncio.ensure_future(self.told.wait())
        try:
            await asyncio.wait((task, told), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            for one in (task, told):
                one.cancel()
            await asyncio.gather(task, told, return_exceptions=True)


class Up:
    """One run: `start` until ready, `watch` afterwards, `stop` in any case."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._directory = Path(settings.data_dir)
        self._etcd: EmbeddedEtcd | None = None
        self._supervisor: Supervisor | None = None
        self._trust = None if settings.insecure else Trust(self._directory)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Everything from the first check to the moment when all answers are there."""
        settings, began = self._settings, time.monotonic()
        ground.regions(settings.regions or DEFAULT_REGIONS)
        host, port = ground.dns_address(settings.dns)
        for path in settings.geo:
            ground.geo_file(path)
        reading = files.read(settings.config)
        resources = files.plain(reading.sound)
        declared = tuple(resources.get("regions", ()))
        again = bool(settings.etcd) or (self._directory / "etcd").exists()
        if not again:
            files.settled(reading)  # nothing is stored that it could build on
        names = settings.regions or declared or (() if again else DEFAULT_REGIONS)
        ports = Ports(
            base=settings.base_port,
            regions=len(names) or ground.MAX_REGIONS,
            resolvers=settings.resolvers,
            dns_host=host,
            dns_port=port,
            coordinators=settings.coordinators,
        )
        ports.check(embedded=not settings.etcd)
        self._stack.enter_context(ground.claim(self._directory))
        if settings.insecure and not settings.etcd and known_users(self._directory):
            raise StartError(
                f"the etcd in {self._directory} has users, who prove themselves by certificates: "
                "leave --insecure away, or choose another --data-dir",
                2,
            )
        scheme = "https" if self._trust else "http"
        endpoints = settings.etcd or (f"{scheme}://127.0.0.1:{ports.etcd[0]}",)
        if settings.etcd:
            await ground.reach(self._etcd_options())
        self._supervisor = supervisor = Supervisor(self._directory, show.warn)
        parts = self._parts(ports, endpoints)
        doors = [supervisor.start(part) for part in parts]
        agents = [supervisor.start(part) for part in self._agents(ports, names)]
        broken = asyncio.create_task(supervisor.broken())
        self._tasks.append(broken)
        trust, tls = self._trust, Tls()
        if trust is not None:  # the parts import meanwhile, and read their files behind the gate
            await asyncio.to_thread(trust.prepare, " ".join(ports.all_grpc), names, ports.resolvers)
            tls = trust.tls(OPERATOR)
            self._tasks.append(asyncio.create_task(trust.keep()))
        if not settings.etcd:
            await ready.unless(broken, self._own_etcd(ports))
        for door in doors:
            door.gate.set()
        async with Client(ports.grpc, tls) as client:
            stored = await ready.unless(broken, ready.answering(client))
            if not names:
                names = stored or DEFAULT_REGIONS
                ground.regions(names)
                if trust is not None:
                    trust.agents(names)
                agents = [supervisor.start(part) for part in self._agents(ports, names)]
            self._tell_places(ports, names, endpoints)
            regions: dict[str, Any] = {
                name: {} for name in names if name not in {*declared, *stored}
            }
            if regions:
                resources.setdefault("regions", {}).update(regions)
            for name in sorted({*stored, *declared} - set(names)):
                show.warn(
                    f"region {name} is declared but has no agent here: name it with --regions, "
                    f"or end it with gtm delete region {name}"
                )
            revision = await ready.unless(broken, self._apply(client, resources, reading))
            for agent in agents:
                agent.gate.set()
            ids = frozenset(part.name for part in parts if part.name.startswith("resolver"))
            every = settings.coordinators
            await ready.unless(broken, ready.joined(client, ids, len(names), every))
            supervisor.settle()
            await ready.served(client, revision, ids)
        show_s = time.monotonic() - began
        print(f"started in {show_s:.1f} s; logs in {self._directory / 'logs'}", flush=True)

    async def watch(self) -> None:
        """Keep the embedded etcd alive (the supervisor keeps the parts); never returns."""
        if self._etcd is None:
            await asyncio.Event().wait()
            return
        backoff_s = BACKOFF_FIRST_S
        while True:
            began = time.monotonic()
            status = await self._etcd.wait()
            if time.monotonic() - began >= LIVED_S:
                backoff_s = BACKOFF_FIRST_S
            show.warn(
                f"etcd ended with status {status} ({self._etcd.last_words()}); "
                f"again in {backoff_s:g} s"
            )
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)
            try:
                await self._etcd.start()
            except StartError as error:
                show.warn(f"etcd: {error}")

    def kill(self) -> None:
        """End every part at once."""
        if self._supervisor is not None:
            self._supervisor.kill()
        if self._etcd is not None and self._etcd.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._etcd.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Stop the parts, then etcd."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._supervisor is not None:
            await self._supervisor.stop()
        if self._etcd is not None:
            await self._etcd.stop()

    async def _own_etcd(self, ports: Ports) -> None:
        log = LogFile(self._directory / "logs" / "etcd.log")
        self._stack.callback(log.close)
        data, trust = self._directory / "etcd", self._trust
        tls = trust.etcd if trust else None
        self._etcd = EmbeddedEtcd(data, *ports.etcd, on_line=log.write, tls=tls)
        await self._etcd.start()
        if trust is not None:
            await trust.users(self._etcd.endpoint)

    def _etcd_options(self) -> EtcdOptions:
        given = self._settings
        return EtcdOptions(
            endpoints=given.etcd,
            user=given.etcd_user,
            password=given.etcd_password,
            timeout_s=ETCD_S,
            ca=given.etcd_ca,
            cert=given.etcd_cert,
            key=given.etcd_key,
        )

    def _parts(self, ports: Ports, endpoints: Sequence[str]) -> list[Part]:
        """The coordinators and the resolvers."""
        given = self._settings
        etcd = [f"--etcd={','.join(endpoints)}"]
        etcd += [
            f"--{name.replace('_', '-')}={value}"
            for name in ("etcd_user", "etcd_ca", "etcd_cert", "etcd_key")
            if (value := getattr(given, name))
        ]
        own = self._trust if not given.etcd else None
        secret = {"GTM_ETCD_PASSWORD": given.etcd_password} if given.etcd_password else {}
        geo = [f"--geo={','.join(given.geo)}"] if given.geo else []
        alike = differing(given, Alike)
        parts = []
        for number in range(ports.coordinators):
            name = "coordinator" if number == 0 else f"coordinator-{number + 1}"
            grpc, http = ports.coordinator(number)
            doors = [f"--id={name}", f"--grpc={grpc}", f"--http={http}"]
            words = ("coordinator", *etcd, *geo, *alike, *doors, *self._resolver())
            links = self._links("coordinator", own)  # one certificate: of one machine
            parts.append(Part(name=name, arguments=(*words, *links), environ=secret))
        for number in range(ports.resolvers):
            name = f"resolver-{number + 1}"
            arguments = [
                "resolver",
                f"--id={name}",
                f"--listen={ports.dns(number)}",
                f"--http={ports.resolver(number)}",
                f"--coordinators={','.join(ports.all_grpc)}",
                f"--data-dir={self._directory / name}",
                *geo,
                *etcd,
                *self._links(name, own),
            ]
            parts.append(Part(name=name, arguments=tuple(arguments), environ=secret))
        return parts

    def _links(self, name: str, etcd: Trust | None = None) -> list[str]:
        """How a part shows who it is, to others and to our `etcd`."""
        flags = self._trust.flags(name) if self._trust else ["--insecure"]
        return [*flags, *(etcd.flags(name, "etcd-") if etcd else ())]

    def _resolver(self) -> list[str]:
        """Whom those parts ask that resolve names."""
        return [f"--resolver={self._settings.resolver}"] if self._settings.resolver else []

    def _agents(self, ports: Ports, names: Sequence[str]) -> list[Part]:
        """An agent for each region."""
        return [
            Part(
                name=f"agent-{name}",
                arguments=(
                    "agent",
                    f"--id=agent-{name}",
                    f"--region={name}",
                    f"--coordinators={','.join(ports.all_grpc)}",
                    f"--http={ports.agent(number)}",
                    *self._resolver(),
                    *self._links(f"agent-{name}"),
                ),
            )
            for number, name in enumerate(names)
        ]

    def _tell_places(self, ports: Ports, names: Sequence[str], endpoints: Sequence[str]) -> None:
        dns = " ".join(ports.dns(number) for number in range(ports.resolvers))
        places = ("{}  (http {})".format(*ports.coordinator(n)) for n in range(ports.coordinators))
        for what, where in (
            ("etcd", " ".join(endpoints)),
            *(("coordinator", place) for place in places),
            ("agents", " ".join(names)),
            ("dns", dns),
        ):
            print(f"{what:12}{where}", flush=True)

    async def _apply(
        self, client: Client, resources: dict[str, dict[str, Any]], reading: Reading
    ) -> int:
        """Apply what was read; the revision from which on resolvers must serve."""
        if not any(resources.values()):
            return 0
        response = await client.apply(
            pb.ApplyRequest(
                resources=json.dumps(resources | files.expected(reading)),
                allow_mass_change=self._settings.allow_mass_change,
                request_id=uuid.uuid4().hex,
                who=user(),
                why="gtm up",
            )
        )
        problems = files.located(response.problems, reading)
        if response.applied:
            diff.print_problems(problems)
            return response.revision
        if response.refusal:
            raise StartError(f"refused: {response.refusal}")
        if problems:
            raise RefusedError(problems)
        raise StartError("the resources could not be applied: see the coordinator's log")
