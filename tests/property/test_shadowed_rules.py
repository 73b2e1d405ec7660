"""A rule that is refused because it can never match is no client's own rule, whoever the client."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ctl.validate import registered, validate
from gtm.config import read_plain
from resolver.place import Place
from resolver.ranking import ranked_rules

VARIANTS = registered()
BUILT_IN = (
    "default", "oversea", "continent:EU", "continent:AS", "country:DE", "country:CN",
    "subdivision:CN-BJ", "subdivision:DE-BY", "asn:4134", "isp:telecom", "isp:cstnet", "asn:7497",
    "network:192.0.2.0/24", "network:192.0.0.0/16", "network:192.0.2.0/25",
)  # fmt: skip
NETWORKS = ("192.0.2.0/24", "192.0.0.0/16", "192.0.2.0/25", "198.51.100.0/24")
PLACES = [
    Place(),
    Place(continent="EU", country="DE"),
    Place(continent="EU", country="DE", subdivisions=("DE-BY",), asn=4134),
    Place(continent="AS", country="CN", asn=7497),
    Place(continent="AS", country="CN", subdivisions=("CN-BJ",)),
    Place(continent="AS", country="JP", asn=4809),
    Place(asn=4134),
]
ADDRESSES = [bytes((192, 0, 2, 1)), bytes((192, 0, 2, 200)), bytes((192, 0, 9, 1)), bytes(4)]


def rules_and_lines(dice: random.Random) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for number in range(4):
        known = [*BUILT_IN, *own, *own]
        line: dict[str, Any] = {"any_of": dice.sample(known, dice.randint(0, 3))}
        if dice.random() < 0.4:
            line["networks"] = dice.sample(NETWORKS, dice.randint(1, 2))
        if dice.random() < 0.2:
            line["not"] = [dice.choice(known)]
        if dice.random() < 0.2:
            line["all_of"] = [dice.choice(known)]
        own[f"own{number}"] = line
    rules = [
        {
            "name": f"r{number}",
            "lines": list(dict.fromkeys(dice.choices([*own, *own, *BUILT_IN], k=2))),
            "tiers": [{"pools": ["a"]}],
        }
        for number in range(5)
    ]
    return {
        "zones": {"example.net": {"nameservers": ["ns.example.org"]}},
        "lines": own,
        "pools": {"a": {"type": "ipv4", "addresses": [{"value": "192.0.2.1"}]}},
        "instances": {"shop": {"unmatched": "nodata", "rules": rules}},
    }


@pytest.mark.parametrize("seed", range(8))
def test_a_rule_that_can_never_match_is_nobodys_own(seed: int) -> None:
    dice = random.Random(seed)
    refused = 0
    for _ in range(60):
        reading = read_plain(rules_and_lines(dice), VARIANTS)
        _, problems = validate(reading.sound, VARIANTS, reading.broken)
        rules = reading.sound.instances["shop"].rules
        never = {
            int(problem.path.partition("rules[")[2].removesuffix("]"))
            for problem in problems
            if "can never match" in problem.text
        }
        refused += len(never)
        for place in PLACES:
            for packed in ADDRESSES:
                found = ranked_rules(rules, reading.sound.lines, place, packed)
                assert not found or found[0].rule not in never
    assert refused


def test_lines_that_nobody_is_on_match_nobody() -> None:
    dice, refused = random.Random(9), 0
    for _ in range(400):
        reading = read_plain(rules_and_lines(dice), VARIANTS)
        _, problems = validate(reading.sound, VARIANTS, reading.broken)
        nobody = {p.path.split(".")[1] for p in problems if "nobody is on" in p.text}
        refused += len(nobody)
        rules = reading.sound.instances["shop"].rules
        alone = [rule for rule in rules if set(rule.lines) <= nobody]
        for place in PLACES:
            for packed in ADDRESSES:
                assert not ranked_rules(alone, reading.sound.lines, place, packed)
    assert refused
