"""Expectations on routing, as users write them beside their resources: who must get which pool.

Values only: whether they hold is decided by the policy (`gtm.ports.Policy`), before an apply
changes anything and by `gtm test`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gtm.model import Label

MAX_EXPECTATIONS = 1_000
"""The most expectations of one set."""


def _doc(text: str) -> Meta:
    return Meta(description=text)


class Expectation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What clients of a line, or a client, must or must never be answered."""

    instance: Annotated[Label, _doc("whose answers")]
    client: Annotated[str, Meta(min_length=1), _doc("a line, an address or a network")]
    type: Annotated[Literal["A", "AAAA"], _doc("the type that is asked")] = "A"
    down: Annotated[
        tuple[str, ...], _doc("what is down meanwhile: POOL or POOL/ADDRESS; all else is up")
    ] = ()
    gets: Annotated[tuple[Label, ...] | UnsetType, _doc("the pools that answer, these alone")] = (
        UNSET
    )
    never: Annotated[
        tuple[Label, ...], _doc("pools that may never answer, whatever is down: proved")
    ] = ()
    at_least: Annotated[int, Meta(ge=0, le=64), _doc("addresses in every answer")] = 0
    any_one_down: Annotated[
        Literal["", "pool", "address"],
        _doc("at_least and gets hold with any single pool, or address, of the instance down too"),
    ] = ""

    def problems(self) -> tuple[str, ...]:
        """What is wrong with it by itself."""
        if self.gets is UNSET and not self.never and not self.at_least:
            return ("expects nothing: give gets, never or at_least",)
        if self.any_one_down and self.gets is UNSET and not self.at_least:
            return ("any_one_down needs gets or at_least",)
        return ()

    def __str__(self) -> str:
        given = f"with {', '.join(self.down)} down, " if self.down else ""
        single = f" with any one {self.any_one_down} down" if self.any_one_down else ""
        wanted = []
        if self.gets is not UNSET:
            wanted.append(f"gets {', '.join(self.gets) or 'no pool'}{single}")
        if self.at_least:
            wanted.append(f"gets at least {self.at_least} addresses{single}")
        if self.never:
            wanted.append(f"never gets {', '.join(self.never)}")
        return f"{self.instance} {self.type}: {given}{self.client} {' and '.join(wanted)}"
