"""What RFCs demand, as a table: where it is written, what is asked, what must be seen.

`asked` is a question in words (see `clients.ask`), a command of dig or kdig, or the very bytes;
`seen` is the whole reply as lines (`clients.lines`), or what the tool must and (behind a `!`) must
not print. The table makes docs/rfcs.md (`python -m tests.conformance.cases`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "rfcs.md"
RESPONDER, MESSAGE, EDNS = "resolver/responder.py", "resolver/message.py", "resolver/edns.py"
ZONES, TABLE, TCP, PLAN = (
    "resolver/zones.py",
    "resolver/table.py",
    "resolver/tcp.py",
    "resolver/plan.py",
)


@dataclass(frozen=True)
class Case:
    """One demand: `says` is it in words, `file` is what fulfils it."""

    rfc: int
    section: str
    says: str
    file: str
    asked: str | bytes
    seen: tuple[str, ...]

    @property
    def ident(self) -> str:
        """The test's name in brackets: RFC, section and the words."""
        words = "".join(c if c.isalnum() else " " for c in self.says).split()
        return f"{self.rfc}-{self.section}-{'-'.join(words).lower()}"


def all_cases() -> tuple[Case, ...]:
    """Every case, by RFC and section."""
    from tests.conformance import cases_answers, cases_tools, cases_wire

    found = (*cases_answers.CASES, *cases_wire.CASES, *cases_tools.CASES)
    return tuple(sorted(found, key=lambda case: (case.rfc, _numbers(case.section))))


def _numbers(section: str) -> list[int]:
    return [int(number) for number in section.split(".")]


def page() -> str:
    """docs/rfcs.md."""
    rows = [
        f"| {case.rfc} | {case.section} | {case.says} | `{case.file}` | `{case.ident}` |"
        for case in all_cases()
    ]
    return HEAD + "\n".join(rows) + "\n"


HEAD = """\
# What the DNS standards demand, and the test that it is so

<!-- Written by `python -m tests.conformance.cases` from the cases; do not edit. -->

Each row is a case of `tests/conformance/test_rfcs.py::test_a_demand_is_met[...]`: a running
`gtm up` is asked by dnspython, dig, kdig or plain sockets, and what comes back is compared with
what the RFC demands. The comparison with Knot and BIND, and where we answer otherwise, is in
[conformance.md](conformance.md).

| RFC | section | what must be seen | file | test |
|---|---|---|---|---|
"""

if __name__ == "__main__":
    PAGE.write_text(page())
