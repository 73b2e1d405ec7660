"""Whether a client is on a line, built in or one's own. Pure.

A client is a place and the networks around its address, of all those that some line asks about;
nothing else of it is known here. A client whose country is unknown is on no geographic line.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache

from msgspec import Struct

from gtm.lines import Line, parse_line
from gtm.model import ClientLine

from .limits import MAX_LINES
from .place import Place
from .territory import Around, Network

MAX_NESTED = 16
"""How deep lines of one's own may refer to each other; deeper ones, and loops, match nobody."""

parsed = lru_cache(MAX_LINES)(parse_line)
"""A line of its text, remembered."""


@lru_cache(MAX_LINES)
def network(text: str) -> Network:
    """A network of its text, remembered."""
    return ipaddress.ip_network(text)


class Client(Struct, frozen=True):
    """A client at `place`; `around` are those networks of all lines that hold it, in any order."""

    place: Place
    around: Around
    lines: Mapping[str, ClientLine]

    def on(self, text: str) -> bool:
        """Whether it is on a line."""
        return self.length(text) is not None

    def length(self, text: str) -> int | None:
        """The longest network through which it is on a line; 0 through none, None: it is not."""
        return self._length(parsed(text), 0)

    def _length(self, line: Line, depth: int) -> int | None:
        if line.kind == "network":
            found = line.network
            return found.prefixlen if found in self.around else None
        if line.kind == "own":
            return self._own(line.value, depth)
        return 0 if _built_in(line, self.place) else None

    def _own(self, name: str, depth: int) -> int | None:
        own = self.lines.get(name)
        if own is None or depth >= MAX_NESTED:
            return None
        lengths = [0]
        if own.networks or own.any_of:
            inside = [net.prefixlen for net in map(network, own.networks) if net in self.around]
            inside += self._through(own.any_of, depth)
            if not inside:
                return None
            lengths.append(max(inside))
        both = self._through(own.all_of, depth)
        if len(both) < len(own.all_of) or self._through(own.not_, depth):
            return None
        return max(lengths + both)

    def _through(self, texts: Iterable[str], depth: int) -> list[int]:
        """The lengths of those of `texts` that it is on."""
        lengths = (self._length(parsed(text), depth + 1) for text in texts)
        return [length for length in lengths if length is not None]


def _built_in(line: Line, place: Place) -> bool:
    match line.kind:
        case "default":
            return True
        case "asn" | "isp":
            return place.asn in line.asns
        case "subdivision":
            return bool(place.country) and line.value in place.subdivisions
        case "country":
            return place.country == line.value
        case "oversea":
            return place.country not in ("", "CN")
        case "continent":
            return bool(place.country) and place.continent == line.value
    return False


def own_lines(texts: Iterable[str], lines: Mapping[str, ClientLine]) -> dict[str, ClientLine]:
    """The lines of one's own that `texts` mention, those inside them too, by name."""
    found: dict[str, ClientLine] = {}
    waiting = list(texts)
    while waiting:
        line = parsed(waiting.pop())
        if line.kind == "own" and line.value not in found and line.value in lines:
            found[line.value] = lines[line.value]
            waiting += lines[line.value].refers()
    return dict(sorted(found.items()))


def networks_of(texts: Iterable[str], lines: Mapping[str, ClientLine]) -> tuple[Network, ...]:
    """Every network that `texts` ask about, also inside lines of one's own, each once."""
    texts = tuple(texts)
    own = own_lines(texts, lines)
    inside = [text for line in own.values() for text in line.refers()]
    found = dict.fromkeys(
        line.network for line in map(parsed, (*texts, *inside)) if line.kind == "network"
    )
    found |= dict.fromkeys(network(text) for line in own.values() for text in line.networks)
    return tuple(found)
