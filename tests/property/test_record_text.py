"""What is read without the library, because it is plain, is what the library reads."""

from __future__ import annotations

import dns.exception
import dns.name
import dns.rdata
from hypothesis import given
from hypothesis import strategies as st

from resolver.records import text

ZONES = st.sampled_from(["gtm.test", ".", "a" * 63 + ".b"])
LABELS = st.text("abcXYZ019-_*\\@ é", min_size=1, max_size=64)
OWNERS = st.one_of(
    st.lists(LABELS, min_size=1, max_size=5).map(".".join),
    st.text("ab.", max_size=260),
    st.from_regex(r"([a-z0-9-]{1,63}\.){0,3}[a-z0-9-]{1,63}", fullmatch=True),
)
IPV4 = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.text("0123456789.", max_size=16),
    st.lists(st.integers(0, 300).map(str), min_size=3, max_size=5).map(".".join),
)
IPV6 = st.one_of(st.ip_addresses(v=6).map(str), st.text("0123afAF:.%", max_size=40))


@given(OWNERS, ZONES)
def test_an_owner_is_read_as_the_library_reads_it(name: str, zone: str) -> None:
    try:
        expected = dns.name.from_text(name, dns.name.from_text(zone)).to_digestable()
    except (dns.exception.DNSException, ValueError, UnicodeError):
        expected = None
    try:
        assert text.owner(name, zone) == expected
    except ValueError:
        assert expected is None


@given(st.one_of(st.tuples(st.just("A"), IPV4), st.tuples(st.just("AAAA"), IPV6)))
def test_an_address_is_read_as_the_library_reads_it(record: tuple[str, str]) -> None:
    kind, data = record
    try:
        expected = dns.rdata.from_text("IN", kind, data).to_wire()
    except (dns.exception.DNSException, ValueError):
        expected = None
    try:
        assert text.rdata(kind, data, "gtm.test") == expected
    except ValueError:
        assert expected is None
