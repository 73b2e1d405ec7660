"""Tells a webhook of alarms: in order, signed, again until it was taken. Only the leader sends.

Each delivery is a POST of JSON with an id that stays the same over repetitions and coordinators:
who receives it twice knows. A leader that takes over repeats those alarms that were raised lately,
because nobody can say whether its predecessor was heard; each delivery names all alarms that stand,
so that a lost `clear` shows itself. Decides nothing about alarms.

    X-Gtm-Signature: t=1700000000,v1=HEX     HMAC-SHA256 under the secret of "1700000000.BODY"
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

import gtm
from gtm.errors import StartError
from gtm.telemetry import transition

from . import metrics
from .alarms import kind, severity
from .election import Leadership
from .http_post import PostFailed, place, post
from .settings import Settings
from .views import AlarmView

MAX_WAITING = 1_000
"""Deliveries that wait; one more takes the place of the oldest `update`, else of the oldest."""
TIMEOUT_S = 10.0
"""For one attempt."""
RETRY_S = (1.0, 300.0)
"""Least and greatest pause after a failed attempt; each is drawn between half of it and all."""
MAX_AGE_S = 24 * 3600.0
"""A delivery that was not taken for so long is given up."""
MIN_SECRET = 16
"""Bytes of the secret at least."""
REPEATED_S = 600.0
"""A new leader repeats the alarms that were raised in so long a time before it."""

log = logging.getLogger("coordinator")


class Delivery(Struct, frozen=True, kw_only=True):
    """One event of one alarm; `at` is when it happened (Unix)."""

    id: str
    event: str
    alarm: AlarmView
    at: float


def delivery_id(event: str, alarm: AlarmView, at: float) -> str:
    """The id of a delivery: the same for the same event, whoever sends it.

    An alarm that stands since one instant is raised and cleared once; its text changes often.
    """
    told = f"{alarm.id}\n{alarm.since:.3f}\n{event}"
    if event == "update":
        told += f"\n{at:.3f}\n{alarm.text}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def signature(secret: bytes, at_s: int, body: bytes) -> str:
    """The value of X-Gtm-Signature."""
    signed = hmac.new(secret, f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={signed}"


def chosen(
    settings: Settings,
    leadership: Leadership,
    alarms: Callable[[], Iterable[AlarmView]],
    source: Callable[[], str],
) -> Webhook | None:
    """The webhook that the settings name, if any. Raises StartError."""
    if not settings.webhook:
        return None
    try:
        place(settings.webhook)
    except ValueError as error:
        raise StartError(f"--webhook {error}", 2) from error
    try:
        secret = Path(settings.webhook_secret).read_bytes() if settings.webhook_secret else b""
        trust = ssl.create_default_context(cafile=settings.webhook_ca or None)
    except OSError as error:
        raise StartError(
            f"--webhook-secret or --webhook-ca can't be read: {error.strerror or error}", 2
        ) from error
    if settings.webhook_secret and len(secret.strip()) < MIN_SECRET:
        raise StartError(f"--webhook-secret holds fewer than {MIN_SECRET} bytes", 2)
    return Webhook(settings.webhook, secret.strip(), leadership, alarms, source=source, trust=trust)


class Webhook:
    """The deliveries of one coordinator; `standing()` are the alarms that stand."""

    def __init__(
        self,
        url: str,
        secret: bytes,
        leadership: Leadership,
        standing: Callable[[], Iterable[AlarmView]],
        *,
        source: Callable[[], str],
        trust: ssl.SSLContext | None = None,
        wall_s: Callable[[], float] = time.time,
        retry_s: tuple[float, float] = RETRY_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url, self._secret, self._trust = url, secret, trust
        self._leadership, self._standing, self._source = leadership, standing, source
        self._wall_s, self._retry_s, self._timeout_s = wall_s, retry_s, timeout_s
        self._waiting: deque[Delivery] = deque()
        self._wake = asyncio.Event()
        self._fence = 0

    def alarmed(self, event: str, alarm: AlarmView, at: float) -> None:
        """An alarm came (raise), changed its text (update) or went (clear)."""
        if self._leads():
            self._add(event, alarm, at)

    def _leads(self) -> bool:
        """Whether we lead; at the begin of it, what was raised lately is told again."""
        fence = self._leadership.fence
        if fence and fence != self._fence:
            for alarm in self._standing():
                if alarm.since >= self._wall_s() - REPEATED_S:
                    self._add("raise", alarm, alarm.since)
        elif not fence and self._waiting:
            self._waiting.clear()  # the next leader repeats them
        self._fence = fence
        return fence > 0

    def _add(self, event: str, alarm: AlarmView, at: float) -> None:
        new = Delivery(id=delivery_id(event, alarm, at), event=event, alarm=alarm, at=at)
        if any(one.id == new.id for one in self._waiting):
            return
        if len(self._waiting) >= MAX_WAITING:
            old = next((one for one in self._waiting if one.event == "update"), self._waiting[0])
            self._waiting.remove(old)
            metrics.WEBHOOK_DROPPED.labels("full").inc()
        self._waiting.append(new)
        metrics.WEBHOOK_WAITING.set(len(self._waiting))
        self._wake.set()

    # ---- sent ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until cancelled."""
        pause_s, failing = self._retry_s[0], False
        while True:
            self._wake.clear()
            if not self._leads() or not self._waiting:
                try:
                    async with asyncio.timeout(1.0):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                continue
            first = self._waiting[0]
            try:
                await self._send(first)
            except PostFailed as error:
                metrics.WEBHOOK_ATTEMPTS.labels("failed").inc()
                if not failing:
                    transition(log, "the webhook fails", logging.WARNING, cause=str(error))
                failing = True
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
                pause_s = min(2 * pause_s, self._retry_s[1])
                if self._wall_s() - first.at > MAX_AGE_S:
                    self._done(first)
                    metrics.WEBHOOK_DROPPED.labels("old").inc()
                continue
            metrics.WEBHOOK_ATTEMPTS.labels("taken").inc()
            if failing:
                transition(log, "the webhook takes deliveries again")
            pause_s, failing = self._retry_s[0], False
            self._done(first)

    def _done(self, one: Delivery) -> None:
        if one in self._waiting:
            self._waiting.remove(one)
        metrics.WEBHOOK_WAITING.set(len(self._waiting))

    async def _send(self, one: Delivery) -> None:
        body = json.dumps(self._body(one)).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"meridian-gtm/{gtm.__version__}",
            "X-Gtm-Delivery": one.id,
            "X-Gtm-Event": one.event,
        }
        if self._secret:
            headers["X-Gtm-Signature"] = signature(self._secret, int(self._wall_s()), body)
        await post(self._url, headers, body, self._timeout_s, self._trust)

    def _body(self, one: Delivery) -> dict[str, object]:
        return {
            "delivery": one.id,
            "event": one.event,
            "at": round(one.at, 3),
            "alarm": {
                "id": one.alarm.id,
                "kind": kind(one.alarm.id),
                "severity": severity(one.alarm.id),
                "text": one.alarm.text,
                "since": round(one.alarm.since, 3),
            },
            "standing": [alarm.id for alarm in self._standing()],
            "source": self._source(),
        }
