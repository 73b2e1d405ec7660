"""What goes wrong, drawn from the seed: every kind of fault that a page of the design names.

Each fault is begun at some instant and ends by itself; `heal` ends all of them. A kind is one
function: it begins the fault, and returns how long it lasts and how it ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from .machines import AgentMachine, CoordinatorMachine, ResolverMachine, Started
from .monitor import Monitor
from .wire import Net
from .world import LIES, World

Ends = Callable[[], None]


def _both(one: Ends, other: Ends) -> Ends:
    def ends() -> None:
        one()
        other()

    return ends


HOUR_S = 3600.0


class Nemesis:
    """Begins faults; `ends` are those under way, by what they are about."""

    def __init__(
        self,
        dice: random.Random,
        world: World,
        net: Net,
        monitor: Monitor,
        coordinators: list[CoordinatorMachine],
        agents: list[AgentMachine],
        resolvers: list[ResolverMachine],
        quiet: frozenset[str] = frozenset(),
    ) -> None:
        self._dice, self._world, self._net, self._monitor = dice, world, net, monitor
        self._coordinators, self._agents, self._resolvers = coordinators, agents, resolvers
        self._ends: dict[tuple[str, Any], Ends] = {}
        self.kinds = {
            name: (kind, weight)
            for name, (kind, weight) in self._all().items()
            if name not in quiet
        }
        self.begun: dict[str, int] = dict.fromkeys(self.kinds, 0)

    def _all(self) -> dict[str, tuple[Callable[[], tuple[Any, float, Ends] | None], float]]:
        return {
            "origin dies": (self._origin, 6),
            "origins die together": (self._origins, 0.7),
            "route lost": (self._hidden, 2),
            "region loses all routes": (self._region, 1),
            "regions split": (self._split, 1.5),
            "link silent": (self._silent, 3),
            "link slow": (self._slow, 1),
            "link reset": (self._reset, 2),
            "stream pranked": (self._prank, 2),
            "agent killed": (self._agent, 2),
            "agent frozen": (self._frozen_agent, 1),
            "agent drops and comes": (self._storm, 1),
            "agent lies": (self._liar, 1),
            "coordinator killed": (self._coordinator, 2),
            "coordinator stopped": (self._stopped, 1),
            "coordinator frozen": (self._frozen, 2),
            "store lost": (self._store, 2),
            "write held up": (self._held_up, 3),
            "store lost to all": (self._outage, 1),
            "store slow": (self._store_slow, 1),
            "history compacted": (self._compacted, 0.5),
            "resolver killed": (self._resolver, 1),
            "resolver loses the store": (self._resolver_cut, 1),
            "clock jumps": (self._jump, 2),
        }

    def strike(self) -> None:
        """Begin one fault."""
        names = list(self.kinds)
        name = self._dice.choices(names, [self.kinds[one][1] for one in names])[0]
        begun = self.kinds[name][0]()
        if begun is None:
            return
        about, seconds, ends = begun
        self._monitor.note("nemesis", name, about, f"{seconds:.3f}")
        self.begun[name] += 1
        key = (name, about)
        if (former := self._ends.get(key)) is not None:
            ends = _both(former, ends)  # it goes on till then; ended now, it would take this away
        self._ends[key] = ends

        def over() -> None:
            if self._ends.get(key) is ends:
                del self._ends[key]
                self._monitor.note("over", name, about)
                ends()

        if seconds:
            self._net.loop.call_later(seconds, over, context=self._net.outside)
        else:
            over()

    def heal(self) -> None:
        """End every fault."""
        self._monitor.note("healed")
        while self._ends:
            self._ends.pop(next(iter(self._ends)))()

    # ---- origins -------------------------------------------------------------------------------

    def _origin(self) -> tuple[Any, float, Ends]:
        address = self._dice.choice(self._world.addresses)
        self._world.down.add(address)
        return address, self._dice.uniform(5, 900), lambda: self._world.down.discard(address)

    def _origins(self) -> tuple[Any, float, Ends]:
        dead = self._dice.sample(
            self._world.addresses, self._dice.randint(2, len(self._world.addresses))
        )
        self._world.down.update(dead)
        return (
            tuple(dead),
            self._dice.uniform(20, 900),
            lambda: self._world.down.difference_update(dead),
        )

    def _hidden(self) -> tuple[Any, float, Ends]:
        pair = (self._dice.choice(self._world.regions), self._dice.choice(self._world.addresses))
        self._world.hidden.add(pair)
        return pair, self._dice.uniform(5, 900), lambda: self._world.hidden.discard(pair)

    def _region(self) -> tuple[Any, float, Ends]:
        region = self._dice.choice(self._world.regions)
        pairs = {(region, address) for address in self._world.addresses}
        self._world.hidden |= pairs
        return (
            region,
            self._dice.uniform(30, 900),
            lambda: self._world.hidden.difference_update(pairs),
        )

    def _split(self) -> tuple[Any, float, Ends]:
        """One region too few loses the route to an address while yet another is not heard."""
        world, address = self._world, self._dice.choice(self._world.addresses)
        regions = self._dice.sample(world.regions, world.downs)
        pairs = {(region, address) for region in regions[1:]}
        mute = [agent for agent in self._agents if agent.region == regions[0]]
        links = [
            self._net.link(agent.name, one.address) for agent in mute for one in self._coordinators
        ]
        world.hidden |= pairs
        for link in links:
            self._net.hush(link)
        self._shaken(*mute)

        def ends() -> None:
            world.hidden.difference_update(pairs)
            for link in links:
                self._net.speak(link)
            self._shaken(*mute)

        return (regions[0], address), world.grace_s * self._dice.uniform(1.2, 3), ends

    # ---- links and agents ----------------------------------------------------------------------

    def _link(self) -> tuple[AgentMachine, CoordinatorMachine, Any]:
        agent, one = self._dice.choice(self._agents), self._dice.choice(self._coordinators)
        return agent, one, self._net.link(agent.name, one.address)

    def _shaken(self, *agents: AgentMachine) -> None:
        self._monitor.disturbed({agent.region for agent in agents})

    def _silent(self) -> tuple[Any, float, Ends]:
        agent, one, link = self._link()
        self._net.hush(link)
        self._shaken(agent)

        def ends() -> None:
            self._net.speak(link)
            self._shaken(agent)

        return (agent.name, one.name), self._dice.uniform(1, 300), ends

    def _slow(self) -> tuple[Any, float, Ends]:
        agent, one, link = self._link()
        link.slow_s = self._dice.uniform(0.1, 5)
        self._shaken(agent)

        def ends() -> None:
            link.slow_s = 0.0
            self._shaken(agent)

        return (agent.name, one.name), self._dice.uniform(10, 300), ends

    def _reset(self) -> tuple[Any, float, Ends]:
        agent, one, link = self._link()
        self._net.reset([link])
        self._shaken(agent)
        return (agent.name, one.name), 0.0, lambda: None

    def _prank(self) -> tuple[Any, float, Ends] | None:
        agent, one, link = self._link()
        prank = self._dice.choice(("lose", "repeat", "swap"))
        for call in link.calls:
            call.up.prank = prank
        self._shaken(agent)
        return (agent.name, one.name, prank), 0.0, lambda: None

    def _agent(self) -> tuple[Any, float, Ends] | None:
        agent = self._dice.choice(self._agents)
        return self._dead(agent, self._dice.uniform(0.5, 300))

    def _dead(self, machine: Started, seconds: float) -> tuple[Any, float, Ends] | None:
        if not machine.runs:
            return None
        machine.kill()

        def ends() -> None:
            if isinstance(machine, AgentMachine):
                self._monitor.forget(machine)
            self._after(machine)
            machine.start()

        self._after(machine)
        return machine.name, seconds, ends

    def _after(self, machine: Started) -> None:
        if isinstance(machine, AgentMachine):
            self._shaken(machine)
        elif isinstance(machine, CoordinatorMachine):
            self._shaken(*self._agents)

    def _frozen_agent(self) -> tuple[Any, float, Ends] | None:
        agent = self._dice.choice(self._agents)
        machine = agent.machine
        if not agent.runs or machine is None:
            return None
        self._net.loop.freeze(machine)
        self._shaken(agent)

        def ends() -> None:
            self._net.loop.thaw(machine)
            self._shaken(agent)

        return agent.name, self._dice.uniform(1, 120), ends

    def _storm(self) -> tuple[Any, float, Ends] | None:
        agent = self._dice.choice(self._agents)
        links = [link for (name, _), link in self._net.links() if name == agent.name]
        for number in range(self._dice.randint(3, 20)):
            self._net.loop.call_later(
                0.3 * number, self._net.reset, links, context=self._net.outside
            )
        self._shaken(agent)
        return agent.name, 10.0, lambda: self._shaken(agent)

    def _liar(self) -> tuple[Any, float, Ends]:
        agent = self._dice.choice(self._agents)
        agent.lie = self._dice.choice(LIES)

        def ends() -> None:
            agent.lie = ""

        return agent.name, self._dice.uniform(60, 900), ends

    # ---- coordinators, the store, resolvers ----------------------------------------------------

    def _coordinator(self) -> tuple[Any, float, Ends] | None:
        one = self._leader() if self._dice.random() < 0.5 else self._dice.choice(self._coordinators)
        return self._dead(one, self._dice.choice((0.5, 3, 20, 200)) * self._dice.uniform(0.5, 1))

    def _leader(self) -> CoordinatorMachine:
        for one in self._coordinators:
            if one.part is not None and one.part.leadership.fence > 0:
                return one
        return self._dice.choice(self._coordinators)

    def _stopped(self) -> tuple[Any, float, Ends] | None:
        one = self._dice.choice(self._coordinators)
        if not one.runs:
            return None
        one.stop.set()
        self._shaken(*self._agents)
        return one.name, 0.0, lambda: None

    def _frozen(self) -> tuple[Any, float, Ends] | None:
        one = self._leader()
        if not one.runs:
            return None
        one.freeze()
        self._shaken(*self._agents)

        def ends() -> None:
            one.thaw()
            self._shaken(*self._agents)

        return one.name, self._dice.uniform(0.5, 30), ends

    def _store(self) -> tuple[Any, float, Ends]:
        one = self._leader() if self._dice.random() < 0.7 else self._dice.choice(self._coordinators)
        one.client.held_s = self._dice.choice((0.0, self._dice.uniform(1, 30)))
        one.cut()
        return one.name, self._dice.uniform(0.5, 120), one.mend

    def _held_up(self) -> tuple[Any, float, Ends]:
        """The leader is cut off while it publishes; that write lands when another one leads."""
        one = self._leader()
        client, cut = one.client, [False]

        def sprung() -> None:
            client.held_s = self._dice.uniform(8, 30)
            cut[0] = True
            one.cut()

        def ends() -> None:
            client.trap = None
            if cut[0]:
                one.mend()

        client.trap = sprung
        return one.name, self._dice.uniform(60, 300), ends

    def _outage(self) -> tuple[Any, float, Ends]:
        for one in self._coordinators:
            one.cut()

        def ends() -> None:
            for one in self._coordinators:
                one.mend()

        return "all", self._dice.uniform(0.5, 120), ends

    def _store_slow(self) -> tuple[Any, float, Ends]:
        one = self._dice.choice(self._coordinators)
        client = one.client
        client.slow_s = self._dice.uniform(0.05, 2.0)

        def ends() -> None:
            client.slow_s = 0.0

        return one.name, self._dice.uniform(5, 120), ends

    def _compacted(self) -> tuple[Any, float, Ends]:
        history = self._monitor._cluster.memory.history
        if history.revision > history.oldest:
            history.compact(history.revision)
        return history.revision, 0.0, lambda: None

    def _resolver(self) -> tuple[Any, float, Ends] | None:
        return self._dead(self._dice.choice(self._resolvers), self._dice.uniform(1, 60))

    def _resolver_cut(self) -> tuple[Any, float, Ends]:
        client = self._dice.choice(self._resolvers).client
        client.cut()
        return client.name, self._dice.uniform(1, 300), client.mend

    def _jump(self) -> tuple[Any, float, Ends]:
        everybody: list[Started] = [*self._coordinators, *self._agents, *self._resolvers]
        machine = self._dice.choice(everybody)
        machine.jump(self._dice.choice((-HOUR_S, HOUR_S)))
        return machine.name, 0.0, lambda: None
