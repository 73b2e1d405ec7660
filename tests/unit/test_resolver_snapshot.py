"""The snapshot on disk: whole or refused, written beside and renamed, at most once in a while."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gtm.errors import StartError
from gtm.store import Item
from resolver import snapshot as module
from resolver.snapshot import (
    ROWS,
    SnapshotRefused,
    SnapshotWriter,
    chunks,
    load,
    prepared,
    write,
)


def items(number: int) -> tuple[Item, ...]:
    return tuple(
        Item(f"/gtm/v1/serve/pools/{index}", bytes([index % 256]) * (index % 7), index, index + 1)
        for index in range(number)
    )


async def until(condition: Callable[[], object], deadline_s: float = 5.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("number", [0, 1, ROWS, ROWS + 1, 3 * ROWS])
def test_what_is_written_is_read(tmp_path: Path, number: int) -> None:
    path = tmp_path / "deep" / "r.snapshot"
    write(path, chunks(42, items(number), 1234.5))
    got = load(path)
    assert got is not None
    assert got.written == 1234.5
    assert got.listing.revision == 42
    assert got.listing.items == items(number)
    assert [one.name for one in path.parent.iterdir()] == ["r.snapshot"]


def test_no_file_is_no_snapshot(tmp_path: Path) -> None:
    assert load(tmp_path / "none") is None


def test_every_flipped_byte_and_every_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.snapshot"
    write(path, chunks(42, items(3), 1234.5))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(SnapshotRefused):
            load(path)
        path.write_bytes(whole[:at])
        with pytest.raises(SnapshotRefused):
            load(path)


def test_a_file_that_counts_wrong_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.snapshot"

    class Short(tuple[Item, ...]):
        def __len__(self) -> int:
            return 5

    write(path, chunks(42, Short(items(3)), 1234.5))
    with pytest.raises(SnapshotRefused, match="3 of 5 keys"):
        load(path)


def test_a_file_beyond_the_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.snapshot"
    write(path, chunks(42, items(3), 1234.5))
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(SnapshotRefused, match="larger"):
        load(path)


def test_a_write_that_breaks_leaves_the_last_file(tmp_path: Path) -> None:
    path = tmp_path / "r.snapshot"
    write(path, chunks(1, items(1), 1.0))

    def broken() -> Sequence[bytes]:
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write(path, broken())
    got = load(path)
    assert got is not None
    assert got.listing.revision == 1
    assert [one.name for one in tmp_path.iterdir()] == ["r.snapshot"]


def test_a_folder_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"cannot write in .*file/deep: .*--data-dir"):
        prepared(str(tmp_path / "file" / "deep"), "r1")


def test_a_disk_without_room_at_the_start_is_told_and_tried_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    path = prepared(str(tmp_path), "r1")
    assert path == tmp_path / "r1.snapshot"
    assert "snapshot cannot be written" in caplog.text


def test_an_id_makes_a_file_name_whatever_it_holds(tmp_path: Path) -> None:
    assert prepared(str(tmp_path), "../r 1").parent == tmp_path


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    path = prepared(str(tmp_path), "r1")
    write(path, chunks(1, items(1), 1.0))
    (tmp_path / f".{path.name}.half").write_bytes(b"half")
    (tmp_path / ".r2.snapshot.half").write_bytes(b"of another")
    assert prepared(str(tmp_path), "r1") == path
    assert {one.name for one in tmp_path.iterdir()} == {"r1.snapshot", ".r2.snapshot.half"}


class Source:
    """A state that grows; counts how often it was asked for."""

    def __init__(self) -> None:
        self.revision, self.asked, self.good = 0, 0, True

    def __call__(self) -> tuple[int, Sequence[Item]] | None:
        self.asked += 1
        return (self.revision, items(2)) if self.good else None


async def test_changes_are_written_soon_and_together(tmp_path: Path) -> None:
    source = Source()
    writer = SnapshotWriter(tmp_path / "r.snapshot", source)
    task = asyncio.ensure_future(writer.run())
    source.revision = 1
    writer.changed()
    await until(lambda: writer.written_revision == 1)
    for revision in range(2, 50):
        source.revision = revision
        writer.changed()
        await asyncio.sleep(0)
    assert source.asked == 1
    writer.close()
    await task
    assert writer.written_revision == 49
    assert source.asked == 2
    got = load(writer.path)
    assert got is not None
    assert got.listing.revision == 49


async def test_nothing_new_writes_nothing_at_the_end(tmp_path: Path) -> None:
    source = Source()
    writer = SnapshotWriter(tmp_path / "r.snapshot", source)
    task = asyncio.ensure_future(writer.run())
    writer.close()
    await task
    assert source.asked == 0
    assert not writer.path.exists()


async def test_while_nothing_good_is_in_force_the_last_file_stays(tmp_path: Path) -> None:
    source = Source()
    source.good = False
    writer = SnapshotWriter(tmp_path / "r.snapshot", source)
    task = asyncio.ensure_future(writer.run())
    writer.changed()
    await until(lambda: source.asked == 1)
    assert not writer.path.exists()
    writer.close()
    await task


async def test_a_disk_that_refuses_is_counted_told_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MIN_PERIOD_S", 0.01)
    folder = tmp_path / "folder"
    folder.write_text("a file where the folder should be")
    writer = SnapshotWriter(folder / "r.snapshot", Source())
    task = asyncio.ensure_future(writer.run())
    with caplog.at_level(logging.INFO, "resolver"):
        writer.changed()
        await until(lambda: writer.errors >= 3)
        folder.unlink()
        await until((folder / "r.snapshot").exists)
        writer.close()
        await task
    events = [record.getMessage() for record in caplog.records]
    assert events == ["snapshot cannot be written", "snapshot is written again"]
