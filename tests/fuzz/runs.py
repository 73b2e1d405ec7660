"""Feeds made-up inputs to one part of the product and measures: no exception, bounded time, memory.

Every input has a seed of its own, from the run's seed and its number, so that one can be made again
without those before it.
"""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct, field

WARM = 0.2
"""The share of a run after which memory must not grow any more."""
MAX_GROWTH_MIB = 32.0


class Target(Protocol):
    """What is fuzzed; `limit_s` is what one input may cost in CPU time."""

    name: str

    def make(self, dice: random.Random) -> Any:
        """An input."""

    async def feed(self, given: Any, counts: Counter[str]) -> float:
        """Put it through, check what came of it, count it; the CPU seconds that it took."""

    def limit_s(self, given: Any) -> float:
        """The CPU seconds that it may take."""


class Run(Struct):
    """What a run came to."""

    name: str
    seed: int
    first: int
    counts: Counter[str] = field(default_factory=Counter)
    inputs: int = 0
    took_s: float = 0.0
    worst_s: float = 0.0
    worst: int = -1
    growth_mib: float = 0.0

    def __str__(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.most_common())
        return (
            f"{self.name}: {self.inputs:,} inputs, seed {self.seed}, {self.took_s:.0f} s; "
            f"worst {self.worst_s * 1e3:.2f} ms (number {self.worst}); "
            f"memory {self.growth_mib:+.1f} MiB after the first {WARM:.0%}\n  {kinds}"
        )


class Defect(AssertionError):
    """An input that the part did not take as it should."""


async def run(target: Target, count: int, seed: int, first: int = 0) -> Run:
    """Feed `count` inputs from number `first` on. Raises Defect, which says how to repeat it."""
    done = Run(target.name, seed, first)
    began = time.monotonic()
    warm = 0.0
    gc.collect()
    gc.freeze()  # else a collection of all that was imported would be taken for an input's time
    try:
        for number in range(first, first + count):
            given = target.make(random.Random(f"{target.name}:{seed}:{number}"))
            try:
                spent_s = await target.feed(given, done.counts)
                limit_s = target.limit_s(given)
                assert spent_s <= limit_s, f"took {spent_s:.3f} s of CPU, more than {limit_s:.3f}"
            except Exception as error:
                raise Defect(
                    f"{target.name}, seed {seed}, number {number}: "
                    f"{type(error).__name__}: {error}\n{_shown(given)}"
                ) from error
            done.inputs += 1
            if spent_s > done.worst_s:
                done.worst_s, done.worst = spent_s, number
            if done.inputs == max(1, int(count * WARM)):
                warm = resident_mib()
        done.growth_mib = resident_mib() - warm
    finally:
        gc.unfreeze()
    done.took_s = time.monotonic() - began
    if done.growth_mib > MAX_GROWTH_MIB:
        raise Defect(f"{done}\nmemory grew by {done.growth_mib:.1f} MiB")
    return done


def resident_mib() -> float:
    """This process' resident memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def _shown(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 4000 else f"{text[:4000]}... ({len(text):,} characters)"
