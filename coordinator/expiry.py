"""Which certificates end soon, as conditions for alarms. Pure.

Soon is with a tenth of its life left: what is renewed in time (with a third left) never shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct

from .alarms import Condition

SOON_SHARE = 0.1
"""The part of its life with which a certificate should have been renewed."""
NAMED = 3
"""Certificates that one alarm names; of others it tells how many there are."""


class Certificate(Struct, frozen=True, kw_only=True):
    """A certificate in use: of which group it is (`agents`), whose, and its life as Unix time."""

    group: str
    whose: str
    begins: float
    ends: float

    def soon(self, now_s: float) -> bool:
        """Whether it ends soon, or has ended."""
        return self.ends - now_s < SOON_SHARE * (self.ends - self.begins)


def expiring(certificates: Iterable[Certificate], now_s: float) -> dict[str, Condition]:
    """A condition for each group of which a certificate ends soon."""
    groups: dict[str, list[Certificate]] = {}
    for one in certificates:
        if one.soon(now_s):
            groups.setdefault(one.group, []).append(one)
    found = {}
    for group, ending in groups.items():
        ending.sort(key=lambda one: (one.ends, one.whose))
        names = ", ".join(f"{one.whose} on {_date(one.ends)}" for one in ending[:NAMED])
        more = f" and {len(ending) - NAMED} more" if len(ending) > NAMED else ""
        found[f"certificates-end/{group}"] = Condition(
            f"certificates end soon ({names}{more}): renew them, links are refused afterwards"
        )
    return found


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
