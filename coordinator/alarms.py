"""Which alarms stand: conditions that hold for long enough become alarms, and end at once. Pure.

Ids are stable, so that a condition that holds on never rings twice, not even over a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gtm.model import Resources

from .events import ClearAlarm, Now, RaiseAlarm
from .targets import Targets, grace_ms
from .views import AlarmView, RegionView

MAX_ALARMS = 200
"""Alarms that stand at a time; of further ones only a last alarm tells that there are more."""
MORE = "more-alarms"
AGENT_MISSING_MS = 15_000
"""How long a region may be without an agent before that is an alarm."""


class Condition(Struct, frozen=True):
    """Something worth an alarm once it has held for `delay_ms`."""

    text: str
    delay_ms: int = 0


class Alarms:
    """The alarms that stand, and the conditions that may become some."""

    def __init__(self) -> None:
        self._standing: dict[str, AlarmView] = {}
        self._holding: dict[str, int] = {}

    def restore(self, stored: Mapping[str, tuple[str, float]]) -> None:
        """Take what the store has (id -> text and Unix time) for standing."""
        self._standing = {
            id_: AlarmView(id=id_, text=text, since=since) for id_, (text, since) in stored.items()
        }

    def standing(self) -> list[AlarmView]:
        """The alarms that stand, by id."""
        return [self._standing[id_] for id_ in sorted(self._standing)]

    def update(
        self, conditions: Mapping[str, Condition], now: Now
    ) -> list[RaiseAlarm | ClearAlarm]:
        """What to raise and clear, given every condition that holds now."""
        self._holding = {
            id_: self._holding.get(id_, now.mono_ms) for id_ in sorted(conditions)[: 2 * MAX_ALARMS]
        }
        due = {
            id_: conditions[id_]
            for id_, since_ms in self._holding.items()
            if id_ in self._standing or now.mono_ms - since_ms >= conditions[id_].delay_ms
        }
        wanted = dict(list(due.items())[: MAX_ALARMS - 1])
        if len(wanted) < len(due):
            wanted[MORE] = Condition(f"more than {MAX_ALARMS - 1} alarms stand; see those first")
        effects: list[RaiseAlarm | ClearAlarm] = []
        for id_ in sorted(self._standing.keys() - wanted.keys()):
            del self._standing[id_]
            effects.append(ClearAlarm(id=id_))
        for id_, condition in wanted.items():
            if id_ not in self._standing:
                self._standing[id_] = AlarmView(id=id_, text=condition.text, since=now.wall_s)
                effects.append(RaiseAlarm(id=id_, text=condition.text))
        return effects


def conditions(
    resources: Resources,
    targets: Targets,
    pending: NDArray[np.bool_],
    regions: Iterable[RegionView],
) -> dict[str, Condition]:
    """Everything that is worth an alarm now, by a stable id; `pending` by target number."""
    found: dict[str, Condition] = {}
    known = {view.name: view for view in regions}
    for name in sorted(targets.voting()):
        if name not in known or known[name].agents == 0:
            found[f"region-without-agent/{name}"] = Condition(
                f"no agent serves region {name}, so it has no vote: start one there, or take the"
                f" region out of the checks",
                AGENT_MISSING_MS,
            )
    for name, view in known.items():
        if resources.regions and not view.declared:
            found[f"region-undeclared/{name}"] = Condition(
                f"region {name} was met but is not declared, so it does not vote in checks with"
                f" regions: all"
            )
    numbers = targets.numbers()
    for name, _, _ in targets.by_check(numbers[pending[numbers]]):
        found[f"verdicts-pending/{name}"] = Condition(
            f"too few regions speak about targets of check {name}: the last verdicts stand",
            grace_ms(resources.checks[name]),
        )
    return found
