"""Settings of parts: where values come from, and what is said about wrong ones."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from gtm.errors import StartError
from gtm.settings import MAX_FILE_BYTES, add_flags, load
from gtm.units import Duration, Share


class Sample(Struct, frozen=True, kw_only=True):
    region: Annotated[str, Meta(description="where it stands")]
    etcd: Annotated[tuple[str, ...], Meta(description="endpoints")] = ("127.0.0.1:7379",)
    workers: Annotated[int, Meta(ge=1, le=8, description="how many, at 100 %")] = 2
    ratio: Annotated[float, Meta(description="a number")] = 0.5
    grace: Annotated[Duration, Meta(description="how long")] = Duration(15_000)
    limit: Annotated[Share, Meta(description="how much of it")] = Share(Fraction(1, 5))
    insecure: Annotated[bool, Meta(description="in the clear")] = False
    level: Annotated[Literal["INFO", "DEBUG"], Meta(description="of the log")] = "INFO"


def flags(*argv: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_flags(parser, Sample)
    return vars(parser.parse_args(argv))


def test_defaults_stand_where_nothing_is_given() -> None:
    assert load(Sample, flags("--region", "eu"), {}) == Sample(region="eu")


def test_a_flag_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("region: file\nworkers: 3\ngrace: 20s\n")
    got = load(
        Sample,
        flags("--settings", str(file), "--region", "flag"),
        {"GTM_REGION": "variable", "GTM_WORKERS": "4"},
    )
    assert got == Sample(region="flag", workers=4, grace=Duration(20_000))


def test_every_type_is_read_from_text_and_from_a_file(tmp_path: Path) -> None:
    want = Sample(
        region="no",
        etcd=("a:1", "b:2"),
        workers=8,
        ratio=1.5,
        grace=Duration(1_500),
        limit=Share(Fraction(1, 8)),
        insecure=True,
        level="DEBUG",
    )
    file = tmp_path / "s.yaml"
    file.write_text(
        "region: no\netcd: [a:1, b:2]\nworkers: 8\nratio: 1.5\ngrace: 1500ms\nlimit: 12.5%\n"
        "insecure: yes\n"
        "level: DEBUG\n"
    )
    assert load(Sample, {"settings": str(file)}, {}) == want
    given = flags(
        "--region=no", "--etcd=a:1, b:2", "--workers=8", "--ratio=1.5", "--grace=1500ms",
        "--limit=0.125", "--insecure", "--level=DEBUG",
    )  # fmt: skip
    assert load(Sample, given, {}) == want


def test_a_number_of_seconds_is_a_duration() -> None:
    assert load(Sample, flags("--region=a", "--grace=15"), {}).grace == Duration(15_000)


WRONG = [
    ({"workers": "many"}, {}, "--workers: 'many' is not a whole number"),
    ({"workers": "9"}, {}, "--workers: '9' is more than 8"),
    ({"workers": "0"}, {}, "--workers: '0' is less than 1"),
    ({}, {"GTM_GRACE": "soon"}, "GTM_GRACE: 'soon' is not a duration such as 500ms, 15s, 1m, 2h"),
    ({}, {"GTM_INSECURE": "perhaps"}, "GTM_INSECURE: 'perhaps' is neither true nor false"),
    ({"level": "LOUD"}, {}, "--level: 'LOUD' is none of INFO, DEBUG"),
    ({"limit": "some"}, {}, "--limit: 'some' is not a share such as 50% or 0.5"),
    ({"limit": "2"}, {}, "--limit: 2.0 is not a share such as 50% or 0.5"),
    ({"limit": "101%"}, {}, "--limit: '101%' is not a share such as 50% or 0.5"),
    ({"ratio": "half"}, {}, "--ratio: 'half' is not a number"),
]


@pytest.mark.parametrize(("given", "environ", "sentence"), WRONG)
def test_a_bad_value_is_one_sentence_with_its_place(
    given: dict[str, str], environ: dict[str, str], sentence: str
) -> None:
    with pytest.raises(StartError) as caught:
        load(Sample, {"region": "eu", **given}, environ)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
    assert caught.value.status == 2


FILES = [
    ("regoin: eu\n", "{file}:1: unknown setting 'regoin'; did you mean 'region'?"),
    ("region: eu\nzzz: 1\n", "{file}:2: unknown setting 'zzz'; known are region, etcd,"),
    ("region: eu\nregion: us\n", "{file}:2: region is there twice; keep one"),
    ("- a\n", "{file}: a settings file is a mapping from setting to value"),
    ("region: [a\n", "{file}:2: this is not YAML"),
    ("region: {a: b}\n", "{file}:1: region: a setting is one value or a list of values"),
    ("region: [a, b]\n", "{file}:1: region: one value is wanted here, not a list"),
    ("workers: x\nregion: eu\n", "{file}:1: workers: 'x' is not a whole number"),
]


@pytest.mark.parametrize(("text", "sentence"), FILES)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(StartError) as caught:
        load(Sample, {"settings": str(file)}, {})
    assert str(caught.value).startswith(sentence.format(file=file))
    assert caught.value.status == 2


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot read the settings file"):
        load(Sample, {"settings": str(tmp_path / "none")}, {})
    large = tmp_path / "large"
    large.write_text("#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(StartError, match="larger than"):
        load(Sample, {}, {"GTM_SETTINGS": str(large)})


def test_a_missing_setting_names_every_way_to_give_it() -> None:
    with pytest.raises(StartError) as caught:
        load(Sample, {}, {})
    assert str(caught.value) == (
        "--region is missing: give it, GTM_REGION, or the key region in a settings file "
        "(where it stands)"
    )


def test_the_help_shows_what_each_flag_means_and_its_default() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, Sample)
    text = " ".join(parser.format_help().split())
    assert "how many, at 100 % (default: 2)" in text
    assert "--no-insecure" in text
