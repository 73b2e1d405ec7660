"""Values that users write as a word or as a mapping."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from gtm.choices import AllDown, Failback, Judgement, PoolRef


@pytest.mark.parametrize(
    ("kind", "written", "plain"),
    [
        (PoolRef, "a", "a"),
        (PoolRef, {"pool": "a"}, "a"),
        (PoolRef, {"pool": "a", "weight": 1, "lines": []}, "a"),
        (PoolRef, {"pool": "a", "weight": 0}, {"pool": "a", "weight": 0}),
        (PoolRef, {"pool": "a", "lines": ["network:10.0.0.0/8"]},
         {"pool": "a", "lines": ["network:10.0.0.0/8"]}),
        (AllDown, "last_good", "last_good"),
        (AllDown, {"pool": "spare"}, {"pool": "spare"}),
        (AllDown, {"addresses": ["2001:DB8::1"]}, {"addresses": ["2001:db8::1"]}),
        (Failback, "manual", "manual"),
        (Failback, {"after": 300}, {"after": "5m"}),
        (Failback, {"after": 0}, "immediate"),
        (Judgement, "100%", "all"),
        (Judgement, "any", 1),
        (Judgement, 0.5, "50%"),
        (Judgement, {"must": ["web"]}, {"must": ["web"]}),
    ],
)  # fmt: skip
def test_what_is_written_has_one_plain_form(kind: Any, written: Any, plain: Any) -> None:
    value = kind.parse(written)
    assert value.plain() == plain
    assert kind.parse(plain) == value
    assert kind.parse(value) is value
    assert pickle.loads(pickle.dumps(value)) == value
    assert hash(kind.parse(plain)) == hash(value)
    assert str(value)


@pytest.mark.parametrize(
    ("kind", "written", "told"),
    [
        (PoolRef, 7, "must be the name of a pool"),
        (PoolRef, {"weight": 2}, "the key 'pool' is missing"),
        (PoolRef, {"pool": "a", "wait": 2}, "unknown key 'wait'"),
        (PoolRef, {"pool": "a", "weight": 256}, "256 is not a whole number in 0 to 255"),
        (PoolRef, {"pool": "a", "weight": True}, "True is not a whole number"),
        (PoolRef, {"pool": "a", "lines": "default"}, "lines must be a list"),
        (PoolRef, {"pool": "a", "lines": ["country:cn"]}, "no ISO 3166-1 code"),
        (AllDown, "last-good", "did you mean 'last_good'"),
        (AllDown, {"addresses": []}, "addresses names none"),
        (AllDown, {"addresses": ["192.0.2.1", "192.0.2.1"]}, "stands twice"),
        (AllDown, {"addresses": ["www.example.com"]}, "no IPv4 or IPv6 address"),
        (AllDown, {"pool": "a", "addresses": []}, "must be one of"),
        (Failback, "imediate", "did you mean 'immediate'"),
        (Failback, {"after": "soon"}, "not a duration"),
        (Judgement, "most", "not a count, a share such as 50%, any or all, or {must"),
        (Judgement, 0, "not a count from 1 on"),
        (Judgement, {"must": []}, "must names no check"),
        (Judgement, {"must": ["a", "a"]}, "stands twice"),
    ],
)
def test_what_is_none_is_refused_with_the_reason(kind: Any, written: Any, told: str) -> None:
    with pytest.raises(ValueError) as refused:
        kind.parse(written)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("judgement", "verdicts", "is_up"),
    [
        ("all", "uu", True),
        ("all", "ud", False),
        ("any", "ddu", True),
        ("70%", "uud", False),
        ("50%", "ud", True),
        (2, "uud", True),
        (3, "uu", False),
        ("any", "", None),
        ({"must": ["c0"]}, "ud", True),
        ({"must": ["c1"]}, "ud", False),
        ({"must": ["c7"]}, "ud", None),
    ],
)
def test_an_address_is_up_as_its_checks_say(
    judgement: object, verdicts: str, is_up: bool | None
) -> None:
    pairs = [(f"c{number}", letter == "u") for number, letter in enumerate(verdicts)]
    assert Judgement.parse(judgement).up(pairs) is is_up


def test_a_choice_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Failback().word = "manual"
    assert Failback() != AllDown()
