"""The configuration and published state under `serve/`, as one immutable value per revision.

Pure. `rebuild` makes a `View` of a listing, `apply` of a view and a batch; both give the same for
the same store. Reading trusts nothing: a value that can't be read raises ValueError naming its key,
and the caller keeps the view that it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from gtm import codec, keys
from gtm.model import TYPES, Check, ClientLine, Instance, Pool, Record, Region
from gtm.state import Bucket, Head, PoolState, Routes, StoredZone
from gtm.store import Batch, Event, Listing

_STORED: dict[str, type[Any]] = {**TYPES, "zones": StoredZone}


class View(Struct, frozen=True, kw_only=True):
    """Everything under `serve/` as of `revision`; treat the mappings as read-only.

    `head_revision` is the mod_revision of `serve/head` (0: nothing was ever applied).
    """

    revision: int = 0
    head_revision: int = 0
    head: Head = field(default_factory=Head)
    zones: dict[str, StoredZone] = field(default_factory=dict)
    records: dict[str, dict[str, tuple[Record, ...]]] = field(default_factory=dict)
    lines: dict[str, ClientLine] = field(default_factory=dict)
    regions: dict[str, Region] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    config_pools: dict[str, Pool] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    pools: dict[str, PoolState] = field(default_factory=dict)
    routes: dict[str, Routes] = field(default_factory=dict)


class Changes(Struct, frozen=True, kw_only=True):
    """The names that a batch changed, by kind; `records` holds names of zones."""

    head: bool = False
    zones: frozenset[str] = frozenset()
    records: frozenset[str] = frozenset()
    lines: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    checks: frozenset[str] = frozenset()
    config_pools: frozenset[str] = frozenset()
    instances: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()
    routes: frozenset[str] = frozenset()

    def configuration(self) -> bool:
        """Whether anything that users wrote changed."""
        return bool(
            self.zones or self.records or self.lines or self.regions or self.checks
            or self.config_pools or self.instances
        )  # fmt: skip


CONFIG_FIELD = {"pools": "config_pools"}
"""Where a kind of configuration lies in a view, where that is not its own name."""


def rebuild(listing: Listing, *, skip: frozenset[str] = frozenset()) -> View:
    """The view of a whole listing of `serve/`; `skip` names kinds of configuration not to read."""
    events = (Event(item.key, item.value, item.mod_revision) for item in listing.items)
    return _applied(View(), listing.revision, events, skip)[0]


def apply(view: View, batch: Batch, *, skip: frozenset[str] = frozenset()) -> tuple[View, Changes]:
    """`view` with all of `batch` in force, and what that changed."""
    return _applied(view, batch.revision, batch.events, skip)


def _applied(
    view: View, revision: int, events: Iterable[Event], skip: frozenset[str]
) -> tuple[View, Changes]:
    fresh: dict[str, dict[str, Any]] = {}
    touched: dict[str, set[str]] = {}
    head: dict[str, Any] = {}

    def table(name: str) -> dict[str, Any]:
        if name not in fresh:
            fresh[name] = dict(getattr(view, name))
        return fresh[name]

    for event in events:
        spelled = keys.spelled(event.key)
        if spelled is None or (spelled.what == "config" and spelled.kind in skip):
            continue
        try:
            if spelled.what == "head":
                gone = event.value is None
                head = {
                    "head": Head() if gone else codec.decode(event.value or b"", Head),
                    "head_revision": 0 if gone else event.mod_revision,
                }
            elif spelled.what == "records":
                buckets = dict(table("records").get(spelled.name, {}))
                if event.value is None:
                    buckets.pop(spelled.bucket, None)
                else:
                    buckets[spelled.bucket] = codec.decode(event.value, Bucket).records
                _set(table("records"), spelled.name, buckets or None)
                touched.setdefault("records", set()).add(spelled.name)
            else:
                name, type_ = _place(spelled)
                if name is None:
                    continue
                value = None if event.value is None else codec.decode(event.value, type_)
                _set(table(name), spelled.name, value)
                touched.setdefault(name, set()).add(spelled.name)
        except ValueError as error:
            raise ValueError(f"{event.key} at revision {event.mod_revision}: {error}") from error
    changes = Changes(
        head=bool(head), **{name: frozenset(names) for name, names in touched.items()}
    )
    return replace(view, revision=revision, **head, **fresh), changes


def _place(spelled: keys.Spelled) -> tuple[str | None, type[Any]]:
    """The view's field and the type of what lies under a key; (None, _) for an unknown kind."""
    if spelled.what == "pools":
        return "pools", PoolState
    if spelled.what == "routes":
        return "routes", Routes
    if spelled.kind not in _STORED:
        return None, object
    return CONFIG_FIELD.get(spelled.kind, spelled.kind), _STORED[spelled.kind]


def _set(table: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        table.pop(name, None)
    else:
        table[name] = value
