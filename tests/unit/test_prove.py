"""Expectations on routing: evaluated, proved, and refused with a counter-example."""

from __future__ import annotations

from typing import Any

import pytest

from ctl.policy import DirectPolicy
from ctl.prove import Result, prove
from ctl.validate import registered, review
from gtm.config import Reading, read_text
from resolver.place import Unplaced

SET = """
zones: {gtm.test: {nameservers: [ns.example.org]}}
lines:
  dach: {any_of: [country:DE, country:AT]}
  office: {networks: [203.0.113.0/24]}
pools:
  eu: {type: ipv4, addresses: [{value: 192.0.2.1}, {value: 192.0.2.2}]}
  us: {type: ipv4, addresses: [{value: 192.0.2.3}, {value: 192.0.2.4}]}
  cn: {type: ipv4, addresses: [{value: 192.0.2.5}]}
  six: {type: ipv6, addresses: [{value: "2001:db8::1"}]}
instances:
  shop:
    id: gtm00000001
    WHEN
    rules:
      - {name: mainland, lines: [country:CN], tiers: [{pools: [cn]}, {pools: [eu]}]}
      - {name: dach, lines: [dach, OFFICE], tiers: [{pools: [eu]}, {pools: [us]}]}
      - {name: world, lines: [default], tiers: [{pools: [us, six]}, {pools: [eu]}]}
expect: [{instance: shop, client: CLIENT, EXPECTED}]
"""


def reading(client: str, expected: str, *, when: str = "", office: str = "asn:64500") -> Reading:
    """The set above with one expectation."""
    text = SET.replace("WHEN", f"when_all_down: {when}" if when else "enabled: true")
    text = text.replace("OFFICE", office).replace("CLIENT", f'"{client}"')
    return read_text(text.replace("EXPECTED", expected), registered(), file="x.yaml")


def proved(client: str, expected: str, **changes: str) -> Result:
    """The result of one expectation."""
    found = reading(client, expected, **changes)
    judged = review(found, registered())
    assert judged.resources is not None, judged.problems
    return prove(judged.resources, found.expectations, Unplaced())[0]


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("country:DE", "gets: [eu]"),
        ("dach", "gets: [eu]"),
        ("country:DE", "gets: [us], down: [eu]"),
        ("country:DE", "gets: [us], down: [eu/192.0.2.1, 192.0.2.2]"),
        ("country:CN", "gets: [cn]"),
        ("default", "gets: [us]"),
        ("default", "gets: [six], type: AAAA"),
        ("198.51.100.7", "gets: [us]"),
        ("default", "at_least: 2, any_one_down: pool"),
        ("country:DE", "at_least: 1, any_one_down: address"),
        ("country:DE", "never: [cn]"),
        ("default", "never: [cn], type: AAAA"),
    ],
)
def test_what_holds(client: str, expected: str) -> None:
    result = proved(client, expected)
    assert not result.why
    assert result.looked_at


@pytest.mark.parametrize(
    ("client", "expected", "why"),
    [
        ("country:DE", "gets: [us]", "it gets eu, answering 192.0.2.1 192.0.2.2"),
        ("country:DE", "gets: [eu], any_one_down: pool", "with eu down it gets us"),
        ("country:DE", "at_least: 2, any_one_down: address", "with eu/192.0.2.1 down an answer"),
        ("country:CN", "at_least: 2", "an answer has 1 addresses: 192.0.2.5"),
        ("country:CN", "never: [eu]", "gets eu: rule mainland, tier 2 once cn are down"),
        ("country:CN", "never: [us]", "a client at 0.0.0.0 (CN AS64500) gets us: rule dach, tier"),
        ("dach", "never: [us]", "gets us: rule dach, tier 2 once eu are down"),
        ("country:DE", "gets: [mars]", "there is no pool 'mars'"),
        ("country:DE", "gets: [eu], down: [mars]", "'mars' is no pool, no POOL/ADDRESS"),
        ("nowhere", "gets: [eu]", "there is no line 'nowhere'"),
    ],
)
def test_what_does_not_hold_shows_a_counter_example(client: str, expected: str, why: str) -> None:
    assert why in proved(client, expected).why


def test_whatever_is_down_covers_fallbacks_and_narrower_lines_of_the_same_clients() -> None:
    assert not proved("country:CN", "never: [us]", office="country:CH").why
    told = proved("country:CN", "never: [us]", office="country:CH", when="{pool: us}").why
    assert "when_all_down answers pool us" in told
    told = proved("country:CN", "never: [us]", office="office").why
    assert "a client at 203.0.113.0 (CN) gets us" in told


def test_an_expectation_that_expects_nothing_is_refused_with_its_line() -> None:
    found = reading("country:DE", "down: [eu]")
    assert [str(problem) for problem in found.problems] == [
        "x.yaml:19: expect[0]: expects nothing: give gets, never or at_least"
    ]
    found = reading("country:DE", "at_leest: 2")
    assert "did you mean 'at_least'?" in str(found.problems[0])


async def test_an_expectation_that_fails_refuses_the_set() -> None:
    found = reading("country:DE", "gets: [us]")
    plain: dict[str, Any] = {}
    policy = DirectPolicy()
    for kind in ("zones", "lines", "pools", "instances"):
        from gtm import codec

        plain[kind] = {name: codec.plain(one) for name, one in found.sound.kind(kind).items()}
    held = await policy.problems(plain)
    assert held.resources is not None
    refused = await policy.problems(plain, found.expectations)
    assert refused.resources is None
    assert refused.errors[0].path == "expect[0]"
    assert "does not hold" in refused.errors[0].text
    assert found.located(refused.errors[0]).line == 19
