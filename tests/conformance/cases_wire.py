"""Cases of form: the very bytes that are sent, and the header of what comes back."""

from __future__ import annotations

import struct

from tests.conformance.cases import EDNS, MESSAGE, Case

WWW = b"\x03www\x04conf\x04test\x00\x00\x01\x00\x01"
ADDRESS = "= www.conf.test. 300 A 192.0.2.80"


def header(flags: int = 0, *counts: int) -> bytes:
    """A header; `counts` are those of the four sections, one question where none are given."""
    return struct.pack(">6H", 0x1234, flags, *(counts or (1, 0, 0, 0)))


def opt(options: bytes = b"", ttl: int = 0, payload: int = 1232) -> bytes:
    """An OPT record."""
    return struct.pack(">BHHIH", 0, 41, payload, ttl, len(options)) + options


def option(code: int, data: bytes) -> bytes:
    """An option of EDNS."""
    return struct.pack(">HH", code, len(data)) + data


def with_opt(*records: bytes) -> bytes:
    """A query for www.conf.test with these records behind the question."""
    return header(0, 1, 0, 0, len(records)) + WWW + b"".join(records)


def case(rfc: int, section: str, says: str, file: str, asked: bytes, *seen: str) -> Case:
    """A row."""
    return Case(rfc, section, says, file, asked, seen)


LONG = b"".join(b"\x3f" + b"a" * 63 for _ in range(4)) + b"\0"

CASES = (
    case(1035, "4.1.1", "id, opcode and RD come back, QR is set", MESSAGE,
         header(0x0100) + WWW, "aa rd NOERROR", ADDRESS),
    case(1035, "4.1.1", "the reserved bit is clear in replies", MESSAGE,
         header(0x0040) + WWW, "aa NOERROR", ADDRESS),
    case(1035, "4.1.1", "a reply is never replied to", MESSAGE, header(0x8000) + WWW, "silence"),
    case(1035, "4.1.1", "less than a header is never replied to", MESSAGE, header()[:11],
         "silence"),
    case(1035, "4.1.1", "a header alone is malformed", MESSAGE, header(), "FORMERR"),
    case(1035, "4.1.2", "a question cut short is malformed", MESSAGE, header() + WWW[:-1],
         "FORMERR"),
    case(1035, "4.1.3", "an answer in a query is malformed", MESSAGE,
         header(0, 1, 1, 0, 0) + WWW + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\0", "FORMERR"),
    case(1035, "4.1.4", "a pointer to itself", MESSAGE, header() + b"\xc0\x0c\0\1\0\1", "FORMERR"),
    case(1035, "4.1.4", "a pointer into the header", MESSAGE, header() + b"\xc0\x04\0\1\0\1",
         "FORMERR"),
    case(1035, "4.1.4", "a label of an unknown form", MESSAGE, header() + b"\x41a\0\0\1\0\1",
         "FORMERR"),
    case(1035, "2.3.4", "a name of more than 255 octets", MESSAGE, header() + LONG + b"\0\1\0\1",
         "FORMERR"),
    case(1035, "3.1", "a name without an end", MESSAGE, header() + b"\x3fabc", "FORMERR"),
    case(1996, "3.7", "NOTIFY is not for us", MESSAGE, header(0x2000) + WWW, "opcode 4 NOTIMP"),
    case(2136, "3", "UPDATE is not for us", MESSAGE, header(0x2800) + WWW, "opcode 5 NOTIMP"),
    case(3425, "3", "inverse queries are not implemented", MESSAGE, header(0x0800) + WWW,
         "opcode 1 NOTIMP"),
    case(9619, "4", "two questions are malformed", MESSAGE, header(0, 2, 0, 0, 0) + WWW + WWW,
         "FORMERR"),
    case(9619, "4", "no question is malformed", MESSAGE, header(0, 0, 0, 0, 0), "FORMERR"),
    case(6891, "6.1.1", "two OPT records are malformed", MESSAGE, with_opt(opt(), opt()),
         "FORMERR", "opt 1232"),
    case(6891, "6.1.1", "OPT in another section is malformed", MESSAGE,
         header(0, 1, 0, 1, 0) + WWW + opt(), "FORMERR"),
    case(6891, "6.1.2", "an option over the end is malformed", EDNS,
         with_opt(opt(b"\0\3\0\1")), "FORMERR", "opt 1232"),
    case(6891, "6.1.2", "unknown options are ignored", EDNS,
         with_opt(opt(option(65001, b"abc"))), "aa NOERROR", ADDRESS, "opt 1232"),
    case(6891, "6.1.3", "a later version gets BADVERS and our version", EDNS,
         with_opt(opt(ttl=1 << 16)), "BADVERS", "opt 1232"),
    case(6891, "6.1.3", "a later version is not read further", EDNS,
         with_opt(opt(b"\0", ttl=0xFF << 16)), "BADVERS", "opt 1232"),
    case(6891, "6.1.4", "unknown flags are clear in replies", EDNS,
         with_opt(opt(ttl=0x7FFF)), "aa NOERROR", ADDRESS, "opt 1232"),
    case(7871, "6", "a scope in a query is malformed", EDNS,
         with_opt(opt(option(8, b"\0\1\x18\x18\xc0\0\2"))), "FORMERR", "opt 1232"),
    case(7871, "6", "bits beyond the source are malformed", EDNS,
         with_opt(opt(option(8, b"\0\1\x17\0\xc0\0\3"))), "FORMERR", "opt 1232"),
    case(7871, "6", "an address longer than the source is malformed", EDNS,
         with_opt(opt(option(8, b"\0\1\x18\0\xc0\0\2\0"))), "FORMERR", "opt 1232"),
    case(7871, "6", "an address shorter than the source is malformed", EDNS,
         with_opt(opt(option(8, b"\0\1\x18\0\xc0\0"))), "FORMERR", "opt 1232"),
    case(7871, "6", "a source longer than an address is malformed", EDNS,
         with_opt(opt(option(8, b"\0\1\x21\0\xc0\0\2\0\0"))), "FORMERR", "opt 1232"),
    case(7871, "7.1.3", "an unknown family is malformed", EDNS,
         with_opt(opt(option(8, b"\0\3\x18\0\xc0\0\2"))), "FORMERR", "opt 1232"),
)  # fmt: skip
