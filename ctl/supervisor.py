"""Parts as child processes: started, watched, restarted with back-off, stopped.

Until `settle` the first child that ends raises its own sentence; afterwards one that ends is
started again. Knows nothing of what the children do. A child's log goes to a file of bounded size;
its warnings are told as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from gtm.errors import StartError
from gtm.settings import unset

from .supervised import GATE, PARENT

MAX_LOG_BYTES = 4 << 20
"""Of one log file; the one before it is kept as `.log.1`."""
MAX_LINE_BYTES = 1 << 16
"""Of one line of a child's log; of a longer one its end is kept at most."""
MAX_TOLD = 20
"""Warnings of one child that are told in `TOLD_WINDOW_S`; the log has all."""
TOLD_WINDOW_S = 10.0
BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 30.0
LIVED_S = 60.0
"""A child that lived this long starts its back-off anew."""
DRAIN_S = 0.5
"""For the last lines of a child that ended."""
STOP_S = 5.0
"""From SIGTERM to SIGKILL."""


class Part(Struct, frozen=True, kw_only=True):
    """One child: its name, the arguments after `gtm`, and what its environment has besides ours."""

    name: str
    arguments: tuple[str, ...]
    environ: Mapping[str, str] = {}


class LogFile:
    """A child's log, cut into two files of at most `MAX_LOG_BYTES`."""

    def __init__(self, path: Path, most: int = MAX_LOG_BYTES) -> None:
        self._path = path
        self._most = most
        self._file = path.open("ab", 0)  # a buffer would keep what a full disk refused
        self._size = self._file.tell()

    def write(self, line: bytes) -> None:
        """Append one line; a full disk loses lines, not the child."""
        with contextlib.suppress(OSError):
            if self._size + len(line) > self._most:
                self._begin()
            self._file.write(line)
        self._size += len(line)

    def _begin(self) -> None:
        """Begin the next file; OSError, and the present one stays, where that can't be."""
        with contextlib.suppress(FileNotFoundError):  # where the last attempt got that far
            self._path.replace(self._path.with_suffix(".log.1"))
        file = self._path.open("wb", 0)
        self._file.close()
        self._file, self._size = file, 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Child:
    """One supervised process and its restarts."""

    def __init__(self, part: Part, directory: Path, tell: Callable[[str], None]) -> None:
        self.part = part
        self.gate = asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None
        self.restarts = 0
        self._log = LogFile(directory / "logs" / f"{part.name}.log")
        self._pid_file = directory / "run" / f"{part.name}.pid"
        self._tell = tell
        self.quiet = False
        self._told: list[float] = []
        self._last = ""

    async def once(self) -> int:
        """Start the process and wait for its end; the exit status (negative: a signal)."""
        environ = unset(os.environ)
        environ |= self.part.environ
        environ |= {PARENT: str(os.getpid()), GATE: "1"}
        self._last = ""
        # Pipes of our own: asyncio's would keep `wait` until grandchildren had closed them too.
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            gate, opener = _pipe(theirs, ours)
            lines, stderr = _pipe(ours, theirs)
            self.process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ctl", *self.part.arguments,
                stdin=gate,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                env=environ,
                start_new_session=True,
            )  # fmt: skip
            ours.pop_all()
        self._note(process.pid)
        tasks = [asyncio.create_task(self._open(opener)), asyncio.create_task(self._read(lines))]
        try:
            status = await process.wait()
            await asyncio.wait(tasks[1:], timeout=DRAIN_S)
            return status
        finally:
            for task in tasks:
                task.cancel()
            os.close(opener)
            with contextlib.suppress(OSError):
                self._pid_file.unlink(missing_ok=True)

    def _note(self, pid: int) -> None:
        """Leave the process id for people; a disk that takes no file costs that alone."""
        try:
            self._pid_file.write_text(f"{pid}\n")
        except OSError as error:
            self._say(f"{self.part.name}: cannot write {self._pid_file} ({error.strerror})")

    async def _open(self, opener: int) -> None:
        await self.gate.wait()
        with contextlib.suppress(OSError):
            os.write(opener, b"go\n")

    async def _read(self, lines: int) -> None:
        reader = asyncio.StreamReader(MAX_LINE_BYTES)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(lines, "rb", 0)
        )
        try:
            while True:
                try:
                    line = await reader.readline()
                except ValueError:
                    continue  # longer than MAX_LINE_BYTES
                if not line:
                    return
                self._log.write(line)
                self._last = line.decode(errors="replace").strip() or self._last
                if not self.quiet and (warning := warning_of(line)):
                    self._say(f"{self.part.name}: {warning}")
        finally:
            pipe.close()

    def _say(self, text: str) -> None:
        now = time.monotonic()
        self._told = [at for at in self._told if now - at < TOLD_WINDOW_S]
        if len(self._told) < MAX_TOLD:
            self._told.append(now)
            more = " (further ones stand in its log)" if len(self._told) == MAX_TOLD else ""
            self._tell(text + more)

    def sentence(self) -> str:
        """The last thing that the child said, without the command's prefix."""
        return self._last.removeprefix("gtm: ") or "it said nothing"

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is a process to take it."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
                if number is not signal.SIGKILL:  # a stopped process takes no other signal
                    self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Close the log."""
        self._log.close()


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """A new pipe, whose ends those two close."""
    read, write = os.pipe()
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write


class Supervisor:
    """All children of one `gtm up`."""

    def __init__(self, directory: Path, tell: Callable[[str], None]) -> None:
        for name in ("logs", "run"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._tell = tell
        self._children: dict[str, Child] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settled = False
        self._stopping = False

    def start(self, part: Part) -> Child:
        """Start a part behind its gate; `child.gate.set()` lets it run."""
        child = Child(part, self._directory, self._tell)
        self._children[part.name] = child
        self._tasks.append(asyncio.create_task(self._keep(child)))
        return child

    def settle(self) -> None:
        """From now on a child that ends is started again."""
        self._settled = True

    async def broken(self) -> None:
        """Wait for a child's end before `settle`; raises its StartError."""
        await asyncio.shield(self._broken)

    async def _keep(self, child: Child) -> None:
        backoff_s = BACKOFF_FIRST_S
        while True:
            began = time.monotonic()
            try:
                status, sentence = await child.once(), child.sentence()
            except OSError as error:  # no process, no descriptor, no program
                status, sentence = 1, f"{child.part.name} cannot be started: {error.strerror}"
                told = sentence
            else:
                how = f"signal {-status}" if status < 0 else f"status {status}: {sentence}"
                pid = child.process.pid if child.process else 0
                told = f"{child.part.name} (pid {pid}) ended with {how}"
            if self._stopping:
                return
            if not self._settled:
                if not self._broken.done():
                    status = status if status in (1, 2, 3) else 1
                    self._broken.set_exception(StartError(sentence, status))
                return
            if time.monotonic() - began >= LIVED_S:
                backoff_s = BACKOFF_FIRST_S
            self._tell(f"{told}; again in {backoff_s:g} s")
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)
            child.restarts += 1

    def kill(self) -> None:
        """End every child at once."""
        self._stopping = True
        for child in self._children.values():
            child.send(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM to all, then SIGKILL to who is left after `STOP_S`."""
        self._stopping = True
        for child in self._children.values():
            child.quiet = True  # what it says of its own end is no news
            child.send(signal.SIGTERM)
        pending = [task for task in self._tasks if not task.done()]
        for child, task in zip(self._children.values(), self._tasks, strict=True):
            process = child.process
            if process is None or process.returncode is not None:
                task.cancel()  # between two lives
        if pending:
            _, late = await asyncio.wait(pending, timeout=STOP_S)
            for child in self._children.values():
                child.send(signal.SIGKILL)
            if late:
                await asyncio.wait(late, timeout=STOP_S)
        for child in self._children.values():
            child.close()
        if self._broken.done():
            self._broken.exception()  # told, or of no interest any more


def warning_of(line: bytes) -> str:
    """What a line of a part's JSON log warns of; "" for all other lines."""
    try:
        entry = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(entry, dict) or entry.get("level") not in ("warning", "error", "critical"):
        return ""
    known = ("time", "level", "part", "event", "cause")
    fields = " ".join(f"{key}={value}" for key, value in entry.items() if key not in known)
    cause = str(entry.get("cause", "")).strip().rpartition("\n")[2]
    return " ".join(part for part in (str(entry.get("event", "")), fields, cause) if part)
