"""The third opinion in the comparison with gdnsd, and what counts as explained."""

from __future__ import annotations

import ipaddress

import pytest

from benchmarks.compare_gdnsd import clients, reason
from benchmarks.gdnsd_servers import hierarchy
from benchmarks.gdnsd_world import Opinion

SAID = [
    (ipaddress.IPv4Network("10.0.0.0/9"), "as"),
    (ipaddress.IPv4Network("10.128.0.0/10"), "as"),
    (ipaddress.IPv4Network("10.192.0.0/10"), "eu"),
]


@pytest.mark.parametrize(
    ("own", "client", "said"),
    [
        ({}, "10.1.2.3", ("as", 9)),
        ({}, "10.130.0.0", ("as", 10)),
        ({}, "10.255.255.255", ("eu", 10)),
        ({}, "192.0.2.1", ("world", 1)),
        ({}, "0.0.0.0", ("world", 5)),
        ({}, "11.0.0.0", ("world", 8)),
        ({"10.192.0.0/10": "as"}, "10.200.0.0", ("as", 8)),
        ({"10.0.0.0/7": "us", "10.1.0.0/16": "eu"}, "10.0.0.1", ("us", 16)),
        ({"10.0.0.0/7": "us", "10.1.0.0/16": "eu"}, "10.1.0.1", ("eu", 16)),
        ({"10.0.0.0/7": "us", "10.1.0.0/16": "eu"}, "11.1.0.1", ("us", 8)),
        ({"255.0.0.0/8": "us"}, "255.1.1.1", ("us", 8)),
    ],
)
def test_the_opinion_is_the_widest_block_where_all_get_the_same(
    own: dict[str, str], client: str, said: tuple[str, int]
) -> None:
    assert Opinion(SAID, own, "world").of(int(ipaddress.IPv4Address(client))) == said


def test_without_networks_everybody_gets_the_same() -> None:
    assert Opinion((), {}, "world").of(7) == ("world", 0)


@pytest.mark.parametrize(
    ("ours", "theirs", "widest", "by_rule", "explained"),
    [
        (9, 9, 9, 9, True),
        (0, 0, 0, 0, True),
        (12, 9, 9, 12, True),
        (12, 9, 9, 9, False),
        (12, 9, 9, 11, False),
        (9, 12, 9, 12, False),
        (8, 8, 9, 9, False),
        (8, 9, 9, 9, False),
        (-1, 0, 0, 0, False),
    ],
)
def test_a_scope_is_explained_only_as_wide_as_an_answer_or_a_rule_holds(
    ours: int, theirs: int, widest: int, by_rule: int, explained: bool
) -> None:
    assert bool(reason(ours, theirs, widest, by_rule)) == explained


def test_the_same_seed_gives_the_same_clients() -> None:
    assert clients(7, 50) == clients(7, 50) != clients(8, 50)


def test_countries_stand_within_their_continents_as_gdnsd_nests_them() -> None:
    assert "default => [world] " in hierarchy()
    assert "AS => { CN => [cn] default => [as] }" in hierarchy()
