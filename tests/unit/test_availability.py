"""When a pool can serve a family."""

import pytest

from gtm.availability import addresses, available, eligible, judged_once, tier_available
from gtm.choices import PoolRef
from gtm.model import Rule, Tier
from gtm.state import AddressSet, Member, PoolState, Why
from gtm.units import Least


def tier(*names: str, least: object = None) -> Tier:
    """A tier of these pools."""
    needed = None if least is None else Least.parse(least)
    return Tier(pools=tuple(PoolRef(pool=name) for name in names), min_available=needed)


def pool(letters: str, least: object = 1) -> PoolState:
    """u: up, d: down, o: offline, a: answered, not counted, h: held, f: floored, r: drained."""
    kinds: dict[str, tuple[bool, bool, Why]] = {
        "u": (True, True, "up"),
        "d": (False, False, "down"),
        "o": (False, False, "offline"),
        "a": (True, False, "down"),
        "r": (False, True, "drained"),
        "h": (True, False, "held"),
        "f": (True, False, "floored"),
    }
    return PoolState(
        type="ipv4",
        min_available=Least.parse(least),
        members=tuple(
            Member(value=f"192.0.2.{n}", answered=kinds[c][0], counted=kinds[c][1], why=kinds[c][2])
            for n, c in enumerate(letters)
        ),
    )


@pytest.mark.parametrize(
    ("members", "least", "is_available"),
    [
        ("u", 1, True),
        ("d", 1, False),
        ("", 1, False),
        ("o", 1, False),
        ("ud", 2, False),
        ("uu", 2, True),
        ("udd", "50%", False),
        ("udo", "50%", True),  # the offline member is no part of the total
        ("uo", "all", True),
        ("ud", "all", False),
        ("a", 1, False),  # answered, never counted
        ("u", 2, False),
        ("ur", 2, True),  # a drained member counts while another is answered
        ("rr", 1, False),  # nobody is answered
        ("hf", 1, False),  # brakes keep members in answers, not a pool in front of its backup
        ("hr", 1, False),  # nobody but a held one is answered
        ("uh", 1, True),
        ("uh", 2, False),
        ("uhh", "50%", False),  # held members are part of the total
    ],
)
def test_availability_of_a_pool(members: str, least: object, is_available: bool) -> None:
    assert available(pool(members, least), "ipv4") is is_available


def test_a_pool_serves_its_own_family_alone_and_an_unpublished_one_none() -> None:
    assert not available(pool("u"), "ipv6")
    assert not available(None, "ipv4")


def test_of_a_tier_the_available_pools_serve_in_order() -> None:
    pools = {"a": pool("d"), "b": pool("u"), "c": pool("u")}
    assert tier_available(tier("c", "a", "b", "missing"), pools, "ipv4") == ("c", "b")


@pytest.mark.parametrize(
    ("members", "least", "found"),
    [
        ({"a": "ud", "b": "u"}, 2, ("a", "b")),
        ({"a": "ud", "b": "d"}, 2, ()),
        ({"a": "ud", "b": "uu"}, "70%", ("a", "b")),
        ({"a": "ud", "b": "ud"}, "70%", ()),
        ({"a": "uo", "b": "u"}, "all", ("a", "b")),
        ({"a": "d"}, 1, ()),
    ],
)
def test_a_tier_may_need_addresses_over_all_its_pools(
    members: dict[str, str], least: object, found: tuple[str, ...]
) -> None:
    pools = {name: pool(letters) for name, letters in members.items()}
    assert tier_available(tier(*members, least=least), pools, "ipv4") == found


def named(*values: str, flatten: bool = False) -> PoolState:
    """A domain pool whose names resolved to `values` (one address each; "": to nothing yet)."""
    return PoolState(
        type="domain",
        flatten=flatten,
        members=tuple(
            Member(
                value=f"m{number}.example.net",
                answered=True,
                counted=True,
                why="up",
                set=AddressSet(addresses=(value,), ttl=30, since=0.0) if value else None,
            )
            for number, value in enumerate(values)
        ),
    )


def test_a_flattened_pool_serves_the_families_that_its_names_have() -> None:
    mixed = named("192.0.2.1", "2001:db8::1", "", flatten=True)
    assert [addresses(member, "ipv6") for member in eligible(mixed, "ipv6")] == [("2001:db8::1",)]
    assert available(mixed, "ipv4")
    assert available(mixed, "ipv6")
    assert not available(named("192.0.2.1", flatten=True), "ipv6")
    assert not available(named("", flatten=True), "ipv4")


def test_a_pool_of_cnames_serves_no_family_but_whichever() -> None:
    assert available(named(""), None)
    assert not available(named(""), "ipv4")
    pools = {"a": pool("u"), "cdn": named(""), "flat": named("", flatten=True)}
    rules = {
        names: Rule(name="r", lines=("default",), tiers=tuple(tier(name) for name in names))
        for names in [("a", "cdn"), ("a", "flat"), ("missing",)]
    }
    assert [judged_once(rule, pools) for rule in rules.values()] == [True, False, False]
