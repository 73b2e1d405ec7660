"""Our answers and scopes beside gdnsd's: same zone, same country file, same weights.

Run `make compare-gdnsd` where gdnsd is installed. Both servers get the same random client prefixes
by ECS (RFC 7871) from one client. A third opinion, computed from the file alone, says what the
answer should be and how wide it holds; it explains differences, never hides them. Exit code 1 where
anything is unexplained, 2 where gdnsd is not installed. IPv4 clients only.
"""

from __future__ import annotations

import argparse
import ipaddress
import random
import socket
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dns.edns
import dns.message

from benchmarks.gdnsd_servers import servers
from benchmarks.gdnsd_world import (
    LINES,
    NAMES,
    NETS,
    NOBODY,
    WEIGHTS,
    ZONE,
    Name,
    Opinion,
    cached_file,
    networks,
)

MIX = ((24, 5), (32, 3), (16, 1), (8, 1))
"""Source prefix lengths of the clients, and how often each."""
CHI_SQUARE_LIMIT = 19.5
"""One degree of freedom: a fair draw exceeds it once in 100,000 runs."""


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


def judges(name: Name, by_line: list[tuple[ipaddress.IPv4Network, str]]) -> tuple[Opinion, Opinion]:
    """The opinions on a name: by places, and by rules."""
    if not name.steered:
        nowhere = Opinion((), {}, NOBODY)
        return nowhere, nowhere
    nets = NETS if name.nets else {}
    places = Opinion([(net, LINES[line]) for net, line in by_line], nets, NOBODY)
    return places, Opinion(by_line, nets, "default") if name.split else places


def compare(
    name: Name,
    prefixes: list[ipaddress.IPv4Network],
    socks: dict[str, socket.socket],
    judges: tuple[Opinion, Opinion],
) -> Tally:
    """Ask both servers for every prefix, and sort what they say.

    `judges` know where clients are by places, and by rules.
    """
    tally = Tally()
    for prefix in prefixes:
        (place, widest), (_, by_rule) = (judge.of(int(prefix[0])) for judge in judges)
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
        why = reason(ours.scope, theirs.scope, widest, by_rule)
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


def reason(ours: int, theirs: int, widest: int, by_rule: int) -> str:
    """Why the scopes are as they are; "" where that is not known, or wrong for somebody.

    `widest` and `by_rule`: the shortest prefixes with one place and with one rule.
    """
    if theirs != widest:
        return ""
    if ours == widest:
        return "as wide as one answer holds"
    return "two rules that lead to one pool stay apart" if ours == by_rule else ""


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
    args = parser.parse_args()
    file = cached_file()
    prefixes = clients(args.seed, args.queries)
    lengths = sorted(Counter(prefix.prefixlen for prefix in prefixes).items())
    mixed = ", ".join(f"{count} of /{length}" for length, count in lengths)
    print(f"seed {args.seed}, {args.queries} IPv4 prefixes: {mixed}")
    by_line = networks(file)
    with servers(file) as socks:
        tallies = {
            name.label: compare(name, prefixes, socks, judges(name, by_line)) for name in NAMES
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
