"""When a pool can serve a family."""

import pytest

from gtm.availability import available, tier_available
from gtm.state import Member, PoolState, Why
from gtm.units import Least


def pool(letters: str, least: object = 1) -> PoolState:
    """u: up, d: down, o: offline, a: answered but not counted (held)."""
    kinds: dict[str, tuple[bool, bool, Why]] = {
        "u": (True, True, "up"),
        "d": (False, False, "down"),
        "o": (False, False, "offline"),
        "a": (True, False, "down"),
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
    ],
)
def test_availability_of_a_pool(members: str, least: object, is_available: bool) -> None:
    assert available(pool(members, least), "ipv4") is is_available


def test_a_pool_serves_its_own_family_alone_and_an_unpublished_one_none() -> None:
    assert not available(pool("u"), "ipv6")
    assert not available(None, "ipv4")


def test_of_a_tier_the_available_pools_serve_in_order() -> None:
    pools = {"a": pool("d"), "b": pool("u"), "c": pool("u")}
    assert tier_available(["c", "a", "b", "missing"], pools, "ipv4") == ("c", "b")
