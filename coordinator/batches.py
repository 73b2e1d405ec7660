"""Which changed keys go to the store together. Pure.

All of them in one transaction where that fits. Else several: a pool is one key and so always whole,
an instance's routes go with those of its pools that changed, and what resolvers read goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gtm import keys
from gtm.store import MAX_OPS, MAX_TXN_BYTES, Put, op_bytes

Values = list[tuple[str, bytes | None]]
"""Keys with the values that they should have; None: none."""


def batches(
    wanted: Mapping[str, bytes | None], together: Callable[[], Mapping[str, Iterable[str]]]
) -> Iterable[Values]:
    """`wanted` in as few transactions as fit; `together()` maps an instance to its pools."""
    batch = list(wanted.items())
    size = _bytes(batch)
    if len(batch) <= MAX_OPS**2 and size <= MAX_TXN_BYTES:
        if batch:
            yield batch
        return
    batch, size = [], 0
    for unit in _units(wanted, together()):
        for part in _cut([(key, wanted[key]) for key in unit]):
            more = _bytes(part)
            if batch and (len(batch) + len(part) > MAX_OPS**2 or size + more > MAX_TXN_BYTES):
                yield batch
                batch, size = [], 0
            batch += part
            size += more
    if batch:
        yield batch


def _units(
    differing: Iterable[str], together: Mapping[str, Iterable[str]]
) -> Iterable[tuple[str, ...]]:
    """Keys that belong together: the routes of an instance with its pools, else each by itself."""
    left = dict.fromkeys(differing)
    for key in [key for key in left if key.startswith(keys.ROUTES)]:
        if key not in left:
            continue
        pools = together.get(key.removeprefix(keys.ROUTES), ())
        unit = (key, *(keys.pool(name) for name in pools if keys.pool(name) in left))
        for name in unit:
            left.pop(name, None)
        yield unit
    yield from ((key,) for key in left if key.startswith(keys.POOLS))
    yield from ((key,) for key in left if not key.startswith(keys.POOLS))


def _cut(values: Values) -> Iterable[Values]:
    """A unit as it is, or key by key where it fits no transaction."""
    if len(values) <= MAX_OPS**2 and _bytes(values) <= MAX_TXN_BYTES:
        return [values]
    return [[value] for value in values]


def _bytes(values: Values) -> int:
    return sum(op_bytes(Put(key, value or b"")) for key, value in values)
