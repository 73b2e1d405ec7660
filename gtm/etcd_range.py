"""Lists of keys from etcd: pages at one revision, sized by what they weigh.

Used by `EtcdStore.list`, by a watch that lists before it watches, and by its audits. Raises the
errors of `Link.call`, and `Compacted` when the revision goes away under the pages.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from .errors import Compacted, StoreError
from .etcd_link import RANGE, TXN, AnswerTooLarge, Link, RevisionCompacted
from .etcd_wire import item, prefix_range
from .store import MAX_OPS, Item, Listing
from .v1 import etcd_pb2 as pb

FIRST_PAGE = 1_000
MAX_PAGE = 20_000
PAGE_BYTES = 4 << 20
"""What a page should weigh: etcd walks the whole rest of the range for each page, so few large
pages cost it less, while one message must stay well below what we receive."""


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
            limit = next_limit(limit, page.ByteSize())
    return Pages(Listing(revision, tuple(items)), cluster)


async def read_keys(link: Link, keys: Sequence[str], revision: int) -> dict[str, Item]:
    """The items of single `keys` as of `revision`, `MAX_OPS` to a request; absent ones left out."""
    found: dict[str, Item] = {}
    for at in range(0, len(keys), MAX_OPS):
        asked = pb.TxnRequest(
            success=[
                pb.RequestOp(request_range=pb.RangeRequest(key=key.encode(), revision=revision))
                for key in keys[at : at + MAX_OPS]
            ]
        )
        try:
            answer = await link.call(TXN, asked)
        except RevisionCompacted:
            raise Compacted(revision + 1) from None
        for response in answer.responses:
            for kv in response.response_range.kvs:
                one = item(kv)
                found[one.key] = one
    return found


def next_limit(limit: int, page_bytes: int) -> int:
    """How many keys the next page should ask for, given what the last one weighed."""
    return max(1, min(MAX_PAGE, limit * 4, limit * PAGE_BYTES // max(1, page_bytes)))
