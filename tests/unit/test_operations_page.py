"""docs/operations.md and the alerts speak of the same things, and of metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
NAMED = set(re.findall(r"^\| `((?:gtm|process|python)_\w+)` \|", PAGE, re.M))
SUFFIX = re.compile(r"_(bucket|count|sum)$")


def test_every_alert_has_a_section_that_says_what_to_do_and_no_section_is_left_over() -> None:
    sections = re.findall(r"^### (Gtm\w+)\n(.+)", PAGE, re.M)
    assert [name for name, _ in sections] == [rule["alert"] for rule in RULES]
    assert all(first.strip() for _, first in sections)


def test_every_alert_says_how_urgent_it_is_and_what_has_happened() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]


def test_alerts_ask_for_metrics_that_stand_on_the_page() -> None:
    for rule in RULES:
        asked = re.findall(r"\b(?:gtm|process)_\w+", re.sub(r'"[^"]*"', "", rule["expr"]))
        for name in asked:
            assert SUFFIX.sub("", name) in NAMED or name in NAMED, (rule["alert"], name)


def test_every_metric_that_the_text_mentions_is_in_a_table() -> None:
    for name in re.findall(r"`(gtm_(?:agent|coordinator|resolver|etcd)_\w+)`", PAGE):
        assert name in NAMED, name
