"""What of etcd and of the resolvers is worth an alarm. Pure, but for the loop that looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from gtm.store import StoreStatus
from gtm.v1 import operator_pb2 as pb

from .events import Troubled
from .pool_alarms import named

PERIOD_S = 5.0
"""From one look to the next."""
FULL_SHARE = 0.6
"""Of etcd's quota; beyond it there is a warning."""
QUOTA_BYTES = 4 << 30
"""Of an etcd that does not tell its quota: the embedded one's."""
BEHIND_S = 30.0
"""For so long a resolver may lack a published revision."""


def troubles(
    asked: bool, etcd: StoreStatus | None, replicas: Iterable[pb.ReplicaStatus], behind_s: float
) -> dict[str, str]:
    """The text of each trouble by its alarm's id; `etcd` None: it does not answer."""
    found: dict[str, str] = {}
    if asked and etcd is None:
        found["etcd-silent"] = (
            "etcd does not answer: nothing can be published and nothing applied, and resolvers go"
            " on with what they have; see its members"
        )
    if etcd is not None and etcd.alarms:
        found["etcd-full"] = (
            f"etcd tells of {named(etcd.alarms)}: it takes no writes until it was compacted and"
            " defragmented and the alarm was disarmed (docs/operations.md)"
        )
    elif etcd is not None and etcd.size_bytes > FULL_SHARE * (etcd.quota_bytes or QUOTA_BYTES):
        found["etcd-filling"] = (
            f"etcd is over {FULL_SHARE:.0%} of its quota: compact and defragment it"
        )
    stale = [one.id for one in replicas if one.stale]
    if stale:
        found["resolvers-stale"] = (
            f"resolvers {named(stale)} do not hear etcd and answer from what they last knew: see"
            " their links to it"
        )
    elif behind_s > BEHIND_S:
        found["resolvers-behind"] = (
            f"some resolver has lacked a published revision for more than {BEHIND_S:g} s: see LAG"
            " in gtm status"
        )
    return found


async def watched(look: Callable[[], dict[str, str]], tell: Callable[[Troubled], None]) -> None:
    """Tell of the troubles whenever they change, until cancelled."""
    told: dict[str, str] = {}
    while True:
        found = look()
        if found != told:
            told = found
            tell(Troubled(found=found))
        await asyncio.sleep(PERIOD_S)
