"""The engine on columns and the naive twin on single results say the same, whatever comes."""

from __future__ import annotations

import importlib.util
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.engine import Engine
from coordinator.events import (
    AgentFound,
    AgentLost,
    Configured,
    Confirm,
    Digest,
    Frame,
    Now,
    PublishVerdict,
    Restored,
    TargetKey,
    Tick,
)
from coordinator.quorum import Electorate, decide, decide_columns
from coordinator.targets import probe_digest
from gtm.model import Address, Check, Pool, Region, Resources
from gtm.state import VerdictRecord
from gtm.units import Duration, Share, Voters

_spec = importlib.util.spec_from_file_location(
    "naive_engine", Path(__file__).with_name("naive_engine.py")
)
assert _spec is not None
assert _spec.loader is not None
naive = importlib.util.module_from_spec(_spec)
sys.modules["naive_engine"] = naive
_spec.loader.exec_module(naive)

REGIONS = ("eu", "us", "asia", "africa")
ADDRESSES = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
KEYS = [TargetKey("web", address, 80) for address in ADDRESSES]
AGENTS = [(region, agent) for region in REGIONS for agent in ("a", "b")][:6]

rules = st.fixed_dictionaries(
    {
        "fall": st.integers(1, 3),
        "rise": st.integers(1, 3),
        "regions": st.sampled_from([REGIONS, REGIONS[:3], REGIONS[:2], REGIONS[:1]]),
        "shares": st.one_of(
            st.builds(
                lambda failing, rising: {"failing_share": failing, "rise_share": rising},
                st.sampled_from([None, "1%", "20%", "33.3%", "50%", "66.7%", "80%", "100%"]),
                st.sampled_from([None, None, "50%", "66.7%", "75%", "100%"]),
            ),
            st.builds(
                lambda share: {"healthy_share": share},
                st.sampled_from(["0%", "18%", "33.3%", "50%", "75%", "99%"]),
            ),
        ),
        "voters": st.sampled_from([None, 1, 2, 3, 9]),
        "confirm": st.booleans(),
        "options": st.sampled_from(["{}", '{"send":"x"}']),
    }
)
agent = st.sampled_from(AGENTS)
target = st.integers(0, len(KEYS) - 1)
outcome = st.sampled_from([1, 1, 2, 2, 2, 3])
age = st.sampled_from([0, 5, 300, 900, 1999, 2000, 2001, 3499, 3500, 60_000])
events = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), agent, st.lists(st.tuples(target, outcome, age), max_size=8)),
        st.tuples(
            st.just("digest"),
            agent,
            st.lists(
                st.tuples(target, st.integers(0, 3), st.integers(0, 4), age),
                max_size=3,
                unique_by=lambda row: row[0],
            ),
        ),
        st.tuples(st.just("pass"), st.sampled_from([1, 200, 999, 1000, 2500, 3500, 4000])),
        st.tuples(st.just("lost"), agent),
        st.tuples(st.just("found"), agent),
        st.tuples(st.just("rules"), rules),
        st.tuples(st.just("restart")),
    ),
    max_size=30,
)


def resources(rule: dict[str, Any]) -> Resources:
    check = Check(
        type="tcp",
        interval=Duration(1000),
        timeout=Duration(500),
        fall=rule["fall"],
        rise=rule["rise"],
        confirm=rule["confirm"],
        regions=rule["regions"],
        **{key: Share.parse(share) for key, share in rule["shares"].items() if share},
        min_voters=Voters(rule["voters"] or 0),
        port=80,
        options=rule["options"],
    )
    pool = Pool(type="ipv4", checks=("web",), addresses=tuple(Address(value=a) for a in ADDRESSES))
    return Resources(
        regions={name: Region() for name in REGIONS}, checks={"web": check}, pools={"p": pool}
    )


def of_one(rule: dict[str, Any], key: str) -> Fraction | None:
    share = rule["shares"].get(key)
    return Share.parse(share).of_one if share else None


def naive_rules(rule: dict[str, Any]) -> Any:
    return naive.Rules(
        interval_ms=1000,
        timeout_ms=500,
        fall=rule["fall"],
        rise=rule["rise"],
        regions=rule["regions"],
        share=of_one(rule, "failing_share"),
        healthy=of_one(rule, "healthy_share"),
        rising=of_one(rule, "rise_share"),
        voters=rule["voters"],
        confirm=rule["confirm"],
    )


class Pair:
    """An engine and its twin, and the store that both write to."""

    def __init__(self, rule: dict[str, Any]) -> None:
        self.mono_ms = 1_000_000
        self.rule = rule
        self.records: dict[TargetKey, VerdictRecord] = {}
        self.streams: dict[tuple[str, str], int] = {}
        self.engine, self.twin = Engine(), naive.Naive(naive_rules(rule), self.probe, KEYS)
        self.start()

    @property
    def now(self) -> Now:
        return Now(self.mono_ms, self.mono_ms / 1000)

    @property
    def probe(self) -> str:
        return probe_digest(resources(self.rule).checks["web"], 80)

    def start(self) -> None:
        self.streams.clear()
        self.engine = Engine()
        self.feed(Restored(verdicts=dict(self.records), pools={}, routes={}))
        self.configure(self.rule)
        records = dict(self.twin.records)
        self.twin = naive.Naive(naive_rules(self.rule), self.probe, KEYS)
        self.twin.restored(records, self.mono_ms)

    def feed(self, event: Any) -> set[TargetKey]:
        """Store what comes out; whom to ask for at once."""
        asked = set()
        for effect in self.engine.handle(event, self.now):
            if isinstance(effect, Confirm):
                asked.add(effect.target)
            if isinstance(effect, PublishVerdict):
                assert effect.record is not None
                self.records[effect.target] = effect.record
        return asked

    def configure(self, rule: dict[str, Any]) -> None:
        self.rule = rule
        self.feed(Configured(resources=resources(rule), generation=1, head_revision=1))

    def find(self, name: tuple[str, str]) -> None:
        if not self.streams.get(name):
            self.streams[name] = 1
            self.feed(AgentFound(region=name[0], agent=name[1]))
            self.twin.found(*name)

    def step(self, kind: str, *what: Any) -> None:
        match kind:
            case "frame":
                self.frame(*what)
            case "digest":
                self.digest(*what)
            case "pass":
                self.mono_ms += what[0]
                self.feed(Tick())
                self.twin.tick(self.mono_ms)
            case "found":
                self.find(what[0])
            case "lost":
                if self.streams.pop(what[0], 0):
                    self.feed(AgentLost(region=what[0][0], agent=what[0][1]))
            case "rules":
                self.configure(what[0])
                self.twin.reruled(naive_rules(what[0]), self.probe)
            case "restart":
                self.start()

    def frame(self, name: tuple[str, str], rows: list[tuple[int, int, int]]) -> None:
        self.find(name)
        zero = np.zeros(len(rows), dtype=np.int64)
        asked = self.feed(
            Frame(
                region=name[0],
                agent=name[1],
                target=np.array([self.engine.number(KEYS[row[0]]) for row in rows], dtype=np.int64),
                outcome=np.array([row[1] for row in rows], dtype=np.int64),
                age_ms=np.array([row[2] for row in rows], dtype=np.int64),
                rtt_us=zero,
                reason=zero,
            )
        )
        for place, what, ago in rows:
            self.twin.result(*name, KEYS[place], what, ago, self.mono_ms)
        self.twin.judge()
        told = [(KEYS[place], what) for place, what, _ in rows]
        assert asked == self.twin.asks(*name, told, self.mono_ms)

    def digest(self, name: tuple[str, str], rows: list[tuple[int, int, int, int]]) -> None:
        self.find(name)
        zero = np.zeros(len(rows), dtype=np.int64)
        asked = self.feed(
            Digest(
                region=name[0],
                agent=name[1],
                target=np.array([self.engine.number(KEYS[row[0]]) for row in rows], dtype=np.int64),
                outcome=np.array([row[1] for row in rows], dtype=np.int64),
                streak=np.array([row[2] for row in rows], dtype=np.int64),
                age_ms=np.array([row[3] for row in rows], dtype=np.int64),
                rtt_us=zero,
                reason=zero,
            )
        )
        for place, what, streak, ago in rows:
            self.twin.entry(*name, KEYS[place], what, streak, ago, self.mono_ms)
        self.twin.judge()
        told = [(KEYS[place], what) for place, what, _, _ in rows]
        assert asked == self.twin.asks(*name, told, self.mono_ms)

    def compare(self) -> None:
        for key, view in zip(KEYS, self.engine.verdicts(now=self.now), strict=True):
            assert view.target == key
            assert {one.region: one.vote for one in view.regions} == self.twin.voting(key)
            assert view.verdict.replace("unknown", "none") == self.twin.verdicts.get(key, "none")
            assert view.pending == self.twin.pending(key)
            assert view.wavering == self.twin.wavering(key)
            record, plain = self.records.get(key), self.twin.records.get(key)
            assert (record is None) == (plain is None)
            if record is not None:
                stored = {name: vote.vote for name, vote in record.votes.items()}
                assert (record.verdict, record.probe, stored) == (
                    plain.verdict,
                    plain.probe,
                    plain.votes,
                )


@settings(max_examples=250, deadline=None)
@given(rules, events)
def test_columns_and_single_results_agree(rule: dict[str, Any], story: list[Any]) -> None:
    pair = Pair(rule)
    for event in story:
        pair.step(*event)
        pair.compare()


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 9),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2)), max_size=20),
    st.integers(1, 12),
    st.fractions(0, 1, max_denominator=1000),
    st.integers(0, 9),
)
def test_the_quorum_of_columns_is_that_of_each_row(
    total: int, rows: list[tuple[int, int, int]], voters: int, share: Fraction, ups: int
) -> None:
    downs = max(1, -(-(share * total).numerator // (share * total).denominator))
    who = Electorate(
        regions=tuple(f"r{n}" for n in range(total)),
        voters=voters,
        downs=downs,
        share="",
        ups=ups,
    )
    rows = [(ups % (total + 1), downs % (total + 1), code) for ups, downs, code in rows]
    rows = [(ups, min(downs, total - ups), code) for ups, downs, code in rows]
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    verdict, pending = decide_columns(who, table[:, 0], table[:, 1], table[:, 2].astype(np.int8))
    for row, (ups, down, code) in enumerate(rows):
        decision = decide(who, ups, down, code)
        assert (verdict[row], pending[row]) == (decision.verdict, decision.pending)
