"""Rules over lines of one's own: names, what they refer to, loops, lines that nobody is on.

Gives what later rules ask about them (`Own`): which lines one of them certainly holds. Certain
alone counts here: what only geographic data could say is not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gtm.lines import RESERVED, Line, is_own, parse_line
from gtm.model import ClientLine

from .findings import Findings
from .rules_loops import shown, walk

MAX_LINE_DEPTH = 16
"""Lines of one's own within each other, the outermost counted."""
MAX_LINE_PARTS = 100_000
"""Networks and lines that one line comes to, those of the lines that it is made of included."""

Own = Mapping[str, frozenset[Line]]
"""Of each line of one's own the lines whose clients are all on it, and through no network."""


def judge(findings: Findings) -> Own:
    """Note what is wrong with `lines`."""
    lines = findings.resources.lines
    for name, line in lines.items():
        path = f"lines.{name}"
        if name in RESERVED:
            findings.error(path, f"{name!r} is a built-in line; choose another name")
        if not (line.networks or line.refers()):
            findings.error(path, "is empty; give it networks, any_of, all_of or not")
        findings.twice(f"{path}.networks", line.networks)
        for key, texts in (("any_of", line.any_of), ("all_of", line.all_of), ("not", line.not_)):
            findings.lines(f"{path}.{key}", texts)
        _nobody(findings, path, line)
        if "default" in line.any_of and not line.all_of and not line.not_:
            findings.warn(
                path,
                "everybody is on it, and it goes before every line but networks; "
                "the line default is everybody and goes last",
            )
    edges = {name: tuple(filter(is_own, line.refers())) for name, line in lines.items()}
    order, loops = walk(edges)
    for loop in loops:
        findings.error(f"lines.{loop[0]}", f"the line is made of itself: {shown(loop)}")
    if loops or not _bounded(findings, order, edges):
        return {}
    return _held(lines, order)


def _bounded(
    findings: Findings, order: Iterable[str], edges: Mapping[str, tuple[str, ...]]
) -> bool:
    """Whether all lines are within the bounds on depth and size; notes the first that is not."""
    lines = findings.resources.lines
    depths: dict[str, int] = {}
    parts: dict[str, int] = {}
    fits = True
    for name in order:
        inner = [own for own in edges[name] if own in depths]
        depths[name] = 1 + max((depths[own] for own in inner), default=0)
        parts[name] = len(lines[name].networks) + len(lines[name].refers())
        parts[name] += sum(parts[own] for own in inner)
        if depths[name] == MAX_LINE_DEPTH + 1:
            findings.error(
                f"lines.{name}",
                f"lines within lines, deeper than {MAX_LINE_DEPTH}; name their parts directly",
            )
        if parts[name] > MAX_LINE_PARTS and all(parts[own] <= MAX_LINE_PARTS for own in inner):
            findings.error(
                f"lines.{name}", f"comes to more than {MAX_LINE_PARTS:,} networks and lines"
            )
        fits &= depths[name] <= MAX_LINE_DEPTH and parts[name] <= MAX_LINE_PARTS
    return fits


def _held(lines: Mapping[str, ClientLine], order: Iterable[str]) -> Own:
    held: dict[str, frozenset[Line]] = {}
    networked: set[str] = set()
    for name in order:
        line = lines[name]
        inside = [parse_line(text) for text in line.any_of]
        if line.networks or any(
            parse_line(text).kind == "network" or text in networked for text in line.refers()
        ):
            networked.add(name)
        found: set[Line] = set()
        if not line.all_of and not line.not_:
            for each in inside:
                if each.kind == "own":
                    found |= held.get(each.value, frozenset())
                if each.kind == "isp":
                    found |= {Line("asn", str(number)) for number in each.asns}
                if each.kind != "network" and each.value not in networked:
                    found.add(each)
        held[name] = frozenset(found)
    return held


# ---- lines that nobody is on -------------------------------------------------------------------


def wider(line: Line) -> tuple[Line, ...]:
    """Built-in lines that everybody on `line` is certainly on too, itself left out."""
    everybody = () if line.kind == "default" else (Line("default"),)
    country = _country(line)
    if line.kind == "oversea" or not country:
        return everybody
    abroad = () if country == "CN" else (Line("oversea"),)
    inside = (Line("country", country),) if line.kind == "subdivision" else ()
    return (*inside, *abroad, *everybody)


def _country(line: Line) -> str:
    return line.value[:2] if line.kind in ("country", "subdivision") else ""


def _nobody(findings: Findings, path: str, line: ClientLine) -> None:
    """Note what keeps everybody off a line, where that is plain."""
    without = {parse_line(text) for text in line.not_}
    if Line("default") in without:
        at = line.not_.index("default")
        findings.error(f"{path}.not[{at}]", "nobody is on the line: default is everybody")
        return
    first: dict[str, Line] = {}
    for index, each in enumerate(map(parse_line, line.all_of)):
        if out := _out(each, without):
            findings.error(f"{path}.all_of[{index}]", f"nobody is on the line: not takes out {out}")
            return
        before = first.setdefault(_group(each), each)
        if _apart(before, each):
            findings.error(
                f"{path}.all_of[{index}]",
                f"nobody is on the line: no client is on both {before} and {each}; "
                "any_of takes those on either",
            )
            return
    any_of = [parse_line(text) for text in line.any_of]
    if any_of and not line.networks and all(_out(each, without) for each in any_of):
        findings.error(f"{path}.not", "nobody is on the line: not takes out all of any_of")


def _out(line: Line, without: set[Line]) -> str:
    """The line of `not` that takes out all of `line`; "" where none certainly does."""
    return next((str(each) for each in (line, *wider(line)) if each in without), "")


def _group(line: Line) -> str:
    match line.kind:
        case "asn" | "isp":
            return "asn"
        case "country" | "subdivision" | "oversea":
            return "country"
    return line.kind


def _apart(one: Line, other: Line) -> bool:
    """Whether certainly no client is on both of two lines of one group."""
    match _group(one):
        case "network":
            mine, its = one.network, other.network
            return mine.version != its.version or not mine.overlaps(its)
        case "asn":
            return set(one.asns).isdisjoint(other.asns)
        case "continent":
            return one != other
        case "country":
            mine_in, its_in = _country(one), _country(other)
            if mine_in and its_in:
                return mine_in != its_in
            return "CN" in (mine_in, its_in)
    return False
