"""What a watch remembers of its prefix, and the rules by which it resumes. Pure: no IO, no clock.

Decides which events of a stream become batches, from which revision a broken stream goes on, and
what differs between memory and a new list. `gtm.etcd_watch` feeds it answers and does what `Next`
says. The rules, each learnt from a client that lost events:

- Only events move the resume point, to their mod_revision + 1. Header revisions never do: in
  catch-up they carry the current revision, and progress answers overtake events on old servers.
- Events of one revision are one batch; it is complete when a later revision or the last fragment
  has come. A stream that breaks before that begins again with the same revision.
- A cluster id that changed, or a revision that went back, means another history: nothing that is
  remembered proves anything, so everything is told again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto

from msgspec import Struct

from .etcd_wire import event
from .store import Batch, Event, Item, Listing
from .v1 import etcd_pb2 as pb

AUDIT_SLICE = 10_000
"""Keys compared before others get the processor again."""


class Next(Enum):
    """What the watch must do after an answer."""

    GO_ON = auto()
    RELIST = auto()
    """The revision to resume from was compacted: list again and tell the difference."""
    RETELL = auto()
    """Another history: list again and tell everything."""
    CHECK = auto()
    """The member is behind what we saw: ask a quorum whether the store itself went back."""
    RENEW = auto()
    """Cancelled for another reason: authenticate, back off, list again."""


class Step(Struct, frozen=True):
    """What one answer brought: complete batches, and what to do next."""

    batches: tuple[Batch, ...] = ()
    then: Next = Next.GO_ON


class Mirror:
    """Key -> mod_revision of a prefix as of the last batch handed on."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.resume = 0
        """The first revision that has not been handed on yet."""
        self.seen = 0
        """The highest revision that any answer spoke of; used only to notice going back."""
        self.cluster = 0
        self._pending: list[Event] = []
        self._deleted: dict[str, int] | None = None

    # A stream of answers.

    def begin(self) -> None:
        """A new stream starts at `resume`: forget the unfinished revision of the last one."""
        self._pending.clear()

    def feed(self, answer: pb.WatchResponse) -> Step:
        """Take one answer of the stream."""
        header = answer.header
        if header.cluster_id and self.cluster and header.cluster_id != self.cluster:
            return Step(then=Next.RETELL)
        if answer.canceled:
            return Step(then=Next.RELIST if answer.compact_revision else Next.RENEW)
        if answer.created and header.revision < self.seen:
            return Step(then=Next.CHECK)
        self.seen = max(self.seen, header.revision)
        if not answer.events:
            return Step()
        batches = []
        for one in map(event, answer.events):
            if one.mod_revision < self.resume:
                continue
            if self._pending and self._pending[0].mod_revision != one.mod_revision:
                batches.append(self._complete())
            self._pending.append(one)
        if self._pending and not answer.fragment:
            batches.append(self._complete())
        return Step(tuple(batches))

    def _complete(self) -> Batch:
        batch = Batch(self._pending[0].mod_revision, tuple(self._pending))
        self._pending.clear()
        self._remember(batch)
        self.resume = batch.revision + 1
        return batch

    # Lists.

    def first(self, listing: Listing, cluster: int) -> Listing:
        """Take the first list; it is what the watch hands on."""
        self.known = {one.key: one.mod_revision for one in listing.items}
        self._listed(listing.revision, cluster)
        return listing

    def differing(self, listing: Listing) -> tuple[list[str], list[str]]:
        """Keys whose revision in `listing` is not the remembered one, and keys that are gone."""
        known = self.known
        changed = [one.key for one in listing.items if known.get(one.key) != one.mod_revision]
        if len(listing.items) - len(changed) == len(known):
            return changed, []
        present = {one.key for one in listing.items}
        return changed, [key for key in known if key not in present]

    def relisted(
        self, revision: int, cluster: int, changed: Iterable[Item], gone: Iterable[str]
    ) -> Batch:
        """Take what a new list changed and what it no longer has, as one batch."""
        deleted = [Event(key, None, revision) for key in gone]
        put = [Event(i.key, i.value, i.mod_revision, i.create_revision) for i in changed]
        batch = Batch(revision, (*deleted, *put), relisted=True)
        self._remember(batch)
        self._listed(revision, cluster)
        return batch

    def another_history(self, revision: int, cluster: int) -> bool:
        """Whether a list from `cluster` at `revision` cannot continue what is remembered."""
        return revision < self.seen or (self.cluster != 0 and cluster != self.cluster)

    def _listed(self, revision: int, cluster: int) -> None:
        self.resume, self.seen, self.cluster = revision + 1, revision, cluster

    def _remember(self, batch: Batch) -> None:
        for one in batch.events:
            if one.value is not None:
                self.known[one.key] = one.mod_revision
                continue
            self.known.pop(one.key, None)
            if self._deleted is not None:
                self._deleted[one.key] = one.mod_revision

    # Audits: a keys-only list at a revision against memory as of that revision.

    def audit_begins(self) -> None:
        """Remember deletions from now on, for memory may be ahead of the audit's list."""
        self._deleted = {}

    def audit(self, revision: int, listed: Mapping[str, int]) -> Iterator[bool]:
        """Compare memory with `listed` (key -> mod_revision at `revision`), a slice at a time.

        Yields whether all agreed so far, every `AUDIT_SLICE` keys and at the end; nothing may be
        fed in between.
        """
        deleted, self._deleted = self._deleted or {}, None
        for at, (key, mod) in enumerate(listed.items(), 1):
            ours = self.known.get(key, 0) or deleted.get(key, 0)
            if ours != mod and ours <= revision:
                yield False
            if at % AUDIT_SLICE == 0:
                yield True
        for at, (key, mod) in enumerate(self.known.items(), 1):
            if mod <= revision and key not in listed:
                yield False
            if at % AUDIT_SLICE == 0:
                yield True
        yield True
