"""Walks through docs/failures.md row by row in a lab: what the page expects, and what was seen.

A row whose tests name `L:SCRIPT` is done here by that script, under a steady load of queries; every
other one is in `ELSEWHERE`, with why. Needs a lab that is up, or brings one up and takes it down.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from gtm.errors import StartError
from tests.load import Counts

from . import broken, certificates, gone, spaces
from .ground import Seen, walked
from .lab import ROOT, Lab, clock_library
from .within import enter

PAGE = ROOT / "docs/failures.md"
SCRIPTS = gone.SCRIPTS | broken.SCRIPTS | certificates.SCRIPTS
NAMED = re.compile(r"`L:([a-z-]+)`")
WIDTH = 100


ELSEWHERE = {
    "`gtm up` itself": "the lab starts every part by itself, without `gtm up`",
    "a resolver is replaced by a takeover, under load": (
        "it starts every part once, and a takeover needs nothing of the network"
    ),
    "the process that takes over dies, or never gets a table": (
        "it starts every part once, and a takeover needs nothing of the network"
    ),
    "the disk of `gtm up` is full": "the lab starts every part by itself, without `gtm up`",
    "a probe cannot run: no socket, no permission, settings that this agent does not know": (
        "its agents are root's, as namespaces are, and may open every socket"
    ),
    "whom the webhook tells of alarms is gone, slow, or answers with errors": (
        "its coordinators tell no webhook"
    ),
    "no DNS server answers an agent": "all of its members are addresses",
    "none of an agent's canaries answers": "its regions have no canaries",
    "a coordinator wants probed what nobody should probe, or asks what makes no sense": (
        "it takes a coordinator that lies: no link or program that fails"
    ),
    "an agent sends what makes no sense, or a hundred of them come and go": (
        "it takes an agent that lies: no link or program that fails"
    ),
    "no DNS server answers the coordinator": "none of its pools is flattened",
    "one region's agents lie: all up, all down, anything": "its agents tell no lies",
    "more than 30 % of all addresses, and at least 10, would leave service within a minute": (
        "it has five origins, and the brake acts from ten addresses on"
    ),
    "health would take more of a pool than its `floor` allows": "its pools have no floor",
    "an address comes and goes": "its origins do, and its pools have no damping",
    "a certificate has ended: a coordinator's or etcd's": (
        "a matter of handshakes between two parts, which their tests make one by one"
    ),
    "the authority is replaced, and a part knows only one of the two": (
        "an operator's act in five steps, which are tested one by one"
    ),
    "a new state can't be read or does not fit together": (
        "it takes a hand that writes into etcd past the coordinator: no link or program that fails"
    ),
    "a pool was never published": "it lasts for the first seconds of a system's life alone",
    "etcd went back to an older snapshot": (
        "it is an operator's act on stopped members, not a failure of a link or a program"
    ),
    "etcd has used up its quota": "it is for hours of writing, or a quota that no one would set",
    "a hostile or broken packet": "a million of them are sent by `make fuzz` instead",
}
"""Row of the page that no script does -> why."""


class Row(Struct, frozen=True):
    """One row of the page."""

    what: str
    seen_by_clients: str
    how_long: str
    tests: str

    @property
    def scripts(self) -> tuple[str, ...]:
        """Those that do it here."""
        return tuple(NAMED.findall(self.tests))


def rows(page: str) -> tuple[Row, ...]:
    """The rows of every table of the page, in order."""
    found = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("|") and len(cells) == 4 and "`" in cells[3]:
            found.append(Row(*cells))
    return tuple(found)


def told(row: Row, some: Sequence[Seen]) -> str:
    """One row in words: expected, then what each script saw."""
    expected = f"expected: {row.seen_by_clients}; for how long: {row.how_long}"
    lines = [row.what, *_wrapped(expected)]
    for seen in some:
        lines += _wrapped(f"seen ({seen.row}): {summary(seen)}")
        lines += [f"    NOT SO: {problem}" for problem in seen.problems]
    if not some:
        lines += _wrapped(f"not in the lab: {ELSEWHERE.get(row.what, 'no script does it')}")
    return "\n".join(lines)


def summary(seen: Seen) -> str:
    """What a script saw, in one sentence."""
    counts, hurt = seen.counts, seen.hurt
    silent = f"{counts.unanswered} unanswered"
    if hurt.asked:
        silent += f" ({hurt.unanswered} by the resolver that is hurt)"
    back = f"whole {seen.recovered_s:.1f} s after the last mending"
    figures = f"{counts.asked} queries, {counts.wrong} wrong, {silent}, {back}"
    return "; ".join([figures, *seen.notes])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="      ")


def main(argv: Sequence[str]) -> int:
    """Walk; 0 where everything was as the page says, 1 where not, 2 where it cannot be walked."""
    parser = argparse.ArgumentParser(prog="walk", description="Walk through docs/failures.md.")
    parser.add_argument("--name", default="walk", help="which lab; made if it is not there")
    parser.add_argument("--json", type=Path, help="write what was seen there too")
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=", ".join(SCRIPTS))
    args = parser.parse_args(argv)
    lab = Lab(args.name)
    try:
        spaces.check_rights()
        wanted = args.scripts or list(SCRIPTS)
        if unknown := sorted({*wanted} - {*SCRIPTS}):
            raise StartError(f"no script {', '.join(unknown)}: there are {', '.join(SCRIPTS)}", 2)
        if "clocks-jump" in wanted:
            clock_library()  # said now and not after ten minutes
        if (status := enter(lab, "deploy.lab.walk", argv)) is not None:
            return status
    except StartError as error:
        print(f"walk: {error}", file=sys.stderr)
        return error.status
    return _walk(lab, wanted, args.json)


def _walk(lab: Lab, wanted: Sequence[str], path: Path | None) -> int:
    total, bad, done = Counts(), 0, []
    for row in rows(PAGE.read_text()):
        some = [walked(lab, name, SCRIPTS[name]) for name in row.scripts if name in wanted]
        if not some and (row.scripts or len(wanted) < len(SCRIPTS)):
            continue
        print(told(row, some), flush=True)
        done += some
        bad += any(seen.problems for seen in some)
        total = sum((seen.counts for seen in some), total)
    queries = f"{total.asked} queries, {total.wrong} wrong, {total.unanswered} unanswered"
    print(f"{len(done)} faults, {bad} rows not as the page says; {queries}")
    if path is not None:
        path.write_bytes(msgspec.json.encode(done))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
