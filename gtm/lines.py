"""Lines: named sets of clients, and which of several that match a client goes first.

Pure. A line is built in (`country:CN`) or one of the configuration's own (`office`); the text forms
are those of docs/configuration.md. Who is on a line is decided by the resolver's `ranking`.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Literal

from msgspec import Struct

LineKind = Literal[
    "own", "network", "isp", "asn", "subdivision", "country", "oversea", "continent", "default"
]

RANK: dict[LineKind, int] = {
    "own": 0,
    "network": 0,
    "isp": 1,
    "asn": 1,
    "subdivision": 2,
    "country": 3,
    "oversea": 4,
    "continent": 5,
    "default": 6,
}
"""Precedence class of each kind: the smaller goes first. Inside the first class the longer matched
network does (own lines without networks count as length 0); other ties go by order of the rules."""

RESERVED = ("default", "oversea")
"""Names that no line of one's own can have: they are lines without a colon."""

CONTINENTS = ("AF", "AN", "AS", "EU", "NA", "OC", "SA")

ISPS: dict[str, tuple[int, ...]] = {
    "telecom": (4134, 4809, 4811, 4812, 4813, 4816, 17633, 17638, 23724, 134756, 136195),
    "unicom": (4808, 4837, 9929, 10099, 17621, 17622, 17623, 17816, 133119, 140979),
    "mobile": (
        9808, 24400, 24444, 24445, 24547, 38019, 56040, 56041, 56042, 56044, 56046, 56047, 56048,
        58453, 58807, 134810, 132510, 132525,
    ),
    "edu": (4538, 23910, 23911, 24348, 24349, 24350, 24351, 24352, 24353, 24355, 24361, 45576),
    "drpeng": (17428, 17429, 17964, 24138, 24139),
    "cstnet": (7497,),
    "aliyun": (37963, 45102, 45103, 45104, 134963),
}  # fmt: skip
"""Autonomous systems of the networks that Chinese operators call ISP lines (public registries)."""

_OWN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?", re.ASCII)
_SUBDIVISION = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")


class Line(Struct, frozen=True):
    """One line: its kind, and the canonical text after the colon, "" where none, or its name."""

    kind: LineKind
    value: str = ""

    def __str__(self) -> str:
        if self.kind == "own":
            return self.value
        return f"{self.kind}:{self.value}" if self.value else self.kind

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The network of a `network:` line."""
        return ipaddress.ip_network(self.value)

    @property
    def asns(self) -> tuple[int, ...]:
        """The autonomous systems of an `asn:` or `isp:` line."""
        return ISPS[self.value] if self.kind == "isp" else (int(self.value),)


@functools.lru_cache(maxsize=4096)
def parse_line(text: str) -> Line:
    """`text` as a line; ValueError says in one sentence what is wrong."""
    kind, _, value = text.partition(":")
    match kind:
        case "default" | "oversea" if not value and ":" not in text:
            return Line(kind)
        case "continent" if value in CONTINENTS:
            return Line("continent", value)
        case "continent":
            raise ValueError(f"{value!r} is no continent; one of {', '.join(CONTINENTS)}")
        case "country" if re.fullmatch("[A-Z]{2}", value):
            return Line("country", value)
        case "country":
            raise ValueError(f"{value!r} is no ISO 3166-1 code of two capital letters")
        case "subdivision" if _SUBDIVISION.fullmatch(value):
            return Line("subdivision", value)
        case "subdivision":
            raise ValueError(f"{value!r} is no ISO 3166-2 code such as CN-BJ")
        case "asn" if re.fullmatch(r"[1-9]\d{0,9}", value) and int(value) < 2**32:
            return Line("asn", value)
        case "asn":
            raise ValueError(f"{value!r} is no AS number such as 4134")
        case "isp" if value in ISPS:
            return Line("isp", value)
        case "isp":
            raise ValueError(f"{value!r} is no known ISP; one of {', '.join(sorted(ISPS))}")
        case "network":
            try:
                return Line("network", str(ipaddress.ip_network(value)))
            except ValueError as error:
                raise ValueError(
                    f"{value!r} is no network such as 203.0.113.0/24: {error}"
                ) from None
    if _OWN.fullmatch(text):
        return Line("own", text)
    raise ValueError(
        f"{text!r} is no line; one of default, oversea, continent:XX, country:XX, "
        "subdivision:XX-YY, asn:N, isp:NAME, network:CIDR, or a name under lines"
    )


def is_own(text: str) -> bool:
    """Whether a line in its canonical text is the name of one of `lines`."""
    return ":" not in text and text not in RESERVED
