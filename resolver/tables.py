"""Client tables over one geography and one set of lines, each made once.

Decides which clients are told apart: whoever asks says what a client comes to, and gets a table of
classes with what each class came to. Those of rules do not depend on health; those of policies may
(who is nearest, of the members in play), so the least used go beyond a bound. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TypeVar

from gtm.model import ClientLine

from .clients import Client, networks_of, own_lines
from .place import Geography, Place
from .plan import Located, Node
from .territory import Around, ClientTable, tabulate

T = TypeVar("T", bound=Hashable)
MAX_TABLES = 4_096
"""Tables that are remembered; plans hold on to those that they use."""


class Tables:
    """The tables made so far."""

    def __init__(self, geography: Geography, lines: Mapping[str, ClientLine]) -> None:
        self.geography, self.lines = geography, lines
        self._made: OrderedDict[Hashable, tuple[ClientTable, tuple[Hashable, ...]]] = OrderedDict()

    def table(
        self, key: Hashable, texts: Collection[str], outcome: Callable[[Client], T]
    ) -> tuple[ClientTable, tuple[T, ...]]:
        """The table of what clients come to by `outcome`, and what each of its classes came to.

        `texts` are all lines that `outcome` asks about; `key` names it, so that the same question
        is answered once.
        """
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(texts, outcome)
            if len(self._made) > MAX_TABLES:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(key)
        return made  # type: ignore[return-value]

    def _make(
        self, texts: Collection[str], outcome: Callable[[Client], T]
    ) -> tuple[ClientTable, tuple[T, ...]]:
        own = own_lines(texts, self.lines)
        classes: dict[T, int] = {}

        def classify(place: Place, around: Around) -> int:
            return classes.setdefault(outcome(Client(place, around, own)), len(classes))

        table = tabulate(self.geography, networks_of(texts, own), classify)
        return table, tuple(classes)


def located(table: ClientTable, branches: Sequence[Node], lines: tuple[str, ...] = ()) -> Node:
    """The node that takes a client to the branch of its class; the branch where there is but one.

    `lines` names what the classes are on.
    """
    branches = tuple(branches)
    if branches.count(branches[0]) == len(branches):
        return branches[0]
    return Located(table, branches, lines)
