"""The raw state under `serve/` on disk, so that a resolver can start without etcd.

Decides the file's form and when it is written; never what the state means. The file is whole or
refused: it is written beside its place, synced, renamed, and carries a checksum.

    "gtm snapshot 1\\n"   chunk   chunk   ...   0x00000000   sha256 of all before
    chunk: length (4 bytes, big endian), MessagePack of a list of rows; the first is the Header
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec
from msgspec import Struct

from gtm.errors import GtmError, StartError
from gtm.store import Item, Listing
from gtm.telemetry import transition

MAGIC = b"gtm snapshot 1\n"
ROWS = 1_000
"""Rows in one chunk: encoding one takes well under a millisecond, so that answers go on."""
MAX_BYTES = 4 << 30
"""The largest file that is read; etcd's own quota is no larger."""
MIN_PERIOD_S = 1.0
"""Least time between two writes."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a disk without room says; it may have some later."""
UNWRITTEN = "snapshot cannot be written"
WORK_SHARE = 10
"""A write that took t seconds is followed by at least t times this without one."""

_log = logging.getLogger("resolver")


class Header(Struct, frozen=True, array_like=True):
    """What the rows are: their revision and number, and the Unix time of writing, for show."""

    revision: int
    rows: int
    written: float


class Row(Struct, frozen=True, array_like=True):
    """One key as the store had it."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int


class SnapshotRefused(GtmError):
    """A snapshot is not whole or can't be read; the text says why."""


class Snapshot(Struct, frozen=True):
    """A snapshot as read: the listing and the Unix time at which it was written."""

    listing: Listing
    written: float


def chunks(revision: int, items: Sequence[Item], written: float) -> Iterator[bytes]:
    """The bytes of a snapshot, in pieces that are quick to make."""
    encoder = msgspec.msgpack.Encoder()
    digest = hashlib.sha256()

    def framed(rows: object) -> bytes:
        body = encoder.encode(rows)
        return len(body).to_bytes(4, "big") + body

    def pieces() -> Iterator[bytes]:
        yield MAGIC
        yield framed(Header(revision, len(items), written))
        rows = (Row(one.key, one.value, one.create_revision, one.mod_revision) for one in items)
        while some := list(islice(rows, ROWS)):
            yield framed(some)
        yield bytes(4)

    for piece in pieces():
        digest.update(piece)
        yield piece
    yield digest.digest()


def write(path: Path, parts: Iterable[bytes], mode: int = 0o600) -> None:
    """Put `parts` in the place of `path`, all or nothing, and on the disk when it returns.

    `mode` is who may read it. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> Snapshot | None:
    """The snapshot at `path`, None where there is none. Raises SnapshotRefused."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SnapshotRefused(f"it is larger than {MAX_BYTES} bytes")
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SnapshotRefused(f"it cannot be read: {error.strerror}") from error
    body, digest = memoryview(data)[:-32], data[-32:]
    if not data.startswith(MAGIC):
        raise SnapshotRefused("it is no snapshot of this version")
    if hashlib.sha256(body).digest() != digest:
        raise SnapshotRefused("its checksum is wrong")
    try:
        return _decoded(body)
    except (msgspec.MsgspecError, StopIteration) as error:
        raise SnapshotRefused(f"it cannot be decoded: {error}") from error


def _decoded(body: memoryview) -> Snapshot:
    frames = _frames(body)
    header = msgspec.msgpack.decode(next(frames), type=Header)
    decoder = msgspec.msgpack.Decoder(list[Row])
    items = tuple(
        Item(row.key, row.value, row.create_revision, row.mod_revision)
        for frame in frames
        for row in decoder.decode(frame)
    )
    if len(items) != header.rows:
        raise SnapshotRefused(f"it holds {len(items)} of {header.rows} keys")
    return Snapshot(Listing(header.revision, items), header.written)


def _frames(body: memoryview) -> Iterator[memoryview]:
    at = len(MAGIC)
    while size := int.from_bytes(body[at : at + 4], "big"):
        yield body[at + 4 : at + 4 + size]
        at += 4 + size


def prepared(data_dir: str, resolver_id: str) -> Path:
    """Where the snapshot of a resolver lies; StartError where nothing can ever be written there.

    A disk that is full now is told, and no reason not to answer.
    """
    folder = Path(data_dir)
    safe = "".join(one if one.isalnum() or one in "-_." else "_" for one in resolver_id)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno not in FULL:
            raise StartError(
                f"cannot write in {folder}: {error.strerror}; choose another folder with --data-dir"
            ) from error
        transition(_log, UNWRITTEN, logging.ERROR, path=folder, cause=error.strerror)
    path = folder / f"{safe}.snapshot"
    for left in folder.glob(f".{path.name}.*"):  # by a process that was killed while it wrote
        with contextlib.suppress(OSError):
            left.unlink()
    return path


class SnapshotWriter:
    """Keeps the file at `path` close to what `source` says, off the loop.

    `source` gives the revision and items to write, or None while there is nothing good to write.
    """

    def __init__(self, path: Path, source: Callable[[], tuple[int, Sequence[Item]] | None]) -> None:
        self.path = path
        self.errors = 0
        self.written_revision = 0
        self._source = source
        self._dirty = False
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._failing = False

    def changed(self) -> None:
        """Say that there is something new to write."""
        self._dirty = True
        self._wake.set()

    def leave(self) -> None:
        """Write no more: the file is somebody else's now."""
        self._source = lambda: None
        self.close()

    def close(self) -> None:
        """Let `run` write what is left and end."""
        self._closing.set()
        self._wake.set()

    async def run(self) -> None:
        """Write whenever something changed, at most once in a while, until it is closed."""
        while not self._closing.is_set():
            await self._wake.wait()
            self._wake.clear()
            took_s = await self._flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(MIN_PERIOD_S, took_s * WORK_SHARE)):
                    await self._closing.wait()
        await self._flush()

    async def _flush(self) -> float:
        """Write now if something changed; the seconds that it took. Errors are counted and told."""
        state = self._source() if self._dirty else None
        self._dirty = False
        if state is None:
            return 0.0
        revision, items = state
        begun = time.monotonic()
        try:
            await asyncio.to_thread(write, self.path, chunks(revision, items, time.time()))
        except OSError as error:
            self._failed(error)
        else:
            self.written_revision = revision
            if self._failing:
                self._failing = False
                transition(_log, "snapshot is written again", path=self.path)
        return time.monotonic() - begun

    def _failed(self, error: OSError) -> None:
        self.errors += 1
        self.changed()
        if not self._failing:
            self._failing = True
            transition(
                _log,
                UNWRITTEN,
                logging.ERROR,
                path=self.path,
                cause=error.strerror,
            )
