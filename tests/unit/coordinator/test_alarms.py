"""Alarms: one for each cause, with what to do; none for what operators did themselves."""

from __future__ import annotations

from typing import Any

from coordinator import alarms, pool_alarms
from coordinator.alarms import Alarms, Condition
from coordinator.events import ClearAlarm, Now, RaiseAlarm
from coordinator.pool_alarms import PoolAlarms
from coordinator.troubles import troubles
from gtm import codec
from gtm.model import Instance, Pool, Resources
from gtm.state import Member, PoolState
from gtm.store import StoreStatus
from gtm.v1 import operator_pb2 as pb


def state(**whys: Any) -> PoolState:
    members = tuple(
        Member(value=value, answered=why == "up", counted=why == "up", why=why)
        for value, why in whys.items()
    )
    return PoolState(type="ipv4", members=members)


def instance(*tiers: list[str]) -> Instance:
    rules = [{"name": "world", "lines": ["default"], "tiers": [{"pools": one} for one in tiers]}]
    return codec.convert({"id": "gtm1", "zone": "gtm.test", "rules": rules}, Instance)


def found(states: dict[str, PoolState], **instances: Instance) -> dict[str, str]:
    pools = {name: codec.convert({"type": "ipv4", "addresses": []}, Pool) for name in states}
    made = PoolAlarms()
    made.configure(Resources(pools=pools, instances=instances), states)
    return {id_: one.text for id_, one in made.conditions().items()}


def test_a_pool_is_one_alarm_however_many_members_are_down() -> None:
    members = {f"192.0.2.{n}": "down" for n in range(1, 9)} | {"192.0.2.9": "up"}
    ((id_, text),) = found({"a": state(**members)}).items()
    assert id_ == "pool-members-down/a"
    assert text.startswith("8 of 9 members of pool a are down: 192.0.2.1, 192.0.2.2")
    assert "and 3 more" in text


def test_an_unavailable_pool_and_the_last_resort_are_critical() -> None:
    down = {"a": state(x="down"), "b": state(y="down")}
    ids = set(found(down, shop=instance(["a"], ["b"])))
    assert ids == {"pool-unavailable/a", "pool-unavailable/b", "last-resort/shop"}
    assert {alarms.severity(id_) for id_ in ids} == {"critical"}
    half = {"a": state(x="down"), "b": state(y="up")}
    assert set(found(half, shop=instance(["a"], ["b"]))) == {"pool-unavailable/a"}


def test_what_an_operator_took_out_is_no_alarm() -> None:
    for why in ("forced_down", "drained", "offline", "manual_down"):
        assert found({"a": state(x=why)}, shop=instance(["a"])) == {}
    assert found({"a": state(x="forced_up", y="up")}) == {}


def test_many_pools_with_one_cause_are_one_alarm() -> None:
    count = pool_alarms.GROUPED_FROM
    ((id_, text),) = found({f"p{n:02}": state(x="down") for n in range(count)}).items()
    assert id_ == "pools-unavailable"
    assert text.startswith(f"{count} pools are unavailable, which speaks for one cause: p00, p01")
    ((id_, _),) = found({f"p{n:02}": state(x="down", y="up") for n in range(count)}).items()
    assert id_ == "pools-members-down"


def test_a_pool_that_recovers_is_an_alarm_no_more() -> None:
    states = {"a": state(x="down")}
    pools = {"a": codec.convert({"type": "ipv4", "addresses": []}, Pool)}
    made = PoolAlarms()
    made.configure(Resources(pools=pools, instances={"shop": instance(["a"])}), states)
    assert len(made.conditions()) == 2
    states["a"] = state(x="up")
    made.judged(["a"], states)
    assert made.conditions() == {}


def test_a_text_that_changes_is_no_new_alarm() -> None:
    made = Alarms()
    made.update({"a": Condition("one is down")}, Now(0, 10.0))
    (effect,) = made.update({"a": Condition("two are down")}, Now(1000, 11.0))
    assert effect == RaiseAlarm(id="a", text="two are down", since=10.0)
    assert made.update({"a": Condition("two are down")}, Now(2000, 12.0)) == []
    assert made.update({}, Now(3000, 13.0)) == [ClearAlarm(id="a", text="two are down", since=10.0)]


def test_the_severest_alarms_find_room_first() -> None:
    many = {f"pool-members-down/{n:03}": Condition("x") for n in range(2 * alarms.MAX_ALARMS)}
    made = Alarms()
    made.update({**many, "pool-unavailable/z": Condition("y")}, Now(0, 1.0))
    ids = [one.id for one in made.standing()]
    assert "pool-unavailable/z" in ids
    assert len(ids) == alarms.MAX_ALARMS


def test_troubles_of_etcd_and_resolvers_are_told() -> None:
    full = StoreStatus(("e",), "e", "3.5", 1, 3 << 30, ("NOSPACE",), 4 << 30)
    filling = StoreStatus(("e",), "e", "3.5", 1, 3 << 30, (), 4 << 30)
    well = StoreStatus(("e",), "e", "3.5", 1, 1 << 20, (), 4 << 30)
    stale = [pb.ReplicaStatus(id="d1", stale=True), pb.ReplicaStatus(id="d2")]
    assert set(troubles(True, None, [], 0.0)) == {"etcd-silent"}
    assert troubles(False, None, [], 0.0) == {}
    assert set(troubles(True, full, [], 0.0)) == {"etcd-full"}
    assert set(troubles(True, filling, [], 0.0)) == {"etcd-filling"}
    assert set(troubles(True, well, stale, 99.0)) == {"resolvers-stale"}
    assert set(troubles(True, well, [], 99.0)) == {"resolvers-behind"}
    assert troubles(True, well, [], 1.0) == {}
