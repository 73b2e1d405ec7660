"""Writes what the engine decided into the store: differences only, fenced, and only as leader.

Keeps what is *wanted* beside what is *known* to be in the store. All that one evaluation changed
goes in one transaction, which compares the leader key's create revision and the `serve/head` that
was judged; refused, it waits for the engine to judge the new head. A write whose answer is lost may
be carried out late: before anything newer is written the leader key, which that write compared, is
written anew. Without a store, or without the leadership, wanted goes on changing and only
differences are written later. Decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from msgspec import Struct

from gtm import codec, keys
from gtm.errors import OutcomeUnknown, StoreError
from gtm.state import MetRegion
from gtm.store import Compare, Delete, Event, Get, Listing, Op, Put, Store, packed
from gtm.telemetry import transition

from . import ballot, metrics
from .batches import Values, batches
from .election import Leadership

HEAD_WAIT_S = 1.0
"""How long a refused publisher waits for the new head to be judged before it looks again."""
RETRY_S = (0.05, 1.0)
"""Least and greatest pause between attempts while the store is away."""
LED = (
    keys.POOLS, keys.ROUTES, keys.VERDICTS, keys.ALARMS, keys.REGIONS, keys.ASIDE, keys.FORCES,
)  # fmt: skip
"""The prefixes that a leader writes; of forces it writes only the end."""

log = logging.getLogger("coordinator")


class _Known(Struct, frozen=True):
    value: bytes | None
    revision: int


_NOTHING = _Known(None, 0)


class Publisher:
    """Feed it with `want`, `judged` and `seen`; `run` writes.

    `take_over()` is awaited once in each leadership before anything is written: it reads the store
    and calls `restored`. `named(key)` says whether the configuration still names what a key is
    about; `together()` maps an instance to its pools, whose keys go with its own. `written` is
    told of keys that were written, and of the revision.
    """

    def __init__(
        self,
        store: Store,
        leadership: Leadership,
        *,
        take_over: Callable[[], Awaitable[None]],
        named: Callable[[str], bool] = lambda key: True,
        together: Callable[[], Mapping[str, Iterable[str]]] = dict,
        written: Callable[[Iterable[str], int], None] = lambda keys, revision: None,
    ) -> None:
        self._written = written
        self._store, self._leadership = store, leadership
        self._take_over, self._named, self._together = take_over, named, together
        self._wanted: dict[str, bytes | None] = {}
        self._known: dict[str, _Known] = {}
        self._dirty: set[str] = set()
        self._head = 0
        self._took_over = 0
        """The fence under which the store was read; 0: it must be read before the next write."""
        self._unsettled = False
        """Whether a write of ours may still be on its way; none must overtake a newer one."""
        self._wake = asyncio.Event()
        self._waits_since: float | None = None
        """When, on the monotonic clock, the first wanted key that we may write began to wait."""

    # ---- fed -----------------------------------------------------------------------------------

    def restored(self, listings: Mapping[str, Listing]) -> dict[str, bytes]:
        """Take what the store has under each prefix of `LED`; what is known to be there now.

        That is newer than `listings` where the watch told of a change meanwhile; the engine must
        begin from it, so that both believe the same. From here on its effects say what else is
        wanted. Regions that wait to be noted still do.
        """
        for prefix, listing in listings.items():
            present = {item.key: _Known(item.value, item.mod_revision) for item in listing.items}
            gone = _Known(None, listing.revision)
            for key in self._known:
                if key.startswith(prefix):
                    present.setdefault(key, gone)
            for key, there in present.items():
                if there.revision >= self._known.get(key, _NOTHING).revision:
                    self._known[key] = there
        waiting = {
            key: value
            for key, value in self._wanted.items()
            if key.startswith(keys.REGIONS) and self._known.get(key, _NOTHING).value is None
        }
        orphans = {
            key: None
            for key, there in self._known.items()
            if key.startswith((keys.POOLS, keys.ROUTES))
            and there.value is not None
            and not self._named(key)
        }
        self._known = {key: one for key, one in self._known.items() if one.value is not None}
        self._wanted = {key: there.value for key, there in self._known.items()}
        self._dirty = set()
        self.want({**waiting, **orphans})
        return {key: one.value for key, one in self._known.items() if one.value is not None}

    def want(self, changes: Mapping[str, bytes | None]) -> None:
        """Have these values in the store, None for none; all together where they fit."""
        self._wanted.update(changes)
        self._dirty.update(changes)
        if self._waits_since is None and changes and self._leadership.fence:
            self._waits_since = time.monotonic()
        self._wake.set()

    def met(self, region: str) -> None:
        """Have `region` noted as met, unless it is."""
        key = keys.region(region)
        if self._known.get(key, _NOTHING).value is None and not self._wanted.get(key):
            self.want({key: codec.encode(MetRegion(since=time.time()))})

    def judged(self, head_revision: int) -> None:
        """The engine has judged the configuration of this head."""
        self._head = head_revision
        self._wake.set()

    def seen(self, events: Iterable[Event]) -> None:
        """What the store's watch says of keys that a leader writes."""
        for event in events:
            if not event.key.startswith(LED):
                continue
            if event.mod_revision < self._known.get(event.key, _NOTHING).revision:
                continue
            before = self._known.get(event.key, _NOTHING).value
            self._known[event.key] = _Known(event.value, event.mod_revision)
            if event.key.startswith(keys.FORCES) and event.value == before:
                continue  # told once more; one that ended is still to be deleted
            ended = event.value is None and not self._named(event.key)
            if ended or event.key.startswith((keys.REGIONS, keys.FORCES)):
                self._wanted[event.key] = event.value  # an operator's word goes before ours
            elif event.key in self._wanted and self._wanted[event.key] != event.value:
                self._dirty.add(event.key)
                self._wake.set()
            self._forget(event.key)

    def gap(self) -> None:
        """The watch missed something, or the store went back to an older history.

        What was known may be wrong and its revisions prove nothing: it is read again before
        anything else is written.
        """
        self._known = {key: _Known(there.value, 0) for key, there in self._known.items()}
        self._took_over = 0
        self._wake.set()

    def wake(self) -> None:
        """Look again: the leadership changed."""
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Keys that are not yet in the store as they should be."""
        return len(self._dirty)

    @property
    def waits_s(self) -> float:
        """Seconds for which something has waited to be written while we led; 0 where nothing."""
        if self._waits_since is None or not self._leadership.fence:
            return 0.0
        return time.monotonic() - self._waits_since

    # ---- writes --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish until cancelled."""
        pause_s = RETRY_S[0]
        while True:
            self._wake.clear()
            timeout_s: float | None = None
            if fence := self._leadership.fence:
                try:
                    timeout_s = await self._publish(fence)
                    pause_s = RETRY_S[0]
                except StoreError as error:
                    metrics.PUBLISH_FAILURES.labels(type(error).__name__).inc()
                    if pause_s == RETRY_S[0]:
                        transition(log, "cannot publish", logging.WARNING, cause=str(error))
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, RETRY_S[1])
                    continue
            metrics.PUBLISH_WAITING.set(len(self._dirty))
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _publish(self, fence: int) -> float | None:
        """Write what differs; a time after which to look again where something still does."""
        if self._took_over != fence:
            self._took_over = fence
            try:
                await self._take_over()
            except BaseException:
                self._took_over = 0
                raise
            if not self._took_over:
                return 0.0  # a gap meanwhile: what was read may be of before it
            transition(log, "took over", differing=len(self._differing()))
        if self._unsettled:
            await self._leadership.settle(self._store)
            self._unsettled = False
        wrote = False
        while differing := self._differing():
            values = {key: self._wanted.get(key) for key in differing}
            head = self._head
            for batch in batches(values, self._together):
                if not await self._write(fence, head, batch):
                    return HEAD_WAIT_S
                wrote = True
                if self._head != head or not self._took_over:
                    break  # what is left was decided on another configuration, or another past
            if not self._took_over:
                return 0.0
            # more may have been decided meanwhile
        if wrote:
            metrics.PUBLISH_LAG.observe(self.waits_s)
        self._waits_since = None
        return None

    def _differing(self) -> list[str]:
        for key in self._dirty:
            if self._wanted.get(key) is not None and self._is_over(key):
                self._wanted[key] = None
        self._dirty = {
            key
            for key in self._dirty
            if self._wanted.get(key) != self._known.get(key, _NOTHING).value
        }
        return sorted(self._dirty)

    def _is_over(self, key: str) -> bool:
        """Whether the configuration ended what `key` is about.

        The apply that did so deleted the key, which tells nobody where it was not written yet.
        """
        return key.startswith((keys.POOLS, keys.ROUTES)) and not self._named(key)

    def _forget(self, key: str) -> None:
        """Remember nothing of a key that is not there and shall not be."""
        if self._wanted.get(key) is None and self._known.get(key, _NOTHING).value is None:
            self._wanted.pop(key, None)
            self._known.pop(key, None)
            self._dirty.discard(key)

    async def _write(self, fence: int, head: int, batch: Values) -> bool:
        ops: list[Op] = [Delete(k) if value is None else Put(k, value) for k, value in batch]
        leader = keys.leader()
        compares = [
            *ballot.conditions(fence, head),
            Compare(leader, "mod", "=", self._leadership.mark),
            *(
                Compare(key, "mod", "=", self._known.get(key, _NOTHING).revision)
                for key, _ in batch
                if key.startswith(keys.FORCES)  # not one that an operator made meanwhile
            ),
        ]
        try:
            with metrics.PUBLISHING.time():
                done = await self._store.txn(compares, packed(ops), [Get(leader), Get(keys.HEAD)])
        except OutcomeUnknown:
            self._unsettled = True  # it may come late, when newer values stand
            for key, _ in batch:  # written again: the same values under the same fence
                self._known[key] = _Known(b"\0", self._known.get(key, _NOTHING).revision)
            raise
        if done.succeeded:
            metrics.PUBLISHED_KEYS.inc(len(batch))
            self._written([key for key, _ in batch], done.revision)
            for key, value in batch:
                if done.revision >= self._known.get(key, _NOTHING).revision:
                    self._known[key] = _Known(value, done.revision)
                self._forget(key)
            return True
        holder = done.reads[0]
        self._unsettled = self._unsettled or bool(
            holder and holder[0].mod_revision != self._leadership.mark
        )
        if not holder or holder[0].create_revision != fence:
            metrics.PUBLISH_FAILURES.labels("fenced").inc()
            if self._leadership.fence == fence:  # else this write is of a former leadership
                self._leadership.lost("the store has another leader")
        else:
            metrics.PUBLISH_FAILURES.labels("head").inc()
        return False
