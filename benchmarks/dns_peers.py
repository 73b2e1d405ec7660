"""The worlds of `dns_world` in the words of Debian's DNS servers, and how each is started.

Each peer writes its configuration into a folder and gives the command that serves it in the
foreground on one port of 127.0.0.1, with one thread for UDP. What a server cannot say it does not
take part in. Starts nothing.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from benchmarks import dns_world as world
from benchmarks.gdnsd_servers import hierarchy
from benchmarks.gdnsd_world import LINES, NOBODY, PLACES
from resolver.continents import CONTINENT

RECEIVE_BUFFER = 1 << 20
"""Bytes of queries that may wait: as many as gdnsd takes; its default loses some of a burst."""
ZONES = {"small": (world.PLAIN, world.WEIGHTED, world.GEO), "large": (world.MILLION,)}


def head(zone: str) -> str:
    """The records at the apex of a zone, in zone-file form."""
    return (
        f"$ORIGIN {zone}.\n$TTL {world.TTL_S}\n"
        "@ SOA ns1 hostmaster 1 7200 1800 259200 900\n@ NS ns1\nns1 A 127.0.0.1\n"
    )


def statics(zone: str) -> Iterator[str]:
    """The lines of the static names of a zone."""
    if zone == world.PLAIN:
        yield f"www A {world.static_address(0)}\n"
        yield from (f"n{n:05d} A {world.static_address(n)}\n" for n in range(world.NAMES))
    elif zone == world.MILLION:
        for number in range(world.ALL_NAMES):
            if world.rule_set(number) is None:
                yield f"n{number:06d} A {world.static_address(number)}\n"


def write_zone(folder: Path, zone: str, more: str | Iterator[str] = "") -> Path:
    """A zone file in `folder`: the apex, the static names, and what the server adds."""
    file = folder / zone
    with file.open("w") as out:
        out.write(head(zone))
        out.writelines(statics(zone))
        out.writelines(more)
    return file


class Peer(ABC):
    """A server by the name of its binary; `workloads` are those that it can serve as meant."""

    name: str
    binary: str
    package: str
    workloads: frozenset[str]
    steers: bool = True
    """Whether its answers depend on the client."""

    def found(self) -> str | None:
        """Where its binary lies; None where it is not installed."""
        return shutil.which(self.binary) or shutil.which(self.binary, path="/usr/sbin")

    def worlds(self) -> frozenset[str]:
        """The worlds in which it takes part in any workload."""
        return frozenset(one.world for one in world.WORKLOADS if one.key in self.workloads)

    @abstractmethod
    def prepare(self, folder: Path, kind: str, port: int, geo: str) -> list[str]:
        """Write the configuration of a world; the arguments of the binary that serves it."""


class Gdnsd(Peer):
    """gdnsd with its plugins weighted and geoip; the member that is down is so by admin_state."""

    name, binary, package = "gdnsd", "gdnsd", "gdnsd"
    workloads = frozenset({"static", "names", "weighted", "geo", "million"})

    def prepare(self, folder: Path, kind: str, port: int, geo: str) -> list[str]:
        for part in ("zones", "geoip", "run", "state"):
            (folder / part).mkdir()
        plugins = self._small(folder, geo) if kind == "small" else self._large(folder, geo)
        (folder / "config").write_text(
            f"""options => {{
  listen => 127.0.0.1:{port}
  run_dir => {folder}/run
  state_dir => {folder}/state
  udp_threads => 1
  tcp_threads => 1
  udp_rcvbuf => {RECEIVE_BUFFER}
}}
plugins => {{ {plugins} }}
"""
        )
        return ["-c", str(folder), "start"]

    def _small(self, folder: Path, geo: str) -> str:
        write_zone(folder / "zones", world.PLAIN)
        write_zone(folder / "zones", world.WEIGHTED, "www DYNA weighted!three\n")
        write_zone(folder / "zones", world.GEO, "www DYNA geoip!www\n")
        downs = "".join(
            f"{world.place_addresses(place)[world.DOWN - 1]}/up => DOWN\n" for place in PLACES
        )
        (folder / "state" / "admin_state").write_text(downs)
        addresses, weights = world.three()
        pools = gdnsd_pool("three", addresses, weights)
        rows = ""
        for place in PLACES:
            pools += gdnsd_pool(place, world.place_addresses(place), world.PLACE_WEIGHTS)
            rows += f' {place} => "%weighted!{place}"'
        places = ", ".join(sorted(PLACES, key=NOBODY.__ne__))
        return f"""
  weighted => {{{pools} }}
  geoip => {{
    maps => {{ all => {{
      geoip2_db => "{geo}" datacenters => [{places}] map => {{ {hierarchy()} }}
    }} }}
    resources => {{ www => {{ map => all dcmap => {{{rows} }} }} }}
  }}
"""

    def _large(self, folder: Path, geo: str) -> str:
        steered = (
            f"n{number:06d} DYNA geoip!s{at}\n"
            for number in range(world.ALL_NAMES)
            if (at := world.rule_set(number)) is not None
        )
        write_zone(folder / "zones", world.MILLION, steered)
        pools, resources = [], []
        for number in range(world.RULE_SETS):
            own = (*world.triple(number), world.ELSEWHERE)
            for place in own:
                addresses = world.set_addresses(number, place)
                pools.append(gdnsd_pool(f"s{number}-{place}", addresses, world.SET_WEIGHTS))
            rows = "".join(
                f' {place} => "%weighted!s{number}-{place if place in own else world.ELSEWHERE}"'
                for place in (world.ELSEWHERE, *world.COUNTRIES)
            )
            resources.append(f"\n    s{number} => {{ map => all dcmap => {{{rows} }} }}")
        inner: dict[str, str] = {}
        for code in world.COUNTRIES:
            inner[CONTINENT[code]] = inner.get(CONTINENT[code], "") + f" {code} => [{code}]"
        nested = " ".join(f"{code} => {{{rows} }}" for code, rows in inner.items())
        places = ", ".join((world.ELSEWHERE, *world.COUNTRIES))
        return f"""
  weighted => {{{"".join(pools)} }}
  geoip => {{
    maps => {{ all => {{
      geoip2_db => "{geo}" datacenters => [{places}]
      map => {{ default => [{world.ELSEWHERE}] {nested} }}
    }} }}
    resources => {{{"".join(resources)} }}
  }}
"""


def gdnsd_pool(name: str, addresses: tuple[str, ...], weights: tuple[int, ...]) -> str:
    """A resource of gdnsd's plugin weighted: one address by weight."""
    rows = "".join(
        f" a{n} => [{value}, {weight}]"
        for n, (value, weight) in enumerate(zip(addresses, weights, strict=True))
    )
    return f"\n    {name} => {{{rows} }}"


class Knot(Peer):
    """Knot with its module geoip: by weight, or by country (one address, for it has no health)."""

    name, binary, package = "knot", "knotd", "knot knot-module-geoip"
    workloads = frozenset({"static", "names", "weighted", "geo"})

    def prepare(self, folder: Path, kind: str, port: int, geo: str) -> list[str]:
        for part in ("zones", "run", "db"):
            (folder / part).mkdir()
        zones, nowhere = "", world.place_addresses(NOBODY)[0]  # for whom the file does not know
        for zone in ZONES[kind]:
            more = f"www A {nowhere}\n" if zone == world.GEO else ""
            file = write_zone(folder / "zones", zone, more)
            module = {world.WEIGHTED: "weighted", world.GEO: "geo"}.get(zone)
            zones += f"  - domain: {zone}\n    file: {file}\n"
            zones += f"    module: mod-geoip/{module}\n" if module else ""
        (folder / "weighted.yml").write_text(
            f"www.{world.WEIGHTED}:\n"
            + "".join(f"  - weight: {weight}\n    A: {value}\n" for value, weight in world.THREE)
        )
        (folder / "geo.yml").write_text(f"www.{world.GEO}:\n" + "".join(knot_places()))
        (folder / "knot.conf").write_text(
            f"""server:
    rundir: {folder}/run
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    edns-client-subnet: on
database:
    storage: {folder}/db
log:
  - target: stderr
    any: warning
mod-geoip:
  - id: weighted
    config-file: {folder}/weighted.yml
    ttl: {world.TTL_S}
    mode: weighted
  - id: geo
    config-file: {folder}/geo.yml
    ttl: {world.TTL_S}
    mode: geodb
    geodb-file: {geo}
    geodb-key: [continent/code, country/iso_code]
template:
  - id: default
    storage: {folder}/zones
    zonefile-load: whole
    journal-content: none
zone:
{zones}"""
        )
        return ["-c", str(folder / "knot.conf")]


def knot_places() -> Iterator[str]:
    """The places of Knot's module geoip, narrow before wide."""
    for line, place in LINES.items():
        what, _, code = line.partition(":")
        key = {"country": f"*;{code}", "continent": f"{code};*"}.get(what, "*;*")
        if what == "country":
            key = f"{CONTINENT[code]};{code}"
        yield f'  - geo: "{key}"\n    A: {world.place_addresses(place)[0]}\n'


class Nsd(Peer):
    """NSD, whose answers are made in advance; it steers nobody. Its rate limit is off."""

    name, binary, package = "nsd", "nsd", "nsd"
    workloads = frozenset({"static", "names", "million"})
    steers = False

    def prepare(self, folder: Path, kind: str, port: int, geo: str) -> list[str]:
        zones = ""
        for zone in ZONES[kind]:
            more = ""
            if zone == world.MILLION:  # what it cannot steer it answers with an address of its own
                more = "".join(
                    f"n{number:06d} A {world.set_addresses(at, world.ELSEWHERE)[0]}\n"
                    for number in range(world.ALL_NAMES)
                    if (at := world.rule_set(number)) is not None
                )
            file = write_zone(folder, zone, more)
            zones += f"zone:\n  name: {zone}\n  zonefile: {file}\n"
        (folder / "nsd.conf").write_text(
            f"""server:
  ip-address: 127.0.0.1@{port}
  server-count: 1
  username: ""
  chroot: ""
  database: ""
  zonesdir: "{folder}"
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  xfrdir: "{folder}"
  zonelistfile: "{folder}/zone.list"
  logfile: "{folder}/nsd.log"
  rrl-ratelimit: 0
remote-control:
  control-enable: no
{zones}"""
        )
        return ["-d", "-c", str(folder / "nsd.conf")]


class PowerDns(Peer):
    """PowerDNS: static names from its packet cache, weights and places by Lua records."""

    name, binary, package = (
        "pdns",
        "pdns_server",
        "pdns-server pdns-backend-bind pdns-backend-geoip",
    )
    workloads = frozenset({"static", "names", "weighted", "geo"})

    def prepare(self, folder: Path, kind: str, port: int, geo: str) -> list[str]:
        more = {world.WEIGHTED: f'www LUA A "{lua_pick(world.THREE)}"\n', world.GEO: lua_places()}
        named = ""
        for zone in ZONES[kind]:
            file = write_zone(folder, zone, more.get(zone, ""))
            named += f'zone "{zone}" {{ type master; file "{file}"; }};\n'
        (folder / "named.conf").write_text(named)
        (folder / "geo.yml").write_text("domains: []\n")
        (folder / "pdns.conf").write_text(
            f"""launch=bind,geoip
bind-config={folder}/named.conf
geoip-database-files=mmdb:{geo}
geoip-zones-file={folder}/geo.yml
enable-lua-records=yes
edns-subnet-processing=yes
local-address=127.0.0.1
local-port={port}
receiver-threads=1
distributor-threads=1
cache-ttl=3600
query-cache-ttl=3600
max-packet-cache-entries=2000000
socket-dir={folder}
daemon=no
guardian=no
disable-syslog=yes
loglevel=3
"""
        )
        return [f"--config-dir={folder}"]


def lua_pick(members: tuple[tuple[str, int], ...]) -> str:
    """One address by weight, as a Lua record says it."""
    return "pickwrandom({" + ", ".join(f"{{{w}, '{value}'}}" for value, w in members) + "})"


def lua_places() -> str:
    """The geo workload as a Lua record; the members that are down are left out."""
    rows = ""
    for line, place in LINES.items():
        what, _, code = line.partition(":")
        pairs = tuple(zip(world.place_addresses(place), world.PLACE_WEIGHTS, strict=True))
        pick = lua_pick(pairs[: world.DOWN - 1])
        rows += f"if {what}('{code}') then return {pick} end; " if code else f"return {pick}"
    return f'www LUA A ";{rows}"\n'


PEERS: tuple[Peer, ...] = (Gdnsd(), Knot(), Nsd(), PowerDns())
