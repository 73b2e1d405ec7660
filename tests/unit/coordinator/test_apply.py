"""Applies: differences, ids, serials, chains, the brake, lost answers, concurrent writers."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from coordinator import apply, plan
from coordinator.apply import MAX_WAITING, Busy
from coordinator.planner import Request
from gtm import codec, keys
from gtm.errors import OutcomeUnknown, StoreUnavailable
from gtm.memory import MemoryStore
from gtm.ports import Effects, Problem
from gtm.state import Force, Head, Identity, Member, PoolState
from gtm.store import MAX_OPS, Put


async def test_an_apply_writes_what_is_given_and_the_head(bench: Any, helpers: Any) -> None:
    outcome = await bench.apply(helpers.SMALL, request_id="first")
    assert outcome.applied
    assert [(change.action, change.kind, change.name) for change in outcome.changes] == [
        ("create", "zones", "gtm.test"),
        ("create", "regions", "as"),
        ("create", "regions", "eu"),
        ("create", "regions", "us"),
        ("create", "checks", "web"),
        ("create", "pools", "a"),
        ("create", "instances", "shop"),
    ]
    assert outcome.transactions == 1
    assert bench.view.head.generation == outcome.generation == 1
    assert bench.view.head.request_id == "first#1/1"
    assert bench.view.head_revision == outcome.revision
    assert bench.view.instances["shop"].zone == "gtm.test"
    assert bench.view.zones["gtm.test"].serial == int(helpers.WALL_S)


async def test_the_same_again_changes_nothing_and_writes_nothing(bench: Any, helpers: Any) -> None:
    await bench.apply(helpers.SMALL)
    before = (await bench.store.status()).revision
    outcome = await bench.apply(helpers.SMALL)
    assert outcome.applied
    assert outcome.changes == ()
    assert outcome.transactions == 0
    assert (await bench.store.status()).revision == before


async def test_problems_refuse_the_whole_and_all_come_back(bench: Any, helpers: Any) -> None:
    given = {
        **helpers.SMALL,
        "pools": {"a": helpers.pool("192.0.2.1", checks=["nope"])},
        "instances": {"shop": helpers.instance("missing"), "shop2": helpers.instance("gone")},
    }
    outcome = await bench.apply(given)
    assert not outcome.applied
    assert [problem.text for problem in outcome.problems] == [
        "no pool 'missing'",
        "no pool 'gone'",
        "no check 'nope'",
    ]
    assert (await bench.store.list(keys.ROOT)).items == ()


async def test_resources_not_named_stay_unless_pruned(bench: Any, helpers: Any) -> None:
    await bench.apply(helpers.SMALL)
    outcome = await bench.apply({"pools": {"b": helpers.pool("192.0.2.9")}})
    assert outcome.applied, outcome
    assert set(bench.view.config_pools) == {"a", "b"}
    outcome = await bench.apply(helpers.SMALL, prune=True)
    assert [(change.action, change.name) for change in outcome.changes] == [("delete", "b")]
    assert set(bench.view.config_pools) == {"a"}


async def test_what_is_referred_to_can_not_be_deleted(bench: Any, helpers: Any) -> None:
    await bench.apply(helpers.SMALL)
    outcome = await bench.apply(removed=(("pools", "a"),))
    assert not outcome.applied
    assert [problem.text for problem in outcome.problems] == ["no pool 'a'"]
    assert "a" in bench.view.config_pools


async def test_a_deleted_pool_takes_its_published_state_along(bench: Any, helpers: Any) -> None:
    await bench.apply({"pools": {"a": helpers.pool("192.0.2.1")}})
    await bench.store.txn([], [Put(keys.pool("a"), codec.encode(PoolState(type="ipv4")))])
    outcome = await bench.apply(removed=(("pools", "a"),))
    assert outcome.applied
    assert await bench.store.get(keys.pool("a")) is None
    assert await bench.store.get(keys.config("pools", "a")) is None
    batch_revision = (await bench.store.get(keys.HEAD)).mod_revision
    assert batch_revision == outcome.revision


async def forced(bench: Any) -> set[str]:
    """The targets of the forces that are stored."""
    listing = await bench.store.list(keys.FORCES)
    return {keys.force_target(item.key) for item in listing.items}


async def test_forces_end_with_what_they_name_and_not_with_its_namesake(
    bench: Any, helpers: Any
) -> None:
    """A pool and an instance are both called shop; so begin the targets of forces on both."""
    shop = helpers.pool("192.0.2.1", "192.0.2.2")
    await bench.apply(helpers.SMALL)
    await bench.apply({"pools": {"shop": shop}})
    forces = [
        Force(target="shop", action="drain"),
        Force(target="shop/192.0.2.1", action="down"),
        Force(target="shop/192.0.2.2", action="up"),
        Force(target="shop/world", action="pin", tier=1),
        Force(target="shopping/192.0.2.1", action="down"),
    ]
    await bench.store.txn([], [Put(keys.force(one.target), codec.encode(one)) for one in forces])
    await bench.apply({"pools": {"shop": helpers.pool("192.0.2.2")}})
    assert "shop/192.0.2.1" in await forced(bench)  # it left the pool, and may come back
    await bench.apply(removed=(("pools", "shop"),))
    assert await forced(bench) == {"shop/world", "shopping/192.0.2.1"}
    await bench.apply(removed=(("instances", "shop"),))
    assert await forced(bench) == {"shopping/192.0.2.1"}


# ---- ids -----------------------------------------------------------------------------------


async def test_an_id_is_allocated_and_an_absent_one_equals_it(bench: Any, helpers: Any) -> None:
    await bench.apply(helpers.SMALL)
    allocated = bench.view.instances["shop"].id
    assert allocated.startswith("gtm")
    assert len(allocated) == 11
    outcome = await bench.apply({"instances": {"shop": helpers.instance("a", ttl="30s")}})
    assert [change.action for change in outcome.changes] == ["update"]
    assert bench.view.instances["shop"].id == allocated
    held = await bench.store.get(keys.identity(allocated))
    assert codec.decode(held.value, Identity) == Identity(instance="shop")


async def test_an_id_is_kept_by_name_for_90_days(bench: Any, helpers: Any) -> None:
    await bench.apply(helpers.SMALL)
    allocated = bench.view.instances["shop"].id
    await bench.apply(removed=(("instances", "shop"),))
    held = await bench.store.get(keys.identity(allocated))
    assert codec.decode(held.value, Identity) == Identity(instance="shop", deleted=helpers.WALL_S)

    bench.wall_s += 89 * 86_400
    outcome = await bench.apply({"instances": {"other": helpers.instance("a", id=allocated)}})
    assert [problem.path for problem in outcome.problems] == ["instances.other.id"]
    await bench.apply({"instances": {"shop": helpers.instance("a")}})
    assert bench.view.instances["shop"].id == allocated

    await bench.apply(removed=(("instances", "shop"),))
    bench.wall_s += 91 * 86_400
    outcome = await bench.apply({"instances": {"other": helpers.instance("a", id=allocated)}})
    assert outcome.applied
    await bench.apply({"instances": {"shop": helpers.instance("a")}})
    assert bench.view.instances["shop"].id != allocated


async def test_an_id_of_another_instance_is_refused(bench: Any, helpers: Any) -> None:
    await bench.apply(helpers.SMALL)
    taken = bench.view.instances["shop"].id
    outcome = await bench.apply({"instances": {"other": helpers.instance("a", id=taken)}})
    assert [problem.text for problem in outcome.problems] == [f"{taken} is the id of instance shop"]
    both = {name: helpers.instance("a", id="gtm00000001") for name in ("x", "y")}
    outcome = await bench.apply({"instances": both})
    assert [problem.text for problem in outcome.problems] == ["gtm00000001 is the id of instance x"]


async def test_allocated_ids_are_unique_even_where_the_dice_repeat(helpers: Any) -> None:
    store = MemoryStore()
    async with helpers.bench(store, seed=7) as one, helpers.bench(store, seed=7) as two:
        await one.apply(helpers.SMALL)
        await two.apply({"instances": {"other": helpers.instance("a")}})
        found = {name: value.id for name, value in two.view.instances.items()}
        assert len(set(found.values())) == 2


# ---- zones ---------------------------------------------------------------------------------


async def test_the_serial_moves_with_the_zones_data_alone(bench: Any, helpers: Any) -> None:
    first = int(helpers.WALL_S)
    await bench.apply(helpers.SMALL)
    await bench.apply({"pools": {"b": helpers.pool("192.0.2.9")}})
    assert bench.view.zones["gtm.test"].serial == first
    await bench.apply({"zones": {"gtm.test": helpers.zone(3)}})
    assert bench.view.zones["gtm.test"].serial == first + 1
    bench.wall_s += 100
    await bench.apply({"zones": {"gtm.test": helpers.zone(4)}})
    assert bench.view.zones["gtm.test"].serial == first + 100


async def test_a_zone_that_grows_is_cut_deeper_and_joined_when_it_shrinks(
    bench: Any, helpers: Any
) -> None:
    for records in (2, 700, 730, 9_000, 100, 0):
        outcome = await bench.apply({"zones": {"gtm.test": helpers.zone(records)}})
        assert outcome.applied, outcome
        stored = bench.view.records.get("gtm.test", {})
        assert sum(map(len, stored.values())) == records
        bits = bench.view.zones["gtm.test"].bits
        assert {0 if name == "-" else len(name) for name in stored} <= {bits}
        sizes = [len(codec.encode(bucket)) for bucket in stored.values()]
        assert max(sizes, default=0) < 48 << 10


async def test_a_chain_over_a_growing_zone_shows_every_old_record_at_each_step(
    helpers: Any,
) -> None:
    async with helpers.bench() as bench:
        await bench.apply({"zones": {"gtm.test": helpers.zone(100)}})
        shown: list[int] = []
        watch = bench.store.watch(keys.SERVE)
        mirror = bench.mirror
        mirror._changed = lambda view, changes, events: shown.append(
            sum(map(len, view.records["gtm.test"].values()))
        )
        outcome = await bench.apply({"zones": {"gtm.test": helpers.zone(9_000)}})
        await watch.close()
        assert outcome.transactions > 2
        assert shown == sorted(shown)
        assert shown[0] >= 100
        assert shown[-1] == 9_000


async def test_records_that_no_transaction_carries_are_refused_by_name(
    bench: Any, helpers: Any
) -> None:
    huge = [{"name": "one", "type": "TXT", "data": ['"' + 200 * "x" + '"'] * 6_000}]
    outcome = await bench.apply({"zones": {"gtm.test": {**helpers.zone(), "records": huge}}})
    assert not outcome.applied
    assert "records/gtm.test/" in outcome.problems[0].text


# ---- chains --------------------------------------------------------------------------------


def many(helpers: Any, number: int) -> dict[str, Any]:
    return {
        "zones": {"gtm.test": helpers.zone()},
        "pools": {f"p{n:05d}": helpers.pool("192.0.2.1") for n in range(number)},
        "instances": {
            f"i{n:05d}": helpers.instance(f"p{n:05d}", id=f"gtm{n:08d}") for n in range(number)
        },
    }


async def test_a_set_beyond_one_transaction_goes_as_a_chain(bench: Any, helpers: Any) -> None:
    number = MAX_OPS * MAX_OPS // 2
    outcome = await bench.apply(many(helpers, number), request_id="big")
    assert outcome.applied
    assert outcome.transactions == 2
    assert len(bench.view.instances) == len(bench.view.config_pools) == number
    assert bench.view.head.request_id == f"big#{outcome.transactions}/{outcome.transactions}"
    assert bench.view.head.generation == outcome.transactions
    again = await bench.apply(many(helpers, number))
    assert again.transactions == 0


@pytest.fixture
def short_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions of few operations, so that a small set is a chain."""
    monkeypatch.setattr(plan, "MAX_LINK_OPS", 24)


@pytest.mark.usefixtures("short_links")
async def test_atomic_refuses_a_chain(bench: Any, helpers: Any) -> None:
    outcome = await bench.apply(many(helpers, 20), atomic=True)
    assert not outcome.applied
    assert "--atomic allows one" in outcome.refusal
    assert (await bench.store.list(keys.ROOT)).items == ()


@pytest.mark.usefixtures("short_links")
async def test_a_break_leaves_a_valid_prefix_and_says_where(
    bench: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = many(helpers, 60)
    asked = bench.store.txn
    left = 2

    async def breaking(*args: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise StoreUnavailable("the link is gone")
        return await asked(*args)

    monkeypatch.setattr(bench.store, "txn", breaking)
    outcome = await bench.apply(given)
    monkeypatch.undo()
    assert not outcome.applied
    assert "stopped after 2 transaction(s)" in outcome.refusal
    view = await bench.mirror.fresh()
    stored = {f"pools/{n}" for n in view.config_pools} | {f"instances/{n}" for n in view.instances}
    done = {f"{c.kind}/{c.name}" for c in outcome.changes if c.kind != "zones"}
    assert stored == done
    named = {rule.tiers[0].names()[0] for one in view.instances.values() for rule in one.rules}
    assert named <= set(view.config_pools)
    assert (await bench.apply(given)).applied


@pytest.mark.usefixtures("short_links")
async def test_a_chain_whose_prefix_would_be_invalid_is_refused(bench: Any, helpers: Any) -> None:
    given = many(helpers, 60)
    before = await bench.apply(given)

    def torn(whole: Any) -> list[Problem]:
        ttls = {one.get("ttl", "1m") for one in whole["instances"].values()}
        return [Problem(text="ttls differ")] if len(ttls) > 1 else []

    bench.policy.refuse = torn
    for one in given["instances"].values():
        one["ttl"] = "30s"
    outcome = await bench.apply({"instances": given["instances"]})
    assert not outcome.applied
    assert "would be refused" in outcome.problems[0].text
    assert bench.view.head.generation == before.generation


# ---- the brake -----------------------------------------------------------------------------


async def test_a_mass_change_refuses_itself_with_its_numbers(bench: Any, helpers: Any) -> None:
    addresses = [f"192.0.2.{n}" for n in range(1, 21)]
    members = tuple(Member(value=one, answered=True, counted=True) for one in addresses)
    state = PoolState(type="ipv4", members=members)
    await bench.apply({"pools": {"a": helpers.pool(*addresses)}})
    await bench.store.txn([], [Put(keys.pool("a"), codec.encode(state))])
    await bench.mirror.fresh()
    await helpers.until(lambda: bench.view.pools)

    fewer = {"pools": {"a": helpers.pool(*addresses[6:])}}
    outcome = await bench.apply(fewer)
    assert not outcome.applied
    assert "6 of 20 addresses (30 %)" in outcome.refusal
    assert "--allow-mass-change" in outcome.refusal
    assert outcome.changes == ()
    assert len(bench.view.config_pools["a"].addresses) == 20

    out = helpers.pool(*addresses)
    for mode, member in zip(("offline", "manual_down") * 3, out["addresses"], strict=False):
        member["mode"] = mode  # taken out, as much as if it were not there
    assert (await bench.apply({"pools": {"a": out}})).refusal == outcome.refusal

    assert (await bench.apply({"pools": {"a": helpers.pool(*addresses[5:])}})).applied
    assert (await bench.apply(fewer, allow_mass_change=True)).applied


async def test_disabling_most_instances_is_a_mass_change(bench: Any, helpers: Any) -> None:
    names = [f"i{n}" for n in range(10)]
    given = {"zones": {"gtm.test": helpers.zone()}, "pools": {"a": helpers.pool("192.0.2.1")}}
    await bench.apply({**given, "instances": {name: helpers.instance("a") for name in names}})
    off = {name: helpers.instance("a", enabled=False) for name in names[:6]}
    outcome = await bench.apply({"instances": off})
    assert "6 of 10 instances (60 %)" in outcome.refusal


# ---- lost answers and other writers --------------------------------------------------------


async def test_a_lost_answer_is_found_in_the_head(bench: Any, helpers: Any) -> None:
    bench.store.lose_answers = 1
    outcome = await bench.apply(helpers.SMALL)
    assert outcome.applied
    assert len(outcome.changes) == 7
    assert bench.view.head.generation == outcome.generation == 1


async def test_an_unknown_outcome_that_took_no_effect_is_tried_again(
    bench: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, lost = bench.store.txn, []

    async def losing(*args: Any) -> Any:
        if not lost:
            lost.append(args)
            raise OutcomeUnknown("the link broke")
        return await asked(*args)

    monkeypatch.setattr(bench.store, "txn", losing)
    outcome = await bench.apply(helpers.SMALL)
    assert outcome.applied
    assert bench.view.head.generation == 1
    assert len(outcome.changes) == 7


async def test_the_same_request_again_is_the_same_apply(helpers: Any) -> None:
    store = MemoryStore()
    async with helpers.bench(store) as one, helpers.bench(store) as two:
        first = await one.apply(helpers.SMALL, request_id="x")
        await one.apply({"pools": {"b": helpers.pool("192.0.2.9")}}, request_id="y")
        again = await one.apply(helpers.SMALL, request_id="x", prune=True)
        assert again == first
        elsewhere = await two.apply({"pools": {"c": helpers.pool("192.0.2.9")}}, request_id="y")
        assert elsewhere.applied
        assert elsewhere.generation == 2
        assert "c" not in two.view.config_pools


async def test_concurrent_applies_of_two_coordinators_all_take_effect(helpers: Any) -> None:
    store = MemoryStore()
    async with helpers.bench(store) as one, helpers.bench(store.client(), seed=2) as two:
        await one.apply({"zones": {"gtm.test": helpers.zone()}})
        outcomes = await asyncio.gather(
            *(
                bench.apply({"pools": {f"{who}{n}": helpers.pool("192.0.2.1")}})
                for n in range(6)
                for who, bench in (("one", one), ("two", two))
            )
        )
        assert all(outcome.applied for outcome in outcomes)
        view = await one.mirror.fresh()
        assert len(view.config_pools) == 12
        assert view.head.generation == 13
        assert len({outcome.generation for outcome in outcomes}) == 12


async def test_an_apply_is_guarded_by_the_plan_that_was_looked_at(bench: Any, helpers: Any) -> None:
    await bench.apply({"zones": {"gtm.test": helpers.zone()}})
    given = {"pools": {"mine": helpers.pool("192.0.2.1")}}
    planned, effects = await bench.applier.plan(Request(given=given))
    assert planned.generation == 1
    assert effects == Effects()  # no instance answers from it
    await bench.apply({"pools": {"other": helpers.pool("192.0.2.2")}})
    refused = await bench.apply(given, generation=planned.generation)
    assert not refused.applied
    assert refused.changes == ()
    assert "changed since the plan (generation 1, now 2)" in refused.refusal
    again, _ = await bench.applier.plan(Request(given=given))
    assert (await bench.apply(given, generation=again.generation)).applied


async def test_applies_that_wait_are_bounded(bench: Any, helpers: Any) -> None:
    many_of_them = [bench.apply(helpers.SMALL) for _ in range(MAX_WAITING + 1)]
    outcomes = await asyncio.gather(*many_of_them, return_exceptions=True)
    assert sum(isinstance(outcome, Busy) for outcome in outcomes) == 1


async def test_without_a_store_nothing_is_done_and_said_so(bench: Any, helpers: Any) -> None:
    bench.store.cut()
    with pytest.raises(StoreUnavailable):
        await bench.apply(helpers.SMALL)


async def test_who_never_comes_first_gives_up_and_says_so(
    bench: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = bench.store.txn

    async def overtaken(*args: Any) -> Any:
        await asked([], [Put(keys.HEAD, codec.encode(Head(generation=7)))])
        return await asked(*args)

    monkeypatch.setattr(bench.store, "txn", overtaken)
    monkeypatch.setattr(apply, "MAX_ROUNDS", 3)
    outcome = await bench.apply(helpers.SMALL)
    assert not outcome.applied
    assert "others kept changing the configuration" in outcome.refusal
    assert len(bench.policy.seen) == 3


async def test_remembered_requests_are_bounded(
    bench: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "MAX_REMEMBERED", 2)
    for number in range(5):
        await bench.apply(helpers.SMALL, request_id=f"r{number}")
    assert list(bench.applier._remembered) == ["r3", "r4"]


async def test_ids_that_nobody_holds_are_cleared_a_few_at_a_time(
    bench: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MAX_EXPIRED", 2)
    for number in range(3):
        old = Identity(instance=f"old{number}", deleted=1.0)
        await bench.store.txn([], [Put(keys.identity(f"gtm9999999{number}"), codec.encode(old))])
    await bench.apply(helpers.SMALL)
    assert len((await bench.store.list(keys.IDS)).items) == 2
    await bench.apply({"instances": {"shop2": helpers.instance("a")}})
    assert len((await bench.store.list(keys.IDS)).items) == 2  # both instances', no other


async def test_what_grows_with_the_whole_configuration_is_done_off_the_loop(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = threading.get_ident(), {}

    def watched(name: str) -> None:
        real = getattr(plan, name)

        def call(*given: Any, **more: Any) -> Any:
            elsewhere[name] = threading.get_ident() != here
            return real(*given, **more)

        monkeypatch.setattr(plan, name, call)

    slow = ("would_be", "units", "chain", "plain")
    for name in slow:
        watched(name)
    async with helpers.bench() as bench:
        await bench.apply(helpers.SMALL)
        assert (await bench.apply({"checks": {"other": {"type": "tcp", "port": 80}}})).applied
    assert elsewhere == dict.fromkeys(slow, True)
