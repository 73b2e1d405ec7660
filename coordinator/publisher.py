"""Writes what the engine decided into the store: differences only, fenced, and only as leader.

Keeps what is *wanted* beside what is *known* to be in the store. All that one evaluation changed
goes in one transaction, which compares the leader key's create revision and the `serve/head` that
was judged; refused, it waits for the engine to judge the new head. Without a store, or without the
leadership, wanted goes on changing and only differences are written later. Decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from gtm import codec, keys
from gtm.errors import OutcomeUnknown, StoreError
from gtm.state import MetRegion, PoolState, Routes, VerdictRecord
from gtm.store import (
    MAX_OPS,
    MAX_TXN_BYTES,
    Compare,
    Delete,
    Event,
    Get,
    Op,
    Put,
    Store,
    op_bytes,
    packed,
)
from gtm.telemetry import transition

from . import metrics
from .election import Leadership

HEAD_WAIT_S = 1.0
"""How long a refused publisher waits for the new head to be judged before it looks again."""
RETRY_S = (0.05, 1.0)
"""Least and greatest pause between attempts while the store is away."""
LED = (keys.POOLS, keys.ROUTES, keys.VERDICTS, keys.ALARMS, keys.REGIONS)
"""The prefixes that a leader writes."""

log = logging.getLogger("coordinator")


class _Known(Struct, frozen=True):
    value: bytes | None
    revision: int


_NOTHING = _Known(None, 0)


class Publisher:
    """Feed it with `want`, `judged` and `seen`; `run` writes.

    `named(key)` says whether the configuration judged still names what `key` is about.
    `together` maps an instance to its pools: their keys go in one transaction.
    """

    def __init__(
        self,
        store: Store,
        leadership: Leadership,
        *,
        named: Callable[[str], bool] = lambda key: True,
        together: Callable[[], Mapping[str, Iterable[str]]] = dict,
    ) -> None:
        self._store, self._leadership = store, leadership
        self._named, self._together = named, together
        self._wanted: dict[str, bytes | None] = {}
        self._known: dict[str, _Known] = {}
        self._dirty: set[str] = set()
        self._head = 0
        self._took_over = 0
        self._wake = asyncio.Event()

    # ---- fed -----------------------------------------------------------------------------------

    def restored(self, present: Mapping[str, tuple[bytes, int]]) -> None:
        """What the store has and the engine was restored with: key -> (value, revision)."""
        for key, (value, revision) in present.items():
            self._known[key] = _Known(value, revision)
            self._wanted[key] = value

    def want(self, changes: Mapping[str, bytes | None]) -> None:
        """Have these values in the store, None for none; all together where they fit."""
        self._wanted.update(changes)
        self._dirty.update(changes)
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
            self._known[event.key] = _Known(event.value, event.mod_revision)
            if event.key.startswith(keys.REGIONS):
                self._wanted[event.key] = event.value  # ends by an operator's word alone
            elif event.key in self._wanted and self._wanted[event.key] != event.value:
                self._dirty.add(event.key)
                self._wake.set()

    def wake(self) -> None:
        """Look again: the leadership changed."""
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Keys that are not yet in the store as they should be."""
        return len(self._dirty)

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
            await self._take_over()
            self._took_over = fence
        while differing := self._differing():
            for chunk in self._chunks(differing):
                if not await self._write(fence, chunk):
                    return HEAD_WAIT_S
            # more may have been decided meanwhile
        return None

    def _differing(self) -> list[str]:
        self._dirty = {
            key
            for key in self._dirty
            if self._wanted.get(key) != self._known.get(key, _NOTHING).value
        }
        return sorted(self._dirty)

    async def _write(self, fence: int, chunk: list[tuple[str, bytes | None]]) -> bool:
        ops: list[Op] = [Delete(k) if value is None else Put(k, value) for k, value in chunk]
        leader = keys.leader()
        compares = [
            Compare(leader, "create", "=", fence),
            Compare(keys.HEAD, "mod", "=", self._head),
        ]
        try:
            with metrics.PUBLISHING.time():
                done = await self._store.txn(compares, packed(ops), [Get(leader), Get(keys.HEAD)])
        except OutcomeUnknown:
            for key, _ in chunk:  # written again: the same values under the same fence
                self._known[key] = _Known(b"\0", self._known.get(key, _NOTHING).revision)
            raise
        if done.succeeded:
            metrics.PUBLISHED_KEYS.inc(len(chunk))
            for key, value in chunk:
                if done.revision >= self._known.get(key, _NOTHING).revision:
                    self._known[key] = _Known(value, done.revision)
            return True
        holder = done.reads[0]
        if not holder or holder[0].create_revision != fence:
            metrics.PUBLISH_FAILURES.labels("fenced").inc()
            self._leadership.lost("the store has another leader")
        else:
            metrics.PUBLISH_FAILURES.labels("head").inc()
        return False

    async def _take_over(self) -> None:
        """Read what the store has, and want it wherever we differ in times alone."""
        for prefix in LED:
            listing = await self._store.list(prefix)
            present = {item.key: _Known(item.value, item.mod_revision) for item in listing.items}
            gone = _Known(None, listing.revision)
            for key in [key for key in self._known if key.startswith(prefix)]:
                present.setdefault(key, gone)
            for key, there in present.items():
                if there.revision >= self._known.get(key, _NOTHING).revision:
                    self._known[key] = there
        for key, there in self._known.items():
            if key not in self._wanted:
                if (
                    there.value is not None
                    and not key.startswith(keys.REGIONS)
                    and not self._named(key)
                ):
                    self._wanted[key] = None
            elif _same(key, self._wanted[key], there.value):
                self._wanted[key] = there.value
        self._dirty = set(self._wanted)
        transition(log, "took over", present=len(self._known), differing=len(self._differing()))

    def _chunks(self, differing: Iterable[str]) -> Iterable[list[tuple[str, bytes | None]]]:
        """`differing` in as few transactions as fit: pools with their routes, then the rest."""
        chunk: list[tuple[str, bytes | None]] = []
        count, size = 0, 0
        for unit in _units(differing, self._together()):
            values = [(key, self._wanted.get(key)) for key in unit]
            for part in _cut(values):
                ops_size = sum(op_bytes(Put(key, value or b"")) for key, value in part)
                full = count + len(part) > MAX_OPS * MAX_OPS or size + ops_size > MAX_TXN_BYTES
                if chunk and full:
                    yield chunk
                    chunk, count, size = [], 0, 0
                chunk += part
                count, size = count + len(part), size + ops_size
        if chunk:
            yield chunk


def _units(
    differing: Iterable[str], together: Mapping[str, Iterable[str]]
) -> Iterable[tuple[str, ...]]:
    """Keys that belong together: the routes of an instance with its pools, else each by itself."""
    left = dict.fromkeys(differing)
    for key in [key for key in left if key.startswith(keys.ROUTES)]:
        if key not in left:
            continue
        pools = together.get(key.removeprefix(keys.ROUTES), ())
        unit = (key, *(keys.pool(name) for name in pools if keys.pool(name) in left))
        for name in unit:
            left.pop(name, None)
        yield unit
    yield from ((key,) for key in left if key.startswith(keys.POOLS))
    yield from ((key,) for key in left if not key.startswith(keys.POOLS))


def _cut(
    values: list[tuple[str, bytes | None]],
) -> Iterable[list[tuple[str, bytes | None]]]:
    """A unit as it is, or key by key where it fits no transaction."""
    size = sum(op_bytes(Put(key, value or b"")) for key, value in values)
    if len(values) <= MAX_OPS * MAX_OPS and size <= MAX_TXN_BYTES:
        return [values]
    return [[value] for value in values]


def _same(key: str, one: bytes | None, other: bytes | None) -> bool:
    """Whether two values of a key say the same but for times, evidence and generation."""
    if one is None or other is None or one == other:
        return one == other
    try:
        if key.startswith(keys.POOLS):
            return _timeless_pool(one) == _timeless_pool(other)
        if key.startswith(keys.ROUTES):
            return _timeless_routes(one) == _timeless_routes(other)
        if key.startswith(keys.VERDICTS):
            mine, theirs = (codec.decode(value, VerdictRecord) for value in (one, other))
            return (mine.verdict, mine.probe) == (theirs.verdict, theirs.probe)
    except ValueError:
        return False
    return key.startswith(keys.ALARMS)


def _timeless_pool(value: bytes) -> PoolState:
    state = codec.decode(value, PoolState)
    members = tuple(replace(member, since=0.0) for member in state.members)
    return replace(state, generation=0, members=members)


def _timeless_routes(value: bytes) -> Routes:
    routes = codec.decode(value, Routes)
    rules = {
        rule: {family: replace(route, since=0.0) for family, route in families.items()}
        for rule, families in routes.rules.items()
    }
    return replace(routes, generation=0, rules=rules)
