"""A store's content with every revision since the last compaction: etcd's rules, in plain Python.

Pure. `run` is one transaction; `at` is the content at a revision; `since` is what a watch reads.
`gtm.memory` puts stores, leases and watches around it. The limits and refusals are those of etcd
3.4/3.5 (`api/v3rpc/key.go`, `etcdserver/apply.go`), since code that passes here must pass there.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from .errors import Compacted, LeaseLost, StoreError
from .store import Batch, Compare, Delete, Done, Event, Get, Item, Op, Put, Txn, op_bytes

MAX_TXN_OPS = 128
"""etcd's --max-txn-ops: for a transaction inside another it is 128 minus the number around it."""
MAX_REQUEST_BYTES = 1_572_864
"""etcd's --max-request-bytes."""
KEPT_REVISIONS = 10_000
"""Older revisions are compacted by themselves, so that a long simulation stays small."""

_TESTS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}


class _Change(Struct, frozen=True):
    """What one revision changed: key -> new item, None where it was deleted."""

    revision: int
    items: dict[str, Item | None]


class History:
    """Keys, values and revisions; `leases` is asked whether a lease exists."""

    def __init__(self, kept: int = KEPT_REVISIONS) -> None:
        self.revision = 1
        self.oldest = 1
        """The oldest revision that `at` can still tell."""
        self.leases: set[int] = set()
        self._kept = kept
        self._now: dict[str, Item] = {}
        self._base: dict[str, Item] = {}
        self._changes: list[_Change] = []

    def at(self, revision: int = 0) -> dict[str, Item]:
        """Key -> item at `revision` (0: now), not to be kept: the newest content changes in place.

        Raises Compacted, or StoreError for a revision of the future.
        """
        if not revision or revision == self.revision:
            return self._now
        if revision > self.revision:
            raise StoreError("required revision is a future revision")
        if revision < self.oldest:
            raise Compacted(self.oldest)
        content = dict(self._base)
        for change in self._changes:
            if change.revision > revision:
                break
            _apply(content, change)
        return content

    def since(self, revision: int, prefix: str) -> Iterator[Batch]:
        """A batch for each revision from `revision` on that touched `prefix`; raises Compacted."""
        if revision < self.oldest:
            raise Compacted(self.oldest)
        low, high = 0, len(self._changes)
        while low < high:
            middle = (low + high) // 2
            if self._changes[middle].revision < revision:
                low = middle + 1
            else:
                high = middle
        for at in range(low, len(self._changes)):
            change = self._changes[at]
            events = tuple(
                _event(key, one, change.revision)
                for key, one in change.items.items()
                if key.startswith(prefix)
            )
            if events:
                yield Batch(change.revision, events)

    def compact(self, revision: int) -> None:
        """Forget what came before `revision`. Raises Compacted where that is done already."""
        if revision > self.revision:
            raise StoreError("required revision is a future revision")
        if revision <= self.oldest and self.oldest > 1:
            raise Compacted(self.oldest)
        while self._changes and self._changes[0].revision <= revision:
            _apply(self._base, self._changes.pop(0))
        self.oldest = revision

    def run(
        self, compares: Sequence[Compare], then: Sequence[Op], orelse: Sequence[Op] = ()
    ) -> Done:
        """One transaction. Raises StoreError (refused as a whole) or LeaseLost."""
        whole = Txn(tuple(compares), tuple(then), tuple(orelse))
        _check_counts(whole, MAX_TXN_OPS)
        _check_keys(whole.then)
        _check_keys(whole.orelse)
        if op_bytes(whole) > MAX_REQUEST_BYTES:
            raise StoreError("request is too large")
        path = list(self._path(whole))  # every compare sees the store as it was before
        chosen = _chosen(whole, iter(path))
        for op in _flat(chosen):
            if isinstance(op, Put) and op.lease and op.lease not in self.leases:
                raise LeaseLost(f"lease {op.lease:x} is not known to the store")
        changed: dict[str, Item | None] = {}
        reads = tuple(self._do(chosen, changed))
        self._keep(changed)
        return Done(path[0], self.revision, reads)

    def end_lease(self, lease: int) -> None:
        """Forget `lease` and delete the keys under it, all in one revision."""
        self.leases.discard(lease)
        gone = sorted(key for key, item in self._now.items() if item.lease == lease)
        for key in gone:
            del self._now[key]
        self._keep(dict.fromkeys(gone))

    def _keep(self, changed: dict[str, Item | None]) -> None:
        if changed:
            self.revision += 1
            self._changes.append(_Change(self.revision, changed))
            if len(self._changes) > self._kept:
                self.compact(self._changes[len(self._changes) // 2].revision)

    def _path(self, txn: Txn) -> Iterator[bool]:
        """Which branch `txn` and, in order, each transaction in that branch take."""
        succeeded = all(self._holds(one) for one in txn.compares)
        yield succeeded
        for op in txn.then if succeeded else txn.orelse:
            if isinstance(op, Txn):
                yield from self._path(op)

    def _holds(self, one: Compare) -> bool:
        item = self._now.get(one.key)
        if one.field == "value":
            return item is not None and bool(_TESTS[one.op](item.value, one.value))
        if item is None:
            return bool(_TESTS[one.op](0, one.value))
        fields = {
            "create": item.create_revision,
            "mod": item.mod_revision,
            "version": item.version,
        }
        return bool(_TESTS[one.op](fields[one.field], one.value))

    def _do(self, ops: Iterable[Op], changed: dict[str, Item | None]) -> Iterator[tuple[Item, ...]]:
        """Carry out the operations of the branches that run; yields what each Get reads."""
        content, revision = self._now, self.revision + 1
        for op in _flat(ops):
            if isinstance(op, Put):
                old = content.get(op.key)
                create, version = (old.create_revision, old.version) if old else (revision, 0)
                new = Item(op.key, op.value, create, revision, version + 1, op.lease)
                content[op.key] = changed[op.key] = new
            elif isinstance(op, Delete):
                for key in matching(content, op.key, prefix=op.prefix):
                    del content[key]
                    changed[key] = None
            elif isinstance(op, Get):
                yield tuple(content[key] for key in matching(content, op.key, prefix=op.prefix))


def matching(content: dict[str, Item], key: str, *, prefix: bool) -> list[str]:
    """`key` if it is there, or with `prefix` all keys that begin with it, in key order."""
    if prefix:
        return sorted(one for one in content if one.startswith(key))
    return [key] if key in content else []


def _apply(content: dict[str, Item], change: _Change) -> None:
    for key, item in change.items.items():
        if item is None:
            content.pop(key, None)
        else:
            content[key] = item


def _event(key: str, item: Item | None, revision: int) -> Event:
    if item is None:
        return Event(key, None, revision)
    return Event(key, item.value, revision, item.create_revision)


def _chosen(txn: Txn, path: Iterator[bool]) -> list[Op]:
    """The operations of the branches that run, nested transactions replaced by theirs."""
    ops: list[Op] = []
    for op in txn.then if next(path) else txn.orelse:
        ops.extend(_chosen(op, path) if isinstance(op, Txn) else (op,))
    return ops


def _flat(ops: Iterable[Op]) -> Iterator[Put | Delete | Get]:
    for op in ops:
        if not isinstance(op, Txn):
            yield op


def _check_counts(txn: Txn, most: int) -> None:
    count = max(len(txn.compares), len(txn.then), len(txn.orelse))
    if count > most:
        raise StoreError("too many operations in txn request")
    for op in (*txn.then, *txn.orelse):
        if isinstance(op, Txn):
            _check_counts(op, most - count)


def _check_keys(ops: Sequence[Op]) -> tuple[set[str], list[Delete]]:
    """The keys put and the deletions of `ops`; StoreError where one key is written twice."""
    deletes = [op for op in ops if isinstance(op, Delete)]
    puts: set[str] = set()
    for op in ops:
        if not isinstance(op, Txn):
            continue
        then, then_deletes = _check_keys(op.then)
        orelse, else_deletes = _check_keys(op.orelse)
        if then & puts or orelse & puts:
            raise StoreError("duplicate key given in txn request")
        _refuse_deleted(then | orelse, deletes)
        puts |= then | orelse
        deletes += [*then_deletes, *else_deletes]
    for op in ops:
        if isinstance(op, Put):
            if op.key in puts:
                raise StoreError("duplicate key given in txn request")
            puts.add(op.key)
            _refuse_deleted({op.key}, deletes)
    return puts, deletes


def _refuse_deleted(puts: set[str], deletes: Iterable[Delete]) -> None:
    for one in deletes:
        if any(key.startswith(one.key) if one.prefix else key == one.key for key in puts):
            raise StoreError("duplicate key given in txn request")
