"""How a watch resumes: scripted streams of answers, the batches they make, the point they reach."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gtm.etcd_mirror import AUDIT_SLICE, Mirror, Next
from gtm.store import Batch, Event, Item, Listing
from gtm.v1 import etcd_pb2 as pb

CLUSTER = 7


def change(text: str) -> pb.Event:
    """`a@5` is a put of key a at revision 5, `-a@5` its deletion."""
    key, revision = text.removeprefix("-").split("@")
    kv = pb.KeyValue(key=key.encode(), mod_revision=int(revision), create_revision=1, value=b"v")
    return pb.Event(type=pb.Event.DELETE if text.startswith("-") else pb.Event.PUT, kv=kv)


def answer(*changes: str, header: int = 100, **fields: object) -> pb.WatchResponse:
    """An answer with `changes`, its header at revision `header`."""
    fields.setdefault("cluster", CLUSTER)
    about = pb.ResponseHeader(cluster_id=fields.pop("cluster"), revision=header)
    return pb.WatchResponse(header=about, events=map(change, changes), **fields)


def shown(batch: Batch) -> str:
    """A batch as text: `5: a -b`."""
    told = " ".join(("-" if e.value is None else "") + e.key for e in batch.events)
    return f"{batch.revision}: {told}"


def mirror_at(revision: int, **known: int) -> Mirror:
    mirror = Mirror()
    items = tuple(Item(key, b"v", 1, mod) for key, mod in known.items())
    mirror.first(Listing(revision, items), CLUSTER)
    return mirror


@dataclass
class Script:
    answers: list[pb.WatchResponse]
    batches: list[str]
    resume: int
    then: Next = Next.GO_ON
    known: dict[str, int] = field(default_factory=dict)


SCRIPTS = {
    "each revision is one batch": Script(
        [answer("a@11", "b@11"), answer("-a@12")], ["11: a b", "12: -a"], 13
    ),
    "one answer may hold several revisions": Script(
        [answer("a@11", "b@12", "c@12", "-b@15")], ["11: a", "12: b c", "15: -b"], 16
    ),
    "a header's revision moves nothing": Script([answer("a@11", header=2501)], ["11: a"], 12),
    "a progress answer moves nothing, even when it overtakes the events": Script(
        [answer(header=2501), answer("a@11", header=2501)], ["11: a"], 12
    ),
    "a fragment's last revision waits for the last fragment": Script(
        [answer("a@11", "b@12", fragment=True)], ["11: a"], 12
    ),
    "fragments of one revision make one batch": Script(
        [answer("a@11", fragment=True), answer("b@11", fragment=True), answer("c@11")],
        ["11: a b c"],
        12,
    ),
    "a progress answer between fragments completes nothing": Script(
        [answer("a@11", fragment=True), answer(), answer("b@11")], ["11: a b"], 12
    ),
    "a later fragment completes the revisions before its own": Script(
        [answer("a@11", fragment=True), answer("b@11", "c@12", fragment=True)], ["11: a b"], 12
    ),
    "what was handed on already is dropped": Script([answer("a@9", "b@10", "c@11")], ["11: c"], 12),
    "a cancellation with a compaction asks for a list": Script(
        [answer("a@11"), answer(canceled=True, compact_revision=50)], ["11: a"], 12, Next.RELIST
    ),
    "another cancellation asks for a new token and a list": Script(
        [answer(canceled=True, created=True, cancel_reason="permission denied")],
        [],
        11,
        Next.RENEW,
    ),
    "another cluster is another history": Script(
        [answer("a@11"), answer("a@12", cluster=8)], ["11: a"], 12, Next.RETELL
    ),
    "a member that is behind is to be checked": Script(
        [answer(created=True, header=9)], [], 11, Next.CHECK
    ),
    "a member that is ahead is not": Script([answer(created=True, header=90)], [], 11),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_scripted_stream_makes_its_batches(name: str) -> None:
    script = SCRIPTS[name]
    mirror = mirror_at(10)
    mirror.begin()
    steps = [mirror.feed(one) for one in script.answers]
    assert [shown(batch) for step in steps for batch in step.batches] == script.batches
    assert mirror.resume == script.resume
    assert steps[-1].then is script.then


def test_a_stream_that_breaks_inside_a_revision_resumes_with_that_revision() -> None:
    mirror = mirror_at(10)
    mirror.feed(answer("a@11", "b@12", fragment=True))
    assert mirror.resume == 12
    mirror.begin()
    step = mirror.feed(answer("b@12", "c@12"))
    assert [shown(batch) for batch in step.batches] == ["12: b c"]


def test_memory_follows_the_batches() -> None:
    mirror = mirror_at(10, a=3, b=4)
    mirror.feed(answer("-a@11", "c@11"))
    assert mirror.known == {"b": 4, "c": 11}


def test_going_back_is_noticed_by_revision_and_by_cluster() -> None:
    mirror = mirror_at(10)
    mirror.feed(answer(header=90))
    assert mirror.another_history(89, CLUSTER)
    assert mirror.another_history(91, CLUSTER + 1)
    assert not mirror.another_history(90, CLUSTER)


def test_a_new_list_is_told_as_its_difference() -> None:
    mirror = mirror_at(10, same=3, changed=4, gone=5)
    items = (Item("changed", b"2", 1, 12), Item("new", b"3", 13, 13), Item("same", b"1", 1, 3))
    changed, gone = mirror.differing(Listing(20, items))
    assert (changed, gone) == (["changed", "new"], ["gone"])
    batch = mirror.relisted(20, CLUSTER, items[:2], gone)
    assert batch == Batch(
        20,
        (Event("gone", None, 20), Event("changed", b"2", 12, 1), Event("new", b"3", 13, 13)),
        relisted=True,
    )
    assert (mirror.resume, mirror.known) == (21, {"same": 3, "changed": 12, "new": 13})


AUDITS = {
    "equal": ({"a": 5}, [], {"a": 5}, True),
    "changed later": ({"a": 5}, ["a@21"], {"a": 5}, True),
    "created later": ({}, ["a@21"], {}, True),
    "deleted later": ({"a": 5}, ["-a@21"], {"a": 5}, True),
    "arrived while waiting": ({}, ["a@15"], {"a": 15}, True),
    "deleted and created again": ({"a": 5}, ["-a@12", "a@13"], {"a": 13}, True),
    "an event was lost": ({"a": 5}, [], {"a": 7}, False),
    "a creation was lost": ({}, [], {"a": 7}, False),
    "a deletion was lost": ({"a": 5}, [], {}, False),
    "a deletion that never was": ({"a": 5}, ["-a@15"], {"a": 5}, False),
    "memory knows better than the store": ({"a": 9}, [], {"a": 5}, False),
}


@pytest.mark.parametrize("name", AUDITS)
def test_an_audit_compares_memory_as_of_the_lists_revision(name: str) -> None:
    known, changes, listed, agrees = AUDITS[name]
    mirror = mirror_at(10, **known)
    mirror.audit_begins()
    for one in changes:
        mirror.feed(answer(one))
    assert all(mirror.audit(20, listed)) is agrees


def test_an_audit_of_many_keys_lets_others_run() -> None:
    known = {f"k{n}": 1 for n in range(3 * AUDIT_SLICE)}
    mirror = mirror_at(10, **known)
    mirror.audit_begins()
    assert list(mirror.audit(20, known)) == [True] * 7
