"""Children under supervision: gates, restarts, logs of bounded size, told warnings, a clean end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ctl import supervisor as module
from ctl.supervisor import MAX_LINE_BYTES, MAX_TOLD, LogFile, Part, Supervisor, warning_of
from gtm.errors import StartError

CHILD = """\
import json, os, signal, sys, time
from ctl.supervised import follow_parent, wait_gate
follow_parent(os.environ)
print("before the gate", file=sys.stderr, flush=True)
wait_gate()
print("through the gate", file=sys.stderr, flush=True)
mode = sys.argv[1]
if mode == "fail":
    print("gtm: no such place: choose another", file=sys.stderr)
    sys.exit(2)
if mode == "warn":
    for n in range(int(sys.argv[2])):
        print(json.dumps({"level": "warning", "event": f"w{n}"}), file=sys.stderr)
if mode == "long":
    print("x" * int(sys.argv[2]), file=sys.stderr)
    print(json.dumps({"level": "error", "event": "after"}), file=sys.stderr, flush=True)
if mode == "grandchild" and os.fork() == 0:
    time.sleep(60)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("settled", file=sys.stderr, flush=True)
time.sleep(60)
"""
DEADLINE_S = 20.0


class Watched:
    """A supervisor of scripted children, what it told, and its directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.supervisor = Supervisor(folder, self.told.append)

    def log(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text()

    def pid(self, name: str) -> int:
        return int((self.folder / "run" / f"{name}.pid").read_text())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    script = tmp_path / "child.sh"
    program = tmp_path / "child.py"
    program.write_text(CHILD)
    script.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" "{program}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(script))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(module, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(module, "STOP_S", 1.0)
    watched = Watched(tmp_path / "data")
    yield watched
    watched.supervisor.kill()
    await watched.supervisor.stop()


async def test_a_child_waits_at_its_gate(watched: Watched) -> None:
    child = watched.supervisor.start(Part(name="a", arguments=("run",)))
    await until(lambda: "before the gate" in watched.log("a"))
    assert "through the gate" not in watched.log("a")
    child.gate.set()
    await until(lambda: "settled" in watched.log("a"))


async def test_before_settle_the_first_end_raises_the_childs_own_sentence(
    watched: Watched,
) -> None:
    watched.supervisor.start(Part(name="a", arguments=("fail",))).gate.set()
    with pytest.raises(StartError, match=r"^no such place: choose another$") as caught:
        await watched.supervisor.broken()
    assert caught.value.status == 2


async def test_after_settle_a_killed_child_is_started_again_and_that_is_told(
    watched: Watched,
) -> None:
    child = watched.supervisor.start(Part(name="a", arguments=("run",)))
    child.gate.set()
    await until(lambda: "settled" in watched.log("a"))
    watched.supervisor.settle()
    first = watched.pid("a")
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.restarts == 1 and watched.log("a").count("settled") == 2)
    assert watched.pid("a") != first
    assert watched.told == [f"a (pid {first}) ended with signal 9; again in 0.01 s"]


async def test_a_grandchild_that_holds_the_log_does_not_hide_the_childs_end(
    watched: Watched,
) -> None:
    child = watched.supervisor.start(Part(name="a", arguments=("grandchild",)))
    child.gate.set()
    await until(lambda: "settled" in watched.log("a"))
    watched.supervisor.settle()
    began = time.monotonic()
    os.kill(watched.pid("a"), signal.SIGKILL)
    await until(lambda: child.restarts == 1)
    assert time.monotonic() - began < 10


async def test_back_off_doubles_up_to_its_bound(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_MOST_S", 0.03)
    watched.supervisor.settle()
    watched.supervisor.start(Part(name="a", arguments=("fail",))).gate.set()
    await until(lambda: len(watched.told) >= 4)
    waits = [text.rpartition("again in ")[2] for text in watched.told[:4]]
    assert waits == ["0.01 s", "0.02 s", "0.03 s", "0.03 s"]
    assert "status 2: no such place: choose another" in watched.told[0]


async def test_warnings_are_told_up_to_a_bound(watched: Watched) -> None:
    arguments = ("warn", str(MAX_TOLD + 5))
    watched.supervisor.start(Part(name="a", arguments=arguments)).gate.set()
    await until(lambda: "settled" in watched.log("a"))
    assert len(watched.told) == MAX_TOLD
    assert watched.told[0] == "a: w0"
    assert watched.told[-1] == f"a: w{MAX_TOLD - 1} (further ones stand in its log)"
    assert f"w{MAX_TOLD + 4}" in watched.log("a")


async def test_of_a_line_longer_than_the_bound_little_is_kept_and_the_next_is_read(
    watched: Watched,
) -> None:
    arguments = ("long", str(MAX_LINE_BYTES * 3))
    watched.supervisor.start(Part(name="a", arguments=arguments)).gate.set()
    await until(lambda: "settled" in watched.log("a"))
    assert "a: after" in watched.told
    assert len(watched.log("a")) < 2 * MAX_LINE_BYTES


async def test_stop_ends_a_child_that_ignores_sigterm_and_one_that_is_stopped(
    watched: Watched,
) -> None:
    for name in ("stubborn", "stopped"):
        watched.supervisor.start(Part(name=name, arguments=(name,))).gate.set()
    await until(lambda: all("settled" in watched.log(one) for one in ("stubborn", "stopped")))
    pids = [watched.pid("stubborn"), watched.pid("stopped")]
    os.kill(pids[1], signal.SIGSTOP)
    await watched.supervisor.stop()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert list((watched.folder / "run").iterdir()) == []


async def test_children_do_not_inherit_our_settings_but_those_of_the_machine(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GTM_REGION", "elsewhere")
    monkeypatch.setenv("GTM_NATIVE", "off")
    part = Part(name="a", arguments=("run",), environ={"GTM_ETCD_PASSWORD": "secret"})
    watched.supervisor.start(part).gate.set()
    await until(lambda: "settled" in watched.log("a"))
    environ = Path(f"/proc/{watched.pid('a')}/environ").read_bytes()
    assert b"GTM_REGION" not in environ
    assert b"GTM_NATIVE=off" in environ
    assert b"GTM_ETCD_PASSWORD=secret" in environ


async def test_a_disk_that_takes_no_file_does_not_keep_a_killed_child_from_its_next_life(
    watched: Watched,
) -> None:
    child = watched.supervisor.start(Part(name="a", arguments=("stay",)))
    child.gate.set()
    await until(lambda: "settled" in watched.log("a"))
    watched.supervisor.settle()
    run = watched.folder / "run"
    (run / "a.pid").unlink()
    run.rmdir()
    run.write_text("in the way\n")
    assert child.process is not None
    os.kill(child.process.pid, signal.SIGKILL)
    await until(lambda: watched.log("a").count("settled") == 2)
    assert any("a: cannot write" in told for told in watched.told)
    os.kill(child.process.pid, signal.SIGKILL)
    await until(lambda: watched.log("a").count("settled") == 3)


async def test_a_child_that_cannot_be_started_again_now_is_tried_later(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = watched.supervisor.start(Part(name="a", arguments=("stay",)))
    child.gate.set()
    await until(lambda: "settled" in watched.log("a"))
    watched.supervisor.settle()
    program = module.sys.executable
    monkeypatch.setattr(module.sys, "executable", str(watched.folder / "nowhere"))
    assert child.process is not None
    os.kill(child.process.pid, signal.SIGKILL)
    await until(lambda: any("a cannot be started" in told for told in watched.told))
    monkeypatch.setattr(module.sys, "executable", program)
    await until(lambda: watched.log("a").count("settled") == 2)


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.symlink_to("/dev/full")
    log = LogFile(path, most=100)
    log.write(b"x" * 60)
    log.write(b"y" * 60)  # begins the next file, which has room
    log.write(b"z" * 10)
    log.close()
    assert path.read_bytes() == b"y" * 60 + b"z" * 10
    path.unlink()
    path.symlink_to("/dev/full")
    log = LogFile(path)
    log.write(b"lost\n")
    log.close()


def test_a_log_is_cut_into_two_files_of_bounded_size(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", most=100)
    for number in range(50):
        log.write(f"line {number:03}\n".encode())
    log.close()
    newest, older = (tmp_path / "a.log").read_bytes(), (tmp_path / "a.log.1").read_bytes()
    assert len(newest) <= 100
    assert len(older) <= 100
    assert newest.endswith(b"line 049\n")
    again = LogFile(tmp_path / "a.log", most=100)
    again.write(b"more\n")
    again.close()
    assert (tmp_path / "a.log").read_bytes() == newest + b"more\n"


LINES = [
    ({"level": "info", "event": "ready"}, ""),
    ({"level": "warning", "event": "lost", "part": "agent", "why": "gone"}, "lost why=gone"),
    ({"level": "error", "event": "x", "cause": "Trace\nValueError: y"}, "x ValueError: y"),
    (["level"], ""),
]


@pytest.mark.parametrize(("entry", "told"), LINES)
def test_a_warning_is_told_with_its_fields_and_the_last_line_of_its_cause(
    entry: object, told: str
) -> None:
    assert warning_of(json.dumps(entry).encode()) == told
    assert warning_of(b"not JSON") == ""
