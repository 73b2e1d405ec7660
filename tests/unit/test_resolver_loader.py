"""Whether the native responder is used: each value of GTM_NATIVE, each state of the module."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from gtm.errors import StartError
from resolver.handover import VERSION
from resolver.loader import native
from resolver.native_digest import SOURCES, digest, expected

FILES = {
    "Cargo.toml": "[package]",
    "Cargo.lock": "version = 3",
    "build.rs": "fn main() {}",
    "src/lib.rs": "pub mod wire;",
    "src/deep/wire.rs": "",
}
# of FILES, by `printf` and `sha256sum`
DIGEST = "8bb8c440c9190a93e4e32de865a86e02a5c852863974532556906da08c2eac15"
WRONG = {
    "not built": "it is not built",
    "broken": "it does not load (file too short)",
    "other sources": "it was built from other sources (000000000000, not ",
    "no digest": "its build was not optimised, or says not what it was built from",
    "other tables": f"it reads tables of version {VERSION + 1}, not {VERSION}",
    "no version": f"it reads tables of version None, not {VERSION}",
}


@pytest.fixture
def crate(tmp_path: Path) -> Path:
    root = tmp_path / "native"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def module(own: str, version: int | None = VERSION) -> ModuleType:
    made = ModuleType("resolver._native")
    made.__dict__["DIGEST"] = own
    if version is not None:
        made.__dict__["TABLE_VERSION"] = version
    return made


def loading(state: str, crate: Path) -> Callable[[], ModuleType]:
    """What importing the module does in a state that `WRONG` names, or where it is "right"."""

    def load() -> ModuleType:
        match state:
            case "not built":
                raise ModuleNotFoundError("No module named 'resolver._native'")
            case "broken":
                raise ImportError("file too short")
            case "other sources":
                return module("0" * 64)
            case "no digest":
                return module("")
            case "other tables":
                return module(digest(crate), VERSION + 1)
            case "no version":
                return module(digest(crate), None)
        return module(digest(crate))

    return load


@pytest.mark.parametrize("environ", [{}, {"GTM_NATIVE": ""}, {"GTM_NATIVE": "require"}])
def test_a_module_of_the_sources_beside_it_is_used(environ: dict[str, str], crate: Path) -> None:
    used = native(environ, loading("right", crate), crate)
    assert used is not None
    assert digest(crate) == used.DIGEST


@pytest.mark.parametrize(("state", "problem"), WRONG.items())
def test_any_other_is_left_out_with_one_line_that_says_what_to_do(
    state: str, problem: str, crate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "resolver"):
        assert native({}, loading(state, crate), crate) is None
    [line] = caplog.records
    assert line.fields["cause"].startswith(problem)  # type: ignore[attr-defined]
    assert line.fields["mend"] == "run `make native`"  # type: ignore[attr-defined]
    assert line.levelno == (logging.INFO if state == "not built" else logging.WARNING)


@pytest.mark.parametrize(("state", "problem"), WRONG.items())
def test_any_other_ends_the_start_where_one_is_required(
    state: str, problem: str, crate: Path
) -> None:
    with pytest.raises(StartError, match="run `make native`") as caught:
        native({"GTM_NATIVE": "require"}, loading(state, crate), crate)
    assert problem in str(caught.value)
    assert caught.value.status == 1


def test_off_looks_at_nothing(crate: Path, caplog: pytest.LogCaptureFixture) -> None:
    def load() -> ModuleType:
        raise AssertionError("it was loaded")

    with caplog.at_level(logging.DEBUG, "resolver"):
        assert native({"GTM_NATIVE": "off"}, load, crate) is None
    assert caplog.records == []


@pytest.mark.parametrize("value", ["on", "OFF", "0", "required", " "])
def test_a_value_that_means_nothing_is_wrong_use(value: str, crate: Path) -> None:
    with pytest.raises(StartError, match="GTM_NATIVE") as caught:
        native({"GTM_NATIVE": value}, loading("right", crate), crate)
    assert caught.value.status == 2


def test_an_installed_module_is_held_against_the_digest_packed_with_it(tmp_path: Path) -> None:
    packed, crate = tmp_path / "native.digest", tmp_path / "none"
    right, required = "5" * 64, {"GTM_NATIVE": "require"}
    packed.write_text(right + "\n")
    assert native(required, lambda: module(right), crate, packed) is not None
    with pytest.raises(StartError, match=r"other sources .* install again where cargo is"):
        native(required, lambda: module("6" * 64), crate, packed)
    packed.unlink()
    with pytest.raises(StartError, match="nothing here says what it should be built from"):
        native(required, lambda: module(right), crate, packed)


def test_sources_go_before_a_packed_digest_and_sources_cut_short_fit_nothing(
    crate: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "native.digest"
    packed.write_text("5" * 64)
    assert expected(crate, packed) == DIGEST
    (crate / "build.rs").unlink()
    assert expected(crate, packed) == ""


@pytest.mark.parametrize(
    ("path", "text"),
    [*((name, "changed") for name in FILES), ("src/new.rs", ""), ("src/data.bin", "")],
)
def test_every_source_counts(path: str, text: str, crate: Path) -> None:
    (crate / path).write_text(text)
    assert digest(crate) != DIGEST


def test_names_count_and_what_is_built_or_hidden_does_not(crate: Path) -> None:
    (crate / "target").mkdir()
    (crate / "target/lib.rs").write_text("built")
    (crate / "src/.lib.rs.swp").write_text("an editor's")
    (crate / "rustfmt.toml").write_text("")
    assert digest(crate) == DIGEST
    (crate / "src/deep/wire.rs").rename(crate / "src/deep/wires.rs")
    assert digest(crate) != DIGEST


@pytest.mark.skipif(os.environ.get("GTM_NATIVE") != "require", reason="nothing is built")
def test_rust_and_python_reckon_the_same_digest() -> None:
    assert digest(SOURCES) == import_module("resolver._native").DIGEST
