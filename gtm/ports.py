"""What parts are handed instead of importing each other.

The coordinator validates and explains, but may import neither agent nor resolver: `ctl/policy.py`
implements `Policy` from the probes' settings and the resolver's pure modules, and hands it in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from gtm.expect import Expectation
from gtm.model import Resources
from gtm.view import View


class Problem(Struct, frozen=True, kw_only=True):
    """One thing wrong (`error`) or doubtful (`warning`) with a set of resources, and where.

    `path` is like `instances.shop.rules[0].lines[1]`; `line` counts from 1, 0 is unknown.
    """

    text: str
    path: str = ""
    file: str = ""
    line: int = 0
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, self.text) if part)


class Review(Struct, frozen=True, kw_only=True):
    """A set of resources as read: normalised, or None where there are errors; and the problems."""

    resources: Resources | None
    problems: tuple[Problem, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that refuse the set."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that do not."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")


class Question(Struct, frozen=True, kw_only=True):
    """What `explain` is asked: a name, a type, and a client's address or network ("": unknown)."""

    name: str
    qtype: str = "A"
    client: str = ""


class Effect(Struct, frozen=True, kw_only=True):
    """What clients of a line get of an instance before and after; "" stands for no such name."""

    instance: str
    line: str
    type: str
    before: str
    after: str


class Effects(Struct, frozen=True, kw_only=True):
    """Answers that change, how many touched instances were not looked at, addresses that go."""

    changed: tuple[Effect, ...] = ()
    skipped: int = 0
    leaving: int = 0


class Policy(Protocol):
    """Judgement over resources and answers, as the coordinator needs it.

    Calls may run elsewhere (a child process with a deadline) and then raise TimeoutError.
    """

    async def problems(
        self, resources: Mapping[str, Mapping[str, Any]], expectations: Sequence[Expectation] = ()
    ) -> Review:
        """Read and check a whole set (kind -> name -> plain data in the form of the files).

        An expectation that the set does not meet is an error, with its counter-example.
        """

    async def effects(
        self, before: Resources, after: Resources, names: Sequence[str]
    ) -> tuple[Effect, ...]:
        """Which answers of the instances `names` differ between two sets, with all healthy.

        The sets may be no more than what those instances answer from.
        """

    async def explain(self, view: View, question: Question) -> str:
        """The JSON text of `gtm explain -o json`.

        LookupError where nothing has that name, ValueError for a type or a client that is none.
        """

    async def close(self) -> None:
        """End what the policy runs in."""
