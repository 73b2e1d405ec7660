"""The parts of the etcd client that need no etcd: meanings, endpoints, pages, pauses, ranges."""

from __future__ import annotations

import pytest

from gtm.errors import LeaseLost, NoSpace, StartError, StoreDenied, StoreError
from gtm.etcd_errors import Meaning, meaning, refusal
from gtm.etcd_link import Backoff
from gtm.etcd_options import Endpoint, endpoint
from gtm.etcd_range import FIRST_PAGE, MAX_PAGE, PAGE_BYTES, PAGE_S, next_limit
from gtm.etcd_wire import prefix_range, writes
from gtm.store import Delete, Get, Op, Put, Txn

MEANINGS = [
    ("UNAUTHENTICATED", "etcdserver: invalid auth token", Meaning.RENEW),
    ("INVALID_ARGUMENT", "etcdserver: revision of auth store is old", Meaning.RENEW),
    ("INVALID_ARGUMENT", "etcdserver: user name is empty", Meaning.DENIED),
    (
        "INVALID_ARGUMENT",
        "etcdserver: authentication failed, invalid user ID or password",
        Meaning.DENIED,
    ),
    ("PERMISSION_DENIED", "etcdserver: permission denied", Meaning.DENIED),
    ("FAILED_PRECONDITION", "etcdserver: authentication is not enabled", Meaning.NO_AUTH),
    (
        "OUT_OF_RANGE",
        "etcdserver: mvcc: required revision has been compacted",
        Meaning.COMPACTED,
    ),
    (
        "OUT_OF_RANGE",
        "etcdserver: mvcc: required revision is a future revision",
        Meaning.REFUSED,
    ),
    ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", Meaning.NO_SPACE),
    ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Meaning.AGAIN),
    (
        "RESOURCE_EXHAUSTED",
        "CLIENT: Received message larger than max (70000000 vs. 67108864)",
        Meaning.TOO_LARGE,
    ),
    ("NOT_FOUND", "etcdserver: requested lease not found", Meaning.LEASE_GONE),
    ("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request", Meaning.REFUSED),
    ("UNAVAILABLE", "etcdserver: no leader", Meaning.AGAIN),
    ("UNAVAILABLE", "etcdserver: not capable", Meaning.AGAIN),
    ("UNAVAILABLE", "etcdserver: leader changed", Meaning.UNSURE),
    ("UNAVAILABLE", "etcdserver: request timed out", Meaning.UNSURE),
    ("UNAVAILABLE", "Socket closed", Meaning.UNSURE),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", Meaning.UNSURE),
    ("CANCELLED", "", Meaning.UNSURE),
    ("UNKNOWN", "etcdserver: something new", Meaning.UNSURE),
]


@pytest.mark.parametrize(("code", "details", "expected"), MEANINGS)
def test_a_status_has_its_meaning(code: str, details: str, expected: Meaning) -> None:
    assert meaning(code, details) is expected


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (Meaning.DENIED, StoreDenied),
        (Meaning.NO_SPACE, NoSpace),
        (Meaning.LEASE_GONE, LeaseLost),
        (Meaning.REFUSED, StoreError),
    ],
)
def test_a_final_meaning_has_its_error_and_names_the_endpoint(
    found: Meaning, error: type[StoreError]
) -> None:
    raised = refusal(found, "http://h:1", "etcdserver: words")
    assert type(raised) is error
    assert "http://h:1" in str(raised)
    assert "etcdserver" not in str(raised)


@pytest.mark.parametrize(
    ("text", "secure", "expected"),
    [
        ("http://h:1", False, Endpoint("http://h:1", "h:1", False)),
        ("https://h:1", False, Endpoint("https://h:1", "h:1", True)),
        ("h:1", False, Endpoint("http://h:1", "h:1", False)),
        ("h:1", True, Endpoint("https://h:1", "h:1", True)),
        ("h", False, Endpoint("http://h:2379", "h:2379", False)),
        ("http://[::1]:1/", False, Endpoint("http://[::1]:1", "[::1]:1", False)),
    ],
)
def test_an_endpoint_is_read(text: str, secure: bool, expected: Endpoint) -> None:
    assert endpoint(text, secure=secure) == expected


@pytest.mark.parametrize("text", ["", "ftp://h:1", "http://h:x", "http://h:99999", "http://h/x"])
def test_a_misspelt_endpoint_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="not of the form"):
        endpoint(text)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("/a/", (b"/a/", b"/a0")),
        ("a", (b"a", b"b")),
        ("", (b"\0", b"\0")),
        ("z\x7f", (b"z\x7f", b"z\x80")),
    ],
)
def test_a_prefix_is_a_half_open_range(prefix: str, expected: tuple[bytes, bytes]) -> None:
    assert prefix_range(prefix) == expected


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ([], False),
        ([Get("a")], False),
        ([Put("a", b"")], True),
        ([Delete("a")], True),
        ([Txn(then=(Get("a"),))], False),
        ([Txn(orelse=(Put("a", b""),))], True),
    ],
)
def test_only_what_can_change_the_store_is_a_write(ops: list[Op], expected: bool) -> None:
    assert writes(ops) is expected


def test_pages_grow_with_small_keys_and_shrink_with_large_ones_within_bounds() -> None:
    assert next_limit(FIRST_PAGE, PAGE_BYTES) == FIRST_PAGE
    assert next_limit(FIRST_PAGE, PAGE_BYTES * 10) == FIRST_PAGE // 10
    assert next_limit(FIRST_PAGE, 1) == 4 * FIRST_PAGE
    assert next_limit(MAX_PAGE, 1) == MAX_PAGE
    assert next_limit(1, 100 * PAGE_BYTES) == 1


def test_pages_that_take_long_become_smaller_but_not_smaller_than_the_first() -> None:
    assert next_limit(4 * FIRST_PAGE, 1, PAGE_S) == 4 * FIRST_PAGE
    assert next_limit(4 * FIRST_PAGE, 1, 2 * PAGE_S) == 2 * FIRST_PAGE
    assert next_limit(4 * FIRST_PAGE, 1, 100.0) == FIRST_PAGE
    assert next_limit(4 * FIRST_PAGE, PAGE_BYTES * 8, 100.0) == FIRST_PAGE // 2


def test_pauses_double_are_jittered_and_bounded() -> None:
    backoff = Backoff(1.0, 8.0)
    pauses = [backoff.next_s() for _ in range(6)]
    for pause, full in zip(pauses, (1, 2, 4, 8, 8, 8), strict=True):
        assert full / 2 <= pause <= full
    backoff.reset()
    assert backoff.next_s() <= 1.0
