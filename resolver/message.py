"""DNS messages as bytes: reading a query, building a reply (RFC 1035, section 4). Pure.

Our own codec, for speed and for strictness: it reads nothing but queries, follows compression
pointers backwards only, does bounded work for every packet and never raises. What EDNS options
mean stands in `edns`, what is answered in `responder`.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from .edns import Edns, read_edns
from .limits import MAX_LABEL, MAX_NAME, MAX_POINTERS, MAX_QUERY_RECORDS

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, YXDOMAIN, BADVERS = 0, 1, 2, 3, 4, 5, 6, 16
A, NS, CNAME, SOA, HINFO, TXT, AAAA, DNAME, OPT, DS = 1, 2, 5, 6, 13, 16, 28, 39, 41, 43
RRSIG, NSEC = 46, 47
IXFR, AXFR, ANY = 251, 252, 255
IN, CH = 1, 3
AUTHORITATIVE, TRUNCATED = 0x04, 0x02
ROOT = b"\0"

_TYPE_CLASS = struct.Struct(">HH")
_RECORD = struct.Struct(">HHIH")
_HEADER = struct.Struct(">2sBBHHHH")
_NO_EDNS = b"\0\0\0\0\0\0"
_ONE_MORE = b"\0\0\0\0\0\1"


class Query(Struct, frozen=True):
    """A query as read. `rcode` is what reading decided; the question counts where it has one.

    `flags` is the header's third octet (opcode and RD survive into the reply), `question` the bytes
    to be echoed, `qname` the name in lower case on the wire.
    """

    id: bytes
    flags: int
    rcode: int = NOERROR
    question: bytes = b""
    qname: bytes = b""
    qtype: int = 0
    qclass: int = 0
    edns: Edns | None = None


def read_query(datagram: bytes) -> Query | None:
    """`datagram` as a query; None where silence is the answer: no whole header, or a response."""
    size = len(datagram)
    if size < 12 or datagram[2] & 0x80:
        return None
    ident, flags = datagram[:2], datagram[2]
    if flags & 0x78:
        return Query(ident, flags, NOTIMP)
    if datagram[4:6] != b"\0\1":  # one question, RFC 9619
        return Query(ident, flags, FORMERR)
    position = 12
    try:
        while length := datagram[position]:
            if length > MAX_LABEL:  # a pointer has nothing before it that it could point to
                return Query(ident, flags, FORMERR)
            position += length + 1
        position += 1
        if position - 12 > MAX_NAME:
            return Query(ident, flags, FORMERR)
        qtype, qclass = _TYPE_CLASS.unpack_from(datagram, position)
    except (IndexError, struct.error):
        return Query(ident, flags, FORMERR)
    qname = datagram[12:position].lower()  # lengths are below every letter
    position += 4
    question = datagram[12:position]
    counts, edns, rcode = datagram[6:12], None, NOERROR
    if counts == _ONE_MORE and datagram[position : position + 3] == b"\0\0\x29":
        edns, rcode, position = _read_opt(datagram, position + 1)
    elif counts != _NO_EDNS:
        edns, rcode, position = _read_records(datagram, position)
    if rcode == NOERROR and position != size:
        rcode = FORMERR
    return Query(ident, flags, rcode, question, qname, qtype, qclass, edns)


def _read_opt(datagram: bytes, position: int) -> tuple[Edns | None, int, int]:
    """(EDNS, rcode, position behind) of the OPT record whose type stands at `position`."""
    if position + 10 > len(datagram):
        return None, FORMERR, position
    _, payload, ttl, length = _RECORD.unpack_from(datagram, position)
    end = position + 10 + length
    if end > len(datagram):
        return None, FORMERR, position
    edns = read_edns(payload, ttl, datagram[position + 10 : end])
    if edns.version > 0:
        return edns, BADVERS, end
    return edns, FORMERR if edns.malformed else NOERROR, end


def _read_records(datagram: bytes, position: int) -> tuple[Edns | None, int, int]:
    """(EDNS, rcode, position behind) of whatever records follow the question."""
    answers, authorities, additionals = struct.unpack_from(">HHH", datagram, 6)
    if answers or authorities + additionals > MAX_QUERY_RECORDS:
        return None, FORMERR, position
    edns, rcode = None, NOERROR
    for index in range(authorities + additionals):
        try:
            name, position = read_name(datagram, position)
        except ValueError:
            return edns, FORMERR, position
        if position + 10 > len(datagram):
            return edns, FORMERR, position
        rtype, _, _, length = _RECORD.unpack_from(datagram, position)
        if rtype == OPT:
            if edns is not None or name != ROOT or index < authorities:  # RFC 6891, 6.1.1
                return edns, FORMERR, position
            edns, rcode, position = _read_opt(datagram, position)
            if edns is None:
                return edns, rcode, position
        else:
            position += 10 + length
            if position > len(datagram):
                return edns, FORMERR, position
    return edns, rcode, position


def read_name(message: bytes, position: int) -> tuple[bytes, int]:
    """(name without compression, position behind it); ValueError where it is malformed.

    Every pointer must point to before the name's own beginning and to before the last one's target.
    """
    labels: list[bytes] = []
    total, behind, floor = 1, 0, position
    for _ in range(MAX_POINTERS + 1):
        while True:
            if position >= len(message):
                raise ValueError("a name runs over the end")
            length = message[position]
            if length > MAX_LABEL:
                break
            label = message[position : position + length + 1]
            if len(label) != length + 1:
                raise ValueError("a label runs over the end")
            position += length + 1
            if not length:
                return b"".join(labels) + ROOT, behind or position
            total += length + 1
            if total > MAX_NAME:
                raise ValueError(f"a name of more than {MAX_NAME} octets")
            labels.append(label)
        if length < 0xC0 or position + 2 > len(message):
            raise ValueError("a label of an unknown form")
        target = int.from_bytes(message[position : position + 2]) & 0x3FFF
        if not 12 <= target < floor:
            raise ValueError("a compression pointer that does not point backwards")
        behind = behind or position + 2
        position = floor = target
    raise ValueError(f"a name with more than {MAX_POINTERS} compression pointers")


def reply(
    query: Query,
    rcode: int,
    flags: int,
    sections: bytes,
    counts: tuple[int, int, int],
    opt: bytes,
) -> bytes:
    """The reply with `sections` (`counts` records in each, without OPT) and `opt` behind them.

    `flags` are AUTHORITATIVE and TRUNCATED; RD and opcode are copied, RA, AD and CD are 0. The
    upper bits of an extended rcode are in `opt`.
    """
    question = query.question
    header = _HEADER.pack(
        query.id,
        0x80 | query.flags & 0x79 | flags,
        rcode & 15,
        1 if question else 0,
        counts[0],
        counts[1],
        counts[2] + 1 if opt else counts[2],
    )
    return header + question + sections + opt


def record(owner: bytes, rtype: int, ttl: int, rdata: bytes, rclass: int = IN) -> bytes:
    """One record on the wire; `owner` is a name or a pointer."""
    return owner + _RECORD.pack(rtype, rclass, ttl, len(rdata)) + rdata


def owner_at(position: int, name: bytes) -> bytes:
    """The shortest owner for `name`, which stands in full at `position` of the message."""
    return (0xC000 | position).to_bytes(2) if position < 0x4000 else name


def wire_name(text: str) -> bytes:
    """The wire form, in lower case, of an absolute name of plain ASCII labels; "." is the root."""
    if text == ".":
        return ROOT
    labels = text.lower().encode("ascii").split(b".")
    if not all(0 < len(label) <= MAX_LABEL for label in labels):
        raise ValueError(f"{text!r} has a label of no or more than {MAX_LABEL} characters")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + ROOT
    if len(wire) > MAX_NAME:
        raise ValueError(f"{text!r} is longer than {MAX_NAME} octets")
    return wire


def name_text(wire: bytes) -> str:
    """The text of a whole name on the wire, without the last dot; "." is the root."""
    labels, position = [], 0
    while length := wire[position]:
        label = wire[position + 1 : position + 1 + length]
        labels.append(
            "".join(
                chr(c) if 33 <= c <= 126 and c not in b'."\\;()@$' else f"\\{c:03}" for c in label
            )
        )
        position += length + 1
    return ".".join(labels) or "."


def parent(wire: bytes) -> bytes:
    """The name above a name that is not the root."""
    return wire[1 + wire[0] :]
