"""Rules broken on purpose: the simulation must find each, within a bounded number of seeds.

    python -m tests.simulation.mutants

A mutant is one replacement in one module, made in a scratch copy of the tree; a copy whose text
does not hold what is to be replaced says so, so that no mutant lives on in name only.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COPIED = ("gtm", "agent", "coordinator", "resolver", "tests", "ctl", "pyproject.toml")
SEEDS = 30


class Mutant(NamedTuple):
    """`path`: where `old` becomes `new`."""

    name: str
    path: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "quorum: one region fewer",
        "coordinator/quorum.py",
        "downs=max(1, _upwards(check.fails_from, len(regions))),",
        "downs=max(1, _upwards(check.fails_from, len(regions)) - 1),",
    ),
    Mutant(
        "voters: pending is judged",
        "coordinator/quorum.py",
        "pending = voters < who.voters if total",
        "pending = voters < 1 if total",
    ),
    Mutant(
        "a silent region counts as down",
        "coordinator/quorum.py",
        "counted = downs + np.where(standing == DOWN, total - voters, 0)",
        "counted = downs + total - voters",
    ),
    Mutant(
        "hysteresis: one failure fewer",
        "coordinator/hysteresis.py",
        "needed = np.where(outcome == FAILURE, fall, rise)",
        "needed = np.where(outcome == FAILURE, fall - 1, rise)",
    ),
    Mutant(
        "opinions never lapse",
        "coordinator/agents.py",
        "over = np.flatnonzero((self.last != NONE) & (now_ms - self.heard >= grace))",
        "over = np.flatnonzero((self.last != NONE) & (now_ms - self.heard >= grace * 1000))",
    ),
    Mutant(
        "no fencing",
        "coordinator/ballot.py",
        'Compare(keys.leader(), "create", "=", fence),',
        'Compare(keys.leader(), "create", "!=", -1),',
    ),
    Mutant(
        "a takeover that does not read",
        "coordinator/publisher.py",
        "        if self._took_over != fence:",
        "        if self._took_over == -1:",
    ),
    Mutant(
        "a stored vote counts whatever it says",
        "coordinator/evidence.py",
        "place.stored[over] = NO_VOTE",
        "place.stored[over] = place.stored[over]",
    ),
)


def planted(mutant: Mutant, tree: Path) -> None:
    """Break the rule in a copy. Raises ValueError where the text is not there."""
    path = tree / mutant.path
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.path} does not hold what {mutant.name!r} replaces")
    path.write_text(text.replace(mutant.old, mutant.new))


def found(mutant: Mutant, seeds: int, jobs: int) -> tuple[int, str]:
    """The first seed that finds it, and what that says; 0 where none does."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / name)
        planted(mutant, tree)
        command = [sys.executable, "-m", "tests.simulation.run", "--stop"]
        command += ["--seeds", str(seeds), "--jobs", str(jobs)]
        ran = subprocess.run(
            command, cwd=tree, capture_output=True, text=True, env={"PYTHONPATH": str(tree)}
        )
    said = re.search(r"^seed (\d+): (.*)$", ran.stdout, re.MULTILINE)
    return (int(said[1]), said[2]) if said else (0, ran.stderr[-200:])


def main() -> int:
    """Print the table; 1 where a mutant was not found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    missed = 0
    print(f"{'rule broken':<34} {'seed':>5}  what the simulation says")
    for mutant in MUTANTS:
        if given.only not in mutant.name:
            continue
        seed, said = found(mutant, given.seeds, given.jobs)
        missed += not seed
        print(f"{mutant.name:<34} {seed or 'none':>5}  {said[:110]}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
