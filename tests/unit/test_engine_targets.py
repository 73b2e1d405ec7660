"""Which targets a configuration makes, who probes them, and what a filter of verdicts names."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from coordinator.engine import Engine
from coordinator.events import AgentFound, Configured, Met, Now, Restored, TargetKey
from coordinator.targets import grace_ms, probe_ms
from gtm.choices import PoolRef
from gtm.model import Address, Check, Instance, Pool, Region, Resources, Rule, Tier
from gtm.units import Duration

NOW = Now(0, 0.0)
WEB = Check(type="http", port=80, regions=("us",))
PING = Check(type="ping", options='{"packets":5,"spacing":"200ms"}')
RESOURCES = Resources(
    checks={"web": WEB, "ping": PING},
    pools={
        "a": Pool(
            type="ipv4",
            checks=("web",),
            addresses=(
                Address(value="192.0.2.1"),
                Address(value="192.0.2.2", port=8080),
                Address(value="192.0.2.3", mode="online"),
                Address(value="192.0.2.4", mode="offline"),
            ),
        ),
        "b": Pool(type="ipv4", checks=("web",), addresses=(Address(value="192.0.2.1"),)),
        "c": Pool(type="ipv6", checks=("ping",), addresses=(Address(value="2001:db8::1"),)),
    },
    instances={
        "shop": Instance(
            rules=(
                Rule(
                    name="world",
                    lines=("default",),
                    tiers=(Tier(pools=(PoolRef(pool="a"), PoolRef(pool="c"))),),
                ),
            )
        )
    },
)
ONE = TargetKey("web", "192.0.2.1", 80)
TWO = TargetKey("web", "192.0.2.2", 8080)
SIX = TargetKey("ping", "2001:db8::1", 0)


def started(resources: Resources = RESOURCES) -> Engine:
    engine = Engine()
    engine.handle(Restored(verdicts={}, pools={}, routes={}, met=frozenset({"eu", "us"})), NOW)
    configure(engine, resources)
    return engine


def configure(engine: Engine, resources: Resources) -> None:
    engine.handle(Configured(resources=resources, generation=1, head_revision=1), NOW)


def test_smart_addresses_with_checks_are_probed_once_whoever_names_them() -> None:
    engine = started()
    assert set(engine.targets()) == {ONE, TWO, SIX}
    assert len({one.number for one in engine.targets().values()}) == 3
    view = engine.verdict(ONE)
    assert view is not None
    assert view.pools == ("a", "b")


def test_agents_get_the_targets_whose_checks_name_their_region() -> None:
    engine = started()
    assert {one.key for one in engine.assigned("eu")} == {SIX}
    assert {one.key for one in engine.assigned("us")} == {ONE, TWO, SIX}
    engine.handle(Met(regions=frozenset({"us", "asia"})), NOW)
    assert {one.key for one in engine.assigned("eu")} == set()
    assert {one.key for one in engine.assigned("asia")} == {SIX}
    configure(engine, replace(RESOURCES, regions={"us": Region()}))
    assert {one.key for one in engine.assigned("asia")} == set()
    assert {one.key for one in engine.assigned("us")} == {ONE, TWO, SIX}


def test_the_version_changes_with_what_agents_should_do_and_with_nothing_else() -> None:
    engine = started()
    version = engine.targets_version
    configure(engine, RESOURCES)
    configure(engine, replace(RESOURCES, instances={}))
    engine.handle(AgentFound(region="eu", agent="a"), NOW)
    assert engine.targets_version == version
    faster = replace(WEB, interval=Duration(5000))
    configure(engine, replace(RESOURCES, checks={"web": faster, "ping": PING}))
    assert engine.targets_version > version
    assert engine.targets()[ONE].interval_ms == 5000
    assert engine.targets()[SIX].interval_ms == 15_000


def test_a_target_stays_while_one_pool_still_names_it() -> None:
    engine = started()
    number = engine.number(ONE)
    configure(engine, replace(RESOURCES, pools={"b": RESOURCES.pools["b"]}))
    assert set(engine.targets()) == {ONE}
    assert engine.number(ONE) == number
    assert engine.number(TWO) is None
    assert engine.verdict(TWO) is None


@pytest.mark.parametrize(
    ("filter_", "named"),
    [
        ("", {ONE, TWO, SIX}),
        ("192.0.2.1", {ONE}),
        ("b", {ONE}),
        ("a", {ONE, TWO}),
        ("ping", {SIX}),
        ("shop", {ONE, TWO, SIX}),
        ("nothing", set()),
    ],
)
def test_a_filter_names_an_address_a_pool_an_instance_or_a_check(
    filter_: str, named: set[TargetKey]
) -> None:
    assert {view.target for view in started().verdicts(filter_)} == named


def test_a_ping_lasts_for_all_of_its_packets() -> None:
    assert probe_ms(WEB) == 2000
    assert probe_ms(PING) == 4 * 200 + 2000
    assert probe_ms(Check(type="ping")) == 19 * 100 + 2000
    assert grace_ms(PING) == 3 * 15_000 + 2800
