"""Kills the leader of a lab again and again under load: who leads next, how soon, and what is seen.

Every second kill comes amid a fault that nobody has judged yet, so that the next leader has
something to publish; the others must change nothing. `make lab-kills` prints the table.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Sequence

from msgspec import Struct

from ctl.digs import poll
from gtm import keys
from gtm.errors import StartError
from gtm.etcd import connect
from gtm.store import Batch

from . import asking, spaces, trust
from .ground import QUIET_S, RATE, SOON_S, Failed, Ground
from .lab import Lab
from .within import enter

KILLS = 50
LIMIT_S = 6.0
"""From kill -9 to the next leader's first publication: a lease of 5 s, and one second."""


class Kill(Struct, frozen=True):
    """One kill: seconds from it to the next leadership, and to its first publication if any."""

    leader: str
    follower: str
    led_s: float
    published_s: float | None = None


class Watcher:
    """Notes when a leader's key and when anything served is written, as etcd tells it."""

    def __init__(self, lab: Lab) -> None:
        self._options = trust.etcd_options(lab.folder, lab.chosen("etcds"))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._ends = threading.Event()
        self.written: dict[str, list[float]] = {keys.LEADERS: [], keys.SERVE: []}

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def first(self, prefix: str, since: float) -> float | None:
        """The first write under a prefix after a monotonic instant, seconds after it."""
        return next((at - since for at in self.written[prefix] if at > since), None)

    async def _run(self) -> None:
        store = connect(self._options)
        tasks = [asyncio.create_task(self._follow(store.watch(one), one)) for one in self.written]
        while not self._ends.is_set():
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()

    async def _follow(self, watch: object, prefix: str) -> None:
        async for news in watch:  # type: ignore[attr-defined]
            if isinstance(news, Batch) and any(one.value is not None for one in news.events):
                self.written[prefix].append(time.monotonic())


def killed(on: Ground, watcher: Watcher, *, amid: bool) -> Kill:
    """Kill the leader and wait for the next; `amid` a fault, or its end, that is not judged yet."""
    leader = on.leader()
    down = () if on.down else ("a1",)
    if amid:
        on.load.turning(on.picture(*down))
        on.origins(*down)
    began = time.monotonic()
    on.kill(leader)
    on.until(lambda: watcher.first(keys.LEADERS, began) is not None, "another one leads", 0.02)
    led_s = watcher.first(keys.LEADERS, began)
    follower = on.leader(but=leader)
    published_s = None
    if amid:
        on.check(on.load.arrives(SOON_S) is not None, "answers do not follow")
        on.until(lambda: watcher.first(keys.SERVE, began) is not None, "the watch tells it", 0.02)
        published_s = watcher.first(keys.SERVE, began)
    on.start(leader)
    on.until(lambda: asking.whole(on.lab), "the lab is whole again")
    assert led_s is not None
    return Kill(leader, follower, led_s, published_s)


def table(some: Sequence[Kill], on: Ground) -> str:
    """The figures, and what came of the queries."""
    lines = []
    for what, seconds in (
        ("kill -9 to the next leadership", [one.led_s for one in some]),
        ("kill -9 to its first publication", [one.published_s for one in some if one.published_s]),
    ):
        if seconds:
            least, most, middle = min(seconds), max(seconds), statistics.median(seconds)
            figures = f"{len(seconds):>6}{least:>9.2f}{middle:>9.2f}{most:>9.2f}"
            lines.append(f"{what:34}{figures}")
    counts = on.load.counts()
    return "\n".join(
        [
            f"{'':34}{'kills':>6}{'least s':>9}{'median s':>9}{'most s':>9}",
            *lines,
            f"{counts.asked} queries, {counts.wrong} wrong, {counts.unanswered} unanswered, "
            f"{counts.slow} slower than 0.1 s; longest silence {counts.gap_s:.2f} s",
        ]
    )


def run(lab: Lab, count: int) -> int:
    """Kill so often; 0 where no answer was wrong or missing and every takeover was in time."""
    on, some = Ground(lab), list[Kill]()
    failed = ""
    with Watcher(lab) as watcher, on.load as load:
        poll(lambda: load.counts().answered > RATE, SOON_S)
        try:
            for number in range(count):
                some.append(killed(on, watcher, amid=number % 2 == 0))
                print(f"kill {number + 1}: {told(some[-1])}", flush=True)
        except Failed as error:
            failed = f"kill {len(some) + 1}: {error}"
        on.mend()
        load.arrives(SOON_S)
        poll(lambda: False, QUIET_S)
    print(table(some, on))
    counts = load.counts()
    late = [one for one in some if max(one.led_s, one.published_s or 0.0) > LIMIT_S]
    for problem in (failed, *load.told, *(f"late: {told(one)}" for one in late)):
        if problem:
            print(f"NOT SO: {problem}")
    return 1 if failed or counts.wrong or counts.unanswered or late else 0


def told(one: Kill) -> str:
    """One kill in words."""
    published = f", published after {one.published_s:.2f} s" if one.published_s else ""
    return f"{one.leader} killed, {one.follower} led after {one.led_s:.2f} s{published}"


def main(argv: Sequence[str]) -> int:
    """Kill leaders in a lab, of our own making where there is none."""
    parser = argparse.ArgumentParser(prog="kills", description="Kill leaders under load.")
    parser.add_argument("--name", default="kills", help="which lab; made if it is not there")
    parser.add_argument("--count", type=int, default=KILLS)
    args = parser.parse_args(argv)
    lab = Lab(args.name)
    try:
        spaces.check_rights()
        if (status := enter(lab, "deploy.lab.kills", argv)) is not None:
            return status
    except StartError as error:
        print(f"kills: {error}", file=sys.stderr)
        return error.status
    return run(lab, args.count)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
