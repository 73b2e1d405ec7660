"""What lies in etcd, for whoever verifies: the audit trail part by part, configuration as digests.

Reads the store itself, not the mirror: what is asked is what stands there, readable or not. Judges
nothing (`gtm.audit`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from gtm import codec, keys
from gtm.audit import Stored, digest_of
from gtm.model import Zone
from gtm.state import AuditHead, Bucket, StoredZone
from gtm.store import Item, Store
from gtm.v1 import operator_pb2 as pb

from . import buckets

MAX_PART_BYTES = 2 << 20
"""Entries of the history, and of the audit trail, in one answer."""
MAX_PART_OBJECTS = 1_000
"""Digests in one message."""


async def audit(store: Store, first: int) -> pb.AuditResponse:
    """Entries of the trail from number `first` on, as many as fit, and its head."""
    item = await store.get(keys.AUDIT_HEAD)
    if item is None:
        return pb.AuditResponse()
    head = codec.decode(item.value, AuditHead)
    seq = max(first, head.first)
    answer = pb.AuditResponse(head=item.value.decode())
    if seq > head.seq:
        return answer
    after = (seq // keys.AUDIT_BLOCK + 1) * keys.AUDIT_BLOCK
    size = 0
    for one in (await store.list(keys.audit_block(seq))).items:
        if one.key < keys.audit(seq):
            continue
        size += len(one.value)
        if answer.entries and size > MAX_PART_BYTES:
            after = int(one.key.removeprefix(keys.AUDIT))
            break
        answer.entries.append(one.value.decode(errors="replace"))
        answer.revisions.append(one.mod_revision)
    answer.next = after if after <= head.seq else 0
    return answer


async def configuration(store: Store) -> AsyncIterator[pb.StoredPart]:
    """Digests of every resource that is stored, all at one revision, in order of their keys.

    They are those of an entry's `after`: of the value, or, since zones lie in several keys, of the
    zone as users write it. Records without their zone stand for themselves. Raises StoreError.
    """
    listing = await store.list(keys.CONFIG)
    at = listing.revision
    part = pb.StoredPart(revision=at)
    zones: dict[str, Item] = {}
    for item in listing.items:
        kind, _, name = item.key.removeprefix(keys.CONFIG).partition("/")
        if kind == "zones":
            zones[name] = item
        else:
            _add(part, Stored(kind, name, digest_of(item.value), item.mod_revision))
        if len(part.objects) >= MAX_PART_OBJECTS:
            yield part
            part = pb.StoredPart(revision=at)
    for name, item in zones.items():
        records = await store.list(keys.records(name, ""), revision=at)
        written = max(one.mod_revision for one in (item, *records.items))
        digest = await asyncio.to_thread(_zone_digest, item, records.items)
        _add(part, Stored("zones", name, digest, written))
        if len(part.objects) >= MAX_PART_OBJECTS:
            yield part
            part = pb.StoredPart(revision=at)
    strays: dict[str, int] = {}
    for item in (await store.list(keys.RECORDS, revision=at, keys_only=True)).items:
        name = item.key.removeprefix(keys.RECORDS).partition("/")[0]
        if name not in zones:
            strays[name] = max(strays.get(name, 0), item.mod_revision)
    for name, written in strays.items():
        _add(part, Stored("records", name, "", written))
    yield part


def _add(part: pb.StoredPart, one: Stored) -> None:
    part.objects.add(kind=one.kind, name=one.name, digest=one.digest, revision=one.revision)


def _zone_digest(item: Item, records: Sequence[Item]) -> str:
    """The digest of a zone as users write it; "" where a part of it can't be read."""
    try:
        zone = codec.decode(item.value, StoredZone)
        found = {one.key: codec.decode(one.value, Bucket).records for one in records}
    except ValueError:
        return ""
    whole = Zone(
        nameservers=zone.nameservers, soa=zone.soa, ttl=zone.ttl, records=buckets.joined(found)
    )
    return digest_of(codec.encode(whole))
