"""Names of flattened pools: when they are asked for, what is news, and what becomes of members."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from coordinator import metrics, sets
from coordinator.engine import Engine
from coordinator.events import Configured, Effect, Now, PublishPool, Resolved, Restored, Tick
from coordinator.flatten import FIRST_RETRY_S, Flattener
from coordinator.planner import Request
from coordinator.pool import RESOLVING_MS
from coordinator.sets import LEAST_S, LEAST_TTL_S, names_of, news, sets_of
from gtm import codec, keys
from gtm.errors import StartError
from gtm.memory import MemoryStore
from gtm.model import Address, Pool, Resources
from gtm.names import Addresses, Names
from gtm.state import FAILING_TTL_S, AddressSet, Member, PoolState
from resolver.leaves import leaf_of
from tests.name_server import NameServer, name_server

FLAT = Pool(
    type="domain", flatten=True, addresses=(Address(value="a.test"), Address(value="b.test"))
)
PLAIN = Pool(type="domain", addresses=(Address(value="c.test"),))
A = AddressSet(addresses=("192.0.2.1",), ttl=60, since=1.0)
B = AddressSet(addresses=("192.0.2.2", "2001:db8::2"), ttl=60, since=2.0)


# ---- what is news --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (Addresses(("192.0.2.1",), (), 60), None),
        (Addresses(("192.0.2.1",), (), 31), None),
        (Addresses(("192.0.2.1",), (), 120), (("192.0.2.1",), 120, 1.0)),
        (Addresses(("192.0.2.1",), (), 1), (("192.0.2.1",), LEAST_TTL_S, 1.0)),
        (Addresses(("192.0.2.10", "192.0.2.9"), (), 60), (("192.0.2.9", "192.0.2.10"), 60, 9.0)),
        (Addresses((), ("2001:db8::1",), 60), (("2001:db8::1",), 60, 9.0)),
        (
            Addresses((), ("2001:db8::1",), 60, missing=("ipv4",)),
            (("192.0.2.1", "2001:db8::1"), 60, 9.0),
        ),
        (Addresses(("192.0.2.1",), (), 60, missing=("ipv6",)), None),
    ],
)
def test_other_addresses_are_news_and_a_ttl_where_it_doubled_or_halved(
    told: Addresses, expected: tuple[tuple[str, ...], int, float] | None
) -> None:
    found = news(told, A, 9.0)
    assert (None if found is None else (found.addresses, found.ttl, found.since)) == expected


@pytest.mark.parametrize(("four", "six", "kept"), [(9, 0, 8), (9, 1, 7), (9, 9, 4), (1, 9, 1)])
def test_a_name_stands_for_eight_addresses_and_neither_family_crowds_the_other_out(
    four: int, six: int, kept: int
) -> None:
    told = Addresses(
        tuple(f"192.0.2.{n}" for n in range(1, four + 1)),
        tuple(f"2001:db8::{n}" for n in range(1, six + 1)),
        60,
    )
    found = news(told, None, 9.0)
    assert found is not None
    assert len(found.addresses) == 8
    assert sum(":" not in one for one in found.addresses) == kept


# ---- the engine ----------------------------------------------------------------------------


def engine(published: PoolState | None = None, mono_ms: int = 0) -> tuple[Engine, list[Effect]]:
    """An engine with the pools flat and plain, and what it published first."""
    made = Engine()
    now = Now(mono_ms, 10.0)
    pools = {} if published is None else {"flat": published}
    made.handle(Restored(verdicts={}, pools=pools, routes={}), now)
    resources = Resources(pools={"flat": FLAT, "plain": PLAIN})
    return made, made.handle(Configured(resources=resources, generation=1, head_revision=1), now)


def flat(effects: list[Effect]) -> PoolState | None:
    """What is published of the pool flat."""
    found = [one for one in effects if isinstance(one, PublishPool) and one.name == "flat"]
    return found[0].state if found else None


def rows(state: PoolState | None) -> list[tuple[str, str, bool, bool]]:
    assert state is not None
    assert state.flatten
    return [(one.value, one.why, one.answered, one.counted) for one in state.members]


UP = ("unmonitored", True, True)
OUT = ("unresolved", False, False)


def test_a_new_pool_waits_for_its_names_and_a_name_without_addresses_is_out() -> None:
    made, effects = engine()
    assert flat(effects) is None
    assert names_of({"flat": FLAT, "plain": PLAIN}) == {"a.test", "b.test"}
    assert flat(made.handle(Resolved(sets={"a.test": A}), Now(10, 10.0))) is None
    assert flat(made.handle(Tick(), Now(RESOLVING_MS - 1, 10.0))) is None
    state = flat(made.handle(Tick(), Now(RESOLVING_MS, 10.0)))
    assert rows(state) == [("a.test", *UP), ("b.test", *OUT)]
    state = flat(made.handle(Resolved(sets={"b.test": B}), Now(RESOLVING_MS + 1, 10.0)))
    assert rows(state) == [("a.test", *UP), ("b.test", *UP)]
    assert state is not None
    assert [one.set for one in state.members] == [A, B]


def test_all_names_resolved_end_the_wait() -> None:
    made, _ = engine()
    state = flat(made.handle(Resolved(sets={"a.test": A, "b.test": B}), Now(10, 10.0)))
    assert rows(state) == [("a.test", *UP), ("b.test", *UP)]


def test_published_sets_are_read_back() -> None:
    made, _ = engine()
    state = flat(made.handle(Resolved(sets={"a.test": A, "b.test": B}), Now(10, 10.0)))
    assert state is not None
    again, effects = engine(state)
    assert flat(effects) is None
    assert again.sets() == {"a.test": A, "b.test": B} == sets_of([state])
    fresh = AddressSet(addresses=("192.0.2.7",), ttl=60, since=20.0)
    changed = flat(again.handle(Resolved(sets={"a.test": fresh}), Now(20, 20.0)))
    assert changed is not None
    assert [one.set for one in changed.members] == [fresh, B]
    assert [one.since for one in changed.members] == [one.since for one in state.members]


def test_a_pool_that_answers_cnames_has_no_sets() -> None:
    _, effects = engine()
    [plain] = [one for one in effects if isinstance(one, PublishPool)]
    assert plain.state is not None
    assert [(one.why, one.set) for one in plain.state.members] == [("unmonitored", None)]


# ---- asking --------------------------------------------------------------------------------


class Stage:
    """A flattener by a clock that stands, and the sets that it told."""

    def __init__(self, server: NameServer) -> None:
        self.sets: dict[str, AddressSet] = {}
        self.told: list[dict[str, AddressSet]] = []
        self.now_s = 100
        self.leads = True
        self.flattener = Flattener(
            Names(server.address),
            wanted=lambda: frozenset({"a.test"}),
            known=lambda: self.sets,
            leads=lambda: self.leads,
            tell=self._tell,
            clock=lambda: Now(self.now_s * 1000, float(self.now_s)),
        )

    def _tell(self, news: dict[str, AddressSet]) -> None:
        self.told.append(news)
        self.sets |= news

    async def look(self, later_s: int = 0) -> list[tuple[str, ...]]:
        """The addresses told by a look so much later."""
        self.now_s += later_s
        before = len(self.told)
        await self.flattener.look()
        return [news["a.test"].addresses for news in self.told[before:]]


async def test_a_name_is_asked_for_when_its_ttl_is_over_and_thirty_seconds_at_least() -> None:
    for ttl, wait_s in ((1, LEAST_S), (60, 60)):
        async with name_server(ttl) as server:
            stage = Stage(server)
            server.rows["a.test"] = ["A 192.0.2.1", "AAAA 2001:db8::1"]
            assert await stage.look() == [("192.0.2.1", "2001:db8::1")]
            server.rows["a.test"] = ["A 192.0.2.2"]
            assert await stage.look(wait_s - 1) == []
            assert await stage.look(1) == [("192.0.2.2",)]
            assert len(server.asked) == 4


async def test_a_failure_keeps_the_last_set_and_a_name_without_one_is_asked_for_soon() -> None:
    async with name_server() as server:
        stage = Stage(server)
        assert await stage.look() == []
        assert await stage.look(FIRST_RETRY_S - 1) == []
        assert len(server.asked) == 2
        server.rows["a.test"] = ["A 192.0.2.1"]
        assert await stage.look(1) == [("192.0.2.1",)]
        first = stage.sets["a.test"]
        assert (first.since, first.left_s) == (102.0, first.ttl)
        told = []
        for rows in ("SERVFAIL", "NXDOMAIN", []):
            server.rows["a.test"] = rows
            told += await stage.look(60)
        assert told == [("192.0.2.1",)]  # told once more, as one that only stands
        last = stage.sets["a.test"]
        assert last == replace(first, failing=222.0)
        assert last.left_s == FAILING_TTL_S < first.ttl
        server.rows["a.test"] = ["A 192.0.2.1"]
        assert await stage.look(60) == [("192.0.2.1",)]
        assert stage.sets["a.test"] == first


def test_a_name_that_does_not_resolve_is_an_alarm_and_its_answers_are_short_lived() -> None:
    """b.test never resolved; a.test did, and does no more."""
    failing = replace(A, failing=30.0)
    assert sets.conditions({"flat": FLAT}, {"a.test": A, "b.test": B}) == {}
    found = sets.conditions({"flat": FLAT, "plain": PLAIN}, {"a.test": failing})
    assert found.keys() == {"name-unresolved/a.test", "name-unresolved/b.test"}
    assert found["name-unresolved/b.test"].delay_ms == sets.UNRESOLVED_MS
    told = found["name-unresolved/a.test"]
    assert told.delay_ms == 0
    assert "does not resolve since 1970-01-01 00:00:30 UTC" in told.text
    assert "(1970-01-01 00:00:01 UTC)" in told.text
    member = Member(value="a.test", answered=True, counted=True, why="up", set=failing)
    state = PoolState(type="domain", flatten=True, members=(member,))
    assert codec.decode(codec.encode(state), PoolState) == state
    assert leaf_of([state], "ipv4", 300)(["192.0.2.1"]).ttl == FAILING_TTL_S
    assert leaf_of([state], "ipv4", 1)(["192.0.2.1"]).ttl == 1


async def test_an_engine_raises_and_clears_the_alarm_of_a_name() -> None:
    made, _ = engine()
    made.handle(Resolved(sets={"a.test": replace(A, failing=9.0), "b.test": B}), Now(1_000, 11.0))
    made.handle(Tick(), Now(2_000, 12.0))
    assert [alarm.id for alarm in made.alarms()] == ["name-unresolved/a.test"]
    made.handle(Resolved(sets={"a.test": A}), Now(3_000, 13.0))
    made.handle(Tick(), Now(4_000, 14.0))
    assert made.alarms() == []


async def test_only_the_leader_asks_and_a_new_one_asks_at_once() -> None:
    async with name_server() as server:
        server.rows["a.test"] = ["A 192.0.2.1"]
        stage = Stage(server)
        stage.leads = False
        assert await stage.look() == []
        assert server.asked == []
        stage.leads = True
        assert await stage.look() == [("192.0.2.1",)]


async def test_a_coordinator_publishes_addresses_and_keeps_them_over_a_restart_without_dns(
    helpers: Any,
) -> None:
    given = {**helpers.SMALL, "pools": {"a": {"type": "domain", "flatten": True}}}
    given["pools"]["a"]["addresses"] = [{"value": "a.test"}]
    store = MemoryStore()

    async def published() -> Any:
        found = await store.get(keys.pool("a"))
        return None if found is None else codec.decode(found.value, PoolState).members[0].set

    async with name_server() as server:
        server.rows["a.test"] = ["A 192.0.2.1"]
        async with helpers.coordinator(store, resolver=server.address) as made:
            await made.applier.apply(Request(given=given))
            first = await helpers.until(published)
    assert first.addresses == ("192.0.2.1",)
    async with helpers.coordinator(store, resolver=server.address) as made:
        await helpers.until(lambda: made.leadership.fence)
        await helpers.until(lambda: metrics.OLD_SETS._value.get() == 1)
        assert made.engine.sets() == {"a.test": first}
        assert await published() == first


async def test_a_coordinator_refuses_a_dns_server_that_is_none(helpers: Any) -> None:
    with pytest.raises(StartError, match=r"--resolver 'dns\.test' is not ADDRESS:PORT"):
        async with helpers.coordinator(MemoryStore(), resolver="dns.test"):
            pass
