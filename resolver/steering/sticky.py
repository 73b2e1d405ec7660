"""sticky: one address for each network of clients, by weight, for as long as it is available.

Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as in Schindelhauer and Schomaker
2005): when an address goes only its own clients move, when one comes it takes no more than its
share. The networks of clients are parted into buckets by a hash, and each bucket is given to its
winner here, at compile time: integers only, so that all replicas agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ..plan import BUCKETS, Hashed, Node
from .base import Ground, Option

LOG_BITS = 12
"""The logarithm of a hash is read from a table by so many bits behind its leading one."""
LOG_ONE = 1 << 40
"""One in the fixed-point logarithms, base 2."""
MAX_REMEMBERED = 256
"""Sets of options whose winners are remembered, and keys whose scores are: 32 MiB each at most."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What sticky may be told."""

    prefix_v4: Annotated[
        int, Meta(ge=1, le=32, description="bits of a client's IPv4 address that count")
    ] = 24
    prefix_v6: Annotated[
        int, Meta(ge=1, le=128, description="bits of a client's IPv6 address that count")
    ] = 56


def compile(
    settings: Settings, options: Sequence[Option], max_answers: int, ground: Ground
) -> Node:
    """The option of each bucket."""
    branches = tuple(ground.pick((index,)) for index in range(len(options)))
    if len(branches) == 1:
        return branches[0]
    won = winners(tuple((option.key, option.weight) for option in options))
    code = np.uint8 if len(branches) <= 256 else np.dtype(">u2")
    return Hashed(settings.prefix_v4, settings.prefix_v6, won.astype(code).tobytes(), branches)


@lru_cache(MAX_REMEMBERED)
def winners(options: tuple[tuple[str, int], ...]) -> NDArray[np.int64]:
    """The index of the option that wins each bucket, of (key, weight) pairs.

    An option's score is -log2(u) / weight for a hash u in (0, 1) of bucket and key; the least
    wins, and of equal ones the one whose key is less. Where all weigh nothing, all weigh the same.
    """
    alike = not any(weight for _, weight in options)
    best = np.full(BUCKETS, np.iinfo(np.int64).max)
    winner = np.zeros(BUCKETS, dtype=np.int64)
    for index in sorted(range(len(options)), key=lambda one: options[one][0]):
        key, weight = options[index]
        if not weight and not alike:
            continue
        score = _scores(key) // (weight or 1)
        better = score < best
        np.copyto(best, score, where=better)
        np.copyto(winner, index, where=better)
    winner.flags.writeable = False
    return winner


@lru_cache(MAX_REMEMBERED)
def _scores(key: str) -> NDArray[np.int64]:
    """What a key scores in each bucket at weight 1."""
    return _minus_log(_hashes(key))


def _hashes(key: str) -> NDArray[np.uint64]:
    """64 bits for each bucket: splitmix64 (Steele, Lea and Flood 2014) seeded by the key's hash."""
    seed = int.from_bytes(blake2b(key.encode(), digest_size=8).digest())
    with np.errstate(over="ignore"):
        mixed = np.uint64(seed) + np.arange(1, BUCKETS + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return result


def _minus_log(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """-log2(u) in fixed point, at least 1, for 64-bit hashes; u is their high 53 bits, made odd.

    An integer of 53 bits is exact as a float of IEEE 754, so its bits are the place of its leading
    one and what is behind that: floats are a layout here, and nothing is computed in them.
    """
    odd = (hashes >> np.uint64(11)) | np.uint64(1)
    bits = odd.astype(np.float64).view(np.int64) >> (52 - LOG_BITS)
    whole = (53 + 1023) - (bits >> LOG_BITS)
    result: NDArray[np.int64] = whole * LOG_ONE - _table()[bits & ((1 << LOG_BITS) - 1)]
    return result


@lru_cache(1)
def _table() -> NDArray[np.int64]:
    """log2(1 + (i + 1/2) / 2**LOG_BITS) in fixed point, by decimals: the same on every platform."""
    exact, half = Context(prec=30), 1 << (LOG_BITS + 1)  # of a step: (half + 2i + 1) / half
    logs = (
        exact.divide(exact.ln(Decimal(half + odd)), exact.ln(Decimal(2)))
        for odd in range(1, half, 2)
    )
    less = (LOG_BITS + 1) * LOG_ONE
    return np.array([int(exact.multiply(log, LOG_ONE)) - less for log in logs], dtype=np.int64)
