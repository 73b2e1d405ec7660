"""The most frequent names and clients: what the sketch promises, merged or not, and the page."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest

from resolver.message import wire_name
from resolver.sampling import Sampler, top_page
from resolver.top import SHOWN, Ranked, Sketch, merged, network, page

SIZE = 20


def stream(seed: int, count: int = 3_000) -> list[bytes]:
    """Few keys that are frequent among many that are rare."""
    dice = random.Random(seed)
    return [b"%d" % int(dice.paretovariate(0.6)) for _ in range(count)]


def promise(sketch: Ranked, keys: Iterable[bytes], size: int) -> None:
    """Hold a sketch of `keys` to what it says of itself."""
    exact = Counter(keys)
    found = {key: (count, over) for key, count, over in sketch.rows}
    assert sketch.total == exact.total()
    assert sketch.missed <= sketch.total / size
    for key, (count, over) in found.items():
        assert exact[key] <= count <= exact[key] + over
        assert over <= sketch.total / size
    for key, count in exact.items():
        assert key in found or count <= sketch.missed


@pytest.mark.parametrize("seed", range(5))
def test_no_count_is_wrong_by_more_than_it_says(seed: int) -> None:
    keys, sketch = stream(seed), Sketch(SIZE)
    for key in keys:
        sketch.add(key)
    promise(sketch.read(), keys, SIZE)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_merged_sketches_promise_the_same_of_all_that_was_seen(workers: int) -> None:
    streams = [stream(seed, 500 * seed) for seed in range(workers)]
    sketches = [Sketch(SIZE) for _ in streams]
    for sketch, keys in zip(sketches, streams, strict=True):
        for key in keys:
            sketch.add(key)
    whole = merged([sketch.read() for sketch in sketches])
    promise(whole, [key for keys in streams for key in keys], SIZE)
    counts = [count for _, count, _ in whole.rows]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    ("client", "shown"),
    [
        (b"\xc0\x00\x02\x7b", b"\xc0\x00\x02\x00"),
        (b"\0" * 10 + b"\xff\xff\xc0\x00\x02\x7b", b"\xc0\x00\x02\x00"),
        (b"\x20\x01\x0d\xb8" + b"\xab" * 12, b"\x20\x01\x0d\xb8\xab\xab\xab" + b"\0" * 9),
    ],
)
def test_clients_are_counted_by_network(client: bytes, shown: bytes) -> None:
    assert network(client) == shown


def test_the_page_shows_the_first_in_queries_and_no_whole_address() -> None:
    sampler = Sampler(4, 0)
    query = bytes(5) + b"\1" + bytes(6) + b"\1A\4Test\0\0\1\0\1"
    for last in range(3):
        sampler.saw(0.0, 0, query, bytes((192, 0, 2, last)), "udp", None)
    assert top_page(sampler, 4) == {
        "sample": "1/4",
        "names": {
            "queries": 12,
            "top": [{"name": "a.test", "queries": 12, "at_most_over": 0}],
        },
        "clients": {
            "queries": 12,
            "top": [{"network": "192.0.2.0/24", "queries": 12, "at_most_over": 0}],
        },
    }


def test_the_page_is_bounded() -> None:
    names = Ranked([(wire_name(f"n{number}"), 1, 0) for number in range(500)], 0, 500)
    clients = Ranked([(number.to_bytes(4), 1, 0) for number in range(500)], 0, 500)
    shown = page(names, clients, 64)
    assert [len(shown[kind]["top"]) for kind in ("names", "clients")] == [SHOWN, SHOWN]
