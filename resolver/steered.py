"""What is counted of answers that plans gave: by line of the client, by pool, by address.

Decides nothing. The native responder counts in cells of its workers, the reference one in a
dictionary by the same numbers; both are shown as one. Bounds stand in `cells`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, Metric

from .cells import Labels, Use, value_text
from .meters import NONE, OTHER
from .plan import Answers, Met, nodes_of
from .table import AnswerTable

MAX_LEAVES = 4_096
"""Leaves whose cells are remembered for the reference responder."""


class SteeredTally:
    """The counts of one resolver; `native` gives the first so many cells of the other responder."""

    def __init__(
        self, labels: Labels, native: Callable[[int], Sequence[int]] | None = None
    ) -> None:
        self._labels, self._native = labels, native
        self._own: defaultdict[int, int] = defaultdict(int)
        self._leaves: dict[int, tuple[Answers, Sequence[int]]] = {}

    def add(self, met: Met) -> None:
        """Count what the reference responder met on the way to one answer."""
        for one in met:
            if isinstance(one, str):
                self._own[self._labels.lines.cell(one)] += 1
            else:
                for cell in self._cells(one):
                    self._own[cell] += 1

    def rows(self) -> Iterator[tuple[str, str, int]]:
        """(`line`, `pool` or `address`, label, count) of all that was counted."""
        labels, base = self._labels, self._labels.base
        named = [
            *(("line", NONE if one == "" else one, cell) for one, cell in labels.lines.rows()),
            *(("pool", one, cell) for one, cell in labels.pools.rows()),
            *(
                ("address", None if one is None else value_text(one), cell)
                for one, cell in labels.addresses.rows()
            ),
        ]
        # After the labels: a cell that was given to another meanwhile has not counted less.
        counts = self._counts(labels.end)
        for kind, label, cell in named:
            count = counts[cell] - base.get(cell, 0)
            if count:
                yield kind, OTHER if label is None else label, count

    def metrics(self) -> Iterator[Metric]:
        """The counters."""
        families = {
            kind: CounterMetricFamily(f"gtm_resolver_{kind}_queries", text, labels=(kind,))
            for kind, text in (
                ("line", "Choices among clients by the line that they are on."),
                ("pool", "Answers by the pools that they came from."),
                ("address", "Answers by the addresses in them."),
            )
        }
        for kind, label, count in self.rows():
            families[kind].add_metric((label,), count)
        yield from families.values()

    async def tidy(self, table: AnswerTable, now_s: float) -> int:
        """Take their cells from labels that have long been in no table; gives how many.

        Only where the reference responder alone counts here. `table` is the one in force; the cells
        of its labels are found anew when they are asked for.
        """
        use = await asyncio.to_thread(_use, self._labels, table)
        self._leaves.clear()
        return self._labels.tidy(use, now_s, self._counts)

    def _counts(self, end: int) -> list[int]:
        """The first `end` cells of both responders."""
        counts = list(self._native(end)) if self._native is not None else [0] * end
        for cell, count in self._own.items():
            counts[cell] += count
        return counts

    def _cells(self, leaf: Answers) -> Sequence[int]:
        """The cells of a leaf, remembered while the leaf is."""
        found = self._leaves.get(id(leaf))
        if found is None:
            if len(self._leaves) >= MAX_LEAVES:
                self._leaves.clear()
            found = self._leaves[id(leaf)] = (leaf, self._labels.leaf(leaf))
        return found[1]


def _use(labels: Labels, table: AnswerTable) -> Use:
    use = labels.names_in(table)
    use.add(nodes_of(table.plans))
    return use
