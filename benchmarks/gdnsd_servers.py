"""Our resolver and gdnsd behind sockets, set up to say the same. Judges nothing they say."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dns.message  # noqa: E402

from benchmarks.gdnsd_world import LINES, NAMES, NETS, NOBODY, PLACES, WEIGHTS, ZONE  # noqa: E402
from gtm import codec, keys  # noqa: E402
from gtm.memory import MemoryStore  # noqa: E402
from gtm.model import Instance, Rule, Steering, Tier  # noqa: E402
from gtm.state import Member, PoolState, StoredZone  # noqa: E402
from gtm.store import Put  # noqa: E402
from resolver.continents import CONTINENT  # noqa: E402
from resolver.part import serve  # noqa: E402
from resolver.settings import Settings  # noqa: E402


def free_port() -> int:
    """A UDP port of loopback that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def serve_ours(port: int, file: str) -> None:
    """The whole resolver over a store in memory, with the pools of every place up."""

    def rule(number: int, lines: list[str], pool: str) -> Rule:
        return Rule(name=f"r{number}", lines=tuple(lines), tiers=(Tier(pools=(pool,)),))

    ops = [Put(keys.config("zones", ZONE), codec.encode(StoredZone(nameservers=(f"ns1.{ZONE}",))))]
    makers = {name.weighted: name for name in NAMES}.values()
    for name, place in itertools.product(makers, PLACES):
        weights = WEIGHTS if name.weighted else (1, 1)
        state = PoolState(
            type="ipv4",
            steering=Steering(type="weighted" if name.weighted else "round_robin"),
            max_answers=1 if name.weighted else 8,
            members=tuple(
                Member(value=value, weight=weight, answered=True, counted=True)
                for value, weight in zip(name.addresses(place), weights, strict=True)
            ),
        )
        ops.append(Put(keys.pool(name.pool(place)), codec.encode(state)))
    for number, name in enumerate(NAMES):
        rows: list[tuple[list[str], str]] = []
        if name.nets:
            rows += [([f"network:{net}"], place) for net, place in NETS.items()]
        if not name.steered:
            rows.append((["default"], NOBODY))
        elif name.split:
            rows += [([line], place) for line, place in LINES.items()]
        else:
            together = defaultdict(list)
            for line, place in LINES.items():
                together[place].append(line)
            rows += [(lines, place) for place, lines in together.items()]
        made = Instance(
            id=f"gtm{number:08d}",
            zone=ZONE,
            access_names=(f"{name.label}.{ZONE}",),
            rules=tuple(rule(n, lines, name.pool(place)) for n, (lines, place) in enumerate(rows)),
        )
        ops.append(Put(keys.config("instances", name.label), codec.encode(made)))
    store = MemoryStore()
    await store.txn((), ops)
    settings = Settings(
        listen=(f"127.0.0.1:{port}",), http="127.0.0.1:0", data_dir="", coordinators=(), geo=(file,)
    )
    await serve(settings, store, asyncio.Event())


def hierarchy() -> str:
    """`LINES` as gdnsd nests them: countries within their continents."""
    inner: dict[str, list[str]] = {code: [] for code in CONTINENT.values()}
    for line, place in LINES.items():
        kind, _, code = line.partition(":")
        if kind == "country":
            inner[CONTINENT[code]].append(f"{code} => [{place}]")
        elif kind == "continent":
            inner[code].append(f"default => [{place}]")
    nested = " ".join(f"{code} => {{ {' '.join(rows)} }}" for code, rows in inner.items() if rows)
    return f"default => [{LINES['default']}] {nested}"


def gdnsd_folder(folder: Path, port: int, file: str) -> Path:
    """A configuration of gdnsd that says the same."""
    nets = " ".join(f"{net} => [{place}]" for net, place in NETS.items())
    maps = "".join(
        f"""
        {name} => {{
          geoip2_db => "{file}"
          datacenters => [{", ".join(sorted(PLACES, key=NOBODY.__ne__))}]
          map => {{ {hierarchy()} }}
          {more}
        }}"""
        for name, more in (("plain", ""), ("own", f"nets => {{ {nets} }}"))
    )
    resources, pools, zone = "", "", "@ SOA ns1 hostmaster 1 7200 1800 259200 900\n@ NS ns1\n"
    zone += "ns1 A 127.0.0.1\n"
    for name in NAMES:
        rows = ""
        for place in PLACES:
            values = name.addresses(place)
            if name.weighted:
                one = "".join(
                    f" a{n} => [{value}, {weight}]"
                    for n, (value, weight) in enumerate(zip(values, WEIGHTS, strict=True))
                )
                pools += f"\n{name.label}-{place} => {{{one} }}"
                rows += f' {place} => "%weighted!{name.label}-{place}"'
            else:
                rows += f" {place} => [{', '.join(values)}]"
        if name.steered:
            resources += f"""
        {name.label} => {{
          map => {"own" if name.nets else "plain"}
          dcmap => {{{rows} }}
        }}"""
        kind = f"geoip!{name.label}" if name.steered else f"weighted!{name.label}-{NOBODY}"
        zone += f"{name.label} 60 DYNA {kind}\n"
    for part in ("zones", "geoip", "run", "state"):
        (folder / part).mkdir()
    (folder / "zones" / ZONE).write_text(zone)
    (folder / "config").write_text(
        f"""options => {{
  listen => 127.0.0.1:{port}
  run_dir => {folder}/run
  state_dir => {folder}/state
  udp_threads => 1
  tcp_threads => 1
}}
plugins => {{
  weighted => {{ {pools} }}
  geoip => {{ maps => {{{maps} }} resources => {{{resources} }} }}
}}
"""
    )
    return folder


def ended(process: subprocess.Popen[bytes], within_s: float = 10) -> None:
    """End a process, by force where it does not go by itself in time."""
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[socket.socket]:
    """A socket connected to the server that `command` starts, once it answers."""
    with log.open("wb") as out, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            sock.connect(("127.0.0.1", port))
            sock.settimeout(0.5)
            deadline = time.monotonic() + 60
            while True:
                try:
                    sock.send(dns.message.make_query(f"www.{ZONE}", "A").to_wire())
                    if dns.message.from_wire(sock.recv(4096)).answer:
                        break
                except OSError:
                    time.sleep(0.1)
                if process.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text(errors="replace")[-2000:]
                    raise SystemExit(f"{command[0]} does not answer:\n{said}")
            sock.settimeout(2)
            yield sock
        finally:
            ended(process)


@contextlib.contextmanager
def servers(file: Path) -> Iterator[dict[str, socket.socket]]:
    """Both servers, by name."""
    binary = shutil.which("gdnsd") or shutil.which("gdnsd", path="/usr/sbin")
    if binary is None:
        print("gdnsd is not installed (Debian: gdnsd)", file=sys.stderr)
        raise SystemExit(2)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port = free_port()
        ours = [
            sys.executable,
            os.path.abspath(__file__),
            str(port),
            str(file),
        ]
        found = {"ours": stack.enter_context(running(ours, port, folder / "ours.log"))}
        port = free_port()
        (folder / "gdnsd").mkdir()
        made = gdnsd_folder(folder / "gdnsd", port, str(file))
        theirs = [binary, "-c", str(made), "start"]
        found["gdnsd"] = stack.enter_context(running(theirs, port, folder / "gdnsd.log"))
        yield found


if __name__ == "__main__":
    asyncio.run(serve_ours(int(sys.argv[1]), sys.argv[2]))
