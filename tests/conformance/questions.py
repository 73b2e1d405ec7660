"""Random questions about the zones: names inside, outside, below wildcards and cuts, in any case.

Every question is a pure function of the seed and its number.
"""

from __future__ import annotations

import dataclasses
import random
import struct
from collections.abc import Sequence

import dns.name
import dns.rdatatype

from tests.conformance.zones import NAMES, parsed

TYPES = (
    "A", "NS", "CNAME", "SOA", "PTR", "MX", "TXT", "AAAA", "SRV", "DS", "DNAME", "CAA", "SVCB",
    "HTTPS", "URI", "SSHFP", "TLSA", "NAPTR", "LOC", "HINFO", "RP", "AFSDB", "KX", "CERT",
    "DHCID", "OPENPGPKEY", "SMIMEA", "APL", "EUI48", "EUI64", "NID", "L32", "L64", "LP", "SPF",
    "RT", "X25", "PX", "DNSKEY", "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "CDS", "CDNSKEY",
    "CSYNC", "ZONEMD", "TYPE731", "TYPE62347", "TYPE65280", "TYPE65534", "MB", "MG", "MR", "NULL",
    "WKS", "MINFO", "TYPE14", "ISDN", "NSAP", "KEY", "SIG", "GPOS", "IPSECKEY", "HIP", "NINFO",
    "TYPE57", "TYPE58", "TYPE99",
)  # fmt: skip
COMMON = ("A", "AAAA", "TXT", "MX", "NS", "CNAME", "DS", "SOA", "SRV", "HTTPS", "DNAME")
PAYLOADS = (None, None, None, 0, 512, 900, 1232, 1232, 1232, 4096, 65535)
LABELS = (
    b"a", b"x", b"www", b"ns", b"*", b"\x00", b"\xff.\x07", b"missing", b"_tcp", b"_sip", b"host1",
    b"y" * 63, b"in.label", b"UPPER", b"7", b"**", b"sub", b"wild", b"@",
)  # fmt: skip
OUTSIDE = (
    "example.net.", "test.", "conf.test.example.", "xconf.test.", "www.example.net.", ".", "arpa.",
    "version.bind.", "id.server.", "est.", "conf.tes.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked and how: the name in its case, EDNS buffer (None: no EDNS), transport."""

    name: dns.name.Name
    qtype: int
    tcp: bool
    payload: int | None
    do: bool
    flags: int
    """RD, AD and CD of the header."""

    def __str__(self) -> str:
        edns = "" if self.payload is None else f" +bufsize={self.payload}"
        options = (" +tcp" if self.tcp else " +notcp +ignore") + edns
        options += " +dnssec" if self.do else ""
        options += "".join(
            f" +{name}" if self.flags & bit else f" +no{name}"
            for name, bit in (("rd", 0x100), ("ad", 0x20), ("cd", 0x10))
        )
        return f"{self.name.to_text()!r} {dns.rdatatype.to_text(self.qtype)}{options}"

    def wire(self, ident: int) -> bytes:
        """The query."""
        header = struct.pack(">6H", ident, self.flags, 1, 0, 0, self.payload is not None)
        name = b"".join(bytes((len(label),)) + label for label in self.name.labels)
        opt = b""
        if self.payload is not None:
            opt = struct.pack(">BHHIH", 0, 41, self.payload, 0x8000 if self.do else 0, 0)
        return header + name + struct.pack(">HH", self.qtype, 1) + opt


class Dice:
    """Questions from a seed."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._pairs: list[tuple[dns.name.Name, int]] = []
        targets: set[dns.name.Name] = set()
        for zone in NAMES:
            for owner, rdataset in parsed(zone).iterate_rdatasets():
                self._pairs.append((owner, int(rdataset.rdtype)))
                targets |= {
                    value
                    for rdata in rdataset
                    for slot in getattr(rdata, "__slots__", ())
                    if isinstance(value := getattr(rdata, slot), dns.name.Name)
                }
        self._names = sorted({owner for owner, _ in self._pairs} | targets)
        self._types = sorted({qtype for _, qtype in self._pairs})

    def question(self) -> Question:
        """The next question."""
        dice = self._dice
        name, qtype = self._name_and_type()
        payload = dice.choice(PAYLOADS)
        flags = sum(bit for bit in (0x100, 0x20, 0x10) if dice.random() < 0.3)
        return Question(
            name=self._cased(name),
            qtype=qtype,
            tcp=dice.random() < 0.25,
            payload=payload,
            do=payload is not None and dice.random() < 0.5,
            flags=flags,
        )

    def _name_and_type(self) -> tuple[dns.name.Name, int]:
        dice = self._dice
        name, qtype = dice.choice(self._pairs)
        kind = dice.random()
        if kind < 0.30:
            return name, qtype
        if kind < 0.40:
            return name, self._type()
        if kind < 0.50:
            return dice.choice(self._names), self._type()
        if kind < 0.53:
            return dns.name.from_text(dice.choice(OUTSIDE)), self._type()
        if kind < 0.60 and len(name) > 2:  # above: an empty non-terminal maybe
            return name.parent(), self._type()
        if kind < 0.70 and len(name) > 2:  # beside
            return self._below(name.parent(), 1), dice.choice((qtype, self._type()))
        if name.labels[0] == b"*":
            return self._below(name.parent(), dice.choice((1, 1, 2))), qtype
        return self._below(name, dice.choice((1, 1, 1, 2, 3))), dice.choice((qtype, self._type()))

    def _below(self, name: dns.name.Name, labels: int) -> dns.name.Name:
        for _ in range(labels):
            label = self._dice.choice((*LABELS, self._dice.choice(self._names).labels[0] or b"a"))
            try:
                name = dns.name.Name((label, *name.labels))
            except dns.name.NameTooLong:
                break
        return name

    def _type(self) -> int:
        dice = self._dice
        kind = dice.random()
        if kind < 0.6:
            return int(dns.rdatatype.from_text(dice.choice(COMMON)))
        if kind < 0.75:
            return dice.choice(self._types)
        if kind < 0.9:
            return int(dns.rdatatype.from_text(dice.choice(TYPES)))
        if kind < 0.94:
            return int(dns.rdatatype.ANY)
        if kind < 0.97:
            return dice.randrange(1, 65536)
        return dice.randrange(1, 266)

    def _cased(self, name: dns.name.Name) -> dns.name.Name:
        if self._dice.random() < 0.5:
            return name
        return dns.name.Name([self._mixed(label) for label in name.labels])

    def _mixed(self, label: bytes) -> bytes:
        octets: Sequence[int] = [
            octet ^ 0x20
            if (65 <= octet <= 90 or 97 <= octet <= 122) and self._dice.random() < 0.5
            else octet
            for octet in label
        ]
        return bytes(octets)
