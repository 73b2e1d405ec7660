"""Text forms: names, owners, addresses and lines in their one canonical text, or a sentence."""

from __future__ import annotations

import ipaddress
import itertools

import pytest

from gtm import forms

ADDRESSES = [
    ("192.0.2.1", "192.0.2.1"), ("1.0.0.0", "1.0.0.0"), ("223.255.255.255", "223.255.255.255"),
    ("0.1.2.3", "0.1.2.3"), ("240.0.0.1", "240.0.0.1"), ("127.0.0.1", "127.0.0.1"),
    ("2001:DB8:0:0::1", "2001:db8::1"), ("::1", "::1"), ("2001:db8:0:1:1:1:1:1",) * 2,
]  # fmt: skip


@pytest.mark.parametrize(("text", "canonical"), ADDRESSES)
def test_an_address_has_one_text(text: str, canonical: str) -> None:
    assert forms.address(text) == canonical


NO_ADDRESSES = [
    "", "192.0.2", "192.0.2.1.1", "192.0.2.01", "256.0.0.1", "192.0.2.256", "224.0.0.1", "0.0.0.0",
    "255.255.255.255", "::", "ff02::1", "::ffff:192.0.2.1", "fe80::1%lo", "192.0.2.1 ", "١.1.1.1",
    "192.0.2.1\n", "0x1.1.1.1", "1", "localhost",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_of_a_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no|IPv4 in IPv6|scope"):
        forms.address(text)


def test_the_quick_way_agrees_with_the_library() -> None:
    octets = [
        "0",
        "1",
        "9",
        "10",
        "99",
        "100",
        "199",
        "200",
        "223",
        "224",
        "249",
        "255",
        "256",
        "01",
    ]
    for first, last in itertools.product(octets, octets):
        text = f"{first}.0.{last}.7"
        try:
            known = ipaddress.IPv4Address(text)
        except ValueError:
            known = None
        host = known is not None and not known.is_multicast and not known.is_unspecified
        try:
            found = forms.address(text)
        except ValueError:
            found = ""
        assert found == (str(known) if host else ""), text


OWNERS = [
    ("@", "@"), ("www", "www"), ("WWW", "www"), ("*", "*"), ("*.a", "*.a"), ("a.b", "a.b"),
    ("Example.NET.", "@"), ("www.Example.net.", "www"), ("_sip._tcp", "_sip._tcp"),
    ("0/25", "0/25"), ("*.a.*.b", "*.a.*.b"), (r"\042.a", "*.a"), (r"\065\b", "ab"),
    (r"a\.b.c", r"a\046b.c"), (r"\000.\255", r"\000.\255"), (r"\*a", r"\042a"),
    (r"x\\", r"x\092"), (r"\@", r"\064"), ("\\000" * 63, "\\000" * 63),
    (r"a\046.example.net.", r"a\046"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "owner"), OWNERS)
def test_an_owner_is_relative_to_its_zone(text: str, owner: str) -> None:
    assert forms.owner(text, "example.net") == owner
    absolute = forms.absolute(owner, "example.net")
    assert forms.owner(f"{absolute}.", "example.net") == owner


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.",
        "example.org.",
        "xexample.net.",
        "*a",
        "a*.b",
        "a..b",
        "a b",
        "x" * 64,
        "ä",
        "\\ä",
        "a\\",
        r"a\25",
        r"a\256",
        "\\000" * 64,
        r"a\.example.net.",
    ],
)
def test_what_is_no_owner_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no name of records|outside"):
        forms.owner(text, "example.net")


def test_names_have_bounds() -> None:
    longest = ".".join(["a" * 63] * 3 + ["a" * 61])
    assert len(longest) == forms.MAX_NAME
    assert forms.domain(longest.upper() + ".") == longest
    with pytest.raises(ValueError, match="longer than 253"):
        forms.domain("a" + longest)
    with pytest.raises(ValueError, match="too long"):
        forms.owner("a" * 60, longest[:200])
    assert forms.label("a" * 63) == "a" * 63
    with pytest.raises(ValueError, match="no name"):
        forms.label("a" * 64)


@pytest.mark.parametrize("text", ["", "a.b", "-a", "a-", "ä", "a/b", "a:b", "a\n"])
def test_a_label_has_label_characters(text: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        forms.label(text)
