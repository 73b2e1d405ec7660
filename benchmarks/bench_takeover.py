"""From a leader's kill -9 to the first publish of the next one, and what clients saw of it.

    python benchmarks/bench_takeover.py [--kills 50] [--rate 200] [--lease 5s]

Two coordinators, three agents, two resolvers and an etcd as processes of their own, origins that
are really asked, and a steady load of queries whose every answer is held against what is right at
that moment. In each round the leader is killed at a random phase of its lease and something changes
in the same instant, by turns: an operator's force through the other coordinator, the death of an
origin. The time is taken by a watch of etcd; nine seconds a round or so.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ctl.digs import poll  # noqa: E402
from ctl.origins import Origins  # noqa: E402
from gtm import keys  # noqa: E402
from gtm.etcd import EtcdOptions, connect  # noqa: E402
from gtm.store import Listing  # noqa: E402
from gtm.units import Duration  # noqa: E402
from tests import faults  # noqa: E402
from tests.coordinators import World, other_of  # noqa: E402
from tests.faults import SOON_S, A, B, picture  # noqa: E402
from tests.load import Counts, Load  # noqa: E402

SLACK_S = 1.0
"""Beyond the lease: the target."""
PHASE_S = 1.0
"""The kill comes so long after all is whole, at most: more than a renewal takes."""


class Published(threading.Thread):
    """Watches what resolvers read, on a loop of its own; knows when it changed last."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self._endpoint = endpoint
        self._at: list[float] = []

    def run(self) -> None:
        """Watch until the process ends."""
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        store = connect(EtcdOptions(endpoints=(self._endpoint,)))
        async for news in store.watch(keys.POOLS):
            if not isinstance(news, Listing):
                self._at.append(time.monotonic())

    def first_after(self, since: float) -> float:
        """When the first change after `since` was seen; 0 where there was none."""
        return next((at for at in self._at if at > since), 0.0)


def kill(world: World, load: Load, published: Published, dice: random.Random, turn: int) -> float:
    """One round; seconds from the kill to the first publish."""
    leader = world.leader()
    other = world.doors[other_of(leader)]
    one = dice.choice(A)
    poll(lambda: False, dice.random() * PHASE_S)
    load.turning(picture(one))
    began = time.monotonic()
    world.parts.kill(leader)
    if turn % 2:
        world.origins.stop(one)
    else:
        faults.gtm("--server", other, "force", f"a/{one}", "down", "--why", "bench", "--keep")
    if load.arrives(SOON_S) is None:
        raise SystemExit(f"the answers did not follow: {load.told}")
    took_s = published.first_after(began) - began
    load.turning(picture())
    if turn % 2:
        world.origins.start(one)
    else:
        faults.gtm("--server", other, "release", f"a/{one}")
    if load.arrives(SOON_S) is None:
        raise SystemExit(f"the answers did not return: {load.told}")
    world.start(leader)
    if poll(world.whole, SOON_S, 0.1) is None:
        raise SystemExit("the killed coordinator did not come back")
    return took_s


def tell(took: Sequence[float], counts: Counts, lease_s: float) -> None:
    """Print the table."""
    print(f"{'kills of the leader':34}{len(took):>10,}")
    print(f"{'kill to first publish, median':34}{median(took):>10.2f} s")
    most, target = max(took), lease_s + SLACK_S
    verdict = "held" if most <= target else "MISSED"
    print(f"{'kill to first publish, greatest':34}{most:>10.2f} s  target {target:g} s: {verdict}")
    print(f"{'queries':34}{counts.asked:>10,}")
    verdict = "held" if not counts.wrong else "MISSED"
    print(f"{'wrong answers':34}{counts.wrong:>10,}    target 0: {verdict}")
    print(f"{'queries without an answer':34}{counts.unanswered:>10,}")
    print(f"{'longest time between answers':34}{counts.gap_s:>10.3f} s")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rate", type=float, default=200.0, help="queries a second a resolver")
    parser.add_argument("--lease", default="5s")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    lease_s = Duration.parse(options.lease).s
    print(f"lease {lease_s:g} s, seed {options.seed}; Python {platform.python_version()}")
    dice = random.Random(options.seed)
    took: list[float] = []
    with (
        TemporaryDirectory() as folder,
        Origins((*A, *B)) as origins,
        World(Path(folder) / "world", origins, lease=options.lease) as world,
        Load(world.dns, picture(), options.rate, limit_s=86_400.0) as load,
    ):
        published = Published(f"http://127.0.0.1:{world.ports.etcd[0]}")
        published.start()
        for turn in range(options.kills):
            took.append(kill(world, load, published, dice, turn))
            print(f"{turn + 1:4} {took[-1]:6.2f} s", file=sys.stderr, flush=True)
        counts = load.counts()
        for line in load.told:
            print(line)
    tell(took, counts, lease_s)


if __name__ == "__main__":
    main()
