"""Which tier is in force, against a naive twin told event by event, over restarts too."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.events import Now
from coordinator.forces import Forces
from coordinator.router import Router
from gtm.choices import Failback, PoolRef
from gtm.model import Address, Instance, Pool, Resources, Rule, Tier
from gtm.state import Force, Member, PoolState, Routes

TIERS = 3
AFTER_MS = 10_000
FAILBACKS = {
    "manual": Failback.parse("manual"),
    "after": Failback.parse({"after": "10s"}),
}

events = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sets(st.integers(1, TIERS))),
        st.tuples(st.just("pass"), st.sampled_from([1, 4_000, 9_999, 10_000, 25_000])),
        st.tuples(st.just("release")),
        st.tuples(st.just("pin"), st.integers(0, TIERS)),
        st.tuples(st.just("restart")),
    ),
    max_size=30,
)


class Twin:
    """One rule, judged by the words of the design."""

    def __init__(self, failback: str) -> None:
        self.failback, self.tier, self.waits_ms = failback, 0, -1
        self.pin = 0

    def judge(self, available: set[int], passed_ms: int, *, released: bool) -> None:
        best = min(available, default=0)
        if self.pin:
            self.tier, self.waits_ms = self.pin, -1
        elif not self.tier:
            self.tier = best
        elif not best:
            self.waits_ms = -1
        elif self.tier not in available or released:
            self.tier, self.waits_ms = best, -1
        elif best == self.tier or self.failback == "manual":
            self.waits_ms = -1
        elif self.waits_ms < 0:
            self.waits_ms = AFTER_MS
        else:
            self.waits_ms -= passed_ms
            if self.waits_ms <= 0:
                self.tier, self.waits_ms = best, -1


class Stage:
    """A router, and the store that it writes to."""

    def __init__(self, failback: str) -> None:
        names = [f"p{number}" for number in range(1, TIERS + 1)]
        tiers = tuple(Tier(pools=(PoolRef(pool=name),)) for name in names)
        rule = Rule(name="r", lines=("default",), tiers=tiers, failback=FAILBACKS[failback])
        pool = Pool(type="ipv4", addresses=(Address(value="192.0.2.1"),))
        self.resources = Resources(
            pools=dict.fromkeys(names, pool), instances={"i": Instance(rules=(rule,))}
        )
        self.available: set[int] = set()
        self.ms = 1_000
        self.stored: dict[str, Routes] = {}
        self.start()

    @property
    def now(self) -> Now:
        return Now(self.ms, 1_000_000 + self.ms / 1000)

    def start(self) -> None:
        self.forces = Forces()
        self.router = Router(self.forces)
        self.router.restore(self.stored)
        self.router.configure(self.resources)

    def force(self, **given: Force) -> None:
        self.forces.replace({f"i/{rule}": force for rule, force in given.items()}, self.now)

    def judge(self) -> None:
        states = {}
        for number in range(1, TIERS + 1):
            up = number in self.available
            member = Member(value="192.0.2.1", answered=up, counted=up, why="up" if up else "down")
            states[f"p{number}"] = PoolState(type="ipv4", members=(member,))
        for effect in self.router.judge(["i"], states, 1, self.now):
            if effect.routes is None:
                del self.stored[effect.instance]
            else:
                self.stored[effect.instance] = effect.routes

    @property
    def tier(self) -> int:
        routes = self.stored.get("i")
        return 0 if routes is None else routes.rules["r"]["ipv4"].tier


@given(st.sampled_from(sorted(FAILBACKS)), events)
@settings(max_examples=300, deadline=None)
def test_the_tier_in_force_is_what_the_design_says(
    failback: str, told: list[tuple[object, ...]]
) -> None:
    stage, twin = Stage(failback), Twin(failback)
    for what, *more in told:
        passed_ms, released = 0, False
        match what, more:
            case "open", [set() as tiers]:
                stage.available = set(tiers)
            case "pass", [int() as passed_ms]:
                stage.ms += passed_ms
            case "release", _:
                released, twin.pin = True, 0
                stage.force(r=Force(target="i/r", action="release"))
            case "pin", [int() as tier]:
                twin.pin = tier
                stage.force(**({"r": Force(target="i/r", action="pin", tier=tier)} if tier else {}))
            case "restart", _:
                stage.start()
                if twin.pin:
                    stage.force(r=Force(target="i/r", action="pin", tier=twin.pin))
        stage.judge()
        twin.judge(stage.available, passed_ms, released=released)
        if released:
            stage.force()
        assert stage.tier == twin.tier, (what, more)
