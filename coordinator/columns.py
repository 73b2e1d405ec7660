"""Frames and digests off the wire as columns of numbers, or a sentence about what is wrong. Pure.

Row i of every column speaks of the same probe; columns of unequal length, numbers out of range and
more rows than anybody sends are refused as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from .events import NO_OPINION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column = NDArray[np.int64]
    Five = tuple[Column, Column, Column, Column, Column]

MAX_ROWS = 200_000
"""Rows of one frame or digest."""
MAX_REASONS = 4_096
MAX_REASON_CHARS = 512
"""Texts of one frame, and characters of one text that are kept."""
MAX_AGE_MS = 7 * 86_400_000
"""No result is older than this; a greater age is taken for it."""

RESULTS = ("outcome", "age_ms", "rtt_us", "reason")
DIGEST = ("outcome", "streak", "age_ms", "rtt_us", "reason")
PHASES = ("dns_us", "connect_us", "tls_us", "first_byte_us", "body_us")


class Malformed(ValueError):
    """What an agent sent can't be read; the text says why."""


class Columns(Struct, frozen=True):
    """The rows of one message; `targets` still holds the stream's indexes."""

    targets: Column
    values: dict[str, Column]
    reasons: tuple[str, ...]
    phases: Five | None = None

    def kept(self, rows: NDArray[np.bool_], numbers: Column) -> Columns:
        """Only `rows`, whose targets have the engine's `numbers`."""
        phases = None if self.phases is None else _five(column[rows] for column in self.phases)
        values = {name: column[rows] for name, column in self.values.items()}
        return Columns(numbers, values, self.reasons, phases)


def read(message: Any, names: Sequence[str]) -> Columns:
    """The columns `names` of a `Results` or `Digest`. Raises Malformed."""
    targets = _column(message.target)
    rows = len(targets)
    if rows > MAX_ROWS:
        raise Malformed(f"a frame of {rows} rows; at most {MAX_ROWS} are taken")
    values = {name: _sized(message, name, rows) for name in names}
    reasons = tuple(text[:MAX_REASON_CHARS] for text in message.reasons) or ("",)
    if len(reasons) > MAX_REASONS:
        raise Malformed(f"{len(reasons)} reasons in one frame; at most {MAX_REASONS} are taken")
    if rows and int(values["reason"].max()) >= len(reasons):
        raise Malformed("a row gives a reason that is not in the frame")
    if rows and int(values["outcome"].max()) > NO_OPINION:
        raise Malformed(f"{int(values['outcome'].max())} is no outcome")
    np.minimum(values["age_ms"], MAX_AGE_MS, out=values["age_ms"])
    phases = None
    if "streak" not in names and any(len(getattr(message, name)) for name in PHASES):
        phases = _five(_sized(message, name, rows) for name in PHASES)
    return Columns(targets, values, reasons, phases)


def _column(numbers: Sequence[int]) -> Column:
    return np.array(numbers, dtype=np.int64)


def _sized(message: Any, name: str, rows: int) -> Column:
    column = _column(getattr(message, name))
    if len(column) != rows:
        raise Malformed(f"column {name} has {len(column)} rows where target has {rows}")
    return column


def _five(columns: Iterable[Column]) -> Five:
    dns, connect, tls, first_byte, body = columns
    return dns, connect, tls, first_byte, body
