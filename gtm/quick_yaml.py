"""YAML as most files have it, read quickly: plain data, or None where anything is of another form.

Block mappings and lists by indentation, lists and mappings in brackets on one line, words, numbers,
quoted texts without escapes, comments; printable ASCII alone. Never guesses: another form, a key
that stands twice, a mistake give None, and `gtm.document`, the plain twin that knows lines and
explains, reads the file. What is given here is what that gives (docs/decisions/0004).
"""

from __future__ import annotations

import re
from typing import Any

from gtm.document import MAX_DOCUMENT_BYTES, MAX_NODES, scalar

MAX_OPEN = 16
"""The deepest nesting by indentation; deeper files are read by the plain twin."""
MAX_FLOW = 8
"""The same for brackets."""
MAX_KEPT = 10_000
"""Lines, and words, of one file whose meaning is kept, for they come again."""

_ODD = re.compile(r"[^\n -~]")
_FIRST = r"(?:[A-Za-z0-9_./+]|-(?=[A-Za-z0-9_.]))"
_WORD = rf"{_FIRST}(?:[A-Za-z0-9_./+%@=*-]|:(?=[A-Za-z0-9_./:-]))*"
_WORDS = rf"{_WORD}(?: {_WORD})*"
_SENTENCE = rf"{_WORD}(?: (?!#)(?:[^ :\n]|:(?=[^ \n]))+)*"
_QUOTED = r"\"[^\"\\\n]*\"|'[^'\n]*'"
_KEY = r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}"
_LINE = re.compile(
    rf"( *)(- +)?(?:({_KEY}):(?= |$))? *(?:({_QUOTED}|{_SENTENCE})|([\[{{][^#\n]*[\]}}]))?"
    r"(?: +#.*| *)"
)
"""Indentation, dash, key, scalar, brackets, comment; each may be missing."""
_EMPTY = re.compile(r" *(?:#.*)?")
_PAIR = re.compile(rf"({_KEY}): +({_WORDS})")
_FLAT_MAP = re.compile(rf"\{{ *{_KEY}: +{_WORDS}(?: *, *{_KEY}: +{_WORDS})* *\}}")
_FLAT_LIST = re.compile(rf"\[ *{_WORDS}(?: *, *{_WORDS})* *\]")
_ITEM = re.compile(rf" *(?:({_QUOTED}|{_WORDS}) *(?=[,\]}}])|([\[{{]))")
_ENTRY = re.compile(rf" *({_KEY}): +(?:({_QUOTED}|{_WORDS}) *(?=[,\]}}])|([\[{{]))")


_Line = tuple[int, int, str, Any]
"""Column, width of the dash, key, value."""
_BELOW = object()
"""The value of a key that stands below it, or is missing."""


class _OtherForm(Exception):
    """The text has something that is not read here."""


def from_bytes(raw: bytes) -> Any:
    """The one document of a file as plain data; None where it is not of these forms."""
    if len(raw) > MAX_DOCUMENT_BYTES or not raw.isascii():
        return None
    text = raw.decode("ascii")
    most = 4 * text.count("\n") + 2 * text.count(",") + text.count("[") + text.count("{") + 8
    if most > MAX_NODES or _ODD.search(text):
        return None
    try:
        return _Reader().read(text)
    except _OtherForm:
        return None


class _Reader:
    """Lines to nested mappings and lists."""

    def __init__(self) -> None:
        self._words: dict[str, Any] = {}
        self._lines: dict[str, _Line | None] = {}

    def read(self, text: str) -> Any:
        """The document; `stack` holds what is open, by column, `waits` the key without a value.

        Lines that are alike give the same value, not a copy: nobody may change it.
        """
        stack: list[tuple[int, Any]] = []
        waits = ""
        known = self._lines
        for text_ in text.split("\n"):
            line = known[text_] if text_ in known else self._line(text_)
            if line is None:
                continue
            column, dash, key, value = line
            if waits:
                at, holder = stack[-1]
                if column > at or (dash and column == at):
                    holder[waits] = [] if dash else {}
                    stack.append((column, holder[waits]))
                waits = ""
            elif not stack:
                stack.append((0, [] if dash else {}))
            while stack[-1][0] > column:
                stack.pop()
            if not dash and len(stack) > 1 and type(stack[-1][1]) is list:
                stack.pop()  # a list in the column of its key has ended
            at, target = stack[-1]
            if at != column or (type(target) is list) is not (dash > 0):
                raise _OtherForm
            if dash:
                if not key:
                    target.append(value)
                    continue
                inner: dict[str, Any] = {}
                target.append(inner)
                target = inner
                stack.append((column + dash, target))
            if key in target or len(stack) > MAX_OPEN:
                raise _OtherForm
            if value is _BELOW:
                target[key], waits = None, key
            else:
                target[key] = value
        if not stack:
            raise _OtherForm
        return stack[0][1]

    def _line(self, text: str) -> _Line | None:
        """What a line says; None where it is empty or a comment."""
        found = _LINE.fullmatch(text)
        indent, dash, key, word, flow = found.groups() if found else ("", "", "", "", "")
        line = None
        if dash or key or word or flow:
            if not key and not (dash and (word or flow)):
                raise _OtherForm
            value = self._value(word, flow) if word or flow else _BELOW
            line = (len(indent), len(dash or ""), key or "", value)
        elif not _EMPTY.fullmatch(text):
            raise _OtherForm
        if len(self._lines) < MAX_KEPT:
            self._lines[text] = line
        return line

    def _value(self, word: str, flow: str) -> Any:
        """What a scalar, or what stands in brackets, comes to."""
        if word:
            return word[1:-1] if word[0] in "\"'" else self._word(word)
        if _FLAT_MAP.fullmatch(flow):
            pairs = _PAIR.findall(flow)
            found = {key: self._word(text) for key, text in pairs}
            if len(found) != len(pairs):
                raise _OtherForm
            return found
        if _FLAT_LIST.fullmatch(flow):
            return [self._word(text.strip()) for text in flow[1:-1].split(",")]
        value, end = self._flow(flow, 0, 1)
        if end != len(flow):
            raise _OtherForm
        return value

    def _word(self, text: str) -> Any:
        """What a plain scalar stands for."""
        try:
            return self._words[text]
        except KeyError:
            value = scalar(text)
            if len(self._words) < MAX_KEPT:
                self._words[text] = value
            return value

    def _flow(self, text: str, at: int, depth: int) -> tuple[Any, int]:
        """What the bracket at `at` opens, and where it ends."""
        is_map, close = text[at] == "{", "}" if text[at] == "{" else "]"
        found: Any = {} if is_map else []
        rest = text[at + 1 :].lstrip()
        if rest.startswith(close):
            return found, len(text) - len(rest) + 1
        while depth <= MAX_FLOW:
            part = (_ENTRY if is_map else _ITEM).match(text, at + 1)
            if part is None:
                break
            key, word, bracket = part.groups() if is_map else ("", *part.groups())
            if is_map and key in found:
                break
            if bracket:
                value, end = self._flow(text, part.start(part.lastindex or 0), depth + 1)
                end += len(text) - end - len(text[end:].lstrip())
            else:
                value, end = self._value(word, ""), part.end()
            if is_map:
                found[key] = value
            else:
                found.append(value)
            sign = text[end : end + 1]
            if sign == close:
                return found, end + 1
            if sign != ",":
                break
            at = end
        raise _OtherForm
