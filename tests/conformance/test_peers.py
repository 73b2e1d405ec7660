"""Our answers beside those of Knot and BIND, which serve the same zones: random questions.

GTM_CONFORMANCE_QUERIES and GTM_CONFORMANCE_SEED change how many and which (`make conformance`).
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import dns.name
import dns.rdatatype
import pytest

from tests.conformance import explained, judge, servers
from tests.conformance.explained import REASONS, Both
from tests.conformance.questions import Dice, Question
from tests.conformance.zones import NAMES, parsed

pytestmark = pytest.mark.integration

QUERIES = int(os.environ.get("GTM_CONFORMANCE_QUERIES", "1500"))
SEED = int(os.environ.get("GTM_CONFORMANCE_SEED", "1"))
SHOWN = 20
PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


class Trio:
    """Ours, Knot and BIND with a client each."""

    def __init__(self, all_: Iterable[servers.Server]) -> None:
        self.clients = {server.name: servers.Client(server) for server in all_}
        self._ident = 0

    def ask(self, question: Question, *, tcp: bool) -> dict[str, judge.Seen]:
        """What each of them answers, in their order."""
        self._ident = (self._ident + 1) % 65536
        query = question.wire(self._ident)
        return {
            name: judge.read(client.ask(query, tcp=tcp)) for name, client in self.clients.items()
        }


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    missing = servers.missing()
    if missing:
        pytest.skip(f"missing on this machine: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("peers")
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(servers.ours(folder / "ours"))
        serials = {name: servers.serial_of(ours.port, name) for name in NAMES}
        knot = stack.enter_context(servers.knot(folder / "knot", serials))
        bind = stack.enter_context(servers.bind(folder / "bind", serials))
        print(f"\nbeside {knot.version} and {bind.version}")
        found = Trio((ours, knot, bind))
        for client in found.clients.values():
            stack.callback(client.close)
        yield found


class Tally:
    """Counts of one run: equal, different by reason, and what nothing explains."""

    def __init__(self) -> None:
        self.queries = 0
        self.counts: dict[str, Counter[str]] = {}
        self.defects: list[str] = []

    def compare(self, trio: Trio, question: Question) -> None:
        """Ask all three and judge."""
        self.queries += 1
        seen = trio.ask(question, tcp=question.tcp)
        whole = seen
        if not question.tcp and any("tc" in one.flags for one in seen.values()):
            whole = trio.ask(question, tcp=True)
        mine = seen["ours"]
        self._obeys_laws(question, mine)
        for peer in seen.keys() - {"ours"}:
            both = Both(question, peer, mine, seen[peer], whole["ours"], whole[peer])
            names, left = explained.explain(both, judge.differences(mine, seen[peer]))
            if whole is not seen:
                both = replace(both, mine=whole["ours"], theirs=whole[peer])
                fields = judge.differences(both.mine, both.theirs)
                more, beyond = explained.explain(both, fields)
                names, left = [*names, *more], left | beyond
            self.counts.setdefault(peer, Counter())[_joined(names)] += 1
            if left:
                told = f"{question}\n{mine}\n{both.mine}\n{both.theirs}"
                self.defects.append(f"{peer}: {sorted(left)}: {told}")

    def _obeys_laws(self, question: Question, mine: judge.Seen) -> None:
        """What holds for every reply of ours, whatever others say."""
        broken = []
        rows = (*mine.answer, *mine.authority, *mine.additional)
        if len(set(rows)) != len(rows):
            broken.append("a record stands twice (RFC 2181, section 5)")
        if mine.question != question.wire(0)[12 : 12 + len(mine.question)]:
            broken.append("the question came back otherwise (RFC 4343, section 4.1)")
        if not question.tcp and mine.size > explained.limit(question):
            broken.append("larger than the client's buffer (RFC 6891, section 6.2.3)")
        if (mine.edns is None) != (question.payload is None):
            broken.append("OPT exactly where the query has one (RFC 6891, section 7)")
        ttls: dict[tuple[str, int], set[int]] = {}
        for owner, rtype, _, ttl, _ in mine.answer:
            ttls.setdefault((owner, rtype), set()).add(ttl)
        if any(len(found) > 1 for found in ttls.values()):
            broken.append("one TTL for a set (RFC 2181, section 5.2)")
        self.defects += [f"law: {text}: {question}\n{mine}" for text in broken]

    def __str__(self) -> str:
        peers = sorted(self.counts, reverse=True)
        table = {"equal": [self.counts[peer]["equal"] for peer in peers]}
        table["equal but for CD"] = [self.counts[peer]["cd-cleared"] for peer in peers]
        for name in (reason.name for reason in REASONS):
            table[f"`{name}`"] = [
                sum(
                    count
                    for names, count in self.counts[peer].items()
                    if name in names.split(" + ")
                )
                for peer in peers
            ]
        rows = [f"| {name} | {' | '.join(map(str, row))} |" for name, row in table.items()]
        head = f"| {self.queries} questions | {' | '.join(peers)} |"
        return "\n".join([head, "|---|" + "---|" * len(peers), *rows, self._unexplained(peers)])

    def _unexplained(self, peers: list[str]) -> str:
        found = [sum(text.startswith(f"{peer}:") for text in self.defects) for peer in peers]
        return f"| unexplained | {' | '.join(map(str, found))} |"

    def told(self) -> str:
        """The first defects, for people."""
        more = f"\n... of {len(self.defects)}" if len(self.defects) > SHOWN else ""
        return "\n".join(self.defects[:SHOWN]) + more


def _joined(names: Iterable[str]) -> str:
    return " + ".join(sorted(set(names))) or "equal"


def test_random_questions_are_answered_as_knot_and_bind_do(trio: Trio) -> None:
    print(f"seed {SEED}")
    dice, tally = Dice(SEED), Tally()
    for _ in range(QUERIES):
        tally.compare(trio, dice.question())
    print(f"{tally}\n")
    assert not tally.defects, f"seed {SEED}\n{tally.told()}"
    assert all(counts["equal"] > tally.queries * 0.6 for counts in tally.counts.values())


def test_every_record_set_is_served_as_knot_and_bind_do(trio: Trio) -> None:
    tally = Tally()
    for zone in NAMES:
        for owner, rdataset in parsed(zone).iterate_rdatasets():
            for tcp in (False, True):
                question = Question(owner, int(rdataset.rdtype), tcp, 1232, False, 0)
                tally.compare(trio, question)
    print(tally)
    assert tally.queries > 400
    assert not tally.defects, tally.told()


REASONED = [
    ("www.conf.test", "A", False, None, 0x10, "bind", "cd-cleared"),
    ("aaaa300.conf.test", "AAAA", False, None, 0x20, "bind", "ad-in-truncated"),
    ("www.conf.test", "ANY", True, None, 0, "knot", "minimal-any"),
    ("conf.test", "MX", True, None, 0, "knot", "minimal-additional"),
    ("conf.test", "NS", True, None, 0, "bind", "minimal-additional"),
    ("sibling.conf.test", "A", True, None, 0, "bind", "in-zone-addresses"),
    ("aliasother.conf.test", "A", True, None, 0, "bind", "across-zones"),
    ("aliasother.conf.test", "A", True, None, 0, "knot", "across-zones"),
    ("chain1.conf.test", "A", True, None, 0, "bind", "long-chain"),
    ("chain1.conf.test", "A", True, None, 0, "knot", "long-chain"),
    ("x.loopwild.conf.test", "A", True, None, 0, "bind", "loop"),
    ("www.conf.test", "TYPE200", True, None, 0, "bind", "unassigned-types"),
    ("www.conf.test", "MAILA", True, None, 0, "knot", "meta-types"),
    ("missing.conf.test", "SOA", True, None, 0, "bind", "ttl-of-no-soa"),
    ("x.many.conf.test", "A", False, None, 0, "bind", "whole-or-truncated"),
    (f"{'y' * 63}.dnamelong.conf.test", "DNAME", True, None, 0, "knot", "too-long"),
    ("alias.conf.test", "KEY", True, None, 0, "bind", "old-key-types"),
    ("mx24.conf.test", "MX", False, 900, 0, "knot", "less-compression"),
]


@pytest.mark.parametrize(
    ("name", "kind", "tcp", "payload", "flags", "peer", "reason"),
    REASONED,
    ids=[f"{row[-1]}-{row[-2]}" for row in REASONED],
)
def test_a_reason_is_needed(
    trio: Trio,
    name: str,
    kind: str,
    tcp: bool,
    payload: int | None,
    flags: int,
    peer: str,
    reason: str,
) -> None:
    qtype = int(dns.rdatatype.from_text(kind))
    tally = Tally()
    tally.compare(trio, Question(dns.name.from_text(name), qtype, tcp, payload, False, flags))
    assert not tally.defects, tally.told()
    assert any(reason in names.split(" + ") for names in tally.counts[peer]), tally


def test_every_reason_is_needed_and_written_down() -> None:
    page = PAGE.read_text()
    assert {row[-1] for row in REASONED} == {reason.name for reason in REASONS}
    for reason in REASONS:
        assert f"`{reason.name}`" in page
        assert reason.rfc in page
