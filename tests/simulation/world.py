"""What there is to judge: regions, pools, their origins, and what probes of them find out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from agent.probes.base import Kind, Outcome, Reason, Target
from gtm import codec, keys
from gtm.model import Check, Resources
from gtm.state import Head
from gtm.store import Op, Put
from tests import worlds

from .loop import VirtualLoop

CHECKS = ("web", "api")
LIES = ("up", "down", "random")


class Size:
    """How large a world is; drawn from the seed unless given."""

    def __init__(self, dice: random.Random, **given: int) -> None:
        def pick(name: str, low: int, high: int) -> int:
            drawn = dice.randint(low, high)
            return given.get(name, drawn)

        self.coordinators = given.get("coordinators", dice.choice((1, 2, 2, 2, 3)))
        self.regions = pick("regions", 3, 5)
        self.addresses = pick("addresses", 4, 13)
        self.interval_s = pick("interval_s", 20, 60)
        self.fall = pick("fall", 2, 3)
        self.rise = pick("rise", 1, 3)
        self.share = pick("share", 40, 70)
        self.resolvers = pick("resolvers", 1, 2)
        self.doubled = pick("doubled", 0, 1)
        """Whether the first region has two agents."""

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in vars(self).items())


class World:
    """Origins that are up or down, seen by regions that reach them or not."""

    def __init__(self, size: Size, loop: VirtualLoop, dice: random.Random) -> None:
        self.size, self._loop, self._dice = size, loop, dice
        self.regions = [f"r{number}" for number in range(1, size.regions + 1)]
        self.addresses = [f"192.0.2.{number}" for number in range(1, size.addresses + 1)]
        self.down: set[str] = set()
        self.hidden: set[tuple[str, str]] = set()
        """(region, address) that the region can't reach although it is up."""
        half = max(1, size.addresses * 2 // 3)
        pools = {"a": self.addresses[:half], "b": self.addresses[half:] or self.addresses[:1]}
        plain: dict[str, Any] = {
            "regions": {name: {} for name in self.regions},
            "checks": {
                name: {
                    "type": "tcp",
                    "port": 80 + at,
                    "interval": f"{size.interval_s}s",
                    "timeout": "2s",
                    "fall": size.fall,
                    "rise": size.rise,
                    "failing_share": f"{size.share}%",
                }
                for at, name in enumerate(CHECKS)
            },
            "pools": {
                name: {
                    "type": "ipv4",
                    "addresses": [{"value": one} for one in members],
                    "checks": [CHECKS[at]],
                }
                for at, (name, members) in enumerate(pools.items())
            },
        }
        read = {
            kind: {name: codec.resource(kind, data) for name, data in named.items()}
            for kind, named in plain.items()
        }
        rule = ("world", ["default"], [["a"], ["b"]])
        instances = {"shop": worlds.instance(rule)}
        self.resources = Resources(**read, instances=instances)
        self.members = {name: tuple(members) for name, members in pools.items()}

    @property
    def check(self) -> Check:
        return self.resources.checks[CHECKS[0]]

    @property
    def voters(self) -> int:
        """A majority: counted here and not taken from the judge, whom the monitor doubts."""
        return len(self.regions) // 2 + 1

    @property
    def grace_s(self) -> float:
        return (3 * self.check.interval.ms + self.check.timeout.ms) / 1000

    @property
    def downs(self) -> int:
        """From how many regions that see it down on an address is down: the share, rounded up."""
        return max(1, -(-self.size.share * len(self.regions) // 100))

    @property
    def quorums(self) -> dict[str, int]:
        """How many regions must have seen it so, at least: to leave, and to return."""
        ups = len(self.regions) - self.downs + 1
        return {"down": min(self.downs, self.voters), "up": min(ups, self.voters)}

    def written(self) -> list[Op]:
        """What an operator applied before everything began."""
        values: dict[str, Any] = {keys.HEAD: Head(generation=1)}
        values[keys.config("zones", "gtm.test")] = worlds.zone()
        for kind in ("regions", "checks", "pools", "instances"):
            for name, one in getattr(self.resources, kind).items():
                values[keys.config(kind, name)] = one
        return [Put(key, codec.encode(value)) for key, value in values.items()]

    def fails(self, region: str, address: str) -> bool:
        """Whether a probe from `region` fails, if it tells the truth."""
        return address in self.down or (region, address) in self.hidden

    def probe(self, region: str, lies: Callable[[], str]) -> Any:
        """The probe of an agent."""

        async def probe(target: Target) -> Outcome:
            dice, lie = self._dice, lies()
            fails = self.fails(region, target.address)
            if lie:
                fails = lie == "down" or (lie == "random" and dice.random() < 0.5)
            if fails and not lie and dice.random() < 0.3:
                await asyncio.sleep(target.timeout_ms / 1000)
                return Outcome(Kind.FAILURE, Reason.TIMEOUT)
            rtt_s = dice.uniform(0.002, 0.3)
            await asyncio.sleep(rtt_s)
            if fails:
                return Outcome(Kind.FAILURE, Reason.REFUSED)
            return Outcome(Kind.SUCCESS, rtt_us=int(rtt_s * 1e6))

        return probe
