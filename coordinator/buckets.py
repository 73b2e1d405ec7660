"""How a zone's static records lie in the store: buckets by leading bits of a hash of the owner.

Pure. All records of a name share a bucket, and the buckets of a zone never overlap: each is named
by a text of bits and holds the owners whose hash begins with them ("-": every owner). So a reader
takes the union of whatever buckets it finds, and a zone that grows is cut deeper one bucket at a
time: a parent goes and its children come in one transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from gtm import codec
from gtm.model import Record
from gtm.state import Bucket

BUCKET_BYTES = 16 << 10
"""What a bucket is meant to hold."""
GROW_BYTES, SHRINK_BYTES = 24 << 10, 4 << 10
"""Means beyond which the depth changes; between them it stays, so that a zone does not swing."""
MAX_BITS = 16
"""The deepest cut: 65,536 buckets, about 1 GiB of records."""
ONLY = "-"
"""The name of the bucket of every owner."""

Records = tuple[Record, ...]


class Group(Struct, frozen=True, kw_only=True):
    """Buckets that change together: `put` has contents, `delete` names of those that go."""

    put: Mapping[str, Records]
    delete: tuple[str, ...] = ()


def ordered(records: Iterable[Record]) -> Records:
    """The records in their one stored order, by owner and type: equal sets, equal tuples."""
    return tuple(sorted(records, key=lambda record: (_owner(record), record.type, _rest(record))))


def joined(stored: Mapping[str, Records]) -> Records:
    """All records of a zone from its buckets."""
    return ordered(record for records in stored.values() for record in records)


def depth(records: Sequence[Record], bits: int) -> int:
    """How many bits should name the buckets of `records`, where `bits` do now."""
    size = sum(map(_size, records))
    if bits <= MAX_BITS and SHRINK_BYTES << bits <= size <= GROW_BYTES << bits:
        return bits
    wanted = 0
    while wanted < MAX_BITS and size > BUCKET_BYTES << wanted:
        wanted += 1
    return wanted if size > GROW_BYTES << bits or wanted < bits else bits


def split(records: Iterable[Record], bits: int) -> dict[str, Records]:
    """`records` in the buckets of depth `bits`; empty buckets are not there."""
    found: dict[str, list[Record]] = {}
    for record in ordered(records):
        found.setdefault(_bucket(_owner(record), bits), []).append(record)
    return {name: tuple(found[name]) for name in sorted(found)}


def groups(stored: Mapping[str, Records], wanted: Mapping[str, Records]) -> list[Group]:
    """What turns `stored` into `wanted`, in the smallest parts that keep every record in one place.

    Buckets of which none covers another are independent; a bucket and those inside it go together.
    A bucket that is cut deeper and grows at once may be too much for one transaction (`staged`).
    """
    result: list[Group] = []
    put: dict[str, Records] = {}
    delete: list[str] = []
    root: str | None = None
    for name in sorted({*stored, *wanted}, key=_bits):
        if root is None or not _bits(name).startswith(root):
            if put or delete:
                result.append(Group(put=put, delete=tuple(delete)))
            put, delete, root = {}, [], _bits(name)
        if name not in wanted:
            delete.append(name)
        elif stored.get(name) != wanted[name]:
            put[name] = wanted[name]
    if put or delete:
        result.append(Group(put=put, delete=tuple(delete)))
    return result


def staged(stored: Mapping[str, Records], group: Group) -> list[Group]:
    """`group` in steps, for where it is too much for one transaction.

    A cut goes first with the old records alone, a join last with what is left of them; what goes
    away goes before. Each step leaves every record in exactly one bucket.
    """
    if not group.delete:
        return [Group(put={name: records}) for name, records in group.put.items()]
    if len(group.put) > 1:
        bits = max(len(_bits(name)) for name in group.put)
        cut = split((record for name in group.delete for record in stored[name]), bits)
        first = {name: records for name, records in cut.items() if name in group.put}
        later = [
            Group(put={name: records})
            for name, records in group.put.items()
            if first.get(name) != records
        ]
        return [Group(put=first, delete=group.delete), *later]
    kept = {_owner(record) for records in group.put.values() for record in records}
    steps, left = [], []
    for name in group.delete:
        if any(_owner(record) in kept for record in stored[name]):
            left.append(name)
        else:
            steps.append(Group(put={}, delete=(name,)))
    return [*steps, Group(put=group.put, delete=tuple(left))]


def encoded(records: Records) -> bytes:
    """A bucket's value."""
    return codec.encode(Bucket(records=records))


def _bits(name: str) -> str:
    return "" if name == ONLY else name


def _bucket(owner: str, bits: int) -> str:
    if bits == 0:
        return ONLY
    first = int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4], "big")
    return f"{first:032b}"[:bits]


def _owner(record: Record) -> str:
    return record.name.lower()


def _rest(record: Record) -> tuple[int, tuple[str, ...]]:
    return (-1 if record.ttl is None else record.ttl.ms, record.data)


def _size(record: Record) -> int:
    return 32 + len(record.name) + len(record.type) + sum(len(text) + 3 for text in record.data)
