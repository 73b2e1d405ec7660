"""The digest of the native responder's sources: which sources a built module was made from.

`native/build.rs` reckons the same when the module is compiled, so that `loader` can tell a module
of other sources. Imports the standard library alone: `setup.py` runs it before anything is there.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "native"
"""Where a checkout has the crate."""
PACKED = HERE / "native.digest"
"""Where an installed package has the digest that its build wrote."""

_ALONE = ("Cargo.lock", "Cargo.toml", "build.rs")
_TREE = "src"


def digest(crate: Path) -> str:
    """SHA-256 in hexadecimal over the sources in `crate`, names included; OSError if unreadable.

    They are `Cargo.lock`, `Cargo.toml`, `build.rs` and every file under `src` that is not hidden.
    """
    paths = [crate / name for name in _ALONE]
    waiting = [crate / _TREE]
    while waiting:
        for path in waiting.pop().iterdir():
            if not path.name.startswith("."):
                (waiting if path.is_dir() else paths).append(path)
    hashed = sha256()
    for name, path in sorted((path.relative_to(crate).as_posix(), path) for path in paths):
        held = path.read_bytes()
        hashed.update(f"{name}\0{len(held)}\0".encode())
        hashed.update(held)
    return hashed.hexdigest()


def expected(crate: Path = SOURCES, packed: Path = PACKED) -> str:
    """The digest that a module has to bear here: that of the sources, else the packed one.

    "" where neither is there, or cannot be read.
    """
    try:
        if (crate / "Cargo.toml").exists():
            return digest(crate)
        return packed.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
