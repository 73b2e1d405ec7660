"""Sets of files: directories, several places, JSON beside YAML, and errors in many at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta, Struct

from gtm import codec, config, places
from gtm.config import Variants, read_files, read_plain, read_text
from gtm.ports import Problem
from gtm.units import Duration, Share


class Inner(Struct, frozen=True):
    limit: Share = Share.parse("10%")
    words: tuple[str, ...] = ()


class Odd:
    """A form with `parse` and `plain`, as probes' settings have them."""

    def __init__(self, number: int) -> None:
        self.number = number

    @classmethod
    def parse(cls, value: object) -> Odd:
        if not isinstance(value, int) or value % 2 == 0:
            raise ValueError(f"{value!r} is not odd")
        return cls(value)

    def plain(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd) and self.number == other.number

    def __hash__(self) -> int:
        return self.number


class Knock(Struct, frozen=True, kw_only=True):
    port: Annotated[int, Meta(ge=1, le=65535)]
    pause: Duration = Duration(100)
    inner: Inner = Inner()
    odd: Odd = Odd(1)
    either: bool | int = False
    note: Annotated[str | None, Meta(max_length=5)] = None

    def problems(self) -> list[str]:
        return ["pause is too long"] if self.pause.ms > 1000 else []


class Silent(Struct, frozen=True):
    pass


VARIANTS = Variants({"knock": Knock, "silent": Silent}, {"round_robin": Silent})


def texts(problems: tuple[Problem, ...]) -> list[str]:
    return [str(problem) for problem in problems]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def test_a_directory_stands_for_the_files_in_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        a_yaml="pools: {a: {type: ipv4}}",
        b_yml="pools: {b: {type: ipv4}}",
        c_json='{"pools": {"c":\t{"type": "ipv6"}}}',
        d_txt="not: read",
    )
    (tmp_path / ".hidden.yaml").write_text("not: read")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "e.yaml").write_text("not: read")
    reading = read_files([tmp_path, tmp_path / "a.yaml"], VARIANTS)
    assert reading.resources is not None
    assert set(reading.resources.pools) == {"a", "b", "c"}


def test_what_cannot_be_read_is_one_sentence_each(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bad.yaml").write_text("a: [")
    reading = read_files(
        [tmp_path / "none.yaml", tmp_path / "bare", tmp_path / "bad.yaml"], VARIANTS
    )
    assert reading.resources is None
    assert sorted(texts(reading.problems)) == [
        f"{tmp_path}/bad.yaml:1: is not YAML: while parsing a flow node, "
        "did not find expected node content",
        f"{tmp_path}/bare: holds no .yaml, .yml or .json file",
        f"{tmp_path}/none.yaml: cannot be read: No such file or directory",
    ]


def test_one_name_in_two_files_names_both_places(tmp_path: Path) -> None:
    write(tmp_path, a_yaml="pools:\n  x: {type: ipv4}", b_yaml="pools:\n\n  x: {type: ipv6}")
    reading = read_files([tmp_path], VARIANTS)
    assert texts(reading.problems) == [
        f"{tmp_path}/b.yaml:3: pools.x: 'x' is defined twice, first in {tmp_path}/a.yaml:2"
    ]


def test_errors_of_all_files_come_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        a_yaml="pools:\n  a: {type: ipv5}",
        b_yaml="pools: [",
        c_json='{"pools":\n\t{"c": {"typo": 1}}}',
    )
    found = texts(read_files([tmp_path], VARIANTS).problems)
    assert [text.removeprefix(f"{tmp_path}/").partition(": ")[0] for text in found] == [
        "a.yaml:2", "b.yaml:1", "c.json:2", "c.json:2",
    ]  # fmt: skip


def test_more_files_than_the_bound_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "MAX_FILES", 2)
    write(tmp_path, a_yaml="", b_yaml="")
    assert not read_files([tmp_path], VARIANTS).problems
    write(tmp_path, c_yaml="")
    assert texts(read_files([tmp_path], VARIANTS).problems) == ["more than 2 files"]


def test_problems_over_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_PROBLEMS", 2)
    reading = read_plain({"a": 1, "b": 1, "c": 1, "d": 1}, VARIANTS)
    assert len(reading.problems) == 3
    assert {problem.text for problem in reading.problems} >= {"and 2 more errors"}


def test_settings_become_canonical_text_without_defaults() -> None:
    reading = read_text(
        """
        checks:
          a: {type: knock, port: 80, odd: 1, pause: 0.1, inner: {limit: 0.1}, either: false}
          b: {type: knock, odd: 3, port: 81, pause: 1s, inner: {words: [x], limit: 50%}, either: 2}
          c: {type: silent}
        """,
        VARIANTS,
    )
    assert reading.problems == ()
    a, b, c = (reading.sound.checks[name] for name in "abc")
    assert (a.port, a.options) == (80, "{}")
    assert b.port == 81
    assert b.options == '{"either":2,"inner":{"limit":"50%","words":["x"]},"odd":3,"pause":"1s"}'
    assert (c.port, c.options) == (0, "{}")
    again = read_plain({"checks": {"b": codec.plain(b)}}, VARIANTS)
    assert again.sound.checks == {"b": b}


def test_settings_refuse_in_their_own_words() -> None:
    reading = read_text(
        "checks:\n"
        "  a: {type: knock, port: 80, odd: 2}\n"
        "  b: {type: knock, port: 80, pause: 2s}\n"
        "  c: {type: knock, port: 80, either: x}\n"
        "  d: {type: knock, port: 80, inner: {limt: 1%}}\n"
        "  e: {type: knock, port: 80, note: sixsix}\n"
        "  f: {type: silent, prot: 80}\n",
        VARIANTS,
        file="x.yaml",
    )
    assert texts(reading.problems) == [
        "x.yaml:2: checks.a.odd: 2 is not odd",
        "x.yaml:3: checks.b: pause is too long",
        "x.yaml:4: checks.c.either: must be true or false, not 'x'",
        "x.yaml:4: checks.c.either: must be a whole number, not 'x'",
        "x.yaml:5: checks.d.inner.limt: unknown key 'limt', did you mean 'limit'?",
        "x.yaml:6: checks.e.note: is longer than 5 characters",
        "x.yaml:7: checks.f.prot: unknown key 'prot'; known are answering, confirm, damping, "
        "failing_share, fall, healthy_share, interval, ip_version, max_probe_rate, min_voters, "
        "regions, rise, rise_share, timeout, type",
    ]


def test_broken_resources_are_told_from_sound_ones() -> None:
    reading = read_text("pools: {a: {type: ipv4}, b: {type: x}}", VARIANTS)
    assert reading.resources is None
    assert set(reading.sound.pools) == {"a"}
    assert reading.broken == {("pools", "b")}


LOCATED = [
    ("zones.example.net.records[1].data[0]", 8),
    ("zones.example.net.records[1].colour", 7),
    ("zones.example.net.soa.minimum", 3),
    ("zones.example.net", 2),
    ("pools.a.addresses[0].value", 11),
    ("pools.a.addresses[7].value", 10),
    ("pools.nobody", 0),
    ("elsewhere", 0),
    ("", 0),
    ("pools.a.addresses[x", 10),
]


@pytest.mark.parametrize(("path", "line"), LOCATED)
def test_a_path_is_located_where_it_was_written(path: str, line: int) -> None:
    text = """zones:
  Example.NET.:
    soa: {minimum: 5s}
    nameservers: [ns.example.org]
    records:
      - {name: a, type: A, data: [192.0.2.1]}
      - name: b
        data: [192.0.2.1]
        type: A
pools: {a: {type: ipv4, addresses: [
  {value: 192.0.2.1}]}}
"""
    reading = read_text(text, VARIANTS, file="x.yaml")
    assert reading.problems == ()
    problem = reading.located(Problem(text="x", path=path))
    assert problem.line == line
    assert problem.file == ("x.yaml" if line else "")


def test_plain_data_of_any_sort_is_refused_not_raised() -> None:
    for data in (None, [], "x", 1, {"pools": {"a": {"type": "\ud800"}}}, {"pools": {1: {}}}):
        reading = read_plain(data, VARIANTS)
        assert reading.resources is None, data
        assert reading.problems, data


def test_json_and_yaml_of_the_same_data_read_the_same(tmp_path: Path) -> None:
    data = {"checks": {"a": {"type": "knock", "port": 1, "interval": "15s"}}}
    (tmp_path / "a.json").write_text(json.dumps(data, indent="\t"))
    assert read_files([tmp_path], VARIANTS).sound == read_plain(data, VARIANTS).sound
