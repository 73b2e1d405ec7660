"""Writes the audit trail: no change of an operator's without its entry, in the same transaction.

An entry is placed after the head as it was read, and the transaction compares that; whoever loses
reads again. The trail is bounded: each entry beyond `MAX_ENTRIES` takes the oldest one away, whose
hash the head remembers, so that what is left verifies (`gtm.audit`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from gtm import codec, keys
from gtm.audit import digest_of, sealed
from gtm.errors import StoreError
from gtm.state import AuditChange, AuditEntry, AuditHead
from gtm.store import Compare, Delete, Op, Put, Store
from gtm.telemetry import transition

from . import metrics
from .callers import Refusal
from .plan import Change

MAX_ENTRIES = 100_000
"""Entries that are kept."""
MAX_CHANGES = 1_000
"""Changes that one entry names; of further ones it says how many there are."""
MAX_TEXT_BYTES = 64 << 10
"""What an entry has of its changes' JSON; the rest is there as digests alone."""
MAX_CHARS = 500
"""Characters of `who` and `why`."""
MAX_TRIES = 16
MAX_NOTES = 100
"""Notes that wait to be written; further ones are dropped and counted."""
NOTE_TRIES_S = (0.2, 5.0)
"""Least and greatest pause between attempts to write a note."""

log = logging.getLogger("coordinator")


class Place(Struct, frozen=True, kw_only=True):
    """Where the next entry goes: the head as read, its mod_revision, and the oldest entry's hash.

    `oldest` is "" where the trail has room.
    """

    head: AuditHead
    revision: int
    oldest: str = ""


class Said(Struct, frozen=True, kw_only=True):
    """What an entry tells: who did what, why, and the changes."""

    who: str
    what: str
    why: str = ""
    changes: tuple[AuditChange, ...] = ()
    more: int = 0


class Trail:
    """The trail in the store."""

    def __init__(
        self,
        store: Store,
        wall_s: Callable[[], float] = lambda: time.time(),
        *,
        most: int = MAX_ENTRIES,
    ) -> None:
        self._store, self._wall_s, self._most = store, wall_s, most

    async def place(self) -> Place:
        """Where the next entry goes. Raises StoreError."""
        item = await self._store.get(keys.AUDIT_HEAD)
        if item is None:
            return Place(head=AuditHead(), revision=0)
        head = codec.decode(item.value, AuditHead)
        oldest = ""
        if head.first and head.seq - head.first + 1 >= self._most:
            first = await self._store.get(keys.audit(head.first))
            oldest = "" if first is None else codec.decode(first.value, AuditEntry).hash
        return Place(head=head, revision=item.mod_revision, oldest=oldest)

    def entry(self, at: Place, said: Said) -> tuple[Compare, tuple[Op, ...]]:
        """What a transaction compares and writes so that the entry stands with it."""
        entry, head = sealed(
            AuditEntry(
                time=self._wall_s(),
                who=_plain(said.who) or "unknown",
                what=said.what,
                why=_plain(said.why),
                changes=said.changes,
                more=said.more,
            ),
            at.head,
        )
        ops: list[Op] = [Put(keys.audit(entry.seq), codec.encode(entry))]
        if at.oldest:
            ops.append(Delete(keys.audit(head.first)))
            head = replace(head, first=head.first + 1, before_first=at.oldest)
        ops.append(Put(keys.AUDIT_HEAD, codec.encode(head)))
        return Compare(keys.AUDIT_HEAD, "mod", "=", at.revision), tuple(ops)

    async def note(self, said: Said) -> None:
        """An entry by itself, of what changed nothing in the store. Raises StoreError."""
        for _ in range(MAX_TRIES):
            compare, ops = self.entry(await self.place(), said)
            if (await self._store.txn([compare], ops)).succeeded:
                return
        transition(log, "an entry of the audit trail found no place", logging.WARNING)


class Notes:
    """What is to stand in the trail by itself, without making whoever says it wait."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._waiting: deque[Said] = deque()
        self._wake = asyncio.Event()

    def note(self, said: Said) -> None:
        """Have it written."""
        if len(self._waiting) >= MAX_NOTES:
            metrics.AUDIT_DROPPED.inc()
            return
        self._waiting.append(said)
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; the store may be away meanwhile."""
        pause_s = NOTE_TRIES_S[0]
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                try:
                    await self._trail.note(self._waiting[0])
                except (StoreError, TimeoutError):
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, NOTE_TRIES_S[1])
                else:
                    self._waiting.popleft()
                    pause_s = NOTE_TRIES_S[0]


def refused(refusal: Refusal) -> Said:
    """How the trail tells of a call that was refused for who made it."""
    who = refusal.who or f"unknown at {refusal.peer}" if refusal.peer else refusal.who
    return Said(who=who, what=f"refused {refusal.method}", why=refusal.sentence)


def changes(found: Sequence[Change]) -> tuple[tuple[AuditChange, ...], int]:
    """Changes of resources as an entry tells them, and how many found no room."""
    return bounded(
        AuditChange(
            action=one.action, kind=one.kind, name=one.name, before=one.before, after=one.after
        )
        for one in found
    )


def bounded(found: Iterable[AuditChange]) -> tuple[tuple[AuditChange, ...], int]:
    """The changes with digests, their texts while there is room, and how many are left out."""
    told: list[AuditChange] = []
    left, more = MAX_TEXT_BYTES, 0
    for one in found:
        if len(told) >= MAX_CHANGES:
            more += 1
            continue
        size = len(one.before) + len(one.after)
        fits = size <= left
        left -= size if fits else 0
        told.append(
            replace(
                one,
                before=one.before if fits else "",
                after=one.after if fits else "",
                before_digest=digest_of(one.before.encode()),
                after_digest=digest_of(one.after.encode()),
            )
        )
    return tuple(told), more


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_CHARS].strip()
