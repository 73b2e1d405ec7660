"""Rules of an instance that can never match, because other rules have all their lines.

An error only where it is certain: a line counts as taken when an earlier rule has it, or when a
rule has a line of one's own that everybody on it is on, for those go first whatever the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gtm.lines import Line, parse_line
from gtm.model import ClientLine, Rule

from .findings import Findings
from .rules_lines import Own, wider


def judge(findings: Findings, path: str, rules: Sequence[Rule], own: Own) -> None:
    """Note rules, and lines of rules, that can never match."""
    taken = _Taken(findings.resources.lines, rules, own)
    for index, rule in enumerate(rules):
        place = f"{path}.rules[{index}]"
        lines = [parse_line(text) for text in rule.lines]
        owners = [taken.by(line, index) for line in lines]
        if lines and all(owner is not None for owner in owners):
            found = sorted({owner for owner in owners if owner is not None})
            order = "earlier" if found[-1] < index else "other"
            names = ", ".join(repr(rules[owner].name) for owner in found)
            findings.error(
                place, f"the rule can never match: {order} rules have all its lines ({names})"
            )
        else:
            for number, (line, owner) in enumerate(zip(lines, owners, strict=True)):
                if owner is not None:
                    findings.warn(
                        f"{place}.lines[{number}]",
                        f"{line} never matches here: {rules[owner].name!r} has it",
                    )
        for line in lines:
            taken.take(line, index)


class _Taken:
    """Which rule has a line, by number; networks and autonomous systems count one by one."""

    def __init__(self, lines: Mapping[str, ClientLine], rules: Sequence[Rule], own: Own) -> None:
        self.lines = lines
        self.rules: dict[Line | int, int] = {}
        self.holders = [
            (index, own[text])
            for index, rule in enumerate(rules)
            if rule.on_exhausted == "stop"  # else clients fall from it to wider lines
            for text in rule.lines
            if own.get(text)
        ]

    def by(self, line: Line, rule: int) -> int | None:
        """The rule that has all of `line` before `rule` (the last one where several share it)."""
        owners = [self._owner(part, line, rule) for part in self._parts(line)]
        return None if None in owners else owners[-1]

    def _owner(self, part: Line | int, line: Line, rule: int) -> int | None:
        if part in self.rules:
            return self.rules[part]
        if isinstance(part, int):
            part = Line("asn", str(part))
        if part.kind == "network":
            return None  # a longer network goes before any line of one's own
        inside = (part,) if part.kind == "own" else (part, *wider(part))
        for holder, held in self.holders:
            if holder == rule or (line.kind == "own" and holder > rule):
                continue
            if any(each in held for each in inside):
                return holder
        return None

    def take(self, line: Line, rule: int) -> None:
        """From now on `rule` has what of `line` nobody had."""
        self.rules.setdefault(line, rule)
        own = self.lines.get(line.value) if line.kind == "own" else None
        if own is not None and not own.all_of and not own.not_:
            for text in own.networks:
                self.rules.setdefault(Line("network", text), rule)
        for part in self._parts(line):
            self.rules.setdefault(part, rule)

    def _parts(self, line: Line) -> Iterable[Line | int]:
        if line.kind in ("asn", "isp"):
            return line.asns
        own = self.lines.get(line.value) if line.kind == "own" else None
        if own is not None and own.networks and not own.refers():
            return [Line("network", text) for text in own.networks]
        return (line,)
