"""The agent as a part: wires schedule, runner and uplink together and opens the HTTP door."""

from __future__ import annotations

import asyncio
import logging
import re
import resource
import socket
import uuid

from prometheus_client import REGISTRY, CollectorRegistry

import gtm
from gtm.errors import StartError
from gtm.forms import canary, label
from gtm.links import Tls, channel, chosen
from gtm.names import Names, is_server
from gtm.telemetry import HttpDoor, transition
from gtm.tls_files import Files
from gtm.tls_meter import CertificateMeter

from . import metrics
from .canaries import Canaries
from .guard import Guard
from .link import Hello
from .named import by_name
from .probes import icmp
from .results import ResultLog
from .runner import Runner
from .settings import Settings
from .targets import types
from .uplink import Uplink

PROBES_S = 2.0
"""How long a stopping agent lets the probes under way go on."""
DRAIN_S = 1.0
"""How long it then waits for its last results to be acknowledged."""
GOODBYE_S = 0.5
"""How long it waits for coordinators to hear that it goes."""
SPARE_FILES = 64
"""Files that probes leave to the rest of the process."""

NAMED = "family:domain"
"""The capability to resolve targets that are names; agents without it are not assigned any."""
ALL = "names:all"
"""The capability to ask success of all addresses of a name."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
log = logging.getLogger("agent")


def default_id() -> str:
    """The host's name as an agent's name: stable over restarts."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0])[:63].strip("-_")
    return name or "agent"


def _families() -> list[str]:
    """The address families that this machine speaks at all."""
    found = []
    for name, family, loopback in (
        ("family:ipv4", socket.AF_INET, "127.0.0.1"),
        ("family:ipv6", socket.AF_INET6, "::1"),
    ):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((loopback, 0))
        except OSError:
            continue
        found.append(name)
    return found


def _room(wanted: int) -> int:
    """Raise the limit of open files as far as allowed; how many probes it has room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (OSError, ValueError):
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        room = max(1, soft - SPARE_FILES)
        transition(log, "fewer probes at once", logging.WARNING, probes=room, open_files=soft)
        return room
    return wanted


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Probe for the coordinators until `stop` is set; StartError for what a user must mend."""
    agent_id = settings.id or default_id()
    if not _ID.fullmatch(agent_id):
        raise StartError(
            f"the agent's id {agent_id!r} is not 1 to 128 letters, digits, dots, dashes, colons "
            "or underscores: give --id",
            2,
        )
    try:
        region = label(settings.region)
    except ValueError as error:
        raise StartError(f"{error}: give --region the name of a region", 2) from error
    hello = Hello(
        region=region,
        agent_id=agent_id,
        version=gtm.__version__,
        capabilities=(*types(), *_families(), NAMED, ALL),
        incarnation=uuid.uuid4().hex,
    )
    if not settings.coordinators:
        raise StartError("an agent needs a coordinator: give --coordinators", 2)
    tls = chosen(
        Tls(ca=settings.ca, cert=settings.cert, key=settings.key),
        insecure=settings.insecure,
        what=f"the link to {', '.join(settings.coordinators)}",
    )
    files = {"grpc": Files(tls, log)} if tls else {}
    for address in settings.coordinators:  # what is wrong with the link is said now, not later
        await channel(address, tls, insecure=settings.insecure).close()
    host, _, port = settings.http.rpartition(":")
    if not port.isdigit() or not host:
        raise StartError(f"--http {settings.http!r} is not HOST:PORT", 2)

    if settings.resolver and not is_server(settings.resolver):
        raise StartError(f"--resolver {settings.resolver!r} is not ADDRESS:PORT", 2)

    try:
        guard = Guard(settings.deny, settings.allow)
        own = tuple(map(canary, settings.canary))
    except ValueError as error:
        raise StartError(f"{error}: see --deny, --allow and --canary", 2) from error

    results = ResultLog(settings.buffer)
    # A region is part of the phases: agents of several regions on one host don't probe in step.
    runner = Runner(
        f"{settings.region}/{hello.agent_id}",
        _room(settings.max_probes),
        lambda result: uplink.offer(result),
        by_name(Names(settings.resolver), guard),
    )

    def seeing() -> None:
        runner.blind = uplink.without_opinion = canaries.trouble
        metrics.WITHOUT_OPINION.set(bool(canaries.trouble))
        uplink.beat()

    canaries = Canaries(own, guard, seeing)
    uplink = Uplink(
        settings.coordinators, hello, results, runner, tls, settings.insecure, canaries.told
    )
    registry = CollectorRegistry()
    for source in (REGISTRY, CertificateMeter("agent", lambda: files)):
        registry.register(source)
    door = HttpDoor(uplink.trouble, registry)
    bound = await door.start(host.strip("[]"), int(port))
    looking = asyncio.create_task(canaries.run())
    try:
        uplink.start()
        transition(
            log,
            "ready",
            region=hello.region,
            id=hello.agent_id,
            http=f"{host}:{bound}",
            coordinators=",".join(settings.coordinators),
        )
        await stop.wait()
        transition(log, "stopping", probes=runner.running)
        await runner.drain(PROBES_S)
        await uplink.drain(DRAIN_S)
        await uplink.leave(GOODBYE_S)
    finally:
        looking.cancel()
        await runner.close()
        await uplink.close()
        await door.close()
        icmp.close()
