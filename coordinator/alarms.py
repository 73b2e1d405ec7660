"""Which alarms stand: conditions that hold for long enough become alarms, and end at once. Pure.

Ids are stable, so that a condition that holds on never rings twice, not even over a restart: their
first part is the kind of the alarm, and says how severe it is. One cause makes one alarm, however
many addresses it touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

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
UPDATE_MS = 10_000
"""A text that changes is told at most so often: one may have an age in it."""
PENDING_NAMED = 5
"""Checks whose pending verdicts are alarms of their own; more of them make one for all."""
AGENT_MISSING_MS = 15_000
"""How long a region may be without an agent before that is an alarm."""


Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
"""From what is felt by clients to what only should be known."""
OF_KIND: Mapping[str, Severity] = {
    "pool-unavailable": "critical", "pools-unavailable": "critical", "last-resort": "critical",
    "etcd-full": "critical", "etcd-silent": "critical", "verdicts-pending": "critical",
    "region-undeclared": "info", "addresses-damped": "info",
}  # fmt: skip
"""Kinds that are not a warning."""


def kind(id_: str) -> str:
    """What an alarm is about: its id up to the first slash."""
    return id_.partition("/")[0]


def severity(id_: str) -> Severity:
    """How severe an alarm is."""
    return OF_KIND.get(kind(id_), "warning")


def _first(id_: str) -> tuple[int, str]:
    return SEVERITIES.index(severity(id_)), id_


class Condition(Struct, frozen=True):
    """Something worth an alarm once it has held for `delay_ms`."""

    text: str
    delay_ms: int = 0


class Alarms:
    """The alarms that stand, and the conditions that may become some."""

    def __init__(self) -> None:
        self._standing: dict[str, AlarmView] = {}
        self._holding: dict[str, int] = {}
        self._told_ms: dict[str, int] = {}  # when texts changed last

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
            id_: self._holding.get(id_, now.mono_ms)
            for id_ in sorted(conditions, key=_first)[: 2 * MAX_ALARMS]
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
            over = self._standing.pop(id_)
            self._told_ms.pop(id_, None)
            effects.append(ClearAlarm(id=id_, text=over.text, since=over.since))
        for id_, condition in wanted.items():
            stands = self._standing.get(id_)
            if stands is not None and stands.text != condition.text:
                if now.mono_ms - self._told_ms.get(id_, -UPDATE_MS) < UPDATE_MS:
                    continue
                self._told_ms[id_] = now.mono_ms
                self._standing[id_] = AlarmView(id=id_, text=condition.text, since=stands.since)
                effects.append(RaiseAlarm(id=id_, text=condition.text, since=stands.since))
            elif stands is None:
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
    checks = [name for name, _, _ in targets.by_check(numbers[pending[numbers]])]
    if len(checks) > PENDING_NAMED:
        found["verdicts-pending"] = Condition(
            f"too few regions speak about targets of {len(checks)} checks"
            f" ({', '.join(checks[:PENDING_NAMED])} and more): the last verdicts stand;"
            " see which regions are without agents in gtm status",
            max(grace_ms(resources.checks[name]) for name in checks),
        )
        return found
    for name in checks:
        found[f"verdicts-pending/{name}"] = Condition(
            f"too few regions speak about targets of check {name}: the last verdicts stand",
            grace_ms(resources.checks[name]),
        )
    return found
