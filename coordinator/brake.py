"""The mass-change brake: a plan that takes too much out of service refuses itself.

Pure. Looks at what serves now (published members that are answered, instances that are enabled) and
at what would be left of it by configuration alone; health is the guard's business, not this one's.
"""

from __future__ import annotations

from collections.abc import Mapping

from gtm.model import OUT, Pool, Resources
from gtm.view import View

SHARE_PERCENT = 20
COUNT = 5
"""A plan refuses itself when it takes away more than this share *and* more than this many."""


def refusal(view: View, wanted: Resources) -> str:
    """Why going from `view` to `wanted` needs `allow_mass_change`; "" where it does not."""
    serving = {
        (name, member.value)
        for name, state in view.pools.items()
        for member in state.members
        if member.answered
    }
    enabled = {name for name, instance in view.instances.items() if instance.enabled}
    still = {name for name, instance in wanted.instances.items() if instance.enabled}
    said = [
        _too_much("addresses", len(serving - members(wanted.pools)), len(serving)),
        _too_much("instances", len(enabled - still), len(enabled)),
    ]
    what = " and ".join(text for text in said if text)
    if not what:
        return ""
    return (
        f"the plan takes {what} in service away, more than {SHARE_PERCENT} % and more than "
        f"{COUNT} at once: look at it again, then give --allow-mass-change"
    )


def members(pools: Mapping[str, Pool]) -> set[tuple[str, str]]:
    """(pool, address) of all that the configuration lets be answered; who is not has left."""
    return {
        (name, address.value)
        for name, pool in pools.items()
        for address in pool.addresses
        if address.mode not in OUT
    }


def _too_much(what: str, away: int, total: int) -> str:
    if away <= COUNT or away * 100 <= total * SHARE_PERCENT:
        return ""
    return f"{away} of {total} {what} ({away * 100 // total} %)"
