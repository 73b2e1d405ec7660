"""Values that users write as a word or as a mapping: one canonical value, one canonical form.

Each type parses what a configuration may say (`parse` raises ValueError with a sentence fit for a
user) and gives its plain form back (`plain`). Values only; what they mean is decided elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from gtm import forms
from gtm.units import Duration, Least

MAX_NAMES = 4096
"""The most names or addresses in one of these lists."""


class _Choice:
    """A value that does not change and equals every other of its type with the same slots."""

    __slots__: tuple[str, ...] = ("_hashed",)
    _hashed: int

    def __init__(self, *values: Any) -> None:
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change")

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._values() == self._values()

    def __hash__(self) -> int:
        try:
            return self._hashed
        except AttributeError:
            object.__setattr__(self, "_hashed", hash((type(self), *self._values())))
            return self._hashed

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._values()!r}"

    def __reduce__(self) -> tuple[type[Any], tuple[Any, ...]]:
        return (type(self), self._values())


class PoolRef(_Choice):
    """A pool in a tier: its name, or `{pool: NAME, weight: W, lines: [LINE, ...]}`.

    Weight and lines speak to the tier's own steering among its pools.
    """

    __slots__ = ("lines", "pool", "weight")
    pool: str
    weight: int
    lines: tuple[str, ...]

    def __init__(self, lines: tuple[str, ...] = (), pool: str = "", weight: int = 1) -> None:
        super().__init__(lines, pool, weight)

    @classmethod
    def parse(cls, value: object) -> PoolRef:
        """`value` as a pool of a tier; ValueError says what would be one."""
        if isinstance(value, PoolRef):
            return value
        if isinstance(value, str):
            return _named(value)
        if not isinstance(value, Mapping):
            raise ValueError("must be the name of a pool or {pool: NAME, weight: W, lines: [...]}")
        _only(value, ("pool", "weight", "lines"), ("pool",))
        weight = value.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= 255:
            raise ValueError(f"weight {weight!r} is not a whole number in 0 to 255")
        lines = tuple(map(forms.line, _texts(value.get("lines", ()), "lines", "lines")))
        return cls(pool=forms.label(_text(value["pool"], "pool")), weight=weight, lines=lines)

    def plain(self) -> Any:
        """The canonical form in JSON."""
        if self.weight == 1 and not self.lines:
            return self.pool
        weight = {} if self.weight == 1 else {"weight": self.weight}
        return {"pool": self.pool, **weight, **({"lines": list(self.lines)} if self.lines else {})}


@functools.lru_cache(maxsize=4096)
def _named(name: str) -> PoolRef:
    """The pool of that name, alone: most tiers say no more, and several name the same."""
    return PoolRef(pool=forms.label(name))


class AllDown(_Choice):
    """What is answered when no tier is available: a word, `{pool: NAME}` or `{addresses: [...]}`.

    `word` is `pool` or `addresses` for the mappings.
    """

    WORDS = ("lowest_ordinal", "all", "last_good", "nodata", "servfail", "drop")
    __slots__ = ("addresses", "pool", "word")
    word: str
    pool: str
    addresses: tuple[str, ...]

    def __init__(
        self, addresses: tuple[str, ...] = (), pool: str = "", word: str = "lowest_ordinal"
    ) -> None:
        super().__init__(addresses, pool, word)

    @classmethod
    def parse(cls, value: object) -> AllDown:
        """`value` as a fallback; ValueError says what would be one."""
        if isinstance(value, AllDown):
            return value
        if isinstance(value, Mapping):
            if set(value) == {"pool"}:
                return cls(word="pool", pool=forms.label(_text(value["pool"], "pool")))
            if set(value) == {"addresses"}:
                given = _texts(value["addresses"], "addresses", "addresses")
                if not given:
                    raise ValueError("addresses names none; say nodata for an empty answer")
                addresses = tuple(map(forms.address, given))
                _once(addresses, "addresses")
                return cls(word="addresses", addresses=addresses)
        if isinstance(value, str) and value in cls.WORDS:
            return cls(word=value)
        raise ValueError(
            f"must be one of {', '.join(cls.WORDS)}, {{pool: NAME}} or {{addresses: [...]}}"
            f"{forms.instead(value, cls.WORDS)}"
        )

    def plain(self) -> Any:
        """The canonical form in JSON."""
        if self.word == "pool":
            return {"pool": self.pool}
        return {"addresses": list(self.addresses)} if self.word == "addresses" else self.word

    def __str__(self) -> str:
        if self.word == "pool":
            return f"pool {self.pool}"
        return f"addresses {' '.join(self.addresses)}" if self.addresses else self.word


class Failback(_Choice):
    """When an earlier tier that is back takes over: `immediate`, `{after: 5m}` or `manual`."""

    WORDS = ("immediate", "manual")
    __slots__ = ("after", "word")
    word: str
    after: Duration

    def __init__(self, after: Duration | None = None, word: str = "immediate") -> None:
        super().__init__(after or Duration(0), word)

    @classmethod
    def parse(cls, value: object) -> Failback:
        """`value` as a failback; ValueError says what would be one."""
        if isinstance(value, Failback):
            return value
        if isinstance(value, Mapping) and set(value) == {"after"}:
            after = Duration.parse(value["after"])
            return cls(after, "after") if after.ms else cls()
        if isinstance(value, str) and value in cls.WORDS:
            return cls(word=value)
        raise ValueError(
            f"must be immediate, manual or {{after: DURATION}}{forms.instead(value, cls.WORDS)}"
        )

    def plain(self) -> Any:
        """The canonical form in JSON."""
        return {"after": str(self.after)} if self.word == "after" else self.word

    def __str__(self) -> str:
        return f"after {self.after}" if self.word == "after" else self.word


class Judgement(_Choice):
    """When an address with several checks is up: any, 30%, 50%, 70%, all, or `{must: [CHECK]}`.

    With `must` the checks that it names must be up, and the others only tell. A number or another
    share says how many, or which part, of the checks.
    """

    __slots__ = ("least", "must")
    least: Least
    must: tuple[str, ...]

    def __init__(self, least: Least | None = None, must: tuple[str, ...] = ()) -> None:
        super().__init__(least or Least.parse("all"), must)

    @classmethod
    def parse(cls, value: object) -> Judgement:
        """`value` as a judgement; ValueError says what would be one."""
        if isinstance(value, Judgement):
            return value
        if isinstance(value, Mapping):
            _only(value, ("must",), ("must",))
            names = tuple(map(forms.label, _texts(value["must"], "must", "names of checks")))
            if not names:
                raise ValueError("must names no check; say all, or leave the key out")
            _once(names, "must")
            return cls(must=names)
        try:
            return cls(Least.parse(value))
        except ValueError as error:
            raise ValueError(f"{error}, or {{must: [CHECK, ...]}}") from None

    def up(self, verdicts: Iterable[tuple[str, bool]]) -> bool | None:
        """Whether the (check, is up) pairs of those checks that have a verdict make it up.

        None where none of them counts.
        """
        counted = [is_up for check, is_up in verdicts if not self.must or check in self.must]
        if not counted:
            return None
        return all(counted) if self.must else self.least.met(sum(counted), len(counted))

    def plain(self) -> Any:
        """The canonical form in JSON."""
        if self.must:
            return {"must": list(self.must)}
        return "all" if self.least == Least.parse("all") else self.least.plain()

    def __str__(self) -> str:
        return f"must {' '.join(self.must)}" if self.must else str(self.plain())


def _only(value: Mapping[Any, Any], known: Collection[str], needed: Iterable[str]) -> None:
    for key in value:
        if key not in known:
            raise ValueError(f"unknown key {key!r}; known are {', '.join(known)}")
    for key in needed:
        if key not in value:
            raise ValueError(f"the key {key!r} is missing")


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text, not {value!r}")
    return value


def _texts(value: object, what: str, of: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ValueError(f"{what} must be a list of {of}")
    if len(value) > MAX_NAMES:
        raise ValueError(f"{what} has more than {MAX_NAMES:,} items")
    return tuple(_text(item, f"{what}[{index}]") for index, item in enumerate(value))


def _once(values: tuple[str, ...], what: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{what}: {value!r} stands twice")
