"""What Meridian GTM asks of a store: revisions, transactions, leases, a watch that loses nothing.

`gtm.etcd` and `gtm.memory` implement `Store`; one contract suite (`tests/integration/
test_store_contract.py`) runs on both. Keys are text, values are bytes, revisions are those of etcd
v3: one number for the whole store that grows by one with each transaction that writes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol

from msgspec import Struct

MAX_OPS = 64
"""Operations in one flat transaction, and groups in a nested one (see docs/decisions/)."""
MAX_TXN_BYTES = 1 << 20
"""Bytes of keys and values that one transaction carries at most; etcd takes 1.5 MiB in all."""


class Item(Struct, frozen=True):
    """One key with its value and etcd's counters."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int = 1
    lease: int = 0


class Listing(Struct, frozen=True):
    """Every key under a prefix, as of one revision, in key order."""

    revision: int
    items: tuple[Item, ...]


class Event(Struct, frozen=True):
    """One key changed; `value` is None where it was deleted."""

    key: str
    value: bytes | None
    mod_revision: int
    create_revision: int = 0


class Batch(Struct, frozen=True):
    """Everything that one revision changed under a prefix: it becomes visible together.

    `relisted` marks the difference between memory and a new list (after a compaction, a restored
    snapshot or a found gap): it spans several revisions, and `revision` may be smaller than before.
    """

    revision: int
    events: tuple[Event, ...]
    relisted: bool = False


class Compare(Struct, frozen=True):
    """A condition of a transaction: `field` of `key`, `op`, `value`.

    A key that does not exist has create, mod and version 0.
    """

    key: str
    field: Literal["create", "mod", "version", "value"]
    op: Literal["=", "!=", "<", ">"]
    value: int | bytes


class Put(Struct, frozen=True):
    """Write `value` under `key`, bound to `lease` unless that is 0."""

    key: str
    value: bytes
    lease: int = 0


class Delete(Struct, frozen=True):
    """Delete `key`, or with `prefix` every key that begins with it."""

    key: str
    prefix: bool = False


class Get(Struct, frozen=True):
    """Read `key`, or with `prefix` every key that begins with it, inside a transaction."""

    key: str
    prefix: bool = False


class Txn(Struct, frozen=True):
    """If all of `compares` hold do `then`, else `orelse`; may be an operation itself, once."""

    compares: tuple[Compare, ...] = ()
    then: tuple[Op, ...] = ()
    orelse: tuple[Op, ...] = ()


Op = Put | Delete | Get | Txn


class Done(Struct, frozen=True):
    """How a transaction ended: which branch ran, at which revision, what its `Get`s read.

    `reads` holds one tuple for each `Get` of the branch that ran, in order, nested ones included.
    """

    succeeded: bool
    revision: int
    reads: tuple[tuple[Item, ...], ...] = ()


class Lease(Protocol):
    """A promise of the store to keep keys for `ttl_s` seconds after the last answered keepalive."""

    id: int
    ttl_s: float

    def remaining_s(self) -> float:
        """Seconds, by our monotonic clock, for which the lease is surely alive; 0 when it is over.

        Counted from the moment the last *answered* keepalive was *sent*.
        """

    async def lost(self) -> None:
        """Wait until the lease is over (expired locally, revoked, or unknown to the store)."""

    async def revoke(self) -> None:
        """End the lease and the keys under it; no error if the store cannot be reached."""


class Watch(Protocol):
    """A prefix as it is: first one `Listing`, then a `Batch` for each revision that changed it.

    Survives lost links, endpoints, compactions and expired tokens by itself. Iteration raises only
    `StoreDenied`.
    """

    def __aiter__(self) -> AsyncIterator[Listing | Batch]: ...

    def heard_s(self) -> float:
        """Seconds since the store last proved on this watch that it is alive (inf: never)."""

    async def close(self) -> None:
        """End the watch and its iteration."""


class StoreStatus(Struct, frozen=True):
    """What `gtm status` shows of the store. Sizes in bytes; quota 0 where unknown."""

    endpoints: tuple[str, ...]
    reached: str
    version: str
    revision: int
    size_bytes: int
    alarms: tuple[str, ...] = ()
    quota_bytes: int = 0


class Store(Protocol):
    """The operations that the parts need; every one may raise a `StoreError`."""

    async def get(self, key: str) -> Item | None:
        """The key's newest value, linearizable; None where there is none."""

    async def list(self, prefix: str, *, revision: int = 0, keys_only: bool = False) -> Listing:
        """All keys under `prefix` at one revision (0: the newest), read in pages."""

    async def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Op],
        orelse: Sequence[Op] = (),
    ) -> Done:
        """Run one transaction; raises `OutcomeUnknown` when nobody can tell whether it ran."""

    def watch(self, prefix: str) -> Watch:
        """Follow `prefix`: list at a revision, then watch from the next one."""

    async def lease(self, ttl_s: float) -> Lease:
        """Grant a lease and keep it alive until it is revoked or lost."""

    async def status(self) -> StoreStatus:
        """Ask one endpoint how it is."""

    async def close(self) -> None:
        """End every stream and connection."""


def packed(ops: Sequence[Op]) -> tuple[Op, ...]:
    """`ops` as they fit one transaction: as they are up to `MAX_OPS`, else in nested groups.

    Raises ValueError beyond `MAX_OPS` x `MAX_OPS` operations; callers split before (see `fits`).
    """
    if len(ops) <= MAX_OPS:
        return tuple(ops)
    if len(ops) > MAX_OPS * MAX_OPS:
        raise ValueError(f"{len(ops)} operations do not fit one transaction")
    return tuple(
        Txn(then=tuple(ops[start : start + MAX_OPS])) for start in range(0, len(ops), MAX_OPS)
    )


def op_bytes(op: Op) -> int:
    """The bytes of keys and values that `op` carries, with a small allowance for framing."""
    if isinstance(op, Put):
        return len(op.key) + len(op.value) + 32
    if isinstance(op, Txn):
        return sum(op_bytes(inner) for inner in (*op.then, *op.orelse)) + 32
    return len(op.key) + 32


def fits(ops: Sequence[Op]) -> bool:
    """Whether `packed(ops)` stays within one transaction's operations and bytes."""
    return len(ops) <= MAX_OPS * MAX_OPS and sum(map(op_bytes, ops)) <= MAX_TXN_BYTES
