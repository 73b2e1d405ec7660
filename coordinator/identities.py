"""Which instance holds which id. Pure; the dice are handed in.

An id is an instance's for as long as it exists and for `KEEP_S` after its deletion: an instance
that comes back under its name gets its id, and so its access name, back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gtm.ports import Problem
from gtm.state import Identity

KEEP_S = 90 * 86_400.0
"""How long a deleted instance's id is kept for its name."""
MAX_TRIES = 10_000
"""Draws for one id before giving up; 10^8 ids make more than a few improbable."""


def held(identity: Identity | None, now_s: float) -> bool:
    """Whether an id is taken: its instance is there, or was deleted less than `KEEP_S` ago."""
    return identity is not None and (
        identity.deleted == 0 or now_s - identity.deleted < KEEP_S
    )  # fmt: skip


def given_ids(
    instances: Mapping[str, Any],
    stored: Mapping[str, str],
    ids: Mapping[str, Identity],
    now_s: float,
    draw: Callable[[], int],
) -> tuple[dict[str, str], list[Problem]]:
    """The id of every one of `instances` (name -> plain data), and what is wrong with those given.

    `stored` maps every stored instance to its id; `draw()` is a random number below 10^8.
    """
    kept = _kept(ids, now_s)
    result: dict[str, str] = {}
    problems: list[Problem] = []
    takers: dict[str, str] = {id_: name for name, id_ in stored.items() if name not in instances}
    unnamed: list[str] = []
    for name, data in instances.items():
        id_ = data.get("id") if isinstance(data, Mapping) else None
        if not id_:
            unnamed.append(name)
            continue
        if not isinstance(id_, str):
            continue  # the policy says what an id looks like
        holder = ids.get(id_)
        taker = takers.setdefault(id_, name)
        path = f"instances.{name}.id"
        if taker != name:
            problems.append(Problem(path=path, text=f"{id_} is the id of instance {taker}"))
        elif holder and holder.instance != name and held(holder, now_s):
            ended = " (deleted, its id is kept for 90 days)" if holder.deleted else ""
            problems.append(
                Problem(path=path, text=f"{id_} is the id of instance {holder.instance}{ended}")
            )
        result[name] = id_
    for name in unnamed:
        id_ = stored.get(name) or kept.get(name) or ""
        if not id_ or takers.get(id_, name) != name:
            id_ = _drawn(ids, takers, draw)
        takers[id_] = name
        result[name] = id_
    return result, problems


def expired(ids: Mapping[str, Identity], now_s: float) -> Iterable[str]:
    """The ids that nobody holds any more."""
    return (id_ for id_, identity in ids.items() if not held(identity, now_s))


def _kept(ids: Mapping[str, Identity], now_s: float) -> dict[str, str]:
    latest: dict[str, tuple[float, str]] = {}
    for id_, identity in ids.items():
        if held(identity, now_s):
            rank = (identity.deleted or float("inf"), id_)
            latest[identity.instance] = max(latest.get(identity.instance, rank), rank)
    return {name: id_ for name, (_, id_) in latest.items()}


def _drawn(ids: Mapping[str, Identity], takers: Mapping[str, str], draw: Callable[[], int]) -> str:
    for _ in range(MAX_TRIES):
        id_ = f"gtm{draw():08d}"
        if id_ not in ids and id_ not in takers:
            return id_
    raise ValueError("no free instance id was found; give the instance an id of your own")
