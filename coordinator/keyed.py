"""Where an effect is written, and as what. Pure."""

from __future__ import annotations

from gtm import codec, keys
from gtm.state import AlarmRecord, Aside, PoolState, Routes, VerdictRecord

from .events import (
    ClearAlarm,
    EndForce,
    Now,
    PublishAside,
    PublishPool,
    PublishRoutes,
    PublishVerdict,
    RaiseAlarm,
    Stored,
)


def of(effect: Stored) -> str:
    """The key that an effect is about."""
    match effect:
        case PublishPool(name=name):
            return keys.pool(name)
        case PublishRoutes(instance=instance):
            return keys.routes(instance)
        case PublishVerdict(target=target):
            return keys.verdict(target.check, target.address, target.port)
        case PublishAside(region=region):
            return keys.aside(region)
        case EndForce(target=forced):
            return keys.force(forced)
        case RaiseAlarm(id=id_) | ClearAlarm(id=id_):
            return keys.alarm(id_)


def written(effect: Stored, now: Now) -> bytes | None:
    """The value that its key has from then on; None: none."""
    value: PoolState | Routes | VerdictRecord | AlarmRecord | Aside | None = None
    match effect:
        case PublishPool():
            value = effect.state
        case PublishRoutes():
            value = effect.routes
        case PublishVerdict() | PublishAside():
            value = effect.record
        case RaiseAlarm():
            value = AlarmRecord(text=effect.text, since=effect.since or now.wall_s)
    return None if value is None else codec.encode(value)
