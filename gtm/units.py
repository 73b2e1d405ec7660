"""Quantities as users write them: durations, shares, counts-or-shares, voters.

Each type parses what a configuration may say, keeps it exactly (no floats), and prints one
canonical text. `parse` raises ValueError with a sentence fit for a user.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_KEPT = frozenset((str, int))
"""What is asked again and again, so that it is remembered what it parsed to."""
MAX_DURATION_MS = 366 * 86_400_000
"""The longest duration that any setting takes: a leap year."""


@functools.total_ordering
class Duration:
    """A span of time in whole milliseconds; written `500ms`, `15s`, `1m`, `2h`, `7d` or seconds."""

    __slots__ = ("ms",)
    ms: int

    def __init__(self, ms: int) -> None:
        object.__setattr__(self, "ms", ms)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Duration does not change")

    @classmethod
    def parse(cls, value: object) -> Duration:
        """`value` as a duration; ValueError says what would be one."""
        if isinstance(value, Duration):
            return value
        return _duration(value) if type(value) in _KEPT else cls._parsed(value)

    @classmethod
    def _parsed(cls, value: object) -> Duration:
        ms: Fraction | None = None
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                ms = Fraction(str(value)) * 1000
            except ValueError:  # inf, nan
                ms = None
        elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
            ms = Fraction(match[1]) * _UNIT_MS[match[2]]
        if ms is None or ms < 0:
            raise ValueError(f"{value!r} is not a duration such as 500ms, 15s, 1m, 2h or 7d")
        if ms.denominator != 1:
            raise ValueError(f"{value!r} is finer than a millisecond")
        if ms > MAX_DURATION_MS:
            raise ValueError(f"{value!r} is longer than a year")
        return cls(int(ms))

    @property
    def s(self) -> float:
        """The duration in seconds."""
        return self.ms / 1000

    def __str__(self) -> str:
        for unit in ("d", "h", "m", "s"):
            if self.ms and self.ms % _UNIT_MS[unit] == 0:
                return f"{self.ms // _UNIT_MS[unit]}{unit}"
        return f"{self.ms}ms" if self.ms else "0s"

    def __repr__(self) -> str:
        return f"Duration({self.ms})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.ms == other.ms

    def __lt__(self, other: Duration) -> bool:
        return self.ms < other.ms

    def __hash__(self) -> int:
        return hash((Duration, self.ms))

    def __reduce__(self) -> tuple[type[Duration], tuple[int]]:
        return (Duration, (self.ms,))


def parse_share(value: object) -> Fraction:
    """`50%` or `0.5` as an exact fraction in 0..1; ValueError says what would be one."""
    share: Fraction | None = None
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value.strip())):
        share = Fraction(match[1]) / 100
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            share = Fraction(str(value))
        except ValueError:
            share = None
    if share is None or not 0 <= share <= 1:
        raise ValueError(f"{value!r} is not a share such as 50% or 0.5")
    return share


def share_text(share: Fraction) -> str:
    """The canonical text of a share, in per cent; exact for whatever `parse_share` takes."""
    percent = share * 100
    if percent.denominator == 1:
        return f"{percent.numerator}%"
    digits = 0
    while (percent * 10**digits).denominator != 1:
        digits += 1
    whole = int(percent * 10**digits)
    return f"{whole // 10**digits}.{whole % 10**digits:0{digits}d}%"


class Share:
    """A part of a whole, exact, in 0..1; written `50%` or `0.5`."""

    __slots__ = ("of_one",)
    of_one: Fraction

    def __init__(self, of_one: Fraction) -> None:
        object.__setattr__(self, "of_one", of_one)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Share does not change")

    @classmethod
    def parse(cls, value: object) -> Share:
        """`value` as a share; ValueError says what would be one."""
        return value if isinstance(value, Share) else cls(parse_share(value))

    def __str__(self) -> str:
        return share_text(self.of_one)

    def __repr__(self) -> str:
        return f"Share({self.of_one!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Share) and self.of_one == other.of_one

    def __hash__(self) -> int:
        return hash((Share, self.of_one))

    def __reduce__(self) -> tuple[type[Share], tuple[Fraction]]:
        return (Share, (self.of_one,))


class Least:
    """A least number out of a total: a count or a share; written `2`, `50%`, `any`, `all`."""

    __slots__ = ("count", "share")
    count: int
    share: Fraction | None

    def __init__(self, count: int = 1, share: Fraction | None = None) -> None:
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "share", share)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Least does not change")

    @classmethod
    def parse(cls, value: object) -> Least:
        """`value` as a count or a share; an integer is a count, `any` is 1, `all` is 100%."""
        if isinstance(value, Least):
            return value
        return _least(value) if type(value) in _KEPT else cls._parsed(value)

    @classmethod
    def _parsed(cls, value: object) -> Least:
        if value == "any":
            return cls(1)
        if value == "all":
            return cls(0, Fraction(1))
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise ValueError(f"{value!r} is not a count from 1 on")
            return cls(value)
        try:
            share = parse_share(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a count, a share such as 50%, any or all") from None
        if share == 0:
            raise ValueError("a share of 0 asks for nothing; say any")
        return cls(0, share)

    def met(self, number: int, total: int) -> bool:
        """Whether `number` out of `total` is enough; never with number 0.

        A count above `total` can't be met, which is what a pool with too few members means.
        """
        if number < 1:
            return False
        if self.share is None:
            return number >= self.count
        # whole numbers: a Fraction for each address of each pool takes ten times as long
        return number * self.share.denominator >= self.share.numerator * total

    def plain(self) -> int | str:
        """The canonical form in JSON."""
        return self.count if self.share is None else share_text(self.share)

    def __str__(self) -> str:
        return str(self.plain())

    def __repr__(self) -> str:
        return f"Least({self.count}, {self.share!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Least) and (self.count, self.share) == (other.count, other.share)

    def __hash__(self) -> int:
        return hash((Least, self.count, self.share))

    def __reduce__(self) -> tuple[type[Least], tuple[int, Fraction | None]]:
        return (Least, (self.count, self.share))


class Voters:
    """How many regions must have a vote: `majority` (more than half), a count, or a share."""

    __slots__ = ("count", "share")
    count: int
    share: Fraction | None

    def __init__(self, count: int = 0, share: Fraction | None = None) -> None:
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "share", share)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Voters do not change")

    @classmethod
    def parse(cls, value: object) -> Voters:
        """`value` as voters; count 0 without a share stands for the majority."""
        if isinstance(value, Voters):
            return value
        if value == "majority":
            return cls()
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise ValueError(f"{value!r} is not a number of regions from 1 on")
            return cls(value)
        try:
            share = parse_share(value)
        except ValueError:
            raise ValueError(
                f"{value!r} is not majority, a count, or a share such as 50%"
            ) from None
        if share == 0:
            raise ValueError("a share of 0 asks for no voter at all; say 1")
        return cls(0, share)

    def needed(self, regions: int) -> int:
        """How many of `regions` regions must vote; never below 1, a count never above `regions`."""
        if self.share is not None:
            return max(1, -((-self.share.numerator * regions) // self.share.denominator))
        if self.count == 0:
            return regions // 2 + 1
        return max(1, min(self.count, regions))

    def plain(self) -> int | str:
        """The canonical form in JSON."""
        if self.share is not None:
            return share_text(self.share)
        return self.count or "majority"

    def __str__(self) -> str:
        return str(self.plain())

    def __repr__(self) -> str:
        return f"Voters({self.count}, {self.share!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Voters) and (self.count, self.share) == (other.count, other.share)

    def __hash__(self) -> int:
        return hash((Voters, self.count, self.share))

    def __reduce__(self) -> tuple[type[Voters], tuple[int, Fraction | None]]:
        return (Voters, (self.count, self.share))


@functools.lru_cache(maxsize=4096, typed=True)
def _duration(value: object) -> Duration:
    return Duration._parsed(value)


@functools.lru_cache(maxsize=4096, typed=True)
def _least(value: object) -> Least:
    return Least._parsed(value)
