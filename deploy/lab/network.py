"""What the router of a lab does to packets between its nodes: drop, lose, hold back.

Pure: `Faults` says which, `ruleset` says it to nftables. Every pair is directed and made of two
addresses; a fault takes packets, so connections stand and nobody is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from gtm.errors import StartError

DELAYED_MARK = 7
"""Packets with it are routed to the relay, which gives them back when their time has come."""
RELAY_DEVICE = "late"

Pair = tuple[str, str]
"""Source and destination."""


class Faults(Struct, frozen=True):
    """What is wrong with the network now; without anything, all is well."""

    cut: frozenset[Pair] = frozenset()
    loss: Mapping[Pair, int] = {}
    """Of a hundred packets so many are lost, by chance."""
    delay: Mapping[Pair, int] = {}
    """Milliseconds that every packet is held back."""


def pairs(some: Iterable[str], others: Iterable[str], *, one_way: bool = False) -> frozenset[Pair]:
    """Every pair from `some` to `others`, and back unless `one_way`; nobody is cut off himself."""
    there = {(a, b) for a in some for b in others if a != b}
    return frozenset(there if one_way else there | {(b, a) for a, b in there})


def with_cut(faults: Faults, some: frozenset[Pair]) -> Faults:
    """The same with these pairs cut."""
    return Faults(faults.cut | some, faults.loss, faults.delay)


def with_loss(faults: Faults, some: frozenset[Pair], percent: int) -> Faults:
    """The same with this loss between these pairs; 0 ends it."""
    return Faults(faults.cut, _changed(faults.loss, some, percent), faults.delay)


def with_delay(faults: Faults, some: frozenset[Pair], delay_ms: int) -> Faults:
    """The same with this delay between these pairs; 0 ends it."""
    return Faults(faults.cut, faults.loss, _changed(faults.delay, some, delay_ms))


def without(faults: Faults, some: frozenset[Pair]) -> Faults:
    """The same with nothing wrong between these pairs."""

    def rest(given: Mapping[Pair, int]) -> dict[Pair, int]:
        return {pair: number for pair, number in given.items() if pair not in some}

    return Faults(faults.cut - some, rest(faults.loss), rest(faults.delay))


def percent(text: str) -> int:
    """`20%` as 20; StartError for anything else than 0% to 100%."""
    number = text.removesuffix("%")
    if number == text or not number.isdecimal() or int(number) > 100:
        raise StartError(f"{text!r} is no share of packets such as 20%", 2)
    return int(number)


def milliseconds(text: str) -> int:
    """`200ms` or `1s` as milliseconds, at most a minute; StartError for anything else."""
    for unit, factor in (("ms", 1), ("s", 1000)):
        number = text.removesuffix(unit)
        if number != text and number.isdecimal() and int(number) * factor <= 60_000:
            return int(number) * factor
    raise StartError(f"{text!r} is no delay such as 200ms or 1s, at most 60s", 2)


def ruleset(faults: Faults) -> str:
    """What nftables is told, in place of all that it was told before."""
    lost: dict[int, list[Pair]] = {}
    for pair, share in faults.loss.items():
        lost.setdefault(share, []).append(pair)
    forward = [f"    {_of(faults.cut)} counter drop"] if faults.cut else []
    for share, some in sorted(lost.items()):
        chance = f" numgen random mod 100 < {share}" if share < 100 else ""  # else nft refuses
        forward.append(f"    {_of(some)}{chance} counter drop")
    marks = [f'    iifname != "{RELAY_DEVICE}" {_of(faults.delay)} meta mark set {DELAYED_MARK}']
    return "\n".join(
        [
            "flush ruleset",
            "table ip lab {",
            "  chain forward {",
            "    type filter hook forward priority 0; policy accept;",
            *forward,
            "  }",
            "  chain late {",
            "    type filter hook prerouting priority -150; policy accept;",
            *(marks if faults.delay else []),
            "  }",
            "}",
            "",
        ]
    )


def _changed(given: Mapping[Pair, int], some: frozenset[Pair], number: int) -> dict[Pair, int]:
    changed = {**given, **dict.fromkeys(some, number)}
    return {pair: kept for pair, kept in changed.items() if kept}


def _of(some: Iterable[Pair]) -> str:
    return f"ip saddr . ip daddr {{ {', '.join(f'{a} . {b}' for a, b in sorted(some))} }}"
