"""The coordinator's values as messages of `proto/gtm/v1`. Pure; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable

from gtm.ports import Effect, Problem
from gtm.state import Force, Health
from gtm.v1 import operator_pb2 as pb

from .events import TargetKey
from .plan import Change
from .views import RegionVoteView, VerdictView

_HEALTH = {"up": pb.HEALTH_UP, "down": pb.HEALTH_DOWN}


def problems(found: Iterable[Problem]) -> list[pb.Problem]:
    """Problems, errors first."""
    return [
        pb.Problem(
            severity=one.severity, file=one.file, line=one.line, path=one.path, text=one.text
        )
        for one in sorted(found, key=lambda one: one.severity != "error")
    ]


def changes(found: Iterable[Change]) -> list[pb.Change]:
    """Changes, in their order."""
    return [
        pb.Change(
            action=one.action, kind=one.kind, name=one.name, before=one.before, after=one.after
        )
        for one in found
    ]


def effects(found: Iterable[Effect]) -> list[pb.Effect]:
    """Answers that change, in their order."""
    return [
        pb.Effect(
            instance=one.instance,
            line=one.line,
            type=one.type,
            before=one.before,
            after=one.after,
        )
        for one in found
    ]


def force(one: Force) -> pb.StandingForce:
    """An operator's force."""
    return pb.StandingForce(
        target=one.target,
        action=one.action,
        tier=one.tier,
        who=one.who,
        why=one.why,
        since=one.since,
        until=one.until,
    )


def health(value: Health | str) -> pb.Health:
    """`up`, `down`; everything else is unknown."""
    return _HEALTH.get(value, pb.HEALTH_UNKNOWN)


def target(key: TargetKey) -> pb.Verdict:
    """A target without any verdict: how one that is gone is named."""
    return pb.Verdict(check=key.check, address=key.address, port=key.port)


def verdict(view: VerdictView) -> pb.Verdict:
    """A verdict with every region's vote."""
    return pb.Verdict(
        check=view.target.check,
        address=view.target.address,
        port=view.target.port,
        pools=view.pools,
        why=view.why,
        verdict=health(view.verdict),
        pending=view.pending,
        wavering=view.wavering,
        since=view.since,
        rule=view.rule,
        regions=map(_vote, view.regions),
        forced=view.forced,
        held=view.held,
        penalty=round(view.penalty, 1),
        damped_since=view.damped_since,
        unresolved_since=view.unresolved_since,
    )


def _vote(view: RegionVoteView) -> pb.RegionVote:
    dns, connect, tls, first_byte, body = view.phases
    return pb.RegionVote(
        region=view.region,
        vote=health(view.vote),
        streak=view.streak,
        reason=view.reason,
        rtt_us=view.rtt_us,
        age_s=view.age_s,
        agents=view.agents,
        phases=pb.Phases(
            dns_us=dns, connect_us=connect, tls_us=tls, first_byte_us=first_byte, body_us=body
        ),
    )
