"""`gtm status`: members, leader, revisions, alarms, each resolver's lag."""

from __future__ import annotations

import argparse
import asyncio
import math
from typing import Any

from gtm.v1 import operator_pb2 as pb

from .. import client, show
from . import force

QUOTA_BYTES = 4 << 30
"""The quota of the embedded etcd; a fuller store than `WARN_SHARE` of it is warned of."""
WARN_SHARE = 0.6


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "members, leader, revisions, alarms, each resolver's lag"
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")
    client.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and show; 0 whatever the state is."""
    status = asyncio.run(_ask(args))
    if args.form == "json":
        print(show.as_json(shape(status)))
    else:
        print(render(status))
    return 0


async def _ask(args: argparse.Namespace) -> pb.StatusResponse:
    async with client.Client.of(args) as asked:
        return await asked.status()


def shape(status: pb.StatusResponse) -> dict[str, Any]:
    """The stable shape of `gtm status -o json`."""
    store = status.store
    return {
        "coordinator": status.coordinator_id,
        "leader": status.leader_id,
        "leader_as_of": status.leader_as_of,
        "version": status.version,
        "generation": status.generation,
        "serve_revision": status.serve_revision,
        "pools": status.pools,
        "pools_published": status.pools_published,
        "targets": status.targets,
        "store": {
            "endpoints": list(store.endpoints),
            "version": store.version,
            "revision": store.revision,
            "size_bytes": store.size_bytes,
            "alarms": list(store.alarms),
            "error": store.error,
        },
        "coordinators": [
            {"id": one.id, "address": one.address, "version": one.version, "leader": one.leader}
            for one in status.coordinators
        ],
        "regions": [
            {
                "name": one.name,
                "declared": one.declared,
                "met": one.met,
                "agents": one.agents,
                "votes": one.votes,
                "silenced": one.silenced,
                "aside_since": one.aside_since,
            }
            for one in status.regions
        ],
        "agents": [
            {
                "id": one.id,
                "region": one.region,
                "version": one.version,
                "connected": one.connected,
                "targets": one.targets,
                "results": one.results,
                "refused": one.refused,
                "without_opinion": one.without_opinion,
                "heard_s": round(one.heard_s, 3),
            }
            for one in status.agents
        ],
        "resolvers": [
            {
                "id": one.id,
                "version": one.version,
                "listen": list(one.listen),
                "served_revision": one.served_revision,
                "lag": one.lag,
                "stale": one.stale,
                "snapshot_age_s": _known(one.snapshot_age_s),
                "heard_s": round(one.heard_s, 3),
                "geo_hash": one.geo_hash,
                "queries": one.queries,
                "refused_states": one.refused_states,
            }
            for one in status.replicas
        ],
        "forces": [force.shape(one) for one in status.forces],
        "alarms": [
            {
                "id": one.id,
                "kind": one.kind,
                "severity": one.severity,
                "text": one.text,
                "since": one.since,
            }
            for one in status.alarms
        ],
    }


def render(status: pb.StatusResponse) -> str:
    """The status as people read it."""
    return "\n\n".join(
        block
        for block in (
            _head(status),
            _coordinators(status),
            _regions(status),
            _agents(status),
            _resolvers(status),
            _forces(status),
            _alarms(status),
        )
        if block
    )


def _head(status: pb.StatusResponse) -> str:
    store = status.store
    where = ", ".join(store.endpoints)
    if store.error:
        etcd = show.colour(f"unreachable ({store.error})", "red")
    else:
        etcd = (
            f"{store.version} at {where}, revision {store.revision}, {show.size(store.size_bytes)}"
        )
        if store.alarms:
            etcd += show.colour(f", alarms: {', '.join(store.alarms)}", "red")
        elif store.size_bytes > WARN_SHARE * QUOTA_BYTES:
            etcd += show.colour(", over 60 % of its quota: compact and defragment it", "yellow")
    leader = status.leader_id or show.colour("none known", "red")
    if status.leader_as_of:
        as_of = f"as of {show.ago(status.leader_as_of)} ago, etcd is silent"
        leader += show.colour(f", {as_of}", "yellow")
    pools = f"{status.pools_published} of {status.pools} published"
    if status.pools_published < status.pools:
        pools = show.colour(pools, "yellow")
    return "\n".join(
        (
            f"etcd       {etcd}",
            f"leader     {leader} (asked: {status.coordinator_id}, version {status.version})",
            f"resources  generation {status.generation}, serve revision {status.serve_revision}",
            f"pools      {pools}; {status.targets} targets",
        )
    )


def _coordinators(status: pb.StatusResponse) -> str:
    rows = [
        (one.id, one.address, one.version, "leader" if one.leader else "")
        for one in status.coordinators
    ]
    return show.table(("COORDINATOR", "ADDRESS", "VERSION", ""), rows)


def _regions(status: pb.StatusResponse) -> str:
    rows = [
        (
            one.name,
            " ".join(word for word in ("declared", "met") if getattr(one, word)),
            str(one.agents),
            "no" if not one.votes else f"no, {one.silenced}" if one.silenced else "yes",
        )
        for one in status.regions
    ]
    return show.table(("REGION", "KNOWN", "AGENTS", "VOTES"), rows)


def _known(seconds: float) -> float | None:
    """Seconds, None where the resolver has not heard the store at all."""
    return round(seconds, 3) if math.isfinite(seconds) else None


def _freshness(one: pb.ReplicaStatus) -> str:
    if not one.stale:
        return "fresh"
    age = _known(one.snapshot_age_s)
    return "nothing heard yet" if age is None else f"stale for {show.span(age)}"


def _agent_state(one: pb.AgentStatus) -> str:
    if not one.connected:
        return "gone"
    if one.without_opinion:
        return show.colour(f"no opinion, canaries fail: {one.without_opinion}", "yellow")
    return "connected"


def _agents(status: pb.StatusResponse) -> str:
    rows = [
        (
            one.id,
            one.region,
            one.version,
            _agent_state(one),
            str(one.targets),
            str(one.results),
            show.span(one.heard_s),
        )
        for one in status.agents
    ]
    return show.table(("AGENT", "REGION", "VERSION", "STATE", "TARGETS", "RESULTS", "HEARD"), rows)


def _resolvers(status: pb.StatusResponse) -> str:
    rows = [
        (
            one.id,
            " ".join(one.listen),
            one.version,
            str(one.served_revision),
            str(one.lag),
            _freshness(one),
            str(one.queries),
            show.span(one.heard_s),
        )
        for one in status.replicas
    ]
    return show.table(
        ("RESOLVER", "LISTENS", "VERSION", "SERVES", "LAG", "STATE", "QUERIES", "HEARD"), rows
    )


def _forces(status: pb.StatusResponse) -> str:
    rows = [
        (one.target, force.action(one), force.until(one), show.ago(one.since), one.who, one.why)
        for one in status.forces
    ]
    return show.table(("FORCE", "ACTION", "ENDS", "SINCE", "WHO", "WHY"), rows)


def _alarms(status: pb.StatusResponse) -> str:
    order = {"critical": 0, "warning": 1, "info": 2}
    rows = [
        (one.severity or "-", one.id, show.ago(one.since), one.text)
        for one in sorted(status.alarms, key=lambda one: (order.get(one.severity, 3), one.id))
    ]
    return show.table(("SEVERITY", "ALARM", "FOR", "WHAT"), rows) or "no alarms"
