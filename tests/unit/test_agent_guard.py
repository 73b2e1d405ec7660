"""What an agent refuses to probe, as tables."""

from __future__ import annotations

import pytest

from agent.guard import MAX_NETWORKS, Guard

DENIED = [
    ("169.254.169.254", "cloud metadata"),
    ("169.254.1.1", "link-local"),
    ("169.254.170.2", "cloud metadata"),
    ("100.100.100.200", "cloud metadata"),
    ("168.63.129.16", "cloud metadata"),
    ("192.0.0.192", "cloud metadata"),
    ("0.0.0.0", "this network"),
    ("0.1.2.3", "this network"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("febf::1", "link-local"),
    ("ff02::1", "multicast"),
    ("fd00:ec2::254", "cloud metadata"),
    ("fd20:ce::254", "cloud metadata"),
    # IPv4 in IPv6 clothes
    ("::ffff:169.254.169.254", "cloud metadata"),
    ("::ffff:a9fe:a9fe", "cloud metadata"),
    ("::169.254.169.254", "cloud metadata"),
    ("64:ff9b::169.254.169.254", "cloud metadata"),
    ("2002:a9fe:a9fe::1", "cloud metadata"),
    ("::ffff:224.0.0.1", "multicast"),
    ("::ffff:0.0.0.0", "this network"),
    # what systems read as addresses although it is none
    ("2852039166", "no address"),
    ("169.254.43518", "no address"),
    ("0169.0254.0251.0376", "no address"),
    ("169.254.169.254.", "no address"),
    ("", "no address"),
    ("1:2:3", "no address"),
]
FREE = ["192.0.2.1", "127.0.0.1", "10.0.0.1", "100.100.100.201", "169.253.255.255", "::1",
        "2001:db8::1", "fd00:ec2::255", "::ffff:192.0.2.1", "www.example.com"]  # fmt: skip


@pytest.mark.parametrize(("address", "why"), DENIED)
def test_what_no_coordinator_may_have_probed(address: str, why: str) -> None:
    assert why in Guard().denies(address)


@pytest.mark.parametrize("address", FREE)
def test_everything_else_may_be_probed(address: str) -> None:
    assert Guard().denies(address) == ""


OWN = [
    # deny, allow, address, denied
    (["10.0.0.0/8"], [], "10.1.2.3", True),
    (["10.0.0.0/8"], ["10.1.0.0/16"], "10.1.2.3", False),
    (["10.0.0.0/8"], ["10.1.0.0/16"], "10.2.2.3", True),
    (["10.1.2.0/24"], ["10.0.0.0/8"], "10.1.2.3", True),
    (["10.0.0.0/8"], ["10.0.0.0/8"], "10.1.2.3", True),  # of equal ones the denial counts
    (["0.0.0.0/0"], ["203.0.113.0/24"], "203.0.113.7", False),
    (["0.0.0.0/0"], ["203.0.113.0/24"], "198.51.100.7", True),
    ([], ["169.254.10.0/24"], "169.254.10.1", False),
    ([], ["169.254.0.0/16"], "169.254.10.1", False),  # and the settings before the default
    ([], ["169.254.0.0/16"], "169.254.169.254", True),
    ([], ["0.0.0.0/0", "::/0"], "169.254.169.254", True),
    ([], ["169.254.169.254/32"], "169.254.169.254", False),
    (["169.254.169.254/32"], ["169.254.169.254/32"], "169.254.169.254", True),
    (["127.0.0.0/8"], [], "127.0.0.1", True),
    (["127.0.0.0/8"], [], "::ffff:127.0.0.1", True),
    (["2001:db8::/32"], [], "2001:db8::1", True),
    (["::/0"], [], "::ffff:192.0.2.1", True),
    (["::/0"], [], "192.0.2.1", False),
]


@pytest.mark.parametrize(("deny", "allow", "address", "denied"), OWN)
def test_the_narrowest_network_decides(
    deny: list[str], allow: list[str], address: str, denied: bool
) -> None:
    assert bool(Guard(deny, allow).denies(address)) is denied


@pytest.mark.parametrize("text", ["10.0.0.1/8", "300.0.0.0/8", "example.com", ""])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Guard(deny=[text])


def test_networks_are_bounded() -> None:
    with pytest.raises(ValueError, match="more than"):
        Guard(deny=[f"10.{n // 250}.{n % 250}.0/24" for n in range(MAX_NETWORKS + 1)])
