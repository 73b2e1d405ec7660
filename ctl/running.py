"""A `gtm up` of one's own on free ports, as a subprocess: for the demo, benchmarks and tests.

Ends with whoever started it, even if that is killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gtm.errors import StartError
from gtm.settings import unset

from .beside import FOLDER, know, operator
from .digs import free_port
from .ground import Ports, dns_address
from .supervised import PARENT

READY_S = 60.0
"""For `ready`."""
STOP_S = 15.0
"""For the end of everything after SIGTERM."""
PORT_TRIES = 100


class Running:
    """`with Running(folder, config=PATH) as running:` is a system that has said `ready`.

    `server` is its first coordinator, `servers` are all of them, `dns` its resolvers (the first at
    `at`, HOST:PORT, where given); data, logs and `up.log` lie in `folder`.
    Entering raises StartError with what `gtm up` said.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: Path | None = None,
        regions: Sequence[str] = (),
        resolvers: int = 2,
        coordinators: int = 1,
        geo: Sequence[str] = (),
        at: str = "",
        more: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        ports = free_ports(max(len(regions), 3), resolvers, at, coordinators)
        self.server = ports.grpc
        self.servers = ports.all_grpc
        if "--insecure" not in more:
            for server in self.servers:
                know(server, operator(self.data / FOLDER))
        self.environ = {"GTM_SERVER": ports.grpc, "GTM_DATA_DIR": str(self.data)}
        """Variables by which a command finds it."""
        self.http = ports.http
        self.ports = ports
        self.dns = tuple(ports.dns(number) for number in range(resolvers))
        self.output = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._arguments = [
            "up",
            f"--data-dir={self.data}",
            f"--base-port={ports.base}",
            f"--dns={ports.dns(0)}",
            f"--resolvers={resolvers}",
            f"--coordinators={coordinators}",
            *([f"--regions={','.join(regions)}"] if regions else []),
            *([f"--config={config}"] if config else []),
            *([f"--geo={','.join(geo)}"] if geo else []),
            *more,
        ]

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait for `ready`."""
        environ = unset(os.environ)
        environ[PARENT] = str(os.getpid())
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ctl", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        try:
            self._wait_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it in order; by force where that takes too long."""
        process = self._process
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            try:
                process.wait(STOP_S)
                break
            except subprocess.TimeoutExpired:
                continue
        if process.stdout is not None:
            process.stdout.close()

    def pid(self, part: str) -> int:
        """The process id of a part (`coordinator`, `agent-r1`, `resolver-1`); 0 without one."""
        try:
            return int((self.data / "run" / f"{part}.pid").read_text())
        except (OSError, ValueError):
            return 0

    @property
    def up_pid(self) -> int:
        """The process id of `gtm up` itself; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    def told(self) -> str:
        """What it said on stderr so far."""
        return (self.folder / "up.log").read_text(errors="replace")

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.output = ""
        deadline = time.monotonic() + READY_S
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if not selector.select(timeout=0.1):
                    continue
                # Not readline: a line that waits in its buffer would never wake the selector.
                told = os.read(process.stdout.fileno(), 65536)
                self.output += told.decode(errors="replace")
                if "ready" in self.output.splitlines():
                    return
                if not told:
                    status = process.wait()
                    raise StartError(f"gtm up ended with status {status}: {self._last()}")
        raise StartError(f"gtm up was not ready after {READY_S:g} s: {self._last()}")

    def _last(self) -> str:
        lines = self.told().strip().splitlines()
        return lines[-1].removeprefix("gtm: ") if lines else "it said nothing"


def free_ports(regions: int, resolvers: int, at: str = "", coordinators: int = 1) -> Ports:
    """Ports that are all free now, far from the defaults; StartError where none are found.

    DNS begins `at` HOST:PORT where that is given.
    """
    dice = random.SystemRandom()
    for left in reversed(range(PORT_TRIES)):
        host, port = dns_address(at) if at else ("127.0.0.1", free_port(count=resolvers))
        ports = Ports(
            base=dice.randrange(10_000, 30_000),
            regions=regions,
            resolvers=resolvers,
            dns_host=host,
            dns_port=port,
            coordinators=coordinators,
        )
        try:
            ports.check(embedded=True)
        except StartError:
            if not left:
                raise
        else:
            return ports
    raise AssertionError("unreachable")
