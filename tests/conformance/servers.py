"""The servers under comparison: ours as its command starts it, Knot and BIND as Debian has them.

Nothing of ours is imported but what starts `gtm up`. All serve the same zones (`zones`) on loopback
and on high ports; none needs privileges, and all end with whoever started them.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rdatatype

from ctl.running import Running
from tests.conformance.zones import NAMES, configuration, master

HOST = "127.0.0.1"
READY_S = 30.0
PAYLOAD = 1232
"""The EDNS buffer of all of them (ours by default)."""

KNOT = """\
server:
    rundir: {folder}
    listen: {host}@{port}
    udp-max-payload: {payload}
    tcp-workers: 1
    udp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: {folder}
control:
    listen: {folder}/knot.sock
template:
  - id: default
    storage: {folder}
    file: "%s.zone"
    journal-content: none
    zonefile-load: whole
    zonefile-sync: -1
zone:
"""

BIND = """\
options {{
    directory "{folder}";
    listen-on port {port} {{ {host}; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    session-keyfile none;
    lock-file none;
    recursion no;
    allow-transfer {{ none; }};
    notify no;
    dnssec-validation no;
    minimal-responses yes;
    minimal-any yes;
    edns-udp-size {payload};
    max-udp-size {payload};
    version none;
    hostname none;
    max-records-per-type 0;
    check-integrity no;
    check-names primary ignore;
}};
controls {{ }};
logging {{
    channel errors {{ stderr; severity warning; }};
    category default {{ errors; }};
}};
"""


class Server:
    """A server that answers: its name, its port on `HOST`, and the words of its version."""

    def __init__(self, name: str, port: int, version: str = "") -> None:
        self.name, self.port, self.version = name, port, version


def free_port() -> int:
    """A port that is free for UDP and TCP now."""
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(33_000, 60_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                stack.enter_context(socket.socket(type=kind)).bind((HOST, port))
            return port


def missing() -> list[str]:
    """What the comparison lacks here, with its package in Debian."""
    wanted = {"knotd": "knot", "named": "bind9"}
    return [f"{name} ({debian})" for name, debian in wanted.items() if not shutil.which(name)]


def serial_of(port: int, zone: str) -> int:
    """The serial that a server has for a zone; 0 where it does not answer with authority."""
    try:
        query = dns.message.make_query(zone, "SOA")
        reply = dns.query.udp(query, HOST, port=port, timeout=1)
    except (OSError, dns.exception.DNSException):
        return 0
    if not reply.flags & dns.flags.AA or not reply.answer:
        return 0
    return int(reply.answer[0][0].serial)


@contextlib.contextmanager
def ours(folder: Path, **more: object) -> Iterator[Server]:
    """`gtm up` with the zones and `more` resources (`configuration`), one resolver, one agent."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "zones.yaml"
    config.write_text(configuration(**more))
    with Running(folder / "up", config=config, regions=("r1",), resolvers=1) as running:
        yield Server("ours", int(running.dns[0].rpartition(":")[2]))


@contextlib.contextmanager
def knot(folder: Path, serials: Mapping[str, int]) -> Iterator[Server]:
    """Knot with the zones."""
    port = free_port()
    _masters(folder, serials)
    text = KNOT.format(folder=folder, host=HOST, port=port, payload=PAYLOAD)
    (folder / "knot.conf").write_text(text + "".join(f"  - domain: {name}\n" for name in NAMES))
    version = _output("knotd", "-V")
    with _started(folder, "knotd", "-c", str(folder / "knot.conf")):
        _await(folder, port, serials)
        yield Server("knot", port, version)


@contextlib.contextmanager
def bind(folder: Path, serials: Mapping[str, int]) -> Iterator[Server]:
    """BIND with the zones."""
    port = free_port()
    _masters(folder, serials)
    text = BIND.format(folder=folder, host=HOST, port=port, payload=PAYLOAD)
    for name in NAMES:
        text += f'zone "{name}" {{ type primary; file "{name}.zone"; }};\n'
    (folder / "named.conf").write_text(text)
    version = _output("named", "-v")
    with _started(folder, "named", "-g", "-4", "-n", "1", "-c", str(folder / "named.conf")):
        _await(folder, port, serials)
        yield Server("bind", port, version)


def _masters(folder: Path, serials: Mapping[str, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, serial in serials.items():
        (folder / f"{name}.zone").write_text(master(name, serial))


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.partition("\n")[0].strip()


@contextlib.contextmanager
def _started(folder: Path, *command: str) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(folder: Path, port: int, serials: Mapping[str, int]) -> None:
    deadline = time.monotonic() + READY_S
    while any(serial_of(port, name) != serial for name, serial in serials.items()):
        if time.monotonic() > deadline:
            raise AssertionError(f"no answers from {folder.name}: {(folder / 'log').read_text()}")
        time.sleep(0.05)


class Client:
    """Asks one server with bytes and gives bytes: UDP from one socket, TCP on one connection."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._udp = socket.socket(type=socket.SOCK_DGRAM)
        self._udp.connect((HOST, server.port))
        self._udp.settimeout(3)
        self._tcp: socket.socket | None = None

    def close(self) -> None:
        """Close both."""
        self._udp.close()
        if self._tcp is not None:
            self._tcp.close()

    def ask(self, query: bytes, *, tcp: bool) -> bytes:
        """The answer's bytes; raises OSError after three silences."""
        for left in (2, 1, 0):
            try:
                return self._over_tcp(query) if tcp else self._over_udp(query)
            except OSError:
                if tcp and self._tcp is not None:  # it was idle for too long
                    self._tcp.close()
                    self._tcp = None
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _over_udp(self, query: bytes) -> bytes:
        self._udp.send(query)
        while (answer := self._udp.recv(65535))[:2] != query[:2]:
            pass  # the late answer to an earlier question
        return answer

    def _over_tcp(self, query: bytes) -> bytes:
        if self._tcp is None:
            self._tcp = socket.create_connection((HOST, self.server.port), timeout=3)
        self._tcp.sendall(struct.pack(">H", len(query)) + query)
        (length,) = struct.unpack(">H", self._read(2))
        return self._read(length)

    def _read(self, size: int) -> bytes:
        assert self._tcp is not None
        data = b""
        while len(data) < size:
            more = self._tcp.recv(size - len(data))
            if not more:
                raise ConnectionResetError("the server ended the connection")
            data += more
        return data
