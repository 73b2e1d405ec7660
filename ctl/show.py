"""How results look: aligned columns, colour on a terminal alone, JSON and YAML in stable shapes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


def colour(text: str, name: str, out: TextIO | None = None) -> str:
    """`text` in a colour where `out` (stdout) is a terminal and NO_COLOR is not set."""
    if not (out or sys.stdout).isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, without trailing blanks; "" without rows."""
    if not rows:
        return ""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    lines[0] = colour(lines[0], "bold")
    return "\n".join(lines)


def as_json(value: Any) -> str:
    """`value` as indented JSON, keys in the order given."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def as_yaml(value: Any) -> str:
    """`value` as YAML that reads back as it was, also by a YAML 1.1 reader."""
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return text.rstrip("\n")


def ago(since: float, now: float | None = None) -> str:
    """How long ago a Unix time was, in one unit; "-" for 0."""
    if not since:
        return "-"
    return span(max(0.0, (time.time() if now is None else now) - since))


def clock(at: float) -> str:
    """A Unix time as local date and time with milliseconds."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) + f".{round(at % 1 * 1000):03d}"


def span(seconds: float) -> str:
    """A length of time in one unit: 350ms, 12s, 4m, 3h, 9d."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def rtt(micros: int) -> str:
    """A round trip as people read it; "-" for 0."""
    if not micros:
        return "-"
    return f"{micros / 1000:.1f}ms" if micros < 1_000_000 else f"{micros / 1e6:.1f}s"


def size(count: int) -> str:
    """A number of bytes with a binary unit."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def warn(text: str) -> None:
    """One line to stderr, yellow on a terminal; nobody who listens any more is no trouble."""
    with contextlib.suppress(OSError):
        print(colour(text, "yellow", sys.stderr), file=sys.stderr)
