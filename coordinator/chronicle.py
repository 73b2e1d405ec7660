"""Keeps the history: each change with its clock, from the first failed probe to every resolver.

The engine's decisions wait here until the publisher has committed them; then they are written, and
once more when every resolver has told that it serves them, or `SERVED_WAIT_S` later. Only a leader
keeps it: what a dead one decided and did not commit its successor decides again. What is here is
for the eyes of operators only: nothing decides by it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from gtm import codec, keys
from gtm.errors import StoreError
from gtm.state import HistoryEntry
from gtm.store import MAX_OPS, Compare, Delete, Op, Put, Store, packed
from gtm.telemetry import transition

from . import metrics
from .election import Leadership

MAX_ENTRIES = 100_000
"""Entries that are kept in the store."""
MAX_AGE_S = 30 * 86_400.0
"""How long an entry is kept."""
MAX_WAITING = 20_000
"""Changes that wait for their commit, or for their resolvers; of further ones the oldest goes."""
SERVED_WAIT_S = 10.0
"""How long resolvers have to tell that they serve a change, for it to stand in the history."""
TRIM_EVERY_S = 60.0
BATCH = 256
"""Entries in one transaction."""
PAUSE_S = 0.25
"""Between two rounds of writing: entries of that time go together."""

log = logging.getLogger("coordinator")


class Chronicle:
    """The history of one coordinator; `replicas()` names the resolvers that report now."""

    def __init__(
        self,
        store: Store,
        leadership: Leadership,
        id_: Callable[[], str],
        replicas: Callable[[], Iterable[str]],
        *,
        wall_s: Callable[[], float] = lambda: time.time(),
        most: int = MAX_ENTRIES,
    ) -> None:
        self._store, self._leadership, self._id = store, leadership, id_
        self._replicas, self._wall_s, self._most = replicas, wall_s, most
        self._decided: OrderedDict[str, list[HistoryEntry]] = OrderedDict()  # by key
        self._waiting = 0
        self._committed: deque[HistoryEntry] = deque()
        self._serving: OrderedDict[str, HistoryEntry] = OrderedDict()  # written, by key
        self._served: dict[str, list[tuple[int, float]]] = {}  # resolver -> (revision, when)
        self._seq = 0
        self._kept: deque[str] | None = None
        self._trimmed = 0.0
        self._wake = asyncio.Event()

    # ---- fed -----------------------------------------------------------------------------------

    def decided(self, entries: Iterable[tuple[str, HistoryEntry]]) -> None:
        """Changes that wait for the write of their key, while we lead."""
        if not self._leadership.fence:
            self._decided.clear()
            self._waiting = 0
            return
        for key, entry in entries:
            self._decided.setdefault(key, []).append(entry)
            self._waiting += 1
        while self._waiting > MAX_WAITING:
            _, dropped = self._decided.popitem(last=False)
            self._waiting -= len(dropped)
            metrics.HISTORY_DROPPED.inc(len(dropped))

    def committed(self, written: Iterable[str], revision: int) -> None:
        """The publisher wrote these keys, all at one revision."""
        now_s = self._wall_s()
        for key in written:
            for entry in self._drop(key):
                done = replace(entry, revision=revision, committed=now_s, leader=self._id())
                self._committed.append(done)
        if self._committed:
            self._wake.set()

    def _drop(self, key: str) -> list[HistoryEntry]:
        found = self._decided.pop(key, [])
        self._waiting -= len(found)
        return found

    def served(self, resolver: str, revision: int) -> None:
        """A resolver tells that it serves a revision."""
        told = self._served.setdefault(resolver, [])
        if not told or revision > told[-1][0]:
            told.append((revision, self._wall_s()))
            del told[:-64]
            if self._serving:
                self._wake.set()

    # ---- writes --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            try:
                async with asyncio.timeout(1.0):
                    await self._wake.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(PAUSE_S)
            self._wake.clear()
            fence = self._leadership.fence
            if not fence:
                self._committed.clear()
                self._serving.clear()
                self._kept = None
                continue
            try:
                await self._write(fence)
                await self._complete(fence)
                await self._trim(fence)
            except (StoreError, TimeoutError) as error:
                transition(log, "cannot write the history", logging.WARNING, cause=str(error))
                await asyncio.sleep(1.0)

    async def _write(self, fence: int) -> None:
        while self._committed:
            batch = [self._committed[at] for at in range(min(BATCH, len(self._committed)))]
            named = [(self._key(entry), entry) for entry in batch]
            if not await self._put(fence, named):
                return
            for key, entry in named:
                self._committed.popleft()
                self._serving[key] = entry
                if self._kept is not None:
                    self._kept.append(key)
            metrics.HISTORY.inc(len(named))
            while len(self._serving) > MAX_WAITING:
                self._serving.popitem(last=False)

    async def _complete(self, fence: int) -> None:
        """Write once more what every resolver serves, and what waited for too long."""
        there = set(self._replicas())
        for gone in self._served.keys() - there:
            del self._served[gone]
        late = self._wall_s() - SERVED_WAIT_S
        done: list[tuple[str, HistoryEntry]] = []
        over: list[str] = []
        for key, entry in self._serving.items():
            served = {
                one: at for one in sorted(there) if (at := self._when(one, entry.revision)) > 0
            }
            if served.keys() >= there or entry.committed <= late:
                over.append(key)
                if served:
                    done.append((key, replace(entry, served=served)))
        for start in range(0, len(done), BATCH):
            if not await self._put(fence, done[start : start + BATCH]):
                return
        for key in over:
            self._serving.pop(key, None)

    def _when(self, resolver: str, revision: int) -> float:
        """When a resolver told that it serves a revision; 0: it did not yet."""
        return next((at for told, at in self._served.get(resolver, ()) if told >= revision), 0.0)

    async def _put(self, fence: int, entries: Sequence[tuple[str, HistoryEntry]]) -> bool:
        ops: list[Op] = [Put(key, codec.encode(entry)) for key, entry in entries]
        compare = Compare(keys.leader(), "create", "=", fence)
        return (await self._store.txn([compare], packed(ops))).succeeded

    def _key(self, entry: HistoryEntry) -> str:
        self._seq = (self._seq + 1) % 1_000_000
        return keys.history(round(entry.time * 1000), self._seq)

    async def _trim(self, fence: int) -> None:
        """Take away what is too much and what is too old."""
        if self._kept is None:
            listing = await self._store.list(keys.HISTORY, keys_only=True)
            self._kept = deque(item.key for item in listing.items)
        if time.monotonic() - self._trimmed < TRIM_EVERY_S and len(self._kept) <= self._most:
            return
        self._trimmed = time.monotonic()
        oldest = f"{keys.HISTORY}{round((self._wall_s() - MAX_AGE_S) * 1000):013d}"
        kept, gone = self._kept, []
        while kept and (len(kept) > self._most or kept[0] < oldest):
            gone.append(kept.popleft())
        for start in range(0, len(gone), MAX_OPS * 8):
            ops: list[Op] = [Delete(key) for key in gone[start : start + MAX_OPS * 8]]
            await self._store.txn([Compare(keys.leader(), "create", "=", fence)], packed(ops))
