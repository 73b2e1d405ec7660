"""The audit trail as a chain, and what it accounts for. Pure.

Each entry carries the hash of the one before.

Whoever changes, adds or takes away an entry that was written breaks the chain at that place, and
the head, which names the last hash, tells of entries cut off at its end. Writing the trail is the
coordinator's business (`coordinator/trail.py`); anybody who reads it can verify it.

Every entry stands in the transaction that made its changes. So what lies in etcd is accounted for
where the newest entry that names it left it so, or where it was written since in the transaction of
an entry, which need not name all that it changed. The rest was written past the coordinators.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from gtm import codec
from gtm.model import TYPES
from gtm.state import AuditChange, AuditEntry, AuditHead

START = ""
"""What the first entry ever names as the hash before it."""


def hash_of(entry: AuditEntry) -> str:
    """The SHA-256 of an entry's canonical JSON without its own hash, in hexadecimal."""
    return hashlib.sha256(codec.encode(replace(entry, hash=""))).hexdigest()


def digest_of(data: bytes) -> str:
    """The BLAKE2b of 128 bits by which entries name what was and what is, in hexadecimal.

    "" for nothing.
    """
    return hashlib.blake2b(data, digest_size=16).hexdigest() if data else ""


def sealed(entry: AuditEntry, head: AuditHead) -> tuple[AuditEntry, AuditHead]:
    """`entry` as the next one after `head`, and the head after it."""
    placed = replace(entry, seq=head.seq + 1, previous=head.hash, hash="")
    done = replace(placed, hash=hash_of(placed))
    return done, replace(head, seq=done.seq, hash=done.hash, first=head.first or done.seq)


class Verifier:
    """Takes the entries in order and says what is wrong with them; `end` closes the account."""

    def __init__(self, head: AuditHead) -> None:
        self._head = head
        self._expected = head.first or 1
        self._previous = head.before_first
        self.checked = 0

    def take(self, entries: Iterable[AuditEntry]) -> list[str]:
        """What is wrong with these, each in a sentence."""
        found = []
        for entry in entries:
            if entry.seq > self._head.seq:
                break  # written after the head was read
            self.checked += 1
            if entry.seq != self._expected:
                found.append(self._gap(entry.seq))
            elif entry.previous != self._previous:
                found.append(f"entry {entry.seq} does not follow the entry before it")
            if entry.hash != hash_of(entry):
                found.append(f"entry {entry.seq} was changed after it was written")
            self._expected, self._previous = entry.seq + 1, entry.hash
        return found

    def end(self) -> list[str]:
        """What is missing at the end."""
        if self._expected <= self._head.seq:
            return [self._gap(self._head.seq + 1)]
        if self._head.seq and self._previous != self._head.hash:
            return [f"entry {self._head.seq} is not the one that the head names"]
        return []

    def _gap(self, until: int) -> str:
        if until < self._expected:
            return f"entry {until} stands where entry {self._expected} should"
        if until - self._expected == 1:
            return f"entry {self._expected} is missing"
        return f"entries {self._expected} to {until - 1} are missing"


# ---- what the trail accounts for ---------------------------------------------------------------


class Stored(Struct, frozen=True):
    """A resource as it lies in etcd: its digest, and the revision that wrote it last."""

    kind: str
    name: str
    digest: str
    revision: int


class Account(Struct, frozen=True, kw_only=True):
    """What the trail says of what is stored.

    `wrong` has what it does not account for, each in a sentence; `covered` resources are as it
    says, `older` ones were written last before its oldest entry: nobody knows of them any more.
    """

    wrong: tuple[str, ...]
    covered: int
    older: int


class _Named(Struct, frozen=True):
    """The newest change of a resource that an entry names, and where that stands."""

    change: AuditChange
    seq: int
    revision: int


def account(
    entries: Iterable[tuple[AuditEntry, int]], stored: Sequence[Stored], as_of: int
) -> Account:
    """Hold what was `stored` at revision `as_of` against `entries`, each with its revision.

    An entry may leave changes out (`more`), and that of a large zone stands with the last of its
    parts: what is not as named, but was written with a later entry, is a coordinator's all the
    same.
    """
    named: dict[tuple[str, str], _Named] = {}
    written: set[int] = set()
    oldest = last_more = 0
    for entry, revision in entries:
        if revision > as_of:
            break  # written since
        oldest = oldest or revision
        if entry.more:
            last_more = revision
        written.add(revision)
        for change in entry.changes:
            if change.kind in TYPES:
                named[change.kind, change.name] = _Named(change, entry.seq, revision)
    wrong: list[str] = []
    older = 0
    for one in stored:
        last = named.pop((one.kind, one.name), None)
        if last is not None and one.digest and one.digest == last.change.after_digest:
            continue
        if one.revision in written and (last is None or one.revision > last.revision):
            continue
        if last is None and one.revision < oldest:
            older += 1
        else:
            wrong.append(_unaccounted(one, last))
    covered = len(stored) - older - len(wrong)
    for (kind, name), last in named.items():
        if last.change.action != "delete" and last.revision >= last_more:
            wrong.append(f"{kind}/{name} was deleted from etcd: entry {last.seq} left it there")
    return Account(wrong=tuple(wrong), covered=covered, older=older)


def _unaccounted(one: Stored, last: _Named | None) -> str:
    what = f"{one.kind}/{one.name} in etcd (revision {one.revision})"
    if last is None:
        return f"{what} was written past the coordinators: no entry names it"
    if last.change.action == "delete":
        return f"{what} was written past the coordinators: entry {last.seq} deleted it"
    return f"{what} is not what entry {last.seq} left: it was changed past the coordinators"
