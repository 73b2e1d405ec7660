"""Between the words of `gtm.store` and etcd's messages; no IO, no decisions.

Keys are UTF-8; a prefix becomes etcd's half-open range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .store import Compare, Delete, Done, Event, Get, Item, Op, Put, Txn
from .v1 import etcd_pb2 as pb

ALL_KEYS = b"\0"
"""As a range's end: "to the last key"; as its start: "from the first"."""

_RESULTS = {
    "=": pb.Compare.EQUAL,
    "!=": pb.Compare.NOT_EQUAL,
    "<": pb.Compare.LESS,
    ">": pb.Compare.GREATER,
}


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """(key, range_end) of every key that begins with `prefix`; the empty prefix is all keys."""
    start = prefix.encode()
    stem = start.rstrip(b"\xff")
    if not stem:
        return start or ALL_KEYS, ALL_KEYS
    return start, stem[:-1] + bytes((stem[-1] + 1,))


def txn_request(
    compares: Sequence[Compare], then: Sequence[Op], orelse: Sequence[Op]
) -> pb.TxnRequest:
    """The transaction as etcd wants it."""
    return pb.TxnRequest(
        compare=[_compare(one) for one in compares],
        success=[_operation(op) for op in then],
        failure=[_operation(op) for op in orelse],
    )


def done(answer: pb.TxnResponse) -> Done:
    """How the transaction ended, with what its reads found, nested ones included."""
    return Done(answer.succeeded, answer.header.revision, tuple(_reads(answer.responses)))


def item(found: pb.KeyValue) -> Item:
    """One key of a list or a read."""
    return Item(
        found.key.decode(errors="replace"),
        found.value,
        found.create_revision,
        found.mod_revision,
        found.version,
        found.lease,
    )


def event(told: pb.Event) -> Event:
    """One event of a watch."""
    kv = told.kv
    key = kv.key.decode(errors="replace")
    if told.type == pb.Event.DELETE:
        return Event(key, None, kv.mod_revision)
    return Event(key, kv.value, kv.mod_revision, kv.create_revision)


def writes(ops: Iterable[Op]) -> bool:
    """Whether any of `ops` could change the store."""
    return any(
        writes((*op.then, *op.orelse)) if isinstance(op, Txn) else not isinstance(op, Get)
        for op in ops
    )


def _compare(one: Compare) -> pb.Compare:
    key, result = one.key.encode(), _RESULTS[one.op]
    if one.field == "value":
        assert isinstance(one.value, bytes)
        return pb.Compare(key=key, result=result, target=pb.Compare.VALUE, value=one.value)
    assert isinstance(one.value, int)
    if one.field == "create":
        target = pb.Compare.CREATE
        return pb.Compare(key=key, result=result, target=target, create_revision=one.value)
    if one.field == "mod":
        return pb.Compare(key=key, result=result, target=pb.Compare.MOD, mod_revision=one.value)
    return pb.Compare(key=key, result=result, target=pb.Compare.VERSION, version=one.value)


def _operation(op: Op) -> pb.RequestOp:
    if isinstance(op, Put):
        put = pb.PutRequest(key=op.key.encode(), value=op.value, lease=op.lease)
        return pb.RequestOp(request_put=put)
    if isinstance(op, Txn):
        return pb.RequestOp(request_txn=txn_request(op.compares, op.then, op.orelse))
    key, end = prefix_range(op.key) if op.prefix else (op.key.encode(), b"")
    if isinstance(op, Delete):
        return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=end))
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=end))


def _reads(responses: Iterable[pb.ResponseOp]) -> Iterator[tuple[Item, ...]]:
    for response in responses:
        kind = response.WhichOneof("response")
        if kind == "response_range":
            yield tuple(item(kv) for kv in response.response_range.kvs)
        elif kind == "response_txn":
            yield from _reads(response.response_txn.responses)
