"""What a script that breaks a lab stands on: it breaks, the ground asks, judges and mends.

Runs in the namespace of the lab's client, where a steady load asks every resolver; each answer is
held against what is right at that moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from itertools import chain, combinations

from msgspec import Struct

from ctl.digs import poll
from tests.load import Counts, Load

from . import asking, world
from .lab import Lab
from .network import Faults
from .nodes import AGENT_HTTP, DNS, Node, resolver_address

SOON_S = 45.0
"""For what must come about at all."""
RATE = 60.0
"""Queries a second to each resolver."""
QUIET_S = 1.5
"""How long is looked on once all is well again."""


class Seen(Struct, frozen=True):
    """What came of one row."""

    row: str
    counts: Counts
    recovered_s: float
    """From the last mending to a whole lab and right answers; inf: not in time."""
    hurt: Counts
    """Those of the counts that belong to resolvers which the row itself hurts."""
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """What was not as the page says; none: all was."""


class Failed(AssertionError):
    """Something was not as it should be; the text says what."""


class Ground:
    """One script's view of the lab; all that it breaks is mended afterwards."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.shape = lab.shape
        self.notes: list[str] = []
        self.down: frozenset[str] = frozenset()
        """Names of the origins that are dead."""
        self.hurt: set[str] = set()
        """Resolvers whose silence is no fault."""
        self.dns = {
            f"resolver-{number}": f"{resolver_address(number)}:{DNS}"
            for number in range(1, self.shape.resolvers + 1)
        }
        self.load = Load(tuple(self.dns.values()), self.picture(), RATE)

    # ---- breaking --------------------------------------------------------------------------------

    def kill(self, *names: str) -> None:
        """kill -9 of these nodes or groups."""
        for node in self._each(names):
            self.lab.kill(node)

    def start(self, *names: str, clock: bool = False) -> None:
        """Start what does not run."""
        for node in self._each(names):
            self.lab.start(node, clock=clock)

    def stop(self, *names: str) -> None:
        """SIGSTOP."""
        for node in self._each(names):
            self.lab.stop(node)

    def cont(self, *names: str) -> None:
        """SIGCONT."""
        for node in self._each(names):
            self.lab.cont(node)

    def hurts(self, *resolvers: str) -> None:
        """From now on these may be silent."""
        self.hurt |= {self.dns[one] for one in resolvers}

    def origins(self, *down: str) -> None:
        """Exactly these origins are dead from now on; says nothing about answers."""
        for node in self.lab.chosen("origins"):
            if node.name in down:
                self.lab.kill(node)
            else:
                self.lab.start(node)
        self.down = frozenset(down)

    # ---- seeing ----------------------------------------------------------------------------------

    def follows(self, *down: str, within: Collection[str] = ()) -> None:
        """Exactly these origins die, the others live, and every answer follows: note how soon.

        `within`: the resolvers that can; the others may follow whenever they can.
        """
        what = f"{' '.join(sorted(down)) or 'all back'}"
        self.load.turning(*self._between(self.down, frozenset(down)))
        self.origins(*down)
        if within:
            servers = [self.dns[one] for one in within]
            took_s = poll(lambda: self.load.shows(servers), SOON_S, 0.01)
        else:
            took_s = self.load.arrives(SOON_S)
        self.check(took_s is not None, f"answers do not follow the origins ({what})")
        self.notes.append(f"{'followed' if not down else 'out'} in {took_s:.1f} s ({what})")

    def unseen(self, *down: str) -> None:
        """Exactly these origins die where nobody can judge it: answers stand until `appears`."""
        self.origins(*down)

    def appears(self, mend: Callable[[], None]) -> None:
        """Mend, and wait until every answer says which origins are dead: note how soon."""
        self.load.turning(self.picture(*self.down))
        mend()
        took_s = self.load.arrives(SOON_S)
        self.check(took_s is not None, "answers do not come to say what is so")
        self.notes.append(f"told {took_s:.1f} s after the mending")

    def stands(self, seconds: float) -> None:
        """Look on for so long while nothing may change."""
        poll(lambda: False, seconds, 0.05)
        self.check(self.load.counts().wrong == 0, "an answer changed")

    def until(self, holds: Callable[[], bool], what: str, pause_s: float = 0.2) -> float:
        """Wait until it holds; after how many seconds it does. Failed with `what` if never."""
        took_s = poll(holds, SOON_S, pause_s)
        self.check(took_s is not None, f"never: {what}")
        assert took_s is not None
        return took_s

    def leader(self, *, but: str = "") -> str:
        """The coordinator that leads, another one than `but`; waits for it."""
        found: list[str] = []

        def one_leads() -> bool:
            some = [name for name in self.running("coordinators") if name != but]
            found[:] = filter(self.leads, some)
            return bool(found)

        self.until(one_leads, "a coordinator leads")
        return found[0]

    def running(self, group: str) -> tuple[str, ...]:
        """The names of a group's nodes whose programs run."""
        return tuple(node.name for node in self.lab.chosen(group) if self.lab.pid(node.name))

    def leads(self, coordinator: str) -> bool:
        """Whether it holds that it leads."""
        return asking.leads(self.lab.node(coordinator))

    def lapsed(self, region: str) -> bool:
        """Whether the leader has no vote of a region any more."""
        said = asking.ask(self.lab, self.server(self.leader()))
        return said is not None and {*said.votes.get(region, {}).values()} <= {"none"}

    def vote(self, region: str, origin: str) -> str:
        """A region's vote on an origin, as the leader has it."""
        said = asking.ask(self.lab, self.server(self.leader()))
        return said.vote(region, self.lab.node(origin).address) if said is not None else ""

    def server(self, coordinator: str) -> str:
        """Where a coordinator is asked."""
        return self.lab.coordinators[int(coordinator.rpartition("-")[2]) - 1]

    def etcd_leader(self) -> str:
        """The member of etcd that leads; waits for one."""
        members = self.lab.chosen("etcds")
        found: list[str] = []

        def leads() -> bool:
            found[:] = [one.name for one in members if asking.leads_etcd(one.address)]
            return bool(found)

        self.until(leads, "a member of etcd leads")
        return found[0]

    def metric(self, name: str, node: str, port: int = AGENT_HTTP) -> float:
        """A metric without labels of a node; -1 where it does not answer."""
        return asking.metric(f"{self.lab.node(node).address}:{port}", name)

    def picture(self, *down: str) -> dict[str, str]:
        """What is right while exactly these origins are down."""
        addresses = {one.name: one.address for one in self.lab.chosen("origins")}
        return dict(world.picture(self.shape, *(addresses[name] for name in down)))

    def note(self, text: str) -> None:
        """Have it in the table."""
        self.notes.append(text)

    def check(self, holds: bool, otherwise: str) -> None:
        """Failed with `otherwise` unless it holds."""
        if not holds:
            raise Failed(otherwise)

    # ---- the whole -------------------------------------------------------------------------------

    def mend(self) -> None:
        """Everything runs, nothing is wrong with the network, all origins live."""
        if self.down:
            self.load.turning(self.picture())
        if self.lab.faults != Faults():
            self.lab.have(Faults())
        for node in self.lab.nodes:
            state = self.lab.state(node)
            if state == "stopped":
                self.lab.cont(node)
            elif state == "ended" and node.kind != "origin":
                self.lab.start(node)
            if node.disk_mb:
                self.lab.empty(node)
        self.origins()

    def _between(self, before: frozenset[str], after: frozenset[str]) -> list[dict[str, str]]:
        """What may be seen on the way, the end last: several are never judged in one moment."""
        changed = sorted(before ^ after)
        some = [combinations(changed, count) for count in range(len(changed) + 1)]
        return [self.picture(*(before ^ {*turned})) for turned in chain(*some)]

    def _each(self, names: Iterable[str]) -> tuple[Node, ...]:
        return tuple(node for name in names for node in self.lab.chosen(name))


Script = Callable[[Ground], None]


def named(*scripts: Script) -> dict[str, Script]:
    """Each script under the name that the page gives it."""
    return {script.__name__.replace("_", "-"): script for script in scripts}


def walked(lab: Lab, row: str, script: Script) -> Seen:
    """Run a script under load on a lab that is whole, mend, and say what was seen."""
    ground = Ground(lab)
    problems: list[str] = []
    recovered_s: float | None = None
    if poll(lambda: asking.whole(lab), SOON_S, 0.2) is None:
        return Seen(
            row, Counts(), float("inf"), Counts(), problems=("the lab was not whole before",)
        )
    with ground.load as load:
        asked = poll(lambda: load.counts().answered > 30, SOON_S)
        try:
            ground.check(asked is not None, "nobody answers")
            script(ground)
        except Failed as error:
            problems.append(str(error))
        began = time.monotonic()
        ground.mend()
        if (
            load.arrives(SOON_S) is not None
            and poll(lambda: asking.whole(lab) and _heard(ground, began), SOON_S, 0.1) is not None
        ):
            recovered_s = time.monotonic() - began
        poll(lambda: False, QUIET_S, 0.1)
    return _seen(ground, row, recovered_s, problems)


def _heard(ground: Ground, since: float) -> bool:
    return all(ground.load.heard(server) > since for server in ground.dns.values())


def _seen(ground: Ground, row: str, recovered_s: float | None, problems: Iterable[str]) -> Seen:
    load, found = ground.load, list(problems)
    counts, hurt = load.counts(), load.counts(*ground.hurt) if ground.hurt else Counts()
    if counts.wrong:
        found += [f"{counts.wrong} wrong answers", *load.told[:2]]
    if counts.unanswered > hurt.unanswered:
        found.append(f"{counts.unanswered - hurt.unanswered} queries unanswered")
    if recovered_s is None:
        found.append("it did not recover")
    return Seen(
        row,
        counts,
        float("inf") if recovered_s is None else recovered_s,
        hurt,
        tuple(ground.notes),
        tuple(found),
    )
