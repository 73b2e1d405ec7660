"""All plans of a table, and what each is made of, so that a change remakes no more than it must.

When states of pools change, the questions that ask them are judged anew. Where a tier is in force
as before only its pick is put in place of the former one, and where that is the same too the plan
stays the very object that it was: nobody need hand it over. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from .plan import Node
from .planner import Draft, Drawn, Kept, Planner, Spec, Taken
from .standings import Question

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Planned(Struct, frozen=True, kw_only=True):
    """The plans by number, and the ways from a pool to them.

    `asked` are the questions that depend on a pool, `askers` the plans that ask a question,
    `resorts` those that answer from a pool when all is down. `kept` is for the next planner.
    """

    plans: Sequence[Node] = ()
    drafts: tuple[Draft, ...] = ()
    drawn: tuple[Drawn, ...] = ()
    asked: Mapping[str, Sequence[Question]] = field(default_factory=dict)
    askers: Mapping[Question, Sequence[int]] = field(default_factory=dict)
    resorts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    kept: Kept

    def questions(self, pools: Iterable[str]) -> list[Question]:
        """The questions that depend on `pools`, each once."""
        return list(dict.fromkeys(one for name in pools for one in self.asked.get(name, ())))

    def with_specs(self, planner: Planner, specs: Sequence[Spec]) -> Planned:
        """These and behind them the plans of `specs`; ValueError where one can't be made."""
        if not specs:
            return self
        drafts = [planner.draft(spec) for spec in specs]
        drawn = [_draw(planner, draft) for draft in drafts]
        numbered = list(enumerate(drafts, len(self.drafts)))
        askers = _grouped(
            (question, number)
            for number, draft in numbered
            for question in dict.fromkeys(draft.questions)
        )
        fresh = [question for question in askers if question not in self.askers]
        asked = _grouped((name, question) for question in fresh for name in question.pools())
        resorts = _grouped(
            (name, number) for number, draft in numbered if (name := draft.spec.when_all_down.pool)
        )
        return Planned(
            plans=[*self.plans, *(one.plan for one in drawn)],
            drafts=(*self.drafts, *drafts),
            drawn=(*self.drawn, *drawn),
            asked=_joined(self.asked, asked),
            askers=_joined(self.askers, askers),
            resorts=_joined(self.resorts, resorts),
            kept=planner.kept,
        )

    def after(self, planner: Planner, pools: Collection[str]) -> Planned:
        """The same by the states of `planner`, of which those of `pools` changed.

        Its `kept` is `self.kept.without(pools, self.questions(pools))`. ValueError where a plan
        can't be made any more, which need not be one that is in use.
        """
        resorts = {number for name in pools for number in self.resorts.get(name, ())}
        redrawn = {number for number in resorts if None in self.drawn[number].taken}
        swapped: set[int] = set()
        fresh: dict[Taken, Node] = {}
        for question in self.questions(pools):
            before = self.kept.standings.known(question)
            if not planner.standing(question).decides_like(before):
                redrawn.update(self.askers[question])
                continue
            for ttl, node in before.picks.copy().items():
                if (pick := planner.repicked(question, ttl, node)) is not node:
                    fresh[question, ttl] = pick
                    swapped.update(self.askers[question])
        plans, drawn = list(self.plans), list(self.drawn)
        for number in sorted(swapped | redrawn):
            draft = self.drafts[number]
            if number in redrawn:
                drawn[number] = _draw(planner, draft)
            else:
                drawn[number] = planner.swapped(draft, drawn[number], fresh)
            if drawn[number].plan != plans[number]:
                plans[number] = drawn[number].plan
        return replace(self, plans=plans, drawn=tuple(drawn), kept=planner.kept)


def _draw(planner: Planner, draft: Draft) -> Drawn:
    try:
        return planner.draw(draft)
    except ValueError as error:
        rules = ", ".join(rule.name for rule in draft.spec.rules)
        raise ValueError(f"rules {rules} ({draft.spec.family}): {error}") from None


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _joined(
    before: Mapping[K, Sequence[V]], more: Mapping[K, Sequence[V]]
) -> Mapping[K, Sequence[V]]:
    """Both, the values of `more` behind those of `before`."""
    if not before:
        return more
    return {**before, **{key: (*before.get(key, ()), *added) for key, added in more.items()}}
