"""The view of `serve/`: applying batches gives what rebuilding gives; what is unreadable changes
nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtm import codec, keys, view
from gtm.model import Instance, Pool, Record, Region
from gtm.state import Bucket, Head, PoolState, Routes, StoredZone
from gtm.store import Batch, Event, Item, Listing

VALUES = {
    keys.HEAD: [codec.encode(Head(generation=n, request_id="r")) for n in (1, 2)],
    keys.config("zones", "z.test"): [codec.encode(StoredZone(serial=n)) for n in (1, 2)],
    keys.config("regions", "eu"): [codec.encode(Region()), codec.encode(Region(location=(1, 2)))],
    keys.config("pools", "a"): [codec.encode(Pool(type="ipv4"))],
    keys.config("instances", "i"): [codec.encode(Instance(id="gtm00000001"))],
    keys.config("later", "x"): [b"{}"],
    keys.records("z.test", "0"): [codec.encode(Bucket())],
    keys.records("z.test", "1"): [
        codec.encode(Bucket(records=(Record(name="@", type="TXT", data=("x",)),)))
    ],
    keys.pool("a"): [codec.encode(PoolState(type="ipv4", generation=n)) for n in (1, 2)],
    keys.routes("i"): [codec.encode(Routes(generation=1))],
    keys.SERVE + "unknown": [b"not json"],
}
CHANGES = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(
        lambda key: st.tuples(st.just(key), st.sampled_from([None, *VALUES[key]]))
    ),
    max_size=6,
)


@given(st.lists(CHANGES, max_size=8))
def test_applying_batches_gives_what_rebuilding_gives(
    history: list[list[tuple[str, bytes | None]]],
) -> None:
    live = view.View()
    store: dict[str, tuple[bytes, int]] = {}
    for revision, changes in enumerate(history, start=1):
        events = []
        for key, value in dict(changes).items():
            events.append(Event(key, value, revision))
            if value is None:
                store.pop(key, None)
            else:
                store[key] = (value, revision)
        live, _ = view.apply(live, Batch(revision, tuple(events)))
    items = tuple(Item(key, value, rev, rev) for key, (value, rev) in sorted(store.items()))
    assert view.rebuild(Listing(len(history), items)) == live


def test_changes_name_what_was_touched_by_kind() -> None:
    events = tuple(Event(key, values[0], 7) for key, values in VALUES.items())
    _, changes = view.apply(view.View(), Batch(7, events))
    assert changes.head
    assert changes.records == {"z.test"}
    assert changes.config_pools == {"a"} == changes.pools
    assert changes.configuration()


def test_an_unreadable_value_raises_naming_its_key_and_leaves_the_view_alone() -> None:
    before, _ = view.apply(view.View(), Batch(1, (Event(keys.HEAD, VALUES[keys.HEAD][0], 1),)))
    broken = Batch(2, (Event(keys.HEAD, VALUES[keys.HEAD][1], 2), Event(keys.pool("a"), b"{", 2)))
    with pytest.raises(ValueError, match="serve/pools/a at revision 2"):
        view.apply(before, broken)
    assert before.head.generation == 1


def test_kinds_that_are_not_wanted_are_not_read() -> None:
    batch = Batch(1, (Event(keys.config("pools", "a"), b"garbage", 1),))
    assert view.apply(view.View(), batch, skip=frozenset({"pools"}))[0].config_pools == {}
