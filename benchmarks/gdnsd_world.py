"""What both sides of the comparison with gdnsd serve: the names, the country file, what is right.

`Opinion` says from the file alone what a client gets and how wide that holds, by a way of its own:
neither our tables nor gdnsd's. Talks to no server.
"""

from __future__ import annotations

import bisect
import hashlib
import ipaddress
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import maxminddb
from mmdb_writer import MMDBWriter
from netaddr import IPNetwork, IPSet

from resolver.continents import CONTINENT
from resolver.locate import embedded

ZONE = "cmp.test"
NOBODY = "world"
LINES = {
    "country:CN": "cn",
    "country:DE": "de",
    "country:US": "us",
    "continent:AS": "as",
    "continent:EU": "eu",
    "continent:NA": "na",
    "continent:OC": "as",
    "default": NOBODY,
}
"""The place of each line; two continents share one, so that unlike records lead to one answer."""
PLACES = {name: n for n, name in enumerate(("as", "cn", "de", "eu", "na", "us", NOBODY), 1)}
NETS = {"8.0.0.0/6": "eu", "9.128.0.0/9": "us"}
"""Own networks that precede the country file, one within another."""
WEIGHTS = (3, 1)


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


def cached_file() -> Path:
    """The embedded country database as GeoLite2-Country, IPv4 alone; made once."""
    source = Path(embedded())
    if not source.is_file():
        raise SystemExit("the embedded country database is not installed: make venv")
    meant = repr(sorted(CONTINENT.items())).encode()
    digest = hashlib.sha256(source.read_bytes() + meant).hexdigest()[:16]
    made = Path(tempfile.gettempdir()) / f"gtm-compare-{os.getuid()}" / f"{digest}.mmdb"
    if not made.exists():
        made.parent.mkdir(mode=0o700, exist_ok=True)
        rewrite(source, made)
    return made


def rewrite(source: Path, made: Path) -> None:
    """Write the IPv4 networks of `source` with the continent that each country lies on."""
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


def networks(file: Path) -> list[tuple[ipaddress.IPv4Network, str]]:
    """The networks of the file in order, each with the line of its clients."""
    with maxminddb.open_database(str(file)) as reader:
        return [(ipaddress.IPv4Network(str(net)), line_of(record)) for net, record in reader]


def line_of(record: Any) -> str:
    """The narrowest line of `LINES` on which the clients of a record are."""
    lines = (f"country:{record['country']['iso_code']}", f"continent:{record['continent']['code']}")
    return next((line for line in lines if line in LINES), "default")


class Opinion:
    """What clients get by networks alone, and the widest block around one that gets the same."""

    def __init__(
        self,
        said: Iterable[tuple[ipaddress.IPv4Network, str]],
        own: Mapping[str, str],
        hole: str,
    ) -> None:
        """`said`: disjoint networks in order, `hole` between them; `own` networks precede them."""
        rows = [(0, hole)]
        for net, value in said:
            if rows[-1][0] == int(net[0]):
                rows.pop()
            rows += [(int(net[0]), value), (int(net[-1]) + 1, hole)]
        blocks = [(ipaddress.IPv4Network(text), value) for text, value in own.items()]
        for net, value in sorted(blocks, key=lambda row: row[0].prefixlen):
            first, after = int(net[0]), int(net[-1]) + 1
            low = bisect.bisect_left(rows, first, key=_start)
            high = bisect.bisect_right(rows, after, key=_start)
            rows[low:high] = [(first, value), (after, rows[high - 1][1])]
        self.starts: list[int] = []
        self.values: list[str] = []
        for start, value in rows:
            if start < 1 << 32 and (not self.values or self.values[-1] != value):
                self.starts.append(start)
                self.values.append(value)

    def of(self, address: int) -> tuple[str, int]:
        """What an address gets, and the length of the widest prefix where all get the same."""
        at = bisect.bisect_right(self.starts, address) - 1
        first = self.starts[at]
        end = self.starts[at + 1] if at + 1 < len(self.starts) else 1 << 32
        for length in range(33):
            size = 1 << 32 - length
            start = address & -size
            if first <= start and start + size <= end:
                return self.values[at], length
        raise AssertionError("a block of one address lies where its address lies")


def _start(row: tuple[int, str]) -> int:
    return row[0]
