"""Which pools waver: a region's vote disagrees with a verdict, or did a moment ago. Pure.

One bit for each pool and family, set when a vote leaves the standing verdict of one of its targets,
cleared after `CALM_MS` of agreement. Kept only for pools that an instance with `ttl_wavering` uses:
the resolvers then answer with the shorter TTL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from gtm.model import FAMILIES, Family, Resources
from gtm.state import PoolState
from gtm.units import Duration

from .events import Now

CALM_MS = 60_000
_NONE: Mapping[Family, bool] = MappingProxyType({})


class Wavering:
    """The pools that matter, and until when each wavers."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[Family, ...]] = {}
        self._until_ms: dict[str, int] = {}  # of those that waver

    @property
    def matters(self) -> bool:
        """Whether any pool does."""
        return bool(self._families)

    def configure(self, resources: Resources) -> set[str]:
        """Take over a configuration; the pools that begin or cease to matter."""
        before = self._families.keys()
        self._families = {
            name: FAMILIES if pool.type == "domain" else (pool.type,)
            for instance in resources.instances.values()
            if isinstance(instance.ttl_wavering, Duration)
            for name in instance.pools()
            if (pool := resources.pools.get(name)) is not None
        }
        changed = before ^ self._families.keys()
        self._until_ms = {
            name: until for name, until in self._until_ms.items() if name in self._families
        }
        return set(changed)

    def restore(self, pools: Mapping[str, PoolState], now: Now) -> None:
        """Let what is published as wavering do so for one more span of agreement."""
        for name, state in pools.items():
            if any(state.wavering.values()):
                self._until_ms.setdefault(name, now.mono_ms + CALM_MS)

    def split(self, pools: Iterable[str], now: Now) -> set[str]:
        """Votes of these pools disagree now; those that begin to waver."""
        began = set()
        for name in pools:
            if name in self._families:
                if name not in self._until_ms:
                    began.add(name)
                self._until_ms[name] = now.mono_ms + CALM_MS
        return began

    def due(self, now: Now) -> list[str]:
        """Those that waver, and whose time is up unless they are split still."""
        return sorted(name for name, until in self._until_ms.items() if until <= now.mono_ms)

    def calm(self, pools: Iterable[str]) -> None:
        """These have agreed for long enough."""
        for name in pools:
            self._until_ms.pop(name, None)

    def of_pool(self, name: str) -> Mapping[Family, bool]:
        """What is published of a pool."""
        if name not in self._until_ms:
            return _NONE
        return dict.fromkeys(self._families.get(name, ()), True)
