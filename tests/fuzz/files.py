"""Configuration files through the strict reader and the judgement of the whole set.

Files of the corpus and the examples, mutated as text, as octets and as data. Whatever a file says,
the answer is problems in sentences, or resources that survive the store.
"""

# ruff: noqa: SIM905

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from ctl.validate import registered, review
from gtm import codec
from gtm.config import Reading, read_files, read_text
from gtm.model import TYPES
from tests.fuzz.octets import mutated

ROOT = Path(__file__).parents[2]
SEEDS = tuple(
    path.read_text()
    for folder in ("tests/corpus/valid", "tests/corpus/valid", "tests/corpus/invalid", "examples")
    for path in sorted((ROOT / folder).glob("*.yaml"))
)
SCALARS = (
    "null ~ true false yes NO 0 -1 1 010 0o17 0x1F 1e3 1e400 .inf -.inf .nan 1:30 2026-01-01 "
    "0.0 999999999999999999999999999999 1.5s 1s 10ms 0s -1s 1h30m 9999999h 100% 0% 101% 33.3% "
    "0.5 any all majority default oversea country:CN country:xx continent:EU isp: asn:0 "
    "asn:4294967296 network:10.0.0.0/8 network:10.0.0.1/8 network:::/0 network:0.0.0.0/0 "
    "network:10/8 127.0.0.1 256.1.1.1 1.2.3 ::1 ::ffff:1.2.3.4 fe80::1%eth0 0.0.0.0 224.0.0.1 "
    "2001:db8::1 http https tcp ping ipv4 ipv6 weighted round_robin smart online offline stop "
    "widen A AAAA CNAME NS SOA MX TXT SRV CAA DNAME LOC NAPTR TYPE65280 TYPE0 TYPE65536 ANY "
    "OPT AXFR RRSIG NSEC SVCB HTTPS TLSA DS APL WKS NULL @ . .. * *.* *.x a..b -a a- "
    "gtm-000.test gtm00000001 xn--p1ai XN--A \\# \\#"
).split()
TEXTS = (
    "", " ", "\t", "\u2603", "\u202e", "\ud7ff", "\x00", "\x1b[31m", "\ufeff", "a\nb", "a" * 300,
    "\u00e9.example", "a." * 130, '"', "'", "\\", "\\\\", "\\000", "\\256", "${x}", "%s%n", "{{}}",
    "<<", "*a", "&a", "!x", "!!python/object/apply:os.system [id]", "- -", "? x", ": :", "a: b: c",
    "\\# 3 abcdef", "\\# 4 abcdef", "\\# -1", "\\# 99999 00", "10 mail", "10", "-1 mail",
    "0 0 0 .", "1 8 2 abcd", '0 issue "x"', "alpn=h2", '1 . alpn="h2,h3" port=1',
    "1 . key65535=\\255", "1.2.3.4", "51 30 12.748 N 0 7 39.611 W 0.00m", "3 1 1 " + "ab" * 40,
    '100 10 "u" "E2U" "!^.*$!x!" .', "1:10/8", "(a|b)*c", "(", "[", "a{99999}", "(a{1000}){1000}",
    "(?P<x>a)(?P=y)", "(?<=a+)b", "(" * 200 + ")" * 200, "\\", "(?i)(?s)x", "(a+)+$", "[z-a]",
    "\\1", "\\u1", "(?:" * 500, "$(id)", "../../etc/passwd", "GET", "get", "G\r\nX: y",
    "X-A: b\r\n", "/a b", "/\u2603", "//x", "?", "http://x/", "200-", "99", "600", "300-200",
    "2**64", "1e999", "0.1%", "1_000", "1,5",
)  # fmt: skip
KEYS = (
    "zones regions lines checks pools instances records name type data ttl soa nameservers "
    "value weight port mode note interval timeout fall rise path host expect_status "
    "expect_body regex steering answers min_available max_answers rules tiers failover pinned "
    "failback on_exhausted unmatched enabled when_all_down domain aliases access_names id "
    "zone location send tls expect headers sni verify"
).split()
MOST_CHARS = 20_000
PLAIN = (None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**40, 0.1, -0.0, 1e308, float("inf"))


class File(Struct, frozen=True):
    """A file's octets, and whether it is called JSON."""

    data: bytes
    is_json: bool


class Files:
    """The reader and the judge of `gtm validate`."""

    name = "files"

    def __init__(self) -> None:
        self._variants = registered()
        self._plain = [data for data in map(_plain, SEEDS) if isinstance(data, dict)]
        self._folder = tempfile.TemporaryDirectory(prefix="gtm-fuzz-")

    def close(self) -> None:
        """Remove what was written."""
        self._folder.cleanup()

    def make(self, dice: random.Random) -> File:
        """A file of one of five kinds."""
        kind = dice.random()
        if kind < 0.40:
            text = _edited(dice, dice.choice(SEEDS))
            return File(text.encode("utf-8", "surrogatepass"), is_json=False)
        if kind < 0.55:
            return File(mutated(dice, dice.choice(SEEDS).encode()), is_json=False)
        if kind < 0.57:
            return File(_heavy(dice).encode(), is_json=False)
        data = json.loads(json.dumps(dice.choice(self._plain)))
        for _ in range(dice.randint(1, 4)):
            data = _changed(dice, data, self._plain)
        if kind < 0.75:
            text = json.dumps(data, ensure_ascii=dice.random() < 0.5)
            octets = text.encode("utf-8", "surrogatepass")
            return File(mutated(dice, octets, 2) if dice.random() < 0.3 else octets, is_json=True)
        return File(
            yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "replace"), is_json=False
        )

    def plain(self, dice: random.Random) -> Any:
        """Plain data with a few changes, most of them wrong."""
        data = json.loads(json.dumps(dice.choice(self._plain)))
        for _ in range(dice.randint(0, 2)):
            data = _changed(dice, data, self._plain)
        return data

    async def feed(self, given: File, counts: Counter[str]) -> float:
        """Read and judge it as the command does; what is sound survives the store."""
        began = time.thread_time()
        reading = self._read(given)
        found = review(reading, self._variants)
        spent_s = time.thread_time() - began
        refused = any(problem.severity == "error" for problem in found.problems)
        assert (found.resources is None) == refused, "refused without an error, or taken with one"
        for problem in found.problems:
            assert problem.text.strip(), f"a problem without text: {problem}"
            assert len(problem.text) < 2_000, f"a problem of {len(problem.text)} characters"
        if found.resources is None:
            counts["refused"] += 1
            return spent_s
        for kind, type_ in TYPES.items():
            for name, value in getattr(found.resources, kind).items():
                again = codec.decode(codec.encode(value), type_)
                assert again == value, f"{kind}.{name} does not survive the store"
        counts["taken"] += 1
        return spent_s

    def limit_s(self, given: File) -> float:
        """By size; what a small file stands for (aliases, weights, leaves) is bounded."""
        return 0.5 + len(given.data) * 100e-6

    def _read(self, given: File) -> Reading:
        try:
            text = given.data.decode()
        except UnicodeDecodeError:
            text = None
        if text is None or len(given.data) % 8 == 0:
            path = Path(self._folder.name) / ("x.json" if given.is_json else "x.yaml")
            path.write_bytes(given.data)
            return read_files([path], self._variants)
        return read_text(text, self._variants, file="x.yaml", is_json=given.is_json)


def _plain(text: str) -> Any:
    try:
        data = yaml.safe_load(text)
        json.dumps(data)
    except (yaml.YAMLError, TypeError, ValueError):
        return None
    return data


def _scalar(dice: random.Random) -> str:
    return dice.choice(dice.choice((SCALARS, SCALARS, TEXTS)))


def _edited(dice: random.Random, text: str) -> str:
    """Text as a hasty or hostile hand would change it."""
    lines = text.splitlines()
    for _ in range(dice.randint(1, 5)):
        if not lines:
            break
        at = dice.randrange(len(lines))
        match dice.randrange(9):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[dice.randrange(len(lines))])
            case 2:
                lines[at] = " " * dice.randrange(5) + lines[at].lstrip()
            case 3:
                lines[at] = lines[at].replace(" ", "\t", 1)
            case 4 if ":" in lines[at]:
                key, _, _ = lines[at].partition(":")
                lines[at] = f"{key}: {_scalar(dice)}"
            case 5 if ":" in lines[at]:
                _, _, value = lines[at].partition(":")
                indent = len(lines[at]) - len(lines[at].lstrip())
                lines[at] = f"{' ' * indent}{dice.choice((*KEYS, _scalar(dice)))}:{value}"
            case 6:
                words = lines[at].split(" ")
                words[dice.randrange(len(words))] = _scalar(dice)
                lines[at] = " ".join(words)
            case 7:
                lines[at] += dice.choice(("]", "[", "{", "}", ",", " &a", " *a", " |", " >", "---"))
            case 8:
                lines.insert(
                    at, dice.choice(("---", "...", "%YAML 1.1", "<<: *a", "x: &a [*a]", ""))
                )
    return "\n".join(lines)[:MOST_CHARS]


def _changed(dice: random.Random, data: Any, others: list[Any]) -> Any:
    """`data` with one node at a random depth replaced, removed, doubled or renamed."""
    if isinstance(data, dict) and data and dice.random() < 0.9:
        key = dice.choice(list(data))
        kind = dice.random()
        if kind < 0.08:
            return {name: value for name, value in data.items() if name != key}
        if kind < 0.16:
            return {**data, dice.choice((*KEYS, _scalar(dice))): data[key]}
        return {**data, key: _changed(dice, data[key], others)}
    if isinstance(data, list) and data and dice.random() < 0.9:
        at = dice.randrange(len(data))
        kind = dice.random()
        if kind < 0.1:
            return [*data, *data]
        if kind < 0.2:
            return data[:at] + data[at + 1 :]
        return [*data[:at], _changed(dice, data[at], others), *data[at + 1 :]]
    kind = dice.random()
    if kind < 0.6:
        return _scalar(dice)
    if kind < 0.85:
        return dice.choice(PLAIN)
    if kind < 0.95:
        return dice.choice(([], {}, [data], {"regex": _scalar(dice)}, {"type": _scalar(dice)}))
    return dice.choice(others)


def heavy(depth: int, count: int) -> dict[str, str]:
    """Files that stand for much, or whose parts have to be looked up in many others."""
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]

    def rows(text: str, separator: str = ", ") -> str:
        return separator.join(text.replace("#", str(n)) for n in range(count))

    addresses = ", ".join(f"{{value: 10.{n >> 8}.{n & 255}.1, weight: 255}}" for n in range(count))
    zone = "zones: {x.test: {nameservers: [ns.x.test], records: ["
    chain = ", ".join(f"{{name: n{n}, type: CNAME, data: [n{n + 1}]}}" for n in range(count))
    return {
        "open lists": "[" * depth * 100,
        "deep mappings": "zones: " + "{a: " * depth + "1" + "}" * depth,
        "deep keys": "? " * depth * 50,
        "deep items": "- " * depth * 50,
        "anchors in a row": "&a " * depth,
        "aliases of aliases": "\n".join(bomb),
        "digits": "x: " + "9" * count * 10,
        "a comment": "# " + "x" * count * 20,
        "spaces": "x: |\n" + " " * count + "y",
        "addresses": f"pools: {{p: {{type: ipv4, steering: weighted, addresses: [{addresses}]}}}}",
        "zones": f"zones: {{{rows('z#.x.test: {nameservers: [ns.z#.x.test]}')}}}",
        "records": f"{zone}{rows('{name: n#, type: TXT, data: [x]}')}]}}}}",
        "one record": f"{zone}{{name: n, type: TXT, data: [{rows('t#')}]}}]}}}}",
        "a chain": f"{zone}{chain}]}}}}",
        "unknown kinds": rows("kind#: 1", "\n"),
        "unknown keys": f"pools: {{p: {{{rows('adresses#: 1')}}}}}",
        "unknown checks": f"pools: {{p: {{type: ipv4, checks: [{rows('c#')}], addresses: []}}}}\n"
        f"checks: {{{rows('check#: {type: tcp, port: 80}')}}}",
        "unknown pools": "instances: {i: {rules: [{name: d, lines: [default], tiers: "
        f"[{{pools: [{rows('p#')}]}}]}}]}}}}\n"
        f"pools: {{{rows('pool#: {type: ipv4, addresses: []}')}}}",
        "twice": f"pools: {{{rows('p: {type: ipv4}')}}}",
        "lines": "instances: {i: {rules: [{name: d, lines: "
        f"[{rows('network:10.0.0.0/8')}]}}]}}}}",
    }


def _heavy(dice: random.Random) -> str:
    return dice.choice([*heavy(dice.randint(1, 60), dice.randint(1, 1_000)).values()])
