"""What two servers answered to one query: read by dnspython, compared field by field as sets."""

from __future__ import annotations

import dataclasses

import dns.edns
import dns.flags
import dns.message
import dns.rcode

Row = tuple[str, int, int, int, bytes]
"""(owner in lower case, type, class, TTL, RDATA in canonical form)."""
FLAGS = {"aa": 0x0400, "tc": 0x0200, "rd": 0x0100, "ra": 0x0080, "ad": 0x0020, "cd": 0x0010}


@dataclasses.dataclass(frozen=True)
class Seen:
    """A reply as read."""

    size: int
    question: bytes
    rcode: int
    flags: frozenset[str]
    answer: tuple[Row, ...]
    authority: tuple[Row, ...]
    additional: tuple[Row, ...]
    edns: tuple[int, int, bool] | None
    """(version, payload, DO) of its OPT record."""

    def __str__(self) -> str:
        sections = zip("=^+", (self.answer, self.authority, self.additional), strict=True)
        rows = [
            f"    {mark} {row[0]} {row[3]} {dns.rdatatype.to_text(row[1])} {row[4].hex()[:60]}"
            for mark, section in sections
            for row in section
        ]
        head = f"  {dns.rcode.to_text(self.rcode)} {' '.join(sorted(self.flags))}"
        return "\n".join([f"{head} edns={self.edns} size={self.size}", *rows])


def read(reply: bytes) -> Seen:
    """The reply; raises what dnspython raises where it is malformed."""
    message = dns.message.from_wire(reply, one_rr_per_rrset=True)
    sections: list[tuple[Row, ...]] = []
    for section in message.sections[1:]:
        rows = []
        for rrset in section:
            owner = rrset.name.canonicalize().to_text()
            data = rrset[0].to_digestable()
            rows.append((owner, int(rrset.rdtype), int(rrset.rdclass), rrset.ttl, data))
        sections.append(tuple(rows))
    edns = None
    if message.edns >= 0:
        edns = (message.edns, message.payload, bool(message.ednsflags & dns.flags.DO))
    position = 12
    if message.question:
        while reply[position]:
            position += reply[position] + 1
        position += 5
    return Seen(
        size=len(reply),
        question=reply[12:position],
        rcode=int(message.rcode()),
        flags=frozenset(name for name, bit in FLAGS.items() if message.flags & bit),
        answer=sections[0],
        authority=sections[1],
        additional=sections[2],
        edns=edns,
    )


def differences(mine: Seen, theirs: Seen) -> frozenset[str]:
    """The fields in which two replies differ; sections only where neither is truncated."""
    found = {f"flag {flag}" for flag in mine.flags ^ theirs.flags}
    for field in ("question", "rcode", "edns"):
        if getattr(mine, field) != getattr(theirs, field):
            found.add(field)
    if "tc" not in mine.flags | theirs.flags:
        for field in ("answer", "authority", "additional"):
            if set(getattr(mine, field)) != set(getattr(theirs, field)):
                found.add(field)
    return frozenset(found)
