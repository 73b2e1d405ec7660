"""A geo file put in place of another, whole or not at all, by the check that resolvers make."""

from __future__ import annotations

import contextlib
import hashlib
import os
from fractions import Fraction
from pathlib import Path

from gtm.errors import StartError
from resolver.geo_files import ACCEPTED
from resolver.locate import Atlas, BrokenFile, Database
from resolver.moves import Moves, moves
from resolver.snapshot import write

from .client import AnswerNo

MODE = 0o644
"""Of the files that are written: resolvers may run as other users."""


def install(new: str, path: str, limit: Fraction, *, force: bool = False) -> Moves | None:
    """Put `new` in place of `path`; what moves by it, None where nothing sound was there before.

    AnswerNo where more than `limit` moves without `force`; StartError 2 where `new` is no sound
    file, 1 where it can't be written. With `force` the digest of `new` goes to `path`.accepted
    before, so that resolvers take it whatever it moves; without, such a file goes.
    """
    fresh = _opened(new)
    moved = None
    with contextlib.suppress(BrokenFile):
        moved = moves(Atlas((Database(path),)).geography, Atlas((fresh,)).geography)
    why = moved.excess(limit) if moved is not None else ""
    if why and not force:
        raise AnswerNo(
            f"{new} is not installed: {why}; see gtm geo diff {path} {new}, "
            "and add --force if that is right"
        )
    data = Path(new).read_bytes()
    if hashlib.sha256(data).hexdigest() != fresh.digest:
        raise StartError(f"{new} changed while it was read; try again when it is whole")
    accepted = Path(path + ACCEPTED)
    try:
        if force:
            write(accepted, (f"{fresh.digest}\n".encode(),), MODE)
        write(Path(os.path.realpath(path)), (data,), MODE)
        if not force:
            accepted.unlink(missing_ok=True)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror or error}") from error
    return moved


def _opened(path: str) -> Database:
    try:
        return Database(path)
    except BrokenFile as error:
        raise StartError(f"{error.reason}; name a sound one", 2) from None
