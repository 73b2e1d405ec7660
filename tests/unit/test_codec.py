"""JSON under the store's keys: short forms as users write them, equal bytes for equal values."""

import json
import pickle

import pytest

from gtm import codec
from gtm.model import Check, Failover, Instance, Pool, Steering
from gtm.state import Member, PoolState
from gtm.units import Duration, Least

FORMS = [
    (
        Check,
        {"type": "http", "port": 80, "path": "/healthz", "interval": "5s", "regions": "all"},
        {"port": 80, "options": '{"path":"/healthz"}', "interval": Duration(5000), "regions": ()},
    ),
    (Check, {"type": "ping", "packets": 5}, {"port": 0, "options": '{"packets":5}'}),
    (
        Pool,
        {"type": "ipv4", "steering": {"type": "weighted", "answers": 2}, "min_available": "50%"},
        {"steering": Steering(type="weighted", options='{"answers":2}')},
    ),
    (Pool, {"type": "ipv6", "steering": "weighted"}, {"steering": Steering(type="weighted")}),
]


@pytest.mark.parametrize(("type_", "written", "fields"), FORMS)
def test_what_users_write_becomes_values_and_comes_back(
    type_: type[Check] | type[Pool], written: dict[str, object], fields: dict[str, object]
) -> None:
    value = codec.convert(dict(written), type_)
    assert {name: getattr(value, name) for name in fields} == fields
    assert codec.decode(codec.encode(value), type_) == value
    assert {key: codec.plain(value)[key] for key in written} == written


def test_failover_is_auto_or_pinned() -> None:
    rule = {"name": "r", "lines": ["default"], "tiers": [{"pools": ["a"]}]}
    written = {"rules": [rule | {"failover": "auto"}, rule | {"failover": {"pinned": 2}}]}
    instance = codec.convert(written, Instance)
    assert [rule.failover for rule in instance.rules] == [Failover(), Failover(pinned=2)]
    plain = codec.plain(instance)
    assert [rule.get("failover") for rule in plain["rules"]] == [None, {"pinned": 2}]


def test_absent_fields_of_a_published_pool_mean_their_defaults() -> None:
    state = codec.decode(b'{"type":"ipv4","members":[{"value":"192.0.2.1"}]}', PoolState)
    assert state.members == (Member(value="192.0.2.1"),)
    assert (state.min_available, state.max_answers) == (Least(1), 8)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"type":"ipv5"}', b'{"type":"ipv4","min_available":"lots"}', b"\xff"],
)
def test_what_cannot_be_read_is_a_value_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(ValueError):
        codec.decode(data, PoolState)


def test_defaults_are_left_out_however_their_values_came_to_be() -> None:
    pool = {"type": "ipv4", "addresses": [{"value": "192.0.2.1"}]}
    rule = {"name": "r", "lines": ["default"], "tiers": [{"pools": ["a"]}]}
    instance = {"id": "gtm00000001", "zone": "z.test", "rules": [rule]}
    spelled = [
        (Pool, pool, pool | {
            "addresses": [{"value": "192.0.2.1", "mode": "smart", "weight": 1}],
            "min_available": 1, "max_answers": 8, "steering": "round_robin",
        }),
        (Instance, instance, instance | {
            "ttl": "60s", "when_all_down": "lowest_ordinal",
            "rules": [rule | {"failover": "auto", "failback": "immediate", "on_exhausted": "stop"}],
        }),
    ]  # fmt: skip
    for type_, short, long in spelled:
        value = codec.convert(json.loads(json.dumps(long)), type_)
        carried = pickle.loads(pickle.dumps(value))  # as values come from the child that validates
        for one in (value, carried):
            assert one == codec.convert(json.loads(json.dumps(short)), type_)
            assert codec.plain(one) == short
            assert codec.encode(one) == codec.canonical(short)
