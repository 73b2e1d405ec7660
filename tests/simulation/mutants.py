"""Rules broken on purpose: the simulation must find each, within a bounded number of seeds.

    python -m tests.simulation.mutants

A mutant is a few replacements in the modules, made in a scratch copy of the tree; a copy whose text
does not hold what is to be replaced says so, so that no mutant lives on in name only. Prints one
table, in the form of the decision page: what is broken, and the seed and invariant that found it.
The tree as it is comes last: the seeds that found something must find nothing there.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COPIED = ("gtm", "agent", "coordinator", "resolver", "tests", "ctl", "pyproject.toml")
SEEDS = 30
"""A mutant that so many seeds do not find is missed."""


class Edit(NamedTuple):
    """In the module `path`, `old` becomes `new`."""

    path: str
    old: str
    new: str


class Mutant(NamedTuple):
    """A rule, what is made of it, and every place that holds it."""

    name: str
    broken: str
    edits: tuple[Edit, ...]


class Found(NamedTuple):
    """The first seed that finds a mutant and what it says; seed 0 where none does."""

    seed: int
    said: str
    seconds: float


MUTANTS = (
    Mutant(
        "quorum off by one",
        "one region fewer than the failing share turns a verdict down",
        (
            Edit(
                "coordinator/quorum.py",
                "downs=max(1, _upwards(check.fails_from, len(regions))),",
                "downs=max(1, _upwards(check.fails_from, len(regions)) - 1),",
            ),
        ),
    ),
    Mutant(
        "no least number of voters",
        "a single region with a vote is enough to judge",
        (
            Edit(
                "coordinator/quorum.py",
                "pending = voters < who.voters if total",
                "pending = voters < 1 if total",
            ),
            Edit("coordinator/quorum.py", "if voters < who.voters:", "if voters < 1:"),
        ),
    ),
    Mutant(
        "silence counts as down",
        "a region without a vote counts as down instead of as the standing verdict",
        (
            Edit(
                "coordinator/quorum.py",
                "counted = downs + np.where(standing == DOWN, total - voters, 0)",
                "counted = downs + total - voters",
            ),
            Edit(
                "coordinator/quorum.py",
                "counted = downs + (silent if standing == DOWN else 0)",
                "counted = downs + silent",
            ),
        ),
    ),
    Mutant(
        "hysteresis off by one",
        "one failure fewer than `fall` votes down",
        (
            Edit(
                "coordinator/hysteresis.py",
                "needed = np.where(outcome == FAILURE, fall, rise)",
                "needed = np.where(outcome == FAILURE, fall - 1, rise)",
            ),
        ),
    ),
    Mutant(
        "opinions never lapse",
        "the grace of an agent that is silent is 99 times as long",
        (
            Edit(
                "coordinator/agents.py",
                "over = np.flatnonzero((self.last != NONE) & (now_ms - self.heard >= grace))",
                "over = np.flatnonzero((self.last != NONE) & (now_ms - self.heard >= grace * 99))",
            ),
        ),
    ),
    Mutant(
        "no fencing",
        "a leader's write compares neither the create nor the mod revision of its key",
        (
            Edit(
                "coordinator/ballot.py",
                'Compare(keys.leader(), "create", "=", fence),',
                'Compare(keys.leader(), "create", "!=", -1),',
            ),
            Edit(
                "coordinator/publisher.py",
                'Compare(leader, "mod", "=", self._leadership.mark),',
                'Compare(leader, "mod", "!=", -1),',
            ),
        ),
    ),
    Mutant(
        "a takeover that does not read",
        "a new leader goes on from its own memory, not from what the last one wrote",
        (
            Edit(
                "coordinator/publisher.py",
                "await self._take_over()\n",
                "await asyncio.sleep(0)\n",
            ),
        ),
    ),
    Mutant(
        "stored votes outlive their verdict",
        "a stored vote counts against the verdict in its record, and against one that turned since",
        (
            Edit(
                "coordinator/evidence.py",
                "if vote.vote == record.verdict and (name in self.regions or",
                'if vote.vote != "none" and (name in self.regions or',
            ),
            Edit(
                "coordinator/evidence.py",
                "over = numbers[(stored != NO_VOTE) & (stored != standing[numbers])]",
                "over = numbers[:0]",
            ),
        ),
    ),
)
NOTHING = Mutant("none", "nothing: the same seeds find nothing in the tree as it is", ())


def planted(mutant: Mutant, tree: Path) -> None:
    """Break the rule in a copy. Raises ValueError where the text is not there."""
    for path, old, new in mutant.edits:
        text = (tree / path).read_text()
        if text.count(old) != 1:
            raise ValueError(f"{path} does not hold what {mutant.name!r} replaces")
        (tree / path).write_text(text.replace(old, new))


def _copied(tree: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)


def found(mutant: Mutant, seeds: int, jobs: int) -> Found:
    """Simulate a mutant until a seed finds it. Raises RuntimeError where it does not even run."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        _copied(tree)
        planted(mutant, tree)
        command = [sys.executable, "-m", "tests.simulation.run", "--stop"]
        command += ["--seeds", str(seeds), "--jobs", str(jobs)]
        begun = time.perf_counter()
        ran = subprocess.run(
            command, cwd=tree, capture_output=True, text=True, env={"PYTHONPATH": str(tree)}
        )
    seconds = time.perf_counter() - begun
    said = re.search(r"^seed (\d+): (?:at \S+ s: )?(.*)$", ran.stdout, re.MULTILINE)
    if said is None and ran.returncode:
        raise RuntimeError(f"{mutant.name!r} does not run: {ran.stderr[-500:]}")
    return Found(int(said[1]), said[2], seconds) if said else Found(0, "", seconds)


def main() -> int:
    """Print the table; 1 where a mutant was not found, or something in the tree as it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="mutants whose name holds this")
    given = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if given.only in mutant.name]
    missed = last = 0
    print("| mutant | what is broken | seed | seconds | what the simulation says |")
    print("|---|---|---|---|---|")
    for mutant in chosen:
        seed, said, seconds = found(mutant, given.seeds, given.jobs)
        missed += not seed
        last = max(last, seed)
        number = str(seed) if seed else f"none of {given.seeds}"
        print(
            f"| {mutant.name} | {mutant.broken} | {number} | {seconds:.0f} | {said or 'nothing'} |",
            flush=True,
        )
    seed, said, seconds = found(NOTHING, last, given.jobs)
    number = str(seed) if seed else f"none of {last}"
    print(f"| {NOTHING.name} | {NOTHING.broken} | {number} | {seconds:.0f} | {said or 'nothing'} |")
    print(f"{len(chosen) - missed} of {len(chosen)} found", file=sys.stderr)
    return int(missed > 0 or seed > 0)


if __name__ == "__main__":
    sys.exit(main())
