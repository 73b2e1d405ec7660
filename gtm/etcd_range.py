"""Lists of keys from etcd: pages at one revision, sized by what they weigh.

Used by `EtcdStore.list`, by a watch that lists before it watches, and by its audits. Raises the
errors of `Link.call`, and `Compacted` when the revision goes away under the pages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from msgspec import Struct

from .errors import Compacted, StoreError
from .etcd_link import RANGE, AnswerTooLarge, Link, RevisionCompacted
from .etcd_wire import item, prefix_range
from .store import Item, Listing
from .v1 import etcd_pb2 as pb

FIRST_PAGE = 1_000
MAX_PAGE = 20_000
PAGE_BYTES = 4 << 20
"""What a page should weigh: etcd walks the whole rest of the range for each page, so few large
pages cost it less, while one message must stay well below what we receive."""
PAGE_S = 0.5
"""How long a page should take: over a slow link a large one would never arrive in a call's time."""
AT_ONCE = 32
"""Single keys that are read at a time."""


class Pages(Struct, frozen=True):
    """A listing and the id of the cluster that gave it."""

    listing: Listing
    cluster: int


async def read_prefix(
    link: Link, prefix: str, *, revision: int = 0, keys_only: bool = False
) -> Pages:
    """All keys under `prefix` as of `revision` (0: the newest, then the same for every page)."""
    start, end = prefix_range(prefix)
    items: list[Item] = []
    limit, cluster, more = FIRST_PAGE, 0, True
    while more:
        asked = pb.RangeRequest(
            key=start, range_end=end, limit=limit, revision=revision, keys_only=keys_only
        )
        began = time.monotonic()
        try:
            page = await link.call(RANGE, asked)
        except AnswerTooLarge:
            if limit == 1:
                raise StoreError(f"a key under {prefix} is too large to be read") from None
            limit = max(1, limit // 8)
            continue
        except RevisionCompacted:
            raise Compacted(revision + 1) from None
        revision = revision or page.header.revision
        cluster = cluster or page.header.cluster_id
        items.extend(map(item, page.kvs))
        more = page.more
        if more:
            start = page.kvs[-1].key + b"\0"
            limit = next_limit(limit, page.ByteSize(), time.monotonic() - began)
    return Pages(Listing(revision, tuple(items)), cluster)


async def read_keys(link: Link, keys: Sequence[str], revision: int) -> dict[str, Item]:
    """The items of single `keys` as of `revision`, `AT_ONCE` at a time; absent ones left out.

    Not in transactions: etcd 3.5.1 refuses even those that only read once its quota is used up.
    """

    async def read(key: str) -> Item | None:
        answer = await link.call(RANGE, pb.RangeRequest(key=key.encode(), revision=revision))
        return item(answer.kvs[0]) if answer.kvs else None

    found: dict[str, Item] = {}
    for at in range(0, len(keys), AT_ONCE):
        try:
            some = await asyncio.gather(*map(read, keys[at : at + AT_ONCE]))
        except RevisionCompacted:
            raise Compacted(revision + 1) from None
        found |= {one.key: one for one in some if one is not None}
    return found


def next_limit(limit: int, page_bytes: int, took_s: float = 0.0) -> int:
    """How many keys the next page should ask for, given what the last one weighed and took."""
    by_weight = limit * PAGE_BYTES // max(1, page_bytes)
    # Never below the first page: what is slow may be etcd, which smaller pages make slower.
    by_time = max(FIRST_PAGE, int(limit * PAGE_S / max(0.001, took_s)))
    return max(1, min(MAX_PAGE, limit * 4, by_weight, by_time))
