"""What `bench_dns` measured, and what follows from it: ratios, medians, verdicts. Pure."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Load:
    """What a load generator says of one run; `size` is the mean answer in octets."""

    answered: int
    wrong: int
    lost: int
    seconds: float
    size: float
    latency_us: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One server in one round."""

    answered: int
    lost: int
    seconds: float
    cpu_s: float

    @property
    def us(self) -> float:
        """CPU microseconds of the server for each answered query."""
        return 1e6 * self.cpu_s / self.answered

    @property
    def qps(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def busy(self) -> float:
        """The part of its core that the server used."""
        return self.cpu_s / self.seconds


def read_dnsperf(text: str) -> Load:
    """What dnsperf printed; ValueError where it is no statistics of dnsperf."""

    def number(pattern: str) -> float:
        found = re.search(pattern, text)
        if found is None:
            raise ValueError(f"not dnsperf's statistics: {text[-500:]}")
        return float(found[1])

    completed = int(number(r"Queries completed:\s+(\d+)"))
    noerror = re.search(r"NOERROR (\d+)", text)
    good = int(noerror[1]) if noerror else 0
    return Load(
        answered=completed,
        wrong=completed - good,
        lost=int(number(r"Queries lost:\s+(\d+)")),
        seconds=number(r"Run time \(s\):\s+([\d.]+)"),
        size=number(r"Average packet size:\s+request \d+, response (\d+)") if completed else 0.0,
    )


def read_load(text: str) -> Load:
    """What `dns_load.c` printed; ValueError where it is not that."""
    said = dict(line.split() for line in text.splitlines())
    try:
        return Load(
            answered=int(said["answered"]),
            wrong=int(said["wrong"]),
            lost=int(said["lost"]),
            seconds=float(said["seconds"]),
            size=float(said["size"]),
            latency_us={key: int(said[key]) for key in ("p50", "p90", "p99", "p999")},
        )
    except KeyError as error:
        raise ValueError(f"the load printed no {error}: {text[-500:]}") from None


def read_metrics(text: str, prefixes: tuple[str, ...]) -> dict[str, float]:
    """The metrics without labels whose names begin with one of `prefixes` (Prometheus' text)."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name.startswith(prefixes) and "{" not in name and not name.endswith("_created"):
            found[name] = float(value)
    return found


def ratio(above: Sequence[Sample], below: Sequence[Sample]) -> float:
    """The median over the rounds of CPU per query of `above` by that of `below`."""
    return statistics.median(a.us / b.us for a, b in zip(above, below, strict=True))


def spread(above: Sequence[Sample], below: Sequence[Sample]) -> tuple[float, float]:
    """The least and the greatest of the ratios of which `ratio` is the median."""
    ratios = [a.us / b.us for a, b in zip(above, below, strict=True)]
    return min(ratios), max(ratios)


def verdict(value: float, target: float) -> str:
    """Whether a ratio reaches its target."""
    return "hit" if value >= target else "missed"
