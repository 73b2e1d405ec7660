"""Record data from text, checked against what a stranger (BIND's named-rrchecker) makes of it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from resolver.records import a, aaaa, text

RRCHECKER = shutil.which("named-rrchecker")
ZONE = "gtm.test"
DATA = [
    ("A", "192.0.2.1"),
    ("AAAA", "2001:db8::1"),
    ("MX", "10 mail"),
    ("MX", "10 mail.example.org."),
    ("TXT", '"a;b" "c d"'),
    ("TXT", r'"\195\169 \"quoted\""'),
    ("TXT", "bare words here"),
    ("CNAME", "@"),
    ("NS", "ns1"),
    ("PTR", r"a\.b.example.org."),
    ("SRV", "1 2 443 svc"),
    ("CAA", '0 issue "ca.example.org"'),
    ("HINFO", '"CPU" "OS"'),
    ("URI", '10 1 "https://example.org/a?b=c"'),
    ("SVCB", '1 svc alpn="h2,h3" port=8443 ipv4hint=192.0.2.1'),
    ("HTTPS", "0 svc"),
    ("DNAME", "elsewhere.example.org."),
    ("NAPTR", '100 10 "u" "E2U+sip" "!^.*$!sip:a@example.org!" .'),
    ("TLSA", "3 1 1 " + "ab" * 32),
    ("SSHFP", "4 2 " + "cd" * 32),
    ("DS", "12345 13 2 " + "ef" * 32),
    ("LOC", "52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m"),
    ("RP", "hostmaster.gtm.test. ."),
    ("OPENPGPKEY", "AQIDBA=="),
    ("TYPE65280", r"\# 4 0a000001"),
    ("TYPE1", r"\# 4 c0000201"),
    ("TXT", r"\# 3 02 6162"),
]


@pytest.mark.skipif(RRCHECKER is None, reason="named-rrchecker (bind9-utils) is not installed")
@pytest.mark.parametrize(("rtype", "data"), DATA, ids=[" ".join(row)[:40] for row in DATA])
def test_data_is_what_bind_makes_of_it(rtype: str, data: str) -> None:
    done = subprocess.run(
        [RRCHECKER or "", "-u", "-o", f"{ZONE}."],
        input=f"IN {rtype} {data}\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    number, _, length, *octets = done.stdout.split()[1:]
    wire = bytes.fromhex("".join(octets))
    assert len(wire) == int(length)
    assert int(number.removeprefix("TYPE")) == text.rtype(rtype)
    assert text.rdata(rtype, data, ZONE).lower() == wire.lower()


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("@", b"\3gtm\4test\0"),
        ("WWW", b"\3www\3gtm\4test\0"),
        ("*.a", b"\1*\1a\3gtm\4test\0"),
        (r"a\.b", b"\3a.b\3gtm\4test\0"),
        ("www.example.org.", b"\3www\7example\3org\0"),
    ],
)
def test_owners_are_relative_to_their_zone(name: str, wire: bytes) -> None:
    assert text.owner(name, ZONE) == wire


@pytest.mark.parametrize("name", ["a..b", "a" * 64, ".".join(["a" * 60] * 5)])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name in a zone"):
        text.owner(name, ZONE)


def test_addresses_make_their_own_data() -> None:
    assert (a.TYPE, a.rdata("192.0.2.1")) == (1, b"\xc0\x00\x02\x01")
    assert (aaaa.TYPE, aaaa.rdata("::1")) == (28, bytes(15) + b"\x01")
    for wrong in (lambda: a.rdata("::1"), lambda: aaaa.rdata("192.0.2.1")):
        with pytest.raises(ValueError):
            wrong()
