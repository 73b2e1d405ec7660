"""What is installed where cargo is missing, and where it fails: by stand-ins for cargo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PLACE = "resolver/_native.abi3.so"
FAILS = "#!/bin/sh\necho 'error: no such trait' >&2\nexit 101\n"
BUILDS = """#!/bin/sh
mkdir -p native/target/release
echo "built: $*" >native/target/release/lib_native.so
"""
RUSTC = "#!/bin/sh\necho 'rustc 1.90.0 (1159e78c4 2025-09-14)'\n"


class Checkout:
    """A copy of what is built, and a PATH that has the system's programs but no Rust."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self._bin = folder / "bin"
        self._bin.mkdir()
        for name in ("sh", "dirname", "mktemp", "rm", "cp", "mv", "chmod", "cmp", "mkdir", "cat"):
            found = shutil.which(name)
            assert found is not None, name
            (self._bin / name).symlink_to(found)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        packages = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]}
        ignored = shutil.ignore_patterns("__pycache__", "target", "_native*.so")
        for name in (*packages, "native"):
            shutil.copytree(ROOT / name, self.root / name, ignore=ignored)
        (self.root / "deploy").mkdir()
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "deploy/build-native"):
            shutil.copy(ROOT / name, self.root / name)

    def program(self, name: str, text: str) -> None:
        """Put a program on the PATH."""
        (self._bin / name).write_text(text)
        (self._bin / name).chmod(0o755)

    def left_behind(self, folder: str = "") -> Path:
        """A module that an earlier build left in `folder`."""
        path = self.root / folder / PLACE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("an earlier build's")
        return path

    def run(self, *command: str, native: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        environ = {key: text for key, text in os.environ.items() if not key.startswith("CARGO")}
        return subprocess.run(
            command,
            cwd=self.root,
            env=environ | {"PATH": str(self._bin), "GTM_NATIVE": native},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def wheel(self) -> subprocess.CompletedProcess[str]:
        """Build a wheel with what is installed here."""
        return self.run(
            sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps",
            "--no-build-isolation", "--wheel-dir=wheels", ".",
        )  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    yield Checkout(tmp_path)
    shutil.rmtree(tmp_path)


def names_of_the_natives(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as held:
        return {name for name in held.namelist() if "/_native" in name or "native." in name}


def libraries(checkout: Checkout) -> list[Path]:
    """Where setuptools gathers what it packs."""
    return list((checkout.root / "build").glob("lib*"))


def test_without_cargo_the_wheel_has_no_module_nor_one_of_an_earlier_build(
    checkout: Checkout,
) -> None:
    checkout.left_behind()
    assert checkout.wheel().returncode == 0
    [library] = libraries(checkout)
    checkout.left_behind(str(library.relative_to(checkout.root)))
    done = checkout.wheel()
    assert done.returncode == 0, done.stderr
    [wheel] = (checkout.root / "wheels").iterdir()
    assert names_of_the_natives(wheel) == {"resolver/_native.pyi", "resolver/native.py"}


def test_where_cargo_fails_nothing_is_installed(checkout: Checkout) -> None:
    checkout.program("cargo", FAILS)
    checkout.program("rustc", RUSTC)
    done = checkout.wheel()
    assert done.returncode != 0
    assert "no such trait" in done.stdout + done.stderr
    assert list((checkout.root / "wheels").glob("*")) == []


def test_make_native_builds_optimised_with_the_locked_versions_and_puts_it_in_place(
    checkout: Checkout,
) -> None:
    checkout.program("cargo", BUILDS)
    done = checkout.run("deploy/build-native")
    assert done.returncode == 0, done.stderr
    built = (checkout.root / PLACE).read_text()
    assert "--release" in built
    assert "--locked" in built
    assert [path.name for path in (checkout.root / "resolver").glob("*.so")] == ["_native.abi3.so"]


def test_make_native_leaves_a_module_that_is_the_same_as_it_is(checkout: Checkout) -> None:
    checkout.program("cargo", BUILDS)
    checkout.run("deploy/build-native")
    before = (checkout.root / PLACE).stat().st_ino
    checkout.run("deploy/build-native")
    assert (checkout.root / PLACE).stat().st_ino == before


def test_a_clean_build_begins_with_nothing(checkout: Checkout) -> None:
    checkout.program("cargo", BUILDS)
    old = checkout.root / "native/target/release/deps"
    old.mkdir(parents=True)
    assert checkout.run("deploy/build-native", "--clean").returncode == 0
    assert not old.exists()


@pytest.mark.parametrize(
    ("cargo", "native", "status", "stays"),
    [
        ("missing", "", 0, False),
        ("missing", "require", 1, False),
        ("fails", "", 1, False),
        ("fails", "off", 0, True),
        ("missing", "off", 0, True),
    ],
)
def test_make_native_never_leaves_an_earlier_module_where_it_was_to_build_one(
    cargo: str, native: str, status: int, stays: bool, checkout: Checkout
) -> None:
    if cargo == "fails":
        checkout.program("cargo", FAILS)
    place = checkout.left_behind()
    done = checkout.run("deploy/build-native", native=native)
    assert done.returncode == status, done.stderr
    assert place.exists() is stays
    assert len(list(place.parent.glob("_native*.so"))) == stays
