"""The configuration of a lab, and what is right to answer from it.

Two pools with origins and one where nobody ever is, so that every kind of wrong answer can show: an
address that comes back or goes without cause, a backup that is taken for nothing, one that is not
taken. `picture` is the plain truth about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctl.digs import in_order

from .nodes import NOBODY, WEB, Shape, origin_address

ZONE = "lab.gtm.test"
NEAR, FAR, BACKED = (f"gtm0000000{number}.{ZONE} A" for number in (1, 2, 3))
INTERVAL_S, TIMEOUT_S = 1.0, 0.5
GRACE_S = 3 * INTERVAL_S + TIMEOUT_S
"""After so long without a word a region has no vote."""


def pools(shape: Shape) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The addresses of the pools `a` and `b`."""
    a = tuple(origin_address("a", n) for n in range(1, shape.origins_a + 1))
    return a, tuple(origin_address("b", n) for n in range(1, shape.origins_b + 1))


def regions(shape: Shape) -> tuple[str, ...]:
    """Their names."""
    return tuple(f"r{number}" for number in range(1, shape.regions + 1))


def configuration(shape: Shape) -> dict[str, Any]:
    """The resources; health is judged by the ordinary rules: half of the regions see it down."""

    def pool(*values: str) -> dict[str, Any]:
        return {"type": "ipv4", "checks": ["web"], "addresses": [{"value": one} for one in values]}

    def instance(number: int, first: str, second: str) -> dict[str, Any]:
        tiers = [{"pools": [first]}, {"pools": [second]}]
        rules = [{"name": "all", "lines": ["default"], "tiers": tiers}]
        return {"id": f"gtm0000000{number}", "zone": ZONE, "ttl": "30s", "rules": rules}

    a, b = pools(shape)
    web = {"type": "http", "port": WEB, "interval": "1s", "timeout": "500ms", "fall": 2, "rise": 2}
    static = {"name": "ns1", "type": "A", "data": ["192.0.2.53"]}
    return {
        "zones": {ZONE: {"nameservers": [f"ns1.{ZONE}"], "records": [static]}},
        "regions": {name: {} for name in regions(shape)},
        "checks": {"web": web},
        "pools": {"a": pool(*a), "b": pool(*b), "c": pool(NOBODY)},
        "instances": {
            "near": instance(1, "a", "b"),
            "far": instance(2, "b", "a"),
            "backed": instance(3, "c", "b"),
        },
    }


def picture(shape: Shape, *down: str) -> Mapping[str, str]:
    """What is right while exactly these origins are down: question -> answer, as tests/load.py."""
    a, b = (" ".join(in_order({*pool} - {*down})) for pool in pools(shape))
    # Where every address of every tier is down, those of the first pool are all answered.
    first_a, first_b = (" ".join(in_order(pool)) for pool in pools(shape))
    return {
        NEAR: f"NOERROR {a or b or first_a}",
        FAR: f"NOERROR {b or a or first_b}",
        BACKED: f"NOERROR {b or NOBODY}",
        f"ns1.{ZONE} A": "NOERROR 192.0.2.53",
        f"nobody.{ZONE} A": "NXDOMAIN",
    }
