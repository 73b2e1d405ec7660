"""Documents as nodes that know their lines: YAML 1.2 core schema, JSON, or plain data.

Decides what a scalar is (`NO` and `1:30` are text, `010` is ten, nothing is a date) and refuses
what is too large, too deep or not data; knows nothing of resources. Nodes go to `gtm.config`.
PyYAML tokenises; its own composer and YAML 1.1 schema are not used (docs/decisions/0004).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import yaml
from msgspec import Struct

MAX_DOCUMENT_BYTES = 16 * 2**20
"""The largest file that is read."""
MAX_NODES = 2_000_000
"""The most nodes of one file, each use of an alias counted with all that it stands for."""
MAX_DEPTH = 32
"""The deepest nesting of mappings and lists."""
MAX_ALIASES = 10_000
"""The most aliases of one file."""
_MAX_NUMBER = 40
"""The most characters of a number; longer ones are text."""

Scalar = str | int | float | bool | None


class Unreadable(Exception):
    """A document is no data that we read; `line` counts from 1, 0 is unknown."""

    def __init__(self, sentence: str, line: int = 0) -> None:
        super().__init__(sentence)
        self.line = line


class Entry(Struct, frozen=True, gc=False):
    """One entry of a mapping: its key as text, the key's line, the value."""

    key: str
    line: int
    node: Node


class Node(Struct, frozen=True, gc=False):
    """A scalar, a list (tuple of nodes) or a mapping (`entries`, duplicates kept) and its line.

    `size` counts the nodes in it, itself included.
    """

    value: Scalar | tuple[Node, ...] = None
    entries: tuple[Entry, ...] | None = None
    line: int = 0
    size: int = 1

    @property
    def is_map(self) -> bool:
        """Whether it is a mapping."""
        return self.entries is not None

    @property
    def items(self) -> tuple[Node, ...] | None:
        """The items of a list; None where it is none."""
        return self.value if isinstance(self.value, tuple) else None

    @property
    def is_null(self) -> bool:
        """Whether it is a null, or nothing at all was written."""
        return self.value is None and self.entries is None

    def plain(self) -> Any:
        """The node as plain data; of duplicate keys the first counts."""
        if self.entries is not None:
            plain: dict[str, Any] = {}
            for entry in self.entries:
                plain.setdefault(entry.key, entry.node.plain())
            return plain
        if isinstance(self.value, tuple):
            return [item.plain() for item in self.value]
        return self.value


def from_bytes(raw: bytes, *, is_json: bool = False) -> tuple[Node, ...]:
    """The documents of a file's bytes, empty ones left out; raises Unreadable."""
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise Unreadable(f"is larger than {MAX_DOCUMENT_BYTES // 2**20} MiB; split it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("is not UTF-8 text", raw[: error.start].count(b"\n") + 1) from None
    if is_json:
        text = _json_as_yaml(text)
    try:
        return tuple(_Composer().documents(text))
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        raise Unreadable(f"is not text: {error.reason}", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = min(mark.line, text.rstrip("\n").count("\n")) + 1 if mark else 0
        raise Unreadable(_sentence(error, text, line), line) from None


def from_plain(data: Any) -> Node:
    """Plain data (as JSON decodes to) as a node without lines; raises Unreadable."""
    return _plain_node(data, 0, [0])


def _plain_node(data: Any, depth: int, count: list[int]) -> Node:
    count[0] += 1
    if count[0] > MAX_NODES:
        raise Unreadable(f"has more than {MAX_NODES:,} values; split it")
    if depth > MAX_DEPTH:
        raise Unreadable(f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(data, dict):
        if not all(isinstance(key, str) for key in data):
            raise Unreadable("has a key that is not text")
        return Node(
            entries=tuple(
                Entry(key, 0, _plain_node(value, depth + 1, count)) for key, value in data.items()
            )
        )
    if isinstance(data, list | tuple):
        return Node(tuple(_plain_node(value, depth + 1, count) for value in data))
    if isinstance(data, int) and abs(data) >= 10**_MAX_NUMBER:
        raise Unreadable(f"has a number of more than {_MAX_NUMBER} digits")
    if data is None or isinstance(data, str | int | float):
        return Node(data)
    raise Unreadable(f"has a value of type {type(data).__name__}, which is not JSON")


# ---- scalars ---------------------------------------------------------------------------------

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_OTHER_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")


def scalar(text: str) -> Scalar:
    """What a plain scalar stands for in the core schema (YAML 1.2.2, section 10.3.2)."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if len(text) > _MAX_NUMBER or text[0] not in "+-.0123456789":
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _OTHER_INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if match := _INFINITE.fullmatch(text):
        return -math.inf if match[1] == "-" else math.inf
    if text in (".nan", ".NaN", ".NAN"):
        return math.nan
    return text


# ---- composing -------------------------------------------------------------------------------

_LOADER = getattr(yaml, "CLoader", yaml.Loader)
_STR = "tag:yaml.org,2002:str"
_TAGS = {_STR: str, "tag:yaml.org,2002:map": dict, "tag:yaml.org,2002:seq": list, "!": str}


class _Open:
    """A mapping or list that is being read."""

    __slots__ = ("anchor", "is_map", "key", "key_line", "line", "parts", "size")

    def __init__(self, is_map: bool, line: int, anchor: str | None) -> None:
        self.is_map = is_map
        self.line = line
        self.anchor = anchor
        self.size = 1
        self.parts: list[Any] = []
        self.key: str | None = None
        self.key_line = 0


class _Composer:
    """Events to nodes without recursion, bounded in nodes, depth and aliases."""

    def __init__(self) -> None:
        self.count = 0
        self.aliases = 0

    def documents(self, text: str) -> Iterator[Node]:
        stack: list[_Open] = []
        anchors: dict[str, Node] = {}
        root: Node | None = None
        for event in yaml.parse(text, Loader=_LOADER):
            line = event.start_mark.line + 1 if event.start_mark else 0
            done: Node | None = None
            match event:
                case yaml.DocumentStartEvent():
                    anchors, root = {}, None
                case yaml.DocumentEndEvent():
                    if root is not None and not root.is_null:
                        yield root
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    if len(stack) >= MAX_DEPTH:
                        raise Unreadable(f"is nested deeper than {MAX_DEPTH} levels", line)
                    is_map = isinstance(event, yaml.MappingStartEvent)
                    _check_tag(event.tag, dict if is_map else list, line)
                    stack.append(_Open(is_map, line, event.anchor))
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    opened = stack.pop()
                    parts = tuple(opened.parts)
                    done = (
                        Node(entries=parts, line=opened.line, size=opened.size)
                        if opened.is_map
                        else Node(parts, line=opened.line, size=opened.size)
                    )
                    if opened.anchor:
                        anchors[opened.anchor] = done
                case yaml.ScalarEvent():
                    done = self._scalar(event, line, stack)
                    if event.anchor:
                        anchors[event.anchor] = done
                case yaml.AliasEvent():
                    done = self._alias(event.anchor, anchors, line)
            if done is None:
                continue
            self.count += done.size if isinstance(event, yaml.AliasEvent) else 1
            if self.count > MAX_NODES:
                raise Unreadable(f"has more than {MAX_NODES:,} values; split it", line)
            if stack:
                _put(stack[-1], done, line)
            else:
                root = done

    def _scalar(self, event: yaml.ScalarEvent, line: int, stack: list[_Open]) -> Node:
        _check_tag(event.tag, str, line)
        if stack and stack[-1].is_map and stack[-1].key is None:
            return Node(event.value, line=line)
        plain = event.implicit[0] and not event.tag
        return Node(scalar(event.value) if plain else event.value, line=line)

    def _alias(self, name: str | None, anchors: dict[str, Node], line: int) -> Node:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise Unreadable(f"has more than {MAX_ALIASES:,} aliases", line)
        if name is None or name not in anchors:
            raise Unreadable(f"alias *{name} has no anchor &{name} complete before it", line)
        return anchors[name]


def _put(parent: _Open, node: Node, line: int) -> None:
    if not parent.is_map:
        parent.parts.append(node)
        parent.size += node.size
    elif parent.key is None:
        if node.is_map or node.items is not None or not isinstance(node.value, str):
            raise Unreadable("a key of a mapping is a text", line)
        if node.value == "<<":
            raise Unreadable("merge keys (<<) are not part of YAML 1.2; write the keys out", line)
        parent.key, parent.key_line = node.value, line
    else:
        parent.parts.append(Entry(parent.key, parent.key_line, node))
        parent.size += node.size + 1
        parent.key = None


def _check_tag(tag: str | None, what: type, line: int) -> None:
    if tag is not None and tag != "!" and _TAGS.get(tag) is not what:
        raise Unreadable(f"the tag {tag} is not supported; write plain values", line)


def _sentence(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    lines = text.splitlines()
    if 0 < line <= len(lines) and "\t" in re.split(r"[^\s-]", lines[line - 1], maxsplit=1)[0]:
        return "is not YAML: a tab cannot indent, use spaces"
    if "maximum nesting depth" in (error.problem or ""):  # the parser's own bound came first
        return f"is nested deeper than {MAX_DEPTH} levels"
    parts = [part for part in (error.context, error.problem) if part]
    return "is not YAML: " + ", ".join(parts)


# ---- JSON ------------------------------------------------------------------------------------

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\t')
_JSON_ODD = re.compile(
    r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|\\.|[\x7f-\x9f\u2028\u2029\ufeff]",
    re.IGNORECASE,
)


def _json_as_yaml(text: str) -> str:
    """Text that is proven to be JSON, with the few things respelled that YAML reads otherwise."""
    try:
        json.loads(text, parse_constant=_no_constant, parse_int=str)  # of any length
    except json.JSONDecodeError as error:
        raise Unreadable(f"is not JSON: {error.msg}", error.lineno) from None
    except RecursionError:
        raise Unreadable(f"is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise Unreadable(f"is not JSON: {error}") from None
    return _JSON_TOKEN.sub(lambda match: _json_token(match[0]), text)


def _json_token(token: str) -> str:
    return " " if token == "\t" else _JSON_ODD.sub(_json_odd, token)


def _json_odd(match: re.Match[str]) -> str:
    if match[1]:
        high, low = int(match[1], 16), int(match[2], 16)
        return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"
    if match[0][0] == "\\":
        return "/" if match[0] == "\\/" else match[0]
    return f"\\u{ord(match[0]):04x}"


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")
