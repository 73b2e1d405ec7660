"""What operators see of the engine: verdicts with live evidence, regions, agents. Pure.

Made on demand of what stands; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gtm.model import Resources
from gtm.state import Aside, Member, PoolState

from .events import Now, TargetKey
from .evidence import Evidence
from .quorum import decide
from .targets import Targets
from .verdicts import HEALTH, Verdicts
from .views import AgentView, RegionView, VerdictView


class Picture:
    """The verdicts as of one instant."""

    def __init__(
        self,
        resources: Resources,
        targets: Targets,
        evidence: Evidence,
        verdicts: Verdicts,
        pools: Mapping[str, PoolState],
        now: Now,
    ) -> None:
        self._resources = resources
        self._targets = targets
        self._evidence = evidence
        self._verdicts = verdicts
        self._pools = pools
        self._now = now
        self._members: dict[str, dict[str, Member]] = {}

    def listing(self, filter: str) -> list[VerdictView]:
        """The verdicts over an address, a pool, an instance or a check; all of them for ""."""
        return [self.verdict(key) for key in self.named(filter)]

    def named(self, filter: str) -> list[TargetKey]:
        """The targets of `listing`."""
        instance = self._resources.instances.get(filter)
        pools = {filter}
        if instance is not None:
            pools.update(instance.pools())
        return [
            key
            for key in sorted(self._targets.assigned())
            if not filter
            or filter in (key.check, key.address)
            or not pools.isdisjoint(self._targets.pools_of[key])
        ]

    def verdict(self, key: TargetKey) -> VerdictView:
        """The verdict over a target that there is, with every region's vote."""
        number = self._targets.assigned()[key].number
        who = self._targets.electorate(key)
        code = int(self._verdicts.code[number])
        tally = self._evidence.tally(who.regions, np.array([number], dtype=np.intp))
        decision = decide(who, int(tally.ups[0]), int(tally.downs[0]), code)
        pools = self._targets.pools_of[key]
        members = [self._member(pool, key.address) for pool in pools]
        return VerdictView(
            target=key,
            pools=pools,
            why=tuple("withheld" if one is None else one.why for one in members),
            forced=any(one is not None and one.judged for one in members),
            held=any(one is not None and one.held_since for one in members),
            penalty=self._verdicts.damping.penalty(number, self._now),
            damped_since=self._verdicts.damping.since(number),
            unresolved_since=max(
                (one.set.failing for one in members if one is not None and one.set is not None),
                default=0.0,
            ),
            verdict=HEALTH[code],
            pending=decision.pending,
            wavering=self._evidence.wavers(who.regions, number),
            since=float(self._verdicts.since[number]),
            rule=decision.rule,
            regions=tuple(
                self._evidence.show(region, number, self._now.mono_ms) for region in who.regions
            ),
        )

    def _member(self, pool: str, address: str) -> Member | None:
        if pool not in self._members:
            state = self._pools.get(pool)
            members = () if state is None else state.members
            self._members[pool] = {member.value: member for member in members}
        return self._members[pool].get(address)


def region_views(
    resources: Resources,
    met: frozenset[str],
    evidence: Evidence,
    asides: Mapping[str, Aside],
) -> list[RegionView]:
    """Every region that is declared, met or has an agent that streams."""
    declared = resources.regions
    streaming = {
        name: sum(agent.streams > 0 for agent in place.agents.values())
        for name, place in evidence.regions.items()
    }
    names = declared.keys() | met | {name for name, count in streaming.items() if count}
    return [
        RegionView(
            name=name,
            declared=name in declared,
            met=name in met,
            agents=streaming.get(name, 0),
            votes=name in (declared or met),
            aside_since=asides[name].since if name in asides else 0.0,
            silenced=evidence.silenced.get(name, ""),
        )
        for name in sorted(names)
    ]


def agent_views(evidence: Evidence, now: Now) -> list[AgentView]:
    """Every agent that streams, or whose opinions still count."""
    return [
        AgentView(
            region=region,
            agent=name,
            connected=agent.streams > 0,
            results=agent.results,
            old=agent.old,
            heard_s=max(0, now.mono_ms - agent.heard_ms) / 1000,
        )
        for region, place in sorted(evidence.regions.items())
        for name, agent in sorted(place.agents.items())
    ]
