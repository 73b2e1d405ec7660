"""The whole set under judgement: what is known in it, and the problems found so far.

Rules read it and note problems by path; lines of files are added by whoever read the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct

from gtm.config import Variants
from gtm.lines import is_own
from gtm.model import TYPES, Location, Resources
from gtm.places import MAX_PROBLEMS, nearest
from gtm.ports import Problem
from gtm.units import Duration

_SINGULAR = {
    "zones": "zone", "lines": "line", "regions": "region", "checks": "check", "pools": "pool",
    "instances": "instance",
}  # fmt: skip


MAX_HINTS = 20
"""Unknown names for which the nearest known one is looked for: that costs time with each name."""
MAX_NEAREST = 10_000
"""Known names among which one is looked for; beyond it no nearest name is told."""


class Findings:
    """Resources, the names that exist (those of resources that could not be read too), problems."""

    def __init__(
        self,
        resources: Resources,
        variants: Variants,
        broken: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.resources = resources
        self.probes: Mapping[str, type[Struct]] = variants.probes
        self.names = {kind: set(resources.kind(kind)) for kind in TYPES}
        for kind, name in broken:
            self.names[kind].add(name)
        self._problems: list[Problem] = []
        self._left_out = 0
        self._hints: dict[tuple[str, str], str] = {}

    def _note(self, path: str, text: str, severity: Literal["error", "warning"]) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(text=text, path=path, severity=severity))
        else:
            self._left_out += 1

    @property
    def number(self) -> int:
        """How many problems were found so far."""
        return len(self._problems) + self._left_out

    def error(self, path: str, text: str) -> None:
        """Note what refuses the set."""
        self._note(path, text, "error")

    def warn(self, path: str, text: str) -> None:
        """Note what is doubtful."""
        self._note(path, text, "warning")

    def unknown(self, path: str, kind: str, name: str) -> bool:
        """Whether no resource of `kind` has that name; notes it with the nearest name."""
        known = self.names[kind]
        if name in known:
            return False
        self.error(path, f"unknown {_SINGULAR[kind]} {name!r}{self._hint(kind, name)}")
        return True

    def _hint(self, kind: str, name: str) -> str:
        """What may be meant by an unknown name; "" where it would take too long to say."""
        known = self.names[kind]
        if not known:
            return "; there is none"
        hint = self._hints.get((kind, name))
        if hint is None and (len(self._hints) >= MAX_HINTS or len(known) > MAX_NEAREST):
            return ""
        if hint is None:
            hint = self._hints[kind, name] = nearest(name, known, most=10)
        return hint

    def twice(self, path: str, values: Iterable[str]) -> None:
        """Note each value of a list that stands in it before."""
        first: dict[str, int] = {}
        for index, value in enumerate(values):
            if value in first:
                self.error(f"{path}[{index}]", f"{value!r} stands twice, first as [{first[value]}]")
            else:
                first[value] = index

    def lines(self, path: str, texts: Iterable[str]) -> None:
        """Note what is wrong with a list of lines: twice the same, names that are no line's."""
        texts = tuple(texts)
        self.twice(path, texts)
        for index, text in enumerate(texts):
            if is_own(text):
                self.unknown(f"{path}[{index}]", "lines", text)

    def location(self, path: str, location: Location | None) -> None:
        """Note a place that is none on Earth."""
        if location is None:
            return
        latitude, longitude = location
        if not -90 <= latitude <= 90:
            self.error(f"{path}[0]", f"{latitude} is no latitude in -90 to 90")
        if not -180 <= longitude <= 180:
            self.error(f"{path}[1]", f"{longitude} is no longitude in -180 to 180")

    def whole_seconds(self, path: str, duration: Duration | None) -> None:
        """Note a time that DNS can't carry."""
        if duration is not None and duration.ms % 1000:
            self.error(path, f"{duration} is not a whole number of seconds")

    def problems(self) -> tuple[Problem, ...]:
        """All that was noted, errors first."""
        ordered = sorted(self._problems, key=lambda problem: problem.severity)
        if self._left_out:
            ordered.append(Problem(text=f"and {self._left_out:,} more problems"))
        return tuple(ordered)
