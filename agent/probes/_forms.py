"""Settings with a form of their own: texts to find, status codes, headers, types of records.

Each class reads what users write (`parse`; ValueError with a sentence fit for a user) and writes
the canonical plain form (`plain`).
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Mapping
from typing import Any, Self

import dns.exception
import dns.rdatatype

SEARCH_LIMIT_S = 0.05
"""CPU time that one regular expression may take over one answer."""
MAX_PATTERN = 1024
"""Characters of a text or a regular expression."""
MAX_HEADERS = 32
"""Headers that a check sends, or expects."""
MAX_HEADER_VALUE = 4096
"""Characters of one header's value."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE = re.compile(r"[\t\x21-\x7e](?:[\t\x20-\x7e]*[\t\x21-\x7e])?|")
_OURS = frozenset(
    ("host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "trailer")
)


class Form:
    """An immutable value that `parse` reads and `plain` writes; equal where these are equal."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """`value` as users write it; ValueError says what would be one."""
        raise NotImplementedError

    def plain(self) -> Any:
        """The canonical form in JSON."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change")

    def __str__(self) -> str:
        return str(self.plain())

    def __repr__(self) -> str:
        return f"{type(self).__name__}.parse({self.plain()!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.plain() == other.plain()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self).parse, (self.plain(),))


class TooSlow(Exception):
    """A regular expression took more than SEARCH_LIMIT_S."""


def _alarm(_number: int, _frame: object) -> None:
    raise TooSlow


def _search(pattern: re.Pattern[str], text: str) -> bool:
    """`pattern.search`, ended after SEARCH_LIMIT_S of CPU: `re` looks at signals as it works.

    Signals reach the main thread alone; off it nothing guards (agents probe on it).
    """
    if threading.current_thread() is not threading.main_thread():
        return pattern.search(text) is not None
    before = signal.signal(signal.SIGVTALRM, _alarm)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, SEARCH_LIMIT_S)
        try:
            return pattern.search(text) is not None
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)


class Text(Form):
    """Something to find in an answer: `ok` (a substring) or `{regex: "ok|ready"}` (Python's re).

    Answers are read as UTF-8; what is not UTF-8 becomes U+FFFD.
    """

    __slots__ = ("_pattern", "text")
    text: str
    _pattern: re.Pattern[str] | None

    def __init__(self, text: str, pattern: re.Pattern[str] | None = None) -> None:
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "_pattern", pattern)

    @classmethod
    def parse(cls, value: object) -> Self:
        """A non-empty text, or a mapping with the one key `regex`."""
        pattern: re.Pattern[str] | None = None
        text = value
        if isinstance(value, Text):
            text, pattern = value.text, value._pattern
        elif isinstance(value, Mapping):
            if set(value) != {"regex"} or not isinstance(value["regex"], str):
                raise ValueError(f"{dict(value)!r} is not a text or {{regex: EXPRESSION}}")
            text = value["regex"]
            try:
                pattern = re.compile(text)
            except (re.error, RecursionError, OverflowError) as error:
                raise ValueError(f"{text!r} is not a regular expression: {error}") from None
        if not isinstance(text, str) or not text:
            raise ValueError(f"{value!r} is not a text or {{regex: EXPRESSION}}")
        if len(text) > MAX_PATTERN:
            raise ValueError(f"a text to expect has at most {MAX_PATTERN} characters")
        return cls(text, pattern)

    def plain(self) -> str | dict[str, str]:
        """The text, or `{regex: ...}`."""
        return self.text if self._pattern is None else {"regex": self.text}

    def found(self, data: bytes) -> bool:
        """Whether `data` has it; TooSlow where the expression takes too long to say."""
        if self._pattern is None:
            return self.text.encode() in data
        return _search(self._pattern, data.decode(errors="replace"))


class StatusSet(Form):
    """Status codes: a list of codes and ranges such as `[200, 301-308]`; one may stand alone."""

    __slots__ = ("ranges",)
    ranges: tuple[tuple[int, int], ...]

    def __init__(self, ranges: tuple[tuple[int, int], ...]) -> None:
        object.__setattr__(self, "ranges", ranges)

    @classmethod
    def parse(cls, value: object) -> Self:
        """Codes 100..599 and ranges of them; overlapping ones are joined."""
        if isinstance(value, StatusSet):
            return cls(value.ranges)
        items = value if isinstance(value, list | tuple) else [value]
        ranges = sorted(cls._range(item) for item in items)
        if not ranges:
            raise ValueError("an empty list of status codes would fail every probe")
        joined = [ranges[0]]
        for low, high in ranges[1:]:
            if low <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
            else:
                joined.append((low, high))
        return cls(tuple(joined))

    @staticmethod
    def _range(item: object) -> tuple[int, int]:
        low = high = 0
        if isinstance(item, int) and not isinstance(item, bool):
            low = high = item
        elif isinstance(item, str) and (match := re.fullmatch(r"(\d{3})(?:\s*-\s*(\d{3}))?", item)):
            low, high = int(match[1]), int(match[2] or match[1])
        if not 100 <= low <= high <= 599:
            raise ValueError(f"{item!r} is not a status code or a range such as 200-399")
        return low, high

    def plain(self) -> list[int | str]:
        """Codes as numbers, ranges as texts, ascending."""
        return [low if low == high else f"{low}-{high}" for low, high in self.ranges]

    def __contains__(self, code: int) -> bool:
        return any(low <= code <= high for low, high in self.ranges)


def _names(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not a mapping from header names")
    if len(value) > MAX_HEADERS:
        raise ValueError(f"at most {MAX_HEADERS} headers")
    for name in value:
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
    if len({name.lower() for name in value}) != len(value):
        raise ValueError("a header name stands twice (they don't differ by case)")
    return value


class Headers(Form):
    """Header fields to send, by name; Host has its own setting, framing is the probe's own."""

    __slots__ = ("fields",)
    fields: tuple[tuple[str, str], ...]

    def __init__(self, fields: tuple[tuple[str, str], ...] = ()) -> None:
        object.__setattr__(self, "fields", fields)

    @classmethod
    def parse(cls, value: object) -> Self:
        """A mapping from name to text (printable ASCII)."""
        if isinstance(value, Headers):
            return cls(value.fields)
        for name, text in _names(value).items():
            if name.lower() in _OURS:
                hint = "set host" if name.lower() == "host" else "the probe sets it"
                raise ValueError(f"{name} can't be given as a header: {hint}")
            if (
                not isinstance(text, str)
                or len(text) > MAX_HEADER_VALUE
                or not _VALUE.fullmatch(text)
            ):
                raise ValueError(
                    f"the value of {name} is not printable ASCII text of at most "
                    f"{MAX_HEADER_VALUE} characters"
                )
        return cls(tuple(sorted(_names(value).items())))

    def plain(self) -> dict[str, str]:
        """The mapping, sorted by name."""
        return dict(self.fields)


class ExpectedHeaders(Form):
    """Header fields that an answer must have: a mapping from name to what its value must hold."""

    __slots__ = ("fields",)
    fields: tuple[tuple[str, Text], ...]

    def __init__(self, fields: tuple[tuple[str, Text], ...] = ()) -> None:
        object.__setattr__(self, "fields", fields)

    @classmethod
    def parse(cls, value: object) -> Self:
        """A mapping from name to a text or `{regex: ...}`."""
        if isinstance(value, ExpectedHeaders):
            return cls(value.fields)
        return cls(tuple((name, Text.parse(text)) for name, text in sorted(_names(value).items())))

    def plain(self) -> dict[str, Any]:
        """The mapping, sorted by name."""
        return {name: text.plain() for name, text in self.fields}

    def missing(self, headers: list[tuple[bytes, bytes]]) -> str:
        """The first expected name that no field of `headers` satisfies; "" where all do."""
        for name, text in self.fields:
            wanted = name.lower().encode()
            if not any(key.lower() == wanted and text.found(value) for key, value in headers):
                return name
        return ""


class QueryType(Form):
    """A type of DNS records: its name, or TYPE123 (RFC 3597, section 5); not ANY, not AXFR."""

    __slots__ = ("name",)
    name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "name", name)

    @classmethod
    def parse(cls, value: object) -> Self:
        """A type's name in any case."""
        if isinstance(value, QueryType):
            return cls(value.name)
        try:
            number = dns.rdatatype.from_text(value if isinstance(value, str) else "")
        except (dns.exception.DNSException, ValueError):
            raise ValueError(f"{value!r} is not a type of DNS records") from None
        if number == 0 or dns.rdatatype.is_metatype(number):
            raise ValueError(f"{value!r} is not a type of DNS records")
        return cls(dns.rdatatype.to_text(number))

    def plain(self) -> str:
        """The name in capital letters."""
        return self.name

    @property
    def number(self) -> dns.rdatatype.RdataType:
        """The type's number."""
        return dns.rdatatype.from_text(self.name)
