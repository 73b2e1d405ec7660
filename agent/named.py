"""Targets that are domain names: each round resolves the name and probes what it resolves to.

Decides how the outcomes of up to MAX_ADDRESSES addresses make one: success when any answers, or,
where the check says so, when all do. The whole round keeps the check's timeout, ping's its span.
Sits between `runner`, which sees one probe, and the probes, which see one address.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from gtm.forms import is_domain
from gtm.model import Family
from gtm.names import Addresses, Names, Unresolved

from .guard import Guard
from .probes.base import STALLED_MS, Kind, Outcome, Phases, Probe, Reason, Target
from .runner import probe_of

MAX_ADDRESSES = 4
"""Addresses of one name that are probed in one round."""
RESOLVING = 2
"""At most the n-th part of the timeout goes to resolving."""

_FAMILIES: dict[int, tuple[Family, ...]] = {0: ("ipv4", "ipv6"), 4: ("ipv4",), 6: ("ipv6",)}


def by_name(names: Names, guard: Guard) -> Callable[[Target], Probe | None]:
    """What gives a runner its probes: those of names resolve by `names`, the others are as ever.

    None of them touches an address that `guard` denies.
    """

    def find(target: Target) -> Probe | None:
        probe = probe_of(target)
        if probe is None:
            return None
        if is_domain(target.address):
            return lambda target: _round(names, _guarded(probe, guard), target)
        return _guarded(probe, guard) if guard.denies(target.address) else probe

    return find


def _guarded(probe: Probe, guard: Guard) -> Probe:
    async def guarded(target: Target) -> Outcome:
        if why := guard.denies(target.address):
            return Outcome(Kind.NO_OPINION, Reason.DENIED, why)
        return await probe(target)

    return guarded


async def _round(names: Names, probe: Probe, target: Target) -> Outcome:
    """Resolve and probe once; the outcome's round trip counts from the first packet of DNS."""
    begun_ns = time.monotonic_ns()
    limit_ms = target.timeout_ms / RESOLVING
    try:
        found = await names.resolve(target.address, _FAMILIES[target.ip_version], limit_ms / 1000)
    except Unresolved as error:
        took_ms = (time.monotonic_ns() - begun_ns) // 1_000_000
        if took_ms > limit_ms + STALLED_MS:
            return Outcome(Kind.NO_OPINION, Reason.STALLED, f"resolving took {took_ms} ms")
        if error.mute:
            return Outcome(Kind.NO_OPINION, Reason.DNS_SERVER, str(error))
        return Outcome(Kind.FAILURE, Reason.DNS, str(error))
    dns_us = max(1, (time.monotonic_ns() - begun_ns) // 1000)
    rest_ms = max(1, target.timeout_ms - dns_us // 1000)
    outcome = await (_all if target.all_addresses else _any)(
        probe,
        [
            replace(target, address=address, name=target.address, timeout_ms=rest_ms)
            for address in chosen(found)
        ],
    )
    phases = replace(outcome.phases or Phases(), dns_us=dns_us)
    rtt_us = outcome.rtt_us + dns_us if outcome.rtt_us and target.type != "ping" else outcome.rtt_us
    return replace(outcome, rtt_us=rtt_us, phases=phases)


def chosen(found: Addresses) -> tuple[str, ...]:
    """The addresses that are probed: the families in turn, each in order, at most MAX_ADDRESSES."""
    turns = itertools.chain.from_iterable(itertools.zip_longest(found.ipv4, found.ipv6))
    return tuple(one for one in turns if one is not None)[:MAX_ADDRESSES]


async def _any(probe: Probe, targets: Sequence[Target]) -> Outcome:
    """The first success, for which nobody waits further; else what `together` makes of them."""
    tasks = {asyncio.ensure_future(probe(target)): target for target in targets}
    try:
        for next_ended in asyncio.as_completed(tasks):
            outcome = await next_ended
            if outcome.kind is Kind.SUCCESS:
                return outcome
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return together([(target.address, task.result()) for task, target in tasks.items()])


async def _all(probe: Probe, targets: Sequence[Target]) -> Outcome:
    """The first failure, for which nobody waits further; else what `each` makes of them."""
    tasks = {asyncio.ensure_future(probe(target)): target for target in targets}
    try:
        for next_ended in asyncio.as_completed(tasks):
            if (await next_ended).kind is Kind.FAILURE:
                break
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    ended = [task for task in tasks if not task.cancelled()]
    return each([(tasks[task].address, task.result()) for task in ended])


def each(ends: Sequence[tuple[str, Outcome]]) -> Outcome:
    """What (address, outcome) pairs say of a name all of whose addresses must succeed.

    A failure decides. An address for which this agent has no route says nothing beside others;
    where it could not probe another one, nobody knows. Else the slowest success stands for all.
    """
    heard = [end for end in ends if end[1].reason is not Reason.NO_ROUTE] or list(ends)
    for kind in (Kind.FAILURE, Kind.NO_OPINION):
        for address, outcome in heard:
            if outcome.kind is kind and len(ends) > 1:
                return replace(outcome, detail=f"{address} {outcome.detail}".strip())
            if outcome.kind is kind:
                return outcome
    return max((outcome for _, outcome in heard), key=lambda outcome: outcome.rtt_us)


def together(ends: Sequence[tuple[str, Outcome]]) -> Outcome:
    """What (address, outcome) pairs without a success say of the name.

    An address for which this agent has no route says nothing beside others. Of the rest all must
    have failed: where this agent could not probe one, that one might have answered.
    """
    heard = [end for end in ends if end[1].reason is not Reason.NO_ROUTE] or list(ends)
    unable = [end for end in heard if end[1].kind is Kind.NO_OPINION]
    address, outcome = (unable or heard)[0]
    if len(ends) == 1:
        return outcome
    detail = f"{address} {outcome.detail}".strip()
    return replace(outcome, detail=detail)
