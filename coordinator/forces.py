"""Which of the operators' forces stand: on pools, their members, and rules. Pure.

A force ends when its time is up, and a release when it is done; the leader then deletes it. What an
end that was stored means becomes a span once, when the force is first seen (never longer than it
was made for), and runs on the monotonic clock from there.
"""

from __future__ import annotations

from collections.abc import Mapping

from gtm.state import Force, ForceAction

from .events import Now
from .pool import NO_FORCES

ON_RULES: frozenset[ForceAction] = frozenset({"pin", "release"})
"""Actions that change no member of a pool."""
ON_REGION = "region:"
"""What the target of a force on a region begins with."""


class Forces:
    """The forces that stand, by target."""

    def __init__(self) -> None:
        self._standing: dict[str, Force] = {}
        self._due_ms: dict[str, int] = {}
        self._ended: dict[str, Force] = {}  # by our word, while the store still has them
        self._of_pool: dict[str, dict[str, ForceAction]] = {}

    def restore(self, forces: Mapping[str, Force], now: Now) -> None:
        """Take what the store has, those included that ended and were never deleted."""
        self._ended = {}
        self.replace(forces, now)

    def replace(self, forces: Mapping[str, Force], now: Now) -> set[str]:
        """Take the whole set that the store has now; what came, changed or went."""
        self._ended = {
            target: force for target, force in self._ended.items() if forces.get(target) == force
        }
        before = self._standing
        self._standing = {
            target: force for target, force in forces.items() if target not in self._ended
        }
        touched = {
            target
            for target in before.keys() | self._standing.keys()
            if before.get(target) != self._standing.get(target)
        }
        for target in touched:
            self._due_ms.pop(target, None)
            force = self._standing.get(target)
            if force is not None and force.until:
                left_s = min(force.until - now.wall_s, force.until - force.since)
                self._due_ms[target] = now.mono_ms + max(0, round(left_s * 1000))
        self._index()
        return touched

    def _index(self) -> None:
        self._of_pool = {}
        for target, force in self._standing.items():
            if force.action not in ON_RULES and not target.startswith(ON_REGION):
                pool, _, member = target.partition("/")
                self._of_pool.setdefault(pool, {})[member] = force.action

    # ---- ends --------------------------------------------------------------------------------

    def over(self, now: Now) -> list[str]:
        """The targets whose time is up."""
        return sorted(target for target, due_ms in self._due_ms.items() if due_ms <= now.mono_ms)

    def releases(self) -> list[str]:
        """The rules, and the held addresses and their pools, whose release is asked for."""
        return sorted(
            target for target, force in self._standing.items() if force.action == "release"
        )

    def end(self, target: str) -> None:
        """It stands no more, although the store still has it."""
        self._ended[target] = self._standing.pop(target)
        self._due_ms.pop(target, None)
        self._index()

    def undeleted(self) -> list[str]:
        """Those that ended and that the store still has."""
        return sorted(self._ended)

    # ---- asked -------------------------------------------------------------------------------

    def of_pool(self, pool: str) -> Mapping[str, ForceAction]:
        """What operators want of a pool's members, by value; `pool.WHOLE` is for all of them."""
        return self._of_pool.get(pool, NO_FORCES)

    def pin(self, instance: str, rule: str) -> int:
        """The tier that a rule is pinned to; 0: none."""
        force = self._standing.get(f"{instance}/{rule}")
        return force.tier if force is not None and force.action == "pin" else 0

    def released(self, instance: str, rule: str) -> bool:
        """Whether a rule's manual failback is to end."""
        force = self._standing.get(f"{instance}/{rule}")
        return force is not None and force.action == "release"

    def muted(self) -> dict[str, str]:
        """The regions that are not to vote, and the reason given."""
        return {
            target.removeprefix(ON_REGION): force.why
            for target, force in self._standing.items()
            if force.action == "mute"
        }

    def standing(self) -> list[Force]:
        """Every force that stands, by target."""
        return [self._standing[target] for target in sorted(self._standing)]
