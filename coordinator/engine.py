"""The engine: results in, verdicts and published states out. Pure: no IO, no clock, no dice.

`handle(event, now)` applies one event and evaluates once, after all of it; the effects of one
evaluation belong into one transaction. Effects are differences to what the store has: what
`Restored` said, and the engine's own earlier effects. Nothing comes out before both `Configured`
and `Restored` came in, in either order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gtm.state import PoolState

from .events import Effect, Incoming, Now, TargetKey
from .views import AgentView, AlarmView, Assigned, RegionView, VerdictView


class Engine:
    """The judgement over every target, pool and instance; one object, driven by one task."""

    def handle(self, event: Incoming, now: Now) -> list[Effect]:
        """Apply `event`, evaluate once, and say what changed against the store."""
        raise NotImplementedError

    @property
    def targets_version(self) -> int:
        """Grows whenever `targets()` changes."""
        raise NotImplementedError

    def targets(self) -> Mapping[TargetKey, Assigned]:
        """Every target that is to be probed, and by whom; read-only."""
        raise NotImplementedError

    def assigned(self, region: str) -> Iterable[Assigned]:
        """The targets that agents of `region` should probe."""
        raise NotImplementedError

    def number(self, key: TargetKey) -> int | None:
        """The number of a target in the columns of frames and digests."""
        raise NotImplementedError

    def verdicts(self, filter: str = "", now: Now | None = None) -> list[VerdictView]:
        """The verdicts over an address, a pool, an instance or a check; all of them for "".

        Ages are as of `now`, else of the last event.
        """
        raise NotImplementedError

    def verdict(self, key: TargetKey, now: Now | None = None) -> VerdictView | None:
        """The verdict over one target; None where nobody names it."""
        raise NotImplementedError

    def pools(self) -> Mapping[str, PoolState]:
        """The states of the configured pools as judged; without those still withheld."""
        raise NotImplementedError

    def withheld(self) -> frozenset[str]:
        """The configured pools that were never published and still wait for verdicts."""
        raise NotImplementedError

    def regions(self) -> list[RegionView]:
        """Every region that is declared, met or has an agent."""
        raise NotImplementedError

    def agents(self, now: Now | None = None) -> list[AgentView]:
        """Every agent that streams, or whose opinions still count."""
        raise NotImplementedError

    def alarms(self) -> list[AlarmView]:
        """The alarms that stand."""
        raise NotImplementedError
