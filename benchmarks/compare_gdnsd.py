"""Our answers and scopes beside gdnsd's: same zone, same country file, same weights.

Run `make compare-gdnsd` where gdnsd is installed. Both servers get the same random client prefixes
by ECS (RFC 7871) from one client. A third opinion, computed from the file alone, says what the
answer should be and how wide it holds; it explains differences, never hides them. Exit code 1 where
anything is unexplained, 2 where it cannot run. IPv4 clients only.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import contextlib
import hashlib
import ipaddress
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dns.edns
import dns.message
import dns.rdatatype

ROOT = Path(__file__).resolve().parent.parent
ZONE = "cmp.test"
MIX = ((24, 5), (32, 3), (16, 1), (8, 1))
"""Source prefix lengths of the clients, and how often each."""
NOBODY = "world"
COUNTRIES = {"CN": "cn", "DE": "de", "US": "us"}
"""Countries with a place of their own, whatever their continent has."""
CONTINENTS = {"AS": "as", "EU": "eu", "NA": "na", "OC": "as"}
"""Continents with a place; two of them share one, so that unlike records lead to one answer."""
CONTINENT_OF = {"CN": "AS", "DE": "EU", "US": "NA"}
PLACES = {name: n for n, name in enumerate(("as", "cn", "de", "eu", "na", "us", NOBODY), 1)}
NETS = {"8.0.0.0/6": "eu", "9.9.9.0/24": "us"}
"""Own networks that precede the country file, one within another."""
WEIGHTS = (3, 1)
CHI_SQUARE_LIMIT = 19.5
"""One degree of freedom: a fair draw exceeds it once in 100,000 runs."""


@dataclass(frozen=True)
class Name:
    """A name under comparison: its addresses at a place, and whether `NETS` come first."""

    label: str
    about: str
    nets: bool = False
    weighted: bool = False
    split: bool = False
    steered: bool = True

    def addresses(self, place: str) -> tuple[str, ...]:
        """What may be answered at a place."""
        kind = 1 + self.weighted
        return tuple(f"10.{kind}.{PLACES[place]}.{n}" for n in (1, 2))

    def pool(self, place: str) -> str:
        """The name of our pool with these addresses."""
        return f"{'w' if self.weighted else 'f'}-{place}"


NAMES = (
    Name("www", "a set of addresses per place"),
    Name("split", "the same, a rule for each line", split=True),
    Name("weighted", "one address by weight 3:1", weighted=True),
    Name("own", "own networks before the file", nets=True),
    Name("flat", "the same for everybody, 3:1", weighted=True, steered=False),
)

# The country file, and what it means.


def cached_file() -> Path:
    """The embedded country database as GeoLite2-Country, IPv4 alone; made once."""
    from resolver.locate import embedded

    source = Path(embedded())
    if not source.is_file():
        raise SystemExit("the embedded country database is not installed: make venv")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    made = Path(tempfile.gettempdir()) / f"gtm-compare-{os.getuid()}" / f"{digest}.mmdb"
    if not made.exists():
        made.parent.mkdir(mode=0o700, exist_ok=True)
        rewrite(source, made)
    return made


def rewrite(source: Path, made: Path) -> None:
    """Write the IPv4 networks of `source` with the continent that each country lies on."""
    import maxminddb
    from mmdb_writer import MMDBWriter
    from netaddr import IPNetwork, IPSet

    from resolver.continents import CONTINENT

    writer = MMDBWriter(4, database_type="GeoLite2-Country", languages=["en"])
    records: dict[str, dict[str, dict[str, str]]] = {}
    with maxminddb.open_database(str(source)) as reader:
        for network, record in reader:
            code = record.get("country", {}).get("iso_code") if isinstance(record, dict) else None
            if network.version == 4 and code in CONTINENT:
                nested = {"country": {"iso_code": code}, "continent": {"code": CONTINENT[code]}}
                writer.insert_network(
                    IPSet([IPNetwork(str(network))]), records.setdefault(code, nested)
                )
    part = made.with_suffix(".part")
    writer.to_db_file(str(part))
    part.replace(made)


class Opinion:
    """Where clients are by the file alone, and the widest block around one with one answer."""

    def __init__(self, file: Path, nets: bool) -> None:
        import maxminddb

        own = {ipaddress.IPv4Network(text): place for text, place in NETS.items()} if nets else {}
        inner = sorted(own, key=lambda net: -net.prefixlen)
        rows: list[tuple[int, str]] = []
        end = 0
        edges = sorted({edge for net in own for edge in (int(net[0]), int(net[-1]) + 1)})
        with maxminddb.open_database(str(file)) as reader:
            for network, record in reader:
                start = int(network.network_address)
                if start > end:
                    rows.append((end, NOBODY))
                end = start + network.num_addresses
                rows.append((start, place_of(record)))
        if end < 1 << 32:
            rows.append((end, NOBODY))
        starts = [start for start, _ in rows]
        for edge in edges:
            at = bisect.bisect_right(starts, edge) - 1
            if starts[at] != edge:
                rows.insert(at + 1, (edge, rows[at][1]))
                starts.insert(at + 1, edge)
        self.starts: list[int] = []
        self.places: list[str] = []
        for start, place in rows:
            if edges and edges[0] <= start < edges[-1]:
                here = ipaddress.IPv4Address(start)
                place = next((own[net] for net in inner if here in net), place)
            if not self.places or self.places[-1] != place:
                self.starts.append(start)
                self.places.append(place)

    def of(self, address: int) -> tuple[str, int]:
        """The place of an address, and the length of the widest prefix that is all there."""
        at = bisect.bisect_right(self.starts, address) - 1
        first = self.starts[at]
        last = self.starts[at + 1] if at + 1 < len(self.starts) else 1 << 32
        for length in range(33):
            size = 1 << 32 - length
            start = address & ~(size - 1)
            if first <= start and start + size <= last:
                return self.places[at], length
        raise AssertionError("a block of one address lies where its address lies")


def place_of(record: object) -> str:
    """The place of a record of the file: by country, else by continent."""
    assert isinstance(record, dict)
    country, continent = record["country"]["iso_code"], record["continent"]["code"]
    return COUNTRIES.get(country) or CONTINENTS.get(continent) or NOBODY


# The two servers.


def free_port() -> int:
    """A UDP port of loopback that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def serve_ours(port: int, file: str) -> None:
    """The whole resolver over a store in memory, with the pools of every place up."""
    from gtm import codec, keys
    from gtm.memory import MemoryStore
    from gtm.model import Instance, Rule, Steering, Tier
    from gtm.state import Member, PoolState, StoredZone
    from gtm.store import Put
    from resolver.part import serve
    from resolver.settings import Settings

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
        if name.steered:
            coded = [(f"country:{code}", place) for code, place in COUNTRIES.items()]
            coded += [(f"continent:{code}", place) for code, place in CONTINENTS.items()]
            if name.split:
                rows += [([line], place) for line, place in coded]
            else:
                together = defaultdict(list)
                for line, place in coded:
                    together[place].append(line)
                rows += [(lines, place) for place, lines in together.items()]
        rows.append((["default"], NOBODY))
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


def gdnsd_folder(folder: Path, port: int, file: str) -> Path:
    """A configuration of gdnsd that says the same."""
    by_continent = defaultdict(list)
    for code, place in COUNTRIES.items():
        by_continent[CONTINENT_OF[code]].append(f"{code} => [{place}]")
    listed = " ".join(
        f"{code} => {{ default => [{place}] {' '.join(by_continent[code])} }}"
        for code, place in CONTINENTS.items()
    )
    nets = " ".join(f"{net} => [{place}]" for net, place in NETS.items())
    maps = "".join(
        f"""
        {name} => {{
          geoip2_db => "{file}"
          datacenters => [{", ".join(sorted(PLACES, key=NOBODY.__ne__))}]
          map => {{ default => [{NOBODY}] {listed} }}
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
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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
            "--serve",
            str(port),
            "--file",
            str(file),
        ]
        found = {"ours": stack.enter_context(running(ours, port, folder / "ours.log"))}
        port = free_port()
        (folder / "gdnsd").mkdir()
        made = gdnsd_folder(folder / "gdnsd", port, str(file))
        theirs = [binary, "-c", str(made), "start"]
        found["gdnsd"] = stack.enter_context(running(theirs, port, folder / "gdnsd.log"))
        yield found


# The comparison.


@dataclass(frozen=True)
class Reply:
    """What a server said: addresses in no order, and the scope; -1 without the option."""

    addresses: frozenset[str]
    scope: int
    rcode: int
    ttl: int


def ask(sock: socket.socket, label: str, prefix: ipaddress.IPv4Network | None) -> Reply:
    """The reply to an A query; OSError where none comes twice."""
    options = [] if prefix is None else [dns.edns.ECSOption(str(prefix[0]), prefix.prefixlen)]
    query = dns.message.make_query(f"{label}.{ZONE}", "A", use_edns=0, options=options)
    wire = query.to_wire()
    for attempt in (1, 2):
        try:
            sock.send(wire)
            while True:
                reply = dns.message.from_wire(sock.recv(4096))
                if reply.id == query.id:
                    break
            break
        except TimeoutError:
            if attempt == 2:
                raise
    scopes = [one.scopelen for one in reply.options if isinstance(one, dns.edns.ECSOption)]
    addresses = frozenset(item.address for rrset in reply.answer for item in rrset)
    ttl = reply.answer[0].ttl if reply.answer else -1
    return Reply(addresses, scopes[0] if scopes else -1, reply.rcode(), ttl)


def clients(seed: int, count: int) -> list[ipaddress.IPv4Network]:
    """Random unicast prefixes of the lengths of `MIX`, without host bits."""
    dice = random.Random(seed)
    lengths, often = zip(*MIX, strict=True)
    drawn = []
    while len(drawn) < count:
        length = dice.choices(lengths, often)[0]
        address = dice.getrandbits(32) & -(1 << 32 - length)
        if 0 < address >> 24 < 224:
            drawn.append(ipaddress.IPv4Network((address, length)))
    return drawn


@dataclass
class Tally:
    """What was found for one name."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    seen: dict[str, dict[str, set[str]]] = field(
        default_factory=lambda: {"ours": defaultdict(set), "gdnsd": defaultdict(set)}
    )
    asked: Counter[str] = field(default_factory=Counter)


def compare(
    name: Name,
    prefixes: list[ipaddress.IPv4Network],
    socks: dict[str, socket.socket],
    opinion: Callable[[int], tuple[str, int]],
) -> Tally:
    """Ask both servers for every prefix, and sort what they say."""
    tally = Tally()
    for prefix in prefixes:
        place, widest = opinion(int(prefix[0])) if name.steered else (NOBODY, 0)
        replies = {who: ask(sock, name.label, prefix) for who, sock in socks.items()}
        ours, theirs = replies["ours"], replies["gdnsd"]
        tally.asked[place] += 1
        known = frozenset(name.addresses(place))
        right = True
        for who, reply in replies.items():
            tally.seen[who][place] |= reply.addresses
            fits = len(reply.addresses) == 1 and reply.addresses <= known
            right &= reply.rcode == 0 and (fits if name.weighted else reply.addresses == known)
        alike = right and ours.ttl == theirs.ttl
        tally.counts["equal answers"] += alike
        how = sign(ours.scope, theirs.scope)
        tally.counts[how] += 1
        why = reason(how, ours.scope, theirs.scope, widest)
        if how != "equal scopes" and why:
            tally.reasons[why] += 1
        if not alike or not why:
            tally.unexplained.append(f"{name.label} {prefix}: {place}/{widest} {ours} {theirs}")
    for place, times in tally.asked.items():
        # With 60 draws a share of 1 in 4 stays unseen once in 30 million times.
        if name.weighted and times >= 60:
            for who, seen in tally.seen.items():
                if seen[place] != set(name.addresses(place)):
                    tally.unexplained.append(f"{name.label}: {who} gave only {seen[place]}")
    return tally


def sign(ours: int, theirs: int) -> str:
    """Whose scope is longer."""
    if ours == theirs:
        return "equal scopes"
    return "ours deeper" if ours > theirs else "gdnsd deeper"


def reason(how: str, ours: int, theirs: int, widest: int) -> str:
    """Why the scopes are as they are; "" where that is not known or would be wrong.

    A scope shorter than the widest block with one answer would be a wrong answer for somebody.
    """
    if min(ours, theirs) < widest:
        return ""
    if how == "equal scopes":
        return "as wide as can be" if ours == widest else ""
    return ""


def shares(socks: dict[str, socket.socket], count: int) -> tuple[list[str], list[str]]:
    """Rows of how often each address of a weighted name came, and what is out of bounds."""
    name = next(one for one in NAMES if one.weighted and not one.steered)
    rows, wrong = [], []
    for who, sock in socks.items():
        drawn = Counter[str]()
        for _ in range(count):
            drawn.update(ask(sock, name.label, None).addresses)
        chi_square = 0.0
        for value, weight in zip(name.addresses(NOBODY), WEIGHTS, strict=True):
            due = count * weight / sum(WEIGHTS)
            chi_square += (drawn[value] - due) ** 2 / due
        shown = ", ".join(f"{100 * drawn[value] / count:.2f} %" for value in sorted(drawn))
        rows.append(f"weights 3:1, {who:<5} {shown}; chi-square {chi_square:.2f}")
        if chi_square > CHI_SQUARE_LIMIT or drawn.total() != count:
            wrong.append(rows[-1])
    return rows, wrong


def report(tallies: dict[str, Tally], queries: int) -> None:
    """Print the table and the reasons."""
    print(f"{'':<14}" + "".join(f"{label:>10}" for label in tallies))
    print(f"{'queries':<14}" + f"{queries:>10}" * len(tallies))
    for row in ("equal answers", "equal scopes", "ours deeper", "gdnsd deeper"):
        print(f"{row:<14}" + "".join(f"{one.counts[row]:>10}" for one in tallies.values()))
    row = "".join(f"{len(one.unexplained):>10}" for one in tallies.values())
    print(f"{'unexplained':<14}{row}")
    for name in NAMES:
        print(f"  {name.label}: {name.about}")
    for label, tally in tallies.items():
        for why, times in tally.reasons.most_common():
            print(f"{label}: {times} scopes: {why}")


def main() -> int:
    """Compare and print; 1 where anything is unexplained."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--queries", type=int, default=10_000, help="client prefixes per name")
    parser.add_argument("--draws", type=int, default=20_000, help="draws of the weighted name")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(24))
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if args.serve:
        asyncio.run(serve_ours(args.serve, args.file))
        return 0
    file = cached_file()
    print(f"seed {args.seed}, {args.queries} IPv4 prefixes")
    prefixes = clients(args.seed, args.queries)
    opinions = {nets: Opinion(file, nets).of for nets in (False, True)}
    with servers(file) as socks:
        tallies = {
            name.label: compare(name, prefixes, socks, opinions[name.nets]) for name in NAMES
        }
        rows, wrong = shares(socks, args.draws)
    report(tallies, args.queries)
    print("\n".join(rows))
    wrong += [line for tally in tallies.values() for line in tally.unexplained]
    for line in wrong[:20]:
        print(f"unexplained: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
