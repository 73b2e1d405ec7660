"""How rules stand by the states of pools: each question is judged once, however many plans ask it.

Decides nothing that `tiers` does not; remembers what came of it. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from msgspec import Struct

from gtm.model import Family, Rule
from gtm.state import PoolState

from .plan import Node
from .tiers import Pin, TierChoice, choose_tier


class Question(Struct, frozen=True, eq=False, gc=False):
    """Which tier of a rule serves a family; those that can only be answered alike are one object.

    `rule` is one of those that ask it: its name and lines do not matter.
    """

    rule: Rule
    family: Family
    pin: Pin | None

    def pools(self) -> Iterable[str]:
        """The pools whose states the answer depends on, each once."""
        return dict.fromkeys(name for tier in self.rule.tiers for name in tier.names())


class Standing(Struct, frozen=True, eq=False):
    """What the states of pools answer to a question.

    `wavers` says whether regions disagree about a pool that could take the answer over, `picks`
    has those picks of the tier in force that were asked for, by TTL.
    """

    choice: TierChoice
    wavers: bool
    picks: dict[int, Node]

    def decides_like(self, other: Standing) -> bool:
        """Whether plans that ask differ in nothing but the pick of the tier.

        Where no tier serves, what is answered instead depends on more than the choice.
        """
        return (
            self.choice.why != "exhausted"
            and self.wavers is other.wavers
            and self.choice == other.choice
        )


class Standings:
    """The questions that were asked so far, and how each stands."""

    def __init__(self) -> None:
        self._questions: dict[Hashable, Question] = {}
        self._known: dict[Question, Standing] = {}

    def without(self, questions: Iterable[Question]) -> Standings:
        """The same, to be judged anew where one of `questions` is asked; shares the questions."""
        after = Standings()
        after._questions = self._questions
        after._known = dict(self._known)
        for question in questions:
            after._known.pop(question, None)
        return after

    def question(self, rule: Rule, family: Family, pin: Pin | None) -> Question:
        """The one object that stands for a question."""
        key = (rule.tiers, rule.failover.pinned, family, pin)
        return self._questions.setdefault(key, Question(rule, family, pin))

    def known(self, question: Question) -> Standing:
        """How a question stands that was judged already."""
        return self._known[question]

    def of(self, question: Question, pools: Mapping[str, PoolState]) -> Standing:
        """How a question stands by the states `pools`, judged only the first time."""
        found = self._known.get(question)
        if found is None:
            rule, family = question.rule, question.family
            choice = choose_tier(rule, family, pools, question.pin)
            near = rule.tiers[: choice.tier] if choice.tier else rule.tiers
            states = (pools.get(name) for tier in near for name in tier.names())
            wavers = any(state is not None and state.wavering.get(family) for state in states)
            found = self._known[question] = Standing(choice, wavers, {})
        return found
