"""An event loop whose time is virtual, and machines on it that can stand still or die.

Nothing here waits: when nothing is ready the clock jumps to the next timer. Every handle belongs to
the machine in whose context it was made; those of one that stands still are kept for later (a
stopped process), those of a dead one are dropped (`kill -9`). Knows nothing of what runs on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import random
import sys
import time
from asyncio import base_events
from collections import deque
from collections.abc import Coroutine, Iterator
from typing import Any

WALL_S = 1_800_000_000.0
"""Unix time at the virtual instant 0."""
PARTS = ("gtm", "agent", "coordinator", "resolver")


class Deadlock(Exception):
    """Nothing is ready and no timer is set."""


class Machine:
    """Where code runs: its wall clock is its own, its monotonic one has a zero of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.wall_off_s = 0.0
        self.frozen = False
        self.dead = False
        self.parked: deque[asyncio.Handle] = deque()
        self.tasks: dict[asyncio.Task[Any], None] = {}


MACHINE: contextvars.ContextVar[Machine | None] = contextvars.ContextVar("machine", default=None)


class VirtualLoop(base_events.BaseEventLoop):
    """One thread, no sockets, no real time."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self.steps = 0
        self._due: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers = self._cancelled = 0
        self.set_task_factory(self._made)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def spawn(self, machine: Machine, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` on a machine."""
        context = contextvars.copy_context()
        context.run(MACHINE.set, machine)
        return self.create_task(work, context=context)

    def freeze(self, machine: Machine) -> None:
        """Stop a machine (SIGSTOP)."""
        machine.frozen = True

    def thaw(self, machine: Machine) -> None:
        """Let it go on (SIGCONT)."""
        machine.frozen = False
        self._ready.extend(machine.parked)
        machine.parked.clear()

    def kill(self, machine: Machine) -> None:
        """Nothing of it runs any more; its tasks are kept, so that none ends by being collected."""
        machine.dead = True
        machine.parked.clear()

    def _made(self, loop: Any, work: Any, **more: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, **more)
        machine = more["context"].get(MACHINE) if more.get("context") else MACHINE.get()
        if machine is not None:
            machine.tasks[task] = None
            task.add_done_callback(lambda done: machine.tasks.pop(done, None))
        return task

    # ---- what BaseEventLoop asks for -------------------------------------------------------------

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        """Run it then. Timers of the same instant run in the order in which they were set."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers += 1
        heapq.heappush(self._due, (when, self._timers, timer))
        return timer

    def _run_once(self) -> None:
        due, ready = self._due, self._ready
        while due and due[0][2]._cancelled:
            heapq.heappop(due)
        if not ready:
            if not due:
                raise Deadlock
            self._now = max(self._now, due[0][0])
        while due and due[0][0] <= self._now:
            timer = heapq.heappop(due)[2]
            if not timer._cancelled:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            machine = handle._context.get(MACHINE)
            if machine is not None:
                if machine.dead:
                    continue
                if machine.frozen:
                    machine.parked.append(handle)
                    continue
            self.steps += 1
            handle._run()

    def _timer_handle_cancelled(self, handle: Any) -> None:
        self._cancelled += 1
        if self._cancelled > 1_000 and 2 * self._cancelled > len(self._due):
            self._due = [one for one in self._due if not one[2]._cancelled]
            heapq.heapify(self._due)
            self._cancelled = 0

    def _process_events(self, events: Any) -> None:
        return

    def _write_to_self(self) -> None:
        return

    def run_in_executor(self, *_: Any) -> Any:
        """Threads would end determinism."""
        raise RuntimeError("no threads in a simulation")


class Clock:
    """Stands for the module `time` in every part: the loop's time, the machine's wall clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.time()

    def perf_counter(self) -> float:
        return self._loop.time()

    def monotonic_ns(self) -> int:
        return int(self._loop.time() * 1e9)

    def time(self) -> float:
        machine = MACHINE.get()
        return WALL_S + self._loop.time() + (machine.wall_off_s if machine else 0.0)


@contextlib.contextmanager
def in_place(loop: VirtualLoop, dice: random.Random, **more: Any) -> Iterator[None]:
    """Every part reads `loop`'s clock and rolls `dice`; `more` maps "module:name" to a value."""
    former: list[tuple[Any, str, Any]] = []

    def put(module: Any, name: str, value: Any) -> None:
        former.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    clock = Clock(loop)
    try:
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in PARTS:
                if getattr(module, "time", None) is time:
                    put(module, "time", clock)
                if getattr(module, "random", None) is random:
                    put(module, "random", dice)
        for place, value in more.items():
            module, _, name = place.partition(":")
            put(sys.modules[module], name, value)
        yield
    finally:
        for module, name, value in reversed(former):
            setattr(module, name, value)
