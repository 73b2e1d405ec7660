"""Cases that dig and kdig ask (the commands of RFC 8906, section 8, as they stand there, and more),
and scenes over TCP (`clients.SCENES`).

Of a tool `seen` are words that must be printed; behind a `!` they must not. `ZONE` is conf.test.
"""

from __future__ import annotations

from tests.conformance.cases import EDNS, MESSAGE, RESPONDER, TCP, Case


def case(rfc: int, section: str, says: str, file: str, asked: str, *seen: str) -> Case:
    """A row."""
    return Case(rfc, section, says, file, asked, seen)


NOERROR, SOA, AA = "status: NOERROR", "\tSOA\t", "flags: qr aa"
NO_OPT, OPT = "!OPT PSEUDOSECTION", "EDNS: version: 0"
BADVERS = ("status: BADVERS", OPT, f"!{SOA}")

CASES = (
    case(8906, "8.1.1", "a plain question", RESPONDER, "dig +noedns +noad +norec soa ZONE",
         NOERROR, SOA, f"{AA};", NO_OPT),
    case(8906, "8.1.2", "an unknown type", RESPONDER, "dig +noedns +noad +norec type1000 ZONE",
         NOERROR, "ANSWER: 0", f"{AA};", NO_OPT),
    case(8906, "8.1.3.1", "CD set", MESSAGE, "dig +noedns +noad +norec +cd soa ZONE",
         NOERROR, SOA, f"{AA};", NO_OPT),
    case(8906, "8.1.3.2", "AD set", MESSAGE, "dig +noedns +norec +ad soa ZONE",
         NOERROR, SOA, f"{AA};", NO_OPT),
    case(8906, "8.1.3.3", "the reserved bit set", MESSAGE,
         "dig +noedns +noad +norec +zflag soa ZONE", NOERROR, SOA, f"{AA};", "!MBZ", NO_OPT),
    case(8906, "8.1.3.4", "RD set", MESSAGE, "dig +noedns +noad +rec soa ZONE",
         NOERROR, SOA, f"{AA} rd;", NO_OPT),
    case(8906, "8.1.4", "an unknown opcode", MESSAGE,
         "dig +noedns +noad +opcode=15 +norec +header-only", "status: NOTIMP",
         "opcode: RESERVED15", f"!{SOA}", "flags: qr;", NO_OPT),
    case(8906, "8.1.5", "TCP", TCP, "dig +noedns +noad +norec +tcp soa ZONE",
         NOERROR, SOA, f"{AA};", NO_OPT),
    case(8906, "8.2.1", "EDNS at its least", EDNS,
         "dig +nocookie +edns=0 +noad +norec soa ZONE", NOERROR, SOA, f"{AA};", OPT),
    case(8906, "8.2.2", "a later version", EDNS,
         "dig +nocookie +edns=1 +noednsneg +noad +norec soa ZONE", *BADVERS),
    case(8906, "8.2.3", "an unknown option", EDNS,
         "dig +nocookie +edns=0 +noad +norec +ednsopt=100 soa ZONE", NOERROR, SOA, OPT,
         "!OPT=100"),
    case(8906, "8.2.4", "an unknown flag", EDNS,
         "dig +nocookie +edns=0 +noad +norec +ednsflags=0x40 soa ZONE", NOERROR, SOA, OPT, "!MBZ"),
    case(8906, "8.2.5", "a later version with an unknown flag", EDNS,
         "dig +nocookie +edns=1 +noednsneg +noad +norec +ednsflags=0x40 soa ZONE", *BADVERS,
         "!MBZ"),
    case(8906, "8.2.6", "a later version with an unknown option", EDNS,
         "dig +nocookie +edns=1 +noednsneg +noad +norec +ednsopt=100 soa ZONE", *BADVERS,
         "!OPT=100"),
    case(8906, "8.2.7", "a truncated reply has its OPT", RESPONDER,
         "dig +norec +dnssec +bufsize=512 +ignore txt txt1100.ZONE", NOERROR, "flags: qr aa tc;",
         OPT),
    case(8906, "8.2.8", "DO set", EDNS, "dig +nocookie +edns=0 +noad +norec +dnssec soa ZONE",
         NOERROR, SOA, "EDNS: version: 0, flags: do;"),
    case(8906, "8.2.9", "a later version with DO set", EDNS,
         "dig +nocookie +edns=1 +noednsneg +noad +norec +dnssec soa ZONE", *BADVERS),
    case(8906, "8.2.10", "several known options at once", EDNS,
         "dig +edns=0 +noad +norec +cookie +nsid +expire +subnet=0.0.0.0/0 soa ZONE",
         NOERROR, SOA, OPT, "NSID: 72 65 73 6f", "CLIENT-SUBNET: 0.0.0.0/0/0"),
    case(7766, "5", "a truncated answer is asked again over TCP and comes whole", TCP,
         "dig +bufsize=512 txt txt2000.ZONE", NOERROR, "Truncated, retrying in TCP mode",
         "ANSWER: 1,", "(TCP)"),
    case(9210, "3.1", "an answer of many records over TCP", TCP, "kdig +tcp aaaa300.ZONE AAAA",
         "status: NOERROR", "ANSWER: 300;", "(TCP)"),
    case(7766, "6.2.1", "several questions on one connection", TCP,
         "kdig +tcp +keepopen www.ZONE A +tcp +keepopen mail.ZONE A", "192.0.2.80", "192.0.2.25"),
    case(1035, "4.2.2", "a length of nothing ends the connection", TCP, "scene no length",
         "the end"),
    case(7766, "6.2.1.1", "fifty questions at once get fifty answers", TCP, "scene pipelined",
         "50 answers"),
    case(7766, "8", "a question that comes octet by octet is answered", TCP, "scene piecemeal",
         "aa rd NOERROR", "= www.conf.test. 300 A 192.0.2.80"),
    case(7766, "8", "length and answer leave together", TCP, "scene one segment", "together"),
    case(7766, "6.2.4", "a client that has ended its side gets its answers", TCP,
         "scene half closed", "2 answers, then the end"),
    case(7766, "6.2.1", "a malformed question does not end the connection", TCP, "scene another",
         "FORMERR", "NOERROR"),
    case(5001, "2.2", "the server names itself to kdig", EDNS, "kdig +nsid www.ZONE A",
         'NSID: 7265736F6C7665722D31 "resolver-1"'),
    case(5001, "2.1", "the server does not name itself unasked", EDNS, "kdig +edns www.ZONE A",
         "192.0.2.80", "!NSID"),
    case(8914, "4.21", "kdig reads the extended error", RESPONDER, "kdig +edns www.example.net A",
         "status: REFUSED", "EDE: 20 (Not Authoritative)"),
    case(7871, "7.2.1", "kdig reads the scope", RESPONDER,
         "kdig +subnet=192.0.2.0/24 shop.steer.test A", "198.51.100.1", "192.0.2.0/24/24"),
)  # fmt: skip
