"""The audit trail as a chain: each entry carries the hash of the one before. Pure.

Whoever changes, adds or takes away an entry that was written breaks the chain at that place, and
the head, which names the last hash, tells of entries cut off at its end. Writing the trail is the
coordinator's business (`coordinator/trail.py`); anybody who reads it can verify it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from msgspec.structs import replace

from gtm import codec
from gtm.state import AuditEntry, AuditHead

START = ""
"""What the first entry ever names as the hash before it."""


def hash_of(entry: AuditEntry) -> str:
    """The SHA-256 of an entry's canonical JSON without its own hash, in hexadecimal."""
    return hashlib.sha256(codec.encode(replace(entry, hash=""))).hexdigest()


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
