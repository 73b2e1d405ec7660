"""What the brakes are worth an alarm for: one for each cause, never one for each address. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from gtm.state import Aside

from .alarms import Condition

NAMED = 5
"""Addresses or pools that an alarm names; of the others it says how many there are."""


def conditions(
    asides: Mapping[str, Aside],
    held: Collection[str],
    damped: Collection[str],
    floored: Collection[str],
) -> dict[str, Condition]:
    """The conditions that hold now: regions set aside, addresses held, damped, kept by a floor."""
    found = {
        f"region-aside/{name}": Condition(
            f"region {name} is set aside, so its votes do not count: {one.text}; look at its agents"
            " and their network"
        )
        for name, one in asides.items()
    }
    if held:
        found["addresses-held"] = Condition(
            f"too many addresses would have left service at once, so {_named(held)} are held in"
            " answers; gtm release POOL/ADDRESS lets one go, and each leaves by itself once its"
            " verdict has persisted"
        )
    if damped:
        found["addresses-damped"] = Condition(
            f"the verdicts of {_named(damped)} keep changing, so they are held down until quiet"
        )
    if floored:
        found["pools-floored"] = Condition(
            f"pools {_named(floored)} answer addresses that are down, as their floor asks"
        )
    return found


def _named(names: Iterable[str]) -> str:
    ordered = sorted(set(names))
    rest = len(ordered) - NAMED
    return ", ".join(ordered[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
