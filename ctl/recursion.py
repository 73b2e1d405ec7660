"""A recursive resolver that we did not write, and the servers above ours: for the demo and tests.

Runs unbound several times on loopback, from configurations of its own in a folder of its own: as
the servers of the root, `com` and `example.com`, and as the resolver that clients ask. Where port
53 can be had, the resolver knows the root alone and follows delegations down to ours; where it
can't be (a delegation has no port), it is told each zone's server and port.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from gtm.errors import StartError

from .digs import Question, ask, free_port, poll

DNS_PORT = 53
START_S = 10.0
"""For an unbound to answer."""
STOP_S = 5.0
"""From SIGTERM to SIGKILL."""
CNAME_TTL_S = 3600
"""Of everything above the access name."""
LOG_LINES = 3
"""Lines of an unbound's log in an error's sentence."""
_TRIES = 20

# `nodefault`: unbound answers for some reserved names itself (RFC 6761) unless told not to.
_SERVER = """\
server:
  directory: "{folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  do-ip6: no
  interface: {host}@{port}
  access-control: 127.0.0.0/8 allow
  local-zone: "test." nodefault
  log-queries: yes
remote-control:
  control-enable: no
"""
_AUTHORITY = """\
server:
  module-config: "iterator"
auth-zone:
  name: "{zone}"
  zonefile: "{file}"
  for-downstream: yes
  for-upstream: no
"""
_RESOLVER = """\
server:
  module-config: "subnetcache iterator"
  client-subnet-zone: "{zone}"
  client-subnet-always-forward: yes
  max-client-subnet-ipv4: 24
  do-not-query-localhost: no
  use-caps-for-id: yes
  qname-minimisation: yes
"""
_ASKED = re.compile(r"info: 127\.[0-9.]+ (\S+) ([A-Z0-9]+) IN$", re.MULTILINE)
_STUB = """\
stub-zone:
  name: "{zone}"
  stub-addr: {host}@{port}
"""


class Place(Struct, frozen=True):
    """Where a server answers."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class World(Struct, frozen=True):
    """Who serves what: the zones above ours, our resolvers, and the recursive resolver.

    `delegated` says that all of them have port 53, so that the root is all that need be known.
    """

    delegated: bool
    root: Place
    com: Place
    example: Place
    ours: Place
    recursive: Place

    @classmethod
    def found(cls) -> World:
        """Loopback addresses with port 53 free, else free high ports; `ours` still has no server.

        `ours` has room for a second resolver on the next port.
        """
        dice = random.SystemRandom()
        for _ in range(_TRIES):
            network = f"127.53.{dice.randrange(256)}"
            hosts = [f"{network}.{number}" for number in range(1, 6)]
            if all(_free(host, DNS_PORT) for host in hosts) and _free(hosts[3], DNS_PORT + 1):
                return cls(True, *(Place(host, DNS_PORT) for host in hosts))
        ports = [free_port(count=2) for _ in range(5)]
        return cls(False, *(Place("127.0.0.1", port) for port in ports))

    def told(self, access: str) -> str:
        """Who serves what, in a line for people."""
        how = (
            "by delegation" if self.delegated else "each told to unbound: port 53 is not ours here"
        )
        return (
            f"root {self.root}, com {self.com}, example.com {self.example}, "
            f"{access.partition('.')[2]} {self.ours}; {how}"
        )

    def zones(self, name: str, access: str) -> dict[str, tuple[Place, str]]:
        """The servers above ours and their zones' text: `name` is a CNAME to `access`."""
        ours = access.partition(".")[2]
        tops = {
            "": [
                "com. NS a.gtld.com.",
                f"a.gtld.com. A {self.com.host}",
                f"{ours}. NS ns1.{ours}.",
                f"ns1.{ours}. A {self.ours.host}",
            ],
            "com": [
                f"a.gtld.com. A {self.com.host}",
                "example.com. NS ns1.example.com.",
                f"ns1.example.com. A {self.example.host}",
            ],
            "example.com": [
                f"ns1.example.com. A {self.example.host}",
                f"{name}. CNAME {access}.",
            ],
        }
        servers = {"": "a.root.", "com": "a.gtld.com.", "example.com": "ns1.example.com."}
        tops[""].append(f"a.root. A {self.root.host}")
        return {
            zone: (
                place,
                _zone_text(zone, [f"{zone}. NS {servers[zone]}", *tops[zone]], servers[zone]),
            )
            for zone, place in zip(tops, (self.root, self.com, self.example), strict=True)
        }


class Recursion:
    """`with Recursion(folder, world, NAME, ACCESS):` answers at `world.recursive`.

    It sends the client's network (ECS, at most /24) to the servers of the access zone alone, takes
    over the one that its own client sent, mixes the case of names (0x20) and minimises them.
    Entering raises StartError with what unbound said.
    """

    def __init__(self, folder: Path, world: World, name: str, access: str) -> None:
        self.world = world
        self._folder, self._name, self._access = folder, name, access
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as running:
            for zone, (place, text) in self.world.zones(self._name, self._access).items():
                called = zone or "root"
                folder = self._folder / called
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "zone").write_text(text)
                more = _AUTHORITY.format(zone=zone or ".", file="zone")
                running.enter_context(_Unbound(folder, place, more, f"{zone}.", "SOA"))
            folder = self._folder / "recursive"
            folder.mkdir(parents=True, exist_ok=True)
            more = self._resolver(folder)
            running.enter_context(
                _Unbound(folder, self.world.recursive, more, "example.com.", "NS")
            )
            self._running = running.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.__exit__(kind, error, trace)

    def asked(self, zone: str) -> tuple[str, ...]:
        """The questions (`name. TYPE`) that the server of a zone above ours got, in order."""
        text = (self._folder / (zone or "root") / "log").read_text(errors="replace")
        return tuple(f"{found[1].lower()} {found[2]}" for found in _ASKED.finditer(text))

    def _resolver(self, folder: Path) -> str:
        world, ours = self.world, self._access.partition(".")[2]
        text = _RESOLVER.format(zone=ours)
        if world.delegated:
            (folder / "hints").write_text(
                f". {CNAME_TTL_S} NS a.root.\na.root. {CNAME_TTL_S} A {world.root.host}\n"
            )
            return f"{text}  root-hints: hints\n"
        places = {".": world.root, "com": world.com, "example.com": world.example, ours: world.ours}
        stubs = (_STUB.format(zone=zone, host=at.host, port=at.port) for zone, at in places.items())
        return text + "".join(stubs)


class _Unbound:
    """One unbound, which answers `qname` `qtype` when it is entered."""

    def __init__(self, folder: Path, place: Place, more: str, qname: str, qtype: str) -> None:
        self._place, self._log = place, folder / "log"
        self._question = Question(qname, qtype=qtype, recurse=True)
        config = folder / "unbound.conf"
        config.write_text(_SERVER.format(folder=folder, host=place.host, port=place.port) + more)
        tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        self._command = [*tied, program() or "unbound", "-d", "-p", "-c", str(config)]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        began = time.monotonic()
        try:
            while poll(self._answers, 0.0) is None:
                status = self._process.poll()
                if status is not None:
                    raise StartError(f"unbound ended with status {status}: {self._last()}")
                if time.monotonic() - began > START_S:
                    raise StartError(f"unbound at {self._place} does not answer: {self._last()}")
                time.sleep(0.02)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        return ask(str(self._place), self._question, timeout_s=0.5, tries=1).rcode == "NOERROR"

    def _last(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-LOG_LINES:]) or "it said nothing"


def program() -> str:
    """The path of unbound, "" where it is not installed."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    return shutil.which("unbound", path=path) or ""


def _zone_text(zone: str, records: list[str], server: str) -> str:
    soa = f"{zone}. SOA {server} hostmaster.{zone + '.' if zone else ''} 1 3600 600 86400 30"
    lines = (line.replace(" ", f" {CNAME_TTL_S} IN ", 1) for line in (soa, *records))
    return "\n".join(lines) + "\n"


def _free(host: str, port: int) -> bool:
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(type=kind) as probe:
                probe.bind((host, port))
    except OSError:
        return False
    return True
