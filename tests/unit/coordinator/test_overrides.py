"""Forces over real gRPC: what may be forced, what stands, what ends it, and what resolvers see."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from coordinator.overrides import Overrides
from gtm import codec, keys, links
from gtm.memory import MemoryStore
from gtm.state import Force, PoolState, Routes
from gtm.v1 import operator_pb2 as pb
from gtm.v1.operator_pb2_grpc import OperatorStub

Code = grpc.StatusCode


def given(helpers: Any) -> dict[str, Any]:
    """Two pools that nobody probes, and a rule with two tiers that fails back by hand."""
    whole: dict[str, Any] = copy.deepcopy(helpers.SMALL)
    whole["pools"] = {"a": helpers.pool("192.0.2.1", "192.0.2.2"), "b": helpers.pool("192.0.2.9")}
    tiers = [{"pools": ["a"]}, {"pools": ["b"]}]
    rule = {"name": "world", "lines": ["default"], "tiers": tiers, "failback": "manual"}
    whole["instances"]["shop"]["rules"] = [rule]
    return whole


@contextlib.asynccontextmanager
async def applied(helpers: Any, store: MemoryStore) -> AsyncIterator[Any]:
    """A stub of a coordinator that has published everything."""
    async with (
        helpers.coordinator(store) as made,
        links.channel(f"127.0.0.1:{made.port}", links.Tls()) as channel,
    ):
        ask = OperatorStub(channel)
        done = await ask.Apply(pb.ApplyRequest(resources=json.dumps(given(helpers))))
        assert done.applied, done
        await helpers.until(lambda: routed(store))
        yield ask


async def stored(store: MemoryStore, key: str, type_: Any) -> Any:
    item = await store.get(key)
    return None if item is None else codec.decode(item.value, type_)


async def routed(store: MemoryStore) -> Any:
    """The route of shop/world."""
    routes = await stored(store, keys.routes("shop"), Routes)
    return None if routes is None else routes.rules["world"]["ipv4"]


async def reasons(store: MemoryStore, pool: str = "a") -> list[str]:
    state = await stored(store, keys.pool(pool), PoolState)
    return [member.why for member in state.members]


def force(target: str, action: str, **more: Any) -> pb.ForceRequest:
    return pb.ForceRequest(target=target, action=action, who="ops", why="disk", **more)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_a_force_changes_what_is_published_until_it_is_released(helpers: Any) -> None:
    store = MemoryStore()
    async with applied(helpers, store) as ask:
        made = (await ask.Force(force("a/192.0.2.1", "drain"))).force
        assert (made.target, made.action, made.who, made.until) == (
            "a/192.0.2.1",
            "drain",
            "ops",
            0,
        )

        async def drained() -> bool:
            return await reasons(store) == ["drained", "unmonitored"]

        await helpers.until(drained)
        status = await ask.Status(pb.StatusRequest())
        assert [(one.target, one.why) for one in status.forces] == [("a/192.0.2.1", "disk")]
        released = await ask.Release(pb.ReleaseRequest(target="a/192.0.2.1"))
        assert released.force.action == "drain"
        assert not released.failback

        async def back() -> bool:
            return await reasons(store) == ["unmonitored", "unmonitored"]

        await helpers.until(back)
        again = await refused(ask.Release(pb.ReleaseRequest(target="a/192.0.2.1")))
        assert again == (
            Code.NOT_FOUND,
            "nothing to release: no force on a/192.0.2.1 stands, and no hold",
        )


async def test_the_leader_deletes_a_force_whose_time_is_up(helpers: Any) -> None:
    store = MemoryStore()
    async with applied(helpers, store) as ask:
        await ask.Force(force("a", "down", for_s=0.2))

        async def down() -> bool:
            return await reasons(store) == ["forced_down", "forced_down"]

        async def over() -> bool:
            gone = await store.get(keys.force("a")) is None
            return gone and await reasons(store) == ["unmonitored", "unmonitored"]

        await helpers.until(down)
        await helpers.until(over)


async def test_a_pin_and_a_manual_failback_are_released_together(helpers: Any) -> None:
    store = MemoryStore()
    async with applied(helpers, store) as ask:
        assert (await routed(store)).tier == 1
        await ask.Force(force("shop/world", "pin", tier=2))

        async def pinned() -> bool:
            return (await routed(store)).pinned_by == "force"

        await helpers.until(pinned)
        await helpers.until(lambda: _seen(ask, 1))
        released = await ask.Release(pb.ReleaseRequest(target="shop/world"))
        assert (released.force.action, released.failback) == ("pin", True)

        async def back() -> bool:
            gone = await store.get(keys.force("shop/world")) is None
            return gone and (await routed(store)).tier == 1

        await helpers.until(back)


async def _seen(ask: Any, forces: int) -> bool:
    return len((await ask.Status(pb.StatusRequest())).forces) == forces


MISFITS = [
    (force("shop", "down"), Code.NOT_FOUND, "'shop' is an instance: name one of its rules"),
    (force("c", "down"), Code.NOT_FOUND, "there is no pool 'c'"),
    (force("shpo/world", "pin", tier=1), Code.NOT_FOUND, "did you mean 'shop'?"),
    (force("shop/wrld", "pin", tier=1), Code.NOT_FOUND, "no rule 'wrld', did you mean 'world'?"),
    (force("a/192.0.2.3", "down"), Code.NOT_FOUND, "'a' has no address '192.0.2.3'"),
    (force("shop/world", "down"), Code.INVALID_ARGUMENT, "can only be pinned"),
    (force("shop/world", "pin", tier=3), Code.INVALID_ARGUMENT, "has tiers 1 to 2, not 3"),
    (force("a", "pin", tier=1), Code.INVALID_ARGUMENT, "only INSTANCE/RULE can be pinned"),
    (force("a", "down", tier=1), Code.INVALID_ARGUMENT, "a tier goes with pin alone"),
    (force("a", "mute"), Code.INVALID_ARGUMENT, "only region:NAME can be muted"),
    (force("region:eu", "down"), Code.INVALID_ARGUMENT, "which can only be muted"),
    (force("region:mars", "mute"), Code.NOT_FOUND, "there is no region 'mars'"),
    (force("a", "off"), Code.INVALID_ARGUMENT, "'off' is no action"),
    (force("a", "down", for_s=-1), Code.INVALID_ARGUMENT, "lasts at most 366 days"),
    (pb.ForceRequest(target="a", action="up"), Code.INVALID_ARGUMENT, "say why"),
]


async def test_what_makes_no_sense_is_refused_in_a_sentence_and_nothing_is_written(
    helpers: Any,
) -> None:
    store = MemoryStore()
    async with applied(helpers, store) as ask:
        for request, code, words in MISFITS:
            got, sentence = await refused(ask.Force(request))
            assert got is code
            assert words in sentence
        assert (await store.list(keys.FORCES)).items == ()


async def test_forces_go_with_the_pool_the_instance_or_the_rule_that_they_name(
    helpers: Any,
) -> None:
    store = MemoryStore()
    async with applied(helpers, store) as ask:
        for request in (
            force("a/192.0.2.1", "drain"),
            force("a", "up"),
            force("b", "up"),
            force("shop/world", "pin", tier=2),
        ):
            await ask.Force(request)
        whole = given(helpers)
        (rule,) = whole["instances"]["shop"]["rules"]
        rule.update(name="everyone", tiers=[{"pools": ["b"]}])
        del whole["pools"]["a"]
        done = await ask.Apply(pb.ApplyRequest(resources=json.dumps(whole), prune=True))
        assert done.applied
        assert [one.key for one in (await store.list(keys.FORCES)).items] == [keys.force("b")]
        await ask.Force(force("shop/everyone", "pin", tier=1))
        assert (await ask.Delete(pb.DeleteRequest(kind="instance", name="shop"))).applied
        assert [one.key for one in (await store.list(keys.FORCES)).items] == [keys.force("b")]


async def test_a_force_is_not_written_against_a_configuration_that_has_changed(
    bench: Any, helpers: Any
) -> None:
    await bench.apply(given(helpers))
    overrides = Overrides(bench.store, bench.mirror, lambda: 100.0)
    stale = bench.view
    whole = given(helpers)
    del whole["pools"]["b"]
    whole["instances"]["shop"]["rules"][0]["tiers"] = [{"pools": ["a"]}]
    fresh, views = bench.mirror.fresh, [stale]

    async def late(timeout_s: float = 10.0) -> Any:
        return views.pop() if views else await fresh(timeout_s)

    await bench.apply(whole, prune=True)
    bench.mirror.fresh = late
    with pytest.raises(LookupError, match="there is no pool 'b'"):
        await overrides.force("b", "down", tier=0, who="", why="x", for_s=0.0)
    assert (await bench.store.list(keys.FORCES)).items == ()
    made = await overrides.force("a/192.0.2.1", "up", tier=0, who="", why="x", for_s=60.0)
    assert (made.since, made.until) == (100.0, 160.0)
    assert await stored(bench.store, keys.force("a/192.0.2.1"), Force) == made


async def test_a_force_of_what_is_gone_can_be_released(bench: Any, helpers: Any) -> None:
    await bench.apply(given(helpers))
    overrides = Overrides(bench.store, bench.mirror)
    await overrides.force("a/192.0.2.2", "up", tier=0, who="", why="x", for_s=0.0)
    whole = given(helpers)
    whole["pools"]["a"] = helpers.pool("192.0.2.1")
    await bench.apply(whole)
    released = await overrides.release("a/192.0.2.2", who="", why="")
    assert released.force.action == "up"
    assert (await bench.store.list(keys.FORCES)).items == ()
