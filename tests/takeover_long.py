"""`make takeover`: what dnsperf loses while resolvers take over and a million names are loaded.

Each row is a phase with a dnsperf of its own at a steady rate, and beside it a slower load whose
answers are read: what dnsperf calls answered may still say the wrong thing. Ends with 1 where a
query was lost or answered wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Struct

from ctl.digs import free_port
from gtm.etcd import EtcdOptions, EtcdStore, connect
from gtm.store import Put
from tests.etcds import EtcdServer, etcd_binary
from tests.geo_files import placed
from tests.load import Counts, Load
from tests.takeovers import (
    FAR,
    FIX,
    LACKING,
    MANY,
    MODES,
    NAME,
    RATE,
    SIDES,
    Comers,
    Line,
    address_of,
    asked_enough,
    configuration,
    many,
    picture,
    pool,
)

READ_RATE = 400.0
"""Questions a second whose answers are read."""
LONG_S = 900.0
"""For a million names to be answered."""
PATIENCE_S = "2"
"""A query without an answer for so long is lost."""


class Row(Struct, frozen=True):
    """What came of one phase: dnsperf's counts, and those of the load that reads."""

    phase: str
    sent: int
    answered: int
    lost: int
    odd: int
    """Answers with an rcode that no question has."""
    longest_s: float
    read: Counts
    tcp: int
    """Connections over TCP, each for one query, that got its answer."""
    tcp_failed: int

    def good(self) -> bool:
        """Whether nothing was lost, and nothing wrong."""
        failed = self.lost + self.odd + self.read.wrong + self.read.unanswered + self.tcp_failed
        return not failed

    def __str__(self) -> str:
        sent, answered = self.sent + self.read.asked, self.answered + self.read.answered
        lost, wrong = self.lost + self.read.unanswered, self.odd + self.read.wrong
        return (
            f"{self.phase:34} {sent:10,} {answered:10,} {lost:6} {wrong:6} "
            f"{self.longest_s * 1e3:8.1f} {self.tcp:8,} {self.tcp_failed:8}"
        )


class Dnsperf:
    """A dnsperf from many sockets, until it is told to end."""

    def __init__(self, folder: Path, port: int, questions: tuple[str, ...], rate: float) -> None:
        data = folder / "questions"
        data.write_text("".join(f"{one}\n" for one in questions))
        self._process = subprocess.Popen(
            ["dnsperf", "-s", SIDES[0], "-p", str(port), "-d", str(data), "-Q", f"{rate:.0f}",
             "-c", "20", "-q", "2000", "-t", PATIENCE_S, "-l", "3600"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def end(self) -> tuple[int, int, int, int, float]:
        """End it: sent, answered, lost, answers with an odd rcode, the longest latency in seconds.

        What was under way in that moment counts as not sent.
        """
        self._process.send_signal(signal.SIGINT)
        text, _ = self._process.communicate(timeout=30)

        def number(pattern: str) -> float:
            found = re.search(pattern, text)
            return float(found[1]) if found else 0.0

        sent, answered = number(r"Queries sent:\s+(\d+)"), number(r"Queries completed:\s+(\d+)")
        lost, waited = number(r"Queries lost:\s+(\d+)"), number(r"Queries interrupted:\s+(\d+)")
        codes = re.search(r"Response codes:\s+(.*)", text)
        odd = sum(
            int(count)
            for code, count in re.findall(r"([A-Z]+) (\d+)", codes[1] if codes else "")
            if code not in ("NOERROR", "NXDOMAIN", "REFUSED")
        )
        longest_s = number(r"Average Latency.*max ([\d.]+)")
        return int(sent - waited), int(answered), int(lost), odd, longest_s


class Bench:
    """The phases over one line of resolvers, and the rows that they made."""

    def __init__(self, folder: Path, line: Line, store: EtcdStore) -> None:
        self.folder, self.line, self.store = folder, line, store
        self.rows: list[Row] = []
        self.address, self.more = "192.0.2.1", dict[str, str]()

    async def phase(self, name: str, work: Callable[[Load], Awaitable[None]]) -> None:
        """Do `work` under load; its row."""
        questions = (NAME, FIX, LACKING, *self.more)
        dnsperf = Dnsperf(self.folder, self.line.port, questions, RATE)
        allowed = picture(self.address, **self.more)
        with self.line.load(allowed, READ_RATE) as load, Comers(self.line.port) as comers:
            try:
                await asked_enough(load, 400)
                await work(load)
                await asked_enough(load, 400)
            finally:
                counts = await asyncio.to_thread(dnsperf.end)
        failed = comers.failures
        self.rows.append(Row(name, *counts, load.counts(), comers.answered, len(failed)))
        print(self.rows[-1], flush=True)
        for text in (*load.told, *failed[:8]):
            print(f"    {text}")

    async def take_over(self, count: int) -> None:
        """`count` takeovers in a row, by both responders in turn where both are there."""

        async def work(load: Load) -> None:
            for number in range(count):
                if await self.line.replaced(MODES[(number + 1) % len(MODES)]):
                    raise SystemExit(self.line.text())
                await asked_enough(load, 100)

        await self.phase(f"{count} takeovers", work)

    async def turn(
        self, name: str, change: Callable[[], Awaitable[object]], address: str, **more: str
    ) -> None:
        """A change after which the instance answers `address`, and other questions as in `more`."""
        after = {**self.more, **more}

        async def work(load: Load) -> None:
            load.turning(picture(address, **after))
            await change()
            if await asyncio.to_thread(load.arrives, LONG_S) is None:
                raise SystemExit(self.line.text())

        await self.phase(name, work)
        self.address, self.more = address, after


async def bench(takeovers: int, names: int) -> bool:
    """All phases; whether every row is good."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        etcd = EtcdServer(etcd_binary("path"), folder / "etcd")
        etcd.start()
        store = connect(EtcdOptions(endpoints=(etcd.endpoint,)))
        geo = placed(folder / "geo.mmdb", "DE")
        flags = (f"--geo={geo}", "--geo-reload=100ms")
        line = Line(folder, etcd.endpoint, free_port(), free_port(), *flags)
        try:
            await store.txn((), configuration())
            await line.started(MODES[0])
            made = Bench(folder, line, store)
            await made.take_over(takeovers)
            await _changes(made, folder, names)
            await made.take_over(2)
            return all(row.good() for row in made.rows)
        finally:
            line.stop()
            await store.close()
            etcd.stop()


async def _changes(made: Bench, folder: Path, names: int) -> None:
    async def swap() -> None:
        await asyncio.to_thread(placed, folder / "geo.mmdb", "FR")

    async def write(put: Put) -> None:
        await made.store.txn((), [put])

    near, last = "192.0.2.2", f"n{names - 1}.{MANY} A"
    await made.turn("a pool changes", lambda: write(pool("near", near)), near)
    zone = await many(made.store, names)
    made.more = {last: "REFUSED"}
    there = {last: f"NOERROR {address_of(names - 1)}"}
    await made.turn(f"{names:,} names are loaded", lambda: write(zone), near, **there)
    await made.turn("a geo file is swapped", swap, FAR)


def main() -> int:
    """The table; 0 where nothing was lost or wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--takeovers", type=int, default=20)
    parser.add_argument("--names", type=int, default=1_000_000)
    args = parser.parse_args()
    if shutil.which("dnsperf") is None:
        print("dnsperf is needed: apt-get install dnsperf", file=sys.stderr)
        return 2
    print(
        f"{'phase':34} {'sent':>10} {'answered':>10} {'lost':>6} {'wrong':>6} {'max ms':>8} "
        f"{'TCP':>8} {'failed':>8}"
    )
    return 0 if asyncio.run(bench(args.takeovers, args.names)) else 1


if __name__ == "__main__":
    sys.exit(main())
