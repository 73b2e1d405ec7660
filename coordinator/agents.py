"""What one agent said last about each target, as columns by target number. Pure.

Holds and shows; what an outcome does to an opinion stands in `hysteresis`, whose opinions count
together in `evidence`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .events import NONE, SUCCESS
from .hysteresis import NO_VOTE, Codes

MAX_REASONS = 1024
"""Different reasons that are kept for one agent; those not in use any more make room."""
MAX_REASON_LENGTH = 200
"""Characters of one reason; the rest is cut off."""
NEVER = -(1 << 61)
_TOO_MANY = "(this agent gave too many different reasons)"
_COLUMNS = ("opinion", "last", "streak", "heard", "began", "covered", "rtt", "smoothed", "reason")

Numbers = NDArray[np.intp]


class Agent:
    """The columns of one agent; instants are milliseconds of the coordinator's monotonic clock.

    `streak` is how often the `last` outcome came in a row and `began` when its first one ended;
    results that ended up to `covered` are contained in a digest. `results` counts those taken into
    account since the agent connected, `old` the others. `rtt` is the last round trip, `smoothed`
    that of the last digest (microseconds, 0: none yet).
    """

    def __init__(self, capacity: int) -> None:
        self.opinion: Codes = np.zeros(capacity, dtype=np.int8)
        self.last: Codes = np.zeros(capacity, dtype=np.int8)
        self.streak: NDArray[np.int32] = np.zeros(capacity, dtype=np.int32)
        self.heard: NDArray[np.int64] = np.full(capacity, NEVER, dtype=np.int64)
        self.began: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)
        self.covered: NDArray[np.int64] = np.full(capacity, NEVER, dtype=np.int64)
        self.rtt: NDArray[np.uint32] = np.zeros(capacity, dtype=np.uint32)
        self.smoothed: NDArray[np.uint32] = np.zeros(capacity, dtype=np.uint32)
        self.reason: NDArray[np.uint16] = np.zeros(capacity, dtype=np.uint16)
        self.phases: NDArray[np.uint32] | None = None  # a row for each target
        self.streams = 0
        self.results = 0
        self.old = 0
        self.heard_ms = NEVER
        self._reasons: list[str] = [""]
        self._number: dict[str, int] = {"": 0}

    # ---- what comes in -----------------------------------------------------------------------

    def note(
        self, target: NDArray[Any], outcome: Codes, reason: NDArray[Any], reasons: tuple[str, ...]
    ) -> None:
        """Keep the reasons of rows that are no successes; of several for a target the last."""
        bad = np.flatnonzero(outcome != SUCCESS)
        if bad.size:
            given = np.clip(reason[bad].astype(np.int64), 0, len(reasons))
            mapping = np.zeros(len(reasons) + 1, dtype=np.uint16)  # the last place: out of range
            places = [place for place in np.unique(given).tolist() if place < len(reasons)]
            texts = [reasons[place][:MAX_REASON_LENGTH] for place in places]
            if len(self._reasons) + len(set(texts) - self._number.keys()) >= MAX_REASONS:
                self._sweep()
            mapping[places] = [self._intern(text) for text in texts]
            self.reason[target[bad]] = mapping[given]

    def time(self, target: NDArray[Any], phases: tuple[NDArray[Any], ...] | None) -> None:
        """Keep the phase times of the rows; None where no row has any."""
        if phases is None:
            if self.phases is not None:
                self.phases[target] = 0
            return
        if self.phases is None:
            self.phases = np.zeros((len(self.opinion), len(phases)), dtype=np.uint32)
        rows = np.empty((len(target), len(phases)), dtype=np.uint32)
        for place, phase in enumerate(phases):
            rows[:, place] = phase
        self.phases[target] = rows

    def lapse(self, grace: NDArray[np.int64], now_ms: int) -> Numbers:
        """End opinions and streaks that are older than `grace`; whose opinion went."""
        over = np.flatnonzero((self.last != NONE) & (now_ms - self.heard >= grace))
        if over.size == 0:
            return over
        went: Numbers = over[self.opinion[over] != NO_VOTE]
        self.opinion[over] = NO_VOTE
        self.last[over] = NONE
        self.streak[over] = 0
        return went

    def clear(self, numbers: Numbers) -> None:
        """Forget everything about `numbers`."""
        for name in _COLUMNS:
            getattr(self, name)[numbers] = NEVER if name in ("heard", "covered") else 0
        if self.phases is not None:
            self.phases[numbers] = 0

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` targets."""
        more = capacity - len(self.opinion)
        for name in _COLUMNS:
            fill = NEVER if name in ("heard", "covered") else 0
            setattr(self, name, np.pad(getattr(self, name), (0, more), constant_values=fill))
        if self.phases is not None:
            self.phases = np.pad(self.phases, ((0, more), (0, 0)))

    # ---- what is shown -----------------------------------------------------------------------

    def reason_text(self, number: int) -> str:
        """Why the last probe that did not succeed did not."""
        return self._reasons[int(self.reason[number])]

    def was_heard(self, number: int) -> bool:
        """Whether the agent ever said something about a target."""
        return int(self.heard[number]) > NEVER

    def phases_of(self, number: int) -> tuple[int, int, int, int, int]:
        """DNS, connect, TLS, first byte and body of the last probe, in microseconds."""
        if self.phases is None:
            return (0, 0, 0, 0, 0)
        dns, connect, tls, first_byte, body = (int(us) for us in self.phases[number])
        return (dns, connect, tls, first_byte, body)

    def _intern(self, text: str) -> int:
        if text not in self._number and len(self._reasons) >= MAX_REASONS - 1:
            text = _TOO_MANY
        if text not in self._number:
            self._number[text] = len(self._reasons)
            self._reasons.append(text)
        return self._number[text]

    def _sweep(self) -> None:
        """Drop the reasons that no target has now."""
        used = np.unique(np.append(self.reason, np.uint16(0)))
        self.reason = np.searchsorted(used, self.reason).astype(np.uint16)
        self._reasons = [self._reasons[number] for number in used.tolist()]
        self._number = {text: number for number, text in enumerate(self._reasons)}
